"""What an unfinished trial stores: resume points, the rows up to them, and its attempts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.store import trial_files
from orchestrator.store.attempts import Attempt, AttemptError
from orchestrator.store.rows import CurveEntry, TestRow
from orchestrator.store.schemas import (
    ATTEMPTS_FILE,
    RESUME_FILE,
    SYSTEM_FILE,
    TASKS_FILE,
)
from orchestrator.store.store import Store
from tests.orchestrator.made_up import A, B, D, files_of, record
from tests.refusals import refused

Listing = Callable[[Path], dict[str, bytes]]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, listing: Listing, failing: str
) -> None:
    """On a full disk the earlier resume point and its rows stay whole, and no temporary file is left."""
    store = Store(store.root)  # one that waits for the disk
    store.unfinished.write_resume(A, b"earlier", [], [])
    before = listing(store.root)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if failing == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="no space"):
        store.unfinished.write_resume(A, b"later", [], [])
    assert listing(store.root) == before
    assert store.unfinished.read_resume(A) == b"earlier"


def test_a_resume_point_replaces_the_one_before(store: Store) -> None:
    """Only the last is kept; discarding it leaves none, also where there was none."""
    assert store.unfinished.read_resume(A) is None
    store.unfinished.write_resume(A, b"first", [], [])
    store.unfinished.write_resume(A, b"second", [], [])
    assert store.unfinished.read_resume(A) == b"second"
    assert files_of(store.folder(A)) == {RESUME_FILE, TASKS_FILE, SYSTEM_FILE}
    store.unfinished.discard_resume(A)
    store.unfinished.discard_resume(A)
    assert store.unfinished.read_resume(A) is None


# A task that is being learned: what names it, and its curve so far.
def learning() -> TestRow:
    """The row of a task that is being learned."""
    point = CurveEntry(step=50, loss=1.5, accuracy=0.5, time=1.75e9)
    tested = dict.fromkeys(("tasks_learned", "accuracy", "loss", "num_test", "train_seconds", "eval_seconds", "tested"))
    return replace(record(A).tasks[0], task=1, curve=(point,), **tested)


def test_so_far_are_the_rows_up_to_the_resume_point(anywhere: Store) -> None:
    """With null for what a test would say of a task that is being learned; no trial is finished by that."""
    whole = record(A)
    anywhere.unfinished.write_resume(A, b"first", whole.tasks[:1], whole.system[:1])
    anywhere.unfinished.write_resume(A, b"second", [whole.tasks[0], learning()], whole.system)
    tasks, system = anywhere.so_far(A)
    assert tasks == [whole.tasks[0], learning()]
    assert tasks[1].accuracy is None
    assert system == list(whole.system)
    assert not anywhere.is_finished(A)
    assert len(anywhere.records.tasks([A])) == 0
    assert anywhere.trial_ids() == []


def test_a_record_replaces_the_rows_so_far(anywhere: Store) -> None:
    """A task's partial row is not kept once its test is recorded."""
    whole = record(A)
    anywhere.unfinished.write_resume(A, b"...", [learning()], [])
    anywhere.records.write(A, whole)
    assert anywhere.so_far(A) == (list(whole.tasks), list(whole.system))


def test_so_far_of_a_trial_that_is_not_there_is_nothing(store: Store, listing: Listing) -> None:
    """Nor of one that has not come to its first resume point; nothing is written."""
    store.unfinished.write_attempts(D, [Attempt()])
    before = listing(store.root)
    for name in ("absent", D):
        assert store.so_far(name) == ([], [])
    assert listing(store.root) == before


@pytest.mark.parametrize("file", [TASKS_FILE, SYSTEM_FILE])
def test_damaged_rows_so_far_are_named(store: Store, file: str) -> None:
    """As those of a finished trial are."""
    store.unfinished.write_resume(A, b"...", record(A).tasks, record(A).system)
    (store.folder(A) / file).write_bytes(b"PAR1 and no more")
    with refused(UserError, "record-unreadable", says=f"{file}: "):
        store.so_far(A)


@pytest.mark.parametrize("killed_before", [RESUME_FILE, TASKS_FILE, SYSTEM_FILE])
def test_a_kill_between_a_resume_point_and_its_rows_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, killed_before: str
) -> None:
    """Rows are never ahead of the point, or they would be computed once more; each file is whole, old or new.

    Those that lag behind are in the resume point, and come with the next.
    """
    whole = record(A)
    store.unfinished.write_resume(A, b"first", whole.tasks[:1], whole.system[:1])
    move = Path.replace

    def kill(path: Path, target: Path) -> Path:
        if target.name == killed_before:
            raise KeyboardInterrupt
        return move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            store.unfinished.write_resume(A, b"second", whole.tasks, whole.system)
    found = (store.unfinished.read_resume(A), *map(len, store.so_far(A)))
    assert (
        found
        == {
            RESUME_FILE: (b"first", 1, 1),
            TASKS_FILE: (b"second", 1, 1),
            SYSTEM_FILE: (b"second", 3, 1),
        }[killed_before]
    )
    store.unfinished.write_resume(A, b"third", whole.tasks, whole.system)
    assert [len(table) for table in store.so_far(A)] == [3, 2]


