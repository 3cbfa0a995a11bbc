"""Dense layers, alone and in a row: frozen and modulated, and with weights that move.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from crwn.faults import InvalidError
from crwn.nn import dense
from crwn.nn.dense import DenseLayer, in_a_row
from crwn.nn.kernels import PLAIN, Kernel
from crwn.nn.weights import MaskedWeight, OwnWeight, RotatedWeight, SharedWeight
from tests.refusals import refused

CRWN, BATCHE = "gbi,oi,gi,g->gbo", "gbi,oi,gi,go->gbo"  # y = a (R * c) x and y = (W * r s^T) x, as the arguments come
NAMES = {CRWN: ("in_scale_GI", "strength_G"), BATCHE: ("in_scale_GI", "out_scale_GO")}


def built(kernel: Kernel, formula: str, *, freezes: bool) -> Callable[..., torch.Tensor]:
    """One layer of input, weight and scales, as the formula has them."""

    def layer(input_GBI: torch.Tensor, weight_OI: torch.Tensor, *scales: torch.Tensor) -> torch.Tensor:
        named: dict[str, Any] = dict(zip(NAMES[formula], scales, strict=True))
        weight = kernel.freeze(weight_OI) if freezes else SharedWeight(weight_OI, kernel)
        return in_a_row(input_GBI, [DenseLayer(weight=weight, **named)], kernel)

    return layer


# Whether weights are frozen, places of what may be trained, and the numbers for each output from which W_t is formed.
variants = pytest.mark.parametrize(
    ("freezes", "trained", "wide"),
    [
        pytest.param(True, (0, 2, 3), dense.WIDE, id="inputs modulated"),
        pytest.param(True, (0, 2, 3), 0, id="weights modulated"),
        pytest.param(False, (0, 1, 2, 3), 0, id="trained"),
    ],
)
formulas = pytest.mark.parametrize("formula", [CRWN, BATCHE], ids=["context and strength", "rank one"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@variants
@formulas
def test_a_layer_and_its_gradients_are_its_formula(
    *,
    formula: str,
    freezes: bool,
    trained: tuple[int, ...],
    wide: int,
    dtype: torch.dtype,
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_is_formula: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both papers' equations, with scales of both signs."""
    monkeypatch.setattr(dense, "WIDE", wide)
    tensors = [tensor.to(dtype) for tensor in operands(formula)]
    assert_is_formula(built(kernel, formula, freezes=freezes), formula, tensors, trained)


