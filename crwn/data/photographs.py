"""Sets of photographs: found in any of several layouts, decoded once, memory-mapped from then on.

Images are kept class by class; within a class, the training images and the test images are each sorted by SHA-256. So
a set gives the same arrays whatever its layout and the order in which the layout lists them.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from crwn.data.base import DataError, Images, ImageSet, ImageSplit, OnProgress, cache_root, sha256_of
from crwn.data.decoding import pixels
from crwn.data.layouts import ClassName, Layout, Picture
from crwn.data.listing import named, reason
from crwn.faults import Fault, codes_of

CACHE_FORMAT = 2
"""Version of the cache. Format 1 turned 16-bit grey images white and included hidden copies of images."""
MANY_FILES = 100
"""Above this number of files, sizes and times stand for the bytes."""
DECODED_AT_ONCE = 256
"""Number of images between two progress reports."""
MAX_SHARED = 1 / 1000
"""The largest share of test images that may be training images of another class: in published sets, a few images are
labelled twice, differently (CIFAR-100: 6 of 10,000)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photographs:
    """A set with the same number of images per class: the first of each class are for training, the last for testing.

    Attributes:
        image_shape: channels, height, width; images of other shapes are converted.
        num_classes: number of classes.
        train_each: number of training images per class.
        test_each: number of test images per class.
        layouts: the layouts in which it may be found; the first one found is read.
        decoded: SHA-256 over all decoded images, if the set is the same everywhere.
        download: downloads the set below a folder, in one of the layouts; None if its terms forbid that.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    train_each: int
    test_each: int
    layouts: tuple[Layout, ...]
    decoded: str | None = None
    download: Callable[[Path], None] | None = None

    @property
    def expected(self) -> tuple[str, ...]:
        """One line per layout."""
        first, *others = (layout.expected for layout in self.layouts)
        return (first, *(f"or {other}" for other in others))

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksum of the decoded images."""
        return {} if self.decoded is None else {"decoded images": self.decoded}

    @property
    def is_fetchable(self) -> bool:
        """True unless the set's terms forbid a download."""
        return self.download is not None

    @property
    def is_mapped(self) -> bool:
        """True: decoded images are memory-mapped."""
        return True

    @property
    def places(self) -> tuple[Path, ...]:
        """Below data roots."""
        return ()

    def is_in(self, root: Path) -> bool:
        """Whether `root` holds the set in any layout."""
        return self._found(root)[0] is not None

    def fetch(self, root: Path) -> None:
        """Download the set to `root`, atomically; one process at a time.

        Raises:
            OSError, RuntimeError: there is no network, the server refuses, the folder cannot be written, or the set
                has no download.
        """
        if self.download is None:
            raise DataError(
                "download-not-allowed", "It is not downloaded for you: its terms do not let this program pass it on."
            )
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".photographs.lock"), tempfile.TemporaryDirectory(dir=root) as folder:
            if self.is_in(root):
                return
            self.download(Path(folder))
            if not self.is_in(Path(folder)):
                raise OSError("the download left no files")
            for path in Path(folder).iterdir():
                if path.is_dir():
                    path.replace(root / path.name)

    def prepare(self, root: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Decode the images into the cache unless it holds them.

        Returns:
            How many images were converted, if any.

        Raises:
            DataError: an image cannot be decoded, training and test images overlap, or the number of classes or of
                images per class is wrong.
        """
        return self._prepared(root, on_progress)[1]

    def _prepared(self, root: Path, on_progress: OnProgress) -> tuple[Path, tuple[str, ...]]:
        """The folder of the decoded images, decoded now if missing, and what `prepare` returns."""
        layout, files = self._found(root)
        assert layout is not None
        folder = self._cache(root, files)
        if folder.exists():
            return folder, ()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if folder.exists():  # another process was first
                    return folder, ()
                beside = folder.parent / f".{folder.name}.part"
                shutil.rmtree(beside, ignore_errors=True)  # left by a killed process
                pictures = _listed(layout, root)
                beside.mkdir()
                try:
                    notes = self._decode(pictures, beside, on_progress)
                    beside.rename(folder)
                finally:
                    shutil.rmtree(beside, ignore_errors=True)
        except OSError as error:
            size = self.num_classes * (self.train_each + self.test_each) * int(np.prod(self.image_shape)) / 2**20
            raise DataError(
                "cache-not-written",
                f"its images are decoded once into {folder.parent}, which takes {2 * size:.0f} MB there: {error}",
            ) from error
        return folder, notes

    def load(self, root: Path | None) -> ImageSet:
        """The decoded images, memory-mapped; decoded first if the cache lacks them."""
        assert root is not None
        folder, _ = self._prepared(root, lambda done, total: None)
        try:
            made = _made(folder)
            images = {part: np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("train", "test")}
        except Exception as error:  # a damaged header raises almost anything
            raise DataError(
                "cache-damaged", f"the cache {folder} is damaged: {reason(error)}. Remove it to have it made again."
            ) from error
        splits = {}
        for part, each in (("train", self.train_each), ("test", self.test_each)):
            shape = (self.num_classes * each, *self.image_shape)
            if made.get("format") != CACHE_FORMAT or images[part].shape != shape or images[part].dtype != np.uint8:
                raise DataError(
                    "cache-of-another-version",
                    f"the cache {folder} was made by another version: expected format {CACHE_FORMAT} and {shape}, "
                    f"found {made.get('format')} and {images[part].shape}. Remove it to have it made again.",
                )
            splits[part] = ImageSplit(images=images[part], labels=np.repeat(np.arange(self.num_classes), each))
        return ImageSet(train=splits["train"], test=splits["test"])

    def check(self, root: Path | None, images: ImageSet) -> None:
        """Compare the decoded images with the published checksum, or with the one recorded when they were decoded."""
        assert root is not None
        folder, _ = self._prepared(root, lambda done, total: None)
        whole = hashlib.sha256()
        for split in (images.train, images.test):
            whole.update(split.images.data)
        if whole.hexdigest() != (self.decoded or _made(folder).get("sha256")):
            raise DataError(
                "cache-damaged",
                f"the cache {folder} is damaged: its images are not those that were decoded. Remove it to have it made "
                "again.",
            )

    def _found(self, root: Path) -> tuple[Layout | None, list[Path]]:
        """The first layout in which `root` holds the set, and its files; (None, []) if there is none."""
        for layout in self.layouts:
            files = layout.files(root)
            if files:
                return layout, files
        return None, []

    def _cache(self, root: Path, files: Sequence[Path]) -> Path:
        """The folder of the decoded images; its name depends on the files that they are decoded from."""
        known = [
            [file.relative_to(root).as_posix(), file.stat().st_size, _content(file, one_of=len(files))]
            for file in files
        ]
        wanted = [self.image_shape, self.num_classes, self.train_each, self.test_each]
        key = hashlib.sha256(json.dumps([CACHE_FORMAT, wanted, known]).encode()).hexdigest()[:16]
        return cache_root() / "decoded" / f"{files[0].relative_to(root).parts[0]}-{key}"

    def _decode(self, pictures: Sequence[Picture], folder: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Decode all images, write them in order to `train.npy` and `test.npy`, and `made.json` last."""
        places = self._arrange(pictures)
        chosen = [(part, label, picture) for (part, label), picture in zip(places, pictures, strict=True)]
        decoded_NCHW, digests, changes, faults = decode_all(pictures, self.image_shape, folder / "raw.npy", on_progress)
        if faults:
            raise DataError.of(faults, f"{len(faults)} images cannot be decoded: {named(sorted(faults))}")
        notes = [f"{count} images {change}" for change, count in sorted(changes.items())]
        if self.decoded is None:  # else the checksum over all images covers this
            notes += shared(chosen, digests)
        whole = hashlib.sha256()
        for part in ("train", "test"):
            order = sorted(
                (label, digests[number], number) for number, (of, label, _) in enumerate(chosen) if of == part
            )
            images = np.lib.format.open_memmap(
                folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=(len(order), *self.image_shape)
            )
            for place, (_, _, number) in enumerate(order):
                images[place] = decoded_NCHW[number]
            images.flush()
            whole.update(images.data)
        if self.decoded not in (None, whole.hexdigest()):
            raise DataError(
                "images-not-as-published",
                f"its images are not those of the published set: expected the SHA-256 {self.decoded} over them, found "
                f"{whole.hexdigest()}. Fetch the files again.",
            )
        (folder / "raw.npy").unlink()
        made = {"format": CACHE_FORMAT, "sha256": whole.hexdigest(), "changes": dict(changes)}
        (folder / "made.json").write_text(json.dumps(made))
        return tuple(notes)

    def _arrange(self, pictures: Sequence[Picture]) -> list[tuple[str, int]]:
        """The part, `train` or `test`, and the label of each picture.

        Raises:
            DataError: the number of classes or of images per class is wrong.
        """
        members: dict[ClassName, list[int]] = {}
        origins: dict[Path, collections.Counter[ClassName]] = {}
        kinds: dict[bool, Picture] = {}
        for number, picture in enumerate(pictures):
            members.setdefault(picture.class_name, []).append(number)
            origins.setdefault(picture.origin, collections.Counter())[picture.class_name] += 1
            kinds.setdefault(isinstance(picture.class_name, str), picture)
        if len(kinds) > 1:
            raise DataError(
                "classes-of-two-kinds",
                f"expected classes of one kind, found text ({kinds[True].class_name!r}, {kinds[True].place}) and "
                f"integers ({kinds[False].class_name}, {kinds[False].place})",
            )
        needed = self.train_each + self.test_each
        counts = sorted((name, len(numbers)) for name, numbers in members.items())
        few = [f"{name} ({count})" for name, count in counts if count < needed]
        many = [f"{name} ({count})" for name, count in counts if count > needed]
        faults = []
        if len(members) != self.num_classes:
            faults.append(Fault("classes-miscounted", f"expected {self.num_classes} classes, found {len(members)}"))
        if few:
            message = f"expected at least {needed} images of every class, found fewer of {named(few)}"
            faults.append(Fault("images-too-few", message))
        if many:
            message = f"expected at most {needed} images of every class, found more of {named(many)}"
            faults.append(Fault("images-too-many", message))
        if faults:
            read = [
                f"{sum(found.values())} images of {len(found)} classes in {where}" for where, found in origins.items()
            ]
            raise DataError.of(faults, "; ".join([*faults, f"read {named(read) or 'no images'}"]))
        places = [("", -1)] * len(pictures)
        for label, name in enumerate(sorted(members)):
            for place, number in enumerate(members[name]):
                places[number] = ("train" if place < self.train_each else "test", label)
        return places


def decode_all(
    pictures: Sequence[Picture], image_shape: tuple[int, int, int], file: Path, on_progress: OnProgress
) -> tuple[Images, list[bytes], Mapping[str, int], list[Fault]]:
    """Decode pictures in parallel into a new file.

    Args:
        pictures: the pictures.
        image_shape: channels, height, width; pictures of other shapes are converted.
        file: the file, of numpy's format.
        on_progress: called with the progress.

    Returns:
        The memory-mapped images [N, C, H, W]; the SHA-256 of each one's pixels; the number of pictures by conversion;
        what is wrong with those that cannot be decoded.
    """
    decoded_NCHW = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(pictures), *image_shape))
    faults: list[Fault] = []
    changes: collections.Counter[str] = collections.Counter()
    digests: list[bytes] = []

    def decode(number: int) -> tuple[bytes, list[str], Fault | None]:
        """An image's digest, its conversions, and what is wrong with it (None if nothing is)."""
        picture = pictures[number]
        try:
            pixels_HWC, changed = pixels(picture.content, image_shape)
        except Exception as error:  # noqa: BLE001 (decoders raise almost anything; all faults are reported at once)
            return b"", [], Fault(codes_of(error, "image-undecodable"), f"{picture.place} ({reason(error)})")
        decoded_NCHW[number] = pixels_HWC.transpose(2, 0, 1)
        return hashlib.sha256(decoded_NCHW[number].tobytes()).digest(), changed, None

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release the GIL
        warnings.simplefilter("ignore")  # decoders warn about images that they decode all the same
        for first in range(0, len(pictures), DECODED_AT_ONCE):
            on_progress(first, len(pictures))
            for digest, changed, fault in pool.map(decode, range(first, min(first + DECODED_AT_ONCE, len(pictures)))):
                digests.append(digest)
                changes.update(changed)
                faults += [] if fault is None else [fault]
    on_progress(len(pictures), len(pictures))
    return decoded_NCHW, digests, changes, faults


