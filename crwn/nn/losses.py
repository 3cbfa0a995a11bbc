"""Losses of several tasks at once, in at least single precision.

Shapes: G tasks, B examples per task, m classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def by_class(logits_GBm: torch.Tensor) -> torch.Tensor:
    """The scores as [G, m, B], in at least single precision: with few classes, softmax is several times faster so."""
    return logits_GBm.to(torch.promote_types(logits_GBm.dtype, torch.float32)).mT.contiguous()


SMALL = 16
"""Batch size up to which fewer operations matter more than faster ones."""


def cross_entropies(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of each example, in nats: [G, B]."""
    if _is_small(logits_GBm):
        return functional.cross_entropy(_single(logits_GBm), labels_GB[0], reduction="none")[None]
    return functional.cross_entropy(by_class(logits_GBm), labels_GB, reduction="none")


def cross_entropy(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy over each task's examples, in nats: [G]."""
    return cross_entropies(logits_GBm, labels_GB).mean(dim=1)


@torch.no_grad()
def slopes(logits_GBm: torch.Tensor, labels_GB: torch.Tensor, weights_GB: torch.Tensor) -> torch.Tensor:
    """The gradient of a weighted sum of `cross_entropies` to the scores, w (p - 1 at the label): [G, B, m].

    It runs the operations that autograd would run, so the values and the memory layout are the same.
    """
    if _is_small(logits_GBm):
        return _slopes(_single(logits_GBm), labels_GB[0], weights_GB[0]).to(logits_GBm.dtype)[None]
    return _slopes(by_class(logits_GBm), labels_GB, weights_GB).mT.to(logits_GBm.dtype)


def mean_slopes(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> torch.Tensor:
    """The gradient of `cross_entropy` to the scores: [G, B, m]."""
    dtype = torch.promote_types(logits_GBm.dtype, torch.float32)
    return slopes(logits_GBm, labels_GB, torch.full_like(labels_GB, 1 / labels_GB.shape[1], dtype=dtype))


def _slopes(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`slopes` for scores [X, m, ...] by class, with labels and weights [X, ...]."""
    log_p = scores.log_softmax(dim=1)
    at_labels = torch.zeros_like(log_p).scatter_(1, labels.unsqueeze(1), -weights.unsqueeze(1))
    found: torch.Tensor = torch.ops.aten._log_softmax_backward_data(at_labels, log_p, 1, log_p.dtype)
    return found


def _is_small(logits_GBm: torch.Tensor) -> bool:
    return len(logits_GBm) == 1 and logits_GBm.shape[1] <= SMALL


def _single(logits_1Bm: torch.Tensor) -> torch.Tensor:
    return logits_1Bm[0].to(torch.promote_types(logits_1Bm.dtype, torch.float32))
