"""What MLflow shows of a store: names, values and times as pure functions of the store. Does not import MLflow.

docs/mlflow.md explains the names, which are public: few metric names (the UI freezes with many), params for what is
compared, tags for what people filter by.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crwn.benchmarks import MOST_TASKS, benchmark_name, problem_of
from crwn.data import BASE_SETS
from crwn.spec import ProblemShape
from orchestrator.display import without_middle
from orchestrator.measures import SHOWN
from orchestrator.report import aggregate, page, printable, sweep_tables, tables
from orchestrator.report.figures import draw_accuracy_matrix
from orchestrator.report.plain import csv_text
from orchestrator.store import integrity
from orchestrator.store.accepted import Accepted
from orchestrator.store.attempts import Attempt, Position, attempts_bytes
from orchestrator.store.json_fields import milliseconds
from orchestrator.store.manifests import Manifest
from orchestrator.store.rows import Sample, TestRow, TrialRow, independent
from orchestrator.store.schemas import CONTEXTS_FILE, SYSTEM_FILE, TASKS_FILE, TRIAL_FILE
from orchestrator.store.store import Store, TrialState

PROJECTION = 2
"""Version of the projection: increased when more is shown of a trial, so that `sync` updates all runs."""

MAX_CURVE_POINTS = 200
"""Approximate limit per learning curve, so that a trial of 100 tasks fits in one call to MLflow. The store has all."""

SHOWN_FIGURES = ("svg", "png")
"""Formats of figures among the artifacts: those that MLflow displays. The print format takes as long as both."""

MAX_RUN_NAME = 250
MAX_TAG = 8000
MAX_PARAM = 6000
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A sweep's names for one of its trials."""

    method: str
    variant: str
    scale: str
    benchmark: str
    seed: str

    @property
    def cell(self) -> str:
        """The name of the table's cell, shared by trials that differ only in their seed."""
        return " ".join(part for part in (self.method, self.variant, self.scale, self.benchmark) if part)

    @property
    def cell_key(self) -> str:
        """A unique key of the cell, whatever spaces its names contain."""
        return json.dumps([self.method, self.variant, self.scale, self.benchmark])

    @property
    def run_name(self) -> str:
        """A short name of the trial."""
        return without_middle(f"{self.cell}, seed {self.seed}", MAX_RUN_NAME)


