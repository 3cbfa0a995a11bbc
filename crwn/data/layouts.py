"""The layouts in which people keep sets of photographs: Parquet, pickled caches, one folder per class.

A layout lists pictures in the order of the set: training files first, then validation, then test.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn.data.base import DataError
from crwn.data.listing import (
    MAX_NAMED,
    PARTS,
    ListedImage,
    files_below,
    files_in,
    in_parts,
    is_hidden,
    named,
    read_list,
    reason,
)
from crwn.faults import Fault, FaultError, codes_of

if TYPE_CHECKING:
    import pyarrow as pa

ClassName: TypeAlias = str | int
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image, as a layout lists it.

    Attributes:
        place: where it is, for messages.
        origin: the file or folder of images in which it was found.
        class_name: the name of its class; labels are indices into the sorted names.
        content: a file, an encoded image, or pixels [H, W, C] or [H, W].
    """

    place: str
    origin: Path
    class_name: ClassName
    content: Path | bytes | NDArray[np.uint8]


class Layout(Protocol):
    """One layout of a set below a data root."""

    @property
    def expected(self) -> str:
        """A description of the files that it consists of."""
        ...

    def files(self, root: Path) -> list[Path]:
        """The files that it is read from; their bytes, or the names, sizes and times of many, identify the content.

        Empty if `root` does not hold the set in this layout.
        """
        ...

    def pictures(self, root: Path) -> list[Picture]:
        """All images, in order.

        Raises:
            DataError: the files are not in this layout, or name images that are missing.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFiles:
    """Parquet files with a column of encoded images: `struct<bytes, path>`, as on the Hugging Face hub, or binary.

    Attributes:
        folder: the folder below the data root.
        image: the column of images.
        label: the column of classes, text or integers.
    """

    folder: str
    image: str
    label: str

    @property
    def expected(self) -> str:
        """The folder and the columns."""
        return f"{self.folder}/*.parquet, with the columns {self.image}{{bytes, path}} and {self.label}"

    def files(self, root: Path) -> list[Path]:
        """All Parquet files."""
        return in_parts(files_in(root / self.folder, "*.parquet"))

    def pictures(self, root: Path) -> list[Picture]:
        """All images, row by row."""
        return self.read(self.files(root))

    def read(self, files: Sequence[Path]) -> list[Picture]:
        """All images of these files, row by row; raises like `pictures`."""
        return _of_all(files, self._read)

    def _read(self, file: Path) -> list[Picture]:
        found, absent = [], []
        for row, (content, label) in enumerate(zip(*self._columns(file), strict=True)):
            if content and label is not None:
                found.append(Picture(place=f"{file}, row {row}", origin=file, class_name=label, content=content))
            else:
                absent.append(f"row {row} has no {self.label if content else self.image}")
        if absent:
            raise DataError("row-incomplete", f"{file}: {named(absent)}")
        return found

    def _columns(self, file: Path) -> tuple[list[bytes | None], list[ClassName | None]]:
        """A file's encoded images and their labels.

        Raises:
            DataError: the file is damaged, or lacks the columns.
        """
        from pyarrow import compute, parquet  # noqa: PLC0415 (only reading needs it)

        try:
            with parquet.ParquetFile(file, page_checksum_verification=True) as opened:
                if not opened.metadata.num_rows:  # the columns of an empty shard may have any type
                    return [], []
                fault = self._fault(opened.schema_arrow)
                if fault is None:
                    table = opened.read(columns=[self.image, self.label])
                    images = table[self.image]
                    if _is_struct(images.type):
                        images = compute.struct_field(images, "bytes")
                    return images.to_pylist(), table[self.label].to_pylist()
        except Exception as error:  # noqa: BLE001 (a damaged file raises almost anything)
            fault = Fault("parquet-unreadable", reason(error))
        raise DataError(fault.codes, f"{file} cannot be read: expected {self.expected}; {fault}")

    def _fault(self, schema: pa.Schema) -> Fault | None:
        """What is wrong with a file's columns; None if nothing is."""
        from pyarrow import types  # noqa: PLC0415 (as above)

        missing = [name for name in (self.image, self.label) if schema.names.count(name) != 1]
        if missing:
            has = f"its columns are {', '.join(schema.names) or 'none'}"
            if self.label in missing and "label" in schema.names:
                has += f"; label is the Hugging Face hub's name: call the column {self.label} if it names the classes"
            return Fault("columns-missing", has)
        image, label = (schema.field(name).type for name in (self.image, self.label))
        if types.is_dictionary(label):
            label = label.value_type
        encoded = [image.field(place).type for place in range(image.num_fields) if image.field(place).name == "bytes"]
        if not _is_binary(image) and not (_is_struct(image) and len(encoded) == 1 and _is_binary(encoded[0])):
            return Fault("column-of-wrong-type", f"its column {self.image} is {reason(ValueError(image))}")
        if not (types.is_integer(label) or types.is_string(label) or types.is_large_string(label)):
            message = f"its column {self.label} is {reason(ValueError(label))}, which is neither text nor integers"
            return Fault("column-of-wrong-type", message)
        return None


