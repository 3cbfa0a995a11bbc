"""Finished trials with damaged records: reported by every run, recomputed on request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution import inline
from orchestrator.execution.protocol import Assignment
from orchestrator.store.schemas import CONTEXTS_FILE, TASKS_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from tests.said import AS_IT_WAS

Crwn = Callable[..., Any]
SweepFile = Callable[..., Path]


@pytest.fixture
def run(crwn: Crwn, sweep_file: SweepFile) -> Callable[..., Any]:
    """Runs the tiny sweep."""
    sweep = sweep_file()
    return lambda *options: crwn("run", sweep, "--executor", "inline", "--no-tracking", *options)


@pytest.fixture
def ids(sweep_file: SweepFile) -> list[str]:
    """Its two trials."""
    return [trial.trial_id for trial in load_sweep(sweep_file()).trials]


def content(store: Store, trial_id: str) -> dict[str, bytes]:
    """A trial's files."""
    return {path.name: path.read_bytes() for path in store.folder(trial_id).iterdir()}


def test_another_trials_folder_is_not_taken_for_done(run: Callable[..., Any], ids: list[str]) -> None:
    """The error says what to do, and nothing is computed or lost until then."""
    assert run().code == 0
    store = Store("runs/tiny")
    shutil.rmtree(store.folder(ids[1]))
    shutil.copytree(store.folder(ids[0]), store.folder(ids[1]))
    before = content(store, ids[1])
    ended = run()
    assert ended.code == 1
    assert ended.codes == ("records-damaged",)
    assert " 1 finished trial " in ended.err
    assert " --repair " in ended.err
    assert ended.err.count("\n") == 1
    assert f"'{ids[0]}'" in ended.out
    assert content(store, ids[1]) == before

    ended = run("--repair")
    assert ended.code == 0
    assert f"repaired {ids[1]}: " in ended.out
    assert run().code == 0
    assert (store.records.trials(ids)["trial_id"].to_pylist(), store.repairs().trial_ids()) == (ids, [])


@pytest.mark.parametrize("is_lost", [True, False])
def test_damaged_contexts_are_computed_again(run: Callable[..., Any], ids: list[str], *, is_lost: bool) -> None:
    """Lost ones are noticed by any run, damaged ones by one that reads everything; the number is what it was."""
    run()
    store = Store("runs/tiny")
    before = content(store, ids[0])
    path = store.folder(ids[0]) / CONTEXTS_FILE
    if is_lost:
        path.unlink()
        assert f"{path}: " in run().out
    else:
        path.write_bytes(path.read_bytes()[:-1])
        assert run().code == 0
    ended = run("--repair")
    assert ended.code == 0
    assert AS_IT_WAS in ended.out
    assert path.read_bytes() == before[CONTEXTS_FILE]


def test_a_changed_number_is_said(run: Callable[..., Any], ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the damaged record can still be read, its accuracy and the new one are printed."""
    from crwn.testing import write_finished

    run()
    store = Store("runs/tiny")
    (store.folder(ids[0]) / CONTEXTS_FILE).unlink()

    def compute(assignment: Assignment, *, store: Store, **_: Any) -> list[Any]:
        write_finished(store, assignment.spec, accuracy=0.625)
        return []

    monkeypatch.setattr(inline, "attempt", compute)
    ended = run("--repair")
    assert f"repaired {ids[0]}: " in ended.out
    assert ended.out.split("repaired ")[1].splitlines()[0].endswith(", is 62.5")


def test_the_old_record_stays_until_the_new_one_is_whole(
    run: Callable[..., Any], ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed repair leaves the old record; the next one resumes."""
    run()
    store = Store("runs/tiny")
    path = store.folder(ids[0]) / TASKS_FILE
    path.write_bytes(path.read_bytes()[:-1])
    before = content(store, ids[0])
    with monkeypatch.context() as broken:
        broken.setattr("crwn.engine.evaluate", None, raising=False)
        broken.setattr("orchestrator.execution.attempt.iterate_trial", _fail)
        assert run("--repair").code != 0
    assert content(store, ids[0]) == before
    assert store.repairs().unfinished.attempts(ids[0])
    assert run("--repair").code == 0
    assert store.repairs().unfinished.attempts(ids[0]) == ()
    assert TRIAL_FILE in content(store, ids[0])


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("no luck")