def labels(manifest: Manifest) -> dict[str, Label]:
    """The labels of a sweep's trials by id, in the sweep's order."""
    return {trial_id: Label(**cell.names, seed=str(seed)) for cell, seed, trial_id in manifest.trials()}


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
        tags: its state, and what people filter by.
        points: its metrics.
        start, end: start and end of the work on it, in milliseconds since 1970; the end is the last known activity.
        origin: identifies the computation: when it changes, the numbers belong to another run. For a trial, the attempt
            that began the computation, see `origin`; for a cell, a digest of all that is shown, 16 digits.
    """

    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Sequence[Point]
    start: int
    end: int
    origin: str


def trial_content(store: Store, trial_id: str, state: TrialState, label: Label) -> RunContent | None:
    """What MLflow shows of a trial that was started; None if it has finished meanwhile, so that `state` is outdated.

    Raises:
        UserError: a record is damaged.
    """
    finished = store.records.row(trial_id) if state == "done" else None
    if finished is not None:
        store.records.check_whole(trial_id)
        attempts: Sequence[Attempt] = finished.provenance.attempts or (Attempt(),)
        spec, is_independent, ended = finished.spec, finished.is_independent, finished.provenance.finished
    else:
        attempts = store.unfinished.attempts(trial_id)
        if not attempts:
            return None
        spec, is_independent, ended = attempts[-1].spec or {}, independent(attempts[-1].grouping, None), None
    tests, system = store.so_far(trial_id)
    signs = [*(milliseconds(attempt.started) for attempt in attempts), milliseconds(ended)]
    times = (time for test in tests for time in (test.tested, *(point.time for point in test.curve)))
    signs += [round(1000 * time) for time in (*times, *(sample.time for sample in system)) if time]
    start = signs[0] or min((sign for sign in signs if sign), default=0)  # an older record may lack its start
    end = max(signs)
    # MLflow shows metrics in order of arrival: the one that is compared first, the machine's last.
    points = [
        *_accuracy_points(tests, spec, finished, end, independent=is_independent),
        *_test_points(tests, spec, end),
        *(_trial_points(finished, end) if finished is not None else ()),
    ]
    points += _system_points(system) if points else ()
    if finished is None and store.is_finished(trial_id):
        return None  # its files were replaced while being read
    return RunContent(
        params=params(spec),
        tags={
            **_label_tags(label),
            **_state_tags(state, attempts, spec, tests),
            **({} if finished is None else _finished_tags(finished)),
            "spec_hash": trial_id,
            "crwn.origin": origin(attempts),
        },
        points=points,
        start=start,
        end=end,
        origin=origin(attempts),
    )


def params(spec: Mapping[str, Any]) -> dict[str, str]:
    """A flattened spec: a trial's usual names, then every setting by its place in the spec.

    It also takes the settings of a cell's trials, which have no seed.
    """
    if not spec:
        return {}
    flat = {
        "method": spec["method"]["kind"],
        "benchmark": benchmark_name(spec["benchmark"]),
        "benchmark.kind": spec["benchmark"]["kind"],
        "scale": spec["scale"],
    }
    if "seed" in spec:
        flat["seed"] = str(spec["seed"])
    for part in ("method", "benchmark", "training"):
        flat |= {f"{part}.{name}": _text(value) for name, value in spec[part].items() if name != "kind"}
    return {name: value[:MAX_PARAM] for name, value in flat.items()}


_CELL_METRICS = {
    "n": "cell/n",
    "sd": "cell/accuracy_sd",
    "ci95": "cell/accuracy_ci95",
    **{name: f"cell/{name}" for name in SHOWN},
}
"""Columns of `aggregate.summarise` under separate names, since charts plot a name together, and means are no trials."""

_CELL_TAGS = ("missing_seeds", "failed_seeds", "invalid_seeds", "mixed", "noted", "code_changes")


def cell_contents(
    manifest: Manifest,
    table: sweep_tables.SweepTable,
    settings: Mapping[str, str],
    spans: Mapping[str, tuple[int, int]],
) -> dict[str, RunContent]:
    """What MLflow shows of the cells of a sweep's table that have at least one finished trial, by `Label.cell_key`.

    Args:
        manifest: the sweep's manifest.
        table: the sweep's table.
        settings: specs of its finished trials without the seed, as JSON, by trial id.
        spans: start and end of started trials, in milliseconds since 1970.
    """
    labelled = labels(manifest)
    found = {}
    for cell, row in zip(manifest.cells, aggregate.records(table.summary), strict=True):
        finished = [trial_id for trial_id in cell.trials.values() if trial_id in settings]
        if not finished:
            continue
        label = labelled[finished[0]]
        times = [spans[trial_id] for trial_id in finished if trial_id in spans] or [(0, 0)]
        start, end = min(begun for begun, _ in times), max(ended for _, ended in times)
        values = {name: float(row[column]) for column, name in _CELL_METRICS.items()}
        points = [Point(name, value, end, 0) for name, value in values.items() if math.isfinite(value)]
        shared = [set(params(json.loads(settings[trial_id])).items()) for trial_id in finished]
        shown_params = dict(sorted(set.intersection(*shared)))
        tags = {
            **{name: value for name, value in _label_tags(label).items() if name != "cell"},
            "mlflow.runName": without_middle(f"{label.cell}, {aggregate.show_n(row)}", MAX_RUN_NAME),
            "state": "done" if row["n"] == row["asked"] else "incomplete",
            **{name: str(row[name])[:MAX_TAG] for name in _CELL_TAGS if row[name]},
        }
        shown = repr((shown_params, sorted(tags.items()), points, start, end))
        found[label.cell_key] = RunContent(
            params=shown_params, tags=tags, points=points, start=start, end=end, origin=_digits(shown)
        )
    return found


def note(table: sweep_tables.SweepTable) -> str:
    """A sweep's table as the description of its run."""
    text = f"{printable.markdown_rows(table)}\n\n{printable.markdown_caption(table)}"
    return text if len(text) <= MAX_TAG else f"{len(table.table)} rows: see the artifacts table.md and table.csv."


