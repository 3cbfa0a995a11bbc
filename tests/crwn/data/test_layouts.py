"""The forms in which sets of photographs are read, and what is refused in each."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from crwn.data.base import DataError
from crwn.data.layouts import ClassFolders, ParquetFiles, PickledArrays, in_parts, named, read_pickle
from crwn.data.listing import files_in
from crwn.data.photographs import Photographs
from tests.crwn.data.conftest import CLASSES, FORMS, TEST_EACH, TRAIN_EACH, write_parquet, write_pickle
from tests.refusals import refused

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
    """The images and their order are the same, so a trial's numbers do not depend on the layout."""
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
    """The others are counted."""
    assert named(["a", "b"]) == "a, b"
    assert named([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


# Parquet


def test_parquet_with_other_columns_is_refused(tmp_path: Path, classes: dict[str, list[Pixels]]) -> None:
    """The file is named, with the columns that were expected."""
    write_parquet(tmp_path, classes)
    layout = ParquetFiles(folder=".", image="img", label="fine_label")
    with refused(DataError, "columns-missing", says=["train-00000-of-00001.parquet", "img{bytes, path}", "fine_label"]):
        layout.pictures(tmp_path)


def test_parquet_that_is_cut_off_is_refused(laid_out: LaidOut, photographs: Photographs) -> None:
    """The file is named."""
    root = laid_out("Parquet")
    file = root / "toy" / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with refused(DataError, "parquet-unreadable", says=str(file)):
        photographs.load(root)


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a Parquet file's table."""
    parquet.write_table(change(parquet.read_table(file)), file)


def column(table: pa.Table, name: str, values: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    """The table with other values in a column."""
    return table.set_column(table.schema.names.index(name), name, pa.array(values, kind))


TEST_FILE = "test-00000-of-00001.parquet"
WITHOUT_BYTES = {"bytes": None, "path": "a.png"}


@pytest.mark.parametrize(
    ("change", "code", "facts"),
    [
        (
            lambda table: column(table, "wnid", [None, *table["wnid"].to_pylist()[1:]]),
            "row-incomplete",
            [f"{TEST_FILE}: ", "row 0 ", "wnid"],
        ),
        (
            lambda table: column(table, "image", [*table["image"].to_pylist()[:5], WITHOUT_BYTES]),
            "row-incomplete",
            [f"{TEST_FILE}: ", "row 5 ", "image"],
        ),
        (
            lambda table: column(table, "image", [None] * 6, table["image"].type),
            "row-incomplete",
            ["row 0 ", "row 1 ", "row 5 ", "image"],
        ),
        (lambda table: column(table, "image", [[1, 2]] * 6), "column-of-wrong-type", ["image", "int64>"]),
        (
            lambda table: column(table, "wnid", [0.5] * 6),
            "column-of-wrong-type",
            ["wnid", "double"],
        ),
        (
            lambda table: column(table, "wnid", [[1]] * 6),
            "column-of-wrong-type",
            ["wnid", "list<"],
        ),
        (
            lambda table: table.drop_columns(["wnid"]),
            "columns-missing",
            ["image, label", "wnid"],
        ),
        (
            lambda table: table.select(["label"]),
            "columns-missing",
            [TEST_FILE, "wnid"],
        ),
        (
            lambda table: column(table, "wnid", table["label"].to_pylist()),
            "classes-of-two-kinds",
            ["'n03'", "train", "(0, "],
        ),
    ],
)
def test_what_is_wrong_in_a_parquet_file_is_said(
    change: Callable[[pa.Table], pa.Table], code: str, facts: list[str], laid_out: LaidOut, photographs: Photographs
) -> None:
    """The error is one line with the file and the row or column, and never names columns of the reader's own."""
    root = laid_out("Parquet")
    rewrite(root / "toy" / "test-00000-of-00001.parquet", change)
    with refused(DataError, code, says=facts) as caught:
        photographs.load(root)
    assert len(str(caught.value).splitlines()) == 1
    assert "__" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: column(table, "image", [image["bytes"] for image in table["image"].to_pylist()]),
        lambda table: column(table, "wnid", table["wnid"].dictionary_encode().to_pylist(), pa.large_string()),
        lambda table: table.set_column(2, "label", table["label"].cast(pa.int8())).append_column("more", table["wnid"]),
    ],
)
def test_parquet_in_other_words_is_the_same_set(
    change: Callable[[pa.Table], pa.Table], laid_out: LaidOut, photographs: Photographs
) -> None:
    """Images as plain binary, other text types, extra columns, in one of two files."""
    expected = photographs.load(laid_out("folders"))
    root = laid_out("Parquet")
    rewrite(root / "toy" / "test-00000-of-00001.parquet", change)
    assert np.array_equal(photographs.load(root).test.images, expected.test.images)


def test_shards_and_an_empty_one_are_one_set(laid_out: LaidOut, photographs: Photographs) -> None:
    """In the order of their names; one without rows has nothing to add, whatever types its columns have."""
    expected = photographs.load(laid_out("folders"))
    folder = laid_out("Parquet") / "toy"
    whole = folder / "train-00000-of-00001.parquet"
    table = parquet.read_table(whole)
    whole.unlink()
    for number, part in enumerate((table[:5], table[5:])):
        parquet.write_table(part, folder / f"train-0000{number}-of-00003.parquet")
    empty = pa.table({"image": pa.nulls(0), "wnid": pa.nulls(0)})
    parquet.write_table(empty, folder / "train-00002-of-00003.parquet")
    assert np.array_equal(photographs.load(folder.parent).train.images, expected.train.images)


@pytest.mark.parametrize("form", ["Parquet", "class_dict", "lists"])
def test_hidden_files_are_no_part_of_a_set(form: str, laid_out: LaidOut, photographs: Photographs) -> None:
    """Such as the ._ files that macOS archives leave next to each file."""
    root = laid_out(form)
    expected = photographs.load(root)
    for file in list((root / "toy").iterdir()):
        if file.is_file():
            file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
    assert np.array_equal(photographs.load(root).train.images, expected.train.images)


# Folders and lists


def test_images_that_a_list_names_must_be_there(laid_out: LaidOut, photographs: Photographs) -> None:
    """All missing images are named at once, with their list."""
    root = laid_out("lists")
    for name in ("n0100000099.png", "n0300000095.png"):
        (root / "toy" / "images" / name).unlink()
    with refused(DataError, "images-missing", says=["toy", "n0300000095.png (val.csv), n0100000099.png (test.csv)"]):
        photographs.load(root)


def test_a_list_has_two_columns(laid_out: LaidOut, photographs: Photographs) -> None:
    """The error names the list and its actual columns."""
    root = laid_out("lists")
    (root / "toy" / "train.csv").write_text("file,class\na.png,n01\n")
    with refused(DataError, "columns-missing", says=["train.csv: ", "filename", "label", "['file', 'class']"]):
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
    with refused(DataError, "folder-without-images", says="n04"):
        photographs.load(root)


@pytest.mark.parametrize("form", ["folders", "folders of parts"])
@pytest.mark.parametrize("place", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".", ".thumbnails/deep"])
def test_hidden_copies_are_no_images(form: str, place: str, laid_out: LaidOut, photographs: Photographs) -> None:
    """Hidden files are ignored in a class's folder and next to it, as are files left by operating systems."""
    root = laid_out(form)
    expected = photographs.load(root).test.images.copy()
    for file in list((root / "toy").rglob("*.png")):
        for folder in (file.parent / place, file.parent.parent / place if place != "." else file.parent):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / f"{'.' if place == '.' else ''}{file.stem}-checkpoint.png")
        (file.parent / "Thumbs.db").touch()
        (file.parent / "desktop.ini").touch()
    assert np.array_equal(photographs.load(root).test.images, expected)


