"""Losses of networks whose units are gated per example by agents trained with rewards.

Source: Varma, Arani & Zonooz 2023, "Dynamically Modular and Sparse General Continual Learning", arXiv:2301.00620, as in
`models/dynamos_sgd.py` of github.com/NeurAI-Lab/DynamicContinualLearning. Losses are weighted over examples, so that
examples can be left out without boolean-mask indexing.

Shapes: B examples, P batches, L gated layers, N gates of all layers; I channels in and O out of a convolution; H
height, W width, X positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from crwn.nn.normalisation import EPSILON

MIN_CORRECT = 3
"""With fewer correctly classified examples, the prototype loss is 0."""


class _Moments(torch.autograd.Function):
    """Each image's channel means over positions [B, I], and each batch's channel covariances [P, I, I]."""

    @staticmethod
    def forward(
        ctx: Any, images_BIHW: torch.Tensor, sizes: tuple[int, ...], belongs_BP: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.sizes, positions = sizes, images_BIHW[0, 0].numel()
        mean_BI = images_BIHW.mean(dim=(2, 3))
        own_BI = belongs_BP @ (belongs_BP.t() @ mean_BI / belongs_BP.sum(dim=0)[:, None])
        ctx.shape = images_BIHW.permute(0, 2, 3, 1).shape
        centred_BXI = (images_BIHW.permute(0, 2, 3, 1) - own_BI[:, None, None]).view(len(mean_BI), positions, -1)
        ctx.save_for_backward(centred_BXI)
        parts = [part.flatten(0, 1) for part in centred_BXI.split(sizes)]
        return mean_BI, torch.stack([(part_XI.t() @ part_XI) / len(part_XI) for part_XI in parts])

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        mean_slope_BI, slope_PII = slopes
        (centred_BXI,) = ctx.saved_tensors
        positions = centred_BXI.shape[1]
        slope_PII = slope_PII + slope_PII.mT
        slope_BXI = torch.empty_like(centred_BXI)
        for part_BXI, slope_II, found_BXI in zip(
            centred_BXI.split(ctx.sizes), slope_PII, slope_BXI.split(ctx.sizes), strict=True
        ):
            part_XI = part_BXI.flatten(0, 1)
            torch.mm(part_XI, slope_II / len(part_XI), out=found_BXI.flatten(0, 1))
        slope_BXI += (mean_slope_BI / positions)[:, None]
        return slope_BXI.view(ctx.shape).permute(0, 3, 1, 2), None, None


def normalised_means(
    images_BIHW: torch.Tensor,
    weight_OI: torch.Tensor,
    affine: tuple[torch.Tensor, torch.Tensor],
    sizes: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The means over positions of a 1x1 convolution after batch normalisation, each batch with its own statistics.

    Nothing as large as the convolution's output is computed: the mean of a linear map is the map of the mean, and an
    output's variance is w C w' with the covariances C of the input's channels.

    Args:
        images_BIHW: the convolution's input, with the batches concatenated.
        weight_OI: its weights.
        affine: the normalisation's gain and shift [O].
        sizes: the number of examples of each batch.

    Returns:
        The means [B, O], and the output's mean and (biased) variance over a batch's images and positions [P, O].
    """
    belongs_BP = torch.block_diag(*[weight_OI.new_ones(size, 1) for size in sizes])
    mean_BI, covariance_PII = _Moments.apply(images_BIHW, tuple(sizes), belongs_BP)
    mean_BO = functional.linear(mean_BI, weight_OI)
    mean_PO = belongs_BP.t() @ mean_BO / belongs_BP.sum(dim=0)[:, None]
    variance_PO = ((weight_OI @ covariance_PII) * weight_OI).sum(dim=2)
    gain_O, shift_O = affine
    scale_PO = (variance_PO + EPSILON).rsqrt() * gain_O
    return (mean_BO - belongs_BP @ mean_PO) * (belongs_BP @ scale_PO) + shift_O, mean_PO, variance_PO


def log_probability(gates_BN: torch.Tensor, logits_BN: torch.Tensor) -> torch.Tensor:
    """The log-probability of each gate, which is 1 with probability sigmoid(logit): [B, N]."""
    return -functional.binary_cross_entropy_with_logits(logits_BN, gates_BN, reduction="none")


def rewards(
    shares_BL: torch.Tensor, correct_B: torch.Tensor, *, keep_ratio: float, wrong_factor: float
) -> torch.Tensor:
    """The reward of each layer's gates: -(keep_ratio - share kept)^2, times a factor for misclassified examples.

    Args:
        shares_BL: the share of a layer's gates that are 1.
        correct_B: whether the example is classified correctly.
        keep_ratio: the share to keep.
        wrong_factor: the factor for misclassified examples.

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
        log_p_BL: the joint log-probability of each layer's gates.
        rewards_BL: their rewards.
        weights_B: weights of the examples, which sum to 1.
    """
    return -((rewards_BL * log_p_BL).mean(dim=1) * weights_B).sum()


def prototype_loss(logits_BN: torch.Tensor, labels_B: torch.Tensor, correct_B: torch.Tensor) -> torch.Tensor:
    """(1 + the distances within classes) / (1 + the distances between classes) of the gates' logits.

    Each distance is the sum of squared distances over unordered pairs of correctly classified examples, divided by N.
    With fewer than three such examples the loss is 0.

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
