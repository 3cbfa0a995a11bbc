"""The masked linear layer: its weights are fixed, and each task learns which of them to use.

Source: SupSup (Wortsman et al. 2020, arXiv:2006.14769), section 3, after "What's Hidden in a Randomly Weighted Neural
Network?" (Ramanujan et al. 2020), whose straight-through gradient trains the scores.

Shapes: G tasks, B examples per task, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch.nn import functional


def masked_weights(scores_GOI: torch.Tensor, weight_OI: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """W * m, where m is 1 if a score is at least 0, else 0.

    The gradient is straight-through, as if the mask were the scores: dL/ds = W * dL/d(W * m). W gets none.

    Args:
        scores_GOI: each task's scores.
        weight_OI: W, in the scores' dtype.
        dtype: dtype of the result.

    Returns:
        [G, O, I].
    """
    weights: torch.Tensor = _MaskedWeights.apply(scores_GOI, weight_OI, dtype)
    return weights


class _MaskedWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores_GOI: torch.Tensor, weight_OI: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        ctx.save_for_backward(weight_OI)
        return by_threshold(scores_GOI, weight_OI).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grad_GOI,) = grads
        (weight_OI,) = ctx.saved_tensors
        return to_scores(grad_GOI, weight_OI), None, None


def by_threshold(scores_GOI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """W * m of `masked_weights`, in W's dtype: [G, O, I]. Not differentiable."""
    # Keep W where the score is above the largest number below 0: one pass; `where` takes twenty times as long.
    masked_GOI: torch.Tensor = torch.ops.aten.threshold_backward(weight_OI, scores_GOI, _below_zero(scores_GOI.dtype))
    return masked_GOI


@functools.cache
def _below_zero(dtype: torch.dtype) -> float:
    """The largest number below 0."""
    info = torch.finfo(dtype)
    return float(-info.smallest_normal * info.eps)


def to_scores(grad_GOI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """The gradient with respect to the scores, W * dL/d(W * m), in W's dtype: [G, O, I]."""
    if grad_GOI.dtype == weight_OI.dtype:
        return grad_GOI * weight_OI
    return grad_GOI.to(weight_OI.dtype).mul_(weight_OI)


def budget_masked_weights(
    scores_GX: torch.Tensor, weight_X: torch.Tensor, share: float, dtype: torch.dtype
) -> torch.Tensor:
    """W * m, where m is 1 for the given share of each task's scores that are largest in magnitude, else 0.

    SupSup's mask for convolutions, after edge-popup. The gradient is straight-through, as if the mask were the
    magnitudes of the scores: dL/ds = sign(s) * W * dL/d(W * m).

    Args:
        scores_GX: each task's scores, in W's shape.
        weight_X: W, fixed, in the scores' dtype; it gets no gradient.
        share: the share of weights to keep, above 0 and at most 1; rounded up to whole weights.
        dtype: dtype of the result.

    Returns:
        [G, *X].
    """
    weights: torch.Tensor = _BudgetMaskedWeights.apply(scores_GX, weight_X, share, dtype)
    return weights


def budget_mask(scores_GX: torch.Tensor, share: float) -> torch.Tensor:
    """m: per task, 1 for the scores that are largest in magnitude, else 0: [G, *X]."""
    magnitudes_GN = scores_GX.abs().flatten(1)
    kept_GK = magnitudes_GN.topk(math.ceil(share * magnitudes_GN.shape[1]), dim=1).indices
    return torch.zeros_like(magnitudes_GN).scatter_(1, kept_GK, 1).view_as(scores_GX)


class _BudgetMaskedWeights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores_GX: torch.Tensor, weight_X: torch.Tensor, share: float, dtype: torch.dtype
    ) -> torch.Tensor:
        ctx.save_for_backward(scores_GX, weight_X)
        return budget_mask(scores_GX, share).mul_(weight_X).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_GX,) = grads
        scores_GX, weight_X = ctx.saved_tensors
        return grad_GX.to(weight_X.dtype) * weight_X * scores_GX.sign(), None, None, None


def packed_bits(marks_GN: torch.Tensor) -> torch.Tensor:
    """Pack marks eight to a byte, the first in the lowest bit (`numpy.packbits`, little): [G, ceil(N / 8)]."""
    padded_GX8 = functional.pad(marks_GN.to(torch.uint8), (0, -marks_GN.shape[1] % 8)).unflatten(1, (-1, 8))
    packed_GX: torch.Tensor = (padded_GX8 << _places(marks_GN.device)).sum(dim=2, dtype=torch.uint8)
    return packed_GX


def unpacked_bits(packed_GX: torch.Tensor, count: int) -> torch.Tensor:
    """Unpack the first `count` marks from `packed_bits`, 0 or 1: [G, count]."""
    return ((packed_GX[:, :, None] >> _places(packed_GX.device)) & 1).flatten(1)[:, :count]


def _places(device: torch.device) -> torch.Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
