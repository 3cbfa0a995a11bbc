"""Trials that other code computed: reported by runs, recomputed on request, or accepted as equivalent."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crwn.code import Code, code_of
from crwn.testing import Conditions, new_store, write_finished, write_unfinished
from crwn.trial_spec import TrialSpec
from orchestrator.execution import inline, other_code
from orchestrator.execution.protocol import Assignment
from orchestrator.store.schemas import ACCEPTED_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from tests.said import ACCEPTED_NOTHING, OTHER_CODE, all_done, not_recomputed, noted, of_other_code, trials_of

Crwn = Callable[..., Any]
SweepFile = Callable[..., Path]

OTHER = "f" * 16


@pytest.fixture
def sweep(sweep_file: SweepFile) -> Sweep:
    """The tiny sweep: one method, two seeds."""
    return load_sweep(sweep_file())


@pytest.fixture
def run(crwn: Crwn, sweep_file: SweepFile) -> Callable[..., Any]:
    """Runs it."""
    path = sweep_file()
    return lambda *options: crwn("run", path, "--executor", "inline", "--no-tracking", *options)


@pytest.fixture
def mixed(workplace: Path, sweep: Sweep) -> Store:
    """A store with both trials: seed 0 of another code of the method, seed 1 of this one."""
    store = new_store(workplace / "runs" / "tiny")
    for trial, method in zip(sweep.trials, (OTHER, None), strict=True):
        write_finished(store, trial, accuracy=0.5, conditions=of_code(trial, method))
    store.write_manifest(sweep.manifest())
    return store


def of_code(trial: TrialSpec, method: str | None = None, **said: Any) -> Conditions:
    """A trial that this code computed, or this one of the method."""
    here = code_of(trial.method)
    return Conditions(code=replace(here, method=method or here.method, **said))


def code_in(store: Store, trial: TrialSpec) -> Code | None:
    row = store.records.row(trial.trial_id)
    assert row is not None
    return row.provenance.code


def compute(assignment: Assignment, *, store: Store, **_: Any) -> list[Any]:
    """In place of an attempt: writes a record of this code at once."""
    spec = assignment.spec
    if not store.is_finished(spec.trial_id):
        write_finished(store, spec, accuracy=0.75, conditions=of_code(spec))
    return []


def test_a_run_names_what_other_code_computed(run: Callable[..., Any], mixed: Store) -> None:
    """Even with nothing left to do: how many trials of which method, and what to do; the table averages neither."""
    ended = run()
    assert ended.code == 0
    assert of_other_code(1, "neuromodnet") in ended.out
    assert "--recompute" in ended.out
    assert "mixed (n=2)" in ended.out
    assert mixed.repairs().exists is False


def test_a_method_is_computed_again(
    run: Callable[..., Any], mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only trials of other code; afterwards, nothing is reported, and the same command does nothing."""
    monkeypatch.setattr(inline, "attempt", compute)
    old, new = sweep.trials
    kept = mixed.read(new.trial_id, TRIAL_FILE)
    ended = run("--recompute", "neuromodnet")
    assert ended.code == 0
    (line,) = [line for line in ended.out.splitlines() if line.startswith(f"recomputed {old.trial_id}: ")]
    assert re.findall(r"[0-9.]+", line.partition(": ")[2]) == ["50.0", "75.0"]
    assert "62.50 ± 17.68 (n=2)" in ended.out
    assert OTHER_CODE not in ended.out
    assert code_in(mixed, old) == code_of(old.method)
    assert mixed.read(new.trial_id, TRIAL_FILE) == kept
    assert mixed.repairs().trial_ids() == []
    ended = run("--recompute", "neuromodnet")
    assert ended.code == 0
    assert all_done("tiny", 2) in ended.out