def table_files(manifest: Manifest, table: sweep_tables.SweepTable) -> dict[str, bytes]:
    """A sweep's manifest and table by their paths among the artifacts of its run."""
    return {
        "sweep.json": manifest.to_json_bytes(),
        "table.csv": csv_text(table.summary).encode(),
        "table.md": printable.markdown(table).encode(),
    }


def sweep_report(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """A sweep's page, figures and tables by their paths among the artifacts of its run.

    Raises:
        UserError: a record is damaged.
    """
    made = tables.tables_of([store], tables.Choice(sweep=manifest.name))
    files = {**printable.table_files(made), **page.report_files([store], manifest.name, SHOWN_FIGURES)}
    return {f"report/{name}": content for name, content in files.items()}


def sweep_digest(
    manifest: Manifest, states: Mapping[str, TrialState], shown: Mapping[str, str | None], accepted: Accepted
) -> str:
    """A digest of what a sweep's report shows, 16 digits.

    Args:
        manifest: the sweep's manifest.
        states: the states of its trials.
        shown: the digests of what finished trials' runs show, see `digest`.
        accepted: the code accepted as equivalent in the store.
    """
    content = json.dumps(manifest.content(), sort_keys=True)
    return _digits(repr((PROJECTION, content, list(states.items()), sorted(shown.items()), *accepted.agreements)))


def started(store: Store, trial_id: str) -> int:
    """When the first attempt at a trial began, in milliseconds since 1970."""
    attempts = store.all_attempts(trial_id)
    return milliseconds(attempts[0].started) if attempts else 0


def origin(attempts: Sequence[Attempt]) -> str:
    """Identifies the computation of a trial: the last attempt that started from the beginning.

    Later attempts resumed from it, so all their results belong together.
    """
    begun = [attempt for attempt in attempts if attempt.began_at == Position()]
    first = begun[-1] if begun else attempts[0]
    return " ".join("unknown" if said is None else str(said) for said in (first.started, first.host, first.pid))


def digest(store: Store, trial_id: str, label: Label) -> str:
    """A digest of what a finished trial's run shows, 16 digits; if it is unchanged, nothing needs to be written."""
    content = store.read(trial_id, TRIAL_FILE) or b""
    return _digits(repr((PROJECTION, label)), content)


def dataset(base: str) -> dict[str, str]:
    """A base data set as MLflow's fields; the digest covers the files' checksums."""
    known = BASE_SETS[base]
    source = {"embedded": "in a library"} if known.is_embedded else {"files": dict(known.source.checksums)}
    profile = {"num_train": known.num_train, "num_test": known.num_test, "num_classes": known.num_classes}
    return {
        "name": base,
        "digest": hashlib.sha256(json.dumps([base, source, profile], sort_keys=True).encode()).hexdigest()[:16],
        "source_type": "crwn",
        "source": json.dumps(source),
        "profile": json.dumps({**profile, "image_shape": list(known.image_shape)}),
    }


def artifacts(store: Store, trial_id: str, title: str) -> dict[str, bytes]:
    """A finished trial's files by their paths among the artifacts.

    Raises:
        UserError: a record is damaged.
    """
    files = {}
    for place, name in (
        ("results", TRIAL_FILE),
        ("results", TASKS_FILE),
        ("results", SYSTEM_FILE),
    ):
        content = store.read(trial_id, name)
        if content is not None:  # a store of version 1.0 has no system samples
            files[f"{place}/{name}"] = content
    files[f"contexts/{CONTEXTS_FILE}"] = store.records.contexts(trial_id)
    row = store.records.rows([trial_id])[trial_id]
    files["attempts.json"] = attempts_bytes(row.provenance.attempts)
    files["spec.json"] = (json.dumps(row.spec, indent=1, sort_keys=True) + "\n").encode()
    tests = integrity.Tests.of_rows(store.so_far(trial_id)[0])
    if tests.update is None and tests.num_tasks <= integrity.MOST_TASKS:  # a stream has no such matrix
        matrix = integrity.matrix_of(tests, independent=row.is_independent)
        files["accuracy_matrix.csv"] = tables.matrix_csv(matrix).encode()
        files["accuracy_matrix.png"] = draw_accuracy_matrix(matrix, title)
    return files


def _accuracy_points(
    tests: Sequence[TestRow],
    spec: Mapping[str, Any],
    finished: TrialRow | None,
    fallback: int,
    *,
    independent: bool,
) -> Iterator[Point]:
    """The average accuracy over the tasks learned so far, by their number; for a stream, by update.

    The last value is the table's. If tasks interfere, a value is known once all tasks learned so far are tested again.
    """
    end = _num_steps(tests, spec)
    for step, own in _together(tests, independent=independent).items():
        if step < end:
            mean = sum(aggregate.number(test.accuracy) for test in own) / len(own)
            yield Point("accuracy", mean, max(_tested(test, fallback) for test in own), step)
    if finished is not None:
        yield Point("accuracy", finished.accuracy, fallback, end)


def _num_steps(tests: Sequence[TestRow], spec: Mapping[str, Any]) -> int:
    """The step of a trial's final accuracy: the number of its tasks, or of its stream's updates."""
    updates = [test.update for test in tests if test.update is not None]
    if updates:
        problem = problem_of(spec["benchmark"]) if spec else None
        return max(*updates, sum(_lengths(spec, problem)) if problem is not None else 0)
    return _num_tasks(spec)


def _together(tests: Sequence[TestRow], *, independent: bool) -> dict[int, list[TestRow]]:
    """The tests averaged for each accuracy so far, by the number of tasks or updates after which they were made."""
    found: dict[int, list[TestRow]] = {}
    if independent:
        learned = [test for test in tests if test.is_first]
        return {number: learned[:number] for number in range(1, len(learned) + 1)}
    for test in tests:
        step = test.tasks_learned if test.update is None else test.update
        if step is not None and (test.update is not None or test.task < step):
            found.setdefault(step, []).append(test)
    num_tests = max((test.task for test in tests), default=0) + 1
    return {step: own for step, own in found.items() if len(own) == (num_tests if own[0].update is not None else step)}


def _tested(test: TestRow, fallback: int) -> int:
    """When a test ended, in milliseconds since 1970."""
    return fallback if test.tested is None else round(1000 * test.tested)


def _test_points(tests: Sequence[TestRow], spec: Mapping[str, Any], fallback: int) -> Iterator[Point]:
    """The tests by task, and the training curves by update over all tasks, both counted from 1.

    The time and step of a value do not change when the trial continues.
    """
    if not spec:
        return
    lengths = _lengths(spec, problem_of(spec["benchmark"]))
    begins, end = [0, *itertools.accumulate(lengths)], _num_steps(tests, spec)
    for test in tests:
        task, time = test.task, _tested(test, fallback)
        if test.is_first:
            yield Point("task/accuracy", aggregate.number(test.accuracy), time, task + 1)
            yield Point("task/loss", aggregate.number(test.loss), time, task + 1)
        if (test.tasks_learned if test.update is None else test.update) == end:
            yield Point("task/final_accuracy", aggregate.number(test.accuracy), time, task + 1)
        curve = test.curve
        if not curve or task >= len(lengths):
            continue
        num_points = sum(math.ceil(length / curve[0].step) for length in lengths)
        stride = math.ceil(num_points / MAX_CURVE_POINTS)
        for index, point in enumerate(curve, start=1):
            if index % stride == 0 or point.step == lengths[task]:
                step, when = begins[task] + point.step, time if point.time is None else round(1000 * point.time)
                yield Point("train/loss", point.loss, when, step)
                yield Point("train/accuracy", point.accuracy, when, step)


def _num_tasks(spec: Mapping[str, Any]) -> int:
    """The number of tasks of a trial that is not a stream; 0 if not recorded."""
    problem = problem_of(spec["benchmark"]) if spec else None
    if problem is not None:
        return problem.num_tasks
    number = spec.get("benchmark", {}).get("num_tasks")
    return min(number, MOST_TASKS) if isinstance(number, int) else 0


def _lengths(spec: Mapping[str, Any], problem: ProblemShape | None) -> list[int]:
    """The number of updates of each task, or of the stream, as far as known without the data."""
    training = spec["training"]
    epochs, batch_size = training.get("epochs_per_task", 0), training.get("batch_size", 1)
    if problem is not None and problem.is_stream:
        return [math.ceil(problem.num_train / batch_size)]
    if epochs and problem is not None:
        return [epochs * math.ceil(size / batch_size) for size in problem.segment_sizes]
    return [training["updates_per_task"]] * _num_tasks(spec)


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
            value = getattr(sample, column)
            if value is not None:
                yield Point(name, value / unit, round(1000 * sample.time), step)


def _trial_points(row: TrialRow, time: int) -> list[Point]:
    """A finished trial's measures, costs and sizes; at step 0, so that MLflow draws bars."""
    memory = row.provenance.peak_memory_bytes
    values = {
        "trial/accuracy_told": row.accuracy_told,
        "trial/forgetting": row.forgetting,
        "trial/backward_transfer": row.backward_transfer,
        "trial/params_per_task": row.params_per_task,
        "trial/trained_per_task": row.trained_per_task,
        "trial/stored_per_task": row.stored_per_task,
        "trial/examples_kept": row.examples_kept or None,
        "trial/stored_memory": row.stored_memory or None,
        "trial/train_seconds_per_task": row.provenance.train_seconds_per_task,
        "trial/seconds": row.seconds,
        "trial/peak_memory_megabytes": None if memory is None else memory / MEBIBYTE,
    }
    return [Point(name, float(value), time, 0) for name, value in values.items() if value is not None]


def _label_tags(label: Label) -> dict[str, str]:
    return {
        "mlflow.runName": label.run_name,
        "cell": label.cell[:MAX_TAG],
        "label.method": label.method[:MAX_TAG],
        "label.variant": label.variant[:MAX_TAG],
        "label.benchmark": label.benchmark[:MAX_TAG],
    }


def _state_tags(
    state: TrialState,
    attempts: Sequence[Attempt],
    spec: Mapping[str, Any],
    tests: Sequence[TestRow],
) -> dict[str, str]:
    last = attempts[-1]
    tags = {"state": state, "attempt": str(len(attempts)), "host": last.host or "", "error": ""}
    if state == "failed" and last.error is not None:
        tags["error"] = last.error.text[:MAX_TAG]
    updates = [test.update for test in tests if test.update is not None]
    if updates:
        tags["progress"] = f"{max(updates)}/{_num_steps(tests, spec)} updates tested"
    elif spec:
        num_tasks = _num_tasks(spec)
        learned = [aggregate.number(test.accuracy) for test in tests if test.is_first]
        mean = f", {100 * sum(learned) / len(learned):.1f} % so far" if learned and state != "done" else ""
        tags["progress"] = f"{num_tasks if state == 'done' else len(learned)}/{num_tasks} tasks{mean}"
    return tags


def _finished_tags(row: TrialRow) -> dict[str, str]:
    said = row.provenance
    tags = {
        "variant": row.variant,
        "fingerprint": row.fingerprint,
        "host": said.host,
        "device": said.device,
        "numerics": row.numerics.to_json(),
        "commit": said.commit,
        "mlflow.source.git.commit": (said.commit or "").removesuffix("+changes"),
        "code": said.code.method if said.code is not None else None,
        "code_changes": said.code_changes,
        "versions": json.dumps(dict(said.versions), sort_keys=True) if said.versions else None,
    }
    return {name: str(value) for name, value in tags.items() if value}


def _digits(text: str, content: bytes = b"") -> str:
    return hashlib.sha256(text.encode() + content).hexdigest()[:16]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