LISTED = b"filename,label\na.png,n01\n"


@pytest.mark.parametrize(
    ("content", "codes", "facts"),
    [
        (b"filename,label\na.png,n01\nb.png\n", "row-incomplete images-missing", ["train.csv, row 3: ", "'b.png'"]),
        (b"filename,label\na.png,n01\nb.png,\n", "row-incomplete images-missing", ["train.csv, row 3: ", "'b.png,'"]),
        (b"filename,label\n\n,n01\n", "row-incomplete", ["train.csv, row 3: ", "',n01'"]),
        (b"filename,label\na.png,n01,4\n", "row-incomplete", ["train.csv, row 2: ", "'a.png,n01,4'"]),
        (
            LISTED.decode().encode("utf-16"),
            "text-not-utf-8",
            ["train.csv", "UTF-16"],
        ),
        (LISTED.decode().encode("utf-16-le"), "text-not-utf-8", ["train.csv"]),
        (LISTED + "é.png,n01\n".encode("latin-1"), "text-not-utf-8", ["train.csv, row 3: ", "0xe9"]),
        (b"filename;label\na.png;n01\n", "columns-missing", ["['filename;label']", "commas"]),
        (b"a.png,n01\nb.png,n01\n", "columns-missing", ["['a.png', 'n01']"]),
        (b"", "columns-missing", ["[]"]),
        (b'filename,label\n"a.png,n01\nb.png,n01\n', "not-csv", ["train.csv", "row 1"]),
        (b"filename,label\n/etc/passwd,n01\n", "path-leads-out", ["train.csv, row 2: ", "'/etc/passwd'"]),
        (b"filename,label\n../../a.png,n01\n", "path-leads-out", ["train.csv, row 2: ", "'../../a.png'"]),
        (b"filename,label\na.png,..\n", "images-missing", ["a.png (train.csv)"]),
        (b"filename,label\n" + b"a" * 300 + b",n01\n", "images-missing", ["aaa (train.csv)"]),
        (b"filename,label\n.ipynb_checkpoints/a.png,n01\n", "image-hidden", ["row 2: ", "'.ipynb_checkpoints/a.png'"]),
    ],
)
def test_what_is_wrong_in_a_list_is_said(
    content: bytes, codes: str, facts: list[str], laid_out: LaidOut, photographs: Photographs, tmp_path: Path
) -> None:
    """The error has the list and the row, counted as in a spreadsheet; nothing outside the set is read."""
    root = laid_out("lists")
    (tmp_path / "a.png").touch()
    (root / "toy" / "train.csv").write_bytes(content)
    with refused(DataError, *codes.split(), says=facts) as caught:
        photographs.load(root)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("encode", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\r\n", b"\n\n")])
@pytest.mark.parametrize("header", [b"filename,label", b'"filename", "label"', b"label,filename", b"filename,label,nr"])
def test_a_list_in_other_words_is_the_same_list(
    encode: Callable[[bytes], bytes], header: bytes, laid_out: LaidOut, photographs: Photographs
) -> None:
    """With a byte order mark, blank lines, quotes, columns in another order, or extra columns."""
    root = laid_out("lists")
    expected = photographs.load(root)
    for file in (root / "toy").glob("*.csv"):
        rows = [row.split(b",") for row in file.read_bytes().splitlines()[1:]]
        if header.startswith(b"label"):
            rows = [row[::-1] for row in rows]
        elif header.endswith(b"nr"):
            rows = [[*row, b"1"] for row in rows]
        lines = [header, *(b",".join(b'"' + cell + b'"' for cell in row) for row in rows)]
        file.write_bytes(encode(b"\r\n".join(lines) + b"\r\n"))
    assert np.array_equal(photographs.load(root).train.images, expected.train.images)


@pytest.mark.parametrize(("list_name", "label"), [("val.csv", "n03"), ("test.csv", "n01")])
def test_an_image_is_listed_once(list_name: str, label: str, laid_out: LaidOut, photographs: Photographs) -> None:
    """Listing it twice is a fault, in one list or two, under one class or two."""
    root = laid_out("lists")
    with (root / "toy" / list_name).open("a") as file:
        file.write(f"n0300000098.png,{label}\r\n")
    expected = rf"{list_name}, row 8: .*n0300000098.png is named a second time, first by .*val.csv, row 3"
    with pytest.raises(DataError, match=expected):
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
    """An untrusted cache cannot run code: what it would call is named and refused before it is called."""
    root = laid_out("class_dict")
    mark = tmp_path / "run"
    for content in (Hostile(mark, call), {"image_data": Hostile(mark, call), "class_dict": {}}):
        write_pickle(root / "toy" / "mini-imagenet-cache-train.pkl", content)
        with refused(DataError, "name-not-allowed", says=f".{call.__name__}"):
            photographs.load(root)
        assert not mark.exists()


def test_the_hostile_pickle_is_hostile(tmp_path: Path) -> None:
    """Loaded with pickle, the same bytes do run code."""
    pickle.loads(pickle.dumps(Hostile(tmp_path / "run", exec)))  # noqa: S301 (that is the point)
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["numpy.lib.npyio\nload", "numpy.testing._private.utils\nrunstring", "builtins\ngetattr"]
)
def test_numpys_own_functions_are_no_exception(tmp_path: Path, name: str) -> None:
    """Only functions that build an array or a number are allowed, not all of NumPy."""
    (tmp_path / "file").write_bytes(b"c" + name.encode() + b"\n(S'x'\ntR.")
    with refused(DataError, "name-not-allowed", says=".".join(name.splitlines())):
        read_pickle(tmp_path / "file")


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """Keys and arrays as bytes of text, as the published caches have them."""
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    content = {b"image_data": array, "labels": [np.int64(3)]}
    write_pickle(tmp_path / "file", content, protocol=2)
    read = read_pickle(tmp_path / "file")
    assert np.array_equal(read[b"image_data"], array)
    assert read["labels"] == [3]


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", b"\x80\x04N", b"\x1f\x8b\x08"])
def test_a_damaged_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    """Truncated, or not a pickle at all."""
    (tmp_path / "file").write_bytes(content)
    with refused(DataError, "pickle-unreadable", says=str(tmp_path / "file")):
        read_pickle(tmp_path / "file")


