"""Checks that a finished trial's records are valid and consistent. Pure: rows in, faults out.

The folder's name, the id in every file and the hash of the spec must agree; accuracies are in [0, 1], and the trial's
accuracy is the mean of its tests after the last task. So damaged, swapped or forged records are refused, and never
become numbers in a table. Records of versions without checksums get only those checks that need none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crwn.benchmarks.specs import OrdersTrainings
from crwn.metrics import accuracy_matrix, average_accuracy, seen_accuracies
from crwn.recall import memorised
from crwn.spec import BenchmarkSpec, trial_id_of
from orchestrator import measures
from orchestrator.store.parquet_files import DamagedError, Sealed
from orchestrator.store.rows import TestRow, TrialRow

MEAN_TOLERANCE = 1e-9
"""Allowed difference between an accuracy and the mean of its tests: NumPy versions may differ in summation order."""

MAX_GROUP_SIZE = 2**31 - 1

TASKS_SUM, CONTEXTS_SUM = "tasks", "contexts"
"""The checksums of other files in a `trials` record: SHA-256 of the stable columns of `tasks`, and of the contexts."""

MOST_TASKS = 2000
"""Largest accuracy matrix computed: without a limit, one number in an untrusted file could exhaust memory."""

_SHARES = ("accuracy", "accuracy_told")
_GAINS = ("forgetting", "backward_transfer")
_COUNTS = ("params_per_task", "trained_per_task", "stored_per_task", "examples_kept", "stored_memory", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """The tests of one trial, in the order of its rows.

    Attributes:
        task: the task tested [N].
        tasks_learned: number of tasks learned before the test [N]; for a stream, segments seen completely.
        accuracy: [N], in [0, 1]; NaN if null.
        accuracy_told: accuracy among the task's own classes only [N], likewise.
        update: number of updates before the test, for a stream [N]; None if tasks come one after another.
        answered: how often each class was the answer, by test; empty if it was not counted, or not read.
    """

    task: NDArray[Any]
    tasks_learned: NDArray[Any]
    accuracy: NDArray[Any]
    accuracy_told: NDArray[Any]
    update: NDArray[Any] | None = None
    answered: Sequence[Sequence[int]] = ()

    @classmethod
    def of_rows(cls, rows: Sequence[TestRow]) -> Tests:
        """The tests made so far, from a trial's rows."""
        made = [row for row in rows if row.tasks_learned is not None]
        is_stream = bool(made) and made[0].update is not None
        return cls(
            task=np.array([row.task for row in made], dtype=int),
            tasks_learned=np.array([row.tasks_learned for row in made], dtype=int),
            accuracy=np.array([row.accuracy for row in made], dtype=float),
            accuracy_told=np.array([row.accuracy_told for row in made], dtype=float),
            update=np.array([row.update for row in made], dtype=int) if is_stream else None,
            answered=[row.answered for row in made if row.answered is not None],
        )

    @property
    def num_tasks(self) -> int:
        """Number of tasks that have been tested."""
        return int(self.task.max()) + 1 if len(self.task) else 0

    @property
    def is_after_all(self) -> NDArray[Any]:
        """Which tests were made after everything was learned [N]."""
        if self.update is None:
            found: NDArray[Any] = self.tasks_learned == self.num_tasks
        else:
            found = self.update == self.update.max()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of a trial's tests; NaN for tests not made.

    Attributes:
        final: the accuracy on each task after the last task [T], in [0, 1].
        learned: the accuracy on each task right after it was learned [T]; all NaN for joint training and streams.
        seen: the mean accuracy over the tasks seen so far, after each task [T]; likewise.
        told: the accuracy on each task after the last task, among its own classes only [T].
        recalled: how many of the tasks seen so far are recalled better than by chance, after each task [T], as far as
            known; empty where that is not defined, and where tests are by update.
        measures: the measures of `measures.COMPUTED`, by name.
    """

    final: NDArray[Any]
    learned: NDArray[Any]
    seen: NDArray[Any]
    told: NDArray[Any]
    recalled: NDArray[Any]
    measures: Mapping[str, float]


def check_trial(table: pa.Table, trial_id: str) -> TrialRow:
    """Check that a `trials` record is one row of this trial, with numbers in range.

    Args:
        table: its rows.
        trial_id: the trial that its folder names.

    Raises:
        ValueError, RecursionError: it is something else.
    """
    if len(table) != 1:
        raise DamagedError("rows-miscounted", f"expected one row, given {len(table):,}")
    values = table.to_pylist()[0]
    row = TrialRow.read(values)
    if row.trial_id != trial_id:
        raise DamagedError("of-another-trial", f"it belongs to another trial, {row.trial_id!r}")
    if trial_id_of(values["spec"]) != trial_id:
        raise DamagedError("of-another-trial", f"its spec belongs to another trial, {trial_id_of(values['spec'])!r}")
    _check_names(row)
    for names, least, most in ((_SHARES, 0, 1), (_GAINS, -1, 1), (_COUNTS, 0, math.inf)):
        for name in names:
            _check_number(name, getattr(row, name), least, most)
    group_size = row.numerics.group_size
    if group_size is not None and not 1 <= group_size <= MAX_GROUP_SIZE:
        raise DamagedError("out-of-range", f"expected a group of 1 to {MAX_GROUP_SIZE} tasks, given {group_size}")
    return row


def _check_names(row: TrialRow) -> None:
    """Check that a row's names are those of its spec."""
    spec = row.spec
    said = {
        "method": spec.method_kind,
        "benchmark": benchmark_of(spec.benchmark),
        "scale": spec.scale,
        "seed": spec.seed,
    }
    for name, expected in said.items():
        given = getattr(row, name)
        if given != expected:
            raise DamagedError(
                "column-of-another-spec", f"its column {name} is {given!r}, but its spec says {expected!r}"
            )


