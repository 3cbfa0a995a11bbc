"""CIFAR-100 from torchvision's own folder and from Parquet."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest

from crwn.data import BASE_SETS, Datasets
from crwn.data.base import DataError
from crwn.data.cifar100 import CIFAR100_BASE, PackedFolder, TorchvisionFolder
from crwn.data.layouts import ParquetFiles
from crwn.data.photographs import Photographs
from tests.crwn.data.conftest import encoded, write_pickle
from tests.refusals import refused


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with twelve images in torchvision's form, whose checksums torchvision then expects."""
    from torchvision.datasets import CIFAR100

    generator = np.random.default_rng(0)
    lists = []
    (tmp_path / "cifar-100-python").mkdir()
    for part, count in (("train", 8), ("test", 4)):
        labels = [number % 2 for number in range(count)]
        content = {"data": generator.integers(0, 256, (count, 3072), dtype=np.uint8), "fine_labels": labels}
        file = tmp_path / "cifar-100-python" / part
        write_pickle(file, content)
        lists.append([part, hashlib.md5(file.read_bytes()).hexdigest()])  # noqa: S324 (torchvision's checksum)
    write_pickle(tmp_path / "cifar-100-python" / "meta", {"fine_label_names": ["apple", "worm"]})
    meta = hashlib.md5((tmp_path / "cifar-100-python" / "meta").read_bytes()).hexdigest()  # noqa: S324 (as above)
    monkeypatch.setattr(CIFAR100, "train_list", [lists[0]])
    monkeypatch.setattr(CIFAR100, "test_list", [lists[1]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": meta})
    return tmp_path


SMALL = Photographs(
    image_shape=(3, 32, 32),
    num_classes=2,
    train_each=4,
    test_each=2,
    layouts=(ParquetFiles(folder="cifar100", image="img", label="fine_label"), TorchvisionFolder(), PackedFolder()),
)


def test_torchvisions_folder_and_parquet_give_the_same_set(folder: Path, tmp_path: Path) -> None:
    """Though the Parquet files list the images backwards: the same arrays, byte for byte."""
    import pyarrow as pa
    from pyarrow import parquet
    from torchvision.datasets import CIFAR100

    images = SMALL.load(folder)
    assert images.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    other = tmp_path / "other"
    (other / "cifar100").mkdir(parents=True)
    for part in ("train", "test"):
        dataset = CIFAR100(str(folder), train=part == "train")
        rows = [
            {"img": {"bytes": encoded(image), "path": "a.png"}, "fine_label": label, "coarse_label": 0}
            for image, label in reversed(list(zip(dataset.data, dataset.targets, strict=True)))
        ]
        parquet.write_table(pa.Table.from_pylist(rows), other / "cifar100" / f"{part}-00000-of-00001.parquet")
    again = SMALL.load(other)
    assert np.array_equal(images.train.images, again.train.images)
    assert np.array_equal(images.test.images, again.test.images)


def test_pixels_are_those_that_torchvision_gives(folder: Path) -> None:
    """Every training image, channels first."""
    from torchvision.datasets import CIFAR100

    images, dataset = SMALL.load(folder), CIFAR100(str(folder), train=True)
    for label in (0, 1):
        theirs = sorted(dataset.data[number].transpose(2, 0, 1).tobytes() for number in range(label, 8, 2))
        assert sorted(image.tobytes() for image in images.train.images[images.train.labels == label]) == theirs


def test_a_damaged_folder_is_refused_before_it_is_read(folder: Path) -> None:
    """torchvision compares checksums; the error names the folder and says what to do."""
    (folder / "cifar-100-python" / "train").write_bytes(b"\x80\x04N.")
    with refused(DataError, "archive-damaged", says="cifar-100-python"):
        SMALL.load(folder)


def test_a_part_of_the_folder_is_no_set(folder: Path) -> None:
    """Both files of images must be there."""
    (folder / "cifar-100-python" / "test").unlink()
    assert not SMALL.is_in(folder)


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    """A data root with the same images in the archive, not unpacked."""
    (tmp_path / "packed").mkdir()
    file = tmp_path / "packed" / "cifar-100-python.tar.gz"
    with tarfile.open(file, "w:gz") as opened:
        opened.add(folder / "cifar-100-python", "cifar-100-python")
    return file


def test_the_archive_gives_the_same_set(folder: Path, archive: Path) -> None:
    """The archive is read as it was downloaded."""
    images, expected = SMALL.load(archive.parent), SMALL.load(folder)
    assert np.array_equal(images.train.images, expected.train.images)
    assert np.array_equal(images.test.images, expected.test.images)


def test_a_damaged_archive_is_named(archive: Path) -> None:
    """Truncated, without a file of images, or with a file of something else; nothing in it is run."""
    whole = archive.read_bytes()
    for content in (whole[:-100], whole[:300], b"", b"none"):
        archive.write_bytes(content)
        with refused(DataError, "archive-damaged", says=str(archive)):
            SMALL.load(archive.parent)
    for name, code, fact in (("other", "archive-damaged", "not found"), ("train", "arrays-missing", "[N, 3072]")):
        with tarfile.open(archive, "w:gz") as opened:
            write_pickle(archive.parent / "file", {"data": [1], "fine_labels": [1]})
            opened.add(archive.parent / "file", f"cifar-100-python/{name}")
        with refused(DataError, code, says=fact):
            SMALL.load(archive.parent)


@pytest.mark.data
@pytest.mark.slow(reason="60,000 images are decoded twice")
def test_cifar100_as_it_is(data_root: Path) -> None:
    """The whole set: counts, the checksum over all images, and the published mean and deviation of its pixels."""
    if not (data_root / "cifar100").is_dir():
        pytest.skip(f"needs CIFAR-100: {data_root} has no folder cifar100")
    known = Datasets(BASE_SETS, roots=[data_root])
    assert known.ensure("cifar100") == ()
    known.verify("cifar100")
    images = known.load("cifar100").train.images
    assert np.bincount(known.load("cifar100").test.labels).tolist() == [100] * 100
    means = [images[:, channel].mean(dtype=np.float64) / 255 for channel in range(3)]
    assert means == pytest.approx([0.50708, 0.48655, 0.44092], abs=1e-5)


def test_what_the_paper_normalises_by() -> None:
    """Mean (.491, .482, .447), deviation (.247, .243, .262)."""
    assert CIFAR100_BASE.mean == (0.491, 0.482, 0.447)
    assert CIFAR100_BASE.std == (0.247, 0.243, 0.262)
    assert dataclasses.astuple(CIFAR100_BASE.normalisation) == (CIFAR100_BASE.mean, CIFAR100_BASE.std)
