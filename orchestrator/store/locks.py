"""Exclusive claims on a store: locks on a path, leases on object storage (leases.py)."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import filelock

from orchestrator.errors import UserError


class TakenError(Exception):
    """Another process holds the claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds a claim, or appears to.

    Attributes:
        is_live: whether it is running, as far as can be known; else it ended without releasing the claim.
        text: who, where and since when; empty if unknown.
    """

    is_live: bool
    text: str = ""


class Claim(Protocol):
    """The exclusive right of a process to do something with a store."""

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        ...

    def holders(self) -> list[Holder]:
        """Other processes that hold it, or ended without releasing it; nothing is written."""
        ...

    def acquire(self, timeout: float) -> list[Holder]:
        """Acquire it.

        Args:
            timeout: seconds to wait for another holder.

        Returns:
            Processes that ended without releasing it, if known.

        Raises:
            TakenError: another process holds it; the message says which, if known.
            OSError: it cannot be written.
        """
        ...

    def release(self) -> None:
        """Release it, if held."""
        ...


@contextlib.contextmanager
def driving(claim: Claim, address: str) -> Iterator[list[Holder]]:
    """Be the only driver of a store for the duration of a `with` block.

    Args:
        claim: the claim to run on the store.
        address: the store's address, for display.

    Returns:
        On object storage, drivers that ended without releasing it.

    Raises:
        UserError: another process is the driver.
    """
    try:
        ended = claim.acquire(timeout=1.0)  # a process that merely checks for a driver holds the lock for an instant
    except TakenError as error:
        who = f": {error}" if str(error) else ""
        if_cut_off = " If it was cut off, it counts as ended three minutes after its last sign of life." if who else ""
        raise UserError(
            "store-driven",
            f"{address}: expected no other run on this store, but one is working on it{who}. "
            f"Wait for it (crwn status shows it), stop it, or name another store with --out.{if_cut_off}",
        ) from error
    try:
        yield ended
    finally:
        claim.release()


class Lock:
    """A claim by a file lock: exclusive, and released when its process ends, however it ends.

    Args:
        path: the file, in a folder that must exist when it is locked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(path)

    @property
    def is_held(self) -> bool:
        """See `Claim`."""
        return self._lock.is_locked

    def holders(self) -> list[Holder]:
        """See `Claim`."""
        if not self._path.exists():
            return []
        lock = filelock.FileLock(self._path)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return [Holder(is_live=True)]
        except OSError:
            return []  # a read-only store has no driver
        lock.release()
        return []

    def acquire(self, timeout: float) -> list[Holder]:
        """See `Claim`."""
        if not self._path.parent.is_dir():  # the lock would create it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path.parent))
        try:
            self._lock.acquire(timeout=timeout)
        except filelock.Timeout as error:
            raise TakenError from error
        return []

    def release(self) -> None:
        """See `Claim`."""
        self._lock.release()
