"""Losses of tasks side by side, in at least single precision.

Shapes: G tasks, B examples per task, m classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def by_class(logits_GBm: torch.Tensor) -> torch.Tensor:
    """[G, m, B] in at least single precision: over few classes, the softmax is several times faster so."""
    return logits_GBm.to(torch.promote_types(logits_GBm.dtype, torch.float32)).mT.contiguous()


SMALL = 16
"""Examples of a batch, up to which fewer operations are worth more than faster ones."""


def cross_entropies(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> torch.Tensor:
    """Of each example, in nats: [G, B]."""
    if len(logits_GBm) == 1 and logits_GBm.shape[1] <= SMALL:
        single = logits_GBm[0].to(torch.promote_types(logits_GBm.dtype, torch.float32))
        return functional.cross_entropy(single, labels_GB[0], reduction="none")[None]
    return functional.cross_entropy(by_class(logits_GBm), labels_GB, reduction="none")


def cross_entropy(logits_GBm: torch.Tensor, labels_GB: torch.Tensor) -> torch.Tensor:
    """The mean over each task's examples, in nats: [G]."""
    return cross_entropies(logits_GBm, labels_GB).mean(dim=1)
