"""Weights that move, each in a layer: shared, of a task's own, and behind a rotation.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch

from crwn.nn.dense import DenseLayer, in_a_row
from crwn.nn.kernels import PLAIN, Kernel
from crwn.nn.weights import MovingWeight, OwnWeight, RotatedWeight, SharedWeight


def layer(kind: Callable[..., MovingWeight]) -> Callable[..., torch.Tensor]:
    """A layer of a kind of weight, of the kernel, the input, and what the weight is made of."""
    return lambda kernel, x, *given: in_a_row(x, [DenseLayer(weight=kind(*given, kernel))], kernel)


LAYERS = [
    # Formula; places of what may be trained; the layer.
    pytest.param("gbi,oi->gbo", (0, 1), layer(SharedWeight), id="shared"),
    pytest.param("gbi,goi->gbo", (0, 1), layer(OwnWeight), id="own"),
    pytest.param("gbi,oj,gji->gbo", (0, 1), layer(RotatedWeight), id="rotated"),
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
    """Whatever a task has of its own, a rotation too, in the dtype in which kernels differ."""
    del trained
    tensors = [tensor.float() for tensor in operands(formula)]
    of_tasks = [place for place, term in enumerate(formula.split("->", maxsplit=1)[0].split(",")) if "g" in term]
    assert_keeps_tasks_apart(lambda *given: layer(kernel, *given), tensors, of_tasks)


@pytest.mark.parametrize(
    ("kind", "formula", "products"),
    [
        (SharedWeight, "gbi,oi->gbo", {"linear": (1, 1, 1)}),
        (OwnWeight, "gbi,goi->gbo", {"own_linear": (1, 1, 1)}),
        (RotatedWeight, "gbi,oj,gji->gbo", {"linear": (1, 1, 1), "own_linear": (1, 1, 0)}),
    ],
)
@pytest.mark.parametrize("required", [(), (0,), (1,), (0, 1)])
def test_every_product_is_the_kernels_and_is_read(
    kind: Callable[..., MovingWeight],
    formula: str,
    products: dict[str, tuple[int, int, int]],
    required: tuple[int, ...],
    operands: Callable[[str], list[torch.Tensor]],
) -> None:
    """The kernel computes what is needed forward and for each gradient that is required, and no other product."""
    kernel = Mock(wraps=PLAIN)
    tensors = [tensor.requires_grad_(place in required) for place, tensor in enumerate(operands(formula))]
    output_GBO = layer(kind)(kernel, *tensors)
    if required:
        output_GBO.sum().backward()
    expected = {
        name: forward + (0 in required) * back + (1 in required) * own
        for name, (forward, back, own) in products.items()
    }
    assert {name: getattr(kernel, name).call_count for name in products} == expected
    assert len(kernel.method_calls) == sum(expected.values())
