"""Dense layers: weights that all tasks share or that are a task's own, seen through a rotation or a rank-one factor.

The gradients are written by hand so that all three products of a layer go through the trial's kernel, and those that
nobody reads are not computed.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch

from crwn.nn.kernels import FrozenLinear, Kernel


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


def scaled_linear(
    input_GBI: torch.Tensor, scale_GI: torch.Tensor, weight_OI: torch.Tensor | FrozenLinear, kernel: Kernel
) -> torch.Tensor:
    """y = W (s * x), with a scale for each task's inputs and a weight that all tasks share.

    Args:
        input_GBI: examples of each task.
        scale_GI: s, one number for each input.
        weight_OI: W: frozen, or a tensor that is trained.
        kernel: of the products with a trained weight.

    Returns:
        [G, B, O].
    """
    scale_G1I = scale_GI[:, None, :].to(input_GBI.dtype)
    if isinstance(weight_OI, torch.Tensor):
        return linear(input_GBI * scale_G1I, weight_OI, kernel)
    output: torch.Tensor = _ScaledLinear.apply(input_GBI, scale_G1I, weight_OI)
    return output


class _ScaledLinear(torch.autograd.Function):
    """With d = W^T g: dL/dx = s * d and dL/ds = sum over a task's examples of x * d; W gets no gradient."""

    @staticmethod
    def forward(ctx: Any, input_GBI: torch.Tensor, scale_G1I: torch.Tensor, weight: FrozenLinear) -> torch.Tensor:
        ctx.save_for_backward(input_GBI, scale_G1I)
        ctx.weight = weight
        return weight.forward(input_GBI * scale_G1I)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input_GBI, scale_G1I = ctx.saved_tensors
        input_grad, scale_grad_GI = scaled_gradients(
            grads[0], input_GBI, scale_G1I, ctx.weight, needs_input=ctx.needs_input_grad[0]
        )
        return input_grad, scale_grad_GI[:, None, :], None


def scaled_gradients(
    grad_GBO: torch.Tensor,
    input_GBI: torch.Tensor,
    scale_G1I: torch.Tensor,
    weight: FrozenLinear,
    *,
    needs_input: bool,
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The gradients of y = W (s * x) to x [G, B, I], where it is needed, and to s [G, I].

    Args:
        grad_GBO: the loss's gradient to y.
        input_GBI: x.
        scale_G1I: s.
        weight: W.
        needs_input: whether anything that is trained lies below.
    """
    scaled_grad_GBI = weight.backward(grad_GBO)
    if not needs_input:  # the first layer, whose gradient is the largest: nothing else reads it
        return None, scaled_grad_GBI.mul_(input_GBI).sum(dim=1)
    scale_grad_GI = (scaled_grad_GBI * input_GBI).sum(dim=1)
    return scaled_grad_GBI.mul_(scale_G1I), scale_grad_GI


def rank_one_linear(
    input_GBI: torch.Tensor,
    weight_OI: torch.Tensor | FrozenLinear,
    out_factor_GO: torch.Tensor,
    in_factor_GI: torch.Tensor,
    kernel: Kernel,
) -> torch.Tensor:
    """y = ((x * s) W^T) * r, equal to (W * r s^T) x (Wen et al. 2020, arXiv:2002.06715, equation 5).

    Args:
        input_GBI: examples of each task.
        weight_OI: W, which all tasks share: frozen, or a tensor that is trained.
        out_factor_GO: r, one number for each output.
        in_factor_GI: s, one number for each input.
        kernel: of the products with a trained weight.

    Returns:
        [G, B, O].
    """
    output_GBO = scaled_linear(input_GBI, in_factor_GI, weight_OI, kernel)
    return output_GBO * out_factor_GO[:, None, :].to(input_GBI.dtype)


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
