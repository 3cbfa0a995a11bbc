"""Base sets of a user's own: a folder of images by class, or Parquet files, defined in a few words and without code.

The content names the set: `images-` and the SHA-256 of what a trial reads, its pixels, labels and split, whatever the
path, the files' names and their form. Two machines whose decoders disagree have two sets. Images are decoded once into
the cache; an unchanged folder is known there by the names, sizes and times of its files.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import annotated_types
import numpy as np
from filelock import FileLock

from crwn.data.base import BaseSet, DataError, Images, ImageSet, ImageSplit, OnProgress, cache_root
from crwn.data.layouts import IMAGE_SUFFIXES, ClassName, ParquetFiles, Picture
from crwn.data.listing import is_hidden, named, reason
from crwn.data.photographs import decode_all, shared
from crwn.faults import Fault, codes_of
from crwn.spec import READ_STRICTLY, Index, kind_field

CACHE_FORMAT = 1
"""Version of the cache, and of the rules by which a set is made."""
TEST_SHARE = 0.2
"""The share of each class's images that are for testing, unless said otherwise."""
PARTS = ("train", "test")
NO_IMAGES = frozenset({"thumbs.db", "desktop.ini"})
"""Files that operating systems leave in folders of images."""

Size: TypeAlias = Annotated[int, annotated_types.Ge(4), annotated_types.Le(1024)]
Share: TypeAlias = Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)]
Placed: TypeAlias = tuple[str, Picture]
"""A picture and its part: `train`, `test`, or empty where the split is to be drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is found at a set's path, before any image is read.

    Attributes:
        files: the files; their names, sizes and times say whether anything has changed.
        pictures: reads the list of pictures.
        faults: what is wrong with the folder.
    """

    files: Sequence[Path]
    pictures: Callable[[], list[Placed]]
    faults: Sequence[Fault] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSpec:
    """A folder of images by class: `CLASS/*.jpg`, or `train/CLASS/*.jpg` and `test/CLASS/*.jpg`.

    Attributes:
        path: the folder.
        size: height and width to which images are resized.
        channels: 3, or 1 for grey.
        test_share: the share of each class's images that are for testing; None: as the files say, or `TEST_SHARE`.
        split_seed: another seed draws others for testing; None: as the files say, or 0.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("folder")
    path: Annotated[str, annotated_types.MinLen(1)]
    size: Size
    channels: Literal[1, 3] = 3
    test_share: Share | None = None
    split_seed: Index | None = None

    def found(self, path: Path) -> Listing:
        """All images, with everything that does not belong there as faults."""
        if not path.is_dir():
            raise DataError("not-a-folder", f"{path}: expected a folder of images by class, found none")
        walk = _Walk(path)
        folders = {entry.name: entry for entry in walk.entries(path) if not walk.is_file_of_top(entry)}
        placed: list[Placed] = []
        if set(PARTS) <= folders.keys():
            for name in sorted(folders.keys() - set(PARTS), key=_in_order):
                walk.wrong("folder-beside-split", folders[name].path)
            for part in PARTS:
                for entry in walk.entries(path / part):
                    if not walk.is_file_of_top(entry):
                        placed += ((part, picture) for picture in walk.pictures(entry))
        else:
            for entry in folders.values():
                placed += (("", picture) for picture in walk.pictures(entry))
        files = [picture.content for _, picture in placed if isinstance(picture.content, Path)]
        return Listing(files=files, pictures=lambda: placed, faults=walk.faults())


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetSpec:
    """Parquet files with a column of encoded images and one of classes; files named train and test are the split.

    Attributes:
        path: a file, a folder, or a pattern such as `cells/*.parquet`.
        size: as above; likewise `channels`, `test_share` and `split_seed`.
        image: the column of images, `struct<bytes, path>` or binary.
        label: the column of classes, text or integers.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("parquet")
    path: Annotated[str, annotated_types.MinLen(1)]
    size: Size
    channels: Literal[1, 3] = 3
    image: str = "image"
    label: str = "label"
    test_share: Share | None = None
    split_seed: Index | None = None

    def found(self, path: Path) -> Listing:
        """All rows of all files."""
        files = _parquet_files(path)
        if not files:
            raise DataError("file-missing", f"{path}: expected Parquet files, found none")
        parts = {file: _part_of(file) for file in files}
        faults = []
        if any(parts.values()) and set(parts.values()) != set(PARTS):
            listed = named([file.name for file in files])
            message = f"expected a name with the word train or test for all files, or for none, found {listed}"
            faults.append(Fault("split-incomplete", message))
        layout = ParquetFiles(folder="", image=self.image, label=self.label)
        return Listing(
            files=files,
            pictures=lambda: [(parts[picture.origin], picture) for picture in layout.read(files)],
            faults=faults,
        )


