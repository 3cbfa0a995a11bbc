"""Metaplasticity's maths: how plastic a weight is, given its flexibility and how far it has moved.

Source: Cho, Lee, Baek & Paik, "Neuromimetic metaplasticity for adaptive continual learning" (arXiv:2407.07133), as in
the authors' code (github.com/vsnnlab/Metaplasticity, `trainModel.m`, and the supplement's densities).

Shapes: any; a weight's flexibility is at the weight's own place.
"""

from __future__ import annotations

import torch


def plasticity(moved: torch.Tensor, flexibility: torch.Tensor, steepness: float) -> torch.Tensor:
    """alpha of each weight, in [0, 1]: exactly 1 where f = 1, or f > 0 and the weight has not moved; 0 where f = 0.

    Args:
        moved: w - w_0.
        flexibility: f, in the same shape.
        steepness: s.
    """
    stiffness = (1 - flexibility) / torch.where(flexibility > 0, flexibility, 1)
    alpha = 1 - torch.tanh(steepness * moved * stiffness).square()
    return torch.where(flexibility > 0, alpha, 0)


def quantile(unit: torch.Tensor, density: str) -> torch.Tensor:
    """Where uniform numbers in [0, 1) lie under a density on [0, 1].

    Args:
        unit: the numbers.
        density: `uniform`, 1; `rising`, 0.5 + x; or `falling`, 1.5 - x.
    """
    if density == "uniform":
        return unit
    rising = (0.25 + 2 * unit).sqrt() - 0.5
    return rising if density == "rising" else 1 - rising
