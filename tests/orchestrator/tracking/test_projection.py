"""What MLflow shows of a store, as pure functions of the store, without MLflow."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.methods import METHODS
from crwn.metrics import average_accuracy
from crwn.spec import DEFAULT_UPDATES, HASH_PREFIX, TrainingSpec
from crwn.testing import finished_record, tiny_trial
from crwn.trial_spec import TrialSpec
from orchestrator.store.attempts import Attempt
from orchestrator.store.json_fields import Fields, canonical
from orchestrator.store.manifests import ManifestCell
from orchestrator.store.provenance import Provenance, RecordedNumerics
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.rows import Sample, TestRow
from orchestrator.store.store import Store, TrialState
from orchestrator.tracking import projection
from orchestrator.tracking.projection import Point, RunContent
from tests.methods import CASES

Trial = Callable[..., TrialSpec]


START = 1_750_000_000
STARTED = "2025-06-15T15:06:40+00:00"
FINISHED = "2025-06-15T16:06:40+00:00"
CELL = ManifestCell(method="own name", variant="wide", scale="FC16", benchmark="r-digits", trials={})
SEED = 3
BEGINNING = {"tasks_learned": 0, "step": 0}

SAMPLE = {
    "trial_id": "a",
    "time": START + 0.5,
    "process_cpu_percent": 98.5,
    "process_memory_bytes": 3.0 * 2**20,
    "machine_cpu_percent": 51.0,
    "machine_memory_bytes": 5.0 * 2**20,
    "gpu_percent": None,
    "gpu_memory_bytes": None,
    "gpu_power_watts": None,
}
GPU_SAMPLE = {
    **SAMPLE,
    "time": START + 10.5,
    "gpu_percent": 40.0,
    "gpu_memory_bytes": 2.0**21,
    "gpu_power_watts": 250.5,
}


def attempt(spec: TrialSpec | None = None, pid: int = 1, **changes: Any) -> dict[str, Any]:
    """An attempt as an unfinished trial's file has it."""
    own = {} if spec is None else {"spec": json.loads(spec.canonical_json()), "grouping": "any"}
    return {"started": STARTED, "host": "here", "pid": pid, **own, "from": BEGINNING, **changes}


def rows_after(spec: TrialSpec, updates: int, every: int) -> list[dict[str, Any]]:
    """The rows that a trial has after so many updates over all tasks, a point of a curve after every few.

    An update takes a second and so does a test; task t reaches the accuracy (t + 1) / 8, at most 1, and the loss t + 1.
    """
    num_tasks, a_task = spec.benchmark.problem().num_tasks, spec.training.updates_per_task
    rows = []
    for task in range(num_tasks):
        done = min(updates - task * a_task, a_task)
        steps = [step for step in range(1, done + 1) if step % every == 0 or step == a_task]
        begin = START + task * (a_task + 1)
        curve = {
            "curve": [{"step": step, "loss": 1 / (task + step), "accuracy": step / a_task} for step in steps],
            "curve_times": [float(begin + step) for step in steps],
        }
        if done == a_task:
            rows.append({**a_test(task, task + 1, min(1.0, (task + 1) / 8), begin + done + 1.0), **curve})
        elif done > 0:
            rows.append({"task": task, **curve})
    return rows


def a_test(task: int, tasks_learned: int, accuracy: float, time: float | None) -> dict[str, Any]:
    """A row of a test without a curve."""
    return {
        "task": task,
        "tasks_learned": tasks_learned,
        "accuracy": accuracy,
        "loss": task + 1.0,
        "num_test": 360,
        "eval_seconds": 0.125,
        "tested": time,
        "curve": [],
        "curve_times": [],
    }


def rows_finished(spec: TrialSpec, every: int = 5) -> list[dict[str, Any]]:
    """All rows of a finished trial: every task once when it was learned, and all but the last once more at the end."""
    num_tasks, a_task = spec.benchmark.problem().num_tasks, spec.training.updates_per_task
    rows = rows_after(spec, num_tasks * a_task, every)
    return rows + [a_test(task, num_tasks, (task + 1) / 8, START + 3000.0 + task) for task in range(num_tasks - 1)]


def id_of(spec: Mapping[str, Any]) -> str:
    """The id of the trial with these settings."""
    return hashlib.sha256(HASH_PREFIX + canonical(spec).encode()).hexdigest()[:16]


def rows_of(spec: TrialSpec, rows: Iterable[Mapping[str, Any]]) -> list[TestRow]:
    """Rows of a trial, without its names, as the store has them."""
    names = finished_record(spec).tasks[0].columns()
    identity = {name: names[name] for name in ("trial_id", "method", "variant", "benchmark", "scale", "seed")}
    return [TestRow.read({**identity, **row}) for row in rows]


