"""How plastic a weight is, against its formula."""

from __future__ import annotations

import math

import pytest
import torch

from crwn.nn.flexibility import plasticity


def test_alpha_is_what_its_formula_gives() -> None:
    """Over a grid of f, s and dw in float64, by the formula in Python; its limits exactly, and never NaN."""
    for f in (2.0**-24, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0):
        for s in (1.0, 1e3, 4e5):
            for dw in (0.0, 1e-7, -1e-4, 0.02, -3.0):
                expected = 1 - math.tanh(s * dw * (1 - f) / f) ** 2
                found = plasticity(torch.tensor([dw], dtype=torch.float64), torch.tensor([f], dtype=torch.float64), s)
                assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
                if f == 1 or dw == 0:
                    assert found.item() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weight_without_flexibility_never_moves(dtype: torch.dtype) -> None:
    """f = 0 gives 0, also where the weight is still where it began: 0 / 0, written naively."""
    moved = torch.tensor([0.0, 1e-30, 1.0, -1e30], dtype=dtype)
    assert plasticity(moved, torch.zeros(4, dtype=dtype), 4e5).tolist() == [0, 0, 0, 0]
