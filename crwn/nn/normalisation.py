"""Batch normalisation for tasks side by side: each task's channels with statistics of their own.

Source: Ioffe & Szegedy 2015, arXiv:1502.03167, with torch's momentum (0.1) and epsilon (1e-5).

Shapes: G tasks, B examples a task, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def batch_norm(
    input_BXHW: torch.Tensor,
    statistics: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    training: bool,
    affine: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """(x - mean) / sqrt(variance + 1e-5) for each task and channel, times a gain and plus a shift where there are any.

    Args:
        input_BXHW: [B, G C, H, W].
        statistics: running mean and variance [G, C], moved in place in training and used in tests; None: the batch's
            own in both.
        training: whether the batch's statistics are used.
        affine: gain and shift [G, C].

    Returns:
        [B, G C, H, W].
    """
    mean_X, variance_X = (tensor.view(-1) for tensor in statistics) if statistics is not None else (None, None)
    gain_X, shift_X = (tensor.flatten() for tensor in affine) if affine is not None else (None, None)
    return functional.batch_norm(
        input_BXHW, mean_X, variance_X, gain_X, shift_X, training=training or statistics is None
    )
