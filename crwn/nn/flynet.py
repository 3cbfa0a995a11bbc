"""FlyNet's fixed encoder, after the fly's mushroom body: sparse random sums, global inhibition, rectification.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), FlyNet.

Shapes: G tasks, B examples a task, D input features, N hidden units.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def encode(input_GBD: torch.Tensor, encoder_ND: torch.Tensor, inhibition: float) -> torch.Tensor:
    """h = relu(z - gamma mean(z)) with z = E x.

    Args:
        input_GBD: examples of each task.
        encoder_ND: E, zeros and ones.
        inhibition: gamma, how much of the units' mean is subtracted from each.

    Returns:
        [G, B, N].
    """
    units_GBN = functional.linear(input_GBD, encoder_ND)
    return functional.relu(units_GBN - inhibition * units_GBN.mean(dim=-1, keepdim=True))
