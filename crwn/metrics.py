"""Measures over the accuracy matrix of a trial.

Shapes: T tasks; S = T - 1, the tasks before the last. `accuracy[i, j]` is the test accuracy on task j after learning
i + 1 tasks, in [0, 1]; tasks, rows and columns count from 0.

A measure is NaN if it needs an entry that was not tested (NaN), or if it is undefined for T = 1. Only
`forward_transfer` uses entries above the diagonal, tests of a task before it is learned; a benchmark asks for them with
`tests_ahead`.

All measures average over tasks, not samples: a task with few test images counts as much as one with many. A stream has
no accuracy matrix: its images do not arrive task by task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crwn.faults import InvalidError


def accuracy_matrix(tests: Iterable[tuple[int, int, float]], num_tasks: int, *, independent: bool) -> NDArray[Any]:
    """The accuracy matrix [T, T] from individual tests; NaN where a task was not tested.

    Args:
        tests: task, number of tasks learned before the test (0 to T), accuracy; tests before the first task are left
            out.
        num_tasks: T.
        independent: whether learning a task leaves the others unchanged. If so, the test right after a task was learned
            stands for later tests of it that were not made.
    """
    matrix = np.full((num_tasks, num_tasks), np.nan)
    task, learned, accuracy = np.array([*tests], dtype=float).reshape(-1, 3).T
    row, column = learned.astype(int) - 1, task.astype(int)
    if independent:
        diagonal = np.full(num_tasks, np.nan)
        is_first = row == column
        diagonal[column[is_first]] = accuracy[is_first]
        matrix[:] = np.where(np.tri(num_tasks, dtype=bool), diagonal, np.nan)
    is_after = row >= 0
    matrix[row[is_after], column[is_after]] = accuracy[is_after]
    return matrix


def average_accuracy(final: Sequence[float]) -> float:
    """The mean over tasks of the test accuracy after the last task: the number that the paper reports.

    (1/T) sum_j accuracy[T-1, j]; over tasks, not samples (Lopez-Paz & Ranzato 2017, "ACC").

    Args:
        final: the last row of the accuracy matrix, T numbers in [0, 1].
    """
    return float(np.mean(final))


def seen_accuracies(matrix: NDArray[Any]) -> NDArray[Any]:
    """The mean accuracy over the tasks seen so far, after each task [T]: the curve that papers plot.

    After k + 1 tasks (1/(k+1)) sum_{j<=k} accuracy[k, j]; in [0, 1]; NaN if any of these was not tested.

    Source: Rebuffi et al. 2017, "iCaRL", arXiv:1611.07725, section 4: its curves after each batch of classes average
    over test images, which is the same for tasks of equal size.

    Args:
        matrix: accuracies [T, T]; the lower triangle is needed.
    """
    means: NDArray[Any] = np.tril(matrix).sum(axis=1) / np.arange(1, len(matrix) + 1)
    return means


def incremental_accuracy(matrix: NDArray[Any]) -> float:
    """The mean of `seen_accuracies`, including the first: "average incremental accuracy"; in [0, 1].

    Source: Rebuffi et al. 2017, "iCaRL", arXiv:1611.07725, section 4; the same in G-U-N/PyCIL, trainer.py, "Average
    Accuracy".

    Args:
        matrix: accuracies [T, T]; the lower triangle is needed.
    """
    return float(np.mean(seen_accuracies(matrix)))


def forgetting(matrix: NDArray[Any]) -> float:
    """The mean drop of final accuracy below the best accuracy reached before the last task (0: no forgetting).

    (1/(T-1)) sum_{j<T-1} (max_{l in j..T-2} accuracy[l, j] - accuracy[T-1, j]); in [-1, 1], negative if learning the
    last task helped the earlier ones; NaN for T = 1.

    Source: Chaudhry et al. 2018, "Riemannian Walk", arXiv:1801.10112, F_k at k = T. Its maximum is over l in {1..k-1}
    (0..T-2 here), all rows but the last, as in the first author's code (facebookresearch/agem, utils/utils.py,
    `compute_fgt`). Deviation: we leave out the rows l < j, before task j was learned, which are rarely tested; this
    matters only if task j was better in one of them than in any later row but the last.

    Args:
        matrix: accuracies [T, T]; the lower triangle without its last entry is needed.
    """
    best_S = np.array([matrix[task:-1, task].max() for task in range(len(matrix) - 1)])
    return _mean(best_S - matrix[-1, :-1])


def backward_transfer(matrix: NDArray[Any]) -> float:
    """The mean change in accuracy on earlier tasks from learning later ones (negative: forgetting).

    (1/(T-1)) sum_{j<T-1} (accuracy[T-1, j] - accuracy[j, j]); in [-1, 1]; NaN for T = 1.

    Source: Lopez-Paz & Ranzato 2017, arXiv:1706.08840, "BWT". The authors' code (facebookresearch/
    GradientEpisodicMemory, metrics/metrics.py) divides by T instead, so it prints (T-1)/T times this.

    Args:
        matrix: accuracies [T, T]; the diagonal and the last row, without their common entry, are needed.
    """
    return _mean(matrix[-1, :-1] - matrix.diagonal()[:-1])


def forward_transfer(matrix: NDArray[Any], untrained_T: Sequence[float] | NDArray[Any]) -> float:
    """The mean gain in accuracy on a task not yet learned, from learning earlier tasks, over an untrained network.

    (1/(T-1)) sum_{1<=j<T} (accuracy[j-1, j] - untrained[j]); in [-1, 1]; NaN for T = 1.

    Source: Lopez-Paz & Ranzato 2017, arXiv:1706.08840, "FWT". The authors' code divides by T, as for BWT.

    Args:
        matrix: accuracies [T, T]; the first diagonal above the main one is needed.
        untrained_T: the test accuracy of untrained networks on each task [T]; the first is not used.

    Raises:
        ValueError: the number of untrained accuracies differs from the number of tasks.
    """
    if len(untrained_T) != len(matrix):
        raise InvalidError(
            "untrained-not-one-a-task",
            f"expected {len(matrix)} untrained accuracies, one per task, given {len(untrained_T)}",
        )
    return _mean(matrix.diagonal(1) - np.asarray(untrained_T, dtype=float)[1:])


# What other libraries print under the same names, to compare with numbers published with them. Theirs come from one run
# that tests every learned task after each task; mammoth, PyCIL and LibContinual print percentages. For T = 1, where we
# give NaN, avalanche and LibContinual print 0.


def forgetting_avalanche(matrix: NDArray[Any]) -> float:
    """Forgetting as avalanche defines it: relative to the accuracy when the task was learned, not the best accuracy.

    (1/(T-1)) sum_{j<T-1} (accuracy[j, j] - accuracy[T-1, j]) = -backward_transfer; in [-1, 1]; NaN for T = 1.

    Source: ContinualAI/avalanche, avalanche/evaluation/metrics/forgetting_bwt.py, `StreamForgetting` at the end.

    Args:
        matrix: accuracies [T, T].
    """
    return _mean(matrix.diagonal()[:-1] - matrix[-1, :-1])


def forgetting_mammoth(matrix: NDArray[Any]) -> float:
    """Forgetting as mammoth and PyCIL define it: the best accuracy includes the final one, so no term is negative.

    (1/(T-1)) sum_{j<T-1} (max_{l in j..T-1} accuracy[l, j] - accuracy[T-1, j]); in [0, 1]; NaN for T = 1.

    Source: aimagelab/mammoth, utils/metrics.py, `forgetting`; the same in G-U-N/PyCIL, trainer.py, `_train`.
    Both put 0 where l < j, except that mammoth's maximum also sees accuracy[j-1, j], which its utils/training.py
    appends for forward transfer. We leave it out; that matters only if it is the best accuracy on task j.

    Args:
        matrix: accuracies [T, T].
    """
    best_S = np.array([matrix[task:, task].max() for task in range(len(matrix) - 1)])
    return _mean(best_S - matrix[-1, :-1])


def forgetting_libcontinual(matrix: NDArray[Any]) -> float:
    """Forgetting as LibContinual defines it: avalanche's without the second-last task, yet divided by T - 1.

    (1/(T-1)) sum_{j<T-2} (accuracy[j, j] - accuracy[T-1, j]); in [-(T-2)/(T-1), (T-2)/(T-1)], thus always 0 for T = 2;
    NaN for T = 1.

    Source: RL-VIG/LibContinual, core/utils/utils.py, `compute_frgt` (its code; its docstring has the opposite sign).

    Args:
        matrix: accuracies [T, T].
    """
    num_tasks = len(matrix)
    if num_tasks == 1:
        return np.nan
    return float(np.sum(matrix.diagonal()[:-2] - matrix[-1, :-2]) / (num_tasks - 1))


def backward_transfer_libcontinual(matrix: NDArray[Any]) -> float:
    """Backward transfer as LibContinual defines it: over all later rows, except the one right after the task's own.

    (2/(T(T-1))) sum_{2<=i<T} sum_{j<=i-2} (accuracy[i, j] - accuracy[j, j]); in [-(T-2)/T, (T-2)/T], thus always 0 for
    T = 2; NaN for T = 1.

    Source: RL-VIG/LibContinual, core/utils/utils.py, `compute_bwt`.

    Args:
        matrix: accuracies [T, T].
    """
    num_tasks = len(matrix)
    if num_tasks == 1:
        return np.nan
    return float(np.tril(matrix - matrix.diagonal(), -2).sum() * 2 / (num_tasks * (num_tasks - 1)))


def _mean(values: NDArray[Any]) -> float:
    """The mean; NaN if there are no values, without NumPy's warning."""
    return float(values.mean()) if values.size else np.nan
