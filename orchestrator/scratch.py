"""Temporary folders with cleanup: the next process removes what a killed one left behind."""

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
    """Create a temporary folder that lives as long as the block; leftovers with the same prefix are removed first.

    The folder is locked while its process lives; the lock, not the name, tells it from a leftover.

    Args:
        prefix: the start of its name; this process's id follows.
    """
    clear(prefix)
    path, descriptor = _made(f"{prefix}{os.getpid()}-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def clear(prefix: str) -> None:
    """Remove the folders that `folder` made for this user's ended processes on this machine; follows no link."""
    name = re.compile(rf"{re.escape(prefix)}\d+-\w+")
    with contextlib.suppress(OSError):
        for found in Path(tempfile.gettempdir()).iterdir():
            if name.fullmatch(found.name):
                _clear_one(found)


def _clear_one(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # gone, not a folder, a link, or another user's
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass  # its process lives, or the file system supports no locks
    finally:
        os.close(descriptor)


def _made(prefix: str) -> tuple[Path, int]:
    """A new folder, and the file descriptor that keeps it locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # another process removed it as a leftover before it was locked
