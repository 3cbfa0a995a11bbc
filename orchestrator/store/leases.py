"""Leases in place of locks, which object storage lacks: a process holds the claim while it renews its lease."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crwn.strict_json import parse
from orchestrator.store.files import Files
from orchestrator.store.json_fields import Fields, sealed_bytes
from orchestrator.store.locks import Holder, TakenError

RENEW_SECONDS = 20.0
"""Seconds between two renewals of a lease."""

LEASE = ".json"
"""The suffix of a lease's name."""

_LEASE_FIELDS = ("format", "user", "host", "pid", "since", "renewed")
"""The fields that a lease without a checksum may have."""

SETTLE_SECONDS, LOOK_SECONDS = 10.0, 0.2
"""Seconds to wait for concurrent leases to be withdrawn, and between checks."""

RECENT_SECONDS = 180.0
"""Seconds without renewal after which a lease expires. An outage that writes survive delays renewal by half that."""


class Lease:
    """A claim by a small object that its process renews; other processes know only its content.

    Each process writes its own object, then looks for others, and withdraws its own if it finds one. Of two processes,
    the last to write sees the other's object, so they never both hold the claim, whatever the order of calls. If each
    sees the other, the one whose object sorts first by name waits until the other has withdrawn. This needs storage
    that lists objects as soon as they are written.

    A lease that is not renewed expires, since a killed process cannot release it. Its age is measured by the storage's
    clock, since the clocks of machines may differ by more than the limit.

    Args:
        files: the files that leases are stored in.
        folder: the folder of this claim's leases, within another.
        clock: returns seconds since 1970.
    """

    def __init__(self, files: Files, folder: str, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._folder = folder
        self._clock = clock
        self._name = f"{folder}/{uuid.uuid4().hex[:12]}{LEASE}"
        self._renewer: threading.Thread | None = None
        self._ended = threading.Event()

    @property
    def is_held(self) -> bool:
        """See `Claim`."""
        return self._renewer is not None

    def holders(self) -> list[Holder]:
        """See `Claim`."""
        return list(self._others().values())

    def acquire(self, timeout: float) -> list[Holder]:
        """See `Claim`; leases of ended processes are removed."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._take()
            except TakenError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(min(1.0, timeout))

    def _take(self) -> list[Holder]:
        """Write the lease unless another process's lease prevents it; returns and raises like `acquire`."""
        for holder in self._others().values():
            if holder.is_live:
                raise TakenError(holder.text)
        since = self._clock()
        self._write(since)
        try:
            ended = self._settle()
            for name in ended:
                self._files.remove(name)
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.remove(self._name)
            raise
        self._ended.clear()
        self._renewer = threading.Thread(target=self._renew, args=[since], daemon=True)
        self._renewer.start()
        return list(ended.values())

    def _settle(self) -> dict[str, Holder]:
        """Wait until this is the only live lease, if it is the first by name; returns the others, of ended processes.

        Raises:
            TakenError: another process's lease comes first, or stays.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            written = self._files.signature(self._name)
            if written is None:
                raise TakenError
            others = self._others(written[0])
            live = {name: holder for name, holder in others.items() if holder.is_live}
            if not live:
                return others
            if min(live) < self._name or time.monotonic() >= deadline:
                raise TakenError(live[min(live)].text)
            time.sleep(LOOK_SECONDS)

    def release(self) -> None:
        """See `Claim`; if the storage is unavailable, the lease stays until it expires."""
        if self._renewer is None:
            return
        self._ended.set()
        self._renewer.join()
        self._renewer = None
        with contextlib.suppress(OSError):
            self._files.remove(self._name)

    def _renew(self, since: float) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # the next renewal may succeed
                if not self._files.exists(self._name):
                    return  # expired and taken over, or removed with the store: what is lost does not come back
                self._write(since)

    def _write(self, since: float) -> None:
        lease = {
            "format": "crwn-lease",
            "user": _user(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": since,
            "renewed": self._clock(),
        }
        self._files.write(self._name, sealed_bytes(lease))

    def _others(self, now: int | None = None) -> dict[str, Holder]:
        """The holders of other leases, by name.

        Args:
            now: the storage's time, in nanoseconds; None: take ages from this machine's clock instead.
        """
        found = {}
        for name in self._files.names(self._folder):
            path = f"{self._folder}/{name}"
            if path == self._name or not name.endswith(LEASE):
                continue
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                content, written = self._files.read(path), None if now is None else self._files.signature(path)
                age = None if now is None or written is None else (now - written[0]) / 1e9
                found[path] = _holder(content, self._clock(), age)
        return found


def _holder(content: bytes, now: float, age: float | None = None) -> Holder:
    """The holder that a lease describes.

    Args:
        content: the object's content.
        now: seconds since 1970.
        age: seconds since it was renewed; None: according to its content.
    """
    try:
        lease: dict[str, Any] = parse(content)
        Fields(lease).check_sum(_LEASE_FIELDS)
        said = now - lease["renewed"]
        age = max(0.0, said if age is None else age)  # clocks differ
        since = datetime.datetime.fromtimestamp(lease["since"], datetime.UTC).isoformat(" ", "seconds")
        who = f"{lease['user']} on {lease['host']}, process {lease['pid']}, since {since}"
        is_live = age < RECENT_SECONDS and not _is_dead(lease)
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return Holder(is_live=False, text="a lease that cannot be read")
    return Holder(is_live=is_live, text=f"{who}, last sign of life {_show_age(age)} ago")


def _is_dead(lease: Mapping[str, Any]) -> bool:
    """Whether a process is known to have ended, which can be checked only where process ids mean the same."""
    if lease["host"] != socket.gethostname() or lease.get("machine", _machine()) != _machine():
        return False
    try:
        os.kill(lease["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    """A name of this machine and its process-id namespace: machines and containers may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not on Linux
        return f"{uuid.getnode():x}"


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
