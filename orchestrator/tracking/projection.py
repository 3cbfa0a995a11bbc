"""What MLflow shows of a store: names, values and times as pure functions of the store. Does not import MLflow.

docs/mlflow.md explains the names, which are public: few metric names (the UI freezes with many), params for settings
to compare, tags to filter by.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crwn.benchmarks import benchmark_name, problem_of
from crwn.spec import ProblemShape
from orchestrator.display import without_middle
from orchestrator.measures import SHOWN
from orchestrator.report import aggregate, printable
from orchestrator.report.figures import matrix_files
from orchestrator.report.sweep_tables import SweepTable
from orchestrator.store import integrity
from orchestrator.store.attempts import Attempt, attempts_bytes, contributing
from orchestrator.store.compatibility import flat
from orchestrator.store.json_fields import milliseconds
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.rows import Sample, TestRow, TrialRow, independent
from orchestrator.store.schemas import CONTEXTS_FILE, SYSTEM_FILE, TASKS_FILE, TRIAL_FILE
from orchestrator.store.store import Store, TrialState
from orchestrator.tracking.address import VIEW

PROJECTION = 3
"""Version of the projection: increased when more is shown of a trial, so that `sync` updates all runs."""

MAX_CURVE_POINTS = 200
"""Approximate limit per learning curve, so that a trial of 100 tasks fits in one call to MLflow. The store has all."""

MAX_RUN_NAME, MAX_TAG, MAX_PARAM = 250, 8000, 6000
MEBIBYTE = 2**20


def _view(level: str, order: str, columns: Sequence[str], **more: object) -> str:
    """A view as MLflow's interface keeps one that is shared: a filter, an order, columns."""
    shown = {"startTime": "ALL", "lifecycleFilter": "Active", "runsHiddenMode": "FIRST_20_RUNS"}
    shown |= {"searchFilter": f"tags.`crwn.level` = '{level}'", "orderByKey": f"metrics.`{order}`"}
    return json.dumps({**shown, "orderByAsc": False, "selectedColumns": [*columns], **more})


_CELL_COLUMNS = ("accuracy", "accuracy_sd", "n", "forgetting", "params_per_task")
_TRIAL_COLUMNS = ("metrics.`accuracy`", "metrics.`trial/forgetting`", "params.`benchmark`", "params.`seed`")
_BY_CELL = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "cell"}]}

EXPERIMENT_TAGS: Mapping[str, str] = {
    "mlflow.experimentKind": "custom_model_development",  # the UI shows training, not prompts
    f"{VIEW}crwn-means": _view("cell", "cell/accuracy", [f"metrics.`cell/{name}`" for name in _CELL_COLUMNS]),
    f"{VIEW}crwn-trials": _view("trial", "accuracy", _TRIAL_COLUMNS),
    f"{VIEW}crwn-cells": _view("trial", "accuracy", _TRIAL_COLUMNS, groupBy=_BY_CELL),
}
"""Tags of every experiment: the views that `crwn ui` prints, since MLflow's own page opens on a collapsed run."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """Everything that MLflow shows of one trial or one cell, except artifacts.

    Attributes:
        params: its settings.
        tags: its state and what people filter by. The tag `crwn.origin` is the origin of the numbers: for a trial, the
            attempt that started the computation; for a cell, all that is shown. If it changes, a new run is created.
        points: its metrics.
        start, end: start and end of the work on it, in milliseconds since 1970; the end is the last known activity.
    """

    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Sequence[Point]
    start: int
    end: int


def run_name(cell: ManifestCell, seed: int) -> str:
    """A trial in a few words."""
    return without_middle(f"{cell.name}, seed {seed}", MAX_RUN_NAME)


def _labels(cell: ManifestCell) -> dict[str, str]:
    return {f"label.{name}": cell.names[name][:MAX_TAG] for name in ("method", "variant", "benchmark")}


def params(spec: RecordedSpec | None) -> dict[str, str]:
    """A flattened spec: a trial's usual names, then every setting by its path in the spec.

    Args:
        spec: the settings of a trial or of a cell; None if an older crwn did not record them.
    """
    if spec is None:
        return {}
    settings = flat(spec.values)
    named = {"method": settings.pop("method.kind"), "benchmark": benchmark_name(spec.benchmark)}
    named |= {"benchmark.kind": spec.benchmark_kind, "scale": spec.scale, **settings}
    return {name: (said if isinstance(said, str) else json.dumps(said))[:MAX_PARAM] for name, said in named.items()}


def digest(store: Store, trial_id: str, cell: ManifestCell, seed: int) -> str:
    """A digest of what a finished trial's run shows, 16 digits; if it is unchanged, nothing needs to be written."""
    return digits(repr((PROJECTION, cell.names, seed)), store.read(trial_id, TRIAL_FILE) or b"")


