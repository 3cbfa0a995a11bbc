"""Measures over the accuracy matrix."""

from __future__ import annotations

import pytest

from crwn.metrics import average_accuracy


@pytest.mark.parametrize(
    ("final", "expected"),
    [((0.25,), 0.25), ((0.5, 1.0), 0.75), ((1.0, 0.8, 0.1, 0.3), 0.55), ((0.0, 0.0), 0.0)],
)
def test_average_accuracy_is_the_mean_over_tasks(final: tuple[float, ...], expected: float) -> None:
    """Worked out by hand: the sum of the last row divided by the number of tasks."""
    result = average_accuracy(final)
    assert result == pytest.approx(expected, abs=1e-15)
    assert type(result) is float
