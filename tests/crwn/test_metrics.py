"""Measures over the accuracy matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crwn.metrics import accuracy_matrix, average_accuracy

NAN = math.nan


@pytest.mark.parametrize(
    ("final", "expected"),
    [((0.25,), 0.25), ((0.5, 1.0), 0.75), ((1.0, 0.8, 0.1, 0.3), 0.55), ((0.0, 0.0), 0.0)],
)
def test_average_accuracy_is_the_mean_over_tasks(final: tuple[float, ...], expected: float) -> None:
    """Worked out by hand: the sum of the last row divided by the number of tasks."""
    result = average_accuracy(final)
    assert result == pytest.approx(expected, abs=1e-15)
    assert type(result) is float


DIAGONAL_AND_LAST_ROW = [(0, 1, 0.9), (1, 2, 0.8), (2, 3, 0.7), (0, 3, 0.9), (1, 3, 0.8)]


@pytest.mark.parametrize(
    ("independent", "second_row"), [(False, [NAN, 0.8, NAN]), (True, [0.9, 0.8, NAN])], ids=["interacting", "apart"]
)
def test_a_matrix_from_the_diagonal_and_the_last_row(*, independent: bool, second_row: list[float]) -> None:
    """The test that was not made is NaN; where tasks do not touch each other, it is what it was before."""
    matrix = accuracy_matrix(DIAGONAL_AND_LAST_ROW, 3, independent=independent)
    np.testing.assert_array_equal(matrix, [[0.9, NAN, NAN], second_row, [0.9, 0.8, 0.7]])


@pytest.mark.parametrize(
    ("independent", "expected"),
    [
        (False, [[0.9, NAN, NAN], [NAN, 0.8, NAN], [NAN, NAN, NAN]]),
        (True, [[0.9, NAN, NAN], [0.9, 0.8, NAN], [0.9, 0.8, NAN]]),
    ],
    ids=["interacting", "apart"],
)
def test_a_matrix_of_a_trial_that_is_not_finished(*, independent: bool, expected: list[list[float]]) -> None:
    """A task that was not learned yet is NaN in every row; nothing at all is all NaN."""
    np.testing.assert_array_equal(accuracy_matrix(DIAGONAL_AND_LAST_ROW[:2], 3, independent=independent), expected)
    assert np.isnan(accuracy_matrix([], 3, independent=independent)).all()


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_what_was_measured_stays_in_the_matrix(*, independent: bool, order: int) -> None:
    """A full lower triangle is kept as it is, in whichever order its tests come, from any iterable."""
    tests = [(0, 1, 0.9), (0, 2, 0.5), (1, 2, 0.8), (0, 3, 0.4), (1, 3, 0.3), (2, 3, 0.7)][::order]
    matrix = accuracy_matrix(iter(tests), 3, independent=independent)
    np.testing.assert_array_equal(matrix, [[0.9, NAN, NAN], [0.5, 0.8, NAN], [0.4, 0.3, 0.7]])


def test_a_test_before_its_task_is_learned_stands_for_itself() -> None:
    """Accuracies ahead of the diagonal are in the upper triangle, and imply nothing about later ones."""
    matrix = accuracy_matrix([(1, 1, 0.1), (0, 1, 0.9)], 2, independent=True)
    np.testing.assert_array_equal(matrix, [[0.9, 0.1], [0.9, NAN]])
