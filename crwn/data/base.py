"""What a base data set is, and where its images are looked for.

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

from crwn.lazy import LazyModule
from crwn.paths import expanded

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
OnProgress: TypeAlias = Callable[[int, int], None]
"""Told how many of how many images are decoded."""


class DataError(Exception):
    """A base data set is missing or damaged; the message says where it was looked for and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSplit:
    """Images [N, C, H, W] as unsigned bytes and their labels [N]."""

    images: Images
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """A base set's training and test images, in memory or mapped to it."""

    train: ImageSplit
    test: ImageSplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """(bytes / 255 - mean) / std, as one multiplication and one subtraction.

    Attributes:
        mean: of the training pixels divided by 255, for each channel.
        std: standard deviation of the same.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def factors(self) -> tuple[float, ...]:
        """What a byte of each channel is multiplied by."""
        return tuple(1 / (255 * std) for std in self.std)

    @property
    def offsets(self) -> tuple[float, ...]:
        """What is subtracted then."""
        return tuple(mean / std for mean, std in zip(self.mean, self.std, strict=True))

    def __call__(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Bytes to the numbers a network sees, in the same shape: [..., C, H, W], or any shape of one channel."""
        values = images.to(dtype)
        if len(self.mean) == 1:
            return values.mul_(self.factors[0]).sub_(self.offsets[0])
        numbers_2C = torch.tensor([self.factors, self.offsets], dtype=values.dtype)
        factor_C11, offset_C11 = numbers_2C.to(values.device, non_blocking=True)[..., None, None]
        return values.mul_(factor_C11).sub_(offset_C11)


AS_THEY_ARE = Normalisation(mean=(0.0,), std=(1.0,))
"""Bytes / 255, from 0 to 1."""


