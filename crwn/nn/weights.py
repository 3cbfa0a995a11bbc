"""Trained weights of dense layers: shared by all tasks, one per task, masked, or rotated.

The gradients are written by hand, so that all three products of a layer go through the trial's kernel and unused ones
are not computed.

Shapes: G tasks, B examples per task, I inputs, O outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from crwn.nn import masked
from crwn.nn.kernels import Kernel


class MovingWeight(ABC):
    """A trained weight during one step: the forward pass, then those parts of the backward pass that are needed.

    Attributes:
        trained: the tensor that may require a gradient.
    """

    trained: torch.Tensor

    @abstractmethod
    def forward(self, input_GBI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """W x, with ReLU if requested: [G, B, O]."""

    @abstractmethod
    def to_input(self, grad_GBO: torch.Tensor) -> torch.Tensor:
        """W^T g, the gradient with respect to the input: [G, B, I], in newly allocated memory."""

    @abstractmethod
    def gradient(self, grad_GBO: torch.Tensor, input_GBI: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to `trained`, in its shape; the input is that of the forward pass."""

    def backward(self, grad_GBO: torch.Tensor, *, times: torch.Tensor | None = None) -> torch.Tensor:
        """The gradient with respect to the input, multiplied elementwise by `times` if given: [G, B, I]."""
        input_grad_GBI = self.to_input(grad_GBO)
        return input_grad_GBI if times is None else input_grad_GBI.mul_(times)


class SharedWeight(MovingWeight):
    """One weight for all tasks: dL/dW = sum over tasks and examples of g x^T.

    Args:
        weight_OI: W.
        kernel: computes the products.
    """

    def __init__(self, weight_OI: torch.Tensor, kernel: Kernel) -> None:
        self.trained = weight_OI
        self._kernel = kernel

    def forward(self, input_GBI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """W x, with ReLU if requested: [G, B, O]."""
        return self._kernel.linear(input_GBI, self.trained, relu=relu)

    def to_input(self, grad_GBO: torch.Tensor) -> torch.Tensor:
        """W^T g, the gradient with respect to the input: [G, B, I]."""
        return self._kernel.linear(grad_GBO, self.trained.t())

    def gradient(self, grad_GBO: torch.Tensor, input_GBI: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to W: [O, I]."""
        return self._kernel.linear(grad_GBO.flatten(0, 1).t(), input_GBI.flatten(0, 1).t())


class RotatedWeight(SharedWeight):
    """One weight for all tasks, applied to rotated inputs: y = W C_t x.

    Source: Cheung et al. 2019, arXiv:1902.05522, "rotational superposition".

    Args:
        weight_OI: W.
        rotation_GII: C_t, one orthogonal matrix per task, not trained.
        kernel: computes the products.
    """

    def __init__(self, weight_OI: torch.Tensor, rotation_GII: torch.Tensor, kernel: Kernel) -> None:
        super().__init__(weight_OI, kernel)
        self._rotation_GII = rotation_GII

    def forward(self, input_GBI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """W C_t x, with ReLU if requested: [G, B, O]."""
        self._rotated_GBI = self._kernel.own_linear(input_GBI, self._rotation_GII)
        return super().forward(self._rotated_GBI, relu=relu)

    def to_input(self, grad_GBO: torch.Tensor) -> torch.Tensor:
        """C_t^T W^T g, the gradient with respect to the input: [G, B, I]."""
        return self._kernel.own_linear(super().to_input(grad_GBO), self._rotation_GII.mT)

    def gradient(self, grad_GBO: torch.Tensor, input_GBI: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to W: [O, I]."""
        del input_GBI  # W was applied to the rotated input
        return super().gradient(grad_GBO, self._rotated_GBI)


class OwnWeight(MovingWeight):
    """One weight per task: dL/dW_t = sum over the task's examples of g x^T.

    Args:
        weight_GOI: W_t.
        kernel: computes the products.
    """

    def __init__(self, weight_GOI: torch.Tensor, kernel: Kernel) -> None:
        self.trained = self._weight_GOI = weight_GOI
        self._kernel = kernel

    def forward(self, input_GBI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """W_t x, with ReLU if requested: [G, B, O]."""
        return self._kernel.own_linear(input_GBI, self._weight_GOI, relu=relu)

    def to_input(self, grad_GBO: torch.Tensor) -> torch.Tensor:
        """W_t^T g, the gradient with respect to the input: [G, B, I]."""
        return self._kernel.own_linear(grad_GBO, self._weight_GOI.mT)

    def gradient(self, grad_GBO: torch.Tensor, input_GBI: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to W_t: [G, O, I]."""
        return self._kernel.own_linear(grad_GBO.mT, input_GBI.mT)


class MaskedWeight(OwnWeight):
    """A fixed weight, masked by each task's scores: W * m (`masked.masked_weights`).

    Args:
        scores_GOI: each task's scores, which are trained.
        weight_OI: W, in the scores' dtype.
        dtype: dtype of the products.
        kernel: computes the products.
    """

    def __init__(self, scores_GOI: torch.Tensor, weight_OI: torch.Tensor, dtype: torch.dtype, kernel: Kernel) -> None:
        super().__init__(scores_GOI, kernel)
        self._fixed_OI = weight_OI
        self._dtype = dtype

    def forward(self, input_GBI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """(W * m) x, with ReLU if requested: [G, B, O]."""
        self._weight_GOI = masked.by_threshold(self.trained, self._fixed_OI).to(self._dtype)
        return super().forward(input_GBI, relu=relu)

    def gradient(self, grad_GBO: torch.Tensor, input_GBI: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to the scores: [G, O, I]."""
        return masked.to_scores(super().gradient(grad_GBO, input_GBI), self._fixed_OI)
