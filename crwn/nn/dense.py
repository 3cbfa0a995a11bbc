"""Dense layers: weights that all tasks share or that are a task's own, or that are seen through a rotation.

The gradients are written by hand so that all three products of a layer go through the trial's kernel, and those that
nobody reads are not computed.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch

from crwn.nn.kernels import Kernel


def linear(input_GBI: torch.Tensor, weight_OI: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    """y = W x with a weight that all tasks share: [G, B, O]."""
    output: torch.Tensor = _Linear.apply(input_GBI, weight_OI, kernel)
    return output


class _Linear(torch.autograd.Function):
    """dL/dx = W^T g and dL/dW = sum over tasks and examples of g x^T."""

    @staticmethod
    def forward(ctx: Any, input_GBI: torch.Tensor, weight_OI: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        ctx.save_for_backward(input_GBI, weight_OI)
        ctx.kernel = kernel
        return kernel.linear(input_GBI, weight_OI)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_GBO,) = grads
        input_GBI, weight_OI = ctx.saved_tensors
        needs_input, needs_weight, _ = ctx.needs_input_grad
        input_grad = ctx.kernel.linear(grad_GBO, weight_OI.t()) if needs_input else None
        weight_grad = (
            ctx.kernel.linear(grad_GBO.flatten(0, 1).t(), input_GBI.flatten(0, 1).t()) if needs_weight else None
        )
        return input_grad, weight_grad, None


def own_linear(input_GBI: torch.Tensor, weight_GOI: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    """y = W_t x, a product for each task: [G, B, O]."""
    output: torch.Tensor = _OwnLinear.apply(input_GBI, weight_GOI, kernel)
    return output


class _OwnLinear(torch.autograd.Function):
    """dL/dx = W_t^T g and dL/dW_t = sum over a task's examples of g x^T."""

    @staticmethod
    def forward(ctx: Any, input_GBI: torch.Tensor, weight_GOI: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        ctx.save_for_backward(input_GBI, weight_GOI)
        ctx.kernel = kernel
        return kernel.own_linear(input_GBI, weight_GOI)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_GBO,) = grads
        input_GBI, weight_GOI = ctx.saved_tensors
        needs_input, needs_weight, _ = ctx.needs_input_grad
        input_grad = ctx.kernel.own_linear(grad_GBO, weight_GOI.mT) if needs_input else None
        weight_grad = ctx.kernel.own_linear(grad_GBO.mT, input_GBI.mT) if needs_weight else None
        return input_grad, weight_grad, None


def rotated_linear(
    input_GBI: torch.Tensor, weight_OI: torch.Tensor, rotation_GII: torch.Tensor, kernel: Kernel
) -> torch.Tensor:
    """y = W (C_t x) with an orthogonal C_t (Cheung et al. 2019, arXiv:1902.05522, "rotational superposition").

    Args:
        input_GBI: examples of each task.
        weight_OI: W, which all tasks share.
        rotation_GII: C, one matrix a task.
        kernel: of the products.

    Returns:
        [G, B, O].
    """
    return linear(own_linear(input_GBI, rotation_GII, kernel), weight_OI, kernel)
