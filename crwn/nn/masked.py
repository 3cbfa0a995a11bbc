"""The masked linear layer: fixed weights of which each task learns which ones to use.

Source: SupSup (Wortsman et al. 2020, arXiv:2006.14769), section 3, after "What's Hidden in a Randomly Weighted Neural
Network?" (Ramanujan et al. 2020), whose straight-through gradient trains the scores.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch

from crwn.nn import dense
from crwn.nn.kernels import Kernel


def masked_weights(scores_GOI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """W * m with m = 1 where a score is at least 0, else 0; [G, O, I] in W's dtype.

    The gradient passes to the scores as if the mask were the scores: dL/ds = W * dL/d(W * m). W gets none.
    """
    weights: torch.Tensor = _MaskedWeights.apply(scores_GOI, weight_OI)
    return weights


class _MaskedWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores_GOI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight_OI)
        # Compared straight into W's dtype: a mask of booleans would be converted, which takes several times as long.
        mask_GOI = torch.empty_like(scores_GOI, dtype=weight_OI.dtype)
        return torch.ge(scores_GOI, 0, out=mask_GOI).mul_(weight_OI)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad_GOI,) = grads
        (weight_OI,) = ctx.saved_tensors
        return grad_GOI * weight_OI, None


def masked_linear(
    input_GBI: torch.Tensor, weight_OI: torch.Tensor, scores_GOI: torch.Tensor, kernel: Kernel
) -> torch.Tensor:
    """y = (W * m) x, a product for each task.

    Args:
        input_GBI: examples of each task.
        weight_OI: fixed weights, which get no gradient.
        scores_GOI: a task's mask m is 1 where its score is at least 0.
        kernel: of the products.

    Returns:
        [G, B, O].
    """
    return dense.own_linear(input_GBI, masked_weights(scores_GOI, weight_OI), kernel)
