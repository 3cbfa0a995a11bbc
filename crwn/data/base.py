"""Base data sets: their interface, and the folders searched for their images.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn.faults import Fault, FaultError, codes_of
from crwn.lazy import LazyModule
from crwn.paths import expanded

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with the number of images decoded so far and the total."""


class DataError(FaultError):
    """A base data set is missing or damaged; the message says where we looked and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSplit:
    """Images [N, C, H, W] as unsigned bytes and their labels [N]."""

    images: Images
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """A base set's training and test images, in memory or memory-mapped.

    Attributes:
        train: the training images.
        test: the test images.
        weights: the file of trained weights that the benchmark asks for (`benchmarks.features`); None: none.
    """

    train: ImageSplit
    test: ImageSplit
    weights: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """(bytes / 255 - mean) / std, as one multiplication and one subtraction.

    Attributes:
        mean: mean of the training pixels divided by 255, per channel.
        std: their standard deviation, per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def factors(self) -> tuple[float, ...]:
        """The multiplier of each channel's bytes."""
        return tuple(1 / (255 * std) for std in self.std)

    @property
    def offsets(self) -> tuple[float, ...]:
        """What is subtracted from each channel after the multiplication."""
        return tuple(mean / std for mean, std in zip(self.mean, self.std, strict=True))

    def __call__(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Normalise bytes to a network's inputs, in the same shape: [..., C, H, W], or any shape for one channel."""
        values = images.to(dtype)
        if len(self.mean) == 1:
            (factor,), (offset,) = self.factors, self.offsets
            values.mul_(factor)
            return values.sub_(offset) if offset else values
        numbers_2C = torch.tensor([self.factors, self.offsets], dtype=values.dtype)
        factor_C11, offset_C11 = numbers_2C.to(values.device, non_blocking=True)[..., None, None]
        return values.mul_(factor_C11).sub_(offset_C11)


AS_THEY_ARE = Normalisation(mean=(0.0,), std=(1.0,))
"""No normalisation: bytes / 255, from 0 to 1."""


class Source(Protocol):
    """Where the images of a base set come from. Its errors do not name the set; `Datasets` does."""

    @property
    def expected(self) -> tuple[str, ...]:
        """What to put below a data root, one item per line; empty for an embedded set."""
        ...

    @property
    def checksums(self) -> Mapping[str, str]:
        """SHA-256 by name, of everything that is identical on all machines."""
        ...

    @property
    def is_fetchable(self) -> bool:
        """Whether `fetch` can download the set."""
        ...

    @property
    def is_mapped(self) -> bool:
        """Whether images stay in a memory-mapped file."""
        ...

    @property
    def places(self) -> tuple[Path, ...]:
        """Where the set is looked for instead of below data roots; empty: below those."""
        ...

    def is_in(self, root: Path) -> bool:
        """Whether a data root, or one of `places`, holds the set.

        Raises:
            DataError: it holds only part of the set, or a damaged one.
        """
        ...

    def fetch(self, root: Path) -> None:
        """Download the set to `root`, atomically; one process at a time.

        Raises:
            OSError, RuntimeError: there is no network, the server refuses, the folder cannot be written, or the set
                has no download.
        """
        ...

    def prepare(self, root: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Do the slow, one-time work that would otherwise slow down every `load`.

        Args:
            root: a data root that holds the set.
            on_progress: called with the progress.

        Returns:
            Notes for the user; empty if there was nothing to do.

        Raises:
            DataError: the images are not as expected.
        """
        ...

    def load(self, root: Path | None) -> ImageSet:
        """Read the images from the data root that holds them, or from the library that embeds them."""
        ...

    def check(self, root: Path | None, images: ImageSet) -> None:
        """Run the checks on images loaded from `root` that are too slow for every `load`.

        Raises:
            DataError: the images differ from what is known of the set.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Images that are bundled with a library."""

    read: Callable[[], ImageSet]

    @property
    def expected(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    @property
    def checksums(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def is_fetchable(self) -> bool:
        """False: there is nothing to download."""
        return False

    @property
    def is_mapped(self) -> bool:
        """False: they are in memory."""
        return False

    @property
    def places(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def is_in(self, root: Path) -> bool:
        """False: no folder holds them."""
        del root
        return False

    def fetch(self, root: Path) -> None:
        """Do nothing."""

    def prepare(self, root: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Do nothing."""
        del root, on_progress
        return ()

    def load(self, root: Path | None) -> ImageSet:
        """Read the images."""
        del root
        return self.read()

    def check(self, root: Path | None, images: ImageSet) -> None:
        """Do nothing: there is nothing to compare with."""
        del root, images


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSet:
    """A base data set: its metadata, known without the images, and where to get them.

    Attributes:
        name: as written in a sweep.
        image_shape: channels, height, width.
        train_counts: number of training images per class; a label is an index into it.
        test_counts: number of test images per class.
        mean: mean of the training pixels divided by 255, per channel.
        std: their standard deviation, per channel.
        source: where the images come from.
        superclasses: the super-class of each class, from 0; empty: there are none.
    """

    name: str
    image_shape: tuple[int, int, int]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: Source
    superclasses: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes; labels run from 0 to `num_classes` - 1."""
        return len(self.train_counts)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return sum(self.train_counts)

    @property
    def num_test(self) -> int:
        """Number of test images."""
        return sum(self.test_counts)

    @property
    def normalisation(self) -> Normalisation:
        """The normalisation of its images."""
        return Normalisation(mean=self.mean, std=self.std)

    @property
    def is_embedded(self) -> bool:
        """Whether it is bundled with a library and has no folder of its own."""
        return not self.source.expected

    @property
    def is_mapped(self) -> bool:
        """Whether images stay in a memory-mapped file."""
        return self.source.is_mapped


def cache_root() -> Path:
    """The folder for downloads and decoded images, and the last one that is searched.

    Raises:
        DataError: there is no known home folder to put it in.
    """
    try:
        return expanded("~/.cache/crwn")
    except ValueError as error:
        raise DataError(
            "no-home-folder", "expected a home folder, for images in ~/.cache/crwn, and found none: set HOME"
        ) from error


def data_roots(data_root: str | None = None) -> tuple[Path, ...]:
    """The folders searched for data sets, in order: the given one, $CRWN_DATA, ~/.cache/crwn.

    Without a home folder, as some containers have none, the last one is left out.

    Raises:
        DataError: `data_root` or $CRWN_DATA is set but is no folder.
    """
    roots = []
    for source, value in (("--data-root", data_root), ("$CRWN_DATA", os.environ.get("CRWN_DATA"))):
        if value:
            try:
                path = expanded(value).absolute()
            except ValueError as error:
                raise DataError(codes_of(error, "no-home-folder"), f"{source}: {error}.") from error
            if not path.is_dir():
                raise DataError(
                    "not-a-folder",
                    f"{source}: expected a folder, given {value!r}, which is not one. Correct it or leave it out.",
                )
            roots.append(path)
    with contextlib.suppress(DataError):  # embedded sets need no folder; a download raises the error again
        roots.append(cache_root())
    return tuple(roots)


class Datasets:
    """The base sets that one process reads, each loaded at most once.

    Args:
        known: base sets by name.
        roots: the folders to search, in order.
    """

    def __init__(self, known: Mapping[str, BaseSet], roots: Sequence[Path]) -> None:
        self._known = known
        self._roots = tuple(roots)
        self._loaded: dict[str, ImageSet] = {}

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that are searched."""
        return self._roots

    def places(self, name: str) -> tuple[Path, ...]:
        """The folders that are searched for `name`."""
        return self._known[name].source.places or self._roots

    def find(self, name: str) -> Path | None:
        """The first folder that holds `name`; None if no folder does, and for an embedded set.

        Raises:
            DataError: the set is damaged.
        """
        source = self._known[name].source
        with _named(name):
            for root in self.places(name):
                try:
                    if source.is_in(root):
                        return root
                except PermissionError as error:
                    raise DataError("folder-unreadable", f"{root} cannot be listed: {error}.") from error
        return None

    def verify(self, name: str) -> None:
        """Verify the checksums, and the number and shape of the images.

        Raises:
            DataError: something differs, or the set is missing.
        """
        base = self._known[name]
        images = self.load(name)
        with _named(name):
            base.source.check(self.find(name), images)
        faults = []
        for part, split, counts in (
            ("training", images.train, base.train_counts),
            ("test", images.test, base.test_counts),
        ):
            count = sum(counts)
            if split.images.shape != (count, *base.image_shape) or split.labels.shape != (count,):
                given = f"{split.images.shape} and {split.labels.shape}"
                message = f"{part}: expected {count} images of {base.image_shape} and as many labels, found {given}"
                faults.append(Fault("images-miscounted", message))
            elif set(split.labels.tolist()) != set(range(base.num_classes)):
                message = f"{part}: expected labels from 0 to {base.num_classes - 1}, each of them"
                faults.append(Fault("labels-incomplete", message))
            else:
                faults += [
                    Fault("class-miscounted", f"{part}: expected {expected} images of class {name}, found {found}")
                    for name, (expected, found) in enumerate(zip(counts, np.bincount(split.labels), strict=True))
                    if found != expected
                ]
        if faults:
            raise DataError.of(faults, f"data set {name!r}: " + "; ".join(faults))

    def obtain(self, name: str) -> Path | None:
        """The folder that holds `name`, downloaded if no folder does; None for an embedded set.

        Raises:
            DataError: the set is damaged, or it is missing and could not be downloaded.
        """
        base = self._known[name]
        if base.is_embedded:
            return None
        root = self.find(name)
        if root is not None:
            return root
        try:
            base.source.fetch(cache_root())
        except (OSError, RuntimeError, DataError) as error:
            is_tried = base.source.is_fetchable and not isinstance(error, DataError)
            why = f"downloading it to {cache_root()} failed: {error}" if is_tried else str(error)
            raise DataError(
                ("data-set-missing", *codes_of(error, "download-failed")),
                f"data set {name!r}: expected in one of these folders, found in none:\n"
                + "".join(f"  {root}\n" for root in self.places(name))
                + f"{why}\n"
                f"Put these files into one of the folders, or name another with --data-root or $CRWN_DATA:\n"
                + "".join(f"  {file}\n" for file in base.source.expected).rstrip(),
            ) from error
        return cache_root()

    def ensure(self, name: str, on_progress: OnProgress = lambda done, total: None) -> tuple[str, ...]:
        """Make sure that `name` is present, complete and quick to load; download it if it is missing.

        Args:
            name: the set's name.
            on_progress: called with the progress of decoding.

        Returns:
            Notes for the user about images that this call decoded.

        Raises:
            DataError: the set is damaged, or it is missing and could not be downloaded.
        """
        root = self.obtain(name)
        if root is None:
            return ()
        with _named(name):
            return self._known[name].source.prepare(root, on_progress)

    def load(self, name: str) -> ImageSet:
        """The images of `name`; never downloads.

        Raises:
            DataError: the set is missing or damaged.
        """
        if name not in self._loaded:
            base = self._known[name]
            root = self.find(name)
            if root is None and not base.is_embedded:
                searched = self.places(name)
                places = f"one of {', '.join(map(str, searched))}, found in none of them"
                if not searched:
                    places = "a folder named by --data-root or $CRWN_DATA, but none is named or known"
                raise DataError("data-set-missing", f"data set {name!r}: expected in {places} on this machine.")
            with _named(name):
                self._loaded[name] = base.source.load(root)
        return self._loaded[name]


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Prefix errors with the name of the set; an unreadable file or folder counts as a `DataError`."""
    try:
        yield
    except (DataError, OSError) as error:
        raise DataError(codes_of(error, "file-unreadable"), f"data set {name!r}: {error}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
