"""Kernels, which compute products with weights: plain PyTorch, or oneDNN's routines called directly.

In float32, `torch.mm` calls MKL, which on some processors (AMD's) is half as fast as oneDNN at the same arithmetic.
Frozen weights can also be prepared once: laid out in oneDNN's blocked format or, if they are zeros and ones, stored as
8-bit integers. The choice is recorded with the trial's numerics, because kernels round differently.

oneDNN's routines have no public API in torch; `ONEDNN` uses those that torch.compile and torch's quantisation emit. If
they are missing, `is_available` is false and only `PLAIN` is used.

Shapes: G tasks, X examples, I inputs, O outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

import torch
from torch.nn import functional

KernelName: TypeAlias = Literal["plain", "onednn"]
IntegerLinear: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class FrozenLinear(Protocol):
    """A frozen weight, prepared for its forward and backward products."""

    @property
    def weight(self) -> torch.Tensor:
        """The weight as given: [O, I]."""
        ...

    def forward(self, input_XI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """x W^T, with ReLU if requested: [..., O]."""
        ...

    def backward(self, grad_XO: torch.Tensor, *, times: torch.Tensor | None = None) -> torch.Tensor:
        """g W, the gradient with respect to the input, times `times` [..., I] elementwise if given: [..., I]."""
        ...


class Kernel(Protocol):
    """A way to compute products with weights."""

    def is_available(self) -> bool:
        """Whether this build of torch supports it."""
        ...

    def linear(self, input_XI: torch.Tensor, weight_OI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """x W^T with a weight that may change between calls, with ReLU if requested: [..., O]. Not differentiable."""
        ...

    def own_linear(self, input_GXI: torch.Tensor, weight_GOI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """x_g W_g^T for every task g, with ReLU if requested: [G, X, O]. Not differentiable."""
        ...

    def freeze(self, weight_OI: torch.Tensor) -> FrozenLinear:
        """Prepare a weight that will not change."""
        ...

    def freeze_integers(self, weight_OI: torch.Tensor) -> IntegerLinear:
        """Prepare a weight of integers for products with bytes.

        Args:
            weight_OI: integers from -64 to 64. (Processors without VNNI add pairs of products in 16 bits.)

        Returns:
            A function from bytes [X, I] to x W^T as float32 [X, O]: exact in any order while sums stay below 2^24.
        """
        ...


class _PlainFrozen:
    def __init__(self, weight_OI: torch.Tensor) -> None:
        self.weight = weight_OI

    def forward(self, input_XI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        return PLAIN.linear(input_XI, self.weight, relu=relu)

    def backward(self, grad_XO: torch.Tensor, *, times: torch.Tensor | None = None) -> torch.Tensor:
        output_XI = torch.matmul(grad_XO, self.weight)
        return output_XI if times is None else output_XI.mul_(times)


def _rectified(output_XO: torch.Tensor, *, relu: bool) -> torch.Tensor:
    return output_XO.relu_() if relu else output_XO


class _Plain:
    """Plain PyTorch, on any device and in any dtype."""

    def is_available(self) -> bool:
        return True

    def linear(self, input_XI: torch.Tensor, weight_OI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        return _rectified(functional.linear(input_XI, weight_OI), relu=relu)

    def own_linear(self, input_GXI: torch.Tensor, weight_GOI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        return _rectified(torch.bmm(input_GXI, weight_GOI.mT), relu=relu)

    def freeze(self, weight_OI: torch.Tensor) -> FrozenLinear:
        return _PlainFrozen(weight_OI)

    def freeze_integers(self, weight_OI: torch.Tensor) -> IntegerLinear:
        single_OI = weight_OI.float()
        return lambda bytes_XI: functional.linear(bytes_XI.float(), single_OI)


class _OneDNNFrozen:
    """Two copies of the weight in oneDNN's blocked format, one per product."""

    def __init__(self, weight_OI: torch.Tensor) -> None:
        self.weight = weight_OI
        self._forward = torch.ops.mkldnn._reorder_linear_weight(weight_OI)
        self._backward = torch.ops.mkldnn._reorder_linear_weight(weight_OI.t())

    def forward(self, input_XI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        return _onednn_linear(input_XI, self._forward, relu=relu)

    def backward(self, grad_XO: torch.Tensor, *, times: torch.Tensor | None = None) -> torch.Tensor:
        if times is None:
            return _onednn_linear(grad_XO, self._backward)
        if times.dtype != torch.bfloat16:  # in float32, a separate pass is faster
            return _onednn_linear(grad_XO, self._backward).mul_(times)
        output_XI: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            grad_XO, times.contiguous(), self._backward, None, "mul"
        )
        return output_XI


