"""The measures of a trial: one list, read by the index, tables, pivots, MLflow and figures. Pure.

A measure is either stored in the trial's record or computed from its tests each time they are read, so that a new
measure is also available for older stores. Formulas and sources are in `crwn.metrics`.

Shapes: T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crwn import metrics, recall

Unit = Literal["percent", "points", "numbers", "images", "seconds", "amount"]
"""How values are shown: fractions in [0, 1] as percentages; differences of fractions in points; counts; seconds;
amounts, which vary from seed to seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the measures of a trial are computed from.

    Attributes:
        final: the accuracy on each task at the end [T], in [0, 1]; NaN if not tested.
        matrix: the accuracy matrix [T, T], see `crwn.metrics`; None if tests are by update.
        untrained: the accuracy on each task before any training [T].
        memorised: whether each task is recalled at the end [T], see `crwn.recall.memorised`; None if tasks do not have
            one class each, or answers were not counted.
        trainings: the task that each segment trained, if tasks are trained more than once; else empty.
    """

    final: NDArray[Any]
    matrix: NDArray[Any] | None
    untrained: NDArray[Any]
    memorised: NDArray[Any] | None = None
    trainings: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure of a trial.

    Attributes:
        name: its column, and the name that `--value` takes.
        says: its description in captions.
        called: its name in sentences, if that differs from `name` with spaces.
        unit: the unit of its values.
        better: whether higher or lower values are better; None if neither.
        of: computes it; None if the trial's record has it.
        is_known_for_streams: whether it exists for a stream, which has no sequence of tasks.
        lacks: the message if no trial has it; empty for a measure that every trial can have.
        is_shown: whether it is a column of the sweep table's CSV file and a metric of a cell in MLflow.
    """

    name: str
    says: str
    unit: Unit
    better: Literal["higher", "lower"] | None
    of: Callable[[Evidence], float] | None = None
    is_known_for_streams: bool = True
    lacks: str = ""
    is_shown: bool = True
    called: str = ""

    @property
    def in_words(self) -> str:
        """Its name in sentences."""
        return self.called or self.name.replace("_", " ")

    @property
    def is_in_percent(self) -> bool:
        """Whether its values are fractions, or differences of fractions, which are shown times 100."""
        return self.unit in ("percent", "points")


def _from_matrix(
    function: Callable[[NDArray[Any]], float], says: str, unit: Unit, better: Literal["higher", "lower"], **more: Any
) -> Measure:
    """A measure computed from the accuracy matrix, named after its function."""
    return Measure(
        name=function.__name__,
        says=says,
        unit=unit,
        better=better,
        of=lambda evidence: np.nan if evidence.matrix is None else function(evidence.matrix),
        is_known_for_streams=False,
        **more,
    )


def _of_recall(name: str, says: str, unit: Unit, of: Callable[[Evidence], float], **more: Any) -> Measure:
    """A measure of what is recalled of each task at the end."""
    return Measure(name=name, says=says, unit=unit, better="higher", of=of, is_shown=False, **more)


_ONE_CLASS_EACH = "expected a benchmark whose tasks have one class each, told apart by one head, such as items-mnist"
_FREQUENCIES = "expected a benchmark that trains tasks at different frequencies, such as items with `frequency: mixed`"

