"""torch's optimisers with torch's defaults: every number in one pass, all tensors in one call.

Both call the operation below torch's fused Adam. The classes of torch.optim import torch's compiler, seconds a process,
and what torch.optim does around the operation takes several times as long as it does where few numbers are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from crwn.methods.protocol import Tensors


class Optimizer(Protocol):
    """Moves what is trained.

    Attributes:
        state: what a resume point keeps: numbers beside each trained tensor, in its shape, and what they share.
    """

    state: Tensors

    def step(self, gradients: Sequence[torch.Tensor], rate: float) -> None:
        """One update at a learning rate; the gradients in the order of the trained tensors."""
        ...


class Adam:
    """torch's Adam.

    Args:
        trained: what is moved, by name; contiguous.
        weight_decay: times the parameter, is added to the gradient.
    """

    def __init__(self, trained: Tensors, weight_decay: float) -> None:
        self._trained = list(trained.values())
        self._weight_decay = weight_decay
        self._averages = _zeros_beside(trained)
        self._squares = _zeros_beside(trained)
        self._step = torch.zeros((), device=self._trained[0].device)
        self.state = {"step": self._step} | _named("exp_avg", self._averages) | _named("exp_avg_sq", self._squares)

    def step(self, gradients: Sequence[torch.Tensor], rate: float) -> None:
        """One update at a learning rate."""
        gradients = _contiguous(gradients)  # may find no memory: then nothing has moved
        self._step += 1
        moments = (list(self._averages.values()), list(self._squares.values()), self._step)
        _fused_adam(self._trained, gradients, *moments, rate=rate, betas=(0.9, 0.999), weight_decay=self._weight_decay)


class RMSProp:
    """torch's RMSProp: v = 0.99 v + 0.01 g^2, x = x - rate g / (sqrt(v) + 1e-8).

    Computed by torch's Adam without momentum, long after the first step, when nothing is left of Adam's corrections:
    the same update, which torch has as one pass over the numbers for Adam alone. The momentum, of which nothing would
    be remembered, is the gradient itself.

    Args:
        trained: what is moved, by name; contiguous.
        weight_decay: 0.
    """

    _LATE = 1e5
    """A step for which 0.99 ** step is 0 beside 1."""

    def __init__(self, trained: Tensors, weight_decay: float) -> None:
        assert weight_decay == 0
        self._trained = list(trained.values())
        self._squares = _zeros_beside(trained)
        self._step = torch.full((), self._LATE, device=self._trained[0].device)
        self.state = _named("square_avg", self._squares)

    def step(self, gradients: Sequence[torch.Tensor], rate: float) -> None:
        """One update at a learning rate."""
        gradients = _contiguous(gradients)
        moments = (gradients, list(self._squares.values()), self._step)
        _fused_adam(self._trained, gradients, *moments, rate=rate, betas=(0.0, 0.99), weight_decay=0.0)


OPTIMIZERS: dict[str, Callable[[Tensors, float], Optimizer]] = {"rmsprop": RMSProp, "adam": Adam}


def _zeros_beside(trained: Tensors) -> Tensors:
    return {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in trained.items()}


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _contiguous(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The operation goes through memory, whatever the strides."""
    return [gradient.contiguous() for gradient in gradients]


@torch.no_grad()
def _fused_adam(
    trained: list[torch.Tensor],
    gradients: list[torch.Tensor],
    averages: list[torch.Tensor],
    squares: list[torch.Tensor],
    step: torch.Tensor,
    *,
    rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> None:
    torch._fused_adam_(
        trained,
        gradients,
        averages,
        squares,
        [],
        [step] * len(trained),
        lr=rate,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )
