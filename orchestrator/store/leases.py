"""Who is working on a store on object storage, which has no locks: each process by a lease that it renews."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.store.files import Files
from orchestrator.store.json_fields import Fields, parse, sealed_bytes
from orchestrator.store.locks import Holder, OnOther, TakenError

RENEW_SECONDS = 20.0
"""Between two signs of life of a process that holds a lease."""

LEASE = ".json"
"""How a lease's name ends."""

_LEASE_FIELDS = ("format", "user", "host", "pid", "since", "renewed")
"""All that a lease without a sum may have."""

LOOK_SECONDS = 3.0
"""After which a process that took a lease looks for others once more: of two that take one at once, the first to write
may have looked before the other wrote."""

RECENT_SECONDS = 180.0
"""A lease that was not renewed for so long is old. An outage that writing outlasts delays a renewal by half of it."""


class Lease:
    """A claim by a small object that its process renews: what is said in it is all that others can know.

    Each process writes an object of its own, so two that hold one claim both stay seen. Each looks for others after it
    has written: whichever of two writes second sees the first, which sees the second when it looks again, after
    `LOOK_SECONDS` or with its next renewal.

    Args:
        files: where leases are kept.
        folder: of this claim's.
        clock: seconds since 1970.
    """

    def __init__(self, files: Files, folder: str, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._folder = folder
        self._clock = clock
        self._name = f"{folder}/{uuid.uuid4().hex[:12]}{LEASE}"
        self._renewer: threading.Thread | None = None
        self._ended = threading.Event()
        self._told: set[str] = set()

    @property
    def is_held(self) -> bool:
        """See `Claim`."""
        return self._renewer is not None

    def holders(self) -> list[Holder]:
        """See `Claim`."""
        return [holder for _, holder in self._others()]

    def acquire(self, timeout: float, *, despite_lease: bool = False, on_other: OnOther = lambda _: None) -> None:
        """See `Claim`; leases of processes that ended are removed."""
        deadline = time.monotonic() + timeout
        while not self._take(on_other, despite_lease=despite_lease):
            if time.monotonic() >= deadline:
                raise TakenError
            time.sleep(min(1.0, timeout))

    def _take(self, on_other: OnOther, *, despite_lease: bool) -> bool:
        """Write the lease, unless another process has one and that is an obstacle; whether it is held."""
        self._told.clear()
        before = self._others()
        if not despite_lease and _is_any_live(before):
            return False
        since = self._clock()
        self._write(since)
        after = self._others()
        if not despite_lease and _is_any_live(after):  # written at the same time: none of the two holds it
            self._files.remove(self._name)
            return False
        self._tell([*before, *after], on_other)
        for name, holder in before:
            if not holder.is_live:
                self._files.remove(name)
        self._ended.clear()
        self._renewer = threading.Thread(target=self._renew, args=[since, on_other], daemon=True)
        self._renewer.start()
        return True

    def _tell(self, others: Iterable[tuple[str, Holder]], on_other: OnOther) -> None:
        """Say of each other holder once that it is there."""
        for name, holder in others:
            if name not in self._told:
                self._told.add(name)
                on_other(holder)

    def release(self) -> None:
        """See `Claim`; where the storage is away the lease stays, and grows old."""
        if self._renewer is None:
            return
        self._ended.set()
        self._renewer.join()
        self._renewer = None
        with contextlib.suppress(OSError):
            self._files.remove(self._name)

    def _renew(self, since: float, on_other: OnOther) -> None:
        pause = min(LOOK_SECONDS, RENEW_SECONDS)
        while not self._ended.wait(pause):
            pause = RENEW_SECONDS
            with contextlib.suppress(OSError):  # the next one may come through
                self._look_again(since, on_other)

    def _look_again(self, since: float, on_other: OnOther) -> None:
        """Renew the lease, unless all that it was for is gone, and say who has come."""
        if self._files.kind() == "folder":
            self._write(since)
            self._tell(self._others(), on_other)

    def _write(self, since: float) -> None:
        lease = {
            "format": "crwn-lease",
            "user": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": since,
            "renewed": self._clock(),
        }
        self._files.write(self._name, sealed_bytes(lease))

    def _others(self) -> list[tuple[str, Holder]]:
        found = []
        for name in self._files.names(self._folder):
            path = f"{self._folder}/{name}"
            if path == self._name or not name.endswith(LEASE):
                continue
            with contextlib.suppress(FileNotFoundError):  # given back meanwhile
                found.append((path, _holder(self._files.read(path), self._clock())))
        return found


def _is_any_live(others: Iterable[tuple[str, Holder]]) -> bool:
    return any(holder.is_live for _, holder in others)


def _holder(content: bytes, now: float) -> Holder:
    """What a lease says.

    Args:
        content: the object's.
        now: seconds since 1970.
    """
    try:
        lease: dict[str, Any] = parse(content)
        Fields(lease).check_sum(_LEASE_FIELDS)
        age = max(0.0, now - lease["renewed"])  # clocks differ
        since = datetime.datetime.fromtimestamp(lease["since"], datetime.UTC).isoformat(" ", "seconds")
        who = f"{lease['user']} on {lease['host']}, process {lease['pid']}, since {since}"
        is_live = age < RECENT_SECONDS and not _is_dead(lease["host"], lease["pid"])
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return Holder(is_live=False, text="a lease that cannot be read")
    return Holder(is_live=is_live, text=f"{who}, last sign of life {_show_age(age)} ago")


def _is_dead(host: str, pid: int) -> bool:
    """Whether a process is known to have ended: only those of this machine are."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _show_age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have a number alone
        return str(os.getuid())
