"""Leases on object storage, which has no locks: each process that works on a store renews its own."""

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
"""Seconds between two renewals of a lease."""

LEASE = ".json"
"""The suffix of a lease's name."""

_LEASE_FIELDS = ("format", "user", "host", "pid", "since", "renewed")
"""The fields that a lease without a checksum may have."""

LOOK_SECONDS = 3.0
"""Seconds after which a process that took a lease looks for others again: if two take one at once, the first to write
may have looked before the other wrote."""

RECENT_SECONDS = 180.0
"""Seconds without renewal after which a lease expires. An outage that writes survive delays renewal by half that."""


class Lease:
    """A claim by a small object that its process renews; other processes know only what it says.

    Each process writes its own object, so two processes with the same claim both stay visible. Each looks for others
    after writing: the second to write sees the first, which sees the second when it looks again, after `LOOK_SECONDS`
    or at its next renewal.

    Args:
        files: the files that leases are stored in.
        folder: the folder of this claim's leases.
        clock: returns seconds since 1970.
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
        """See `Claim`; leases of ended processes are removed."""
        deadline = time.monotonic() + timeout
        while not self._take(on_other, despite_lease=despite_lease):
            if time.monotonic() >= deadline:
                raise TakenError
            time.sleep(min(1.0, timeout))

    def _take(self, on_other: OnOther, *, despite_lease: bool) -> bool:
        """Write the lease unless another process's lease prevents it; returns whether it is held."""
        self._told.clear()
        before = self._others()
        if not despite_lease and _is_any_live(before):
            return False
        since = self._clock()
        self._write(since)
        after = self._others()
        if not despite_lease and _is_any_live(after):  # written at the same time: neither holds it
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
        """Report each other holder once."""
        for name, holder in others:
            if name not in self._told:
                self._told.add(name)
                on_other(holder)

    def release(self) -> None:
        """See `Claim`; if the storage is unavailable, the lease stays until it expires."""
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
            with contextlib.suppress(OSError):  # the next renewal may succeed
                self._look_again(since, on_other)

    def _look_again(self, since: float, on_other: OnOther) -> None:
        """Renew the lease, unless the store is gone, and report new holders."""
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
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                found.append((path, _holder(self._files.read(path), self._clock())))
        return found


def _is_any_live(others: Iterable[tuple[str, Holder]]) -> bool:
    return any(holder.is_live for _, holder in others)


def _holder(content: bytes, now: float) -> Holder:
    """The holder that a lease describes.

    Args:
        content: the object's content.
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
    """Whether a process is known to have ended, which can be checked only on this machine."""
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
    except (KeyError, OSError):  # in a container, a user may have only a number
        return str(os.getuid())
