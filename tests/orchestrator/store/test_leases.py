"""Leases, where there are no locks: what a process writes about itself, and how others interpret it."""

from __future__ import annotations

import contextlib
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
from orchestrator.store.address import open_files
from orchestrator.store.folder import LocalFiles
from orchestrator.store.json_fields import sealed_bytes
from orchestrator.store.leases import RECENT_SECONDS, Lease
from orchestrator.store.locks import Claim, Holder, TakenError
from tests.object_storage import ObjectStorage

NOW = 1.8e9


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """Leases are the same on any files; a folder's are the quickest."""
    return LocalFiles(tmp_path)


def lease(files: LocalFiles, now: float = NOW) -> Lease:
    return Lease(files, "leases/run", clock=lambda: now)


def leave(files: LocalFiles, *, age: float = 5.0, clock: float = 0.0, **said: Any) -> None:
    """What a process elsewhere left.

    Args:
        files: where.
        age: seconds since it was renewed.
        clock: seconds by which that process's clock is ahead.
        said: what its lease says.
    """
    content = {"user": "ann", "host": "elsewhere", "pid": 12, "since": NOW - 100, "renewed": NOW - age + clock, **said}
    files.write("leases/run/foreign.json", json.dumps(content).encode())
    os.utime(files.root / "leases/run/foreign.json", times=2 * (time.time() - age,))


def test_a_recent_lease_is_of_a_process_at_work(files: LocalFiles) -> None:
    """It says who, where, since when, and how long ago it was heard of."""
    leave(files)
    (holder,) = lease(files).holders()
    assert holder.is_live
    assert holder.text == "ann on elsewhere, process 12, since 2027-01-15 07:58:20+00:00, last sign of life 5 s ago"


def test_an_old_lease_is_of_a_process_that_was_cut_off(files: LocalFiles) -> None:
    """The next process that takes the claim removes it."""
    leave(files, age=3 * 3600)
    mine = lease(files)
    (holder,) = mine.holders()
    assert not holder.is_live
    assert holder.text.endswith("last sign of life 3 h ago")
    assert mine.acquire(timeout=0) == [holder]
    assert "foreign.json" not in files.names("leases/run")
    mine.release()
    assert files.names("leases/run") == []


@pytest.mark.parametrize(("age", "is_live"), [(RECENT_SECONDS - 1, True), (RECENT_SECONDS, False), (-60, True)])
def test_a_lease_grows_old_and_clocks_differ(files: LocalFiles, age: float, *, is_live: bool) -> None:
    """One from a clock that is ahead is recent."""
    leave(files, age=age)
    assert [holder.is_live for holder in lease(files).holders()] == [is_live]


def test_a_process_of_this_machine_that_ended_is_known_to_have(files: LocalFiles) -> None:
    """A run that was killed and is restarted at once does not warn of itself."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    leave(files, host=socket.gethostname(), pid=child.pid)
    assert [holder.is_live for holder in lease(files).holders()] == [False]
    leave(files, host=socket.gethostname(), pid=os.getpid())
    assert [holder.is_live for holder in lease(files).holders()] == [True]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"renewed": "x"}', '{"renewed": 1, "since": 1e300}'])
def test_a_lease_that_cannot_be_read_is_of_nobody(files: LocalFiles, content: str) -> None:
    """An unreadable lease stops nothing."""
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


def test_whoever_is_refused_is_told_of_the_holder(files: LocalFiles) -> None:
    """And leaves no lease; once the first gave its own back, the second gets it."""
    first, second = lease(files), lease(files)
    assert first.acquire(timeout=0) == []
    with pytest.raises(TakenError, match=f"process {os.getpid()}, .* 0 s ago"):
        second.acquire(timeout=0)
    assert (first.is_held, second.is_held) == (True, False)
    assert len(files.names("leases/run")) == 1
    first.release()
    second.acquire(timeout=0)
    second.release()
    assert files.names("leases/run") == []


def test_whoever_waits_gets_a_claim_that_is_given_back(files: LocalFiles) -> None:
    """Within the time that it waits."""
    first, second = lease(files), lease(files)
    first.acquire(timeout=0)
    timer = threading.Timer(0.3, first.release)
    timer.start()
    second.acquire(timeout=60)
    timer.join()
    assert second.is_held
    second.release()


@pytest.mark.parametrize("clock", [-3600.0, 0.0, 3600.0])
def test_a_live_holder_is_not_taken_for_dead_by_its_clock(
    files: LocalFiles, clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock an hour behind, it looks cut off to readers, but not to a process that takes the claim."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)
    leave(files, clock=clock)
    assert [holder.is_live for holder in lease(files).holders()] == [clock >= 0]
    with pytest.raises(TakenError, match="ann on elsewhere"):
        lease(files).acquire(timeout=0)
    assert files.names("leases/run") == ["foreign.json"]


def test_a_process_id_of_another_machine_of_the_same_name_says_nothing(files: LocalFiles) -> None:
    """Containers and cloned machines share names; each has its own process ids."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    leave(files, host=socket.gethostname(), pid=child.pid)
    content = json.loads(files.read("leases/run/foreign.json"))
    for machine, is_live in (("another", True), (module._machine(), False)):
        files.write("leases/run/foreign.json", sealed_bytes({**content, "machine": machine}))
        assert [holder.is_live for holder in lease(files).holders()] == [is_live]


