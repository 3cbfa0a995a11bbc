"""The modulated linear layer: fixed random weights, seen by each task through its own context and strength.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), W_t = a_t (R * c_t), y = W_t x.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def modulated_linear(
    input_GBI: torch.Tensor, weight_OI: torch.Tensor, context_GI: torch.Tensor, strength_G: torch.Tensor
) -> torch.Tensor:
    """y = R (e * x) with e = a c: equal to a (R * c) x, in a form in which all tasks share one product with R.

    Args:
        input_GBI: examples of each task.
        weight_OI: R, which gets no gradient.
        context_GI: c, one number for each input.
        strength_G: a, one number a task.

    Returns:
        [G, B, O].
    """
    effective_GI = strength_G[:, None] * context_GI
    return functional.linear(input_GBI * effective_GI[:, None, :], weight_OI)
