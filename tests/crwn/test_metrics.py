"""Measures over the accuracy matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crwn.faults import InvalidError
from crwn.metrics import (
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    backward_transfer_libcontinual,
    forgetting,
    forgetting_avalanche,
    forgetting_libcontinual,
    forgetting_mammoth,
    forward_transfer,
    incremental_accuracy,
    seen_accuracies,
)
from tests.refusals import refused

NAN = math.nan

Measure = Callable[[NDArray[Any]], float]


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


# Two trials of three tasks. In the first, task 0 is best after task 1 (.75); in the second, at the very end (.79).
BEST_IN_THE_MIDDLE = np.array([[0.6, NAN, NAN], [0.75, 0.8, NAN], [0.5, 0.6, 0.7]])
BEST_AT_THE_END = np.array([[0.6, NAN, NAN], [0.65, 0.8, NAN], [0.79, 0.6, 0.7]])


@pytest.mark.parametrize(
    ("measure", "in_the_middle", "at_the_end"),
    [
        (forgetting, 0.225, 0.030),
        (forgetting_avalanche, 0.150, 0.005),
        (forgetting_mammoth, 0.225, 0.100),
        (forgetting_libcontinual, 0.050, -0.095),
        (backward_transfer, -0.150, -0.005),
        (backward_transfer_libcontinual, -0.1 / 3, 0.19 / 3),
    ],
)
def test_the_definitions_differ_on_the_same_trial(measure: Measure, in_the_middle: float, at_the_end: float) -> None:
    """By hand; the four of forgetting are as they were measured with the libraries, and on the second trial all differ.

    Task 1 falls from .8 to .6 in both: .2, seen by all but LibContinual. Task 0:
    - first trial: learned .6, best .75, final .5. Chaudhry and mammoth .75 - .5 = .25, mean (.25 + .2)/2 = .225;
      avalanche .6 - .5 = .1, mean .15; LibContinual .1/2 = .05, and its transfer 2/(3 * 2) * -.1.
    - second trial: learned .6, best before the last task .65, best of all and final .79. Chaudhry .65 - .79 = -.14,
      mean .03; mammoth .79 - .79 = 0, mean .1; avalanche -.19, mean .005; LibContinual -.19/2, and 2/(3 * 2) * .19.
    """
    assert measure(BEST_IN_THE_MIDDLE) == pytest.approx(in_the_middle, abs=1e-15)
    assert measure(BEST_AT_THE_END) == pytest.approx(at_the_end, abs=1e-15)
    assert type(measure(BEST_AT_THE_END)) is float


def test_forward_transfer_is_what_earlier_tasks_lift_above_no_training() -> None:
    """By hand: task 1 has .3 before it is learned, .1 untrained; task 2 has .25 and .3: (.2 - .05)/2 = .075."""
    matrix = np.array([[0.9, 0.3, NAN], [NAN, 0.9, 0.25], [NAN, NAN, 0.9]])
    assert forward_transfer(matrix, [NAN, 0.1, 0.3]) == pytest.approx(0.075, abs=1e-15)
    assert forward_transfer(matrix, np.array([0.5, 0.3, 0.25])) == 0.0
    assert math.isnan(forward_transfer(matrix, [0.1, NAN, 0.1]))
    with refused(InvalidError, "untrained-not-one-a-task", says=["expected 3", "given 2"]):
        forward_transfer(matrix, [0.1, 0.1])


def told_by_running_best(matrix: NDArray[Any], *, with_final: bool) -> float:
    """Forgetting, told as the trial goes: the best accuracy that each task had so far, beside the one it ends with."""
    best: dict[int, float] = {}
    num_tasks = len(matrix)
    for row in range(num_tasks if with_final else num_tasks - 1):
        for task in range(row + 1):
            best[task] = max(best.get(task, 0.0), matrix[row, task])
    best.pop(num_tasks - 1, None)
    return sum(best[task] - matrix[-1, task] for task in best) / (num_tasks - 1)


def told_by_first_and_last(matrix: NDArray[Any]) -> float:
    """Forgetting, told as the trial goes: the first accuracy a task ever had, and the last that is not the first."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for row in range(len(matrix)):
        for task in range(row + 1):
            (last if task in first else first)[task] = matrix[row, task]
    return sum(first[task] - last[task] for task in last) / len(last)


def told_by_old_tasks(matrix: NDArray[Any], *, rows: list[int], divisor: float) -> float:
    """What tasks gained in these rows, of those learned at least two tasks before the row."""
    return sum(matrix[row, task] - matrix[task, task] for row in rows for task in range(row - 1)) / divisor