def digits(text: str, content: bytes = b"") -> str:
    """A digest."""
    return hashlib.sha256(text.encode() + content).hexdigest()[:16]


def artifacts(store: Store, trial_id: str, title: str) -> dict[str, bytes]:
    """A finished trial's files by their paths among the artifacts.

    Raises:
        UserError: a record is damaged.
    """
    results = {f"results/{name}": store.read(trial_id, name) for name in (TRIAL_FILE, TASKS_FILE, SYSTEM_FILE)}
    files = {path: content for path, content in results.items() if content is not None}  # version 1.0 has no samples
    files[f"contexts/{CONTEXTS_FILE}"] = store.records.contexts(trial_id)
    row = store.records.rows([trial_id])[trial_id]
    files["attempts.json"] = attempts_bytes(row.provenance.attempts)
    files["spec.json"] = (json.dumps(row.spec.values, indent=1, sort_keys=True) + "\n").encode()
    tests = integrity.Tests.of_rows(store.so_far(trial_id)[0])
    return files | matrix_files(tests, title, independent=row.is_independent)


def trial_content(store: Store, trial_id: str, state: TrialState, cell: ManifestCell, seed: int) -> RunContent | None:
    """What MLflow shows of a trial that was started; None if it has finished meanwhile, so that `state` is outdated.

    Raises:
        UserError: a record is damaged.
    """
    finished = store.records.row(trial_id) if state == "done" else None
    spec: RecordedSpec | None
    if finished is not None:
        store.records.check_whole(trial_id)
        attempts, spec = finished.provenance.attempts or (Attempt(),), finished.spec
        is_independent, ended = finished.is_independent, finished.provenance.finished
    elif attempts := store.unfinished.attempts(trial_id):
        is_independent, ended, spec = independent(attempts[-1].grouping, None), None, attempts[-1].spec
    else:
        return None
    tests, system = store.so_far(trial_id)
    if finished is None and store.is_finished(trial_id):
        return None  # its files were replaced while being read
    signs = [*(milliseconds(attempt.started) for attempt in attempts), milliseconds(ended)]
    times = (time for test in tests for time in (test.tested, *(point.time for point in test.curve)))
    signs += [round(1000 * time) for time in (*times, *(sample.time for sample in system)) if time]
    start = signs[0] or min((sign for sign in signs if sign), default=0)  # an older record may lack its start
    end = max(signs)
    problem = None if spec is None else problem_of(spec.benchmark)
    lengths = [] if spec is None or problem is None else spec.num_updates(problem)
    # MLflow shows metrics in order of arrival: the one that is compared first, the machine's last.
    points = [
        *_accuracy_points(tests, problem, finished, end, independent=is_independent),
        *_test_points(tests, lengths, end, is_finished=finished is not None),
        *(_trial_points(finished, end) if finished is not None else ()),
    ]
    points += _system_points(system) if points else ()
    tags = {"mlflow.runName": run_name(cell, seed), "cell": cell.name[:MAX_TAG], **_labels(cell)}
    tags |= {"spec_hash": trial_id, "state": state, "attempt": str(len(attempts)), "error": ""}
    begun = next(iter(contributing(attempts)), attempts[0])  # all later ones resumed from it
    origin = ["unknown" if said is None else str(said) for said in (begun.started, begun.host, begun.pid)]
    tags |= {"host": attempts[-1].host or "", "crwn.origin": " ".join(origin)}
    if state == "failed" and attempts[-1].error is not None:
        tags["error"] = attempts[-1].error.text[:MAX_TAG]
    if problem is not None and problem.tests_by_update:
        tags["progress"] = f"{max((test.position for test in tests), default=0)}/{sum(lengths)} updates tested"
    elif problem is not None:
        num_learned = problem.num_tasks if finished is not None else sum(test.is_first for test in tests)
        tags["progress"] = f"{num_learned}/{problem.num_tasks} tasks"
    tags |= {} if finished is None else _finished_tags(finished)
    return RunContent(params=params(spec), tags=tags, points=points, start=start, end=end)


