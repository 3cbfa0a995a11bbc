"""A stack of dense layers with ReLU between them: y = r * z with z = W (e * x), for each task.

W is either frozen and shared by all tasks, or it is trained (`weights.py`). e scales the inputs and r the outputs; each
is 1 unless given.

Sources: CRWN (Hong & Pavlic, arXiv:2204.04297), W_t = a_t (R * c_t), y = W_t x: e = a c, where the input scale is a
context c and the layer has a strength a. BatchEnsemble (Wen, Tran & Ba 2020, arXiv:2002.06715, equation 5),
y = ((x * s) W^T) * r: the input scale is s, the output scale r.

The gradients. Let g be the gradient of the loss with respect to y. With d = W^T (r * g),

    dL/dx_i = e_i d_i        dL/de_i = sum over examples of x_i d_i        dL/dr_o = sum over examples of z_o g_o
                             dL/dc = a dL/de        dL/da = <c, dL/de>

A frozen W gets no gradient, and no gradient is computed below the first layer that learns. A step on one example then
costs 2 I O multiply-adds, forward and for d, against 3 I O if weights are trained, and all tasks share the two
products. The elementwise operations cost 3 I B per batch. A wide layer with few outputs is cheaper with W_t itself, one
per task:

    z = W_t x        dL/dx = W_t^T g        dL/de_i = sum over o of W_oi (sum over examples of g_o x_i)

whose elementwise operations cost 2 I O.

The whole stack is one autograd function, so its overhead is paid once, and ReLU is fused into the product.

Shapes: G tasks, B examples per task, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.autograd.function import once_differentiable

from crwn.faults import InvalidError
from crwn.nn.kernels import FrozenLinear, Kernel
from crwn.nn.weights import MovingWeight

_T = TypeVar("_T")

WIDE = 2**14
"""Batch elements (B I) per output from which forming W_t pays off: it saves more elementwise work than it costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseLayer:
    """y = r * W (e * x) with e = a c.

    Attributes:
        weight: W.
        in_scale_GI: c, one number per input; None: 1.
        strength_G: a, one number per task, only together with c; None: 1.
        out_scale_GO: r, one number per output; None: 1.

    Raises:
        ValueError: there is a strength but no input scale.
    """

    weight: FrozenLinear | MovingWeight
    in_scale_GI: torch.Tensor | None = None
    strength_G: torch.Tensor | None = None
    out_scale_GO: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.strength_G is not None and self.in_scale_GI is None:
            raise InvalidError(
                "strength-without-scale",
                "strength_G: expected together with in_scale_GI, which it multiplies; given alone",
            )

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """The tensors that may be trained: the weight's, the input scale, the strength, the output scale."""
        of_weight = self.weight.trained if isinstance(self.weight, MovingWeight) else None
        return of_weight, self.in_scale_GI, self.strength_G, self.out_scale_GO


_NUM_TENSORS = 4
"""Number of trainable tensors per layer."""


def in_a_row(input_GBI: torch.Tensor, layers: Sequence[DenseLayer], kernel: Kernel) -> torch.Tensor:
    """Apply the layers one after another, with ReLU between them.

    Args:
        input_GBI: each task's examples.
        layers: made for this call; trained weights are those of one step.
        kernel: computes the products with weights W_t formed from frozen ones.

    Returns:
        The last layer's output [G, B, O].
    """
    tensors = [tensor for layer in layers for tensor in layer.tensors]
    output: torch.Tensor = _DenseLayers.apply(input_GBI, layers, kernel, *tensors)
    return output


class _DenseLayers(torch.autograd.Function):
    """A stack of layers, with the gradients derived above."""

    @staticmethod
    def forward(
        ctx: Any,
        input_GBI: torch.Tensor,
        layers: Sequence[DenseLayer],
        kernel: Kernel,
        *tensors: torch.Tensor | None,
    ) -> torch.Tensor:
        del tensors  # they belong to the layers; autograd must see them as arguments
        ctx.passes, hidden = [_Pass(layer, kernel) for layer in layers], input_GBI
        for number, layer_pass in enumerate(ctx.passes, start=1):
            hidden = layer_pass.forward(hidden, relu=number < len(layers))
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        needs_input, _, _, *needs_tensors = ctx.needs_input_grad
        needs = list(_by_layer(needs_tensors))
        grad = grads[0].contiguous()  # a loss over classes leaves it transposed, which slows the products
        gradients: list[torch.Tensor | None] = []
        for index, layer_pass in reversed(list(enumerate(ctx.passes))):
            needs_below = needs_input or any(flag for below in needs[:index] for flag in below)
            grad, of_tensors = layer_pass.backward(grad, needs[index], needs_input=needs_below)
            gradients[:0] = of_tensors
            if not needs_below:
                gradients[:0] = [None] * (_NUM_TENSORS * index)
                break
            if index:  # the input is the output of ReLU: positive exactly where ReLU's input was
                grad = torch.ops.aten.threshold_backward(grad, layer_pass.input_GBI, 0)
        return grad, None, None, *gradients


