"""Losses of several tasks at once, in at least single precision.

Shapes: G tasks, B examples per task, m classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from crwn.nn.kernels import cast


def by_class(logits_GBm: torch.Tensor) -> torch.Tensor:
    """The scores as [G, m, B], in at least single precision: with few classes, softmax is several times faster so."""
    return _single(logits_GBm).mT.contiguous()


SMALL = 16
"""Batch size up to which fewer operations matter more than faster ones."""
_slopes = torch.ops.aten._log_softmax_backward_data.default


def cross_entropies(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of each example, in nats: [G, B]."""
    if _is_small(logits_GBm):
        return functional.cross_entropy(_single(logits_GBm[0]), labels_GB[0], reduction="none")[None]
    return functional.cross_entropy(by_class(logits_GBm), labels_GB, reduction="none")


def cross_entropy(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy over each task's examples, in nats: [G]."""
    return cross_entropies(logits_GBm, labels_GB).mean(dim=1)


def with_slopes(
    logits_GBm: torch.Tensor, labels_GB: torch.Tensor, weights_GB: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`cross_entropies`, and the gradient of their weighted sum to the scores, w (p - 1 at the label): [G, B, m].

    It runs the operations that autograd would run, so the values and the memory layout are the same.

    Args:
        logits_GBm: the scores.
        labels_GB: the labels.
        weights_GB: w, per example or the same for all.
    """
    if _is_small(logits_GBm):
        weights = weights_GB if isinstance(weights_GB, float) else weights_GB[0]
        losses, slopes = _with_slopes(_single(logits_GBm[0]), labels_GB[0], weights)
        return losses[None], cast(slopes, logits_GBm.dtype)[None]
    losses, slopes = _with_slopes(by_class(logits_GBm), labels_GB, weights_GB)
    return losses, cast(slopes.mT, logits_GBm.dtype)


def mean_with_slopes(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`cross_entropy`, and the gradient of its sum to the scores: [G, B, m]."""
    losses_GB, slopes_GBm = with_slopes(logits_GBm, labels_GB, 1 / labels_GB.shape[1])
    return losses_GB.mean(dim=1), slopes_GBm


def _with_slopes(
    scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`with_slopes` for scores [X, m, ...] by class, with labels and weights [X, ...]."""
    log_p = scores.log_softmax(dim=1)
    known, places = log_p.detach(), labels.unsqueeze(1)
    negated = -weights if isinstance(weights, float) else -weights.unsqueeze(1)
    at_labels = torch.zeros_like(known).scatter_(1, places, negated)
    return functional.nll_loss(log_p, labels, reduction="none"), _slopes(at_labels, known, 1, known.dtype)


def _is_small(logits_GBm: torch.Tensor) -> bool:
    return logits_GBm.shape[0] == 1 and logits_GBm.shape[1] <= SMALL


def _single(scores: torch.Tensor) -> torch.Tensor:
    """The scores in at least single precision."""
    return cast(scores, torch.promote_types(scores.dtype, torch.float32))
