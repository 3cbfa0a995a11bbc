"""One attempt at one trial: what it leaves in the store when it succeeds, fails or is stopped."""

from __future__ import annotations

import platform
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from crwn import backbone, contexts, engine, groups, resume
from crwn.code import Code, code_of
from crwn.data import BASE_SETS, Datasets
from crwn.events import ResumePoint
from crwn.trial import Event, iterate_trial
from crwn.trial_spec import TrialSpec
from orchestrator.execution import attempt as attempt_module
from orchestrator.execution import sampling
from orchestrator.execution.attempt import RECORDED_VERSIONS, attempt
from orchestrator.execution.protocol import Assignment, TrialUpdate
from orchestrator.store import attempts as kept
from orchestrator.store.attempts import Position
from orchestrator.store.finished import Records
from orchestrator.store.manifests import ManifestCell
from orchestrator.store.parquet_files import stable_columns
from orchestrator.store.provenance import Provenance
from orchestrator.store.rows import TrialRow
from orchestrator.store.schemas import (
    ATTEMPTS_FILE,
    CONTEXTS_FILE,
    RESUME_FILE,
    SYSTEM_FILE,
    TASKS_FILE,
    TASKS_SCHEMA,
    TRIAL_FILE,
)
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources
from orchestrator.tracking import projection
from tests.said import ON_THE_CPU

Trial = Callable[..., TrialSpec]
Attempt = Callable[..., Iterator[TrialUpdate]]

FINISHED = {TRIAL_FILE, TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE}
"""The files of a finished trial."""


def assignment(spec: TrialSpec, gpus: float | None = 0, cpus: float = 1, **options: Any) -> Assignment:
    """An assignment on this machine's CPU, unless more is given."""
    return Assignment(spec=spec, resources=Resources(gpus=gpus, cpus=cpus), **options)


@pytest.fixture
def begin(store: Store) -> Attempt:
    """Begins an attempt on this machine's CPU, one task at a time, with frozen weights drawn on the spot."""

    def make(spec: TrialSpec, **changes: Any) -> Iterator[TrialUpdate]:
        options = {"max_group_size": 1, "gpus": 0, "cpus": 1, **changes}
        data = options.pop("data", Datasets(BASE_SETS, roots=()))
        return attempt(assignment(spec, commit="c0ffee", **options), store=store, data=data, backbones=backbone.draw)

    return make


