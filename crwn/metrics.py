"""Measures over the accuracy matrix of a trial.

Shapes: T tasks. `accuracy[i, j]` is the test accuracy on task j after i + 1 tasks were learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def accuracy_matrix(tests: Iterable[tuple[int, int, float]], num_tasks: int, *, independent: bool) -> NDArray[Any]:
    """The accuracy matrix [T, T] from the tests that were made; NaN where a task was not tested.

    Args:
        tests: task, tasks learned before the test (1 to T), accuracy.
        num_tasks: T.
        independent: whether learning a task leaves the others as they are, so that an accuracy stays what it was when
            its task was learned, and that test stands for the later ones that were not made.
    """
    matrix = np.full((num_tasks, num_tasks), np.nan)
    known = list(tests)
    if independent:
        for task, tasks_learned, accuracy in known:
            if tasks_learned == task + 1:
                matrix[task:, task] = accuracy
    for task, tasks_learned, accuracy in known:
        matrix[tasks_learned - 1, task] = accuracy
    return matrix


def average_accuracy(final: Sequence[float]) -> float:
    """The mean over tasks of the test accuracy after the last task: the figure the paper reports.

    (1/T) sum_j accuracy[T-1, j]; over tasks, not samples (Lopez-Paz & Ranzato 2017, "ACC").

    Args:
        final: the last row of the accuracy matrix, T numbers in [0, 1].
    """
    return float(np.mean(final))
