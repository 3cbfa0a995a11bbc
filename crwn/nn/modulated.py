"""Layers of fixed weights, seen by each task through numbers of its own: a scale for every input, one for every output.

Sources: CRWN (Hong & Pavlic, arXiv:2204.04297), W_t = a_t (R * c_t), y = W_t x: the inputs' scale is a context c, and
the layer has a strength a. BatchEnsemble (Wen, Tran & Ba 2020, arXiv:2002.06715, equation 5), y = ((x * s) W^T) * r:
the inputs' scale is s, the outputs' is r.

What learning needs. Let e = a c, so that y = r * z with z = R (e * x); let g be the loss's gradient to y. With
d = R^T (r * g),

    dL/dx_i = e_i d_i        dL/de_i = sum over examples of x_i d_i        dL/dr_o = sum over examples of z_o g_o
                             dL/dc = a dL/de        dL/da = <c, dL/de>

R is fixed and gets no gradient, and nothing is needed below the first modulated layer. A step on one example costs
2 I O multiply-adds, forward and for d, against 3 I O where weights are trained, and all tasks share the two products.
What is elementwise costs 3 I B a batch. A wide layer with few outputs is cheaper with W_t itself, one for each task:

    z = W_t x        dL/dx = W_t^T g        dL/de_i = sum over o of R_oi (sum over examples of g_o x_i)

whose elementwise part costs 2 I O.

All layers of a network are one step for autograd, which keeps its books once, and whose ReLU is part of the product.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from crwn.nn import dense
from crwn.nn.kernels import FrozenLinear, Kernel

_T = TypeVar("_T")

WIDE = 2**14
"""Numbers of a batch for each output, from which the products of each task are worth what they save elementwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModulatedLayer:
    """y = r * R (e * x) with e = a c.

    Attributes:
        weight_OI: R: frozen, or a tensor that is trained (a first task's, which learns it).
        in_scale_GI: c, one number for each input.
        strength_G: a, one number a task; None: 1.
        out_scale_GO: r, one number for each output; None: 1.
    """

    weight_OI: torch.Tensor | FrozenLinear
    in_scale_GI: torch.Tensor
    strength_G: torch.Tensor | None = None
    out_scale_GO: torch.Tensor | None = None


def modulated_linears(input_GBI: torch.Tensor, layers: Sequence[ModulatedLayer], kernel: Kernel) -> torch.Tensor:
    """The layers one after another, ReLU between them.

    Args:
        input_GBI: examples of each task.
        layers: all frozen, or not.
        kernel: of the products with weights that are not frozen as they are.

    Returns:
        [G, B, O] of the last layer.
    """
    frozen = [layer.weight_OI for layer in layers if not isinstance(layer.weight_OI, torch.Tensor)]
    if len(frozen) == len(layers):
        scales = [scale for layer in layers for scale in (layer.in_scale_GI, layer.strength_G, layer.out_scale_GO)]
        output: torch.Tensor = _FrozenLayers.apply(input_GBI, frozen, kernel, *scales)
        return output
    hidden = input_GBI
    for index, layer in enumerate(layers):
        hidden = _plain(functional.relu(hidden) if index else hidden, layer, kernel)
    return hidden


def _plain(input_GBI: torch.Tensor, layer: ModulatedLayer, kernel: Kernel) -> torch.Tensor:
    """One layer by autograd."""
    weight_OI = layer.weight_OI if isinstance(layer.weight_OI, torch.Tensor) else layer.weight_OI.weight
    scaled_GBI = input_GBI * _effective(layer.in_scale_GI, layer.strength_G, input_GBI.dtype)
    output_GBO = dense.linear(scaled_GBI, weight_OI, kernel)
    return output_GBO if layer.out_scale_GO is None else output_GBO * _spread(layer.out_scale_GO, input_GBI.dtype)


