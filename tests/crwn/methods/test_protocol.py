"""What methods share: scales, layers and the random streams of tasks' starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from crwn.methods.protocol import (
    FULLY_CONNECTED,
    ScaleError,
    ScaleFamily,
    Surroundings,
    parse_scale,
)
from crwn.spec import ProblemShape
from tests.crwn.methods.building import plain_surroundings
from tests.refusals import refused

PROBLEM = ProblemShape(input_shape=(3, 4, 5), num_classes=7, num_tasks=2)


def surroundings(seed: int = 0, dtype: torch.dtype = torch.float32) -> Surroundings:
    return plain_surroundings("FC8", PROBLEM, seed=seed, dtype=dtype)


def test_a_scale_is_its_number() -> None:
    """FC256 is 256, also in a new family; the largest number has six digits."""
    assert parse_scale("FC256", FULLY_CONNECTED) == 256
    assert parse_scale("FC999999", FULLY_CONNECTED) == 999_999
    assert parse_scale("6w", ScaleFamily(pattern=r"(\d)w", examples="6w")) == 6
    with refused(ScaleError, "unknown-scale", says=["scale: ", "6w", "'16w'"]):
        parse_scale("16w", ScaleFamily(pattern=r"(\d)w", examples="6w"))


Draw = Callable[[Surroundings, list[int], str], torch.Tensor]

every_draw = pytest.mark.parametrize(
    "draw",
    [
        lambda around, tasks, name: around.draw(tasks, name, (3, 5), -1, 1),
        lambda around, tasks, name: around.draw_normal(tasks, name, (3, 5), 2.0),
        lambda around, tasks, name: around.draw_signs(tasks, name, (3, 5)),
    ],
    ids=["uniform", "normal", "signs"],
)


@every_draw
def test_draws_depend_on_seed_task_and_name(draw: Draw) -> None:
    """A task's numbers are the same in any group; another task, name or seed gives others."""
    drawn = draw(surroundings(), [4, 2], "x")
    assert drawn.shape == (2, 3, 5)
    assert torch.equal(draw(surroundings(), [2], "x"), drawn[1:])
    others = [
        draw(surroundings(), [3], "x"),
        draw(surroundings(), [2], "y"),
        draw(surroundings(seed=1), [2], "x"),
    ]
    starts = {tensor.numpy().tobytes() for tensor in [drawn[:1], drawn[1:], *others]}
    assert len(starts) == 5


def test_draws_are_uniform_between_their_bounds() -> None:
    """All within [low, high], and every tenth of the range is hit by a tenth, to five binomial deviations."""
    drawn = surroundings().draw([0], "x", (100, 100), -2, 3)[0].flatten()
    assert drawn.min() >= -2
    assert drawn.max() <= 3
    counts = torch.histc(drawn, bins=10, min=-2, max=3)
    assert (counts - 1000).abs().max() < 5 * (10_000 * 0.1 * 0.9) ** 0.5


def test_normal_draws_have_their_deviation() -> None:
    """Mean 0, deviation s, kurtosis 3: of n numbers within five of s/sqrt(n), s/sqrt(2n) and sqrt(24/n)."""
    drawn = surroundings().draw_normal([0], "x", (100, 100), 0.3)[0].double()
    num = drawn.numel()
    assert abs(drawn.mean()) < 5 * 0.3 / num**0.5
    assert abs(drawn.std() - 0.3) < 5 * 0.3 / (2 * num) ** 0.5
    assert abs(((drawn / drawn.std()) ** 4).mean() - 3) < 5 * (24 / num) ** 0.5


def test_signs_are_plus_and_minus_one() -> None:
    """Only these two values, each half of the time, within five deviations of sqrt(n)/2."""
    drawn = surroundings().draw_signs([0], "x", (100, 100))[0]
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    assert abs((drawn == 1).sum() - 5000) < 5 * 100 / 2


@every_draw
def test_draws_are_single_precision_numbers_in_any_dtype(draw: Draw) -> None:
    """A trial in float64 starts from the numbers of the one in float32."""
    single = draw(surroundings(), [0], "x")
    double = draw(surroundings(dtype=torch.float64), [0], "x")
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)
