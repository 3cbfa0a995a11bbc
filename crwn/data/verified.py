"""Base sets of a few files, each byte for byte the same everywhere."""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from crwn.data.base import DataError, ImageSet, OnProgress, cache_root

PACKED = ".gz"
PIECE = 2**20
MAX_UNPACKED = 2**30
"""Limit of an unpacked file, in bytes: a gzip file of a few megabytes may unpack to any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFiles:
    """Files with known checksums.

    Attributes:
        checksums: SHA-256 by path below a data root.
        download: downloads the files below a folder.
        read: reads the images from the data root that holds the files.
        other_names: further paths below a data root at which people keep a file.
    """

    checksums: Mapping[str, str]
    download: Callable[[Path], None]
    read: Callable[[Path], ImageSet]
    other_names: Callable[[str], tuple[str, ...]] = lambda file: ()

    @property
    def expected(self) -> tuple[str, ...]:
        """The files' paths."""
        return tuple(self.checksums)

    @property
    def is_fetchable(self) -> bool:
        """True: `download` fetches the files."""
        return True

    @property
    def is_mapped(self) -> bool:
        """False: images are read into memory."""
        return False

    @property
    def places(self) -> tuple[Path, ...]:
        """Below data roots."""
        return ()

    def is_in(self, root: Path) -> bool:
        """Whether `root` holds all files, each verified.

        Raises:
            DataError: it holds only some of the files, or a damaged one.
        """
        places = {file: self.place(root, file) for file in self.checksums}
        missing = [file for file, place in places.items() if place is None]
        if len(missing) == len(self.checksums) or (missing and _is_cache(root)):
            return False  # an interrupted download may leave part of the set in the cache; the next completes it
        if missing:
            raise DataError(
                "data-set-incomplete",
                f"{root} holds only a part of it; missing: {', '.join(missing)}. "
                "Complete it, or remove the rest so that the next folder is used.",
            )
        for file, expected in self.checksums.items():
            place = places[file]
            assert place is not None
            found = _unpacked_sha256(place)
            if found != expected:
                where = ", unpacked" if place.suffix == PACKED else ""
                raise DataError(
                    "checksum-differs",
                    f"{place} is damaged ({place.stat().st_size} bytes{where}): expected the SHA-256 "
                    f"{expected}, found {found}. Replace the file, or remove all of the set to have it fetched.",
                )
        return True

    def place(self, root: Path, file: str) -> Path | None:
        """The path of a file below `root`, under its own or another name, gzipped or not; None if it is missing."""
        names = [name + packed for name in (file, *self.other_names(file)) for packed in ("", PACKED)]
        return next((root / name for name in names if (root / name).is_file()), None)

    def fetch(self, root: Path) -> None:
        """Download the files, verify them, and only then move them below `root`; one process at a time.

        Raises:
            OSError, RuntimeError: there is no network, the server refuses, or the folder cannot be written.
        """
        root.mkdir(parents=True, exist_ok=True)
        lock = root / f".{Path(self.expected[0]).parts[0]}.lock"
        with FileLock(lock), tempfile.TemporaryDirectory(dir=root) as folder:
            if self.is_in(root):
                return
            self.download(Path(folder))
            try:
                whole = self.is_in(Path(folder))
            except DataError as error:
                raise OSError(f"what was downloaded is not what was expected: {error}") from error
            if not whole:
                raise OSError("the download left no files")
            for file in self.checksums:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / file).replace(root / file)

    def prepare(self, root: Path, on_progress: OnProgress) -> tuple[str, ...]:
        """Do nothing: the files are read as they are."""
        del root, on_progress
        return ()

    def load(self, root: Path | None) -> ImageSet:
        """Read the images."""
        assert root is not None
        return self.read(root)

    def check(self, root: Path | None, images: ImageSet) -> None:
        """Do nothing: `find` verifies the checksums before every `load`."""
        del root, images


def unpacked(place: Path) -> bytearray:
    """The content of a file, unpacked if it is gzipped.

    Raises:
        DataError: the file cannot be unpacked.
    """
    content = bytearray()
    for piece in _pieces(place):
        content += piece
    return content


def _unpacked_sha256(place: Path) -> str:
    """The SHA-256 of a file's content, unpacked if it is gzipped."""
    whole = hashlib.sha256()
    for piece in _pieces(place):
        whole.update(piece)
    return whole.hexdigest()


def _pieces(place: Path) -> Iterator[bytes]:
    size = 0
    try:
        with gzip.open(place) if place.suffix == PACKED else place.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
                size += len(piece)
                if place.suffix == PACKED and size > MAX_UNPACKED:
                    raise DataError(
                        "unpacks-too-large", f"{place} is damaged: more than {MAX_UNPACKED} bytes are packed in it"
                    )
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            "archive-damaged",
            f"{place} is damaged and cannot be unpacked: {error}. "
            "Replace the file, or remove all of the set to have it fetched.",
        ) from error


def _is_cache(root: Path) -> bool:
    try:
        return root == cache_root()
    except DataError:
        return False  # no home folder, so no cache
