"""Orders in which items are trained.

Shapes: T items.
"""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from crwn import seeding

UNCORRELATED = Fraction(1, 10)
"""Bound of Spearman's correlation between frequency and last position."""

EXCHANGES = 30
"""Swaps per training when mixing an order: enough to forget the order that it began with."""


def derangement(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A random cyclic permutation; with at least two elements, none stays in place."""
    order = generator.permutation(count)
    result = np.empty_like(order)
    result[order] = np.roll(order, -1)
    return result


def graded_order(count: int, seed: int) -> tuple[int, ...]:
    """Items in which item k occurs k + 1 times, and Spearman's correlation with the last position is below 0.1.

    The order of last occurrences is drawn until it is uncorrelated. The sequence is then filled from its end: each
    place gets a random item, in proportion to its remaining occurrences, but an item that has not occurred yet is
    replaced by the next one in that order. This crowds the last positions at the end; `mixed_order` does not.
    """
    generator = seeding.numpy_generator(seed, "items", "order")
    while True:
        lasts = generator.permutation(count)  # from the end of the sequence
        squares = int(((np.argsort(lasts) - np.arange(count)) ** 2).sum())
        if abs(Fraction(6 * squares, count * (count**2 - 1)) - 1) < UNCORRELATED:
            break
    left, waiting, order = np.arange(1, count + 1), lasts.tolist(), []
    while left.any():
        item = int(np.searchsorted(np.cumsum(left), generator.integers(left.sum()), side="right"))
        if item in waiting:
            item = waiting.pop(0)
        left[item] -= 1
        order.append(item)
    return tuple(reversed(order))


@functools.cache
def mixed_order(count: int, seed: int) -> tuple[int, ...]:
    """Items in which item k occurs k + 1 times, and Spearman's correlation with the last position is below 0.1.

    A random walk over all such sequences, uniform in the limit: each step swaps two places unless that would exceed the
    bound, so the order is random apart from the bound. The walk begins with all occurrences but the last ones, followed
    by the last ones in an order drawn until the bound holds.
    """
    generator = seeding.numpy_generator(seed, "items", "mixed")
    items_T = np.arange(count)
    order = np.concatenate([generator.permutation(np.repeat(items_T, items_T)), generator.permutation(items_T)])
    while not _is_uncorrelated(order, count):
        order[-count:] = generator.permutation(items_T)
    for one, other in generator.integers(len(order), size=(EXCHANGES * len(order), 2)):
        order[[one, other]] = order[[other, one]]
        if not _is_uncorrelated(order, count):
            order[[one, other]] = order[[other, one]]
    return tuple(order.tolist())


def _is_uncorrelated(order: NDArray[np.int64], count: int) -> bool:
    """Whether Spearman's correlation between an item's number and its last position is within the bound."""
    last_T = np.zeros(count, dtype=np.int64)
    np.maximum.at(last_T, order, np.arange(len(order)))
    squares = int(((np.argsort(np.argsort(last_T)) - np.arange(count)) ** 2).sum())
    return abs(Fraction(6 * squares, count * (count**2 - 1)) - 1) < UNCORRELATED
