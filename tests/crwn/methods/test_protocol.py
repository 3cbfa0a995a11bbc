"""What methods share: scales, layers and the streams that tasks start from."""

from __future__ import annotations

import pytest
import torch

from crwn.methods.protocol import FULLY_CONNECTED, ScaleFamily, Surroundings, fully_connected_layers, parse_scale
from crwn.spec import ProblemShape

PROBLEM = ProblemShape(input_shape=(3, 4, 5), num_classes=7, num_tasks=2)


def surroundings(seed: int = 0, dtype: torch.dtype = torch.float32) -> Surroundings:
    return Surroundings(scale="FC8", problem=PROBLEM, seed=seed, backbone={}, device=torch.device("cpu"), dtype=dtype)


def test_a_scale_is_its_number() -> None:
    """FC256 is 256, in a family of one's own too; the largest number has six digits."""
    assert parse_scale("FC256", FULLY_CONNECTED) == 256
    assert parse_scale("FC999999", FULLY_CONNECTED) == 999_999
    assert parse_scale("6w", ScaleFamily(pattern=r"(\d)w", examples="6w")) == 6
    with pytest.raises(ValueError, match="scale: expected one such as 6w, given '16w'"):
        parse_scale("16w", ScaleFamily(pattern=r"(\d)w", examples="6w"))


def test_the_layers_of_a_fully_connected_network() -> None:
    """d -> H -> H -> m for the channels, height and width of the problem, in the order in which they compute."""
    layers = fully_connected_layers(PROBLEM, 8)
    assert list(layers.items()) == [("layer1", (8, 60)), ("layer2", (8, 8)), ("layer3", (7, 8))]


def test_draws_depend_on_seed_task_and_name() -> None:
    """A task's numbers are the same beside other tasks; another task, name or seed draws others."""
    drawn = surroundings().draw([4, 2], "x", (3, 5), -1, 1)
    assert drawn.shape == (2, 3, 5)
    assert torch.equal(surroundings().draw([2], "x", (3, 5), -1, 1), drawn[1:])
    others = [
        surroundings().draw([3], "x", (3, 5), -1, 1),
        surroundings().draw([2], "y", (3, 5), -1, 1),
        surroundings(seed=1).draw([2], "x", (3, 5), -1, 1),
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


def test_draws_are_single_precision_numbers_in_any_dtype() -> None:
    """A trial in float64 starts from the numbers of the one in float32."""
    single = surroundings().draw([0], "x", (9,), -1, 1)
    double = surroundings(dtype=torch.float64).draw([0], "x", (9,), -1, 1)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)
