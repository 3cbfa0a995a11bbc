"""Overlap of classes' activities: by hand, against scipy's, and what chance gives."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from crwn import modularity
from crwn.faults import InvalidError
from tests.refusals import refused

ACTIVITY = np.array([[1.0, 0.5, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def test_overlap_by_hand() -> None:
    """Minima 1 and maxima 2 of the first two rows; two rows of zeros are alike."""
    found = modularity.overlap(ACTIVITY)
    expected = [[1, 1 / 2, 0, 0], [1 / 2, 1, 0.5 / 2, 0], [0, 0.5 / 2, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_correlation_is_scipys() -> None:
    """Over the pairs of classes above the diagonal."""
    generator = np.random.default_rng(0)
    activity, images = generator.random((6, 20)), generator.random((6, 30))
    found = modularity.measure(activity, images, permutations=9)
    pairs = list(itertools.combinations(range(6), 2))
    overlaps = [
        np.minimum(activity[i], activity[j]).sum() / np.maximum(activity[i], activity[j]).sum() for i, j in pairs
    ]
    similarities = [stats.pearsonr(images[i], images[j]).statistic for i, j in pairs]
    assert found.spearman == pytest.approx(stats.spearmanr(overlaps, similarities).statistic, abs=1e-12)


def test_p_is_the_share_of_permutations() -> None:
    """Of four classes, with the 24 permutations enumerated; sampled ones are within five deviations."""
    generator = np.random.default_rng(1)
    activity, images = generator.random((4, 8)), generator.random((4, 8))
    overlaps, similarities = modularity.overlap(activity), np.corrcoef(images)
    pairs = np.triu_indices(4, k=1)

    def spearman(order: tuple[int, ...]) -> float:
        return float(stats.spearmanr(overlaps[np.ix_(order, order)][pairs], similarities[pairs]).statistic)

    exact = np.mean([spearman(order) >= spearman((0, 1, 2, 3)) - 1e-9 for order in itertools.permutations(range(4))])
    found = modularity.measure(activity, images, permutations=2000).p
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 2000) + 1e-3)


def test_classes_that_look_alike_and_overlap_are_found() -> None:
    """Bumps that move from class to class: the further apart, the less they overlap and correlate."""
    places = np.arange(60.0)
    activity = np.stack([np.exp(-(((places - 10 - 4 * label) / 8) ** 2)) for label in range(10)])
    found = modularity.measure(activity, activity, permutations=999)
    assert found.spearman > 0.9
    assert found.p == pytest.approx(0.001)
    shuffled = modularity.measure(activity, np.random.default_rng(2).permutation(activity), permutations=999)
    assert shuffled.p > 0.01


def test_pairs_of_a_task_are_apart_from_others() -> None:
    """Means over the pairs: rows 0 and 1 are a task, and so are 2 and 3."""
    images = np.random.default_rng(3).random((4, 5))
    found = modularity.measure(ACTIVITY, images, [(0, 1), (2, 3)], permutations=1)
    assert found.same_task == pytest.approx((0.5 + 0) / 2)
    assert found.other_tasks == pytest.approx((0 + 0 + 0.25 + 0) / 4)
    assert math.isnan(modularity.measure(ACTIVITY, images, permutations=1).same_task)


@pytest.mark.parametrize(("activity", "images"), [(2, 2), (4, 3)])
def test_too_few_classes_are_refused(activity: int, images: int) -> None:
    """And numbers of classes that differ."""
    with refused(InvalidError, "classes-do-not-fit", says=[str(activity), str(images)]):
        modularity.measure(np.ones((activity, 2)), np.ones((images, 2)))


def test_equal_pairs_have_no_rank_correlation() -> None:
    """Units that all classes use alike say nothing, and that is what comes out: no number, and no p."""
    draw = np.random.default_rng(0)
    measured = modularity.measure(np.ones((4, 3)), draw.random((4, 9)), permutations=9)
    assert np.isnan(measured.spearman)
    assert np.isnan(measured.p)
    assert measured.overlap.tolist() == np.ones((4, 4)).tolist()