Definition: TypeAlias = FolderSpec | ParquetSpec
"""The definition of a set."""

DEFINITIONS: Mapping[str, type[Definition]] = {"folder": FolderSpec, "parquet": ParquetSpec}
"""The kinds of definitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnImages:
    """The source of a user's own set: the cache, or else its path.

    Attributes:
        name: the set's name, of its content.
        definition: how it is defined.
        path: where it is, absolute.
        notes: what to tell the user about it.
    """

    name: str
    definition: Definition
    path: str
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def expected(self) -> tuple[str, ...]:
        """Its path."""
        return (f"{self.path}, with the same images as where the sweep was read",)

    @property
    def checksums(self) -> Mapping[str, str]:
        """None: its name is one already."""
        return {}

    @property
    def is_fetchable(self) -> bool:
        """False: nobody else has it."""
        return False

    @property
    def is_mapped(self) -> bool:
        """True: decoded images are memory-mapped."""
        return True

    @property
    def places(self) -> tuple[Path, ...]:
        """Its path."""
        return (Path(self.path),)

    def is_in(self, root: Path) -> bool:
        """Whether this machine has it: decoded in the cache, or at its path."""
        return _made_file(self.name).is_file() or root.exists() or bool(_parquet_files(root))

    def fetch(self, root: Path) -> None:
        """Refuse: there is nowhere to download it from."""
        del root
        raise DataError("download-not-known", "It is a set of your own, so crwn cannot download it.")

    def prepare(self, root: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Decode the images into the cache unless it holds them.

        Returns:
            What the set is, and how many images were converted.

        Raises:
            DataError: its path holds other images by now, or faulty ones.
        """
        del root
        self._make(on_progress)
        return self.notes

    def load(self, root: Path | None) -> ImageSet:
        """The decoded images, memory-mapped; decoded first if the cache lacks them."""
        del root
        self._make(lambda done, total: None)
        made, folder = _made(self.name), _made_file(self.name).parent
        splits = {}
        for part in PARTS:
            counts = made[f"{part}_counts"]
            try:
                images = np.load(folder / f"{part}.npy", mmap_mode="r")
            except Exception as error:  # a damaged header raises almost anything
                raise _damaged(folder, reason(error)) from error
            if images.shape != (sum(counts), *made["image_shape"]) or images.dtype != np.uint8:
                raise _damaged(folder, f"{part}.npy has {images.dtype} {images.shape}")
            splits[part] = ImageSplit(images=images, labels=np.repeat(np.arange(len(counts)), counts))
        return ImageSet(train=splits["train"], test=splits["test"])

    def check(self, root: Path | None, images: ImageSet) -> None:
        """Compare the decoded images with the set's name."""
        del root
        if _name_of(_made(self.name), {"train": images.train.images, "test": images.test.images}) != self.name:
            raise _damaged(_made_file(self.name).parent, "its images are not those that were decoded")

    def _make(self, on_progress: OnProgress) -> None:
        if _made_file(self.name).is_file():
            return
        found, _ = _decoded(self.definition, Path(self.path), on_progress)
        if found != self.name:
            raise DataError(
                "images-differ",
                f"{self.path} does not hold the images that it held when the sweep was read: expected {self.name}, "
                f"found {found}. Put the same files there, or run the sweep again.",
            )


def own_set(definition: Definition, path: Path, on_progress: OnProgress = lambda done, total: None) -> BaseSet:
    """The base set of a definition, with its images decoded into the cache.

    Args:
        definition: the definition.
        path: where the images are; absolute.
        on_progress: called with the progress of decoding.

    Raises:
        DataError: nothing usable is there; the message names all faults.
    """
    try:
        name, notes = _decoded(definition, path, on_progress)
    except OSError as error:
        raise DataError(codes_of(error, "file-unreadable"), f"{path}: {error}") from error
    made = _made(name)
    classes, train, test = len(made["train_counts"]), sum(made["train_counts"]), sum(made["test_counts"])
    said = f"{path}: {classes} classes, {train:,} training and {test:,} test images"
    return BaseSet(
        name=name,
        image_shape=_shape(definition),
        train_counts=tuple(made["train_counts"]),
        test_counts=tuple(made["test_counts"]),
        mean=tuple(made["mean"]),
        std=tuple(made["std"]),
        source=OwnImages(name=name, definition=definition, path=str(path), notes=(said, *notes)),
    )


