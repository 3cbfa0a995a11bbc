"""Leases: what a process says of itself where there are no locks, and what others make of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import claims
from orchestrator.claims import RECENT_SECONDS, Lease, TakenError
from orchestrator.errors import StorageError
from orchestrator.files import LocalFiles

NOW = 1.8e9


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """Leases are the same on any files; a folder's are the quickest."""
    return LocalFiles(tmp_path)


def lease(files: LocalFiles, now: float = NOW) -> Lease:
    return Lease(files, "leases/run", clock=lambda: now)


def leave(files: LocalFiles, **said: Any) -> None:
    """What a process elsewhere left, renewed 5 s ago."""
    content = {"user": "ann", "host": "elsewhere", "pid": 12, "since": NOW - 100, "renewed": NOW - 5, **said}
    files.write("leases/run/foreign.json", json.dumps(content).encode())


def test_a_recent_lease_is_of_a_process_at_work(files: LocalFiles) -> None:
    """It says who, where, since when, and how long ago it was heard of."""
    leave(files)
    (holder,) = lease(files).holders()
    assert holder.is_live
    assert holder.text == "ann on elsewhere, process 12, since 2027-01-15 07:58:20+00:00, last sign of life 5 s ago"


def test_an_old_lease_is_of_a_process_that_was_cut_off(files: LocalFiles) -> None:
    """Whoever takes the claim removes it."""
    leave(files, renewed=NOW - 3 * 3600)
    mine = lease(files)
    (holder,) = mine.holders()
    assert not holder.is_live
    assert holder.text.endswith("last sign of life 3 h ago")
    mine.acquire(timeout=0)
    assert "foreign.json" not in files.names("leases/run")
    mine.release()
    assert files.names("leases/run") == []


@pytest.mark.parametrize(("age", "is_live"), [(RECENT_SECONDS - 1, True), (RECENT_SECONDS, False), (-60, True)])
def test_a_lease_grows_old_and_clocks_differ(files: LocalFiles, age: float, *, is_live: bool) -> None:
    """One from a clock that is ahead is recent."""
    leave(files, renewed=NOW - age)
    assert [holder.is_live for holder in lease(files).holders()] == [is_live]


def test_a_process_of_this_machine_that_ended_is_known_to_have(files: LocalFiles) -> None:
    """A run that was killed and is begun again at once does not warn of itself."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    leave(files, host=socket.gethostname(), pid=child.pid)
    assert [holder.is_live for holder in lease(files).holders()] == [False]
    leave(files, host=socket.gethostname(), pid=os.getpid())
    assert [holder.is_live for holder in lease(files).holders()] == [True]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"renewed": "x"}', '{"renewed": 1, "since": 1e300}'])
def test_a_lease_that_cannot_be_read_is_of_nobody(files: LocalFiles, content: str) -> None:
    """It stops nothing."""
    files.write("leases/run/foreign.json", content.encode())
    (holder,) = lease(files).holders()
    assert (holder.is_live, holder.text) == (False, "a lease that cannot be read")


def test_two_hold_a_lease_where_both_insist(files: LocalFiles) -> None:
    """Each is seen by the other until it gives its own back; without insisting the second is refused."""
    first, second = lease(files), lease(files)
    first.acquire(timeout=0)
    with pytest.raises(TakenError):
        second.acquire(timeout=0)
    assert second.holders() == lease(files).holders()
    second.acquire(timeout=0, despite_lease=True)
    assert [len(held.holders()) for held in (first, second, lease(files))] == [1, 1, 2]
    first.release()
    assert len(lease(files).holders()) == 1
    second.release()
    assert files.names("leases/run") == []


def test_a_lease_is_renewed_also_after_an_outage(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that fails is made good by the next, and by the end the renewing has ended."""
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    time = iter(range(10**9))
    mine = Lease(files, "leases/run", clock=lambda: NOW + next(time))
    write, calls = files.write, iter(range(10**9))

    def write_or_fail(name: str, content: bytes) -> None:
        if next(calls) % 2:
            raise StorageError("away")
        write(name, content)

    monkeypatch.setattr(files, "write", write_or_fail)
    mine.acquire(timeout=0)
    (name,) = files.names("leases/run")
    seen = {files.read(f"leases/run/{name}")}
    while len(seen) < 3:
        seen.add(files.read(f"leases/run/{name}"))
    mine.release()
    assert files.names("leases/run") == []
    assert len({json.loads(content)["since"] for content in seen}) == 1


def test_a_lease_that_cannot_be_given_back_stays(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run whose storage is away is no error of its own."""
    mine = lease(files)
    mine.acquire(timeout=0)

    def fail(_: str) -> None:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", fail)
        mine.release()
    assert not mine.is_held
    assert len(files.names("leases/run")) == 1