def _accuracy_points(
    tests: Sequence[TestRow],
    problem: ProblemShape | None,
    finished: TrialRow | None,
    fallback: int,
    *,
    independent: bool,
) -> Iterator[Point]:
    """The average accuracy over the tasks learned so far, by their number; for a stream, by update.

    The last one is the table's, at the trial's end. If a task can change another, an average is known once all tasks
    learned so far were tested again.
    """
    is_stream = any(test.update is not None for test in tests)
    found: dict[int, list[TestRow]] = {}
    for test in tests:
        if is_stream or test.task < test.position:
            found.setdefault(test.position, []).append(test)
    if independent:
        learned = [test for test in tests if test.is_first]
        found = {number: learned[:number] for number in range(1, len(learned) + 1)}
    num_tasks = max((test.task for test in tests), default=0) + 1
    end = max(found, default=0) if problem is None or is_stream else problem.num_tasks
    for step, own in found.items():
        if step < end and len(own) == (num_tasks if is_stream else step):
            mean = sum(aggregate.number(test.accuracy) for test in own) / len(own)
            yield Point("accuracy", mean, max(test.milliseconds or fallback for test in own), step)
    if finished is not None:
        yield Point("accuracy", finished.accuracy, fallback, end)


def _test_points(
    tests: Sequence[TestRow], lengths: Sequence[int], fallback: int, *, is_finished: bool
) -> Iterator[Point]:
    """The tests by task, and the training curves by update over all tasks, both counted from 1.

    The time and step of a value do not change when the trial continues.
    """
    begins, last = [0, *itertools.accumulate(lengths)], max((test.position for test in tests), default=0)
    by_update = len(lengths) > 1 and any(test.update is not None for test in tests)
    for test in tests:
        task, time = test.task, test.milliseconds or fallback
        if test.is_first:
            yield Point("task/accuracy", aggregate.number(test.accuracy), time, task + 1)
            yield Point("task/loss", aggregate.number(test.loss), time, task + 1)
        if is_finished and test.position == last:
            yield Point("task/final_accuracy", aggregate.number(test.accuracy), time, task + 1)
        place = task
        if by_update:  # tasks are trained more than once: the curve is that of the segment that ends with the test
            ended = last if test.update is None else test.update
            place = begins.index(ended) - (test.update is not None) if ended in begins else task
        if not test.curve or place >= len(lengths):
            continue
        num_points = sum(math.ceil(length / test.curve[0].step) for length in lengths)
        stride = math.ceil(num_points / MAX_CURVE_POINTS)
        for index, point in enumerate(test.curve, start=1):
            if index % stride == 0 or point.step == lengths[place]:
                step, when = begins[place] + point.step, time if point.time is None else round(1000 * point.time)
                yield Point("train/loss", point.loss, when, step)
                yield Point("train/accuracy", point.accuracy, when, step)


