"""What a base data set is, and where its files are looked for.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]


class DataError(Exception):
    """A base data set is missing or damaged; the message says where it was looked for and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSplit:
    """Images [N, C, H, W] as unsigned bytes and their labels [N]."""

    images: Images
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """A base set's training and test images in memory."""

    train: ImageSplit
    test: ImageSplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """(bytes / 255 - mean) / std, as one multiplication and one subtraction.

    Attributes:
        mean: of the training pixels divided by 255.
        std: standard deviation of the same.
    """

    mean: float
    std: float

    @property
    def factor(self) -> float:
        """What a byte is multiplied by."""
        return 1 / (255 * self.std)

    @property
    def offset(self) -> float:
        """What is subtracted then."""
        return self.mean / self.std

    def __call__(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Bytes to the numbers a network sees, in the same shape."""
        return images.to(dtype).mul_(self.factor).sub_(self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSet:
    """A base data set: what is known of it without its files, and how to get them.

    Attributes:
        name: as written in a sweep.
        image_shape: channels, height, width.
        num_classes: labels run from 0 to num_classes - 1.
        num_train: training images.
        num_test: test images.
        mean: of the training pixels divided by 255.
        std: standard deviation of the same.
        files: SHA-256 by path below a data root; empty for a set that is embedded in a library.
        download: fetches the files below a folder; None for an embedded set.
        load: reads the images from the data root that holds the files, or from the library.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    mean: float
    std: float
    files: Mapping[str, str]
    download: Callable[[Path], None] | None
    load: Callable[[Path | None], ImageSet]

    @property
    def normalisation(self) -> Normalisation:
        """Of its images."""
        return Normalisation(mean=self.mean, std=self.std)


def cache_root() -> Path:
    """The folder that downloads go to, and the last one that is searched."""
    return Path.home() / ".cache" / "crwn"


def data_roots(data_root: str | None = None) -> tuple[Path, ...]:
    """The folders that data sets are looked for in, in order: the given one, $CRWN_DATA, ~/.cache/crwn.

    Raises:
        DataError: `data_root` or $CRWN_DATA is set but is no folder.
    """
    roots = []
    for source, value in (("--data-root", data_root), ("$CRWN_DATA", os.environ.get("CRWN_DATA"))):
        if value:
            path = Path(value).expanduser().absolute()
            if not path.is_dir():
                raise DataError(
                    f"{source}: expected a folder, given {value!r}, which is none. Correct it or leave it out."
                )
            roots.append(path)
    return (*roots, cache_root())


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
        """The folder that holds the files of `name`, whole; None where none does, and for an embedded set.

        Raises:
            DataError: they are damaged.
        """
        base = self._known[name]
        return _find(base, self._roots) if base.files else None

    def verify(self, name: str) -> None:
        """Check the files' checksums, and that the images are as many and as large as they should be.

        Raises:
            DataError: something differs, or the files are not there.
        """
        base = self._known[name]
        images = self.load(name)
        faults = []
        for part, split, count in (
            ("training", images.train, base.num_train),
            ("test", images.test, base.num_test),
        ):
            if split.images.shape != (count, *base.image_shape) or split.labels.shape != (count,):
                given = f"{split.images.shape} and {split.labels.shape}"
                faults.append(
                    f"{part}: expected {count} images of {base.image_shape} and as many labels, found {given}"
                )
            elif set(split.labels.tolist()) != set(range(base.num_classes)):
                faults.append(f"{part}: expected labels from 0 to {base.num_classes - 1}, each of them")
        if faults:
            raise DataError(f"data set {name!r}: " + "; ".join(faults))

    def ensure(self, name: str) -> None:
        """Make sure that the files of `name` are there and whole; download them if they are nowhere.

        Raises:
            DataError: they are damaged, or absent and could not be downloaded.
        """
        base = self._known[name]
        if not base.files or self.find(name) is not None:
            return
        target = cache_root()
        try:
            _download(base, target)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"data set {name!r}: expected in one of these folders, found in none:\n"
                + "".join(f"  {root}\n" for root in self._roots)
                + f"downloading it to {target} failed: {error}\n"
                f"Put these files into one of the folders, or name another with --data-root or $CRWN_DATA:\n"
                + "".join(f"  {file}\n" for file in base.files).rstrip()
            ) from error

    def load(self, name: str) -> ImageSet:
        """The images of `name`; reads files that are there and never downloads.

        Raises:
            DataError: the files are not there, or damaged.
        """
        if name not in self._loaded:
            base = self._known[name]
            root = self.find(name)
            if base.files and root is None:
                places = ", ".join(map(str, self._roots))
                raise DataError(
                    f"data set {name!r}: expected in one of {places}, found in none of them on this machine."
                )
            self._loaded[name] = base.load(root)
        return self._loaded[name]


def _find(base: BaseSet, roots: Sequence[Path]) -> Path | None:
    """The first root that holds all files of `base`, each verified.

    Raises:
        DataError: a root holds only some of them, or one that is damaged.
    """
    for root in roots:
        missing = [file for file in base.files if not (root / file).is_file()]
        if len(missing) == len(base.files) or (missing and root == cache_root()):
            continue  # a part in the cache is what a download left that was cut off; the next one completes it
        if missing:
            raise DataError(
                f"data set {base.name!r}: {root} holds only a part of it; missing: {', '.join(missing)}. "
                "Complete it, or remove the rest so that the next folder is used."
            )
        for file, expected in base.files.items():
            found = sha256_of(root / file)
            if found != expected:
                size = (root / file).stat().st_size
                raise DataError(
                    f"data set {base.name!r}: {root / file} is damaged ({size} bytes): expected the SHA-256 "
                    f"{expected}, found {found}. Replace the file, or remove all of the set to have it fetched."
                )
        return root
    return None


def _download(base: BaseSet, root: Path) -> None:
    """Download `base`, verify it, and only then move it below `root`, one download at a time.

    Raises:
        OSError, RuntimeError: no network, a server's refusal, or a folder that cannot be written.
    """
    assert base.download is not None
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{base.name}.lock"), tempfile.TemporaryDirectory(dir=root) as folder:
        if _find(base, [root]) is not None:
            return
        base.download(Path(folder))
        try:
            whole = _find(base, [Path(folder)])
        except DataError as error:
            raise OSError(f"what was downloaded is not what was expected: {error}") from error
        if whole is None:
            raise OSError("the download left no files")
        for file in base.files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / file).replace(root / file)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
