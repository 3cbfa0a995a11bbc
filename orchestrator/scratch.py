"""Temporary folders that are found again: what a killed process left of its own, the next one removes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A folder in the system's temporary one, there while the block runs; leftovers of its kind are removed first.

    It is locked while its process lives: by that, and by nothing in its name, others know it from a leftover.

    Args:
        prefix: of its name, which goes on with this process's id.
    """
    clear(prefix)
    path, descriptor = _made(f"{prefix}{os.getpid()}-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def clear(prefix: str) -> None:
    """Remove what `folder` made for processes of this user, on this machine, that have ended; follows no link."""
    name = re.compile(rf"{re.escape(prefix)}\d+-\w+")
    with contextlib.suppress(OSError):
        for found in Path(tempfile.gettempdir()).iterdir():
            if name.fullmatch(found.name):
                _clear_one(found)


def _clear_one(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # gone, no folder, a link, or another user's
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass  # its process lives, or the file system has no locks and nobody can tell
    finally:
        os.close(descriptor)


def _made(prefix: str) -> tuple[Path, int]:
    """A new folder, and the descriptor that keeps it locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # another process took it for a leftover before it was locked
