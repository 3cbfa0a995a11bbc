"""A base set that is a few files, each of which is the same byte for byte everywhere."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from crwn.data.base import DataError, ImageSet, OnProgress, cache_root, sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFiles:
    """Files whose checksums are known.

    Attributes:
        checksums: SHA-256 by path below a data root.
        download: fetches the files below a folder.
        read: reads the images from the data root that holds the files.
    """

    checksums: Mapping[str, str]
    download: Callable[[Path], None]
    read: Callable[[Path], ImageSet]

    @property
    def expected(self) -> tuple[str, ...]:
        """The files' paths."""
        return tuple(self.checksums)

    @property
    def is_fetchable(self) -> bool:
        """It is."""
        return True

    @property
    def is_mapped(self) -> bool:
        """They are read into memory."""
        return False

    def is_in(self, root: Path) -> bool:
        """Whether `root` holds all files, each verified.

        Raises:
            DataError: it holds only some of them, or one that is damaged.
        """
        missing = [file for file in self.checksums if not (root / file).is_file()]
        if len(missing) == len(self.checksums) or (missing and root == cache_root()):
            return False  # a part in the cache is what a download left that was cut off; the next one completes it
        if missing:
            raise DataError(
                f"{root} holds only a part of it; missing: {', '.join(missing)}. "
                "Complete it, or remove the rest so that the next folder is used."
            )
        for file, expected in self.checksums.items():
            found = sha256_of(root / file)
            if found != expected:
                size = (root / file).stat().st_size
                raise DataError(
                    f"{root / file} is damaged ({size} bytes): expected the SHA-256 "
                    f"{expected}, found {found}. Replace the file, or remove all of the set to have it fetched."
                )
        return True

    def fetch(self, root: Path) -> None:
        """Download the files, verify them, and only then move them below `root`, one download at a time.

        Raises:
            OSError, RuntimeError: no network, a server's refusal, or a folder that cannot be written.
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
        """Nothing: the files are read as they are."""
        del root, on_progress
        return ()

    def load(self, root: Path | None) -> ImageSet:
        """Read the images."""
        assert root is not None
        return self.read(root)