@pytest.mark.parametrize("num_tasks", [2, 3, 4, 7])
def test_measures_agree_with_plain_loops_on_random_trials(num_tasks: int) -> None:
    """Each against a reference in other words, on random lower triangles."""
    accuracy = np.random.default_rng(num_tasks).random((20, num_tasks, num_tasks))
    for matrix in np.where(np.tri(num_tasks, dtype=bool), accuracy, NAN):
        pairs = num_tasks * (num_tasks - 1) / 2
        expected = {
            forgetting: told_by_running_best(matrix, with_final=False),
            forgetting_mammoth: told_by_running_best(matrix, with_final=True),
            forgetting_avalanche: told_by_first_and_last(matrix),
            backward_transfer: -told_by_first_and_last(matrix),
            forgetting_libcontinual: -told_by_old_tasks(matrix, rows=[num_tasks - 1], divisor=num_tasks - 1),
            backward_transfer_libcontinual: told_by_old_tasks(matrix, rows=list(range(num_tasks)), divisor=pairs),
        }
        for measure, value in expected.items():
            assert measure(matrix) == pytest.approx(value, abs=1e-14), measure.__name__


def transfer_from_nothing(matrix: NDArray[Any]) -> float:
    """Forward transfer where untrained networks have accuracy 0."""
    return forward_transfer(matrix, np.zeros(len(matrix)))


ALL_OF_THEM = [
    forgetting,
    forgetting_avalanche,
    forgetting_mammoth,
    forgetting_libcontinual,
    backward_transfer,
    backward_transfer_libcontinual,
    transfer_from_nothing,
]


@pytest.mark.parametrize(
    ("measure", "needed"),
    [
        (forgetting, "x... xx.. xxx. xxx."),
        (forgetting_avalanche, "x... .x.. ..x. xxx."),
        (forgetting_mammoth, "x... xx.. xxx. xxx."),
        (forgetting_libcontinual, "x... .x.. .... xx.."),
        (backward_transfer, "x... .x.. ..x. xxx."),
        (backward_transfer_libcontinual, "x... .x.. x... xx.."),
        (transfer_from_nothing, ".x.. ..x. ...x ...."),
    ],
)
def test_a_measure_is_unknown_exactly_if_an_entry_it_needs_is(measure: Measure, needed: str) -> None:
    """Four tasks: without an entry marked x the measure is NaN, and without another it is what it was."""
    matrix = np.random.default_rng(0).random((4, 4))
    complete = measure(matrix)
    assert math.isfinite(complete)
    for row, marks in enumerate(needed.split()):
        for task, mark in enumerate(marks):
            untested = matrix.copy()
            untested[row, task] = NAN
            np.testing.assert_equal(measure(untested), NAN if mark == "x" else complete, err_msg=f"{row}, {task}")


@pytest.mark.parametrize("measure", ALL_OF_THEM)
def test_no_measure_is_defined_for_one_task(measure: Measure) -> None:
    """A single task can neither be forgotten nor transfer to another: NaN, without a warning."""
    assert math.isnan(measure(np.array([[0.9]])))


@pytest.mark.parametrize("measure", ALL_OF_THEM[:-1])
def test_independent_tasks_forget_exactly_nothing(measure: Measure) -> None:
    """Where learning leaves other tasks as they are, all definitions give 0, not merely about 0, and not -0."""
    diagonal = [(task, task + 1, accuracy) for task, accuracy in enumerate([0.1, 0.7, 0.3, 1 / 3, 0.9])]
    result = measure(accuracy_matrix(diagonal, 5, independent=True))
    assert result == 0.0
    assert math.copysign(1.0, result) == 1.0


def test_tests_before_the_first_task_are_not_in_the_matrix() -> None:
    """After no task there is no row; the test must not land in the last one."""
    matrix = accuracy_matrix([(0, 0, 0.1), (0, 1, 0.9), (1, 2, 0.8)], 2, independent=False)
    np.testing.assert_array_equal(matrix, [[0.9, NAN], [NAN, 0.8]])


def test_accuracy_over_the_tasks_seen_so_far_by_hand() -> None:
    """After one task .6, after two (.75 + .8)/2, after three (.5 + .6 + .7)/3; what lies ahead does not count."""
    matrix = BEST_IN_THE_MIDDLE.copy()
    matrix[0, 2] = 1.0
    np.testing.assert_allclose(seen_accuracies(matrix), [0.6, 0.775, 0.6], rtol=0, atol=1e-15)
    assert incremental_accuracy(matrix) == pytest.approx((0.6 + 0.775 + 0.6) / 3, abs=1e-15)
    assert incremental_accuracy(np.array([[0.9]])) == 0.9


def test_a_mean_over_tasks_that_were_not_all_tested_is_unknown() -> None:
    """Only from that number of tasks on where the test lacks; their mean is unknown too."""
    matrix = BEST_IN_THE_MIDDLE.copy()
    matrix[1, 0] = NAN
    np.testing.assert_array_equal(np.isnan(seen_accuracies(matrix)), [False, True, False])
    assert math.isnan(incremental_accuracy(matrix))
