"""Trials on tensors without values, which show without a GPU how a program would treat one.

Tensors on `meta` have shapes alone, and so do those of torch's FakeTensorMode, which say that they lie on `cuda`.
Neither refuses all that a GPU would (on `meta`, `index_select` and many products take an operand from the CPU), and
neither knows what a program waits for. So every operation passes through `DeviceWatch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
ATEN = torch.ops.aten
COPIES = (ATEN.copy_.default, ATEN.copy.default)
INDEXING = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default)


class DeviceError(AssertionError):
    """A GPU would refuse the operation, or values would decide what is computed next."""


class DeviceWatch(TorchDispatchMode):
    """Refuses operations whose tensors lie on two devices, and notes what makes a program wait for the device.

    What is read from the device is zeros, so that a whole trial can run. A tensor without dimensions may lie on the
    CPU, as it may beside a GPU's.

    Attributes:
        waits: what reads from the device (`.item()`, `.cpu()`), and copies to it that block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """One operation."""
        del types
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is ATEN._to_copy.default:
            return self._copied(func, given[0], args, kwargs)
        if func in COPIES:
            return self._copied_into(func, args, kwargs)
        if len({tensor.device for tensor in given if tensor.dim() or tensor.device != CPU}) > 1:
            raise DeviceError(f"{func}: expected tensors on one device, given {_words(given)}")
        if all(tensor.device == CPU for tensor in given):
            return func(*args, **kwargs)
        if func is ATEN._local_scalar_dense.default:
            self._note(func, given)
            with no_dispatch():
                return torch.zeros((), dtype=given[0].dtype).item()
        if func is ATEN._fused_sgd_.default:  # changes its operands alone; torch has it for real devices only
            return None
        if func is ATEN.lift_fresh.default:  # `torch.tensor(..., device=...)` has filled it on the CPU
            self._note(func, given)
        elif torch.Tag.data_dependent_output in func.tags or _picks_by_value(func, args):
            raise DeviceError(f"{func}: expected nothing that depends on values, given {_words(given)}")
        return func(*args, **kwargs)

    def _copied(self, func: Any, source: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A copy with another type or on another device."""
        target = torch.device(kwargs.get("device") or source.device)
        if target.type != source.device.type and (target == CPU or not kwargs.get("non_blocking")):
            self._note(func, [source])
        if target == CPU != source.device:
            with no_dispatch():
                return torch.zeros(tuple(source.shape), dtype=kwargs.get("dtype") or source.dtype)
        return func(*args, **kwargs)

    def _copied_into(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A copy into a tensor, perhaps on another device."""
        target, source, *rest = args
        is_read, is_sent = target.device == CPU != source.device, target.device != CPU == source.device
        blocks = source.dim() and not kwargs.get("non_blocking", any(rest))
        if is_read or (is_sent and blocks):
            self._note(func, [target, source])
        return target.zero_() if is_read else func(*args, **kwargs)

    def _note(self, func: Any, given: Sequence[torch.Tensor]) -> None:
        self.waits.append(f"{func} of {_words(given)}")


def _picks_by_value(func: Any, args: Sequence[Any]) -> bool:
    """Whether the shape of the result depends on values, as of `nonzero` and of an index that is a mask."""
    if func in INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def _words(given: Sequence[torch.Tensor]) -> str:
    return ", ".join(f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}" for tensor in given)
