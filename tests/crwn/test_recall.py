"""Measures of recall for a sequence of items, against counting and textbook formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from crwn.recall import memorised, of_frequency, partial_rank_correlation


def by_counting(hits: int, own: int, others: int, answers: int) -> float:
    """The probability of as many hits or more: over all choices of the images that get the answer."""
    images = [True] * own + [False] * others
    choices = list(itertools.combinations(images, answers))
    return sum(sum(chosen) >= hits for chosen in choices) / len(choices)


@pytest.mark.parametrize(("hits", "answers"), [(1, 1), (2, 2), (3, 3), (3, 4), (3, 5), (2, 3)])
def test_an_item_is_memorised_if_chance_would_hardly_hit_as_often(hits: int, answers: int) -> None:
    """Three items of three images each; of the first, so many hits among so many answers."""
    answered = np.zeros((3, 4), dtype=int)
    answered[0, 2], answered[1, 2] = hits, answers - hits
    answered[:, 3] = 3 - answered[:, 2]
    found = memorised(answered, [2, 0, 1])
    assert found.tolist() == [by_counting(hits, 3, 6, answers) <= 0.05, False, False]


def test_what_is_never_answered_is_not_memorised() -> None:
    """Nor is an item that is always predicted."""
    answered = np.array([[0, 50], [0, 50]])
    assert memorised(answered, [0, 1]).tolist() == [False, False]


def test_one_item_alone_is_not_told_from_anything() -> None:
    """Every prediction of its label is correct."""
    assert memorised(np.array([[40, 0]]), [0]).tolist() == [False]


def test_few_shuffles_agree() -> None:
    """With the authors' way: shuffled labels hit less often than the item, in at least 95 % of 4,000 shuffles."""
    generator = np.random.default_rng(0)
    answered, size = np.array([[18, 10, 12], [9, 25, 6], [11, 14, 15]]), 40
    labels = np.repeat(np.arange(3), size)
    answers = np.concatenate([np.repeat(np.arange(3), row) for row in answered])
    shuffles = [generator.permutation(labels) for _ in range(4000)]
    for item, found in enumerate(memorised(answered, [0, 1, 2])):
        chance = np.mean(
            [((answers == item) & (shuffled == item)).sum() >= answered[item, item] for shuffled in shuffles]
        )
        assert abs(chance - 0.05) > 0.01  # else 4,000 shuffles could not tell
        assert found == (chance <= 0.05)


def test_a_partial_correlation_is_that_of_residuals() -> None:
    """Of ranks, after a line through the third's ranks."""
    generator = np.random.default_rng(1)
    x, y, z = generator.normal(size=(3, 20))
    y += x + z
    ranks = [stats.rankdata(values) for values in (x, y, z)]
    rest = [rank - np.polyval(np.polyfit(ranks[2], rank, 1), ranks[2]) for rank in ranks[:2]]
    assert partial_rank_correlation(x, y, z) == pytest.approx(np.corrcoef(rest)[0, 1], rel=1e-9)
    assert math.isnan(partial_rank_correlation(np.ones(20), y, z))
    assert math.isnan(partial_rank_correlation(x, y, y))


def test_recall_by_frequency_and_by_recency() -> None:
    """Recall that is the frequency, and recall that is the last position, in an order where these are apart."""
    trainings = [0, 3, 1, 3, 2, 1, 2, 3, 3, 2, 1, 0]
    frequency, last = np.array([2, 3, 3, 4]), np.array([11, 10, 9, 8])
    assert of_frequency(frequency / 10, trainings)[0] == pytest.approx(1)
    assert of_frequency(last / 20, trainings)[1] == pytest.approx(1)
