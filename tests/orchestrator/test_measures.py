"""The list of measures: every one has a name, words and a unit, and those of tests are computed from a matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crwn import metrics
from orchestrator.measures import COMPUTED, MEASURES, Evidence, computed, unknown
from orchestrator.store.index import RESULTS_SCHEMA

NAN = math.nan


def of_matrix(matrix: NDArray[Any], untrained: NDArray[Any] | None = None) -> dict[str, float]:
    """The measures of a trial that learned its tasks in turn."""
    before = np.full(len(matrix), NAN) if untrained is None else untrained
    return computed(Evidence(final=matrix[-1], matrix=matrix, untrained=before))


COMPLETE = np.array([[0.6, NAN, NAN], [0.65, 0.8, NAN], [0.79, 0.6, 0.7]])


@pytest.mark.parametrize(
    ("matrix", "forgotten", "transferred"),
    [
        (COMPLETE, 0.03, -0.005),
        (np.array([[0.6, NAN, NAN], [NAN, 0.8, NAN], [0.79, 0.6, 0.7]]), NAN, -0.005),
        (np.array([[0.6, NAN], [NAN, NAN]]), NAN, NAN),
        (np.array([[0.6]]), NAN, NAN),
    ],
    ids=["complete", "diagonal and last row", "not finished", "one task"],
)
def test_what_a_trial_did_not_test_leaves_its_measure_unknown(
    matrix: NDArray[Any], forgotten: float, transferred: float
) -> None:
    """Worked out by hand in the tests of `crwn.metrics`; the others are known."""
    result = of_matrix(matrix)
    assert list(result) == list(COMPUTED) == list(unknown())
    found = [result["forgetting"], result["backward_transfer"]]
    np.testing.assert_allclose(found, [forgotten, transferred], rtol=0, atol=1e-15)
    assert all(type(value) is float for value in result.values())


OF_RECALL = {
    "first_task",
    "last_task",
    "worst_task",
    "gross_memory",
    "memorised",
    "frequency_correlation",
    "recency_correlation",
}


def test_what_is_recalled_at_the_end() -> None:
    """By hand: of the last row of the matrix, of a stream's tests too; what takes more is unknown without it."""
    final = np.array([0.5, 0.25, 1.0])
    evidence = Evidence(final=final, matrix=None, untrained=np.full(3, NAN), memorised=np.array([True, False, True]))
    found = computed(evidence)
    assert {name: found[name] for name in ("first_task", "last_task", "worst_task", "gross_memory", "memorised")} == {
        "first_task": 0.5,
        "last_task": 1.0,
        "worst_task": 0.25,
        "gross_memory": 1.75,
        "memorised": 2.0,
    }
    assert math.isnan(found["forgetting"])
    assert math.isnan(found["frequency_correlation"])
    assert math.isnan(of_matrix(COMPLETE)["memorised"])


def test_every_function_over_the_matrix_is_offered() -> None:
    """Under its own name, so that a definition in `crwn.metrics` can be asked for or is not there."""
    offered = {*(set(COMPUTED) - OF_RECALL), "accuracy_matrix", "average_accuracy", "seen_accuracies"}
    public = {name for name, value in vars(metrics).items() if callable(value) and value.__module__ == metrics.__name__}
    assert {name for name in public if not name.startswith("_")} == offered


def test_forward_transfer_needs_the_accuracy_of_no_learning() -> None:
    """Unknown without it; with it the lift over it: (.3 - .1)/1 for two tasks."""
    matrix = np.array([[0.9, 0.3], [0.9, 0.8]])
    assert math.isnan(of_matrix(matrix)["forward_transfer"])
    assert of_matrix(matrix, np.array([NAN, 0.1]))["forward_transfer"] == pytest.approx(0.2, abs=1e-15)


def test_the_index_has_a_column_of_every_measure() -> None:
    """But for seconds, which are part of a record's provenance."""
    assert set(MEASURES) - set(RESULTS_SCHEMA.names) == {"train_seconds_per_task"}
