"""Orders in which items are trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pytest
from scipy import stats

from crwn.benchmarks.orders import derangement, graded_order, mixed_order

OrderOf: TypeAlias = Callable[[int, int], tuple[int, ...]]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_no_place_stays(count: int) -> None:
    """No element keeps its place, for many seeds."""
    for seed in range(50):
        moved = derangement(count, np.random.default_rng(seed))
        assert sorted(moved) == list(range(count))
        assert (moved != np.arange(count)).all()


@pytest.mark.parametrize("order_of", [graded_order, mixed_order])
@pytest.mark.parametrize("count", [4, 5, 10])
def test_frequency_and_last_position_are_uncorrelated(order_of: OrderOf, count: int) -> None:
    """Item k occurs k + 1 times; Spearman's correlation by its textbook formula; seeds have orders of their own."""
    orders = set()
    for seed in range(50):
        order = order_of(count, seed)
        orders.add(order)
        assert Counter(order) == {item: item + 1 for item in range(count)}
        lasts = [max(place for place, item in enumerate(order) if item == one) for one in range(count)]
        ranks = np.argsort(np.argsort(lasts))
        spearman = 1 - 6 * ((ranks - np.arange(count)) ** 2).sum() / (count * (count**2 - 1))
        assert abs(spearman) < 0.1 - 1e-9
    assert len(orders) > 30


def test_a_mixed_order_is_as_random_as_its_bound_allows() -> None:
    """Positions are distributed as in random orders that are rejected if they exceed the bound."""
    count, generator = 6, np.random.default_rng(0)
    items = np.repeat(np.arange(count), np.arange(1, count + 1))

    def lasts(order: Sequence[int]) -> np.ndarray:
        return np.array([max(place for place, item in enumerate(order) if item == one) for one in range(count)])

    kept: list[np.ndarray] = []
    while len(kept) < 300:
        drawn = generator.permutation(items)
        if abs(stats.spearmanr(lasts(drawn.tolist()), np.arange(count)).statistic) < 0.1:
            kept.append(drawn)
    walked = [np.array(mixed_order(count, seed)) for seed in range(300)]
    for item in range(count):
        for of in (lambda order, item=item: lasts(order.tolist())[item], lambda order, item=item: order[item]):
            assert stats.ks_2samp([of(order) for order in kept], [of(order) for order in walked]).pvalue > 1e-3