class Source(Protocol):
    """Where the images of a base set come from. Its errors do not name the set; `Datasets` does."""

    @property
    def expected(self) -> tuple[str, ...]:
        """What to put below a data root, a line each; nothing for an embedded set."""
        ...

    @property
    def checksums(self) -> Mapping[str, str]:
        """The SHA-256 of what is always the same, by name."""
        ...

    @property
    def is_fetchable(self) -> bool:
        """Whether `fetch` can download it."""
        ...

    @property
    def is_mapped(self) -> bool:
        """Whether images stay in a file that is mapped to memory."""
        ...

    def is_in(self, root: Path) -> bool:
        """Whether a data root holds the set.

        Raises:
            DataError: it holds a part of it, or a damaged one.
        """
        ...

    def fetch(self, root: Path) -> None:
        """Download the set to `root`, whole or not at all; one process at a time.

        Raises:
            OSError, RuntimeError: no network, a server's refusal, a folder that cannot be written; or it cannot be
                downloaded at all.
        """
        ...

    def prepare(self, root: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Do once what would make every `load` slow.

        Args:
            root: holds the set.
            on_progress: told how far it is.

        Returns:
            What a user should know of it; nothing where there was nothing to do.

        Raises:
            DataError: the images are not what they should be.
        """
        ...

    def load(self, root: Path | None) -> ImageSet:
        """Read the images from the data root that holds them, or from the library that embeds them."""
        ...

    def check(self, root: Path | None, images: ImageSet) -> None:
        """Compare images that were loaded from `root` with what is known of them beyond what every `load` compares.

        Raises:
            DataError: they differ.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Images that a library brings along."""

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
        """There is nothing to download."""
        return False

    @property
    def is_mapped(self) -> bool:
        """They are in memory."""
        return False

    def is_in(self, root: Path) -> bool:
        """In no folder."""
        del root
        return False

    def fetch(self, root: Path) -> None:
        """Nothing to do."""

    def prepare(self, root: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Nothing to do."""
        del root, on_progress
        return ()

    def load(self, root: Path | None) -> ImageSet:
        """Read the images."""
        del root
        return self.read()

    def check(self, root: Path | None, images: ImageSet) -> None:
        """Nothing is known."""
        del root, images


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSet:
    """A base data set: what is known of it without its images, and how to get them.

    Attributes:
        name: as written in a sweep.
        image_shape: channels, height, width.
        train_counts: training images of each class; labels are places in it.
        test_counts: test images of each class.
        mean: of the training pixels divided by 255, for each channel.
        std: standard deviation of the same.
        source: where the images come from.
    """

    name: str
    image_shape: tuple[int, int, int]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: Source

    @property
    def num_classes(self) -> int:
        """Labels run from 0 to `num_classes` - 1."""
        return len(self.train_counts)

    @property
    def num_train(self) -> int:
        """Training images."""
        return sum(self.train_counts)

    @property
    def num_test(self) -> int:
        """Test images."""
        return sum(self.test_counts)

    @property
    def normalisation(self) -> Normalisation:
        """Of its images."""
        return Normalisation(mean=self.mean, std=self.std)

    @property
    def is_embedded(self) -> bool:
        """Whether it comes with a library, in no folder of its own."""
        return not self.source.expected

    @property
    def is_mapped(self) -> bool:
        """Whether images stay in a file that is mapped to memory."""
        return self.source.is_mapped


def cache_root() -> Path:
    """The folder that downloads and decoded images go to, and the last one that is searched.

    Raises:
        DataError: nobody's home is known to have it in.
    """
    try:
        return expanded("~/.cache/crwn")
    except ValueError as error:
        raise DataError("expected a home folder, for images in ~/.cache/crwn, and found none: set HOME") from error


def data_roots(data_root: str | None = None) -> tuple[Path, ...]:
    """The folders that data sets are looked for in, in order: the given one, $CRWN_DATA, ~/.cache/crwn.

    Without a home, which a container's user may lack, there is no last one.

    Raises:
        DataError: `data_root` or $CRWN_DATA is set but is no folder.
    """
    roots = []
    for source, value in (("--data-root", data_root), ("$CRWN_DATA", os.environ.get("CRWN_DATA"))):
        if value:
            try:
                path = expanded(value).absolute()
            except ValueError as error:
                raise DataError(f"{source}: {error}.") from error
            if not path.is_dir():
                raise DataError(
                    f"{source}: expected a folder, given {value!r}, which is none. Correct it or leave it out."
                )
            roots.append(path)
    with contextlib.suppress(DataError):  # embedded sets need no folder; who wants to download is told
        roots.append(cache_root())
    return tuple(roots)


class Datasets:
    """The base sets that one process reads, each loaded at most once.

    Args:
        known: base sets by name.
        roots: the folders to look in, in order.
    """

    def __init__(self, known: Mapping[str, BaseSet], roots: Sequence[Path]) -> None:
        self._known = known
        self._roots = tuple(roots)
        self._loaded: dict[str, ImageSet] = {}

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that are looked in."""
        return self._roots

    def find(self, name: str) -> Path | None:
        """The first folder that holds `name`; None where none does, and for an embedded set.

        Raises:
            DataError: it is damaged.
        """
        source = self._known[name].source
        with _named(name):
            for root in self._roots:
                try:
                    if source.is_in(root):
                        return root
                except PermissionError as error:
                    raise DataError(f"{root} cannot be looked into: {error}.") from error
        return None

    def verify(self, name: str) -> None:
        """Check the checksums, and that the images are as many and as large as they should be.

        Raises:
            DataError: something differs, or the set is not there.
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
                faults.append(
                    f"{part}: expected {count} images of {base.image_shape} and as many labels, found {given}"
                )
            elif set(split.labels.tolist()) != set(range(base.num_classes)):
                faults.append(f"{part}: expected labels from 0 to {base.num_classes - 1}, each of them")
            else:
                faults += [
                    f"{part}: expected {expected} images of class {name}, found {found}"
                    for name, (expected, found) in enumerate(zip(counts, np.bincount(split.labels), strict=True))
                    if found != expected
                ]
        if faults:
            raise DataError(f"data set {name!r}: " + "; ".join(faults))

    def obtain(self, name: str) -> Path | None:
        """The folder that holds `name`, to which it is downloaded if it is nowhere; None for an embedded set.

        Raises:
            DataError: it is damaged, or absent and could not be downloaded.
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
                f"data set {name!r}: expected in one of these folders, found in none:\n"
                + "".join(f"  {root}\n" for root in self._roots)
                + f"{why}\n"
                f"Put these files into one of the folders, or name another with --data-root or $CRWN_DATA:\n"
                + "".join(f"  {file}\n" for file in base.source.expected).rstrip()
            ) from error
        return cache_root()

    def ensure(self, name: str, on_progress: OnProgress = lambda done, total: None) -> tuple[str, ...]:
        """Make sure that `name` is there, whole and quick to load; download it if it is nowhere.

        Args:
            name: of the set.
            on_progress: told how far decoding is.

        Returns:
            What a user should know of images that were decoded now.

        Raises:
            DataError: it is damaged, or absent and could not be downloaded.
        """
        root = self.obtain(name)
        if root is None:
            return ()
        with _named(name):
            return self._known[name].source.prepare(root, on_progress)

    def load(self, name: str) -> ImageSet:
        """The images of `name`; reads what is there and never downloads.

        Raises:
            DataError: the set is not there, or damaged.
        """
        if name not in self._loaded:
            base = self._known[name]
            root = self.find(name)
            if root is None and not base.is_embedded:
                places = f"one of {', '.join(map(str, self._roots))}, found in none of them"
                if not self._roots:
                    places = "a folder named by --data-root or $CRWN_DATA, but none is named or known"
                raise DataError(f"data set {name!r}: expected in {places} on this machine.")
            with _named(name):
                self._loaded[name] = base.source.load(root)
        return self._loaded[name]


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Has an error say which set it is about; a file or folder that cannot be read is one."""
    try:
        yield
    except (DataError, OSError) as error:
        raise DataError(f"data set {name!r}: {error}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