class Turns:
    """Files that two processes use in turns: each call waits until its process may make one call."""

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


CALLS = 5
"""Of one process that takes a lease beside none: look, write, look at the time, look; one more to give it back."""


def taken_in_turns(folder: Path, schedule: Iterable[int]) -> list[Lease]:
    """Two leases taken at once."""
    turns = Turns(LocalFiles(folder), iter(schedule))
    leases = [Lease(turns.of(process), "leases/run", clock=lambda: NOW) for process in (0, 1)]

    def take(process: int) -> None:
        with contextlib.suppress(TakenError):
            leases[process].acquire(timeout=0)
        turns.end(process)

    threads = [threading.Thread(target=take, args=[process]) for process in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns.running.clear()
    for lease in leases:
        lease._files = LocalFiles(folder)  # type: ignore[assignment]  # from here on nobody waits for a turn
    return leases


SCHEDULES = [
    tuple(int(place in chosen) for place in range(2 * CALLS))
    for chosen in itertools.combinations(range(2 * CALLS), CALLS)
]
"""All orders in which two processes can make their calls."""


@pytest.mark.parametrize("is_left", [False, True])
def test_two_that_ask_for_a_claim_at_once_never_hold_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_left: bool
) -> None:
    """In whatever order they look and write, also where both take over a dead process's; the refused leave none."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    held = set()
    for number, schedule in enumerate(SCHEDULES):
        folder = tmp_path / str(number)
        folder.mkdir()
        if is_left:
            leave(LocalFiles(folder), age=3600)
        leases = taken_in_turns(folder, schedule)
        held.add(sum(lease.is_held for lease in leases))
        names = set(LocalFiles(folder).names("leases/run")) - {"foreign.json"}
        assert len(names) == sum(lease.is_held for lease in leases)
        for lease in leases:
            lease.release()
    assert 1 in held <= {0, 1}


RACERS, ROUNDS = 4, 2


def test_one_of_several_that_race_for_object_storage_has_the_claim(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not more, and not none: the first by name stays."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 120.0)
    for _ in range(ROUNDS):
        address, start = storage.new_address(), threading.Barrier(RACERS)
        claims = [open_files(address).claim("run") for _ in range(RACERS)]

        def take(claim: Claim, start: threading.Barrier = start) -> None:
            start.wait()
            with contextlib.suppress(TakenError):
                claim.acquire(timeout=0)

        threads = [threading.Thread(target=take, args=[claim]) for claim in claims]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [claim.is_held for claim in claims].count(True) == 1
        for claim in claims:
            claim.release()
        assert open_files(address).names("leases/run") == []


def test_a_lease_that_was_taken_over_is_not_renewed(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process was cut off for longer than it lasts; what is another's stays so, also at the end."""
    first = lease(files)
    with monkeypatch.context() as patch:
        patch.setattr(Lease, "_renew", lambda *_: None)  # cut off
        first.acquire(timeout=0)
    os.utime(files.root / first._name, times=(0, 0))
    second = Lease(files, "leases/run", clock=lambda: NOW + RECENT_SECONDS)
    assert [holder.is_live for holder in second.acquire(timeout=0)] == [False]
    (name,) = files.names("leases/run")
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.01)
    first._renew(NOW)
    assert files.names("leases/run") == [name]
    first.release()
    assert files.names("leases/run") == [name]
    second.release()


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