class _OneDNN:
    """oneDNN's products on a CPU, in float32, and in bfloat16 if the processor supports it; otherwise plain PyTorch."""

    def is_available(self) -> bool:
        return torch.backends.mkldnn.is_available() and all(
            hasattr(getattr(torch.ops, space), name) for space, name in ONEDNN_ROUTINES
        )

    def linear(self, input_XI: torch.Tensor, weight_OI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        if not _is_for_onednn(weight_OI):
            return PLAIN.linear(input_XI, weight_OI, relu=relu)
        return _onednn_linear(input_XI, weight_OI, relu=relu)

    def own_linear(self, input_GXI: torch.Tensor, weight_GOI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        if weight_GOI.shape[0] == 1:
            return self.linear(input_GXI, weight_GOI[0], relu=relu)
        pairs = zip(input_GXI, weight_GOI, strict=True)
        return torch.stack([self.linear(input_XI, weight_OI, relu=relu) for input_XI, weight_OI in pairs])

    def freeze(self, weight_OI: torch.Tensor) -> FrozenLinear:
        return _OneDNNFrozen(weight_OI) if _is_for_onednn(weight_OI) else PLAIN.freeze(weight_OI)

    def freeze_integers(self, weight_OI: torch.Tensor) -> IntegerLinear:
        packed = torch.ops.onednn.qlinear_prepack(weight_OI.to(torch.int8).contiguous(), None)
        scales_O = torch.ones(len(weight_OI))
        zeros_O = torch.zeros(len(weight_OI), dtype=torch.int32)

        def linear(bytes_XI: torch.Tensor) -> torch.Tensor:
            # Input scale 1 and zero point 0; the weight with its scales and zero points; no bias; output scale 1 and
            # zero point 0, in float32; nothing fused.
            output_XO: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
                bytes_XI, 1.0, 0, packed, scales_O, zeros_O, None, 1.0, 0, torch.float32, "none", [], ""
            )
            return output_XO

        return linear


def _is_for_onednn(weight_OI: torch.Tensor) -> bool:
    if weight_OI.device.type != "cpu":
        return False
    return weight_OI.dtype == torch.float32 or (weight_OI.dtype == torch.bfloat16 and _has_bfloat16())


@functools.cache
def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _onednn_linear(input_XI: torch.Tensor, weight_OI: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
    output_XO: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        input_XI, weight_OI, None, "relu" if relu else "none", [], ""
    )
    return output_XO


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor.to(dtype)`. The call takes a microsecond even if there is nothing to do, a tensor's dtype a tenth."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


ONEDNN_ROUTINES = [
    ("mkldnn", "_linear_pointwise"),
    ("mkldnn", "_reorder_linear_weight"),
    ("mkldnn", "_is_mkldnn_bf16_supported"),
    ("onednn", "qlinear_prepack"),
    ("onednn", "qlinear_pointwise"),
]
"""Namespace and name in torch.ops of each routine used."""
PLAIN: Kernel = _Plain()
ONEDNN: Kernel = _OneDNN()
KERNELS: Mapping[KernelName, Kernel] = MappingProxyType({"plain": PLAIN, "onednn": ONEDNN})


def choose_kernel(device: str, dtype: torch.dtype) -> KernelName:
    """The kernel to use: oneDNN on a CPU if this build of torch supports it; a fixed rule, not a measurement.

    oneDNN was at least as fast as plain PyTorch on every processor tried. With a timing, a busy moment could decide how
    a trial rounds, and two runs of the same trial on one machine could give different bytes.

    Args:
        device: `cpu` or `cuda`.
        dtype: dtype of the products; float64 always uses plain PyTorch.
    """
    return "onednn" if device == "cpu" and dtype != torch.float64 and ONEDNN.is_available() else "plain"
