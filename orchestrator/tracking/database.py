"""The file of an SQLite database that MLflow makes: made beside its place, by one process at a time. No MLflow here.

Two that make one database destroy each other's work, and one that is cut off could not be used or mended.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def making(file: Path) -> Iterator[Path | None]:
    """For a block that makes a database, where it has to be made; it then gets its place, if the block raises nothing.

    Waits for another process that makes it.

    Args:
        file: the database's place, whose folder is made.

    Returns:
        Where to make it; None where it is there.
    """
    if _is_made(file):
        yield None
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with _lock(file):
        _remove_leftovers(file)
        if _is_made(file):
            yield None
            return
        with tempfile.TemporaryDirectory(prefix=_prefix(file), dir=file.parent) as folder:
            made = Path(folder) / file.name
            yield made
            made.replace(file)


def clear(file: Path) -> None:
    """Remove what processes that were killed while they made a database left beside it, unless one is at it now."""
    with contextlib.suppress(OSError, filelock.Timeout):
        if any(_leftovers(file)):
            with _lock(file).acquire(blocking=False):
                _remove_leftovers(file)


def _is_made(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _lock(file: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(file.with_name(f".{file.name}.lock"))


def _prefix(file: Path) -> str:
    return f".{file.name}.making-"


def _leftovers(file: Path) -> Iterator[Path]:
    return (path for path in file.parent.iterdir() if path.name.startswith(_prefix(file)))


def _remove_leftovers(file: Path) -> None:
    """Of processes that were killed; for who holds the lock, without which none makes a folder."""
    for folder in list(_leftovers(file)):
        shutil.rmtree(folder, ignore_errors=True)
