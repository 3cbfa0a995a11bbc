"""The forms in which sets of photographs are read, and what is refused in each."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crwn.data.base import DataError
from crwn.data.layouts import ClassFolders, ParquetFiles, PickledArrays, in_parts, named, read_pickle
from crwn.data.photographs import Photographs
from tests.crwn.data.conftest import CLASSES, FORMS, TEST_EACH, TRAIN_EACH, write_parquet, write_pickle

Pixels = NDArray[np.uint8]
LaidOut = Callable[..., Path]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_set(
    form: str, laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]]
) -> None:
    """The first images of each class train, the last are for testing; labels follow the sorted names of the classes."""
    images = photographs.load(laid_out(form))
    for split, chosen, each in (
        (images.train, slice(TRAIN_EACH), TRAIN_EACH),
        (images.test, slice(TRAIN_EACH, None), TEST_EACH),
    ):
        assert split.labels.tolist() == [label for label in range(3) for _ in range(each)]
        for label, name in enumerate(sorted(CLASSES)):
            expected = sorted(image.transpose(2, 0, 1).tobytes() for image in classes[name][chosen])
            assert sorted(image.tobytes() for image in split.images[split.labels == label]) == expected


@pytest.mark.parametrize("form", FORMS)
def test_the_arrays_are_the_same_whatever_the_form(form: str, laid_out: LaidOut, photographs: Photographs) -> None:
    """Not only the sets of images but their order, so that a trial's numbers do not depend on the form."""
    reference, images = photographs.load(laid_out("folders")), None
    images = reference if form == "folders" else photographs.load(laid_out(form))
    assert np.array_equal(images.train.images, reference.train.images)
    assert np.array_equal(images.test.images, reference.test.images)


@pytest.mark.parametrize("layout", [ParquetFiles(folder="toy", image="i", label="l"), PickledArrays(folder="toy")])
def test_a_form_that_is_not_there_has_no_files(layout: ParquetFiles | PickledArrays, tmp_path: Path) -> None:
    """Neither without the folder nor where the folder has another form."""
    assert layout.files(tmp_path) == []
    (tmp_path / "toy" / "n01").mkdir(parents=True)
    (tmp_path / "toy" / "n01" / "1.jpg").touch()
    assert layout.files(tmp_path) == []
    assert ClassFolders(folder="toy").files(tmp_path) == [tmp_path / "toy" / "n01" / "1.jpg"]


def test_parts_come_in_the_order_of_learning() -> None:
    """Training, validation, test, whatever the alphabet says; words that only contain a part are none."""
    names = ["test-1.parquet", "train-2.parquet", "train-1.parquet", "a_val.csv", "constraint.csv", "cache-test.pkl"]
    ordered = ["train-1.parquet", "train-2.parquet", "a_val.csv", "cache-test.pkl", "test-1.parquet", "constraint.csv"]
    assert [path.name for path in in_parts([Path(name) for name in names])] == ordered


