"""A user's own base sets: found, checked all at once, split by their pixels, named by their content."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from crwn.data import BASE_SETS, DataError, Datasets, own
from crwn.data.base import BaseSet
from crwn.data.own import FolderSpec, ParquetSpec, own_set
from crwn.plugins import DefinedSet
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("no_plugins")

SIZE, EACH = 8, 10
NAMES = ["b", "a", "Z"]
"""Classes, whose order by bytes is Z, a, b."""


def picture(seed: int, size: int = SIZE) -> Image.Image:
    """A random picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with ten pictures of each of three classes, and a README."""
    top = tmp_path / "photos"
    for label, name in enumerate(NAMES):
        (top / name).mkdir(parents=True)
        for number in range(EACH):
            picture(100 * label + number).save(top / name / f"{number}.png")
    (top / "README.txt").write_text("Mine.")
    (top / "a" / ".hidden").write_text("no picture")
    (top / "a" / "Thumbs.db").write_text("no picture")
    return top


def defined(path: Path, **settings: Any) -> BaseSet:
    """A set of a folder of small images."""
    return own_set(FolderSpec(**{"path": "photos", "size": SIZE, **settings}), path)


def images_of(base: BaseSet) -> Any:
    """The images of a set."""
    return Datasets({base.name: base}, roots=()).load(base.name)


def test_a_folder_is_a_base_set(photos: Path) -> None:
    """Counts, labels and normalisation are those of its files; classes are in the order of their names' bytes."""
    base = defined(photos)
    assert (base.image_shape, base.train_counts, base.test_counts) == ((3, SIZE, SIZE), (8,) * 3, (2,) * 3)
    images = images_of(base)
    pixels = images.train.images / 255
    assert np.allclose(base.mean, pixels.mean(axis=(0, 2, 3)))
    assert np.allclose(base.std, pixels.std(axis=(0, 2, 3)))
    first = {split.images[0].tobytes() for split in (images.train, images.test)}
    assert first <= {np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() for file in (photos / "Z").iterdir()}
    Datasets({base.name: base}, roots=()).verify(base.name)


def test_the_name_is_that_of_the_content(photos: Path, tmp_path: Path) -> None:
    """Path, file names and layout do not matter; pixels, classes, split, size and channels do."""
    name = defined(photos).name
    other = shutil.copytree(photos, tmp_path / "elsewhere")
    (other / "a").rename(other / "aa")  # the same order
    (other / "b" / "0.png").rename(other / "b" / "first.png")
    assert defined(other).name == name
    rows = [(file.read_bytes(), folder) for folder in NAMES for file in sorted((photos / folder).glob("*.png"))]
    table = pa.table({"picture": [content for content, _ in rows], "kind": [folder for _, folder in rows]})
    parquet.write_table(table, tmp_path / "photos.parquet")
    spec = ParquetSpec(path="photos.parquet", size=SIZE, image="picture", label="kind")
    assert own_set(spec, tmp_path / "photos.parquet").name == name
    assert own_set(spec, tmp_path / "*.parquet").name == name
    others = [
        defined(photos, **change).name
        for change in ({"size": 4}, {"channels": 1}, {"test_share": 0.5}, {"split_seed": 1})
    ]
    (other / "aa").rename(other / "c")
    others.append(defined(other).name)
    assert len({name, *others}) == 6