def samples_of(trial_id: str, rows: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Samples of a trial as the store has them."""
    return [Sample.read({**row, "trial_id": trial_id}) for row in rows]


def attempts_of(*attempts: Mapping[str, Any]) -> list[Attempt]:
    """Attempts as the store has them."""
    return [Attempt.read(Fields(dict(one))) for one in attempts]


@pytest.fixture
def write_finished(store: Store) -> Callable[..., None]:
    """Puts a finished trial into the store; all of its record can be changed."""

    def write(
        spec: TrialSpec,
        *,
        tests: Sequence[Mapping[str, Any]] | None = None,
        system: Sequence[Mapping[str, Any]] = (),
        provenance: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        known = {"attempts": [attempt()], "finished": FINISHED, "host": "here"} if provenance is None else provenance
        made = finished_record(spec)
        rows = rows_of(spec, rows_finished(spec) if tests is None else tests)
        last = {row.task: row.accuracy for row in rows if row.accuracy is not None}
        row = dataclasses.replace(
            made.trial,
            **{
                "accuracy": average_accuracy([last[task] for task in sorted(last)]),
                "provenance": Provenance.from_json(json.dumps(known)),
                **changes,
            },
        )
        system = samples_of(spec.trial_id, system)
        store.records.write(spec.trial_id, dataclasses.replace(made, trial=row, tasks=rows, system=system))

    return write


@pytest.fixture
def write_begun(store: Store) -> Callable[..., None]:
    """Puts an unfinished trial into the store."""

    def write(
        *attempts: Mapping[str, Any],
        tests: Sequence[Mapping[str, Any]] = (),
        system: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        said = attempts[-1].get("spec")
        trial_id = tiny_trial().trial_id if said is None else id_of(said)
        store.unfinished.write_attempts(trial_id, attempts_of(*attempts))
        rows = [dataclasses.replace(row, trial_id=trial_id) for row in rows_of(tiny_trial(), tests)]
        store.unfinished.write_resume(trial_id, b"a resume point", rows, samples_of(trial_id, system))

    return write


def only(store: Store) -> str:
    """The one trial that is there."""
    (folder,) = (store.root / "trials").iterdir()
    return folder.name


def content_of(store: Store, state: TrialState = "done") -> RunContent:
    content = projection.trial_content(store, only(store), state, CELL, SEED)
    assert content is not None
    return content


def series(content: RunContent, name: str) -> list[tuple[int, float, float]]:
    """A metric's points: step, value, seconds since the trial began."""
    return [(p.step, p.value, p.time / 1000 - START) for p in content.points if p.name == name]


# What a trial is called


def test_runs_are_named_as_the_sweep_names_trials() -> None:
    """A part that is empty leaves no gap in the name, and one that is too long for MLflow loses its middle."""
    cell = ManifestCell(method="b", variant="", scale="FC16", benchmark="r", trials={})
    assert projection.run_name(cell, 10) == "b FC16 r, seed 10"
    assert projection.run_name(dataclasses.replace(cell, variant="x y"), 0) == "b x y FC16 r, seed 0"
    long = projection.run_name(dataclasses.replace(cell, method="m" * 300), 7)
    assert len(long) == 250
    assert long.endswith(" FC16 r, seed 7")


# Params


def test_params_are_the_spec_under_flat_names(trial: Trial) -> None:
    """First what a trial is by its usual names, then every setting by its place, numbers as JSON has them."""
    params = projection.params(RecordedSpec.of(trial(seed=3, weight_gain=0.1)))
    assert params == {
        "method": "neuromodnet",
        "benchmark": "r-digits",
        "benchmark.kind": "rotated",
        "scale": "FC16",
        "seed": "3",
        "method.context_high": "1.0",
        "method.context_low": "-1.0",
        "method.initial_strength": "1.0",
        "method.modulation": "local+global",
        "method.weight_gain": "0.1",
        "benchmark.base": "digits",
        "benchmark.num_tasks": "2",
        "benchmark.step_degrees": "10.0",
        "training.batch_size": "128",
        "training.dtype": "float32",
        "training.learning_rate": "0.01",
        "training.optimizer": "rmsprop",
        "training.updates_per_task": "5",
    }
    assert list(params)[:4] == ["method", "benchmark", "benchmark.kind", "scale"]


@pytest.mark.parametrize("kind", METHODS)
def test_no_setting_of_any_method_is_left_out(kind: str) -> None:
    """The spec can be put together again from its params alone."""
    spec = json.loads(CASES[kind].trial().canonical_json())
    params = projection.params(RecordedSpec(spec))
    rebuilt: dict[str, Any] = {"scale": params["scale"], "seed": int(params["seed"])}
    for part in ("method", "benchmark", "training"):
        rebuilt[part] = {"kind": params[part]} if part == "method" else {}
        for name, text in params.items():
            if name.startswith(f"{part}."):
                setting = name.removeprefix(f"{part}.")
                rebuilt[part][setting] = text if isinstance(spec[part][setting], str) else json.loads(text)
    assert rebuilt == spec


def test_a_setting_that_is_longer_than_mlflow_takes_is_cut(trial: Trial) -> None:
    """A list of thousands of numbers cannot keep a trial out of MLflow."""
    spec = json.loads(trial().canonical_json())
    spec["method"]["layers"] = list(range(5000))
    params = projection.params(RecordedSpec(spec))
    assert len(params["method.layers"]) == projection.MAX_PARAM
    assert params["method.layers"].startswith("[0, 1, 2")


def test_a_trial_without_a_spec_has_no_params() -> None:
    """An unfinished trial of an older store does not say what it is."""
    assert projection.params(None) == {}


def test_a_trial_shows_its_params_from_the_first_attempt_on(
    store: Store, trial: Trial, write_begun: Callable[..., None], write_finished: Callable[..., None]
) -> None:
    """MLflow takes a param once, so they are the same while it runs and when it is finished."""
    spec = trial()
    write_begun(attempt(spec))
    begun = content_of(store, "running").params
    write_finished(spec)
    assert begun == content_of(store).params == projection.params(RecordedSpec.of(spec))


# Points of tests and curves


def test_accuracy_follows_the_tasks_learned(store: Store, trial: Trial, write_finished: Callable[..., None]) -> None:
    """Each value is the mean over the tasks so far, and the last one the table's, to the last digit, at the end."""
    write_finished(trial(num_tasks=3))
    assert series(content_of(store), "accuracy") == [(1, 1 / 8, 6), (2, 1.5 / 8, 12), (3, 2 / 8, 3600)]


@pytest.mark.parametrize("grouping", ["one", "all", None])
def test_accuracy_is_shown_where_it_is_known_if_tasks_touch_each_other(
    store: Store, trial: Trial, write_finished: Callable[..., None], grouping: str | None
) -> None:
    """What became of the first task after the second was not tested; of an older record it is not known either."""
    write_finished(trial(num_tasks=3), grouping=grouping, independent=None)
    assert series(content_of(store), "accuracy") == [(1, 1 / 8, 6), (3, 0.25, 3600)]


def test_accuracy_falls_as_tasks_come_where_they_were_tested_again(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """The mean over the tasks so far, when the last of its tests was made: .125, then (0 + .25)/2."""
    spec = trial(num_tasks=3)
    tests = [*rows_finished(spec), a_test(0, 2, 0.0, START + 13.0)]
    write_finished(spec, tests=tests, grouping="one", independent=False, accuracy=0.25)
    assert series(content_of(store), "accuracy") == [(1, 1 / 8, 6), (2, 1 / 8, 13), (3, 0.25, 3600)]


def test_a_stream_is_shown_by_update(store: Store, write_finished: Callable[..., None]) -> None:
    """Its accuracy after each update at which it was tested, its curve as it came, and no matrix."""
    spec = tiny_trial("finetune", benchmark=TurningSpec(base="digits"), updates_per_task=DEFAULT_UPDATES)
    end = spec.num_updates()
    tests = [
        {**a_test(task, 0, accuracy, START + update), "update": update}
        for update, accuracy in ((4, 0.25), (end, 0.75))
        for task in range(2)
    ]
    tests[2]["curve"] = [{"step": step, "loss": 1.0, "accuracy": 0.5} for step in (4, end)]
    write_finished(spec, tests=tests, accuracy=0.75)
    content = content_of(store)
    assert series(content, "accuracy") == [(4, 0.25, 4), (end, 0.75, 3600)]
    assert series(content, "task/final_accuracy") == [(1, 0.75, end), (2, 0.75, end)]
    assert series(content, "task/accuracy") == []
    assert [step for step, _, _ in series(content, "train/loss")] == [4, end]
    assert content.tags["progress"] == f"{end}/{end} updates tested"
    assert "accuracy_matrix.csv" not in projection.artifacts(store, only(store), "a title")


def test_curves_follow_each_other_where_epochs_decide_how_long_they_are(
    store: Store, write_finished: Callable[..., None]
) -> None:
    """Groups of classes have unlike numbers of images: the second task's curve begins where the first one's ended."""
    benchmark = SequentialSpec(base="digits")
    first, second, *_ = benchmark.problem().segment_sizes
    spec = dataclasses.replace(
        tiny_trial("finetune", benchmark=benchmark),
        training=TrainingSpec(learning_rate=0.1, epochs_per_task=1, batch_size=10),
    )
    tests = [a_test(task, 5, 0.5, START) for task in range(5)]
    for test in tests:
        test["accuracy_told"] = 0.75
    for task, updates in ((0, -(-first // 10)), (1, -(-second // 10))):
        tests[task]["curve"] = [{"step": updates, "loss": 1.0, "accuracy": 0.5}]
    write_finished(spec, tests=tests, accuracy=0.5)
    steps = [step for step, _, _ in series(content_of(store), "train/loss")]
    assert steps == [-(-first // 10), -(-first // 10) + -(-second // 10)]


def test_tests_are_shown_by_task(store: Store, trial: Trial, write_finished: Callable[..., None]) -> None:
    """Counted from 1, at the time of the test: what was reached, its loss, and what was left of it at the end."""
    spec = trial(num_tasks=3)
    tests = rows_finished(spec)
    tests[-1]["accuracy"] = 0.0625  # the second task was forgotten
    write_finished(spec, tests=tests)
    content = content_of(store)
    assert series(content, "task/accuracy") == [(1, 1 / 8, 6), (2, 2 / 8, 12), (3, 3 / 8, 18)]
    assert series(content, "task/loss") == [(1, 1.0, 6), (2, 2.0, 12), (3, 3.0, 18)]
    assert sorted(series(content, "task/final_accuracy")) == [(1, 1 / 8, 3000), (2, 0.0625, 3001), (3, 3 / 8, 18)]


def test_curves_run_over_all_tasks(store: Store, trial: Trial, write_finished: Callable[..., None]) -> None:
    """By update from 1, each point at the time it was computed."""
    spec = trial(updates_per_task=5)
    write_finished(spec, tests=rows_finished(spec, every=2))
    content = content_of(store)
    steps = [(2, 2, 0), (4, 4, 0), (5, 5, 0), (7, 2, 1), (9, 4, 1), (10, 5, 1)]
    assert series(content, "train/loss") == [(step, 1 / (task + own), step + task) for step, own, task in steps]
    assert series(content, "train/accuracy") == [(step, own / 5, step + task) for step, own, task in steps]


def test_there_are_few_names_and_each_step_is_there_once(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """MLflow's charts slow down with names, and a (name, step) is how a point is found again."""
    write_finished(trial(num_tasks=4), system=[SAMPLE, GPU_SAMPLE])
    points = content_of(store).points
    assert max(Counter((point.name, point.step) for point in points).values()) == 1
    assert len({point.name for point in points}) < 30
    assert points[0].name == "accuracy"  # MLflow lists them in this order
    assert points[-1].name.startswith("system/")


@pytest.mark.parametrize("size", [(2, 1000, 1), (36, 1000, 25), (7, 503, 10), (36, 30, 7), (1, 320, 1)])
def test_long_curves_are_thinned(
    store: Store, trial: Trial, write_finished: Callable[..., None], size: tuple[int, int, int]
) -> None:
    """To about as many points as MLflow draws; each task's last one stays. Tasks, updates a task, updates a point."""
    num_tasks, updates, every = size
    spec = trial(num_tasks=num_tasks, updates_per_task=updates)
    write_finished(spec, tests=rows_after(spec, num_tasks * updates, every))
    steps = [step for step, *_ in series(content_of(store), "train/loss")]
    total = sum(len(row["curve"]) for row in rows_after(spec, num_tasks * updates, every))
    least = min(total, projection.MAX_CURVE_POINTS) / 2
    assert least <= len(steps) <= projection.MAX_CURVE_POINTS + num_tasks
    assert {task * updates for task in range(1, num_tasks + 1)} <= set(steps)
    assert steps == sorted(steps)


@pytest.mark.parametrize("size", [(5, 2), (1000, 7), (997, 1)])
def test_what_was_shown_of_a_running_trial_stays(
    store: Store,
    trial: Trial,
    write_begun: Callable[..., None],
    write_finished: Callable[..., None],
    size: tuple[int, int],
) -> None:
    """Metrics cannot be removed: a trial's points remain when it resumes and when it is finished."""
    updates, every = size
    spec = trial(num_tasks=3, updates_per_task=updates)
    samples = [{**SAMPLE, "time": START + 10.0 * index} for index in range(5)]
    shown: set[Point] = set()
    counts = []
    for index, done in enumerate((1, every, updates // 2, updates, updates + every, 2 * updates, 3 * updates)):
        write_begun(attempt(spec), tests=rows_after(spec, done, every), system=samples[: index + 1])
        now = content_of(store, "running").points
        assert shown <= set(now)
        shown = set(now)
        counts.append(len(shown))
    write_finished(spec, tests=rows_finished(spec, every), system=samples)
    assert shown < set(content_of(store).points)
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[2] < counts[-2]


def test_a_task_that_is_being_learned_shows_its_curve_alone(
    store: Store, trial: Trial, write_begun: Callable[..., None]
) -> None:
    """Its row says nothing of a test yet; the accuracy so far is of the tasks before it."""
    spec = trial(num_tasks=3, updates_per_task=10)
    write_begun(attempt(spec), tests=rows_after(spec, 15, every=5))
    content = content_of(store, "running")
    assert [step for step, *_ in series(content, "train/loss")] == [5, 10, 15]
    assert series(content, "accuracy") == [(1, 1 / 8, 11)]
    assert series(content, "task/accuracy") == [(1, 1 / 8, 11)]
    assert series(content, "task/final_accuracy") == []
    assert content.tags["progress"] == "1/3 tasks"


def test_a_running_trial_whose_tasks_touch_each_other_has_the_accuracy_that_is_known(
    store: Store, trial: Trial, write_begun: Callable[..., None]
) -> None:
    """What the attempt says of its grouping counts while there is no record: the first task was not tested again."""
    spec = trial(num_tasks=3)
    write_begun(attempt(spec, grouping="one"), tests=rows_after(spec, 10, every=5))
    content = content_of(store, "running")
    assert [step for step, _, _ in series(content, "accuracy")] == [1]
    assert len(series(content, "task/accuracy")) == 2


# The machine, and the trial as a whole


def test_samples_of_the_machine_are_in_mlflows_units(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """Megabytes by their number from 0; a machine without a GPU has no metric of one."""
    write_finished(trial(), system=[SAMPLE, GPU_SAMPLE])
    content = content_of(store)
    system = {
        name.removeprefix("system/"): series(content, name)
        for name in (point.name for point in content.points)
        if name.startswith("system/")
    }
    assert system == {
        "process_cpu_percentage": [(0, 98.5, 0.5), (1, 98.5, 10.5)],
        "process_memory_megabytes": [(0, 3.0, 0.5), (1, 3.0, 10.5)],
        "cpu_utilization_percentage": [(0, 51.0, 0.5), (1, 51.0, 10.5)],
        "system_memory_usage_megabytes": [(0, 5.0, 0.5), (1, 5.0, 10.5)],
        "gpu_utilization_percentage": [(1, 40.0, 10.5)],
        "gpu_memory_usage_megabytes": [(1, 2.0, 10.5)],
        "gpu_power_usage_watts": [(1, 250.5, 10.5)],
    }


def test_the_machine_alone_is_not_shown(store: Store, trial: Trial, write_begun: Callable[..., None]) -> None:
    """MLflow lists metrics in the order they came, so the machine's wait for the first of the trial's."""
    spec = trial()
    write_begun(attempt(spec), system=[SAMPLE])
    assert content_of(store, "running").points == []
    write_begun(attempt(spec), system=[SAMPLE], tests=rows_after(spec, 2, every=2))
    names = [point.name for point in content_of(store, "running").points]
    assert names[0] == "train/loss"
    assert "system/cpu_utilization_percentage" in names


def test_a_finished_trial_shows_what_it_took(store: Store, trial: Trial, write_finished: Callable[..., None]) -> None:
    """At step 0, which MLflow draws as bars, and at the trial's end."""
    provenance = {"attempts": [attempt()], "finished": FINISHED, "train_seconds_per_task": 2.0}
    provenance |= {"peak_memory_bytes": 3 * 2**19}
    write_finished(trial(num_tasks=3), provenance=provenance, seconds=7.5, trained_per_task=8, stored_per_task=9)
    content = content_of(store)
    taken = {p.name: (p.step, p.value, p.time / 1000 - START) for p in content.points if p.name.startswith("trial/")}
    assert taken == {
        "trial/forgetting": (0, 0.0, 3600),
        "trial/backward_transfer": (0, 0.0, 3600),
        "trial/params_per_task": (0, 99.0, 3600),
        "trial/trained_per_task": (0, 8.0, 3600),
        "trial/stored_per_task": (0, 9.0, 3600),
        "trial/train_seconds_per_task": (0, 2.0, 3600),
        "trial/seconds": (0, 7.5, 3600),
        "trial/peak_memory_megabytes": (0, 1.5, 3600),
    }
    assert all(isinstance(point.value, float) for point in content.points)


def test_a_trial_starts_with_its_first_attempt_and_ends_with_its_last_sign_of_life(
    store: Store, trial: Trial, write_begun: Callable[..., None], write_finished: Callable[..., None]
) -> None:
    """Of an interrupted one that may be an attempt, a test, a point of a curve or a sample."""
    spec = trial(num_tasks=2, updates_per_task=100)
    later = attempt(spec, pid=2, started="2025-06-15T15:07:40+00:00")
    for tests, system, end in (
        ([], [], 60),
        (rows_after(spec, 30, every=10), [], 60),
        (rows_after(spec, 90, every=10), [], 90),
        (rows_after(spec, 100, every=10), [], 101),
        (rows_after(spec, 100, every=10), [{**SAMPLE, "time": START + 102.25}], 102.25),
    ):
        write_begun(attempt(spec), later, tests=tests, system=system)
        content = content_of(store, "interrupted")
        assert (content.start, content.end) == (1000 * START, 1000 * (START + end))
    write_finished(spec, provenance={"attempts": [attempt(), later], "finished": FINISHED})
    content = content_of(store)
    assert (content.start, content.end) == (1000 * START, 1000 * (START + 3600))


# Older records


def test_an_older_record_is_shown_as_far_as_it_says(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """A store of version 1.0 has neither times nor grouping nor samples: its points are at the trial's end."""
    spec = trial(num_tasks=2)
    tests = [{**row, "tested": None, "curve_times": None} for row in rows_finished(spec)]
    write_finished(spec, tests=tests, grouping=None, independent=None)
    content = content_of(store)
    assert series(content, "accuracy") == [(1, 1 / 8, 3600), (2, 1.5 / 8, 3600)]
    assert series(content, "task/accuracy") == [(1, 1 / 8, 3600), (2, 2 / 8, 3600)]
    assert series(content, "train/loss") == [(5, 1 / 5, 3600), (10, 1 / 6, 3600)]
    assert [point.name for point in content.points if point.name.startswith("system/")] == []


def test_a_record_whose_provenance_is_empty_is_shown(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """Whatever is missing is left out; it starts and ends with its tests."""
    write_finished(trial(), provenance={})
    content = content_of(store)
    assert {point.name for point in content.points if point.name.startswith("trial/")} == {
        "trial/forgetting",
        "trial/backward_transfer",
        "trial/params_per_task",
        "trial/trained_per_task",
        "trial/stored_per_task",
        "trial/seconds",
    }
    assert not {"host", "device", "commit"} & {name for name, value in content.tags.items() if value}
    assert content.end == 1000 * (START + 3000)
    assert content.tags["crwn.origin"] == "unknown unknown unknown"


def test_a_row_without_a_curve_column_is_shown(store: Store, trial: Trial, write_finished: Callable[..., None]) -> None:
    """Null is no curve."""
    spec = trial()
    write_finished(spec, tests=[{**row, "curve": None, "curve_times": None} for row in rows_finished(spec)])
    assert series(content_of(store), "train/loss") == []


def test_an_unfinished_trial_of_an_older_store_is_shown(store: Store, write_begun: Callable[..., None]) -> None:
    """Its attempts do not say what it is, so it has a name and a state and no params."""
    write_begun({"started": STARTED, "host": "here", "pid": 1})
    content = content_of(store, "interrupted")
    assert content.params == {}
    assert content.points == []
    assert "progress" not in content.tags
    assert content.tags["mlflow.runName"] == projection.run_name(CELL, SEED)


# Tags


def test_a_finished_trial_has_the_tags_people_filter_by(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """The sweep's names, where it stands, what it was computed on; what is not known is left out."""
    provenance = {
        "attempts": [attempt(), attempt(pid=2, host="there")],
        "finished": FINISHED,
        "host": "there",
        "device": "a GPU",
        "commit": "abc123+changes",
        "versions": {"torch": "2", "crwn": "1"},
        "code": {"method": "0a", "crwn": "0b", "results_version": 1},
        "code_changes": "torch 1 -> 2",
    }
    write_finished(trial(), provenance=provenance, variant="v", numerics=RecordedNumerics(device="cuda"))
    content = content_of(store)
    assert content.tags == {
        "mlflow.runName": "own name wide FC16 r-digits, seed 3",
        "cell": "own name wide FC16 r-digits",
        "label.method": "own name",
        "label.variant": "wide",
        "label.benchmark": "r-digits",
        "state": "done",
        "attempt": "2",
        "host": "there",
        "error": "",
        "progress": "2/2 tasks",
        "variant": "v",
        "fingerprint": finished_record(trial()).trial.fingerprint,
        "device": "a GPU",
        "numerics": '{"device":"cuda"}',
        "commit": "abc123+changes",
        "mlflow.source.git.commit": "abc123",
        "code": "0a",
        "code_changes": "torch 1 -> 2",
        "versions": '{"crwn": "1", "torch": "2"}',
        "spec_hash": only(store),
        "crwn.origin": f"{STARTED} there 2",
    }


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_a_begun_trial_says_where_it_is(
    store: Store, trial: Trial, write_begun: Callable[..., None], state: TrialState
) -> None:
    """Its last attempt's host, the number of attempts, and the tasks learned."""
    spec = trial(num_tasks=3)
    write_begun(attempt(spec), attempt(spec, host="there"), tests=rows_after(spec, 10, every=5))
    tags = content_of(store, state).tags
    assert {name: tags[name] for name in ("state", "attempt", "host", "error", "progress")} == {
        "state": state,
        "attempt": "2",
        "host": "there",
        "error": "",
        "progress": "2/3 tasks",
    }


def test_a_failed_trial_says_why(store: Store, trial: Trial, write_begun: Callable[..., None]) -> None:
    """The error's kind and words without its traceback, as far as MLflow takes them; earlier errors are past."""
    error = {"type": "ValueError", "message": "é" * 9000, "traceback": "Traceback ..."}
    write_begun(attempt(trial()), attempt(trial(), error=error))
    tag = content_of(store, "failed").tags["error"]
    assert tag == ("ValueError: " + "é" * 9000)[:8000]
    write_begun(attempt(trial(), error=error), attempt(trial(), pid=2))
    assert content_of(store, "running").tags["error"] == ""


# Whether a run still shows the same computation


def test_an_origin_is_the_attempt_that_began_at_the_beginning(
    store: Store, trial: Trial, write_begun: Callable[..., None]
) -> None:
    """Resuming keeps it, starting again changes it, and an attempt that died before it started does not count."""
    spec = trial()
    first = attempt(spec, pid=1)
    resumed = attempt(spec, pid=2, **{"from": {"tasks_learned": 1, "step": 0}})
    resumed_in_a_task = attempt(spec, pid=3, **{"from": {"tasks_learned": 0, "step": 40}})
    restarted = attempt(spec, pid=4, started=FINISHED, host="there")
    died = attempt(spec, pid=5)
    del died["from"]

    def origin(*attempts: Mapping[str, Any]) -> str:
        write_begun(*attempts)
        return content_of(store, "running").tags["crwn.origin"]

    assert origin(first) == f"{STARTED} here 1"
    assert origin(first, resumed) == f"{STARTED} here 1"
    assert origin(first, resumed_in_a_task, resumed) == f"{STARTED} here 1"
    assert origin(first, died) == f"{STARTED} here 1"
    assert origin(first, resumed, restarted) == f"{FINISHED} there 4"
    assert origin(first, restarted, resumed, died) == f"{FINISHED} there 4"
    assert origin(died) == origin(died, {**died, "pid": 6}) == f"{STARTED} here 5"
    assert origin(died, first) == f"{STARTED} here 1"


def test_an_origin_stays_when_a_trial_is_finished(
    store: Store, trial: Trial, write_begun: Callable[..., None], write_finished: Callable[..., None]
) -> None:
    """The record's attempts, which no longer have the spec, give the same."""
    resumed = attempt(trial(), pid=2, **{"from": {"tasks_learned": 1, "step": 0}})
    write_begun(attempt(trial()), resumed)
    begun = content_of(store, "running")
    write_finished(trial(), provenance={"attempts": [attempt(), {**resumed, "spec": None}]})
    assert begun.tags["crwn.origin"] == content_of(store).tags["crwn.origin"]


def test_a_digest_changes_with_all_that_is_shown(
    store: Store, trial: Trial, write_finished: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the record, with each of the sweep's names, and with what is shown of a record; and with nothing else."""
    write_finished(trial())
    digests = [projection.digest(store, only(store), CELL, SEED)]
    assert projection.digest(Store(store.root), only(store), dataclasses.replace(CELL), SEED) == digests[0]
    moved = dataclasses.replace(CELL, method=f"{CELL.method} {CELL.variant}", variant="")
    assert projection.run_name(moved, SEED) == projection.run_name(CELL, SEED)  # and other tags all the same
    cells = [moved, *(dataclasses.replace(CELL, **{name: "other"}) for name in CELL.names)]
    digests += [projection.digest(store, only(store), cell, SEED) for cell in cells]
    digests.append(projection.digest(store, only(store), CELL, SEED + 1))
    write_finished(trial(), provenance={"host": "there"})
    digests.append(projection.digest(store, only(store), CELL, SEED))
    monkeypatch.setattr(projection, "PROJECTION", projection.PROJECTION + 1)
    digests.append(projection.digest(store, only(store), CELL, SEED))
    assert len(set(digests)) == len(digests) == 9
    assert {len(digest) for digest in digests} == {16}


def test_a_trial_that_is_finished_while_it_is_read_is_left_to_the_next_look(
    store: Store, trial: Trial, write_begun: Callable[..., None], write_finished: Callable[..., None]
) -> None:
    """Its rows may be of both states, so nothing of them is shown, whenever it happened."""
    spec = trial()
    write_begun(attempt(spec), tests=rows_after(spec, 5, every=5))
    assert projection.trial_content(store, only(store), "running", CELL, SEED) is not None
    read, finish = store.so_far, write_finished

    def read_and_finish(trial_id: str) -> Any:
        rows = read(trial_id)
        finish(spec)
        return rows

    store.so_far = read_and_finish  # type: ignore[method-assign]  # the moment that is tested
    assert projection.trial_content(store, only(store), "running", CELL, SEED) is None
    del store.so_far
    assert projection.trial_content(store, only(store), "running", CELL, SEED) is None  # its attempts are gone as well
    assert projection.trial_content(store, only(store), "done", CELL, SEED) is not None


# Artifacts


def test_a_finished_trial_has_its_files_as_artifacts(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """The store's own byte for byte, the spec for people, and the accuracy matrix as numbers and as a picture."""
    spec = trial(num_tasks=3)
    write_finished(spec, system=[SAMPLE])
    files = projection.artifacts(store, only(store), "a title")
    assert set(files) == {
        "results/trial.parquet",
        "results/tasks.parquet",
        "results/system.parquet",
        "contexts/contexts.safetensors",
        "attempts.json",
        "spec.json",
        "accuracy_matrix.csv",
        "accuracy_matrix.png",
    }
    provenance = json.loads(store.records.trials([only(store)]).to_pylist()[0]["provenance"])
    assert json.loads(files["attempts.json"])["attempts"] == provenance["attempts"]
    for name, content in files.items():
        if "/" in name:
            assert content == (store.folder(only(store)) / Path(name).name).read_bytes()
    assert files["contexts/contexts.safetensors"] == finished_record(spec).contexts
    assert json.loads(files["spec.json"]) == json.loads(spec.canonical_json())
    matrix = pd.read_csv(io.BytesIO(files["accuracy_matrix.csv"]), index_col="tasks learned")
    assert list(matrix.columns) == ["task 1", "task 2", "task 3"]
    assert list(matrix.index) == [1, 2, 3]
    white = np.nan
    np.testing.assert_array_equal(
        matrix.to_numpy(), [[1 / 8, white, white], [1 / 8, 2 / 8, white], [1 / 8, 2 / 8, 3 / 8]]
    )
    with Image.open(io.BytesIO(files["accuracy_matrix.png"])) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert all(300 <= side <= 1200 for side in picture.size)


def test_the_matrix_shows_no_more_than_was_tested(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """Where tasks touch each other, what is between the diagonal and the last row is not known."""
    spec = trial(num_tasks=3)
    write_finished(spec, grouping="one", independent=False)
    content = projection.artifacts(store, only(store), "a title")["accuracy_matrix.csv"]
    assert content.decode().splitlines()[2] == "2,,0.25,"


def test_a_store_without_samples_has_no_artifact_of_them(
    store: Store, trial: Trial, write_finished: Callable[..., None]
) -> None:
    """As version 1.0 wrote it."""
    write_finished(trial())
    (store.folder(only(store)) / "system.parquet").unlink()
    assert "results/system.parquet" not in projection.artifacts(store, only(store), "a title")


def test_artifacts_are_the_same_every_time(store: Store, trial: Trial, write_finished: Callable[..., None]) -> None:
    """The picture as well, so that a rebuilt database has the same files."""
    write_finished(trial())
    assert projection.artifacts(store, only(store), "a title") == projection.artifacts(store, only(store), "a title")