def test_only_a_few_faults_are_named() -> None:
    """Of many there is a number."""
    assert named(["a", "b"]) == "a, b"
    assert named([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


# Parquet


def test_parquet_with_other_columns_is_refused(tmp_path: Path, classes: dict[str, list[Pixels]]) -> None:
    """The file is named, with the columns that were expected."""
    write_parquet(tmp_path, classes)
    layout = ParquetFiles(folder=".", image="img", label="fine_label")
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet cannot be read: expected .*img\{bytes, path\}"):
        layout.pictures(tmp_path)


def test_parquet_that_is_cut_off_is_refused(laid_out: LaidOut, photographs: Photographs) -> None:
    """The file is named."""
    root = laid_out("Parquet")
    file = root / "toy" / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=re.escape(f"{file} cannot be read")):
        photographs.load(root)


# Folders and lists


def test_images_that_a_list_names_must_be_there(laid_out: LaidOut, photographs: Photographs) -> None:
    """All that are missing are named at once, with their list."""
    root = laid_out("lists")
    for name in ("n0100000099.png", "n0300000095.png"):
        (root / "toy" / "images" / name).unlink()
    expected = "toy lacks n0300000095.png (val.csv), n0100000099.png (test.csv) that its lists name"
    with pytest.raises(DataError, match=re.escape(expected)):
        photographs.load(root)


def test_a_list_has_two_columns(laid_out: LaidOut, photographs: Photographs) -> None:
    """The list is named, with what it has instead."""
    root = laid_out("lists")
    (root / "toy" / "train.csv").write_text("file,class\na.png,n01\n")
    with pytest.raises(
        DataError, match=r"train.csv: expected the columns filename and label, found \['file', 'class'\]"
    ):
        photographs.load(root)


def test_equal_names_in_two_classes_are_two_images(
    tmp_path: Path, photographs: Photographs, classes: dict[str, list[Pixels]], laid_out: LaidOut
) -> None:
    """Where the lists' images lie in a folder for each class, a name is looked up in its own class's folder."""
    root = laid_out("folders")
    rows = ["filename,label"]
    for name in CLASSES:
        for number, path in enumerate(sorted((root / "toy" / name).iterdir())):
            path.rename(path.with_name(f"{number}.png"))
            rows.append(f"{number}.png,{name}")
    (root / "toy" / "train.csv").write_text("\n".join(rows) + "\n")
    images = photographs.load(root)
    assert np.array_equal(images.train.images, photographs.load(laid_out("class_dict")).train.images)


def test_an_empty_class_is_named(laid_out: LaidOut, photographs: Photographs) -> None:
    """A folder without images is a class that is missing."""
    root = laid_out("folders")
    (root / "toy" / "n04").mkdir()
    (root / "toy" / "n04" / "readme.txt").touch()
    with pytest.raises(DataError, match=r"n04 holds no images"):
        photographs.load(root)


# Pickles


class Hostile:
    """Writes a file when it is unpickled by an ordinary reader."""

    def __init__(self, path: Path, call: Callable[..., Any]) -> None:
        self._path = path
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        """What pickle would call."""
        text = f"touch {self._path}" if self._call is os.system else f"open({str(self._path)!r}, 'w').close()"
        return self._call, (text,)


@pytest.mark.parametrize("call", [os.system, eval, exec])
def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, call: Callable[..., Any], photographs: Photographs, laid_out: LaidOut
) -> None:
    """A stranger's cache cannot do anything: what it would call is named, and refused before it is called."""
    root = laid_out("class_dict")
    mark = tmp_path / "run"
    for content in (Hostile(mark, call), {"image_data": Hostile(mark, call), "class_dict": {}}):
        write_pickle(root / "toy" / "mini-imagenet-cache-train.pkl", content)
        with pytest.raises(
            DataError, match=r"cannot be read as a pickle of arrays, .* it names \w+\.(system|eval|exec)"
        ):
            photographs.load(root)
        assert not mark.exists()


def test_the_hostile_pickle_is_hostile(tmp_path: Path) -> None:
    """Read by pickle itself, the same bytes do run."""
    pickle.loads(pickle.dumps(Hostile(tmp_path / "run", exec)))  # noqa: S301 (that is the point)
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["numpy.lib.npyio\nload", "numpy.testing._private.utils\nrunstring", "builtins\ngetattr"]
)
def test_numpys_own_functions_are_no_exception(tmp_path: Path, name: str) -> None:
    """Only what builds an array or a number is let through, not all of NumPy."""
    (tmp_path / "file").write_bytes(b"c" + name.encode() + b"\n(S'x'\ntR.")
    with pytest.raises(DataError, match=f"it names {name.splitlines()[0]}.{name.splitlines()[1]}"):
        read_pickle(tmp_path / "file")


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """Keys and arrays as bytes of text, as the published caches have them."""
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    content = {b"image_data": array, "labels": [np.int64(3)]}
    write_pickle(tmp_path / "file", content, protocol=2)
    read = read_pickle(tmp_path / "file")
    assert np.array_equal(read[b"image_data"], array)
    assert read["labels"] == [3]


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", b"\x80\x04N"])
def test_a_damaged_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    """Cut off or something else altogether."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'file'} cannot be read as a pickle of arrays")):
        read_pickle(tmp_path / "file")


IMAGES = np.zeros((2, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([1, 2], "expected a dictionary, found list"),
        ({"images": IMAGES}, r"expected .*image_data and class_dict.*; found the keys \['images'\]"),
        ({"data": IMAGES.astype(np.float32), "labels": [0, 1]}, r"found float32 \(2, 8, 8, 3\)"),
        ({"data": [1, 2], "labels": [0, 1]}, "as unsigned bytes .* found list"),
        ({"data": IMAGES, "labels": [0, 1, 2]}, "names the image 2 of 2"),
        ({"image_data": IMAGES, "class_dict": {"n01": [-1]}}, "class n01 names the image -1 of 2"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: Any, fault: str) -> None:
    """The file is named, with what it has."""
    write_pickle(tmp_path / "cache.pkl", content)
    with pytest.raises(DataError, match=rf"cache.pkl: .*{fault}"):
        PickledArrays(folder=".").pictures(tmp_path)


def test_classes_without_names_are_told_apart_by_file(tmp_path: Path) -> None:
    """Class 0 of one file is not class 0 of the next."""
    for part in ("train", "test"):
        write_pickle(tmp_path / f"{part}.pkl", {"data": IMAGES, "labels": [0, 1]})
    names = [picture.class_name for picture in PickledArrays(folder=".").pictures(tmp_path)]
    assert names == ["train 00000", "train 00001", "test 00000", "test 00001"]
