"""Dense layers whose weights are a task's own, and layers that a task sees through a rotation or a rank-one factor.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def own_linear(input_GBI: torch.Tensor, weight_GOI: torch.Tensor) -> torch.Tensor:
    """y = W_t x, a product for each task: [G, B, O]."""
    return torch.bmm(input_GBI, weight_GOI.transpose(1, 2))


def rotated_linear(input_GBI: torch.Tensor, weight_OI: torch.Tensor, rotation_GII: torch.Tensor) -> torch.Tensor:
    """y = W (C_t x) with an orthogonal C_t (Cheung et al. 2019, arXiv:1902.05522, "rotational superposition").

    Args:
        input_GBI: examples of each task.
        weight_OI: W, which all tasks share.
        rotation_GII: C, one matrix a task.

    Returns:
        [G, B, O].
    """
    return functional.linear(own_linear(input_GBI, rotation_GII), weight_OI)


def rank_one_linear(
    input_GBI: torch.Tensor, weight_OI: torch.Tensor, out_factor_GO: torch.Tensor, in_factor_GI: torch.Tensor
) -> torch.Tensor:
    """y = ((x * s) W^T) * r, equal to (W * r s^T) x (Wen et al. 2020, arXiv:2002.06715, equation 5).

    Args:
        input_GBI: examples of each task.
        weight_OI: W, which all tasks share.
        out_factor_GO: r, one number for each output.
        in_factor_GI: s, one number for each input.

    Returns:
        [G, B, O].
    """
    return functional.linear(input_GBI * in_factor_GI[:, None, :], weight_OI) * out_factor_GO[:, None, :]
