"""The modulated linear layer.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from crwn.nn import dense, masked, modulated
from crwn.nn.kernels import PLAIN, Kernel
from crwn.nn.modulated import modulated_linear

FORMULA = "gbi,oi,gi,g->gbo"  # y = a (R * c) x, its arguments in the layer's order


def frozen_layer(kernel: Kernel) -> Callable[..., torch.Tensor]:
    return lambda x, R, c, a: modulated_linear(x, kernel.freeze(R), c, a, kernel)


def trained_layer(kernel: Kernel) -> Callable[..., torch.Tensor]:
    return lambda x, R, c, a: modulated_linear(x, R, c, a, kernel)


# The layer, places of what may be trained, and the numbers for each output from which W_t itself is formed.
variants = pytest.mark.parametrize(
    ("build", "trained", "wide"),
    [
        pytest.param(frozen_layer, (0, 2, 3), modulated.WIDE, id="inputs modulated"),
        pytest.param(frozen_layer, (0, 2, 3), 0, id="weights modulated"),
        pytest.param(trained_layer, (0, 1, 2, 3), 0, id="trained"),
    ],
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@variants
def test_the_layer_and_its_gradients_are_its_formula(
    *,
    build: Callable[[Kernel], Callable[..., torch.Tensor]],
    trained: tuple[int, ...],
    wide: int,
    dtype: torch.dtype,
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_is_formula: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """y = a (R * c) x, with contexts and strengths of both signs."""
    monkeypatch.setattr(modulated, "WIDE", wide)
    tensors = [tensor.to(dtype) for tensor in operands(FORMULA)]
    assert_is_formula(build(kernel), FORMULA, tensors, trained)


@variants
def test_gradients_are_right_whatever_requires_one(
    *,
    build: Callable[[Kernel], Callable[..., torch.Tensor]],
    trained: tuple[int, ...],
    wide: int,
    operands: Callable[[str], list[torch.Tensor]],
    assert_differentiable: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Finite differences, for every choice of arguments; frozen weights get no gradient."""
    monkeypatch.setattr(modulated, "WIDE", wide)
    assert_differentiable(build(PLAIN), operands(FORMULA), trained)


@variants
def test_tasks_do_not_touch_each_other(
    *,
    build: Callable[[Kernel], Callable[..., torch.Tensor]],
    trained: tuple[int, ...],
    wide: int,
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_keeps_tasks_apart: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another context, strength or input, in the dtype in which kernels differ."""
    monkeypatch.setattr(modulated, "WIDE", wide)
    tensors = [tensor.float() for tensor in operands(FORMULA)]
    assert_keeps_tasks_apart(build(kernel), tensors, of_tasks=(0, 2, 3))


@pytest.mark.parametrize(("batch_size", "num_shared"), [(3, 1), (4, 0)])
def test_a_wide_layer_with_few_outputs_forms_its_weights(
    batch_size: int, num_shared: int, numbers: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 10 numbers a batch for each of 2 outputs on: 3 x 5 use the shared product, 4 x 5 use one for each task."""
    monkeypatch.setattr(modulated, "WIDE", 10)
    weight_OI = numbers(2, 5)
    frozen, kernel = Mock(wraps=PLAIN.freeze(weight_OI), weight=weight_OI), Mock(wraps=PLAIN)
    modulated_linear(numbers(3, batch_size, 5), frozen, numbers(3, 5), numbers(3), kernel)
    assert (frozen.forward.call_count, kernel.own_linear.call_count) == (num_shared, 1 - num_shared)


@pytest.mark.parametrize(
    ("layer", "shapes", "needs_input", "num_products"),
    [
        pytest.param(frozen_layer(PLAIN), ("gi", "g"), True, 2, id="modulated"),
        pytest.param(frozen_layer(PLAIN), ("gi", "g"), False, 2, id="modulated, first"),
        pytest.param(
            lambda x, R, s: dense.own_linear(x, masked.masked_weights(s, R), PLAIN), ("goi",), True, 3, id="masked"
        ),
        pytest.param(
            lambda x, R, s: dense.own_linear(x, masked.masked_weights(s, R), PLAIN),
            ("goi",),
            False,
            2,
            id="masked, first",
        ),
        pytest.param(lambda x, _, W: dense.linear(x, W, PLAIN), ("oi",), True, 3, id="dense"),
        pytest.param(lambda x, _, W: dense.linear(x, W, PLAIN), ("oi",), False, 2, id="dense, first"),
        pytest.param(lambda x, _, W: dense.own_linear(x, W, PLAIN), ("goi",), True, 3, id="own"),
        pytest.param(lambda x, _, W: dense.own_linear(x, W, PLAIN), ("goi",), False, 2, id="own, first"),
    ],
)
def test_a_training_step_costs_two_products_against_three(
    *,
    layer: Callable[..., torch.Tensor],
    shapes: tuple[str, ...],
    needs_input: bool,
    num_products: int,
    numbers: Callable[..., torch.Tensor],
) -> None:
    """Products of I O multiply-adds an example: three where weights are trained, two in a network's first layer."""
    sizes = {"g": 3, "b": 8, "i": 20, "o": 10}
    input_GBI, weight_OI = numbers(3, 8, 20).requires_grad_(needs_input), numbers(10, 20)
    trained = [numbers(*(sizes[letter] for letter in shape)).requires_grad_() for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        layer(input_GBI, weight_OI, *trained).sum().backward()
    assert counter.get_total_flops() == num_products * 2 * (3 * 8) * (20 * 10)
