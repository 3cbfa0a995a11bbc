"""Leases: what a process says of itself where there are no locks, and what others make of it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import StorageError
from orchestrator.store import leases as module
from orchestrator.store.folder import LocalFiles
from orchestrator.store.leases import RECENT_SECONDS, Lease
from orchestrator.store.locks import Holder, TakenError

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


def test_a_changed_digit_of_a_lease_is_seen(files: LocalFiles) -> None:
    """A lease has a sum of its content: another process's number would be believed."""
    own = lease(files)
    own.acquire(timeout=0)
    (name,) = files.names("leases/run")
    content = files.read(f"leases/run/{name}")
    own.release()
    files.write("leases/run/other.json", content)
    assert "process" in lease(files).holders()[0].text
    pid = str(os.getpid()).encode()
    files.write("leases/run/other.json", content.replace(pid, pid[:-1] + (b"1" if pid[-1:] == b"0" else b"0")))
    assert lease(files).holders() == [Holder(is_live=False, text="a lease that cannot be read")]


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


class Turns:
    """Files that two processes use in turns: each call waits until its process is let go on for one call."""

    def __init__(self, files: LocalFiles, schedule: Iterator[int]) -> None:
        self._files = files
        self._schedule = schedule
        self._changed = threading.Condition()
        self._turn = next(schedule)
        self.running = {0, 1}

    def of(self, process: int) -> Any:
        """The files as one of the two sees them."""
        turns = self

        class Files:
            def __getattr__(self, name: str) -> Any:
                def call(*arguments: Any) -> Any:
                    return turns.call(process, getattr(turns._files, name), arguments)

                return call

        return Files()

    def call(self, process: int, method: Callable[..., Any], arguments: Any) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == process or self.running == {process})
            try:
                return method(*arguments)
            finally:
                self._turn = next(self._schedule, 1 - process)
                self._changed.notify_all()

    def end(self, process: int) -> None:
        with self._changed:
            self.running.discard(process)
            self._turn = 1 - process
            self._changed.notify_all()


CALLS = 4
"""Of one process that takes a lease beside none: look, write, look; one more where it sees the other's."""


def taken_in_turns(folder: Path, schedule: Iterable[int], **how: Any) -> tuple[list[Lease], list[list[Holder] | None]]:
    """Two leases taken at once, and whom each process was told of; None where it was refused."""
    turns = Turns(LocalFiles(folder), iter(schedule))
    leases = [Lease(turns.of(process), "leases/run", clock=lambda: NOW) for process in (0, 1)]
    told: list[list[Holder] | None] = [[], []]

    def take(process: int) -> None:
        seen: list[Holder] = []
        try:
            leases[process].acquire(timeout=0, on_other=seen.append, **how)
            told[process] = seen
        except TakenError:
            told[process] = None
        turns.end(process)

    threads = [threading.Thread(target=take, args=[process]) for process in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns.running.clear()
    return leases, told


SCHEDULES = [
    tuple(int(place in chosen) for place in range(2 * CALLS))
    for chosen in itertools.combinations(range(2 * CALLS), CALLS)
]
"""All orders in which two processes can make their calls."""


def test_two_that_take_a_lease_at_once_are_told_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one at once, in whatever order they look and write; both after a second look, each once."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 1000.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    orders = set()
    for number, schedule in enumerate(SCHEDULES):
        folder = tmp_path / str(number)
        folder.mkdir()
        leases, told = taken_in_turns(folder, schedule, despite_lease=True)
        assert None not in told
        orders.add(tuple(len(seen or []) for seen in told))
        for process, lease in enumerate(leases):
            lease._files = LocalFiles(folder)  # type: ignore[assignment]  # from here on nobody waits for a turn
            for _ in range(2):
                lease._look_again(NOW, told[process].append)  # type: ignore[union-attr]  # none was refused
        assert [len(seen or []) for seen in told] == [1, 1]
        for lease in leases:
            lease.release()
    assert orders == {(0, 1), (1, 0), (1, 1)}


def test_two_that_ask_for_a_claim_at_once_never_hold_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither insists, in whatever order they look and write; who is refused leaves no lease."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 1000.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    held = set()
    for number, schedule in enumerate(SCHEDULES):
        folder = tmp_path / str(number)
        folder.mkdir()
        leases, _ = taken_in_turns(folder, schedule)
        held.add(sum(lease.is_held for lease in leases))
        for lease in leases:
            lease._files = LocalFiles(folder)  # type: ignore[assignment]  # from here on nobody waits for a turn
        assert len(LocalFiles(folder).names("leases/run")) == sum(lease.is_held for lease in leases)
        for lease in leases:
            lease.release()
    assert held <= {0, 1}


def test_a_holder_is_told_of_one_that_comes_later(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its next renewal, and once, however often it renews."""
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.01)
    told: list[Holder] = []
    first, second = lease(files), lease(files)
    first.acquire(timeout=0, despite_lease=True, on_other=told.append)
    assert told == []
    second.acquire(timeout=0, despite_lease=True)
    name = first._name
    for _ in range(3):
        before = files.signature(name)
        while files.signature(name) == before:
            time.sleep(0.005)
    first.release()
    second.release()
    assert [holder.is_live for holder in told] == [True]


def test_a_lease_does_not_bring_back_what_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was removed while it is driven stays so."""
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.01)
    folder = LocalFiles(tmp_path / "store")
    folder.make()
    mine = lease(folder)
    mine.acquire(timeout=0)
    shutil.rmtree(folder.root)
    time.sleep(0.05)
    mine.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lease_is_renewed_also_after_an_outage(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that fails is made good by the next, and by the end the renewing has ended."""
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.01)
    ticks = iter(range(10**9))
    mine = Lease(files, "leases/run", clock=lambda: NOW + next(ticks))
    write, calls = files.write, iter(range(10**9))

    def write_or_fail(name: str, content: bytes) -> None:
        if next(calls) % 2:
            raise StorageError("storage-away", "away")
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
        raise StorageError("storage-away", "away")

    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", fail)
        mine.release()
    assert not mine.is_held
    assert len(files.names("leases/run")) == 1