def test_a_discarded_resume_point_takes_its_rows_along(store: Store) -> None:
    """The trial starts again, so its rows are removed; its attempts stay."""
    store.unfinished.write_attempts(A, [Attempt()])
    store.unfinished.write_resume(A, b"...", record(A).tasks, record(A).system)
    store.unfinished.discard_resume(A)
    assert files_of(store.folder(A)) == {ATTEMPTS_FILE}
    assert [len(table) for table in store.so_far(A)] == [0, 0]


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_kill_while_a_resume_point_is_discarded_leaves_it_to_be_discarded(
    store: Store, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """The rows go first: without their point nobody would find that they are to be removed."""
    store.unfinished.write_resume(A, b"...", record(A).tasks, record(A).system)
    unlink, calls = Path.unlink, iter(range(3))

    def kill(path: Path, missing_ok: bool = False) -> None:
        if next(calls) == killed_at:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(KeyboardInterrupt):
            store.unfinished.discard_resume(A)
    assert store.unfinished.read_resume(A) is not None
    assert sum(bool(len(table)) for table in store.so_far(A)) == 2 - killed_at


def test_attempts_are_kept_until_the_trial_is_finished(store: Store) -> None:
    """The record takes them over; then they and the resume point are removed."""
    assert store.unfinished.attempts(A) == ()
    attempts = (Attempt(error=AttemptError(type="E")), Attempt(pid=1))
    store.unfinished.write_attempts(A, attempts)
    store.unfinished.write_resume(A, b"...", [], [])
    assert store.unfinished.attempts(A) == attempts
    assert files_of(store.folder(A)) == {ATTEMPTS_FILE, RESUME_FILE, TASKS_FILE, SYSTEM_FILE}
    store.records.write(A, record(A))
    assert store.unfinished.attempts(A) == ()
    assert store.unfinished.read_resume(A) is None


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null"])
def test_damaged_attempts_count_as_none(store: Store, content: str) -> None:
    """The trial can resume without them."""
    store.unfinished.write_attempts(A, [Attempt(pid=1)])
    (store.folder(A) / ATTEMPTS_FILE).write_text(content)
    assert store.unfinished.attempts(A) == ()
    assert store.state(A, driven=False) == "interrupted"
    assert ATTEMPTS_FILE in (store.unfinished.attempts_fault(A) or "")


def test_a_changed_letter_in_attempts_is_seen(store: Store) -> None:
    """They have a sum of their content; what another error would say is not shown."""
    store.unfinished.write_attempts(A, [Attempt(error=AttemptError(type="E", message="no room"))])
    assert store.unfinished.attempts_fault(A) is None
    file = store.folder(A) / ATTEMPTS_FILE
    file.write_bytes(file.read_bytes().replace(b"no room", b"no rook"))
    assert store.unfinished.attempts(A) == ()
    fault = store.unfinished.attempts_fault(A)
    assert fault is not None
    assert fault.codes == ("content-changed",)


@pytest.mark.parametrize("driven", [False, True])
def test_states(anywhere: Store, *, driven: bool) -> None:
    """A trial's files in the store determine its state; whether a begun one is running depends on the driver."""
    failed = Attempt(error=AttemptError(type="OSError", message="no space left"))
    anywhere.records.write(A, record(A))
    anywhere.unfinished.write_attempts(B, [Attempt(pid=1), failed])
    anywhere.unfinished.write_attempts(D, [failed, Attempt(pid=2)])
    states = [anywhere.state(name, driven=driven) for name in (A, B, D, "absent")]
    assert states == ["done", "failed", "running" if driven else "interrupted", "left"]


def test_a_finished_trial_is_done_whatever_else_is_there(anywhere: Store) -> None:
    """A driver that was killed while clearing up leaves its attempts; the record decides."""
    anywhere.records.write(A, record(A))
    anywhere.unfinished.write_attempts(A, [Attempt(error=AttemptError(type="OSError", message="no space left"))])
    assert anywhere.state(A, driven=True) == "done"


def test_what_another_run_has_finished_stays_as_it_is(anywhere: Store) -> None:
    """Where no lock keeps a second run away, it neither writes its rows over a finished trial's nor removes them."""
    anywhere.records.write(A, record(A))
    assert not anywhere.unfinished.write_resume(A, b"...", record(A).tasks[:1], [])
    anywhere.unfinished.discard_resume(A)
    assert anywhere.unfinished.read_resume(A) is None
    assert len(anywhere.records.tasks([A])) == len(record(A).tasks)


def test_a_trial_that_is_finished_while_another_run_writes_its_rows_is_begun(
    anywhere: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows may be those of the other run's resume point: it counts as finished only when all of it is whole."""
    whole = record(A)
    finished = iter([False])  # asked before another run's record came
    is_finished = trial_files.is_finished

    monkeypatch.setattr(
        trial_files,
        "is_finished",
        lambda files, trial_id: next(finished, None) is None and is_finished(files, trial_id),
    )
    anywhere.records.write(A, whole)
    assert anywhere.unfinished.write_resume(A, b"...", whole.tasks[:1], [])
    assert not anywhere.is_finished(A)
    assert anywhere.unfinished.read_resume(A) == b"..."
    anywhere.records.write(A, whole)
    assert anywhere.so_far(A)[0] == list(whole.tasks)
