"""The masked linear layer: fixed weights of which each task learns which ones to use.

Source: SupSup (Wortsman et al. 2020, arXiv:2006.14769), section 3, after "What's Hidden in a Randomly Weighted Neural
Network?" (Ramanujan et al. 2020), whose straight-through gradient trains the scores.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

import torch


def threshold_mask(scores: torch.Tensor) -> torch.Tensor:
    """1 where a score is at least 0, else 0; the gradient passes to the scores as if the mask were the scores."""
    mask = (scores >= 0).to(scores.dtype)
    return mask + (scores - scores.detach())  # the bracket is exactly 0: it carries the gradient, not a value


def masked_linear(input_GBI: torch.Tensor, weight_OI: torch.Tensor, mask_GOI: torch.Tensor) -> torch.Tensor:
    """y = (W * m) x, a product for each task.

    Args:
        input_GBI: examples of each task.
        weight_OI: fixed weights, which get no gradient.
        mask_GOI: zeros and ones.

    Returns:
        [G, B, O].
    """
    return torch.bmm(input_GBI, (weight_OI * mask_GOI).transpose(1, 2))