def test_an_unchanged_folder_is_not_decoded_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file is, even with the same size and modification time."""
    base = defined(photos)
    with monkeypatch.context() as patched:
        patched.setattr(own, "decode_all", None)
        assert defined(photos) == base
    file = photos / "a" / "0.png"
    times = file.stat()
    content = bytearray(file.read_bytes())
    picture(999).save(file)
    file.write_bytes(file.read_bytes().ljust(len(content), b"\0"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert defined(photos).name != base.name


def test_a_split_that_the_folders_give_is_kept(photos: Path, tmp_path: Path) -> None:
    """Folders train and test; then nothing is drawn, and a share or a seed is refused."""
    top = tmp_path / "split"
    for part, numbers in (("train", range(7)), ("test", range(7, EACH))):
        for name in NAMES:
            (top / part / name).mkdir(parents=True)
            for number in numbers:
                shutil.copy(photos / name / f"{number}.png", top / part / name)
    base = defined(top)
    assert (base.train_counts, base.test_counts) == ((7,) * 3, (3,) * 3)
    with refused(DataError, "split-given-twice", says=["test_share", "split_seed"]):
        defined(top, test_share=0.2, split_seed=0)
    shutil.rmtree(top / "test" / "b")
    (top / "val").mkdir()
    with refused(DataError, "folder-beside-split", "classes-differ", says=["val", "test lacks", "b"]):
        defined(top)


def test_equal_images_are_on_one_side(photos: Path) -> None:
    """Five copies of a picture are all training images or all test images."""
    for number in range(1, 5):
        shutil.copy(photos / "a" / "0.png", photos / "a" / f"{number}.png")
    images = images_of(defined(photos, test_share=0.5))
    assert not {image.tobytes() for image in images.train.images} & {image.tobytes() for image in images.test.images}
    for number in range(5, EACH):
        shutil.copy(photos / "a" / "0.png", photos / "a" / f"{number}.png")
    with refused(DataError, "images-all-alike", says=["a"]):
        defined(photos)


def test_an_image_more_moves_hardly_any_other(photos: Path) -> None:
    """Test images stay test images, except for those that it displaces."""
    before = {image.tobytes() for image in images_of(defined(photos)).test.images}
    picture(999).save(photos / "a" / "more.png")
    after = {image.tobytes() for image in images_of(defined(photos)).test.images}
    assert len(before - after) <= 1


def test_all_faults_of_a_folder_are_said_at_once(tmp_path: Path) -> None:
    """One class, links out of the folder, other files among images, broken and huge images, images without a class."""
    top = tmp_path / "photos"
    (top / "a" / "deeper").mkdir(parents=True)
    (tmp_path / "out.png").write_bytes(b"")
    (top / "a" / "out.png").symlink_to(tmp_path / "out.png")
    (top / "a" / "gone.png").symlink_to(top / "nothing.png")
    (top / "a" / "notes.txt").write_text("text")
    (top / "a" / "broken.png").write_bytes(b"no picture")
    Image.new("1", (10_001, 10_000)).save(top / "a" / "huge.png")
    picture(0).save(top / "alone.png")
    (top / "b").symlink_to(tmp_path)
    with refused(
        DataError,
        "image-without-class",
        "path-leads-out",
        "folder-in-class",
        "link-to-no-file",
        "file-no-image",
        "classes-too-few",
        "image-of-no-known-format",
        "image-too-large",
        says=["out.png", "gone.png", "notes.txt", "broken.png", "huge.png", "alone.png", "deeper", "photos/b"],
    ):
        defined(top)
    assert not list((Path.home() / ".cache" / "crwn" / "own").glob("images-*"))


def test_a_path_without_images_is_refused(tmp_path: Path, photos: Path) -> None:
    """No folder, a folder without classes, a class without images or with only one."""
    with refused(DataError, "not-a-folder", says=["nowhere"]):
        defined(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with refused(DataError, "classes-too-few", says=["none"]):
        defined(tmp_path / "empty")
    (photos / "c").mkdir()
    (photos / "d").mkdir()
    picture(5).save(photos / "d" / "only.png")
    with refused(DataError, "folder-without-images", "images-too-few", says=["photos/c", "d"]):
        defined(photos)
    with refused(DataError, "file-missing", says=["*.parquet"]):
        own_set(ParquetSpec(path="*.parquet", size=SIZE), tmp_path / "*.parquet")


def test_parquet_files_may_be_the_split(tmp_path: Path) -> None:
    """Files named train and test; integers as classes, in the order of their values; other columns are refused."""
    for part, numbers in (("train", range(6)), ("test", range(6, 9))):
        file = tmp_path / f"{part}-0.parquet"
        contents = []
        for number in numbers:
            picture(number).save(tmp_path / "one.png")
            contents.append({"bytes": (tmp_path / "one.png").read_bytes(), "path": None})
        labels = [10 if number % 3 else 9 for number in numbers]
        parquet.write_table(pa.table({"image": contents, "label": labels}), file)
    spec = ParquetSpec(path=".", size=SIZE)
    base = own_set(spec, tmp_path)
    assert (base.train_counts, base.test_counts) == ((2, 4), (1, 2))
    with refused(DataError, "columns-missing", says=["class", "label"]):
        own_set(dataclasses.replace(spec, label="class"), tmp_path)
    (tmp_path / "test-0.parquet").rename(tmp_path / "more.parquet")
    with refused(DataError, "split-incomplete", "classes-differ", says=["more.parquet", "train-0.parquet"]):
        own_set(spec, tmp_path)


def test_a_worker_gets_the_set_and_refuses_other_images(photos: Path, cache: Path) -> None:
    """The worker adds the definition, decodes the images if its cache lacks them, and compares their checksum."""
    base = defined(photos)
    sent = pickle.dumps(DefinedSet(base=base))
    assert base.name not in BASE_SETS
    for _ in range(2):
        pickle.loads(sent)  # noqa: S301 (our own, as between a run and its workers)
    assert BASE_SETS[base.name] == base
    shutil.rmtree(cache)
    data = Datasets(BASE_SETS, roots=())
    assert data.find(base.name) == photos
    assert len(data.load(base.name).train.images) == base.num_train
    assert data.ensure(base.name)
    shutil.rmtree(cache)
    (photos / "a" / "0.png").unlink()
    with refused(DataError, "images-differ", says=[base.name, str(photos)]):
        Datasets(BASE_SETS, roots=()).load(base.name)
    shutil.rmtree(cache)
    shutil.rmtree(photos)
    with refused(DataError, "data-set-missing", says=[base.name, str(photos)]):
        Datasets(BASE_SETS, roots=()).load(base.name)
    with refused(DataError, "data-set-missing", "download-not-known", says=[str(photos)]):
        Datasets(BASE_SETS, roots=()).ensure(base.name)


def test_a_damaged_cache_is_refused(photos: Path, cache: Path) -> None:
    """A check finds changed pixels, and every load a changed length."""
    base = defined(photos)
    data = Datasets({base.name: base}, roots=())
    file = cache / "own" / base.name / "train.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with refused(DataError, "cache-damaged", says=[base.name]):
        data.verify(base.name)
    file.write_bytes(content[:-1])
    with refused(DataError, "cache-damaged", says=[base.name]):
        Datasets({base.name: base}, roots=()).load(base.name)