def _is_struct(kind: pa.DataType) -> bool:
    from pyarrow import types  # noqa: PLC0415 (only reading needs it)

    return bool(types.is_struct(kind))


def _is_binary(kind: pa.DataType) -> bool:
    from pyarrow import types  # noqa: PLC0415 (only reading needs it)

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFolders:
    """One folder of images per class, or one folder of images with CSV lists.

    Without lists: `CLASS/*.jpg`, or `train/CLASS/*.jpg` and so on; the images of a class sorted by name. With lists
    (`train.csv`, `val.csv`, `test.csv` with the columns filename and label, as published by Ravi and Larochelle 2017):
    the listed images, in that order.

    Attributes:
        folder: the folder below the data root.
    """

    folder: str

    @property
    def expected(self) -> str:
        """Both forms."""
        return (
            f"{self.folder}/CLASS/*.jpg, a folder for each class, or {self.folder}/images/*.jpg with the lists "
            f"{self.folder}/train.csv, val.csv and test.csv (filename,label)"
        )

    def files(self, root: Path) -> list[Path]:
        """The lists and all images."""
        top = root / self.folder
        images = sorted(files_below(top, IMAGE_SUFFIXES)) if top.is_dir() else []
        return [*self._lists(top), *images] if images else []

    def pictures(self, root: Path) -> list[Picture]:
        """All images, in the order of the lists, or folder by folder."""
        top = root / self.folder
        lists = self._lists(top)
        return self._listed(top, lists) if lists else list(self._by_folder(top))

    def _lists(self, top: Path) -> list[Path]:
        return in_parts(files_in(top, "*.csv"))

    def _listed(self, top: Path, lists: Sequence[Path]) -> list[Picture]:
        found: dict[Path, Picture] = {}
        faults, missing = [], []
        for file in lists:
            rows, wrong = read_list(file)
            faults += wrong
            for row in rows:
                path, why = self._path(top, row)
                if why is not None:
                    faults.append(Fault(why.codes, f"{row.place}: {why}"))
                elif path is None:
                    missing.append(f"{row.name} ({file.name})")
                elif path in found:
                    message = f"{row.place}: {path} is named a second time, first by {found[path].place}"
                    faults.append(Fault("image-listed-twice", message))
                else:
                    found[path] = Picture(place=row.place, origin=file, class_name=row.label, content=path)
        if missing:
            faults.append(Fault("images-missing", f"{top} lacks {named(missing)} that its lists name"))
        if faults:
            raise DataError.of(faults, named(faults, "; "))
        return [
            Picture(place=str(path), origin=picture.origin, class_name=picture.class_name, content=path)
            for path, picture in found.items()
        ]

    def _path(self, top: Path, row: ListedImage) -> tuple[Path | None, Fault | None]:
        """The path of a row's image, or what is wrong with the row; (None, None) if there is no such file."""
        name = PurePosixPath(row.name)
        if name.is_absolute() or ".." in name.parts:
            return None, Fault("path-leads-out", f"{row.name!r} leads out of {top}; expected a file's name")
        if is_hidden(name):
            return None, Fault("image-hidden", f"{row.name!r} is hidden, so it is not an image of the set")
        places = [top / "images", top]
        if PurePosixPath(row.label).name == row.label and not is_hidden(PurePosixPath(row.label)):
            places = [top / row.label, top / "images" / row.label, *places]
        return next((folder / name for folder in places if _is_file(folder / name)), None), None

    def _by_folder(self, top: Path) -> Iterator[Picture]:
        parts = [top / part for part in PARTS if (top / part).is_dir()] or [top]
        for part in parts:
            for folder in sorted(
                path for path in part.iterdir() if path.is_dir() and not is_hidden(PurePosixPath(path.name))
            ):
                images = sorted(files_below(folder, IMAGE_SUFFIXES))
                if not images:
                    raise DataError(
                        "folder-without-images", f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
                    )
                for path in images:
                    yield Picture(place=str(path), origin=part, class_name=folder.name, content=path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name too long for a file
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledArrays:
    """The pickled caches of the few-shot literature, read without running any code in them.

    Either `image_data` [N, H, W, 3] with `class_dict`, which lists the rows of each class (Ren et al. 2018), or `data`
    with `labels` (Lee et al. 2019); in the latter, classes that `catname2label` does not name are named by file and
    number.

    Attributes:
        folder: the folder below the data root.
    """

    folder: str

    @property
    def expected(self) -> str:
        """The files and their keys."""
        return f"{self.folder}/*.pkl or *.pickle, with image_data and class_dict, or data and labels"

    def files(self, root: Path) -> list[Path]:
        """All pickle files."""
        return in_parts(files_in(root / self.folder, "*.pkl", "*.pickle"))

    def pictures(self, root: Path) -> list[Picture]:
        """All images, file by file; with `class_dict`, class by class."""
        return _of_all(self.files(root), self._read)

    def _read(self, file: Path) -> list[Picture]:
        content = read_pickle(file)
        if not isinstance(content, dict):
            raise DataError("not-a-dictionary", f"{file}: expected a dictionary, found {type(content).__name__}")
        fields = {_text(key): value for key, value in content.items()}
        try:
            if {"image_data", "class_dict"} <= set(fields):
                images = _images(fields["image_data"])
                rows = list(_members(fields["class_dict"], len(images)))
            elif {"data", "labels"} <= set(fields):
                images = _images(fields["data"])
                names = _labelled(fields["labels"], fields.get("catname2label", {}), len(images), file.stem)
                rows = [(name, row) for row, name in enumerate(names)]
            else:
                raise DataError(
                    "keys-missing", f"expected {self.expected}; found the keys {sorted(map(str, fields))[:MAX_NAMED]}"
                )
        except DataError as error:
            raise DataError(error.codes, f"{file}: {error}") from error
        return [
            Picture(place=f"{file}, image {row}", origin=file, class_name=name, content=images[row])
            for name, row in rows
        ]


def _images(given: object) -> Sequence[NDArray[np.uint8]]:
    """The images of an array, or of a list with one array per image.

    Raises:
        DataError: `given` is neither.
    """
    shapes = "expected images as unsigned bytes [N, H, W, 3]"
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or not (given.ndim == 3 or (given.ndim == 4 and given.shape[3] in (1, 3, 4))):
            raise DataError("images-not-bytes", f"{shapes}, found {given.dtype} {given.shape}")
        return list(np.asarray(given))
    if not isinstance(given, list | tuple):
        raise DataError("images-not-bytes", f"{shapes}, found {type(given).__name__}")
    for row, image in enumerate(given):
        if not isinstance(image, np.ndarray):
            raise DataError(
                "images-not-bytes", f"{shapes}, found {type(given).__name__} with {type(image).__name__} as image {row}"
            )
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
            raise DataError("images-not-bytes", f"{shapes}, found {image.dtype} {image.shape} as image {row}")
    return given


def _members(class_dict: object, num_images: int) -> Iterator[tuple[str, int]]:
    """Pairs of class name and row, class by class.

    Raises:
        DataError: `class_dict` is malformed, or lists a row that does not exist or is in another class.
    """
    if not isinstance(class_dict, dict):
        raise DataError(
            "rows-not-listed", f"expected class_dict to give each class's rows, found {type(class_dict).__name__}"
        )
    owners: dict[int, str] = {}
    for key, members in class_dict.items():
        name = _text(key)
        if not isinstance(name, str) or not isinstance(members, list | tuple | np.ndarray):
            raise DataError(
                "rows-not-listed", f"expected class_dict to give each class's rows, found {_kind(members)} for {name}"
            )
        for row in members:
            if not _is_integer(row):
                raise DataError("row-not-an-integer", f"class {name} names the image {_kind(row)}, expected integers")
            if not 0 <= row < num_images:
                raise DataError("row-beyond-images", f"class {name} names the image {row} of {num_images}")
            if row in owners:
                raise DataError(
                    "image-in-two-classes", f"image {row} is of class {owners[row]} and again of class {name}"
                )
            owners[int(row)] = name
            yield name, int(row)


def _labelled(labels: object, numbers: object, num_images: int, stem: str) -> list[str]:
    """The class name of each image: the label if it is text, else its name in `catname2label`, else file and number.

    Raises:
        DataError: labels are neither integers nor text, or differ in number from the images.
    """
    if not isinstance(labels, list | tuple) and not (isinstance(labels, np.ndarray) and labels.ndim == 1):
        raise DataError("labels-not-a-list", f"expected labels [N], found {_kind(labels)}")
    if not isinstance(numbers, dict) or not all(map(_is_integer, numbers.values())):
        raise DataError(
            "numbers-not-named", f"expected catname2label to give a number for each name, found {_kind(numbers)}"
        )
    if len(labels) != num_images:
        if len(labels) > num_images:
            raise DataError(
                "row-beyond-images",
                f"the last of {len(labels)} labels names the image {len(labels) - 1} of {num_images}",
            )
        raise DataError(
            "labels-fewer-than-images",
            f"expected as many labels as images, found {len(labels)} labels and {num_images} images",
        )
    names = {int(number): str(_text(name)) for name, number in numbers.items()}
    found = []
    for row, label in enumerate(map(_text, labels)):
        if not isinstance(label, str) and not _is_integer(label):
            raise DataError(
                "label-no-class", f"expected labels as integers or text, found {_kind(label)} for image {row}"
            )
        if isinstance(label, str) is not isinstance(_text(labels[0]), str):
            raise DataError(
                "labels-of-two-kinds", f"expected labels of one kind, found text and integers (image {row})"
            )
        found.append(label if isinstance(label, str) else names.get(int(label), f"{stem} {int(label):05d}"))
    return found


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


class _UnsafeError(FaultError, pickle.UnpicklingError):
    """A pickle holds something else than arrays of numbers and text."""


class _Dtype:
    """Stands in for `numpy.dtype` in pickles, for plain numbers and text only.

    NumPy's own class takes flags from the pickle that make it treat bytes of the file as object addresses.
    """

    def __init__(self, spec: Any, *_: Any) -> None:
        kind = np.dtype(spec) if isinstance(spec, str) else None
        if kind is None or kind.kind not in "biufSU":
            raise _UnsafeError("array-of-objects", f"it has an array of {spec!r}, expected numbers or text")
        self.plain = kind

    def __setstate__(self, state: Any) -> None:
        """Take only the byte order; the size of text is part of the name that the type was constructed from."""
        self.plain = self.plain.newbyteorder("=" if state[1] == "|" else state[1])


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array filled from a pickle's state."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
            raise _UnsafeError("array-not-of-bytes", "it has an array whose content is not bytes")
        super().__setstate__((version, shape, dtype.plain, is_fortran, bytes(content)))


def _reconstruct(*_: Any) -> _Array:
    return _Array((0,), dtype=np.uint8)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
    """Stands in for NumPy's `_frombuffer`: an array over bytes in the pickle."""
    if not isinstance(dtype, _Dtype) or not isinstance(buffer, bytes | bytearray):
        raise _UnsafeError("array-not-of-bytes", "it has an array whose content is not bytes")
    array = np.frombuffer(buffer, dtype=dtype.plain)
    if order == "K" and axes is not None:
        return array.reshape(shape, order="C").transpose(axes)
    return array.reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, _Dtype):
        raise _UnsafeError("number-of-no-type", "it has a number of no known type")
    content = content.encode("latin1") if isinstance(content, str) else content  # from Python 2
    return np.frombuffer(content, dtype=dtype.plain, count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    return str(text).encode(encoding)


def _empty(*_: Any) -> dict[Any, Any]:
    return {}


SAFE_GLOBALS: Mapping[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): None,  # only named, as the class to reconstruct
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    ("collections", "defaultdict"): _empty,
    ("builtins", "list"): list,  # the factory of a defaultdict
    ("__builtin__", "list"): list,
}
"""The globals that a pickle of arrays needs; none can do harm."""


