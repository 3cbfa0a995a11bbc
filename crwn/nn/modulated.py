"""The modulated linear layer: fixed random weights, seen by each task through its own context and strength.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), W_t = a_t (R * c_t), y = W_t x.

What learning needs. Let e = a c, so that y = R (e * x), and let g be the loss's gradient to y. With d = R^T g,

    dL/dx_i = e_i d_i        dL/de_i = sum over examples of x_i d_i        dL/dc = a dL/de        dL/da = <c, dL/de>

R is fixed and gets no gradient, and nothing is needed below the first modulated layer. A step on one example costs
2 I O multiply-adds, forward and for d, against 3 I O where weights are trained, and all tasks share the two products.
What is elementwise costs 3 I B a batch. A wide layer with few outputs is cheaper with W_t itself, one for each task:

    y = W_t x        dL/dx = W_t^T g        dL/de_i = sum over o of R_oi (sum over examples of g_o x_i)

whose elementwise part costs 2 I O.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch

from crwn.nn import dense
from crwn.nn.kernels import FrozenLinear, Kernel

WIDE = 2**14
"""Numbers of a batch for each output, from which the products of each task are worth what they save elementwise."""


def modulated_linear(
    input_GBI: torch.Tensor,
    weight_OI: torch.Tensor | FrozenLinear,
    context_GI: torch.Tensor,
    strength_G: torch.Tensor,
    kernel: Kernel,
) -> torch.Tensor:
    """y = R (e * x) with e = a c: equal to a (R * c) x.

    Args:
        input_GBI: examples of each task.
        weight_OI: R: frozen, or a tensor that is trained (pretrained mode's first task).
        context_GI: c, one number for each input.
        strength_G: a, one number a task.
        kernel: of the products.

    Returns:
        [G, B, O].
    """
    _, batch_size, num_inputs = input_GBI.shape
    if isinstance(weight_OI, torch.Tensor):
        return dense.scaled_linear(input_GBI, strength_G[:, None] * context_GI, weight_OI, kernel)
    if batch_size * num_inputs < WIDE * len(weight_OI.weight):
        output: torch.Tensor = _ModulatedLinear.apply(input_GBI, context_GI, strength_G, weight_OI)
        return output
    effective_G1I = (strength_G[:, None] * context_GI)[:, None, :].to(input_GBI.dtype)
    return dense.own_linear(input_GBI, weight_OI.weight * effective_G1I, kernel)


def modulated_weight(weight_OIkk: torch.Tensor, context_GIkk: torch.Tensor, strength_G: torch.Tensor) -> torch.Tensor:
    """W_t = a_t (R * c_t) for every task: [G, O, I, k, k]. The modulated convolution of CRWN is one with these."""
    effective_GIkk = strength_G[:, None, None, None] * context_GIkk
    return weight_OIkk * effective_GIkk[:, None]


class _ModulatedLinear(torch.autograd.Function):
    """The first of the two ways above, strength and context in one step."""

    @staticmethod
    def forward(
        ctx: Any, input_GBI: torch.Tensor, context_GI: torch.Tensor, strength_G: torch.Tensor, weight: FrozenLinear
    ) -> torch.Tensor:
        effective_G1I = (strength_G[:, None] * context_GI)[:, None, :].to(input_GBI.dtype)
        ctx.save_for_backward(input_GBI, context_GI, strength_G, effective_G1I)
        ctx.weight = weight
        return weight.forward(input_GBI * effective_G1I)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input_GBI, context_GI, strength_G, effective_G1I = ctx.saved_tensors
        needs_input, needs_context, needs_strength, _ = ctx.needs_input_grad
        input_grad, effective_grad_GI = dense.scaled_gradients(
            grads[0], input_GBI, effective_G1I, ctx.weight, needs_input=needs_input
        )
        effective_grad_GI = effective_grad_GI.to(context_GI.dtype)
        context_grad = strength_G[:, None] * effective_grad_GI if needs_context else None
        strength_grad = (context_GI * effective_grad_GI).sum(dim=1) if needs_strength else None
        return input_grad, context_grad, strength_grad, None