def _trial_points(row: TrialRow, time: int) -> Iterator[Point]:
    """A finished trial's measures, costs and sizes; at step 0, so that MLflow draws bars."""
    said = row.provenance
    values = {name: getattr(row, name, getattr(said, name, None)) for name in SHOWN if name != "accuracy"}
    peak = said.peak_memory_bytes and said.peak_memory_bytes / MEBIBYTE
    values |= {"examples_kept": row.examples_kept or None, "stored_memory": row.stored_memory or None}
    values |= {"seconds": row.seconds, "peak_memory_megabytes": peak}
    for name, value in values.items():
        if value is not None:
            yield Point(f"trial/{name}", float(value), time, 0)


_SYSTEM_METRICS = {  # MLflow's own names, if it has them
    "process_cpu_percent": ("system/process_cpu_percentage", 1),
    "process_memory_bytes": ("system/process_memory_megabytes", MEBIBYTE),
    "machine_cpu_percent": ("system/cpu_utilization_percentage", 1),
    "machine_memory_bytes": ("system/system_memory_usage_megabytes", MEBIBYTE),
    "gpu_percent": ("system/gpu_utilization_percentage", 1),
    "gpu_memory_bytes": ("system/gpu_memory_usage_megabytes", MEBIBYTE),
    "gpu_power_watts": ("system/gpu_power_usage_watts", 1),
}


def _system_points(system: Sequence[Sample]) -> Iterator[Point]:
    for step, sample in enumerate(system):
        for column, (name, unit) in _SYSTEM_METRICS.items():
            if (value := getattr(sample, column)) is not None:
                yield Point(name, value / unit, round(1000 * sample.time), step)


def _finished_tags(row: TrialRow) -> dict[str, str]:
    said = row.provenance
    tags = {name: getattr(said, name) for name in ("host", "device", "commit", "code_changes")}
    tags |= {"variant": row.variant, "fingerprint": row.fingerprint, "numerics": row.numerics.to_json()}
    tags["mlflow.source.git.commit"] = (said.commit or "").removesuffix("+changes")
    tags["code"] = None if said.code is None else said.code.method
    tags["versions"] = json.dumps(dict(said.versions), sort_keys=True) if said.versions else None
    return {name: str(value) for name, value in tags.items() if value}


_CELL_METRICS = {"n": "n", "sd": "accuracy_sd", "ci95": "accuracy_ci95", **{name: name for name in SHOWN}}
"""Of columns of `aggregate.summarise`, below `cell/`: a mean is no trial, and charts draw one name together."""

_CELL_TAGS = ("missing_seeds", "failed_seeds", "invalid_seeds", "mixed", "noted", "code_changes")


def cell_contents(
    manifest: Manifest, table: SweepTable, spans: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[ManifestCell, RunContent]]:
    """What MLflow shows of the cells of a sweep's table that have at least one finished trial.

    Args:
        manifest: the sweep's manifest.
        table: the sweep's table.
        spans: when its finished trials started and ended, by their ids, in milliseconds since 1970.
    """
    for cell, row in zip(manifest.cells, aggregate.records(table.summary), strict=True):
        own = [spans[trial_id] for trial_id in cell.trials.values() if trial_id in spans]
        if not own:
            continue
        start, end = min(begun for begun, _ in own), max(ended for _, ended in own)
        values = {name: float(row[column]) for column, name in _CELL_METRICS.items()}
        points = [Point(f"cell/{name}", value, end, 0) for name, value in values.items() if math.isfinite(value)]
        name = without_middle(f"{cell.name}, {aggregate.show_n(row)}", MAX_RUN_NAME)
        tags = {"mlflow.runName": name, "state": "done" if row["n"] == row["asked"] else "incomplete", **_labels(cell)}
        tags |= {name: str(row[name])[:MAX_TAG] for name in _CELL_TAGS if row[name]}
        settings = params(cell.spec)
        tags["crwn.origin"] = digits(repr((settings, tags, points, start, end)))
        yield cell, RunContent(params=settings, tags=tags, points=points, start=start, end=end)


def note(table: SweepTable) -> str:
    """A sweep's table as the description of its run."""
    text = f"{printable.markdown_rows(table)}\n\n{printable.markdown_caption(table)}"
    return text if len(text) <= MAX_TAG else f"{len(table.table)} rows: see the artifacts table.md and table.csv."
