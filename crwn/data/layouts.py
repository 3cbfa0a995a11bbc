"""The forms in which people keep sets of photographs: Parquet, pickled caches, a folder a class.

A layout lists pictures in the order in which the set has them: training files first, then validation, then test.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn.data.base import DataError

ClassName: TypeAlias = str | int
PARTS = ("train", "val", "test")
"""The order of files and folders that are parts of one set, by how their names begin or end."""
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MAX_NAMED = 10
"""Faults that an error names; of more it says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image as a layout has it.

    Attributes:
        place: where it is, for messages.
        class_name: of its class; sorted, these give the labels.
        content: a file, an encoded image, or pixels [H, W, C] or [H, W].
    """

    place: str
    class_name: ClassName
    content: Path | bytes | NDArray[np.uint8]


class Layout(Protocol):
    """One form of a set below a data root."""

    @property
    def expected(self) -> str:
        """What it consists of, in words."""
        ...

    def files(self, root: Path) -> list[Path]:
        """What it is read from: files whose bytes, or many files whose names, sizes and times say what it holds.

        Empty where `root` does not hold the set in this form.
        """
        ...

    def pictures(self, root: Path) -> list[Picture]:
        """All images in order.

        Raises:
            DataError: the files are not of this form, or name images that are not there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFiles:
    """Parquet files with a column of encoded images, `struct<bytes, path>`, as the Hugging Face hub has them.

    Attributes:
        folder: below the data root.
        image: the column of the images.
        label: the column of the classes, text or integers.
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
        return in_parts((root / self.folder).glob("*.parquet"))

    def pictures(self, root: Path) -> list[Picture]:
        """Row by row."""
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 (only reading needs it)

        found = []
        for file in self.files(root):
            try:
                table = parquet.read_table(file, columns=[self.image, self.label])
                contents, labels = table[self.image].to_pylist(), table[self.label].to_pylist()
            except (ArrowException, KeyError, OSError) as error:
                raise DataError(f"{file} cannot be read: expected {self.expected}; {error}") from error
            found += [
                Picture(place=f"{file}, row {row}", class_name=label, content=content["bytes"])
                for row, (content, label) in enumerate(zip(contents, labels, strict=True))
            ]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFolders:
    """A folder of images for each class, or images in one folder with lists in CSV.

    Without lists: `CLASS/*.jpg`, or `train/CLASS/*.jpg` and so on; the images of a class in the order of their names.
    With lists (`train.csv`, `val.csv`, `test.csv` with the columns filename and label, as Ravi and Larochelle 2017 made
    them): the images that they name, in their order.

    Attributes:
        folder: below the data root.
    """

    folder: str

    @property
    def expected(self) -> str:
        """The two ways."""
        return (
            f"{self.folder}/CLASS/*.jpg, a folder for each class, or {self.folder}/images/*.jpg with the lists "
            f"{self.folder}/train.csv, val.csv and test.csv (filename,label)"
        )

    def files(self, root: Path) -> list[Path]:
        """All images, and the lists."""
        top = root / self.folder
        images = [path for path in top.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
        return [*self._lists(top), *sorted(images)] if images else []

    def pictures(self, root: Path) -> list[Picture]:
        """As the lists say, or folder by folder."""
        top = root / self.folder
        lists = self._lists(top)
        return self._listed(top, lists) if lists else list(self._by_folder(top))

    def _lists(self, top: Path) -> list[Path]:
        return in_parts(top.glob("*.csv"))

    def _listed(self, top: Path, lists: Sequence[Path]) -> list[Picture]:
        found, missing = [], []
        for file in lists:
            with file.open(newline="") as opened:
                reader = csv.DictReader(opened)
                if not {"filename", "label"} <= set(reader.fieldnames or ()):
                    raise DataError(f"{file}: expected the columns filename and label, found {reader.fieldnames}")
                for row in reader:
                    name, label = row["filename"], row["label"]
                    places = [top / label, top / "images" / label, top / "images", top]
                    path = next((folder / name for folder in places if (folder / name).is_file()), None)
                    if path is None:
                        missing.append(f"{name} ({file.name})")
                    else:
                        found.append(Picture(place=str(path), class_name=label, content=path))
        if missing:
            raise DataError(f"{top} lacks {named(missing)} that its lists name")
        return found

    def _by_folder(self, top: Path) -> Iterator[Picture]:
        parts = [top / part for part in PARTS if (top / part).is_dir()] or [top]
        for part in parts:
            for folder in sorted(path for path in part.iterdir() if path.is_dir()):
                images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
                if not images:
                    raise DataError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
                for path in images:
                    yield Picture(place=str(path), class_name=folder.name, content=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledArrays:
    """The pickled caches of the few-shot literature, read without running what they contain.

    Either `image_data` [N, H, W, 3] with `class_dict`, which gives each class's rows (Ren et al. 2018), or `data` with
    `labels` (Lee et al. 2019); there, classes without names in `catname2label` are told apart by file and number.

    Attributes:
        folder: below the data root.
    """

    folder: str

    @property
    def expected(self) -> str:
        """The files and their keys."""
        return f"{self.folder}/*.pkl or *.pickle, with image_data and class_dict, or data and labels"

    def files(self, root: Path) -> list[Path]:
        """All pickles."""
        top = root / self.folder
        return in_parts([*top.glob("*.pkl"), *top.glob("*.pickle")])

    def pictures(self, root: Path) -> list[Picture]:
        """File by file; of `class_dict`, class by class."""
        return [picture for file in self.files(root) for picture in self._read(file)]

    def _read(self, file: Path) -> Iterator[Picture]:
        content = read_pickle(file)
        if not isinstance(content, dict):
            raise DataError(f"{file}: expected a dictionary, found {type(content).__name__}")
        fields = {_text(key): value for key, value in content.items()}
        if {"image_data", "class_dict"} <= set(fields):
            images = fields["image_data"]
            rows = [(_text(name), row) for name, members in fields["class_dict"].items() for row in members]
        elif {"data", "labels"} <= set(fields):
            images = fields["data"]
            names = {number: _text(name) for name, number in fields.get("catname2label", {}).items()}
            rows = [(names.get(label, f"{file.stem} {label:05d}"), row) for row, label in enumerate(fields["labels"])]
        else:
            raise DataError(f"{file}: expected {self.expected}; found the keys {sorted(fields)}")
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim not in (3, 4):
            found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise DataError(f"{file}: expected images as unsigned bytes [N, H, W, 3], found {found}")
        for name, row in rows:
            if not 0 <= row < len(images):
                raise DataError(f"{file}: class {name} names the image {row} of {len(images)}")
            yield Picture(place=f"{file}, image {row}", class_name=name, content=images[row])


SAFE_GLOBALS: Mapping[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): np.int64(0).__reduce__()[0] for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
    ("collections", "OrderedDict"): dict,
}
"""What a pickle of arrays needs, and nothing that could do harm."""


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, numbers, text and containers; refuses whatever else a pickle names, before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in SAFE_GLOBALS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return SAFE_GLOBALS[module, name]


def read_pickle(file: Path) -> Any:
    """What a pickle of arrays holds; no code in it is run.

    Raises:
        DataError: it is damaged, or names anything but arrays.
    """
    try:
        with file.open("rb") as opened:
            return _ArraysOnly(opened, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{file} cannot be read as a pickle of arrays, and nothing in it was run: {error}") from error


def in_parts(files: Iterator[Path] | Sequence[Path]) -> list[Path]:
    """Files in the order of `PARTS`, then by name; those that name no part come last."""

    def key(file: Path) -> tuple[int, str]:
        words = file.stem.lower().replace("-", " ").replace("_", " ").split()
        places = [place for place, part in enumerate(PARTS) if any(word.startswith(part) for word in words)]
        return (places[0] if places else len(PARTS), file.name)

    return sorted(files, key=key)


def named(things: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(things) - MAX_NAMED} more" if len(things) > MAX_NAMED else ""
    return ", ".join(things[:MAX_NAMED]) + more


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