@variants
@formulas
def test_gradients_are_right_whatever_requires_one(
    *,
    formula: str,
    freezes: bool,
    trained: tuple[int, ...],
    wide: int,
    operands: Callable[[str], list[torch.Tensor]],
    assert_differentiable: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Finite differences, for every choice of arguments; frozen weights get no gradient."""
    monkeypatch.setattr(dense, "WIDE", wide)
    assert_differentiable(built(PLAIN, formula, freezes=freezes), operands(formula), trained)


@variants
@formulas
def test_tasks_do_not_touch_each_other(
    *,
    formula: str,
    freezes: bool,
    trained: tuple[int, ...],
    wide: int,
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_keeps_tasks_apart: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another scale or input, in the dtype in which kernels differ."""
    monkeypatch.setattr(dense, "WIDE", wide)
    tensors = [tensor.float() for tensor in operands(formula)]
    assert_keeps_tasks_apart(built(kernel, formula, freezes=freezes), tensors, of_tasks=(0, 2, 3))


SIZES = (5, 4, 6, 3)
"""Inputs of three layers, and outputs of the last."""
DEEP = ["input", *(f"{name} {layer}" for layer in range(3) for name in ("in_scale_GI", "strength_G", "out_scale_GO"))]
WITHOUT_OUT = [name for name in DEEP if "out" not in name]


@dataclasses.dataclass
class Deep:
    """Three layers: their weights, and by name the input and the scales."""

    weights: list[torch.Tensor]
    tensors: dict[str, torch.Tensor]

    def layers(self, kernel: Kernel, names: Sequence[str], frozen: Sequence[Any] = ()) -> Callable[..., torch.Tensor]:
        """The layers as a function of the tensors of some names, with weights frozen by the kernel or as given."""
        weights = frozen or [kernel.freeze(weight_OI) for weight_OI in self.weights]

        def layers(*given: torch.Tensor) -> torch.Tensor:
            scales = [
                {
                    name.split()[0]: tensor
                    for name, tensor in zip(names, given, strict=True)
                    if name.endswith(f" {index}")
                }
                for index in range(3)
            ]
            chain = [DenseLayer(weight=w, **scale) for w, scale in zip(weights, scales, strict=True)]
            return in_a_row(given[0], chain, kernel)

        return layers


@pytest.fixture
def three(numbers: Callable[..., torch.Tensor]) -> Deep:
    """Drawn in float64."""
    sizes = list(itertools.pairwise(SIZES))
    shapes = [(3, 4, SIZES[0]), *(shape for i, o in sizes for shape in ((3, i), (3,), (3, o)))]
    return Deep(
        weights=[numbers(outputs, inputs) for inputs, outputs in sizes],
        tensors={name: numbers(*shape) for name, shape in zip(DEEP, shapes, strict=True)},
    )


@pytest.mark.parametrize("wide", [dense.WIDE, 0, 5], ids=["inputs modulated", "weights modulated", "both"])
@pytest.mark.parametrize("names", [DEEP, WITHOUT_OUT], ids=["outputs scaled", "outputs as they are"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_in_a_row_are_their_formulas_with_relu_between(
    *,
    names: list[str],
    wide: int,
    dtype: torch.dtype,
    kernel: Kernel,
    three: Deep,
    assert_is_formula: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three layers in one step of autograd, against autograd of einsums and ReLU in float64."""
    monkeypatch.setattr(dense, "WIDE", wide)

    def formula(hidden: torch.Tensor, *scales: torch.Tensor) -> torch.Tensor:
        for index, weight_OI in enumerate(weights):
            in_scale_GI, strength_G, *out_scale_GO = scales[index * len(scales) // 3 : (index + 1) * len(scales) // 3]
            hidden = torch.einsum(
                "gbi,oi,gi,g->gbo", hidden.relu() if index else hidden, weight_OI, in_scale_GI, strength_G
            )
            hidden = torch.einsum("gbo,go->gbo", hidden, *out_scale_GO) if out_scale_GO else hidden
        return hidden

    weights = three.weights
    frozen = [kernel.freeze(weight_OI.to(dtype)) for weight_OI in weights]
    tensors = [three.tensors[name].to(dtype) for name in names]
    assert_is_formula(three.layers(kernel, names, frozen), formula, tensors, range(len(names)))


@pytest.mark.parametrize(
    "required", [*([name] for name in DEEP), ["in_scale_GI 0", "out_scale_GO 2"], ["strength_G 1", "in_scale_GI 2"]]
)
def test_each_gradient_is_what_it_is_beside_all_others(required: list[str], three: Deep) -> None:
    """And nothing gets one that requires none."""
    gradients = []
    for chosen in (DEEP, required):
        copies = {name: tensor.clone().requires_grad_(name in chosen) for name, tensor in three.tensors.items()}
        three.layers(PLAIN, DEEP)(*copies.values()).square().sum().backward()
        gradients.append({name: tensor.grad for name, tensor in copies.items()})
    beside, alone = gradients
    assert [name for name in DEEP if alone[name] is not None] == sorted(required, key=DEEP.index)
    for name in required:
        torch.testing.assert_close(alone[name], beside[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("required", "num_products"),
    [
        (["input"], 3),
        (["in_scale_GI 0"], 3),
        (["strength_G 0"], 3),
        (["out_scale_GO 0"], 2),
        (["in_scale_GI 1", "out_scale_GO 0"], 2),
        (["in_scale_GI 2"], 1),
        (["out_scale_GO 2"], 0),
    ],
)
def test_second_products_are_computed_once_and_only_if_read(
    required: list[str], num_products: int, three: Deep
) -> None:
    """A layer's input and scales share R^T g, the outputs' scale needs only the output, and nothing is done below."""
    frozen = [Mock(wraps=PLAIN.freeze(weight_OI), weight=weight_OI) for weight_OI in three.weights]
    tensors = [tensor.requires_grad_(name in required) for name, tensor in three.tensors.items()]
    three.layers(PLAIN, DEEP, frozen)(*tensors).sum().backward()
    assert [weight.forward.call_count for weight in frozen] == [1, 1, 1]
    assert sum(weight.backward.call_count for weight in frozen) == num_products


def test_a_strength_without_a_scale_to_multiply_is_refused(numbers: Callable[..., torch.Tensor]) -> None:
    """It would be ignored."""
    with refused(InvalidError, "strength-without-scale", says=["strength_G: ", "in_scale_GI"]):
        DenseLayer(weight=SharedWeight(numbers(2, 5), PLAIN), strength_G=numbers(3))


MOVING = ["gbi", "goi", "oi", "gii", "oi", "gi", "go"]
"""An input, a weight of each task's own, one behind a rotation, the rotation, and one that is modulated."""


def moving(kernel: Kernel) -> Callable[..., torch.Tensor]:
    """Three layers with weights that move, as a function of their tensors."""

    def layers(
        x: torch.Tensor, own: torch.Tensor, shared: torch.Tensor, turn: torch.Tensor, *last: torch.Tensor
    ) -> Any:
        weight, in_scale, out_scale = last
        chain = [
            DenseLayer(weight=OwnWeight(own, kernel)),
            DenseLayer(weight=RotatedWeight(shared, turn, kernel)),
            DenseLayer(weight=SharedWeight(weight, kernel), in_scale_GI=in_scale, out_scale_GO=out_scale),
        ]
        return in_a_row(x, chain, kernel)

    return layers


@pytest.fixture
def square(numbers: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
    """The tensors of `moving`, every layer with five inputs and outputs."""
    sizes = {"g": 3, "b": 4, "i": 5, "o": 5}
    return [numbers(*(sizes[letter] for letter in shape)) for shape in MOVING]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_move_in_a_row_are_their_formulas_with_relu_between(
    dtype: torch.dtype, kernel: Kernel, square: list[torch.Tensor], assert_is_formula: Callable[..., None]
) -> None:
    """Weights' gradients read what their own layer saw: the input, that rotated, that scaled."""

    def formula(x: torch.Tensor, own: torch.Tensor, shared: torch.Tensor, turn: torch.Tensor, *last: Any) -> Any:
        hidden = torch.einsum("gbi,goi->gbo", x, own).relu()
        hidden = torch.einsum("gbi,oj,gji->gbo", hidden, shared, turn).relu()
        weight, in_scale, out_scale = last
        return torch.einsum("gbi,oi,gi,go->gbo", hidden, weight, in_scale, out_scale)

    tensors = [tensor.to(dtype) for tensor in square]
    assert_is_formula(moving(kernel), formula, tensors, [place for place in range(len(MOVING)) if place != 3])


@pytest.mark.parametrize("required", [place for place in range(len(MOVING)) if place != 3])
def test_each_gradient_of_what_moves_is_what_it_is_beside_all_others(required: int, square: list[torch.Tensor]) -> None:
    """And nothing gets one that requires none, the rotation least of all."""
    gradients = []
    for chosen in (range(len(MOVING)), [required]):
        copies = [tensor.clone().requires_grad_(place in chosen) for place, tensor in enumerate(square)]
        moving(PLAIN)(*copies).square().sum().backward()
        gradients.append([tensor.grad for tensor in copies])
    beside, alone = gradients
    assert beside[3] is None
    assert [place for place, gradient in enumerate(alone) if gradient is not None] == [required]
    torch.testing.assert_close(alone[required], beside[required], rtol=0, atol=0)


def test_a_first_task_sees_the_network_that_later_ones_see(three: Deep) -> None:
    """Weights that are trained, or already frozen: the same scores."""
    tensors = list(three.tensors.values())
    moving = [SharedWeight(weight_OI, PLAIN) for weight_OI in three.weights]
    trained, frozen = (three.layers(PLAIN, DEEP, weights)(*tensors) for weights in (moving, ()))
    torch.testing.assert_close(trained, frozen, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("batch_size", "num_shared"), [(3, 1), (4, 0)])
def test_a_wide_layer_with_few_outputs_forms_its_weights(
    batch_size: int, num_shared: int, numbers: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 10 numbers a batch for each of 2 outputs on: 3 x 5 use the shared product, 4 x 5 use one for each task."""
    monkeypatch.setattr(dense, "WIDE", 10)
    weight_OI = numbers(2, 5)
    frozen, kernel = Mock(wraps=PLAIN.freeze(weight_OI), weight=weight_OI), Mock(wraps=PLAIN)
    layer = DenseLayer(weight=frozen, in_scale_GI=numbers(3, 5), strength_G=numbers(3))
    in_a_row(numbers(3, batch_size, 5), [layer], kernel)
    assert (frozen.forward.call_count, kernel.own_linear.call_count) == (num_shared, 1 - num_shared)


def masked(x: torch.Tensor, fixed: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """A layer of fixed weights under masks."""
    return in_a_row(x, [DenseLayer(weight=MaskedWeight(scores, fixed, fixed.dtype, PLAIN))], PLAIN)


def shared(x: torch.Tensor, _: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """A layer that all tasks train."""
    return in_a_row(x, [DenseLayer(weight=SharedWeight(weight_OI, PLAIN))], PLAIN)


def own(x: torch.Tensor, _: torch.Tensor, weight_GOI: torch.Tensor) -> torch.Tensor:
    """A layer of each task's own."""
    return in_a_row(x, [DenseLayer(weight=OwnWeight(weight_GOI, PLAIN))], PLAIN)


@pytest.mark.parametrize(
    ("layer", "shapes", "needs_input", "num_products"),
    [
        pytest.param(built(PLAIN, CRWN, freezes=True), ("gi", "g"), True, 2, id="modulated"),
        pytest.param(built(PLAIN, CRWN, freezes=True), ("gi", "g"), False, 2, id="modulated, first"),
        pytest.param(masked, ("goi",), True, 3, id="masked"),
        pytest.param(masked, ("goi",), False, 2, id="masked, first"),
        pytest.param(shared, ("oi",), True, 3, id="shared"),
        pytest.param(shared, ("oi",), False, 2, id="shared, first"),
        pytest.param(own, ("goi",), True, 3, id="own"),
        pytest.param(own, ("goi",), False, 2, id="own, first"),
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
