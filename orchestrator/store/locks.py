"""Claims on a store, for one process at a time; on a path by locks, on object storage by leases (leases.py)."""

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
    """A process that holds a claim, or appears to.

    Attributes:
        is_live: whether it is running, as far as can be known; else it ended without releasing the claim.
        text: who, where and since when; empty if unknown.
    """

    is_live: bool
    text: str = ""


OnOther: TypeAlias = Callable[[Holder], None]
"""Called with another holder."""


class Claim(Protocol):
    """The right to do something with a store that only one process at a time should do."""

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        ...

    def holders(self) -> list[Holder]:
        """Other processes that hold it, or ended without releasing it; nothing is written."""
        ...

    def acquire(self, timeout: float, *, despite_lease: bool = False, on_other: OnOther = lambda _: None) -> None:
        """Acquire it.

        Args:
            timeout: seconds to wait for another holder.
            despite_lease: acquire it even if another process, which may be dead, has a lease; locks are exclusive.
            on_other: called once with each other process that has a lease; later calls come from a thread.

        Raises:
            TakenError: another process holds it.
            OSError: it cannot be written.
        """
        ...

    def release(self) -> None:
        """Release it, if held."""
        ...


@contextlib.contextmanager
def driving(claim: Claim, address: str, on_other: OnOther | None = None) -> Iterator[list[Holder]]:
    """Be the only driver of a store for the duration of a `with` block.

    Object storage has no locks: there, leases show who drives the store, but do not exclude other drivers.

    Args:
        claim: the claim to run on the store.
        address: the store's address, for display.
        on_other: called once with each other driver; later calls come from a thread.

    Returns:
        On object storage, the other drivers found so far, running or ended without releasing their lease.

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
        )  # a process that only asks for the driver holds the lock for an instant
    except TakenError as error:
        raise UserError(
            "store-driven",
            f"{address}: expected no other run on this store, but one is working on it. "
            "Wait for it (crwn status shows it), stop it, or name another store with --out.",
        ) from error
    try:
        yield found
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
            return []  # nobody writes to a store that cannot be written
        lock.release()
        return []

    def acquire(self, timeout: float, *, despite_lease: bool = False, on_other: OnOther = lambda _: None) -> None:
        """See `Claim`."""
        if not self._path.parent.is_dir():  # the lock would create it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path.parent))
        try:
            self._lock.acquire(timeout=timeout)
        except filelock.Timeout as error:
            raise TakenError from error

    def release(self) -> None:
        """See `Claim`."""
        self._lock.release()
