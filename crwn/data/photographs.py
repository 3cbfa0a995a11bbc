"""Sets of photographs: found in any of several layouts, decoded once, mapped to memory ever after.

Images are kept class by class, and within a class's training or test images in the order of their SHA-256. So a set
gives the same arrays whatever layout it was found in and in whatever order that lists them.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from crwn.data.base import DataError, ImageSet, ImageSplit, OnProgress, cache_root, sha256_of
from crwn.data.layouts import ClassName, Layout, Picture, named

CACHE_FORMAT = 1
MANY_FILES = 100
"""Of more files than this the sizes and times stand for the bytes."""
DECODED_AT_ONCE = 256
"""Images between two reports of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photographs:
    """A set with equally many images of every class: the first of each train, the last are for testing.

    Attributes:
        image_shape: channels, height, width; other images are converted.
        num_classes: classes.
        train_each: training images of a class.
        test_each: test images of a class.
        layouts: the forms it may be found in; the first that is there is read.
        decoded: SHA-256 over all images as they are kept, where the set is the same everywhere.
        download: fetches it below a folder, in the form of a layout; None where its terms forbid that.
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
        """A line for each layout."""
        first, *others = (layout.expected for layout in self.layouts)
        return (first, *(f"or {other}" for other in others))

    @property
    def checksums(self) -> Mapping[str, str]:
        """That of the decoded images."""
        return {} if self.decoded is None else {"decoded images": self.decoded}

    @property
    def is_fetchable(self) -> bool:
        """Unless its terms forbid it."""
        return self.download is not None

    @property
    def is_mapped(self) -> bool:
        """Decoded images are."""
        return True

    def is_in(self, root: Path) -> bool:
        """Whether `root` holds it in some layout."""
        return self._layout(root) is not None

    def fetch(self, root: Path) -> None:
        """Download it, whole or not at all, one download at a time.

        Raises:
            OSError, RuntimeError: no network, a server's refusal, a folder that cannot be written, or no download.
        """
        if self.download is None:
            raise RuntimeError("It is not downloaded for you: its terms do not let this program pass it on.")
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
        """Decode the images into the cache unless they are there.

        Returns:
            How many images were converted, where some were.

        Raises:
            DataError: an image cannot be decoded, a class has too few, or there are too many or too few classes.
        """
        layout = self._layout(root)
        assert layout is not None
        folder = self._cache(root, layout)
        if folder.exists():
            return ()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if folder.exists():  # another process was faster
                    return ()
                beside = folder.parent / f".{folder.name}.part"
                shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
                beside.mkdir()
                try:
                    notes = self._decode(layout.pictures(root), beside, on_progress)
                    beside.rename(folder)
                finally:
                    shutil.rmtree(beside, ignore_errors=True)
        except OSError as error:
            size = self.num_classes * (self.train_each + self.test_each) * int(np.prod(self.image_shape)) / 2**20
            raise DataError(
                f"its images are decoded once into {folder.parent}, which takes {2 * size:.0f} MB there: {error}"
            ) from error
        return notes

    def load(self, root: Path | None) -> ImageSet:
        """The decoded images, mapped to memory; decoded first where the cache lacks them."""
        assert root is not None
        self.prepare(root, lambda done, total: None)
        layout = self._layout(root)
        assert layout is not None
        folder = self._cache(root, layout)
        try:
            made = json.loads((folder / "made.json").read_text())
            images = {part: np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("train", "test")}
        except (OSError, ValueError) as error:
            raise DataError(f"the cache {folder} is damaged: {error}. Remove it to have it made again.") from error
        splits = {}
        for part, each in (("train", self.train_each), ("test", self.test_each)):
            shape = (self.num_classes * each, *self.image_shape)
            if made.get("format") != CACHE_FORMAT or images[part].shape != shape or images[part].dtype != np.uint8:
                raise DataError(
                    f"the cache {folder} was made by another version: expected format {CACHE_FORMAT} and {shape}, "
                    f"found {made.get('format')} and {images[part].shape}. Remove it to have it made again."
                )
            splits[part] = ImageSplit(images=images[part], labels=np.repeat(np.arange(self.num_classes), each))
        return ImageSet(**splits)

    def _layout(self, root: Path) -> Layout | None:
        return next((layout for layout in self.layouts if layout.files(root)), None)

    def _cache(self, root: Path, layout: Layout) -> Path:
        """The folder of the decoded images: its name says what they were made from."""
        files = layout.files(root)
        known = [
            [file.relative_to(root).as_posix(), file.stat().st_size, _content(file, one_of=len(files))]
            for file in files
        ]
        wanted = [self.image_shape, self.num_classes, self.train_each, self.test_each]
        key = hashlib.sha256(json.dumps([CACHE_FORMAT, wanted, known]).encode()).hexdigest()[:16]
        return cache_root() / "decoded" / f"{files[0].relative_to(root).parts[0]}-{key}"

    def _decode(self, pictures: Sequence[Picture], folder: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Decode and arrange all images into `train.npy` and `test.npy`, and `made.json` last."""
        places = self._arrange([picture.class_name for picture in pictures])
        chosen = [(part, label, picture) for (part, label), picture in zip(places, pictures, strict=True) if part]
        decoded_NCHW = np.lib.format.open_memmap(
            folder / "raw.npy", mode="w+", dtype=np.uint8, shape=(len(chosen), *self.image_shape)
        )
        faults: list[str] = []
        changes: collections.Counter[str] = collections.Counter()
        digests: list[bytes] = []

        def decode(number: int) -> tuple[bytes, list[str], str | None]:
            """The digest of an image, how it was changed, and what is wrong with it."""
            picture = chosen[number][2]
            try:
                pixels_HWC, changed = pixels(picture.content, self.image_shape)
            except Exception as error:  # noqa: BLE001 (decoders raise almost anything; all faults are told at once)
                return b"", [], f"{picture.place} ({error})"
            decoded_NCHW[number] = pixels_HWC.transpose(2, 0, 1)
            return hashlib.sha256(decoded_NCHW[number].tobytes()).digest(), changed, None

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders leave Python while they work
            for first in range(0, len(chosen), DECODED_AT_ONCE):
                on_progress(first, len(chosen))
                for digest, changed, fault in pool.map(decode, range(first, min(first + DECODED_AT_ONCE, len(chosen)))):
                    digests.append(digest)
                    changes.update(changed)
                    faults += [] if fault is None else [fault]
        on_progress(len(chosen), len(chosen))
        if faults:
            raise DataError(f"{len(faults)} images cannot be decoded: {named(sorted(faults))}")
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
                f"its images are not those of the published set: expected the SHA-256 {self.decoded} over them, found "
                f"{whole.hexdigest()}. Fetch the files again."
            )
        (folder / "raw.npy").unlink()
        made = {"format": CACHE_FORMAT, "sha256": whole.hexdigest(), "changes": dict(changes)}
        (folder / "made.json").write_text(json.dumps(made))
        return tuple(f"{count} images {change}" for change, count in sorted(changes.items()))

    def _arrange(self, class_names: Sequence[ClassName]) -> list[tuple[str, int]]:
        """For each picture its part, `train`, `test` or none, and its label.

        Raises:
            DataError: there are too many or too few classes, or too few images of one.
        """
        members: dict[ClassName, list[int]] = {}
        for number, name in enumerate(class_names):
            members.setdefault(name, []).append(number)
        needed = self.train_each + self.test_each
        faults = []
        if len(members) != self.num_classes:
            faults.append(f"expected {self.num_classes} classes, found {len(members)}")
        poor = [f"{name} ({len(numbers)})" for name, numbers in sorted(members.items()) if len(numbers) < needed]
        if poor:
            faults.append(f"expected at least {needed} images of every class, found fewer of {named(poor)}")
        if faults:
            raise DataError("; ".join(faults))
        places = [("", -1)] * len(class_names)
        for label, name in enumerate(sorted(members)):
            for number in members[name][: self.train_each]:
                places[number] = ("train", label)
            for number in members[name][-self.test_each :]:
                places[number] = ("test", label)
        return places


def pixels(
    content: Path | bytes | NDArray[np.uint8], image_shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], list[str]]:
    """An image's pixels [H, W, C] in the shape that is wanted, and in words what had to be converted for it.

    Grey, transparent and palette images become coloured, coloured ones grey where one channel is wanted; images of
    another size are resized by Lanczos' filter, as the published splits of miniImageNet were.

    Raises:
        OSError, ValueError: it cannot be decoded.
    """
    from PIL import Image  # noqa: PLC0415 (only decoding needs it)

    channels, height, width = image_shape
    if isinstance(content, np.ndarray):
        image = Image.fromarray(content)
    else:
        image = Image.open(io.BytesIO(content if isinstance(content, bytes) else content.read_bytes()))
        image.load()
    changed = []
    mode = {1: "L", 3: "RGB"}[channels]
    if image.mode != mode:
        changed.append(f"were of mode {image.mode} and converted to {mode}")
        image = image.convert(mode)
    if image.size != (width, height):
        changed.append(f"were of other sizes and resized to {height}x{width}")
        image = image.resize((width, height), resample=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels), changed


def _content(file: Path, *, one_of: int) -> str:
    return sha256_of(file) if one_of <= MANY_FILES else str(file.stat().st_mtime_ns)
