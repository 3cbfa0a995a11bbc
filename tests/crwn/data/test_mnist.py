"""MNIST under all of its files' names, and the real set if it is available."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crwn.data import BASE_SETS, Datasets, mnist
from crwn.data.base import BaseSet, DataError, ImageSet
from crwn.data.mnist import MNIST_BASE, SOURCE
from tests.refusals import refused

HEADERS = {"images": bytes([0, 0, 8, 3]) + bytes(12), "labels": bytes([0, 0, 8, 1]) + bytes(4)}
FILES = {
    f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte": HEADERS[kind]
    + bytes(number % 10 for number in range(count * (784 if kind == "images" else 1)))
    for part, count in (("train", 20), ("t10k", 10))
    for kind in ("images", "labels")
}
"""Thirty images, in the format of the real files."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> BaseSet:
    """MNIST with other files, of which the checksums are known."""
    checksums = {f"MNIST/raw/{name}": hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    source = dataclasses.replace(SOURCE, checksums=checksums)
    monkeypatch.setattr(mnist, "SOURCE", source)
    return dataclasses.replace(MNIST_BASE, train_counts=(2,) * 10, test_counts=(1,) * 10, source=source)


def write(root: Path, folder: str, name: str, *, dotted: bool, packed: bool) -> Path:
    """One of the files, under one of its names."""
    place = root / folder / ((name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else ""))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(gzip.compress(FILES[name], mtime=0) if packed else FILES[name])
    return place


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "raw", "."])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_every_name_is_read(small: BaseSet, tmp_path: Path, folder: str, *, dotted: bool, packed: bool) -> None:
    """Gzipped or not, with a dot as some unpackers write it, in torchvision's folder or one above."""
    for name in FILES:
        write(tmp_path, folder, name, dotted=dotted, packed=packed)
    known = Datasets({"mnist": small}, [tmp_path])
    known.verify("mnist")
    images = known.load("mnist")
    assert images.test.images.tobytes() == FILES["t10k-images-idx3-ubyte"][16:]
    assert images.train.labels.tolist() == [*range(10), *range(10)]


def test_names_may_be_mixed(small: BaseSet, tmp_path: Path) -> None:
    """Each of the four files may have another."""
    for name, (dotted, packed) in zip(FILES, itertools.product((False, True), repeat=2), strict=True):
        write(tmp_path, "MNIST/raw", name, dotted=dotted, packed=packed)
    Datasets({"mnist": small}, [tmp_path]).verify("mnist")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda content: content[:-9], "archive-damaged"),
        (lambda content: b"", "checksum-differs"),
        (lambda content: content[:40] + b"a" * 9 + content[49:], "archive-damaged"),
    ],
)
def test_a_packed_file_that_is_damaged_is_named(
    small: BaseSet, tmp_path: Path, damage: Callable[[bytes], bytes], code: str
) -> None:
    """Cut off, empty or changed."""
    places = [write(tmp_path, "MNIST/raw", name, dotted=False, packed=True) for name in FILES]
    places[2].write_bytes(damage(places[2].read_bytes()))
    with refused(DataError, code, says=["'mnist'", str(places[2])]):
        Datasets({"mnist": small}, [tmp_path]).load("mnist")


def test_what_is_packed_has_a_limit(small: BaseSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may unpack to any size, and is not read to its end."""
    monkeypatch.setattr("crwn.data.verified.MAX_UNPACKED", 1000)
    for name in FILES:
        write(tmp_path, "MNIST/raw", name, dotted=False, packed=True)
    with refused(DataError, "unpacks-too-large", says=["train-images-idx3-ubyte.gz", "1000"]):
        Datasets({"mnist": small}, [tmp_path]).find("mnist")


def test_another_sets_files_are_refused(small: BaseSet, tmp_path: Path) -> None:
    """Fashion-MNIST has files of the same names: the checksum tells them apart, packed or not."""
    for name in FILES:
        place = write(tmp_path, "MNIST/raw", name, dotted=False, packed=True)
    place.write_bytes(gzip.compress(FILES[name][:-1] + b"\7"))
    with refused(DataError, "checksum-differs", says="t10k-labels-idx1-ubyte.gz"):
        Datasets({"mnist": small}, [tmp_path]).find("mnist")


# As it is


@pytest.fixture(scope="module")
def root(data_root: Path) -> Path:
    """The data root, if it holds MNIST."""
    if not (data_root / "MNIST").is_dir():
        pytest.skip(f"needs MNIST: {data_root} has no folder MNIST")
    return data_root


def times(root: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [root, *(root / "MNIST").rglob("*")]}


@pytest.fixture(scope="module")
def images(root: Path) -> ImageSet:
    """MNIST, loaded once, after which its folder must be as it was."""
    before = times(root)
    known = Datasets(BASE_SETS, roots=[root])
    known.ensure("mnist")
    images = known.load("mnist")
    assert times(root) == before
    return images


@pytest.mark.data
def test_shapes_types_and_counts_are_as_declared(images: ImageSet) -> None:
    """60,000 training and 10,000 test images of 28x28 bytes with labels 0 to 9."""
    for split, num in ((images.train, 60_000), (images.test, 10_000)):
        assert split.images.shape == (num, 1, 28, 28)
        assert split.images.dtype == np.uint8
        assert split.labels.shape == (num,)
        assert split.labels.dtype == np.int64
    assert tuple(np.bincount(images.train.labels)) == MNIST_BASE.train_counts
    assert tuple(np.bincount(images.test.labels)) == MNIST_BASE.test_counts
    assert (MNIST_BASE.num_train, MNIST_BASE.num_test) == (60_000, 10_000)
    assert MNIST_BASE.image_shape == (1, 28, 28)


@pytest.mark.data
def test_mean_and_deviation_are_the_published_ones(images: ImageSet) -> None:
    """.1307 and .3081 of the training pixels, to four digits."""
    pixels = images.train.images
    mean = pixels.mean(dtype=np.float64) / 255
    deviation = ((pixels.astype(np.float32) ** 2).mean(dtype=np.float64) / 255**2 - mean**2) ** 0.5
    assert (MNIST_BASE.mean, MNIST_BASE.std) == ((0.1307,), (0.3081,))
    assert round(mean, 4) == 0.1307
    assert round(deviation, 4) == 0.3081


@pytest.mark.data
def test_the_order_is_that_of_the_files(images: ImageSet) -> None:
    """The first training images show 5 0 4 1 9, the first test images 7 2 1 0 4, as in every copy of MNIST."""
    assert images.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
