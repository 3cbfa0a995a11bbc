"""A pull of each weight to where it was, the stronger the more important it is: what EWC and SI have in common.

The penalty c sum over weights of importance (theta - anchor)^2 enters as its gradient, 2 c importance (theta - anchor),
which is added to that of the loss: the same update, for a fifth of the operations. Learning curves show the loss alone.
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
    """Anchors where the trained weights start, `anchor.<name>`, and importances of 0, `importance.<name>`."""
    trained = {name: tensor.detach() for name, tensor in shared.items() if tensor.requires_grad}
    anchors = {f"anchor.{name}": tensor.clone() for name, tensor in trained.items()}
    return anchors | {f"importance.{name}": torch.zeros_like(tensor) for name, tensor in trained.items()}


def pulled(gradients: Tensors, state: Tensors, strength: float) -> Tensors:
    """Gradients by name with that of the penalty added.

    Args:
        gradients: of the loss.
        state: holds the weights, and anchors and importances as memory.
        strength: c; with 0 nothing is added.
    """
    if strength == 0:
        return gradients
    return {
        name: torch.addcmul(
            gradient, state[f"importance.{name}"], state[name] - state[f"anchor.{name}"], value=2 * strength
        )
        for name, gradient in gradients.items()
    }