def _by_layer(of_tensors: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Split a sequence with one item per tensor into one slice per layer."""
    return (of_tensors[first : first + _NUM_TENSORS] for first in range(0, len(of_tensors), _NUM_TENSORS))


@dataclass(slots=True)
class _Pass:
    """A layer, and what its forward pass keeps for the backward pass."""

    layer: DenseLayer
    kernel: Kernel
    input_GBI: torch.Tensor = field(init=False)
    scaled_GBI: torch.Tensor | None = None  # e * x, if the weight's gradient needs it
    effective_G1I: torch.Tensor | None = None  # e, if inputs have a scale
    weight_GOI: torch.Tensor | None = None  # W_t, if it was formed
    product_GBO: torch.Tensor | None = None  # z, if outputs have a scale

    def forward(self, input_GBI: torch.Tensor, *, relu: bool) -> torch.Tensor:
        layer, self.input_GBI = self.layer, input_GBI
        relu_in_product = relu and layer.out_scale_GO is None
        scaled_GBI = input_GBI
        if layer.in_scale_GI is not None:
            self.effective_G1I = _effective(layer.in_scale_GI, layer.strength_G, input_GBI.dtype)
            if not isinstance(layer.weight, MovingWeight) and _is_wide(input_GBI, layer.weight.weight):
                self.weight_GOI = layer.weight.weight * self.effective_G1I
            else:
                scaled_GBI = input_GBI * self.effective_G1I
        if self.weight_GOI is not None:
            output_GBO = self.kernel.own_linear(input_GBI, self.weight_GOI, relu=relu_in_product)
        else:
            output_GBO = layer.weight.forward(scaled_GBI, relu=relu_in_product)
        if isinstance(layer.weight, MovingWeight):
            self.scaled_GBI = scaled_GBI
        if layer.out_scale_GO is None:
            return output_GBO
        self.product_GBO = output_GBO
        output_GBO = output_GBO * _spread(layer.out_scale_GO, output_GBO.dtype)
        return output_GBO.relu_() if relu else output_GBO

    def backward(
        self, grad_GBO: torch.Tensor, needs: Sequence[bool], *, needs_input: bool
    ) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
        """The gradients with respect to the input and the tensors; None for those that are not needed."""
        layer = self.layer
        needs_weight, needs_in_scale, needs_strength, needs_out_scale = needs
        input_grad_GBI = weight_grad = in_scale_grad = strength_grad = out_scale_grad = None
        if layer.out_scale_GO is not None and self.product_GBO is not None:
            if needs_out_scale:
                out_scale_grad = (self.product_GBO * grad_GBO).sum(dim=1).to(layer.out_scale_GO.dtype)
            grad_GBO = grad_GBO * _spread(layer.out_scale_GO, grad_GBO.dtype)
        if needs_weight and isinstance(layer.weight, MovingWeight) and self.scaled_GBI is not None:
            weight_grad = layer.weight.gradient(grad_GBO, self.scaled_GBI)
        if layer.in_scale_GI is None or self.effective_G1I is None:
            input_grad_GBI = layer.weight.backward(grad_GBO) if needs_input else None
        elif needs_input or needs_in_scale or needs_strength:
            input_grad_GBI, effective_grad_GI = self._through_scaled(
                grad_GBO, self.effective_G1I, needs_input=needs_input
            )
            effective_grad_GI = effective_grad_GI.to(layer.in_scale_GI.dtype)
            if needs_in_scale:
                in_scale_grad = effective_grad_GI
                if layer.strength_G is not None:
                    in_scale_grad = layer.strength_G[:, None] * effective_grad_GI
            if needs_strength:
                strength_grad = (layer.in_scale_GI * effective_grad_GI).sum(dim=1)
        return input_grad_GBI, [weight_grad, in_scale_grad, strength_grad, out_scale_grad]

    def _through_scaled(
        self, grad_GBO: torch.Tensor, effective_G1I: torch.Tensor, *, needs_input: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """dL/dx [G, B, I], None unless needed, and dL/de [G, I]."""
        weight = self.layer.weight
        if self.weight_GOI is not None and not isinstance(weight, MovingWeight):
            own_grad_GOI = self.kernel.own_linear(grad_GBO.mT, self.input_GBI.mT)
            effective_grad_GI = (own_grad_GOI * weight.weight).sum(dim=1)
            return self.kernel.own_linear(grad_GBO, self.weight_GOI.mT) if needs_input else None, effective_grad_GI
        if not needs_input:  # the first layer, with the largest input gradient, which nothing else reads
            return None, weight.backward(grad_GBO, times=self.input_GBI).sum(dim=1)
        scaled_grad_GBI = weight.backward(grad_GBO)
        effective_grad_GI = (scaled_grad_GBI * self.input_GBI).sum(dim=1)
        return scaled_grad_GBI.mul_(effective_G1I), effective_grad_GI


def _is_wide(input_GBI: torch.Tensor, weight_OI: torch.Tensor) -> bool:
    _, batch_size, num_inputs = input_GBI.shape
    return batch_size * num_inputs >= WIDE * len(weight_OI)


def _effective(in_scale_GI: torch.Tensor, strength_G: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The effective input scale, e = a c: [G, 1, I]."""
    return _spread(in_scale_GI if strength_G is None else in_scale_GI * strength_G[:, None], dtype)


def _spread(scale_GX: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return scale_GX[:, None].to(dtype)
