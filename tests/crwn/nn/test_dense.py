"""Dense layers: shared, of a task's own, and behind a rotation.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch

from crwn.nn import dense
from crwn.nn.kernels import PLAIN, Kernel

LAYERS = [
    # Formula; places of what may be trained; the layer.
    pytest.param("gbi,oi->gbo", (0, 1), lambda kernel, x, W: dense.linear(x, W, kernel), id="shared"),
    pytest.param("gbi,goi->gbo", (0, 1), lambda kernel, x, W: dense.own_linear(x, W, kernel), id="own"),
    pytest.param(
        "gbi,oj,gji->gbo", (0, 1, 2), lambda kernel, x, W, C: dense.rotated_linear(x, W, C, kernel), id="rotated"
    ),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("formula", "trained", "layer"), LAYERS)
def test_layers_and_their_gradients_are_their_formulas(
    *,
    formula: str,
    trained: tuple[int, ...],
    layer: Callable[..., torch.Tensor],
    dtype: torch.dtype,
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_is_formula: Callable[..., None],
) -> None:
    """The sums that define them, element by element; C need not be a rotation for this."""
    tensors = [tensor.to(dtype) for tensor in operands(formula)]
    assert_is_formula(lambda *given: layer(kernel, *given), formula, tensors, trained)


@pytest.mark.parametrize(("formula", "trained", "layer"), LAYERS)
def test_gradients_are_right_whatever_requires_one(
    formula: str,
    trained: tuple[int, ...],
    layer: Callable[..., torch.Tensor],
    operands: Callable[[str], list[torch.Tensor]],
    assert_differentiable: Callable[..., None],
) -> None:
    """Finite differences, for every choice of arguments."""
    assert_differentiable(lambda *given: layer(PLAIN, *given), operands(formula), trained)


@pytest.mark.parametrize(("formula", "trained", "layer"), LAYERS)
def test_tasks_do_not_touch_each_other(
    *,
    formula: str,
    trained: tuple[int, ...],
    layer: Callable[..., torch.Tensor],
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_keeps_tasks_apart: Callable[..., None],
) -> None:
    """Whatever a task has of its own, in the dtype in which kernels differ."""
    tensors = [tensor.float() for tensor in operands(formula)]
    of_tasks = [place for place in trained if tensors[place].shape[0] == 3]
    assert_keeps_tasks_apart(lambda *given: layer(kernel, *given), tensors, of_tasks)


@pytest.mark.parametrize(("name", "formula"), [("linear", "gbi,oi->gbo"), ("own_linear", "gbi,goi->gbo")])
@pytest.mark.parametrize(("required", "num_products"), [((), 1), ((0,), 2), ((1,), 2), ((0, 1), 3)])
def test_every_product_is_the_kernels_and_is_read(
    name: str,
    formula: str,
    required: tuple[int, ...],
    num_products: int,
    operands: Callable[[str], list[torch.Tensor]],
) -> None:
    """The kernel computes one product forward and one for each gradient that is required, and no other."""
    kernel = Mock(wraps=PLAIN)
    tensors = [tensor.requires_grad_(place in required) for place, tensor in enumerate(operands(formula))]
    output_GBO = getattr(dense, name)(*tensors, kernel)
    if required:
        output_GBO.sum().backward()
    assert getattr(kernel, name).call_count == len(kernel.method_calls) == num_products
