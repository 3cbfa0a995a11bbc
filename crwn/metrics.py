"""Measures over the accuracy matrix of a trial.

Shapes: T tasks. `accuracy[i, j]` is the test accuracy on task j after i + 1 tasks were learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def average_accuracy(final: Sequence[float]) -> float:
    """The mean over tasks of the test accuracy after the last task: the figure the paper reports.

    (1/T) sum_j accuracy[T-1, j]; over tasks, not samples (Lopez-Paz & Ranzato 2017, "ACC").

    Args:
        final: the last row of the accuracy matrix, T numbers in [0, 1].
    """
    return float(np.mean(final))
