"""Who is working on a store: one process at a time by a lock on a path; see leases.py for object storage."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import filelock

from orchestrator.errors import UserError


class TakenError(Exception):
    """Another process holds the claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds a claim, or seems to.

    Attributes:
        is_live: whether it is at work as far as can be known; else it ended without giving the claim back.
        text: who, where and since when; empty where that is not known.
    """

    is_live: bool
    text: str = ""


OnOther: TypeAlias = Callable[[Holder], None]
"""Told of another holder."""


class Claim(Protocol):
    """A process's word that it does something with a store which only one should do at a time."""

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        ...

    def holders(self) -> list[Holder]:
        """Others that hold it, or ended without giving it back; nothing is written."""
        ...

    def acquire(self, timeout: float, *, despite_lease: bool = False, on_other: OnOther = lambda _: None) -> None:
        """Hold it from now on.

        Args:
            timeout: seconds to wait for another holder.
            despite_lease: hold it beside a process with a lease, which may be dead; a lock is never held twice.
            on_other: called once with each other process that has a lease, also later, then from a thread.

        Raises:
            TakenError: another process holds it.
            OSError: it cannot be written.
        """
        ...

    def release(self) -> None:
        """Give it back, if it is held."""
        ...


@contextlib.contextmanager
def driving(claim: Claim, address: str, on_other: OnOther | None = None) -> Iterator[list[Holder]]:
    """Be the one driver of a store for the length of a `with` block.

    Object storage has no locks: there a lease says who drives the store, and another one is no obstacle.

    Args:
        claim: to run on it.
        address: the store's, to be shown.
        on_other: called once with each driver that is found, also later, then from a thread.

    Returns:
        On object storage the drivers found so far: at work, or ended without giving their lease back.

    Raises:
        UserError: another process is the driver.
    """
    found: list[Holder] = []

    def tell(holder: Holder) -> None:
        found.append(holder)
        if on_other is not None:
            on_other(holder)

    try:
        claim.acquire(
            timeout=1.0, despite_lease=True, on_other=tell
        )  # whoever only asks who the driver is holds a lock for an instant
    except TakenError as error:
        raise UserError(
            f"{address}: expected no other run on this store, but one is working on it. "
            "Wait for it (crwn status shows it), stop it, or name another store with --out."
        ) from error
    try:
        yield found
    finally:
        claim.release()


class Lock:
    """A claim by a lock on a file: one process at a time, let go of when its process ends, however that ends.

    Args:
        path: the file, in a folder that exists by the time it is locked.
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
            return []  # a store that cannot be written is not being written
        lock.release()
        return []

    def acquire(self, timeout: float, *, despite_lease: bool = False, on_other: OnOther = lambda _: None) -> None:
        """See `Claim`."""
        if not self._path.parent.is_dir():  # which the lock would make
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path.parent))
        try:
            self._lock.acquire(timeout=timeout)
        except filelock.Timeout as error:
            raise TakenError from error

    def release(self) -> None:
        """See `Claim`."""
        self._lock.release()
