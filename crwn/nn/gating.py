"""The losses of networks whose units are gated per example by agents that learn from rewards.

Source: Varma, Arani & Zonooz 2023, "Dynamically Modular and Sparse General Continual Learning", arXiv:2301.00620, as in
`models/dynamos_sgd.py` of github.com/NeurAI-Lab/DynamicContinualLearning. Losses are means and sums over examples with
weights, so that an example can be left out without a mask as an index.

Shapes: B examples, L gated layers, N gates of all layers.
"""

from __future__ import annotations

import torch
from torch.nn import functional

MIN_CORRECT = 3
"""Correctly classified examples below which the prototype loss is 0."""


def log_probability(gates_BN: torch.Tensor, logits_BN: torch.Tensor) -> torch.Tensor:
    """The log-probability of gates that are 1 with probability sigmoid(logits), each: [B, N]."""
    return -functional.binary_cross_entropy_with_logits(logits_BN, gates_BN, reduction="none")


def rewards(
    shares_BL: torch.Tensor, correct_B: torch.Tensor, *, keep_ratio: float, wrong_factor: float
) -> torch.Tensor:
    """The reward of each layer's gates: -(keep_ratio - share kept)^2, times a factor for wrongly classified examples.

    Args:
        shares_BL: the share of a layer's gates that are 1.
        correct_B: whether the example is classified correctly.
        keep_ratio: the share to keep.
        wrong_factor: the factor.

    Returns:
        [B, L].
    """
    rewards_BL = -((keep_ratio - shares_BL) ** 2)
    return torch.where(correct_B[:, None], rewards_BL, wrong_factor * rewards_BL)


def policy_loss(log_p_BL: torch.Tensor, rewards_BL: torch.Tensor, weights_B: torch.Tensor) -> torch.Tensor:
    """The mean of -reward log p over examples and layers, whose gradient estimates that of minus the expected reward.

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning"
    (REINFORCE, without a baseline).

    Args:
        log_p_BL: the log-probability of a layer's gates together.
        rewards_BL: their rewards.
        weights_B: of the examples; they sum to 1.
    """
    return -((rewards_BL * log_p_BL).mean(dim=1) * weights_B).sum()


def prototype_loss(logits_BN: torch.Tensor, labels_B: torch.Tensor, correct_B: torch.Tensor) -> torch.Tensor:
    """(1 + the distances within classes) / (1 + the distances between them), of the gates' logits.

    A distance is the sum over unordered pairs of correctly classified examples of the squared distance, divided by N.
    With fewer than three of them the loss is 0.

    Args:
        logits_BN: the gates' logits.
        labels_B: the labels.
        correct_B: whether an example is classified correctly.
    """
    squares_B = logits_BN.square().sum(dim=1)
    distances_BB = squares_B[:, None] + squares_B - 2 * logits_BN @ logits_BN.t()
    weights_B = correct_B.to(logits_BN.dtype)
    distances_BB = (distances_BB * (weights_B[:, None] * weights_B)).triu(diagonal=1) / logits_BN.shape[1]
    are_equal_BB = labels_B[:, None] == labels_B
    within, between = distances_BB[None].where(torch.stack([are_equal_BB, ~are_equal_BB]), 0.0).sum(dim=(1, 2))
    return torch.where(correct_B.sum() >= MIN_CORRECT, (1 + within) / (1 + between), 0.0)