_LIST = (
    Measure(
        name="accuracy",
        says="test accuracy in %, averaged over tasks after the last one",
        unit="percent",
        better="higher",
    ),
    Measure(
        name="accuracy_told",
        says="test accuracy in % among the task's own classes alone, as if the task were told, averaged over tasks "
        "after the last one",
        unit="percent",
        better="higher",
        lacks="expected a benchmark whose tasks bring classes of their own, which are told apart by one head",
    ),
    _from_matrix(
        metrics.incremental_accuracy,
        "average incremental accuracy in %: test accuracy averaged over the tasks seen so far, and that over all tasks",
        "percent",
        "higher",
    ),
    _from_matrix(metrics.forgetting, "forgetting in percentage points", "points", "lower"),
    _from_matrix(metrics.backward_transfer, "backward transfer in percentage points", "points", "higher"),
    Measure(
        name="forward_transfer",
        says="forward transfer in percentage points, from tests of each task just before it was learned",
        unit="points",
        better="higher",
        of=lambda evidence: (
            np.nan if evidence.matrix is None else metrics.forward_transfer(evidence.matrix, evidence.untrained)
        ),
        is_known_for_streams=False,
        lacks="expected a benchmark with `tests_ahead: true` and a method that learns its tasks in turn",
        is_shown=False,
    ),
    _from_matrix(
        metrics.forgetting_avalanche,
        "forgetting in percentage points, as avalanche defines it",
        "points",
        "lower",
        is_shown=False,
    ),
    _from_matrix(
        metrics.forgetting_mammoth,
        "forgetting in percentage points, as mammoth and PyCIL define it",
        "points",
        "lower",
        is_shown=False,
    ),
    _from_matrix(
        metrics.forgetting_libcontinual,
        "forgetting in percentage points, as LibContinual defines it",
        "points",
        "lower",
        is_shown=False,
    ),
    _from_matrix(
        metrics.backward_transfer_libcontinual,
        "backward transfer in percentage points, as LibContinual defines it",
        "points",
        "higher",
        is_shown=False,
    ),
    _of_recall("first_task", "test accuracy in % on the first task", "percent", lambda one: float(one.final[0])),
    _of_recall("last_task", "test accuracy in % on the last task", "percent", lambda one: float(one.final[-1])),
    _of_recall("worst_task", "test accuracy in % on the worst task", "percent", lambda one: float(one.final.min())),
    _of_recall("gross_memory", "sum of the test accuracies on all tasks", "amount", lambda one: float(one.final.sum())),
    _of_recall(
        "memorised",
        "number of tasks that are recalled better than by chance (5 %)",
        "amount",
        lambda one: np.nan if one.memorised is None else float(one.memorised.sum()),
        called="tasks memorised",
        lacks=_ONE_CLASS_EACH,
    ),
    _of_recall(
        "frequency_correlation",
        "rank correlation of accuracy with how often a task was trained, given when it was trained last",
        "amount",
        lambda one: recall.of_frequency(one.final, one.trainings)[0] if len(one.trainings) else np.nan,
        called="correlation with frequency",
        lacks=_FREQUENCIES,
    ),
    _of_recall(
        "recency_correlation",
        "rank correlation of accuracy with when a task was trained last, given how often it was trained",
        "amount",
        lambda one: recall.of_frequency(one.final, one.trainings)[1] if len(one.trainings) else np.nan,
        called="correlation with recency",
        lacks=_FREQUENCIES,
    ),
    Measure(
        name="params_per_task",
        says="parameters per task in the paper's convention",
        unit="numbers",
        better="lower",
        called="parameters per task",
    ),
    Measure(name="trained_per_task", says="numbers trained per task", unit="numbers", better="lower"),
    Measure(name="stored_per_task", says="numbers stored per task", unit="numbers", better="lower"),
    Measure(
        name="examples_kept",
        says="training images that the replay buffer holds at most",
        unit="images",
        better="lower",
    ),
    Measure(
        name="stored_memory",
        says="numbers kept between tasks for learning later ones, besides replayed images",
        unit="numbers",
        better="lower",
    ),
    Measure(
        name="train_seconds_per_task",
        says="training seconds per task, its share of those learned together",
        unit="seconds",
        better="lower",
        called="training seconds per task",
    ),
)

MEASURES: Mapping[str, Measure] = MappingProxyType({measure.name: measure for measure in _LIST})
"""All measures by name."""

COMPUTED: Mapping[str, Measure] = MappingProxyType(
    {name: measure for name, measure in MEASURES.items() if measure.of is not None}
)
"""The measures that are computed from a trial's tests."""

SHOWN = tuple(name for name, measure in MEASURES.items() if measure.is_shown)
"""The measures that a sweep's table has as columns."""


def computed(evidence: Evidence) -> dict[str, float]:
    """The measures of `COMPUTED`, by name; NaN if a test that a measure needs was not run."""
    return {name: measure.of(evidence) for name, measure in COMPUTED.items() if measure.of is not None}


def unknown() -> dict[str, float]:
    """The measures of `COMPUTED` for a trial without known tests: NaN for each name."""
    return dict.fromkeys(COMPUTED, np.nan)