def _effective(in_scale_GI: torch.Tensor, strength_G: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """E = a c: [G, 1, I]."""
    return _spread(in_scale_GI if strength_G is None else in_scale_GI * strength_G[:, None], dtype)


def _spread(scale_GX: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return scale_GX[:, None].to(dtype)


def modulated_weight(weight_OIkk: torch.Tensor, context_GIkk: torch.Tensor, strength_G: torch.Tensor) -> torch.Tensor:
    """W_t = a_t (R * c_t) for every task: [G, O, I, k, k]. The modulated convolution of CRWN is one with these."""
    effective_GIkk = strength_G[:, None, None, None] * context_GIkk
    return weight_OIkk * effective_GIkk[:, None]


class _FrozenLayers(torch.autograd.Function):
    """Layers of frozen weights, with the gradients above."""

    @staticmethod
    def forward(
        ctx: Any,
        input_GBI: torch.Tensor,
        weights: Sequence[FrozenLinear],
        kernel: Kernel,
        *scales: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.kernel, ctx.layers, hidden = kernel, [], input_GBI
        for weight, (in_scale_GI, strength_G, out_scale_GO) in zip(weights, _by_layer(scales), strict=True):
            assert in_scale_GI is not None
            ctx.layers.append(layer := _FrozenLayer(weight, in_scale_GI, strength_G, out_scale_GO))
            hidden = layer.forward(hidden, kernel, relu=len(ctx.layers) < len(weights))
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        needs_input, _, _, *needs_scales = ctx.needs_input_grad
        needs = list(_by_layer(needs_scales))
        grad = grads[0].contiguous()  # a loss over classes leaves it turned over, which products do not like
        gradients: list[torch.Tensor | None] = []
        for index, layer in reversed(list(enumerate(ctx.layers))):
            needs_below = needs_input or any(flag for below in needs[:index] for flag in below)
            grad, of_scales = layer.backward(grad, ctx.kernel, needs[index], needs_input=needs_below)
            gradients[:0] = of_scales
            if not needs_below:
                gradients[:0] = [None] * (3 * index)
                break
            if index:  # its input is what ReLU gave, above zero where ReLU's own input was
                grad = torch.ops.aten.threshold_backward(grad, layer.input_GBI, 0)
        return grad, None, None, *gradients


def _by_layer(of_scales: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """What there is for each scale of each layer in turn: inputs' scale, strength, outputs' scale."""
    return (of_scales[first : first + 3] for first in range(0, len(of_scales), 3))


@dataclass(slots=True)
class _FrozenLayer:
    """A layer, and what its way forward leaves for the way back."""

    weight: FrozenLinear
    in_scale_GI: torch.Tensor
    strength_G: torch.Tensor | None
    out_scale_GO: torch.Tensor | None
    input_GBI: torch.Tensor = field(init=False)
    effective_G1I: torch.Tensor = field(init=False)
    weight_GOI: torch.Tensor | None = None  # W_t, where it was formed
    product_GBO: torch.Tensor | None = None  # z, where the outputs have a scale

    def forward(self, input_GBI: torch.Tensor, kernel: Kernel, *, relu: bool) -> torch.Tensor:
        _, batch_size, num_inputs = input_GBI.shape
        self.input_GBI = input_GBI
        self.effective_G1I = _effective(self.in_scale_GI, self.strength_G, input_GBI.dtype)
        is_shared = batch_size * num_inputs < WIDE * len(self.weight.weight)
        relu_in_product = relu and is_shared and self.out_scale_GO is None
        if is_shared:
            output_GBO = self.weight.forward(input_GBI * self.effective_G1I, relu=relu_in_product)
        else:
            self.weight_GOI = self.weight.weight * self.effective_G1I
            output_GBO = kernel.own_linear(input_GBI, self.weight_GOI)
        if self.out_scale_GO is not None:
            self.product_GBO = output_GBO
            output_GBO = output_GBO * _spread(self.out_scale_GO, output_GBO.dtype)
        return output_GBO.relu_() if relu and not relu_in_product else output_GBO

    def backward(
        self, grad_GBO: torch.Tensor, kernel: Kernel, needs: Sequence[bool], *, needs_input: bool
    ) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
        """The gradients to the input and to the scales, None where nobody needs it."""
        needs_in_scale, needs_strength, needs_out_scale = needs
        input_grad_GBI = in_scale_grad = strength_grad = out_scale_grad = None
        if self.out_scale_GO is not None and self.product_GBO is not None:
            if needs_out_scale:
                out_scale_grad = (self.product_GBO * grad_GBO).sum(dim=1).to(self.out_scale_GO.dtype)
            grad_GBO = grad_GBO * _spread(self.out_scale_GO, grad_GBO.dtype)
        if needs_input or needs_in_scale or needs_strength:
            input_grad_GBI, effective_grad_GI = self._through_weight(grad_GBO, kernel, needs_input=needs_input)
            effective_grad_GI = effective_grad_GI.to(self.in_scale_GI.dtype)
            if needs_in_scale:
                in_scale_grad = effective_grad_GI
                if self.strength_G is not None:
                    in_scale_grad = self.strength_G[:, None] * effective_grad_GI
            if needs_strength:
                strength_grad = (self.in_scale_GI * effective_grad_GI).sum(dim=1)
        return input_grad_GBI, [in_scale_grad, strength_grad, out_scale_grad]

    def _through_weight(
        self, grad_GBO: torch.Tensor, kernel: Kernel, *, needs_input: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """dL/dx [G, B, I], where it is needed, and dL/de [G, I]."""
        if self.weight_GOI is not None:
            own_grad_GOI = kernel.own_linear(grad_GBO.mT, self.input_GBI.mT)
            effective_grad_GI = (own_grad_GOI * self.weight.weight).sum(dim=1)
            return kernel.own_linear(grad_GBO, self.weight_GOI.mT) if needs_input else None, effective_grad_GI
        if not needs_input:  # the first layer, whose gradient is the largest: nothing else reads it
            return None, self.weight.backward(grad_GBO, times=self.input_GBI).sum(dim=1)
        scaled_grad_GBI = self.weight.backward(grad_GBO)
        effective_grad_GI = (scaled_grad_GBI * self.input_GBI).sum(dim=1)
        return scaled_grad_GBI.mul_(self.effective_G1I), effective_grad_GI
