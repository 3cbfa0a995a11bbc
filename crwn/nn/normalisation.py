"""Batch normalisation of several tasks at once, with separate statistics for each task's channels.

Source: Ioffe & Szegedy 2015, arXiv:1502.03167, with torch's momentum (0.1) and epsilon (1e-5).

Shapes: G tasks, B examples per task, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

EPSILON, MOMENTUM = 1e-5, 0.1


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


def in_parts(
    input_BCHW: torch.Tensor,
    statistics: tuple[torch.Tensor, torch.Tensor],
    *,
    sizes: Sequence[int],
    affine: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Batch normalisation in training of several batches that went through a convolution as one, each on its own.

    Args:
        input_BCHW: the batches, one after another.
        statistics: running mean and variance [C].
        sizes: the number of examples of each batch.
        affine: gain and shift [C].

    Returns:
        [B, C, H, W], and the running mean and variance after each batch.
    """
    moved: list[tuple[torch.Tensor, torch.Tensor]] = []
    return _InParts.apply(input_BCHW, *affine, tuple(sizes), statistics, moved), moved


class _InParts(torch.autograd.Function):
    """Torch's own forward and backward passes, batch by batch, into one tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        input_BCHW: torch.Tensor,
        gain_C: torch.Tensor,
        shift_C: torch.Tensor,
        sizes: tuple[int, ...],
        statistics: tuple[torch.Tensor, torch.Tensor],
        moved: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        parts = []
        for part_BCHW in input_BCHW.split(sizes):
            statistics = (statistics[0].clone(), statistics[1].clone())
            moved.append(statistics)
            parts.append(torch.native_batch_norm(part_BCHW, gain_C, shift_C, *statistics, True, MOMENTUM, EPSILON))
        ctx.sizes = sizes
        ctx.save_for_backward(input_BCHW, gain_C, *[tensor for _, *own in parts for tensor in own])
        return torch.cat([part_BCHW for part_BCHW, _, _ in parts]) if len(parts) > 1 else parts[0][0]

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input_BCHW, gain_C, *own = ctx.saved_tensors
        given = zip(slopes[0].split(ctx.sizes), input_BCHW.split(ctx.sizes), own[::2], own[1::2], strict=True)
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                slope_BCHW, part_BCHW, gain_C, None, None, mean_C, scale_C, True, EPSILON, [True, True, True]
            )
            for slope_BCHW, part_BCHW, mean_C, scale_C in given
        ]
        if len(parts) == 1:
            return (*parts[0], None, None, None)
        slope_BCHW, *affine = zip(*parts, strict=True)
        gain_slope_C, shift_slope_C = (sum(tensors[1:], tensors[0]) for tensors in affine)
        return torch.cat(slope_BCHW), gain_slope_C, shift_slope_C, None, None, None