@pytest.fixture
def with_many_resume_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume point after every update, instead of every few seconds."""
    monkeypatch.setattr(engine, "MIN_RESUME_SECONDS", 0.0)
    monkeypatch.setattr(engine, "RESUME_COST_FACTOR", 0)


@pytest.fixture
def with_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample at every event, instead of every few seconds."""
    monkeypatch.setattr(sampling, "FIRST_SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(sampling, "SAMPLE_SECONDS", 0.0)


def failing_after(num_points: int, error: BaseException) -> Callable[..., Iterator[Event]]:
    """A trial that raises an error after so many resume points."""

    def iterate(*arguments: Any, **named: Any) -> Iterator[Event]:
        seen = 0
        for event in iterate_trial(*arguments, **named):
            if seen == num_points:
                raise error
            yield event
            seen += isinstance(event, ResumePoint)

    return iterate


def row_of(store: Store, spec: TrialSpec) -> TrialRow:
    """A finished trial's row."""
    row = store.records.row(spec.trial_id)
    assert row is not None
    return row


def provenance(store: Store, spec: TrialSpec) -> Provenance:
    """Where a finished trial came from."""
    return row_of(store, spec).provenance


def rows_so_far(store: Store, spec: TrialSpec) -> list[dict[str, Any]]:
    """The `tasks` rows of a trial, finished or not, as their columns are."""
    return [row.columns() for row in store.so_far(spec.trial_id)[0]]


def test_a_trial_is_run_and_kept(store: Store, begin: Attempt, trial: Trial) -> None:
    """It reports that it is running, then that it is finished; only its record remains."""
    spec = trial(seed=3)
    updates = list(begin(spec))
    assert {update.trial_id for update in updates} == {spec.trial_id}
    assert [update.state for update in updates][-1] == "finished"
    assert {update.state for update in updates[:-1]} == {"running"}
    first = updates[0].progress
    assert first is not None
    assert (first.tasks_learned, first.num_tasks, first.step, first.num_steps) == (0, 2, 0, 5)
    assert {path.name for path in store.folder(spec.trial_id).iterdir()} == FINISHED


def test_the_trials_row_says_what_it_is(store: Store, begin: Attempt, trial: Trial) -> None:
    """Names, counts, fingerprint, spec and numerics; the accuracy is the mean of the matrix's last row."""
    spec = trial(seed=3, modulation="local")
    list(begin(spec))
    (row,) = store.records.trials([spec.trial_id]).to_pylist()
    tasks = store.records.tasks([spec.trial_id]).to_pylist()
    drawn = backbone.draw(spec.blueprint().backbone)
    expected = {
        "trial_id": spec.trial_id,
        "method": "neuromodnet",
        "variant": "modulation=local",
        "benchmark": "rotated-digits",
        "scale": "FC16",
        "seed": 3,
        "params_per_task": 64.0 + 16 + 16,  # one context a layer: 64 pixels, twice 16 hidden units
        "trained_per_task": 96,
        "stored_per_task": 99,
        "grouping": "any",
        "fingerprint": drawn.fingerprint,
        "spec": spec.canonical_json(),
        "numerics": '{"device":"cpu","group_size":1,"kernel":"onednn","threads":1}',
        "accuracy": np.mean([test["accuracy"] for test in tasks if test["tasks_learned"] == 2]),
    }
    assert {name: row[name] for name in expected} == expected
    times = [test[name] or 0.0 for test in tasks for name in ("train_seconds", "eval_seconds")]
    assert row["seconds"] == pytest.approx(sum(times))


def test_the_tasks_rows_are_the_diagonal_and_the_last_row(store: Store, begin: Attempt, trial: Trial) -> None:
    """A test of every task when it was learned, with its curve, and of every earlier task at the end, without."""
    spec = trial(num_tasks=3)
    list(begin(spec))
    rows = store.records.tasks([spec.trial_id]).to_pylist()
    assert [(row["task"], row["tasks_learned"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)]
    assert [row["train_seconds"] is None for row in rows] == [False, False, False, True, True]
    assert [len(row["curve"]) for row in rows] == [1, 1, 1, 0, 0]
    assert {row["num_test"] for row in rows} == {360}
    assert {(row["trial_id"], row["method"], row["seed"]) for row in rows} == {(spec.trial_id, "neuromodnet", 0)}
    for row in rows:
        assert 0.0 <= row["accuracy"] <= 1.0
        assert row["loss"] > 0.0
        assert all(set(point) == {"step", "loss", "accuracy"} for point in row["curve"])


@pytest.mark.parametrize(
    ("kind", "tests"),
    [
        ("stl", [(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)]),
        ("batche", [(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)]),
        ("psp", [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 3)]),
        ("mtl", [(0, 3), (1, 3), (2, 3)]),
    ],
)
def test_the_tasks_rows_are_the_tests_that_a_method_needs(
    store: Store, begin: Attempt, trial: Trial, kind: str, tests: list[tuple[int, int]]
) -> None:
    """PSP's tasks disturb each other: the whole lower triangle; MTL learns all at once: the last row.

    Each task has the time that it took once; MTL's have one curve together, which stands with the first.
    """
    spec = trial(kind=kind, num_tasks=3)
    list(begin(spec))
    rows = store.records.tasks([spec.trial_id]).to_pylist()
    assert [(row["task"], row["tasks_learned"]) for row in rows] == tests
    assert [row["task"] for row in rows if row["train_seconds"] is not None] == [0, 1, 2]
    steps = [[point["step"] for point in row["curve"]] for row in rows if row["train_seconds"] is not None]
    assert steps == ([[15], [], []] if kind == "mtl" else [[5], [5], [5]])


def measured(store: Store, spec: TrialSpec) -> tuple[dict[str, Any], dict[tuple[int, int], float]]:
    """A finished trial's row, and the accuracies of its own tests by task and tasks learned."""
    (row,) = store.records.trials([spec.trial_id]).to_pylist()
    tests = store.records.tasks([spec.trial_id]).to_pylist()
    return row, {(test["task"], test["tasks_learned"]): test["accuracy"] for test in tests}


def test_forgetting_is_measured_on_the_whole_lower_triangle(store: Store, begin: Attempt, trial: Trial) -> None:
    """PSP's record against its own tests: the best accuracy before the last task, which here is not the first one."""
    spec = trial(kind="psp", num_tasks=3, learning_rate=0.001)
    list(begin(spec))
    row, at = measured(store, spec)
    assert at[0, 2] > at[0, 1]  # else this would hold without the tests in between
    assert row["accuracy"] == pytest.approx((at[0, 3] + at[1, 3] + at[2, 3]) / 3, abs=1e-15)
    assert row["forgetting"] == pytest.approx((at[0, 2] - at[0, 3] + at[1, 2] - at[1, 3]) / 2, abs=1e-15)
    assert row["backward_transfer"] == pytest.approx((at[0, 3] - at[0, 1] + at[1, 3] - at[1, 2]) / 2, abs=1e-15)
    assert row["forgetting"] != 0.0


@pytest.mark.parametrize("kind", ["neuromodnet", "supsup", "batche", "stl"])
def test_independent_tasks_forget_exactly_nothing(store: Store, begin: Attempt, trial: Trial, kind: str) -> None:
    """Learning a task leaves the others as they are, bit for bit: 0, not about 0."""
    spec = trial(kind=kind, num_tasks=3)
    list(begin(spec))
    row, at = measured(store, spec)
    assert len({at[task, 3] for task in range(3)}) > 1  # the tasks are not all alike
    assert (row["forgetting"], row["backward_transfer"]) == (0.0, 0.0)


@pytest.mark.parametrize(("kind", "num_tasks"), [("mtl", 3), ("mtl", 1), ("psp", 1), ("supsup", 1)])
def test_what_was_not_tested_is_not_measured(
    store: Store, begin: Attempt, trial: Trial, kind: str, num_tasks: int
) -> None:
    """MTL tests nothing before the end, and one task cannot be forgotten: null, where the accuracy is known."""
    spec = trial(kind=kind, num_tasks=num_tasks)
    list(begin(spec))
    row, at = measured(store, spec)
    assert row["accuracy"] == pytest.approx(sum(at.values()) / num_tasks, abs=1e-15)
    assert (row["forgetting"], row["backward_transfer"]) == (None, None)


def test_a_validation_split_is_named_in_every_record(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of held-out training images never pass for tests, nor while the trial is learning."""
    monkeypatch.setattr(engine, "MIN_RESUME_SECONDS", 0.0)
    monkeypatch.setattr(engine, "RESUME_COST_FACTOR", 0)
    spec, tested = trial(validation=100), trial()
    updates = begin(spec)
    while store.unfinished.read_resume(spec.trial_id) is None:
        next(updates)
    assert {row.benchmark for row in store.so_far(spec.trial_id)[0]} == {"rotated-digits-validation"}
    list(updates)
    list(begin(tested))
    for table in (store.records.trials([spec.trial_id]), store.records.tasks([spec.trial_id])):
        assert set(table["benchmark"].to_pylist()) == {"rotated-digits-validation"}
    assert set(store.records.tasks([spec.trial_id])["num_test"].to_pylist()) == {100}
    assert set(store.records.tasks([tested.trial_id])["benchmark"].to_pylist()) == {"rotated-digits"}


SHARED = {"shared.layer1.weight", "shared.layer2.weight", "shared.layer3.weight"}
FACTORS = {f"layer{number}.{name}" for number in (1, 2, 3) for name in "rs"}
MODULATIONS = {f"layer{number}.{name}" for number in (1, 2, 3) for name in ("context", "strength")}


@pytest.mark.parametrize(
    ("method", "small", "weights"),
    [
        ({"kind": "mtl"}, set(), SHARED),
        ({"kind": "psp"}, set(), SHARED),
        ({"kind": "stl"}, set(), {"layer1.weight", "layer2.weight", "layer3.weight"}),
        ({"kind": "batche"}, FACTORS, SHARED),
        ({"pretrained": True}, MODULATIONS, SHARED),
        ({}, MODULATIONS, set()),
    ],
    ids=["mtl", "psp", "stl", "batche", "pretrained", "neuromodnet"],
)
def test_trained_weights_are_in_the_contexts_where_they_are_asked_for(
    begin: Attempt, trial: Trial, store: Store, *, method: dict[str, Any], small: set[str], weights: set[str]
) -> None:
    """By default a few KB a task; it changes neither the trial's identity nor any row."""
    spec = trial(**method)
    rows, banks = [], []
    for options in ({}, {"keep_weights": True}):
        list(begin(spec, **options))
        banks.append(contexts.load((store.folder(spec.trial_id) / CONTEXTS_FILE).read_bytes()))
        rows.append([stable_columns(table([spec.trial_id])) for table in (store.records.trials, store.records.tasks)])
        (store.folder(spec.trial_id) / TRIAL_FILE).unlink()
    assert [set(bank.tensors) for bank in banks] == [small, small | weights]
    assert all(bank.trial_id == spec.trial_id for bank in banks)
    assert all(before.equals(after) for before, after in zip(*rows, strict=True))


def test_an_attempt_passes_on_how_to_run_the_trial(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest group, whole cores as threads, and whether weights are kept; also to a resumed trial."""
    seen: list[tuple[Any, ...]] = []

    def iterate(*arguments: Any, **named: Any) -> Iterator[Event]:
        allowed = named["allowance"]
        seen.append((allowed.max_group_size, allowed.threads, named["keep_weights"]))
        raise resume.ResumeError("resume-point-unusable", "...") if named.get("resume_from") else OSError("...")

    monkeypatch.setattr(attempt_module, "iterate_trial", iterate)
    list(begin(trial(), max_group_size=None, cpus=0.25))
    list(begin(trial(), max_group_size=3, cpus=2.5, keep_weights=True))
    assert seen == [(None, 1, False), (3, 2, True)]
    store.unfinished.write_resume(trial().trial_id, b"...", [], [])
    list(begin(trial(), max_group_size=3, keep_weights=True))
    assert seen[2:] == [(3, 1, True)] * 2  # what was there could not be used, and the trial began anew


def test_the_tasks_rows_tell_when(store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each point of a curve and each test in seconds since 1970, in the order in which they were made."""
    monkeypatch.setattr(groups, "CURVE_EVERY", 2)
    spec = trial()
    started = time.time()
    list(begin(spec))
    rows = store.records.tasks([spec.trial_id]).to_pylist()
    assert [[point["step"] for point in row["curve"]] for row in rows] == [[2, 4, 5], [2, 4, 5], []]
    assert [len(row["curve_times"]) for row in rows] == [3, 3, 0]
    times = [started, *(moment for row in rows for moment in (*row["curve_times"], row["tested"])), time.time()]
    assert times == sorted(times)


def test_a_record_says_where_it_came_from(store: Store, begin: Attempt, trial: Trial) -> None:
    """Attempts, machine, processor, versions and commit: enough to trace a number a year later."""
    spec = trial()
    list(begin(spec))
    found = provenance(store, spec)
    assert found.host == socket.gethostname()
    assert found.commit == "c0ffee"
    assert found.python == platform.python_version()
    assert found.versions == {name: metadata.version(name) for name in RECORDED_VERSIONS}
    assert {"crwn", "torch", "numpy", "ray"} <= set(found.versions)
    assert found.device == torch.backends.cpu.get_cpu_capability()
    assert found.peak_memory_bytes >= found.held_memory_bytes > 10_000_000
    assert found.predicted_memory_bytes > found.held_memory_bytes
    assert found.train_seconds > 0
    tests = pq.read_table(store.folder(spec.trial_id) / TASKS_FILE).to_pylist()
    assert found.train_seconds_per_task == statistics.median(
        row["train_seconds"] for row in tests if row["train_seconds"]
    )
    (only,) = found.attempts
    assert set(only.content()) == {"started", "host", "pid", "gpus", "from", "reached", "versions", "code"}
    assert only.versions == {**found.versions, "python": found.python}
    assert only.code == found.code == code_of(spec.method)
    assert found.code_changes == ""
    assert only.began_at == Position()
    assert only.started <= found.finished
    assert only.started.endswith("+00:00")


def test_equal_trials_leave_equal_files(store: Store, begin: Attempt, trial: Trial) -> None:
    """Running a trial again gives the same contexts and rows, except for times and places."""
    spec = trial()
    list(begin(spec))
    folder = store.folder(spec.trial_id)
    before = [
        stable_columns(table) for table in (store.records.trials([spec.trial_id]), store.records.tasks([spec.trial_id]))
    ]
    contexts = (folder / CONTEXTS_FILE).read_bytes()
    (folder / "trial.parquet").unlink()
    list(begin(spec))
    assert (folder / CONTEXTS_FILE).read_bytes() == contexts
    after = [
        stable_columns(table) for table in (store.records.trials([spec.trial_id]), store.records.tasks([spec.trial_id]))
    ]
    assert [table.equals(other) for table, other in zip(before, after, strict=True)] == [True, True]


def test_a_finished_trial_is_not_run_again(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported as finished at once; leftovers of a killed writer are removed."""
    spec = trial()
    list(begin(spec))
    folder = store.folder(spec.trial_id)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    store.unfinished.write_attempts(spec.trial_id, [kept.Attempt()])
    (folder / RESUME_FILE).write_bytes(b"...")
    monkeypatch.setattr(attempt_module, "iterate_trial", failing_after(0, AssertionError("it was run")))
    assert list(begin(spec)) == [TrialUpdate(trial_id=spec.trial_id, state="finished")]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_trial_that_fails_is_reported_and_explained(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user gets one line; type, message and traceback are stored; nothing is raised."""
    spec = trial()
    error = ZeroDivisionError("first line\nsecond line")
    monkeypatch.setattr(attempt_module, "iterate_trial", failing_after(0, error))
    *_, last = begin(spec)
    assert last == TrialUpdate(trial_id=spec.trial_id, state="failed", error="ZeroDivisionError: first line")
    (only,) = store.unfinished.attempts(spec.trial_id)
    error = only.error
    assert error is not None
    assert (error.type, error.message) == ("ZeroDivisionError", "first line\nsecond line")
    assert error.traceback is not None
    assert error.traceback.startswith("Traceback (most recent call last)")
    assert "in iterate\n" in error.traceback
    assert error.traceback.endswith("ZeroDivisionError: first line\nsecond line\n")
    assert not store.is_finished(spec.trial_id)


def test_diverging_training_is_a_failure_with_advice(store: Store, begin: Attempt, trial: Trial) -> None:
    """A loss that is no number ends the trial; the message names the task and what to lower."""
    spec = trial(initial_strength=1e30)
    *_, last = begin(spec)
    assert last.state == "failed"
    assert last.error is not None
    assert "task 0: " in last.error
    assert "learning rate" in last.error
    assert not store.is_finished(spec.trial_id)


def test_missing_data_fails_the_trial(store: Store, trial: Trial) -> None:
    """On a machine without the files, the trial's error says so, and the driver continues."""
    spec = trial()
    data = Datasets({"digits": BASE_SETS["mnist"]}, roots=())
    *_, last = attempt(assignment(spec), store=store, data=data, backbones=backbone.draw)
    assert last.state == "failed"
    assert all(fact in (last.error or "") for fact in ("--data-root", "$CRWN_DATA"))


@dataclass
class Surroundings:
    """What an attempt finds in its process."""

    torch: str = "2.14.1"
    python: str = "3.11.7"
    method: str | None = "0a"
    crwn: str | None = "0b"
    results_version: int = 1

    @property
    def code(self) -> Code:
        return Code(method=self.method, crwn=self.crwn, results_version=self.results_version)


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the attempts that begin from now on find other code and versions in their process."""
    found = dict(attempt_module.versions())

    def change(**changes: Any) -> None:
        made = Surroundings(**changes)
        monkeypatch.setattr(attempt_module, "code_of_trial", lambda _: made.code)
        monkeypatch.setattr(attempt_module, "versions", lambda: {**found, "torch": made.torch})
        monkeypatch.setattr(platform, "python_version", lambda: made.python)

    return change


@pytest.mark.usefixtures("with_many_resume_points")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"python": "3.11.9"}, ""),
        ({"method": None, "crwn": None}, ""),
        ({"torch": "2.15.0"}, "torch 2.14.1 -> 2.15.0"),
        ({"python": "3.13.0"}, "Python 3.11 -> 3.13"),
        ({"method": "1a", "crwn": "1b"}, "other code of the method, other code of crwn"),
        ({"crwn": "1b"}, "other code of crwn"),
        ({"results_version": 2}, "results version 1 -> 2"),
    ],
)
def test_going_on_under_other_code_is_said_and_recorded(
    *,
    store: Store,
    begin: Attempt,
    trial: Trial,
    monkeypatch: pytest.MonkeyPatch,
    under: Callable[..., None],
    changes: dict[str, Any],
    expected: str,
) -> None:
    """In a line, once, and in the record, which has what every attempt found; where all is the same, nothing is."""
    spec = trial()
    under()
    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "iterate_trial", failing_after(3, OSError("stopped")))
        assert [update.note for update in begin(spec) if update.note] == []
    under(**changes)
    notes = [update.note for update in begin(spec) if update.note]
    name = f"neuromodnet FC16, r-digits, seed 0 ({spec.trial_id})"
    assert notes == ([f"{name} resumes with different code: {expected}; tables mark its result"] if expected else [])
    found = provenance(store, spec)
    assert found.code_changes == expected
    assert [made.code for made in found.attempts] == [Surroundings().code, Surroundings(**changes).code]
    assert [made.versions["torch"] for made in found.attempts if made.versions] == [
        Surroundings().torch,
        Surroundings(**changes).torch,
    ]
    assert found.code == Surroundings(**changes).code


@pytest.mark.usefixtures("with_many_resume_points")
def test_a_trial_that_begins_anew_is_of_one_code(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch, under: Callable[..., None]
) -> None:
    """As where it ended before its first resume point, or that was damaged: nothing of the earlier attempt is in it."""
    for spec, num_points in ((trial(seed=1), 0), (trial(seed=2), 2)):
        under()
        with monkeypatch.context() as patch:
            patch.setattr(attempt_module, "iterate_trial", failing_after(num_points, OSError("stopped")))
            list(begin(spec))
        if num_points:
            store.unfinished.write_resume(spec.trial_id, b"damaged", [], [])
        under(torch="2.15.0", crwn="1b")
        assert [update.note for update in begin(spec) if update.note] == []
        assert provenance(store, spec).code_changes == ""


@pytest.mark.usefixtures("with_many_resume_points")
def test_the_next_attempt_goes_on_where_the_last_one_was(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the resume point, inside a task; the record tells of both attempts; the results are those of one run."""
    spec = trial(num_tasks=3)
    list(begin(spec))
    folder = store.folder(spec.trial_id)
    whole = (
        store.records.trials([spec.trial_id]),
        store.records.tasks([spec.trial_id]),
        (folder / CONTEXTS_FILE).read_bytes(),
    )
    (folder / "trial.parquet").unlink()

    with monkeypatch.context() as patch:
        # Points come after every update and after every task: the ninth is after three updates of the second task.
        patch.setattr(attempt_module, "iterate_trial", failing_after(9, OSError("the network is gone")))
        *_, last = begin(spec)
    assert last.state == "failed"
    (failed,) = store.unfinished.attempts(spec.trial_id)
    assert failed.reached == Position(tasks_learned=1, step=3)
    assert store.unfinished.read_resume(spec.trial_id) is not None

    updates = list(begin(spec))
    first = updates[0].progress
    assert first is not None
    assert (first.tasks_learned, first.step) == (1, 3)
    assert updates[-1].state == "finished"
    attempts = provenance(store, spec).attempts
    assert [made.began_at for made in attempts] == [Position(), Position(tasks_learned=1, step=3)]
    assert [made.error is not None for made in attempts] == [True, False]
    assert stable_columns(store.records.trials([spec.trial_id])).equals(stable_columns(whole[0]))
    assert stable_columns(store.records.tasks([spec.trial_id])).equals(stable_columns(whole[1]))
    assert (folder / CONTEXTS_FILE).read_bytes() == whole[2]
    assert {path.name for path in folder.iterdir()} == FINISHED


@pytest.fixture
def interrupted(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch, with_many_resume_points: None
) -> TrialSpec:
    """A trial of three tasks of five updates that failed after three updates of the second task.

    Curves have points at 2, 4 and 5.
    """
    monkeypatch.setattr(groups, "CURVE_EVERY", 2)
    spec = trial(num_tasks=3)
    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "iterate_trial", failing_after(9, OSError("the network is gone")))
        list(begin(spec))
    return spec


def test_an_unfinished_trial_has_its_rows_so_far(store: Store, interrupted: TrialSpec) -> None:
    """The tests up to the resume point; of the task being learned its names and its curve, and null for its test."""
    first, second = rows_so_far(store, interrupted)
    assert (first["task"], first["tasks_learned"], len(first["curve"])) == (0, 1, 3)
    of_other_scenarios = {"update", "answered", "accuracy_told"}
    assert {name for name, value in first.items() if value is None} == of_other_scenarios
    names = ("trial_id", "method", "variant", "benchmark", "scale", "seed")
    told = {*names, "task", "curve", "curve_times"}
    assert {name for name, value in second.items() if value is None} == set(TASKS_SCHEMA.names) - told
    assert [second[name] for name in names] == [first[name] for name in names]
    assert (second["task"], [point["step"] for point in second["curve"]]) == (1, [2])
    assert len(second["curve_times"]) == 1


def test_what_was_made_before_a_stop_is_kept_as_it_was(store: Store, begin: Attempt, interrupted: TrialSpec) -> None:
    """The record has the rows of the first attempt, including times, and continues the curve that was begun."""
    first, second = rows_so_far(store, interrupted)
    resumed = time.time()
    list(begin(interrupted))
    rows = store.records.tasks([interrupted.trial_id]).to_pylist()
    assert len(rows) == 5
    assert rows[0] == first
    assert rows[1]["curve"][:1] == second["curve"]
    assert rows[1]["curve_times"][:1] == second["curve_times"]
    later = [*rows[1]["curve_times"][1:], *rows[2]["curve_times"], *(row["tested"] for row in rows[1:])]
    assert len(later) == 2 + 3 + 4
    assert min(later) > resumed > max(first["tested"], *second["curve_times"])


@pytest.mark.parametrize("killed_before", [RESUME_FILE, TASKS_FILE, SYSTEM_FILE, ATTEMPTS_FILE])
def test_a_kill_between_a_resume_point_and_its_rows_loses_nothing(
    store: Store, begin: Attempt, interrupted: TrialSpec, monkeypatch: pytest.MonkeyPatch, killed_before: str
) -> None:
    """Whichever file is missing, the next attempt resumes, and its record has every row once, the first unchanged.

    The second attempt is killed at its first resume point, after the next update, which ends a block of the curve.
    """
    before = rows_so_far(store, interrupted)
    replace, is_resumed = Path.replace, False

    def kill(path: Path, target: Path) -> Path:
        nonlocal is_resumed
        is_resumed |= target.name == RESUME_FILE
        if is_resumed and target.name == killed_before:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            list(begin(interrupted))
    between = rows_so_far(store, interrupted)
    assert between[0] == before[0]
    assert len(between[1]["curve"]) == (1 if killed_before in (RESUME_FILE, TASKS_FILE) else 2)

    (started, *_, last) = begin(interrupted)
    assert started.progress is not None
    assert (started.progress.tasks_learned, started.progress.step) == (1, 3 if killed_before == RESUME_FILE else 4)
    assert last.state == "finished"
    rows = store.records.tasks([interrupted.trial_id]).to_pylist()
    assert [(row["task"], row["tasks_learned"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)]
    assert rows[0] == before[0]
    assert [point["step"] for point in rows[1]["curve"]] == [2, 4, 5]
    shown = between[1]["curve_times"]
    assert rows[1]["curve_times"][: len(shown)] == shown


def test_the_end_of_a_trial_is_always_a_sample(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends before the first is due has that one; without a GPU its columns are null."""
    monkeypatch.setattr(sampling, "FIRST_SAMPLE_SECONDS", 1e9)
    spec = trial()
    list(begin(spec))
    tasks, system = store.so_far(spec.trial_id)
    (only,) = system
    assert only.trial_id == spec.trial_id
    assert max(test.tested or 0 for test in tasks) <= only.time <= time.time()
    assert {name for name, value in only.columns().items() if value is None} == {
        "gpu_percent",
        "gpu_memory_bytes",
        "gpu_power_watts",
    }


@pytest.mark.usefixtures("with_many_samples")
def test_samples_are_taken_while_a_trial_runs(store: Store, begin: Attempt, trial: Trial) -> None:
    """Its events are the opportunities: at least its start, its progress and its end."""
    spec = trial()
    started = time.time()
    list(begin(spec))
    times = [sample.time for sample in store.so_far(spec.trial_id)[1]]
    assert len(times) >= 3
    assert [started, *times] == sorted([started, *times])


@pytest.mark.usefixtures("with_many_samples")
def test_the_next_attempt_keeps_earlier_samples(store: Store, begin: Attempt, interrupted: TrialSpec) -> None:
    """Those up to the resume point stand before its own, as they were."""
    earlier = store.so_far(interrupted.trial_id)[1]
    assert len(earlier) >= 9
    resumed = time.time()
    list(begin(interrupted))
    system = store.so_far(interrupted.trial_id)[1]
    assert system[: len(earlier)] == earlier
    assert len(system) > len(earlier)
    assert all(sample.time > resumed for sample in system[len(earlier) :])


@pytest.mark.usefixtures("with_many_samples")
@pytest.mark.parametrize("damage", ["empty", "cut", "foreign", "newer", "missing"])
def test_damaged_samples_do_not_stop_an_attempt(
    store: Store, begin: Attempt, interrupted: TrialSpec, damage: str
) -> None:
    """Nothing depends on them: the trial resumes from its resume point, with the samples from there on."""
    path = store.folder(interrupted.trial_id) / SYSTEM_FILE
    content = path.read_bytes()
    if damage in ("empty", "cut"):
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    elif damage == "missing":
        path.unlink()
    else:
        pq.write_table(pa.table({"x": [1]}, metadata={"crwn.version": "2.0"} if damage == "newer" else None), path)
    resumed = time.time()
    started, *_, last = begin(interrupted)
    assert started.progress is not None
    assert (started.progress.tasks_learned, started.progress.step) == (1, 3)
    assert last.state == "finished"
    times = [sample.time for sample in store.so_far(interrupted.trial_id)[1]]
    assert len(times) >= 1
    assert min(times) > resumed


@pytest.mark.usefixtures("with_many_resume_points")
def test_a_trial_that_is_stopped_keeps_its_resume_point(store: Store, begin: Attempt, trial: Trial) -> None:
    """Stopping is no failure: no error is stored, and the resume point is kept."""
    spec = trial()
    with closing(begin(spec)) as updates:  # type: ignore[type-var]  # a generator, which can be closed
        next(updates)
        while store.unfinished.read_resume(spec.trial_id) is None:
            next(updates)
    (only,) = store.unfinished.attempts(spec.trial_id)
    assert only.error is None
    assert only.reached is not None
    assert only.reached.step >= 1
    assert list(begin(spec))[-1].state == "finished"
    assert len(provenance(store, spec).attempts) == 2


@pytest.mark.usefixtures("with_many_resume_points")
def test_an_interruption_is_not_taken_for_a_failure(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches the caller; the trial is neither finished nor failed."""
    spec = trial()
    monkeypatch.setattr(attempt_module, "iterate_trial", failing_after(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        list(begin(spec))
    (only,) = store.unfinished.attempts(spec.trial_id)
    assert only.error is None
    assert store.unfinished.read_resume(spec.trial_id) is not None


@pytest.mark.usefixtures("with_many_resume_points")
@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "of another trial"])
def test_a_resume_point_that_cannot_be_used_is_set_aside(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """The trial starts again, as do its rows, and succeeds; its record says that a point was discarded."""
    spec = trial(seed=1)
    begun = trial(seed=2) if damage == "of another trial" else spec
    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "iterate_trial", failing_after(3, OSError("stopped")))
        list(begin(begun))
    content = store.unfinished.read_resume(begun.trial_id)
    assert content is not None
    damaged = {"empty": b"", "cut": content[:-20], "changed": b"\xff" * 8 + content[8:], "of another trial": content}
    tasks, system = store.so_far(begun.trial_id)
    assert tasks
    store.unfinished.write_resume(spec.trial_id, damaged[damage], tasks, system)
    updates = begin(spec)
    next(updates)
    assert store.unfinished.read_resume(spec.trial_id) is None  # or the next attempt would stumble over it again
    assert [len(table) for table in store.so_far(spec.trial_id)] == [0, 0]
    *_, ended = updates
    assert ended.state == "finished"
    last = provenance(store, spec).attempts[-1]
    assert last.began_at == Position()
    assert "resume point" in (last.discarded_resume_point or "")
    assert not (store.folder(spec.trial_id) / RESUME_FILE).exists()


def test_every_attempt_is_counted(store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that fails twice and then works has three attempts in its record."""
    spec = trial()
    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "iterate_trial", failing_after(0, OSError("no")))
        for _ in range(2):
            list(begin(spec))
    assert len(store.unfinished.attempts(spec.trial_id)) == 2
    list(begin(spec))
    found = provenance(store, spec).attempts
    assert [made.error is not None for made in found] == [True, True, False]
    assert not (store.folder(spec.trial_id) / ATTEMPTS_FILE).exists()


def test_a_record_that_cannot_be_written_is_a_failure(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial is not finished, and its error says what was in the way."""
    spec = trial()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Records, "write", fail)
    *_, last = begin(spec)
    assert (last.state, last.error) == ("failed", "OSError: no space left on device")
    assert not store.is_finished(spec.trial_id)


def test_a_disk_on_which_nothing_can_be_written_fails_the_trial(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the error can be kept; it is reported all the same, and the other trials have their turn."""
    spec = trial()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("orchestrator.store.folder.LocalFiles.write", fail)
    (only,) = begin(spec)
    assert only == TrialUpdate(trial_id=spec.trial_id, state="failed", error="OSError: no space left on device")
    assert not store.is_finished(spec.trial_id)


def test_a_store_that_is_lost_fails_the_trial_as_such(store: Store, trial: Trial, tmp_path: Path) -> None:
    """Nothing is written at its place, and its folder has what was written before; so every other trial would fail."""
    spec, run = trial(), store.driven()
    data = Datasets(BASE_SETS, roots=())
    updates = attempt(assignment(spec), store=run, data=data, backbones=backbone.draw)
    assert not next(updates).is_lost
    store.root.rename(tmp_path / "renamed")
    *_, last = updates
    assert (last.state, last.is_lost) == ("failed", True)
    assert not store.root.exists()
    assert len(Store(tmp_path / "renamed").unfinished.attempts(spec.trial_id)) == 1


def test_a_gpu_that_torch_cannot_use_is_noted(store: Store, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial runs on the CPU, and the user is told."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = Datasets(BASE_SETS, roots=())
    first, *_, last = attempt(assignment(trial(), gpus=0.5), store=store, data=data, backbones=backbone.draw)
    assert first.note is not None
    assert "0.5 GPU" in first.note
    assert ON_THE_CPU in first.note
    assert last.state == "finished"


def test_a_group_that_memory_did_not_allow_is_marked(
    store: Store, begin: Attempt, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is told, and the record has the smaller group and the allocator's message."""
    step, sizes = engine.Engine._update, []

    def run_out(learner: engine.Engine, group: Any, *rest: Any, **named: Any) -> None:
        sizes.append(len(group.segment.tasks))
        if len(group.segment.tasks) > 1:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        step(learner, group, *rest, **named)

    monkeypatch.setattr(engine.Engine, "_update", run_out)
    spec = trial()
    updates = list(begin(spec, max_group_size=2))
    assert updates[-1].state == "finished"
    assert [update.note for update in updates if update.note] == [
        "memory ran out; from now on, tasks are learned 1 at once"
    ]
    assert row_of(store, spec).numerics.group_size == 1
    (told,) = provenance(store, spec).attempts
    assert told.out_of_memory == (kept.OutOfMemory(group_size=1, step=0, error="Tried to allocate 2.00 GiB"),)
    assert sizes == [2, *[1] * (len(sizes) - 1)]


@pytest.mark.usefixtures("with_many_resume_points", "with_many_samples")
def test_a_clock_that_goes_backwards_changes_no_number(
    begin: Attempt, store: Store, tmp_path: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a machine's time is set: the record but for its times is the same, and MLflow is shown as many points."""
    spec = trial(updates_per_task=60)
    steady = Store(tmp_path / "steady")
    steady.create()
    list(attempt(assignment(spec), store=steady, data=Datasets(BASE_SETS, ()), backbones=backbone.draw))
    hours_back = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1.75e9 - 3600.0 * next(hours_back))
    list(begin(spec, max_group_size=None))
    for rows in (Records.trials, Records.tasks):
        assert stable_columns(rows(store.records, [spec.trial_id])) == stable_columns(
            rows(steady.records, [spec.trial_id])
        )
    tested = store.records.tasks([spec.trial_id])["tested"].to_pylist()
    assert tested != sorted(tested)
    cell = ManifestCell(method="m", variant="", scale="FC16", benchmark="b", trials={})
    shown, expected = (projection.trial_content(each, spec.trial_id, "done", cell, 0) for each in (store, steady))
    assert shown is not None
    assert expected is not None

    def numbers(points: Iterable[projection.Point]) -> list[tuple[str, int]]:
        return sorted((p.name, p.step) for p in points if not p.name.startswith("system/"))

    assert numbers(shown.points) == numbers(expected.points)