def benchmark_of(benchmark: Mapping[str, Any]) -> str:
    """A benchmark's name in records, from its spec as parsed JSON.

    Results on held-out training images never pass for results on the test set.
    """
    return f"{benchmark.get('kind')}-{benchmark.get('base')}" + ("-validation" if benchmark.get("validation") else "")


def _check_number(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not math.isnan(value) and not (least <= value <= most and math.isfinite(value)):
        raise DamagedError("out-of-range", f"expected {name} from {least} to {most}, given {value!r}")


def check_tests(table: pa.Table, trial_id: str) -> Tests:
    """Check that a `tasks` record belongs to this trial, and that its tests are possible.

    Args:
        table: its rows, of a finished trial, with at least trial_id, task, tasks_learned, update, accuracy and
            accuracy_told.
        trial_id: the trial that its folder names.

    Raises:
        DamagedError: it is something else.
    """
    check_owner(table, trial_id)
    if any(table[name].null_count for name in ("task", "tasks_learned")):
        raise DamagedError("test-of-no-task", "a test lacks its task, or the number of tasks learned before it")
    is_stream = len(table) > 0 and table["update"].null_count < len(table)
    if is_stream and table["update"].null_count:
        raise DamagedError("tests-of-two-kinds", "some tests have the number of an update and others do not")
    task, tasks_learned, accuracy, told = (
        table[name].to_numpy() for name in ("task", "tasks_learned", "accuracy", "accuracy_told")
    )
    # Each task is tested at least once, so there are at most as many tasks as rows; a stream may have more segments.
    within = (("task", task, 0), *(() if is_stream else (("tasks_learned", tasks_learned, 0),)))
    for name, values, first in within:
        last = len(values) - (name == "task")
        if len(values) and not first <= values.min() <= values.max() <= last:
            raise DamagedError(
                "out-of-range",
                f"expected {name} from {first} to {last}, for {len(values):,} tests, "
                f"given {values.min()} to {values.max()}",
            )
    update = table["update"].to_numpy() if is_stream else None
    _, time = np.unique(tasks_learned if update is None else update, return_inverse=True)
    if len(np.unique(time * (len(task) + 1) + task)) != len(task):
        raise DamagedError("task-tested-twice", "a task was tested twice after the same number of tasks or updates")
    for name, values in (("accuracies", accuracy), ("accuracies with the task told", told)):
        known = values[~np.isnan(values)]
        if len(known) and not 0 <= known.min() <= known.max() <= 1:
            raise DamagedError("out-of-range", f"expected {name} from 0 to 1, given {known.min()} to {known.max()}")
    counted = table["answered"].to_pylist() if "answered" in table.column_names else []
    return Tests(
        task=task,
        tasks_learned=tasks_learned,
        accuracy=accuracy,
        accuracy_told=told,
        update=update,
        answered=[counts for counts in counted if counts is not None],
    )


def check_owner(table: pa.Table, trial_id: str) -> None:
    """Check that all rows belong to this trial.

    Raises:
        DamagedError: one does not.
    """
    others = [name for name in table["trial_id"].unique().to_pylist() if name != trial_id]
    if others:
        raise DamagedError("of-another-trial", f"it has rows of another trial, {others[0]!r}")


def check_same_tests(trial: Sealed, tests: Sealed) -> None:
    """Check that a `tasks` record is the one that a trial's record was made from, except for times.

    Raises:
        DamagedError: it is not. A trial's record without checksums passes.
    """
    expected = trial.said.get(TASKS_SUM)
    if expected is not None and tests.stable != expected:
        raise DamagedError("made-with-others", "its tests do not match the trial's record: the SHA-256 differs")


def check_mean(accuracy: float | None, final: NDArray[Any], name: str = "accuracy") -> None:
    """Check that a trial's accuracy is the mean of its tests after the last task.

    Args:
        accuracy: in [0, 1]; None or NaN if a task was not tested after the last one.
        final: the accuracy on each task after the last one [T], in [0, 1]; NaN if not tested.
        name: the name of the accuracy, for errors.

    Raises:
        DamagedError: it is not.
    """
    given = math.nan if accuracy is None else accuracy
    mean = average_accuracy(final.tolist()) if len(final) else math.nan
    if math.isnan(mean) and math.isnan(given):
        return
    if not abs(given - mean) <= MEAN_TOLERANCE:
        raise DamagedError(
            "mean-differs", f"its {name} is {accuracy}, but the mean of its tests after the last task is {mean}"
        )


def check_contexts(trial: Sealed, content: bytes) -> None:
    """Check that a trial's contexts are byte for byte those that its record was made from.

    Raises:
        DamagedError: they are not. A record without checksums passes.
    """
    expected = trial.said.get(CONTEXTS_SUM)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise DamagedError("made-with-others", "it does not match the trial's record: the SHA-256 differs")


def outcome(tests: Tests, *, independent: bool, benchmark: BenchmarkSpec | None = None, seed: int = 0) -> Outcome:
    """The results of a trial's tests.

    Args:
        tests: the trial's tests.
        independent: whether a task's accuracy stays the same once it is learned, and so stands for tests not made.
        benchmark: the trial's benchmark; None if it is not known here.
        seed: the trial's seed.
    """
    num_tasks = tests.num_tasks
    final, learned, told = (np.full(num_tasks, np.nan) for _ in range(3))
    is_last = tests.is_after_all
    if tests.update is None:
        is_first = tests.tasks_learned == tests.task + 1
        learned[tests.task[is_first]] = tests.accuracy[is_first]
        if independent:
            final[:] = learned
    final[tests.task[is_last]] = tests.accuracy[is_last]
    told[tests.task[is_last]] = tests.accuracy_told[is_last]
    seen, untrained = (np.full(num_tasks, np.nan) for _ in range(2))
    matrix: NDArray[Any] | None = None
    if tests.update is None and 0 < num_tasks <= MOST_TASKS:
        matrix = matrix_of(tests, independent=independent)
        is_before = tests.tasks_learned == 0
        untrained[tests.task[is_before]] = tests.accuracy[is_before]
        seen = seen_accuracies(matrix)
    recalled, labels, measured = np.empty(0), labels_of(benchmark), measures.unknown()
    if 0 < num_tasks <= MOST_TASKS:
        if matrix is not None and labels:
            counts = [_memorised(tests, tests.tasks_learned == task + 1, labels) for task in range(num_tasks)]
            recalled = np.array([np.nan if found is None else found.sum() for found in counts], dtype=float)
        evidence = measures.Evidence(
            final=final,
            matrix=matrix,
            untrained=untrained,
            memorised=_memorised(tests, tests.is_after_all, labels),
            trainings=_trainings(benchmark, seed),
        )
        measured = measures.computed(evidence)
    return Outcome(final=final, learned=learned, seen=seen, told=told, recalled=recalled, measures=measured)


def _trainings(benchmark: object, seed: int) -> tuple[int, ...]:
    """The task that each segment trained, if its benchmark says so."""
    return benchmark.trainings(seed) if isinstance(benchmark, OrdersTrainings) else ()


def labels_of(benchmark: BenchmarkSpec | None) -> tuple[int, ...]:
    """The class of each task, if tasks have one each; else empty."""
    classes = () if benchmark is None else benchmark.problem().task_classes
    return tuple(own for (own,) in classes) if all(len(own) == 1 for own in classes) else ()


def _memorised(tests: Tests, chosen: NDArray[Any], labels: Sequence[int]) -> NDArray[Any] | None:
    """Whether each task of some tests, all made at one time, is recalled; None if that is not defined, or not known.

    Args:
        tests: the trial's tests.
        chosen: which of them [N].
        labels: the class of each task; empty if tasks do not have one each.
    """
    places = np.flatnonzero(chosen)
    if not labels or not len(places) or len(tests.answered) != len(tests.task):
        return None
    order = places[np.argsort(tests.task[places])]
    if tests.task[order[-1]] >= len(labels):
        return None
    answered, own = [tests.answered[place] for place in order], [labels[task] for task in tests.task[order]]
    if len({len(counts) for counts in answered}) > 1 or len(answered[0]) <= max(own):
        return None  # a record that its spec contradicts
    return memorised(np.array(answered), own)


def matrix_of(tests: Tests, *, independent: bool, num_tasks: int | None = None) -> NDArray[Any]:
    """The accuracy matrix [T, T] of a trial whose tasks come one after another, see `crwn.metrics.accuracy_matrix`.

    Args:
        tests: the trial's tests so far.
        independent: see `outcome`.
        num_tasks: T; by default the number of tasks tested.
    """
    rows = zip(tests.task, tests.tasks_learned, tests.accuracy, strict=True)
    return accuracy_matrix(rows, tests.num_tasks if num_tasks is None else num_tasks, independent=independent)
