"""Creates MLflow's SQLite database atomically, by one process at a time. Does not import MLflow.

Two processes that create the same database destroy each other's work, and an incomplete one could not be used or
repaired.
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
    """For a block that creates a database if it does not exist; the database is moved into place if the block succeeds.

    Waits for another process that creates it.

    Args:
        file: the database's path, whose folder is created.

    Returns:
        The path at which to create it; None if it exists.
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
    """Remove leftovers of processes that were killed while creating a database, unless one is creating it now."""
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
    """Remove leftovers of killed processes; the caller must hold the lock, so no other process has a folder."""
    for folder in list(_leftovers(file)):
        shutil.rmtree(folder, ignore_errors=True)
