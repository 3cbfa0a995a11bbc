"""torch's optimisers with torch's defaults: every number in one pass, all tensors in one call.

They call the operations below torch's fused Adam and fused SGD. The classes of torch.optim import torch's compiler,
which takes seconds per process, and where few numbers are trained, what torch.optim does around the operation takes
several times as long as the operation.

Gradients come by name. A trained tensor without one is not moved, nor is anything beside it; no gradient at all is no
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch

from crwn.methods.protocol import Tensors


class Optimizer(Protocol):
    """Moves what is trained.

    Attributes:
        state: what a resume point keeps: numbers beside each trained tensor, in its shape, and what they share.
    """

    state: Tensors

    def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        """One update at a learning rate.

        Args:
            gradients: by the name of the trained tensor, for some of them or all.
            rate: the learning rate.
        """
        ...


class Adam:
    """torch's Adam, but for its count of steps: tensors share it, where torch counts each one's own.

    It makes a difference only to a tensor that some steps had no gradient for, whose averages are then corrected for a
    few steps too many.

    Args:
        trained: what is moved, by name; contiguous.
        weight_decay: times the parameter, is added to the gradient.
        momentum: 0; Adam has one of its own.
    """

    def __init__(self, trained: Tensors, weight_decay: float, momentum: float) -> None:
        assert momentum == 0
        self._trained = dict(trained)
        self._weight_decay = weight_decay
        self._averages = _zeros_beside(trained)
        self._squares = _zeros_beside(trained)
        self._step = torch.zeros((), device=_device(trained))
        self.state = {"step": self._step} | _named("exp_avg", self._averages) | _named("exp_avg_sq", self._squares)

    def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        """One update at a learning rate."""
        moved, moving = _moved(self._trained, gradients)  # may find no memory: then nothing has moved
        if not moved:
            return
        self._step += 1
        averages, squares = _of(self._averages, moved), _of(self._squares, moved)
        moments = (averages, squares, self._step)
        trained = _of(self._trained, moved)
        _fused_adam(trained, moving, *moments, rate=rate, betas=(0.9, 0.999), weight_decay=self._weight_decay)


class RMSProp:
    """torch's RMSProp: v = 0.99 v + 0.01 g^2, x = x - rate g / (sqrt(v) + 1e-8).

    Computed by torch's Adam without momentum, long after the first step, when nothing is left of Adam's corrections:
    the same update, which torch has as one pass over the numbers for Adam alone. The momentum, of which nothing would
    be remembered, is the gradient itself.

    Args:
        trained: what is moved, by name; contiguous.
        weight_decay: 0.
        momentum: 0.
    """

    _LATE = 1e5
    """A step for which 0.99 ** step is 0 beside 1."""

    def __init__(self, trained: Tensors, weight_decay: float, momentum: float) -> None:
        assert weight_decay == momentum == 0
        self._trained = dict(trained)
        self._squares = _zeros_beside(trained)
        self._step = torch.full((), self._LATE, device=_device(trained))
        self.state = _named("square_avg", self._squares)

    def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        """One update at a learning rate."""
        moved, moving = _moved(self._trained, gradients)
        if not moved:
            return
        moments = (moving, _of(self._squares, moved), self._step)
        _fused_adam(_of(self._trained, moved), moving, *moments, rate=rate, betas=(0.0, 0.99), weight_decay=0.0)


class SGD:
    """torch's SGD: b = momentum b + g + weight_decay x, x = x - rate b; without momentum, b is not kept.

    Args:
        trained: what is moved, by name; contiguous.
        weight_decay: times the parameter, is added to the gradient.
        momentum: in [0, 1).
    """

    def __init__(self, trained: Tensors, weight_decay: float, momentum: float) -> None:
        self._trained = dict(trained)
        self._weight_decay = weight_decay
        self._momentum = momentum
        self._buffers = _zeros_beside(trained) if momentum else {}
        self.state = _named("momentum_buffer", self._buffers)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        """One update at a learning rate."""
        moved, moving = _moved(self._trained, gradients)
        if not moved:
            return
        torch._fused_sgd_(
            _of(self._trained, moved),
            moving,
            _of(self._buffers, moved) if self._momentum else [],
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,  # torch begins with the gradient, which is what a momentum of zeros comes to
        )


OPTIMIZERS: dict[str, Callable[[Tensors, float, float], Optimizer]] = {"rmsprop": RMSProp, "adam": Adam, "sgd": SGD}


def _zeros_beside(trained: Tensors) -> Tensors:
    return {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in trained.items()}


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _device(trained: Tensors) -> torch.device:
    return next(iter(trained.values())).device


def _of(tensors: Tensors, names: Iterable[str]) -> list[torch.Tensor]:
    return [tensors[name] for name in names]


def _moved(trained: Tensors, gradients: Mapping[str, torch.Tensor]) -> tuple[list[str], list[torch.Tensor]]:
    """Which tensors a step moves, in the order in which they are trained, and their gradients.

    These are contiguous: the operations go through memory, whatever the strides.
    """
    assert gradients.keys() <= trained.keys(), "a gradient for what is not trained"
    names = [name for name in trained if name in gradients]
    return names, [gradients[name].contiguous() for name in names]


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
