"""Measures of recall for a sequence of items: tasks with one class each, classified by one network.

Source: Cho, Lee, Baek & Paik, "Neuromimetic metaplasticity for adaptive continual learning" (arXiv:2407.07133). The
recall of an item is the test accuracy on its images.

Shapes: T items, m classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crwn.lazy import LazyModule

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = LazyModule("scipy.stats")

CHANCE = 0.05
"""An item is memorised if chance gives as many hits with at most this probability."""


def memorised(answered_Tm: NDArray[Any], labels_T: Sequence[int]) -> NDArray[Any]:
    """Whether each item is recalled better than chance [T], given how often each class was predicted.

    If predictions were independent of the images, an item's hits would follow a hypergeometric distribution: one draw
    for each time that its label is predicted, from the test images of all these items. An item is memorised if the
    probability of at least its number of hits is at most 5 %. The authors instead compare with 1,000 shuffles of the
    labels.

    Deviation: an item that was never predicted is not memorised. (Under the authors' strict inequality it is, since
    its hits and their 95 % quantile are both zero.)

    Args:
        answered_Tm: how often each class was predicted in the test of each item trained so far.
        labels_T: each item's class.
    """
    labels, num_test_T = list(labels_T), answered_Tm.sum(axis=1)
    hits_T, answers_T = answered_Tm[range(len(labels)), labels], answered_Tm.sum(axis=0)[labels]
    chance_T = stats.hypergeom.sf(hits_T - 1, num_test_T.sum(), num_test_T, answers_T)
    found: NDArray[Any] = (answers_T > 0) & (chance_T <= CHANCE)
    return found


def partial_rank_correlation(x_T: NDArray[Any], y_T: NDArray[Any], given_T: NDArray[Any]) -> float:
    """Spearman's correlation of x and y, given a third; NaN if any of the three is constant or determined by the third.

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)), r over ranks, with means for ties.
    """
    ranks = [stats.rankdata(values) for values in (x_T, y_T, given_T)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return np.nan
    r = np.corrcoef(ranks)
    rest = (1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt(rest)) if rest > 0 else np.nan


def of_frequency(recall_T: NDArray[Any], trainings: Sequence[int]) -> tuple[float, float]:
    """Recall's partial correlations with how often and with how recently an item was trained, each given the other.

    Args:
        recall_T: recall of each item at the end.
        trainings: the item of each training, in order; every item occurs.
    """
    order, items = np.asarray(trainings), range(len(recall_T))
    frequency_T = np.array([(order == item).sum() for item in items])
    last_T = np.array([np.flatnonzero(order == item)[-1] for item in items])
    return (
        partial_rank_correlation(recall_T, frequency_T, last_T),
        partial_rank_correlation(recall_T, last_T, frequency_T),
    )
