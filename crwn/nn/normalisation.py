"""Batch normalisation of several tasks at once, with separate statistics for each task's channels.

Source: Ioffe & Szegedy 2015, arXiv:1502.03167, with torch's momentum (0.1) and epsilon (1e-5).

Shapes: G tasks, B examples per task, C channels, H height, W width.
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
    """(x - mean) / sqrt(variance + 1e-5) per task and channel, times a gain and plus a shift if given.

    Args:
        input_BXHW: [B, G C, H, W].
        statistics: running mean and variance [G, C], updated in place in training and used in tests; None: use the
            batch's own in both.
        training: whether to use the batch's statistics.
        affine: gain and shift [G, C].

    Returns:
        [B, G C, H, W].
    """
    mean_X, variance_X = (tensor.view(-1) for tensor in statistics) if statistics is not None else (None, None)
    gain_X, shift_X = (tensor.flatten() for tensor in affine) if affine is not None else (None, None)
    return functional.batch_norm(
        input_BXHW, mean_X, variance_X, gain_X, shift_X, training=training or statistics is None
    )