def test_a_trial_is_computed_again_where_any_of_its_code_is_other(
    run: Callable[..., Any], mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by its id, other code of crwn is enough; of its method it is not."""
    monkeypatch.setattr(inline, "attempt", compute)
    for trial in sweep.trials:
        write_finished(mixed, trial, accuracy=0.5, conditions=of_code(trial, crwn=OTHER))
    first, second = sweep.trials
    assert OTHER_CODE not in run().out
    assert all_done("tiny", 2) in run("--recompute", "neuromodnet").out
    assert f"recomputed {second.trial_id}" in run("--recompute", second.trial_id).out
    codes = [code_in(mixed, trial) for trial in (first, second)]
    assert codes == [of_code(first, crwn=OTHER).code, code_of(second.method)]
    assert all_done("tiny", 2) in run("--recompute", second.trial_id).out


def test_unknown_code_is_computed_again_when_its_method_is(
    run: Callable[..., Any], mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing says that it was this; but no run names it."""
    monkeypatch.setattr(inline, "attempt", compute)
    for trial in sweep.trials:
        write_finished(mixed, trial, accuracy=0.5, conditions=Conditions(code=None))
    assert OTHER_CODE not in run().out
    assert run("--recompute", "neuromodnet").out.count("recomputed ") == 2


def test_the_old_record_stays_until_the_new_one_is_whole(
    run: Callable[..., Any], mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fails or is killed leaves the old records; the next one keeps finished work and resumes."""
    old = sweep.trials[0]
    before = mixed.read(old.trial_id, TRIAL_FILE)

    def fail(_: Assignment, **__: Any) -> list[Any]:
        return []

    with monkeypatch.context() as broken:
        broken.setattr(inline, "attempt", fail)
        ended = run("--recompute", "neuromodnet")
    assert ended.code == 1
    assert not_recomputed(1) in ended.out
    assert mixed.read(old.trial_id, TRIAL_FILE) == before

    write_finished(mixed.repairs(), old, accuracy=0.25, conditions=of_code(old))  # killed before it took its place
    monkeypatch.setattr(inline, "attempt", compute)
    assert "is 25.0" in run("--recompute", "neuromodnet").out


def test_what_yet_another_code_left_in_a_recomputation_is_forgotten(
    run: Callable[..., Any], mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that was edited once more while its trials were computed again."""
    monkeypatch.setattr(inline, "attempt", compute)
    old = sweep.trials[0]
    beside = mixed.repairs()
    beside.create()
    write_finished(beside, old, accuracy=0.25, conditions=of_code(old, "e" * 16))
    assert "is 75.0" in run("--recompute", "neuromodnet").out


def test_a_trial_that_other_code_began_begins_anew(
    run: Callable[..., Any], workplace: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, its result would be of both codes; a trial that this code began resumes."""
    store = new_store(workplace / "runs" / "tiny")
    for trial, method in zip(sweep.trials, (OTHER, None), strict=True):
        write_unfinished(store, trial, conditions=of_code(trial, method))
    found = {}

    def look(assignment: Assignment, *, store: Store, **_: Any) -> list[Any]:
        spec = assignment.spec
        found[spec.seed] = store.unfinished.read_resume(spec.trial_id) is not None
        return compute(assignment, store=store)

    monkeypatch.setattr(inline, "attempt", look)
    assert run("--recompute", "neuromodnet").code == 0
    assert found == {0: False, 1: True}


@pytest.mark.parametrize(("name", "expected"), [("neuromodnett", "'neuromodnet'"), ("0" * 16, "tiny")])
def test_what_is_no_method_and_no_trial_is_refused(run: Callable[..., Any], name: str, expected: str) -> None:
    """Before anything starts, with the nearest name."""
    ended = run("--recompute", name)
    assert ended.code == 2
    assert expected in ended.err
    assert not Path("runs").exists()


def test_a_code_that_is_accepted_is_no_other(run: Callable[..., Any], crwn: Crwn, mixed: Store) -> None:
    """Nothing is reported, the mean is over both, and a note says that their code differs; it can be undone."""
    ended = crwn("accept", "runs/tiny", "neuromodnet")
    assert ended.code == 0
    assert OTHER in ended.out
    ended = run()
    assert OTHER_CODE not in ended.out
    assert "50.00 ± 0.00 (n=2)" in ended.out
    assert noted("code.method", 1) in ended.out
    assert OTHER_CODE not in crwn("status", "runs/tiny").out
    (mixed.root / ACCEPTED_FILE).unlink()
    assert OTHER_CODE in crwn("status", "runs/tiny").out


def test_what_is_accepted_is_read_before_anything_starts(run: Callable[..., Any], mixed: Store) -> None:
    """Otherwise, a damaged file would end the run only after everything is computed."""
    path = mixed.root / ACCEPTED_FILE
    path.write_text("{}")
    ended = run("--recompute", "neuromodnet")
    assert ended.code == 2
    assert str(path) in ended.err
    assert not mixed.repairs().exists


@pytest.mark.parametrize(
    ("arguments", "code", "facts"),
    [
        (("ewc",), "unknown-name", ("'ewc'", "neuromodnet")),
        (("neuromodnet", "--code", "f" * 15 + "e"), "unknown-name", ("--code: ", f"'{OTHER}'")),
        (("neuromodnet", "--code", OTHER), "too-few", ("--code: ", OTHER)),
        (("neuromodnet", "--results-version", "7"), "unknown-name", ("--results-version: ", "'7'")),
    ],
)
def test_what_cannot_be_accepted_is_refused(
    crwn: Crwn, mixed: Store, arguments: tuple[str, ...], code: str, facts: tuple[str, ...]
) -> None:
    """A method or a code that the store has not, one code alone; nothing is written."""
    ended = crwn("accept", "runs/tiny", *arguments)
    assert (ended.code, ended.codes) == (2, (code,))
    for fact in facts:
        assert fact in ended.err
    assert mixed.accepted().agreements == ()


def test_some_of_a_methods_codes_are_accepted(crwn: Crwn, mixed: Store, sweep: Sweep) -> None:
    """Those that are named; a third one stays another."""
    first, second = sweep.trials
    write_finished(mixed, second, conditions=of_code(second, "e" * 16))
    ended = crwn("accept", "runs/tiny", "neuromodnet", "--code", OTHER, "--code", "e" * 16)
    assert ended.code == 0
    assert mixed.accepted().codes("neuromodnet", OTHER) == {OTHER, "e" * 16}
    assert trials_of(2, "neuromodnet") in crwn("status", "runs/tiny").out
    assert code_of(first.method).method not in mixed.accepted().codes("neuromodnet", OTHER)


def test_a_store_of_one_code_has_nothing_to_accept(crwn: Crwn, mixed: Store, sweep: Sweep) -> None:
    """Nothing is written."""
    first = sweep.trials[0]
    write_finished(mixed, first, conditions=of_code(first))
    assert ACCEPTED_NOTHING in crwn("accept", "runs/tiny", "neuromodnet").out
    assert mixed.accepted().agreements == ()


def test_this_code_is_found_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the method's file, which is that of its spec; a method that is not there has no code."""
    from crwn.methods import METHODS

    known = other_code.present("ewc")
    assert known == replace(code_of(METHODS["ewc"].spec()), crwn=None)
    assert other_code.present("plugged-in") == Code()
    assert sys.modules[METHODS["ewc"].spec.__module__].__file__ is not None
