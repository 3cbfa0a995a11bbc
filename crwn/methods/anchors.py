"""The quadratic penalty that EWC and SI share: it pulls each weight towards its old value, in proportion to importance.

The penalty, c sum over weights of importance (theta - anchor)^2, is applied through its gradient,
2 c importance (theta - anchor), which is added to the loss's gradient: the same update, for a fifth of the operations.
Learning curves show the loss without the penalty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crwn.lazy import LazyModule
from crwn.methods.protocol import Tensors

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")


def start_anchors(shared: Tensors) -> Tensors:
    """Anchors at the initial trained weights, `anchor.<name>`, and importances of 0, `importance.<name>`."""
    trained = {name: tensor.detach() for name, tensor in shared.items() if tensor.requires_grad}
    anchors = {f"anchor.{name}": tensor.clone() for name, tensor in trained.items()}
    return anchors | {f"importance.{name}": torch.zeros_like(tensor) for name, tensor in trained.items()}


def pulled(gradients: Tensors, state: Tensors, strength: float) -> Tensors:
    """The gradients by name, plus the penalty's gradient.

    Args:
        gradients: the gradients of the loss.
        state: holds the weights, and anchors and importances as memory.
        strength: c; with 0, nothing is added.
    """
    if strength == 0:
        return gradients
    return {
        name: torch.addcmul(
            gradient, state[f"importance.{name}"], state[name] - state[f"anchor.{name}"], value=2 * strength
        )
        for name, gradient in gradients.items()
    }