class _ArraysOnly(pickle._Unpickler):
    """Reads arrays, numbers, text and containers; refuses any other global before it can be called.

    Uses the unpickler written in Python: the one in C allocates as much memory as a damaged file claims.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in SAFE_GLOBALS:
            raise _UnsafeError("name-not-allowed", f"it names {module}.{name}, which no array needs")
        return SAFE_GLOBALS[module, name]


def read_pickle(file: Path, opened: BinaryIO | None = None) -> Any:
    """The content of a pickle of arrays; no code in it is run.

    Args:
        file: its path, for messages.
        opened: its content, if it is not in a file of its own.

    Raises:
        DataError: the pickle is damaged, or names anything but arrays.
    """
    try:
        if opened is not None:
            return _ArraysOnly(opened, encoding="latin1").load()
        with file.open("rb") as from_disk:
            return _ArraysOnly(from_disk, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        why = "its bytes are no pickle's" if isinstance(error, KeyError) else reason(error)  # no such opcode
        raise DataError(
            codes_of(error, "pickle-unreadable"),
            f"{file} cannot be read as a pickle of arrays, and nothing in it was run: {why}",
        ) from error


def _of_all(files: Iterable[Path], read: Callable[[Path], list[Picture]]) -> list[Picture]:
    """The pictures of all files.

    Raises:
        DataError: some files cannot be read; the message says what is wrong with each.
    """
    found: list[Picture] = []
    faults = []
    for file in files:
        try:
            found += read(file)
        except DataError as error:
            faults.append(Fault(error.codes, str(error)))
    if faults:
        raise DataError.of(faults, named(faults, "; "))
    return found


def _text(name: Any) -> Any:
    """Decode text that Python 2 pickled as bytes; return anything else unchanged."""
    return name.decode("latin1") if isinstance(name, bytes) else name