def shared(pictures: Sequence[tuple[str, int, Picture]], digests: Sequence[bytes]) -> list[str]:
    """A note on how many test images are training images of another class; empty if none are.

    Args:
        pictures: with their part, `train` or `test`, and their label.
        digests: of their pixels.

    Raises:
        DataError: a test image is a training image of its own class, or more than `MAX_SHARED` are of another.
    """
    trained: dict[bytes, dict[int, Picture]] = {}
    for (part, label, picture), digest in zip(pictures, digests, strict=True):
        if part == "train":
            trained.setdefault(digest, {})[label] = picture
    same: list[str] = []
    other: list[str] = []
    for (part, label, picture), digest in zip(pictures, digests, strict=True):
        if part == "test" and digest in trained:
            twins = trained[digest]
            twin = twins.get(label, next(iter(twins.values())))
            (same if label in twins else other).append(f"{picture.place} and {twin.place}")
    if same or len(other) > MAX_SHARED * sum(part == "test" for part, _, _ in pictures):
        raise DataError(
            "test-images-in-training",
            f"{len(same) + len(other)} test images are training images as well, pixel for pixel: "
            f"{named([*same, *other])}",
        )
    return [f"{len(other)} test images are training images of another class: {named(other)}"] if other else []


def _listed(layout: Layout, root: Path) -> list[Picture]:
    try:
        return layout.pictures(root)
    except OSError as error:
        raise DataError("file-unreadable", str(error)) from error


def _made(folder: Path) -> dict[str, Any]:
    made = json.loads((folder / "made.json").read_text())
    if not isinstance(made, dict):
        raise ValueError("made.json is no JSON object")
    return made


def _content(file: Path, *, one_of: int) -> str:
    return sha256_of(file) if one_of <= MANY_FILES else str(file.stat().st_mtime_ns)
