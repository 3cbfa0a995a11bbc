"""How modular a network is: whether classes that look alike use the same units.

The overlap of two classes' mean activities is the sum over units of their minima divided by that of their maxima
(Ruzicka's similarity, 1 for equal activities). Spearman's rank correlation over all pairs of classes relates it to the
correlation of the classes' mean images. Pairs share classes, so they are not independent: the p-value is Mantel's ("The
detection of disease clustering and a generalized regression approach", Cancer Research 27, 1967), from permutations of
the classes.

Shapes: C classes, N units, d values per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from crwn.faults import InvalidError

MIN_CLASSES = 3
"""With fewer there is at most one pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modularity:
    """How the overlap of classes' units relates to the similarity of their images.

    Attributes:
        overlap: of every two classes' activities [C, C].
        similarity: of every two classes' mean images [C, C].
        spearman: their rank correlation over pairs; NaN if either is the same for all pairs.
        p: the share of permutations of the classes with at least this correlation, the given order included; NaN if
            `spearman` is.
        same_task: mean overlap of pairs within a task; NaN if there are none.
        other_tasks: mean overlap of all other pairs; NaN if there are none.
    """

    overlap: NDArray[np.float64]
    similarity: NDArray[np.float64]
    spearman: float
    p: float
    same_task: float
    other_tasks: float


def overlap(activity_CN: ArrayLike) -> NDArray[np.float64]:
    """The sum of minima divided by the sum of maxima of non-negative activities, [C, C]; 1 if both are all zero."""
    given_CN = np.asarray(activity_CN, dtype=np.float64)
    smaller_CC = np.minimum(given_CN[:, None], given_CN).sum(axis=2)
    larger_CC = np.maximum(given_CN[:, None], given_CN).sum(axis=2)
    shares_CC: NDArray[np.float64] = np.ones_like(larger_CC)
    np.divide(smaller_CC, larger_CC, out=shares_CC, where=larger_CC > 0)
    return shares_CC


def measure(
    activity_CN: ArrayLike,
    images_Cd: ArrayLike,
    tasks: Sequence[Sequence[int]] = (),
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> Modularity:
    """Measure how the overlap of classes' activities relates to the correlation of their mean images.

    Args:
        activity_CN: the mean activity of every unit for each class, non-negative.
        images_Cd: each class's mean image.
        tasks: the rows of each task's classes.
        permutations: number of permutations of the classes, for the p-value.
        seed: of the permutations.

    Raises:
        ValueError: there are fewer than three classes, or not equally many activities and images.
    """
    given_CN, means_Cd = (np.asarray(given, dtype=np.float64) for given in (activity_CN, images_Cd))
    if len(given_CN) != len(means_Cd) or len(given_CN) < MIN_CLASSES:
        raise InvalidError(
            "classes-do-not-fit",
            f"expected activities and mean images of the same {MIN_CLASSES} or more classes, given {len(given_CN)} and "
            f"{len(means_Cd)}",
        )
    overlap_CC = overlap(given_CN)
    similarity_CC: NDArray[np.float64] = np.atleast_2d(np.corrcoef(means_Cd))
    pairs = np.triu_indices(len(given_CN), k=1)
    ranks = stats.rankdata(similarity_CC[pairs])

    def correlation(order_C: NDArray[np.int64]) -> float:
        permuted = overlap_CC[np.ix_(order_C, order_C)][pairs]
        return float(np.corrcoef(stats.rankdata(permuted), ranks)[0, 1])

    found, p = float("nan"), float("nan")
    if np.ptp(overlap_CC[pairs]) > 0 and np.ptp(ranks) > 0:
        generator = np.random.default_rng(seed)
        found = correlation(np.arange(len(given_CN)))
        null = [correlation(generator.permutation(len(given_CN))) for _ in range(permutations)]
        # Summing in a different order changes the last digits.
        p = (1 + sum(other >= found - 1e-12 for other in null)) / (1 + permutations)
    task_of = {label: task for task, labels in enumerate(tasks) for label in labels}
    places = zip(*(indices.tolist() for indices in pairs), strict=True)
    together = np.array([task_of.get(one, -1) == task_of.get(other, -2) for one, other in places])
    return Modularity(
        overlap=overlap_CC,
        similarity=similarity_CC,
        spearman=found,
        p=p,
        same_task=_mean(overlap_CC[pairs][together]),
        other_tasks=_mean(overlap_CC[pairs][~together]),
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