@dataclass(slots=True)
class _Walk:
    """A walk through a folder of images by class, which collects what does not belong there.

    Attributes:
        top: the folder.
    """

    top: Path
    _wrong: dict[str, list[str]] = field(default_factory=dict)

    def wrong(self, code: str, path: str) -> None:
        """Note that something is wrong with a path."""
        self._wrong.setdefault(code, []).append(_shown(path))

    def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """What is in a folder, by the bytes of the names: no hidden files, and links to files of the set alone."""
        try:
            with os.scandir(folder) as found:
                listed = sorted(found, key=lambda entry: _in_order(entry.name))
        except OSError:
            self.wrong("folder-unreadable", str(folder))
            return
        for entry in listed:
            if is_hidden(PurePath(entry.name)) or entry.name.lower() in NO_IMAGES:
                continue
            if entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if not target.is_relative_to(os.path.realpath(self.top)):
                    self.wrong("path-leads-out", entry.path)
                    continue
                if not target.is_file():
                    self.wrong("link-to-no-file", entry.path)
                    continue
            yield entry

    def is_file_of_top(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry next to the classes is a file: a README may be there, an image may not."""
        if not entry.is_dir() and _is_image(entry.name):
            self.wrong("image-without-class", entry.path)
        return not entry.is_dir()

    def pictures(self, folder: os.DirEntry[str]) -> Iterator[Picture]:
        """The images of a class."""
        count = 0
        for entry in self.entries(Path(folder.path)):
            if entry.is_dir():
                self.wrong("folder-in-class", entry.path)
            elif not _is_image(entry.name) or not entry.is_file():
                self.wrong("file-no-image", entry.path)
            else:
                count += 1
                yield Picture(
                    place=_shown(entry.path),
                    origin=Path(folder.path).parent,
                    class_name=folder.name,
                    content=Path(entry.path),
                )
        if not count:
            self.wrong("folder-without-images", folder.path)

    def faults(self) -> list[Fault]:
        """What is wrong, a fault for each kind."""
        return [Fault(code, f"{_FOLDER_FAULTS[code]}: {named(paths)}") for code, paths in self._wrong.items()]


_FOLDER_FAULTS: Mapping[str, str] = {
    "folder-beside-split": "expected nothing but train/ and test/, found other folders",
    "folder-unreadable": "folders cannot be read",
    "path-leads-out": "links lead out of the folder; copy what they lead to",
    "link-to-no-file": "links lead to no file",
    "image-without-class": "images lie in no class's folder",
    "folder-in-class": "expected only images in a class's folder, found folders",
    "file-no-image": f"expected only images ({', '.join(sorted(IMAGE_SUFFIXES))}) in a class's folder, found",
    "folder-without-images": "classes without an image",
}


def _decoded(definition: Definition, path: Path, on_progress: OnProgress) -> tuple[str, tuple[str, ...]]:
    """The name of the set at a path, decoded now if the cache lacks it, and notes on conversions.

    Raises:
        DataError: nothing usable is there.
        OSError: the files cannot be read.
    """
    from PIL import __version__ as decoder  # noqa: PLC0415 (only decoding needs it)

    listing = definition.found(path)
    known = [[os.fsdecode(file), *_state(file)] for file in listing.files]
    wanted = {**asdict(definition), "path": str(path)}
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, decoder, wanted, known]).encode()).hexdigest()[:16]
    record = cache_root() / "own" / "known" / f"{key}.json"
    if not listing.faults and (seen := _seen(record)) is not None:
        return seen
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(record.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=record.parents[1]) as scratch:
            if not listing.faults and (seen := _seen(record)) is not None:  # another process was first
                return seen
            folder = Path(scratch) / "set"
            folder.mkdir()
            name, notes = _made_from(definition, path, listing, folder, on_progress)
            new = record.with_suffix(".part")
            new.write_text(json.dumps({"name": name, "notes": notes}))
            new.replace(record)
    except OSError as error:
        raise DataError(
            codes_of(error, "cache-not-written"),
            f"{path}: its images are decoded once into {record.parents[1]}: {error}",
        ) from error
    return name, tuple(notes)


def _seen(record: Path) -> tuple[str, tuple[str, ...]] | None:
    """What is recorded of a listing; None if nothing is, or the images are gone."""
    try:
        content = json.loads(record.read_text())
        name, notes = content["name"], tuple(content["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (name, notes) if _made_file(name).is_file() else None


def _made_from(
    definition: Definition, path: Path, listing: Listing, folder: Path, on_progress: OnProgress
) -> tuple[str, list[str]]:
    """Decode a set into a folder, which then becomes its place in the cache, with its name and notes.

    Raises:
        DataError: something is wrong; all faults that are found in one go.
    """
    shape = _shape(definition)
    placed = listing.pictures()
    pictures = [picture for _, picture in placed]
    faults = [*listing.faults, *_class_faults(definition, placed)]
    size = 2 * len(pictures) * math.prod(shape)
    if (free := shutil.disk_usage(folder).free) < size:
        raise DataError(
            "disk-too-small", f"{path}: expected {size / 2**20:,.0f} MB free for {folder}, found {free / 2**20:,.0f}"
        )
    digests: list[bytes] = []
    if pictures:
        raw_NCHW, digests, changes, wrong = decode_all(pictures, shape, folder / "raw.npy", on_progress)
        if wrong:
            codes = tuple(dict.fromkeys(code for fault in wrong for code in fault.codes))
            faults.append(Fault(codes, f"{len(wrong)} images cannot be decoded: {named(sorted(wrong))}"))
    if faults:
        raise DataError.of(faults, "; ".join([f"{path}: {faults[0]}", *faults[1:]]))
    names = {name: label for label, name in enumerate(sorted({one.class_name for one in pictures}, key=_in_order))}
    labels = [names[picture.class_name] for picture in pictures]
    parts = [part for part, _ in placed]
    if not any(parts):
        parts = _drawn(definition, path, pictures, labels, digests)
    try:
        notes = shared(list(zip(parts, labels, pictures, strict=True)), digests)
    except DataError as error:
        raise DataError(error.codes, f"{path}: {error}") from error
    splits = {}
    counts = {}
    for part in PARTS:
        order = sorted((labels[n], digests[n], n) for n in range(len(pictures)) if parts[n] == part)
        images = np.lib.format.open_memmap(
            folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=(len(order), *shape)
        )
        for place, (_, _, number) in enumerate(order):
            images[place] = raw_NCHW[number]
        images.flush()
        splits[part] = images
        counts[part] = np.bincount([label for label, _, _ in order], minlength=len(names)).tolist()
    mean, std = _moments(splits["train"])
    made = {
        "format": CACHE_FORMAT,
        "image_shape": shape,
        "train_counts": counts["train"],
        "test_counts": counts["test"],
    }
    name = _name_of(made, splits)
    (folder / "raw.npy").unlink()
    (folder / "made.json").write_text(json.dumps({**made, "mean": mean, "std": std}))
    _keep(folder, name)
    return name, [f"{count} images {change}" for change, count in sorted(changes.items())] + notes


def _keep(folder: Path, name: str) -> None:
    """Move a decoded set to its place, unless it is there: decoded from another path, or by another process."""
    place = _made_file(name).parent
    with FileLock(place.with_name(f".{name}.lock")):
        if not _made_file(name).is_file():
            shutil.rmtree(place, ignore_errors=True)
            folder.rename(place)


def _class_faults(definition: Definition, placed: Sequence[Placed]) -> Iterator[Fault]:
    """What is wrong with the classes of pictures, and with how they are split."""
    members: dict[str, dict[ClassName, int]] = {}
    for part, picture in placed:
        counts = members.setdefault(part, {})
        counts[picture.class_name] = counts.get(picture.class_name, 0) + 1
    classes = sorted({name for counts in members.values() for name in counts}, key=_in_order)
    if len({isinstance(name, str) for name in classes}) > 1:
        yield Fault("classes-of-two-kinds", "expected classes of one kind, found text and integers")
    if len(classes) < 2:
        found = f"one, {_shown(str(classes[0]))}" if classes else "none"
        yield Fault("classes-too-few", f"expected at least two classes, a folder or label for each, found {found}")
    if any(members.keys() - {""}):
        for part, other in (PARTS, PARTS[::-1]):
            lacking = sorted(members.get(other, {}).keys() - members.get(part, {}).keys(), key=_in_order)
            if lacking:
                listed = named([_shown(str(name)) for name in lacking])
                yield Fault("classes-differ", f"expected the same classes in train and test; {part} lacks {listed}")
        given = [key for key in ("test_share", "split_seed") if getattr(definition, key) is not None]
        if given:
            message = f"expected no {' or '.join(given)}, since train and test are given; remove it, or join them"
            yield Fault("split-given-twice", message)
    elif few := [_shown(str(name)) for name, count in members.get("", {}).items() if count < 2]:
        yield Fault("images-too-few", f"expected at least two images of every class, found one of {named(few)}")


def _drawn(
    definition: Definition,
    path: Path,
    pictures: Sequence[Picture],
    labels: Sequence[int],
    digests: Sequence[bytes],
) -> list[str]:
    """The part of each picture: of each class, the share for testing, drawn by the pixels and the seed.

    A picture's place in the draw depends on nothing else, so that an image more moves hardly any other, and equal
    images are on one side.

    Raises:
        DataError: all images of a class are equal.
    """
    seed = f"{definition.split_seed or 0} ".encode()
    share = TEST_SHARE if definition.test_share is None else definition.test_share
    classes: dict[int, dict[bytes, list[int]]] = {}
    for number, (label, digest) in enumerate(zip(labels, digests, strict=True)):
        classes.setdefault(label, {}).setdefault(digest, []).append(number)
    parts, alike = ["train"] * len(pictures), []
    for groups in classes.values():
        ordered = sorted(groups, key=lambda digest: hashlib.sha256(seed + digest).digest())
        total = sum(map(len, groups.values()))
        wanted, chosen = max(1, round(share * total)), list[int]()
        for digest in ordered[:-1]:  # the last group is for training, whatever the share
            if len(chosen) + len(groups[digest]) <= wanted:
                chosen += groups[digest]
        if not chosen and len(ordered) > 1:
            chosen = groups[min(ordered, key=lambda digest: len(groups[digest]))]
        if not chosen:
            alike.append(_shown(str(pictures[next(iter(groups.values()))[0]].class_name)))
        for number in chosen:
            parts[number] = "test"
    if alike:
        raise DataError(
            "images-all-alike", f"{path}: expected different images in every class, found all equal in {named(alike)}"
        )
    return parts


def _moments(images_NCHW: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel's pixels divided by 255, from exact sums.

    A channel whose pixels are all equal has the standard deviation 1.
    """
    means, stds = [], []
    for channel in range(images_NCHW.shape[1]):
        counts = np.zeros(256, np.int64)
        for first in range(0, len(images_NCHW), 1024):
            counts += np.bincount(images_NCHW[first : first + 1024, channel].ravel(), minlength=256)
        number = int(counts.sum())
        total = sum(level * int(count) for level, count in enumerate(counts))
        squares = sum(level**2 * int(count) for level, count in enumerate(counts))
        means.append(total / number / 255)
        stds.append(math.sqrt(number * squares - total**2) / number / 255 or 1.0)
    return means, stds


def _name_of(made: Mapping[str, Any], splits: Mapping[str, Images]) -> str:
    """The name of a set, by its content: shape, images per class, and pixels in the order of labels."""
    shown = [made[key] for key in ("format", "image_shape", "train_counts", "test_counts")]
    digest = hashlib.sha256(json.dumps(shown).encode())
    for part in PARTS:
        digest.update(np.ascontiguousarray(splits[part]).data)
    return f"images-{digest.hexdigest()[:16]}"


def _made_file(name: str) -> Path:
    """The file that a set's folder in the cache is complete with."""
    return cache_root() / "own" / name / "made.json"


def _made(name: str) -> dict[str, Any]:
    file = _made_file(name)
    try:
        made: dict[str, Any] = json.loads(file.read_text())
        for key in ("image_shape", "train_counts", "test_counts", "mean", "std"):
            made[key] = list(made[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file.parent, reason(error)) from error
    return made


def _damaged(folder: Path, why: str) -> DataError:
    return DataError("cache-damaged", f"the cache {folder} is damaged: {why}. Remove it to have it made again.")


def _shape(definition: Definition) -> tuple[int, int, int]:
    return definition.channels, definition.size, definition.size


def _state(file: Path) -> tuple[int, int, int]:
    """What changes with a file: its size and times."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _in_order(name: ClassName) -> tuple[int, bytes]:
    """Text by its bytes, integers by their value."""
    return (0, os.fsencode(name)) if isinstance(name, str) else (name, b"")


def _parquet_files(path: Path) -> list[Path]:
    """A file, those of a folder, or those whose names match the pattern that the path's name is."""
    folder, pattern = (path, "*.parquet") if path.is_dir() else (path.parent, path.name)
    found = [path] if path.is_file() else sorted(folder.glob(pattern), key=_in_order_of_name)
    return [file for file in found if file.is_file() and not is_hidden(PurePath(file.name))]


def _in_order_of_name(file: Path) -> tuple[int, bytes]:
    return _in_order(file.name)


def _is_image(name: str) -> bool:
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def _part_of(file: Path) -> str:
    words = file.stem.lower().replace("-", " ").replace("_", " ").split()
    return next((part for part in PARTS if any(word.startswith(part) for word in words)), "")


def _shown(path: str) -> str:
    """A path as text that can be printed, whatever its bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
