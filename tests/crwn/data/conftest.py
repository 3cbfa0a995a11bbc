"""A small set of photographs, laid out in each of the forms that people have."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from crwn.data.layouts import ClassFolders, ParquetFiles, PickledArrays
from crwn.data.photographs import Photographs

CLASSES = ["n03", "n01", "n02"]
TRAIN_EACH, TEST_EACH, SIZE = 4, 2, 8
Pixels = NDArray[np.uint8]
Classes = Mapping[str, list[Pixels]]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder of the test's own, without $CRWN_DATA; gives the cache folder, which is not there yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CRWN_DATA", raising=False)
    return tmp_path / "home" / ".cache" / "crwn"


@pytest.fixture
def classes() -> dict[str, list[Pixels]]:
    """Six random images [H, W, 3] of each of three classes, whose names are not in order."""
    generator = np.random.default_rng(0)
    each = TRAIN_EACH + TEST_EACH
    return {name: list(generator.integers(0, 256, (each, SIZE, SIZE, 3), dtype=np.uint8)) for name in CLASSES}


@pytest.fixture
def photographs() -> Photographs:
    """A set of this size that may be found in any form."""
    layouts = (
        ParquetFiles(folder="toy", image="image", label="wnid"),
        PickledArrays(folder="toy"),
        ClassFolders(folder="toy"),
    )
    return Photographs(
        image_shape=(3, SIZE, SIZE), num_classes=3, train_each=TRAIN_EACH, test_each=TEST_EACH, layouts=layouts
    )


def encoded(pixels: Pixels, form: str = "PNG") -> bytes:
    """Without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write_parquet(folder: Path, classes: Classes) -> None:
    """Training and test images in files of their own, the classes taking turns."""
    for part, chosen in (("test", slice(TRAIN_EACH, None)), ("train", slice(TRAIN_EACH))):
        rows = [
            {"image": {"bytes": encoded(image), "path": f"{name}.png"}, "wnid": name, "label": CLASSES.index(name)}
            for images in zip(*(classes[name][chosen] for name in classes), strict=True)
            for name, image in zip(classes, images, strict=True)
        ]
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"{part}-00000-of-00001.parquet")


def write_class_dict(folder: Path, classes: Classes, train_each: int = TRAIN_EACH) -> None:
    """`image_data` and `class_dict`, a file for each part."""
    for part, chosen in (("test", slice(train_each, None)), ("train", slice(train_each))):
        images = [image for name in classes for image in classes[name][chosen]]
        each = len(images) // len(classes)
        members = {name: list(range(place * each, (place + 1) * each)) for place, name in enumerate(classes)}
        write_pickle(
            folder / f"mini-imagenet-cache-{part}.pkl", {"image_data": np.stack(images), "class_dict": members}
        )


def write_labels(folder: Path, classes: Classes) -> None:
    """`data` and `labels` with the classes' names, all in one file of the second version of the protocol."""
    images = np.stack([image for name in classes for image in classes[name]])
    labels = [place for place, name in enumerate(classes) for _ in classes[name]]
    names = {name: place for place, name in enumerate(classes)}
    content = {"data": images, "labels": labels, "catname2label": names}
    write_pickle(folder / "miniImageNet_category_split_train.pickle", content, protocol=2)


def write_pickle(path: Path, content: Any, protocol: int = 4) -> None:
    """As anyone would."""
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def write_folders(folder: Path, classes: Classes) -> None:
    """A folder for each class."""
    for name, images in classes.items():
        (folder / name).mkdir()
        for number, image in enumerate(images):
            (folder / name / f"{name}_{number:04d}.png").write_bytes(encoded(image))


def write_part_folders(folder: Path, classes: Classes) -> None:
    """`train/CLASS` and `test/CLASS`, with names that would sort the test images first."""
    for part, chosen in (("train", slice(TRAIN_EACH)), ("test", slice(TRAIN_EACH, None))):
        for name, images in classes.items():
            (folder / part / name).mkdir(parents=True)
            for number, image in enumerate(images[chosen]):
                (folder / part / name / f"{part}{number}.png").write_bytes(encoded(image))


def write_lists(folder: Path, classes: Classes) -> None:
    """All images in one folder, in an order that only the lists tell; each class in one of three lists."""
    (folder / "images").mkdir()
    for part, (name, images) in zip(("val", "test", "train"), classes.items(), strict=True):
        with (folder / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "label"])
            for number, image in enumerate(images):
                file_name = f"{name}{99 - number:08d}.png"
                (folder / "images" / file_name).write_bytes(encoded(image))
                writer.writerow([file_name, name])


FORMS: dict[str, Callable[[Path, Classes], None]] = {
    "Parquet": write_parquet,
    "class_dict": write_class_dict,
    "labels": write_labels,
    "folders": write_folders,
    "folders of parts": write_part_folders,
    "lists": write_lists,
}


@pytest.fixture
def laid_out(tmp_path: Path, classes: dict[str, list[Pixels]]) -> Callable[..., Path]:
    """Lays the set out in a form, below a data root of its own."""

    def lay_out(form: str, images: Classes = classes) -> Path:
        root = tmp_path / form
        (root / "toy").mkdir(parents=True)
        FORMS[form](root / "toy", images)
        return root

    return lay_out