def test_a_packed_pickle_is_no_pickle(tmp_path: Path) -> None:
    """The error gives the reason in words, not the opcode."""
    (tmp_path / "file").write_bytes(b"\x1f\x8b\x08")
    with refused(DataError, "pickle-unreadable"):
        read_pickle(tmp_path / "file")


def test_names_of_either_case_are_found(tmp_path: Path) -> None:
    """File extensions may be in either case; hidden files and folders do not count."""
    for name in ("TRAIN.PARQUET", "test.parquet", ".x.parquet", "a.csv"):
        (tmp_path / name).touch()
    (tmp_path / "c.parquet").mkdir()
    assert {path.name for path in files_in(tmp_path, "*.parquet")} == {"TRAIN.PARQUET", "test.parquet"}
    assert files_in(tmp_path / "nowhere", "*.parquet") == []


IMAGES = np.zeros((2, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "code", "facts"),
    [
        ([1, 2], "not-a-dictionary", ["list"]),
        ({"images": IMAGES}, "keys-missing", ["image_data", "class_dict", "['images']"]),
        ({"data": IMAGES.astype(np.float32), "labels": [0, 1]}, "images-not-bytes", ["float32 (2, 8, 8, 3)"]),
        ({"data": [1, 2], "labels": [0, 1]}, "images-not-bytes", ["int", "image 0"]),
        ({"data": IMAGES, "labels": [0, 1, 2]}, "row-beyond-images", ["2 of 2"]),
        ({"image_data": IMAGES, "class_dict": {"n01": [-1]}}, "row-beyond-images", ["n01", "-1 of 2"]),
        ({"data": IMAGES}, "keys-missing", ["['data']"]),
        ({"data": IMAGES, 3: 1, b"\xff": 2}, "keys-missing", ["['3', 'data', 'ÿ']"]),
        ({"data": IMAGES, "labels": [0]}, "labels-fewer-than-images", ["1 labels", "2 images"]),
        ({"data": IMAGES, "labels": 3}, "labels-not-a-list", ["found int"]),
        ({"data": IMAGES, "labels": np.zeros((2, 1))}, "labels-not-a-list", ["float64 (2, 1)"]),
        ({"data": IMAGES, "labels": np.zeros(2)}, "label-no-class", ["float64", "image 0"]),
        ({"data": IMAGES, "labels": [0, None]}, "label-no-class", ["NoneType", "image 1"]),
        ({"data": IMAGES, "labels": [0, "n01"]}, "labels-of-two-kinds", ["image 1"]),
        ({"data": IMAGES, "labels": [0, 1], "catname2label": ["n01"]}, "numbers-not-named", ["catname2label", "list"]),
        (
            {"data": IMAGES, "labels": [0, 1], "catname2label": {"n01": None}},
            "numbers-not-named",
            ["catname2label", "dict"],
        ),
        ({"data": IMAGES.transpose(0, 3, 1, 2), "labels": [0, 1]}, "images-not-bytes", ["uint8 (2, 3, 8, 8)"]),
        ({"data": [IMAGES[0], None], "labels": [0, 1]}, "images-not-bytes", ["NoneType", "image 1"]),
        ({"data": [IMAGES[0], IMAGES[0] > 1], "labels": [0, 1]}, "images-not-bytes", ["bool (8, 8, 3)", "image 1"]),
        ({"image_data": IMAGES, "class_dict": [[0], [1]]}, "rows-not-listed", ["class_dict", "list"]),
        ({"image_data": IMAGES, "class_dict": {"n01": 1}}, "rows-not-listed", ["class_dict", "int", "n01"]),
        ({"image_data": IMAGES, "class_dict": {"n01": ["0"]}}, "row-not-an-integer", ["n01", "str"]),
        (
            {"image_data": IMAGES, "class_dict": {"a": [0], "b": [1, 0]}},
            "image-in-two-classes",
            ["image 0 ", "class a", "class b"],
        ),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: Any, code: str, facts: list[str]) -> None:
    """The file is named, with what it has."""
    write_pickle(tmp_path / "cache.pkl", content)
    with refused(DataError, code, says=["cache.pkl: ", *facts]):
        PickledArrays(folder=".").pictures(tmp_path)


def test_classes_without_names_are_told_apart_by_file(tmp_path: Path) -> None:
    """Class 0 of one file is not class 0 of the next."""
    for part in ("train", "test"):
        write_pickle(tmp_path / f"{part}.pkl", {"data": IMAGES, "labels": [0, 1]})
    names = [picture.class_name for picture in PickledArrays(folder=".").pictures(tmp_path)]
    assert names == ["train 00000", "train 00001", "test 00000", "test 00001"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F", "K"])
def test_arrays_of_every_protocol_are_read(tmp_path: Path, protocol: int, order: str) -> None:
    """Whatever the order of their axes in memory, and numbers and text of NumPy's."""
    array = np.arange(24, dtype=">u2").reshape(2, 3, 4)
    array = {"C": array, "F": np.asfortranarray(array), "K": array.transpose(2, 0, 1)}[order]
    content = {
        "a": array,
        "numbers": [np.int64(-3), np.float32(0.5)],
        "text": np.array(["n01", "ü"]),
        "is": np.array([True]),
    }
    write_pickle(tmp_path / "file", content, protocol=protocol)
    read = read_pickle(tmp_path / "file")
    for name, value in content.items():
        assert np.array_equal(read[name], value)


def test_labels_that_are_text_name_the_classes(tmp_path: Path) -> None:
    """As a list, as an array, and as Python 2 has them; images may be a list of arrays."""
    for labels in (["n01", "n02"], np.array(["n01", "n02"]), [b"n01", b"n02"]):
        write_pickle(tmp_path / "train.pkl", {"data": list(IMAGES), "labels": labels})
        names = [picture.class_name for picture in PickledArrays(folder=".").pictures(tmp_path)]
        assert names == ["n01", "n02"]


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    """Each with its own fault."""
    for part in ("train", "test"):
        write_pickle(tmp_path / f"{part}.pkl", {part: IMAGES})
    with refused(DataError, "keys-missing", says=["train.pkl: ", "['train']", "test.pkl: ", "['test']"]):
        PickledArrays(folder=".").pictures(tmp_path)


class Built:
    """Pickled as a call of a NumPy function with chosen arguments and state."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        """What pickle would call, with what, and the state it would set then."""
        return self._parts


_reconstruct, _frombuffer = np.empty(0).__reduce__()[0], np.empty(0).__reduce_ex__(5)[0]
OBJECT = Built(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
"""The type of addresses of objects, with a state that tells NumPy that it is none."""


@pytest.mark.parametrize(
    "content",
    [
        Built(_frombuffer, (b"\1" * 8, OBJECT, (1,), "C")),
        Built(_reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), OBJECT, False, b"\1" * 8)),
        np.array([{}, []], dtype=object),
        np.zeros(2, dtype=[("a", "u1"), ("b", "O")]),
    ],
)
def test_bytes_are_never_taken_for_objects(tmp_path: Path, content: Any) -> None:
    """With NumPy's own functions, a file could forge memory addresses, which is as bad as running code."""
    write_pickle(tmp_path / "file", content)
    with refused(DataError, "array-of-objects"):
        read_pickle(tmp_path / "file")


def test_a_place_in_the_memo_takes_no_memory(tmp_path: Path) -> None:
    """A pickle whose memo indices start at two billion is read like any other."""
    (tmp_path / "file").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert read_pickle(tmp_path / "file") == []
