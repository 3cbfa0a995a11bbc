"""torch's optimisers with torch's defaults, fused: one pass over every number, one call for all tensors.

They call the operations underlying torch's fused Adam and fused SGD directly. The classes of torch.optim import torch's
compiler, which takes seconds per process, and if few parameters are trained, the overhead of torch.optim is several
times the cost of the operation.

Gradients come by name. A trained tensor without a gradient stays unchanged, and so does its optimiser state; without
any gradient, there is no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch

from crwn.methods.protocol import Tensors


class Optimizer(Protocol):
    """Updates the trained tensors.

    Attributes:
        state: the state to save in a resume point: per trained tensor, in its shape, and shared by all.
    """

    state: Tensors

    def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        """Make one update; called without autograd.

        Args:
            gradients: gradients of some or all trained tensors, by name.
            rate: the learning rate.
        """
        ...


class Adam:
    """torch's Adam, except that all tensors share one step count, while torch counts steps per tensor.

    This matters only for a tensor that had no gradient in some steps: its bias correction then assumes too many steps.

    Args:
        trained: the tensors to update, by name; contiguous.
        weight_decay: multiplied by the parameter and added to the gradient.
        momentum: 0; Adam has its own.
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
        """Make one update."""
        moved, moving = _moved(self._trained, gradients)  # may run out of memory; nothing has changed by then
        if not moved:
            return
        self._step += 1
        averages, squares = _of(self._averages, moved), _of(self._squares, moved)
        moments = (averages, squares, self._step)
        trained = _of(self._trained, moved)
        _fused_adam(trained, moving, *moments, rate=rate, betas=(0.9, 0.999), weight_decay=self._weight_decay)


class RMSProp:
    """torch's RMSProp: v = 0.99 v + 0.01 g^2, x = x - rate g / (sqrt(v) + 1e-8).

    It is computed by torch's fused Adam with beta1 = 0 at a late step, where Adam's bias correction vanishes: the same
    update, for which torch has a fused operation only in Adam. With beta1 = 0, Adam's first moment is the gradient
    itself, so it is not stored.

    Args:
        trained: the tensors to update, by name; contiguous.
        weight_decay: 0.
        momentum: 0.
    """

    _LATE = 1e5
    """A step for which 0.99 ** step is negligible relative to 1."""

    def __init__(self, trained: Tensors, weight_decay: float, momentum: float) -> None:
        assert weight_decay == momentum == 0
        self._trained = dict(trained)
        self._squares = _zeros_beside(trained)
        self._step = torch.full((), self._LATE, device=_device(trained))
        self.state = _named("square_avg", self._squares)

    def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        """Make one update."""
        moved, moving = _moved(self._trained, gradients)
        if not moved:
            return
        moments = (moving, _of(self._squares, moved), self._step)
        _fused_adam(_of(self._trained, moved), moving, *moments, rate=rate, betas=(0.0, 0.99), weight_decay=0.0)


class SGD:
    """torch's SGD: b = momentum b + g + weight_decay x, x = x - rate b; without momentum, b is not stored.

    Args:
        trained: the tensors to update, by name; contiguous.
        weight_decay: multiplied by the parameter and added to the gradient.
        momentum: in [0, 1).
    """

    def __init__(self, trained: Tensors, weight_decay: float, momentum: float) -> None:
        self._trained = dict(trained)
        self._weight_decay = weight_decay
        self._momentum = momentum
        self._buffers = _zeros_beside(trained) if momentum else {}
        self.state = _named("momentum_buffer", self._buffers)

    def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        """Make one update."""
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
            is_first_step=False,  # torch's first buffer is the gradient, as is the result with a buffer of zeros
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
    """The names of the tensors that a step updates, in the order of `trained`, and their gradients.

    The gradients are contiguous, because the operations ignore strides.
    """
    assert gradients.keys() <= trained.keys(), "a gradient for what is not trained"
    names = [name for name in trained if name in gradients]
    return names, [gradients[name].contiguous() for name in names]


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
