"""The masked linear layer.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from crwn.nn.dense import DenseLayer, in_a_row
from crwn.nn.kernels import PLAIN, Kernel
from crwn.nn.masked import budget_mask, budget_masked_weights, masked_weights, packed_bits, unpacked_bits
from crwn.nn.weights import MaskedWeight, OwnWeight

FORMULA = "gbi,oi,goi->gbo"  # y = (W * m) x, its arguments in the layer's order


def masked_linear(
    input_GBI: torch.Tensor, weight_OI: torch.Tensor, scores_GOI: torch.Tensor, kernel: Kernel
) -> torch.Tensor:
    """The layer as SupSup has it."""
    weight = MaskedWeight(scores_GOI, weight_OI, input_GBI.dtype, kernel)
    return in_a_row(input_GBI, [DenseLayer(weight=weight)], kernel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_layer_and_its_gradients_are_its_formula(
    dtype: torch.dtype,
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_is_formula: Callable[..., None],
) -> None:
    """With scores m - 1/2 their gradient is that to the mask m, also where it is 0 and a weight is unused."""
    input_GBI, weight_OI, mask_GOI = (tensor.to(dtype) for tensor in operands(FORMULA))
    mask_GOI = (mask_GOI >= 0).to(dtype)
    assert 0 < mask_GOI.sum() < mask_GOI.numel()
    assert_is_formula(
        lambda x, W, m: masked_linear(x, W, m - 0.5, kernel), FORMULA, (input_GBI, weight_OI, mask_GOI), trained=(0, 2)
    )


def test_the_input_gets_its_gradient_through_the_masked_weights(
    operands: Callable[[str], list[torch.Tensor]], assert_differentiable: Callable[..., None]
) -> None:
    """Finite differences; scores have none, because the layer is constant around almost all of them."""
    assert_differentiable(lambda *given: masked_linear(*given, PLAIN), operands(FORMULA), trained=(0,))


def test_tasks_do_not_touch_each_other(
    kernel: Kernel,
    operands: Callable[[str], list[torch.Tensor]],
    assert_keeps_tasks_apart: Callable[..., None],
) -> None:
    """Other scores or another input, in the dtype in which kernels differ."""
    tensors = [tensor.float() for tensor in operands(FORMULA)]
    assert_keeps_tasks_apart(lambda *given: masked_linear(*given, kernel), tensors, of_tasks=(0, 2))


@pytest.mark.parametrize("product_dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_layer_computes_with_what_the_masked_weights_are(
    product_dtype: torch.dtype, kernel: Kernel, operands: Callable[[str], list[torch.Tensor]]
) -> None:
    """Bit for bit, forward and the gradients to the input and, in the scores' own dtype, to the scores."""
    input_GBI, weight_OI, scores_GOI = operands(FORMULA)
    outcomes = []
    for is_layer in (True, False):
        x, scores = input_GBI.to(product_dtype, copy=True).requires_grad_(), scores_GOI.clone().requires_grad_()
        if is_layer:
            weight = MaskedWeight(scores, weight_OI, product_dtype, kernel)
        else:
            weight = OwnWeight(masked_weights(scores, weight_OI, product_dtype), kernel)
        output_GBO = in_a_row(x, [DenseLayer(weight=weight)], kernel)
        outcomes.append((output_GBO, *torch.autograd.grad(output_GBO.float().square().sum(), (x, scores))))
    for of_layer, of_weights in zip(*outcomes, strict=True):
        assert of_layer.dtype == of_weights.dtype
        assert torch.equal(of_layer, of_weights)


@pytest.mark.parametrize("product_dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_of_zero_or_more_keeps_its_weight_as_it_is(dtype: torch.dtype, product_dtype: torch.dtype) -> None:
    """Negative zero counts as zero, and scores however large or small round nothing; scores get W g, W gets nothing."""
    scores_1OI = torch.tensor([[[0.0, -0.0, 1e-45, -1e-45, 0.1, -0.1, 1e38, -1e38]]], dtype=dtype).requires_grad_()
    weight_OI = torch.tensor([[1.5, -2, 3, 4, -5, 6, 7, 8]], dtype=dtype).requires_grad_()
    weights_1OI = masked_weights(scores_1OI, weight_OI, product_dtype)
    assert weights_1OI.dtype == product_dtype
    assert weights_1OI.tolist() == [[[1.5, -2, 3, 0, -5, 0, 7, 0]]]

    grad_1OI = torch.arange(8, dtype=product_dtype)[None, None]
    weights_1OI.backward(grad_1OI)
    assert scores_1OI.grad.dtype == dtype
    assert scores_1OI.grad.tolist() == [[[0, -2, 6, 12, -20, 30, 42, 56]]]
    assert weight_OI.grad is None


@pytest.mark.parametrize(("share", "kept"), [(0.5, 4), (0.3, 3), (1e-9, 1), (1.0, 8)])
def test_a_budget_keeps_the_largest_scores(share: float, kept: int) -> None:
    """By magnitude, so many of each task, rounded up: the others' weights are 0."""
    scores_2OI = torch.tensor([[[0.1, -0.9, 0.3, -0.2], [0.8, -0.4, 0.6, -0.7]], [[8.0, 7, 6, 5], [4, 3, 2, 1]]])
    order = [[1, 4, 7, 6, 5, 2, 3, 0], [0, 1, 2, 3, 4, 5, 6, 7]]
    mask_2OI = budget_mask(scores_2OI, share)
    assert mask_2OI.shape == scores_2OI.shape
    for mask_OI, places in zip(mask_2OI, order, strict=True):
        assert mask_OI.flatten().nonzero().flatten().tolist() == sorted(places[:kept])
    weight_OI = torch.arange(1.0, 9).view(2, 4)
    assert torch.equal(budget_masked_weights(scores_2OI, weight_OI, share, weight_OI.dtype), mask_2OI * weight_OI)


def test_the_gradient_under_a_budget_passes_to_the_magnitudes() -> None:
    """As of |s| W where the mask is taken for |s|: every score's, kept or not; W gets none. For kernels too."""
    generator = torch.Generator().manual_seed(0)
    scores, up = (torch.randn(2, 4, 3, 3, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    ours, theirs = (scores.clone().requires_grad_() for _ in range(2))
    budget_masked_weights(ours, weight, 0.4, weight.dtype).backward(up)
    assert weight.grad is None
    (theirs.abs() * weight.detach()).backward(up)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("count", [1, 8, 21])
def test_marks_are_packed_as_numpy_packs_them(count: int) -> None:
    """Eight a byte, the first in its lowest bit, each task's for themselves; unpacked they are what they were."""
    marks_GN = torch.randint(0, 2, (3, count), dtype=torch.bool, generator=torch.Generator().manual_seed(count))
    packed_GX = packed_bits(marks_GN)
    assert np.array_equal(packed_GX.numpy(), np.packbits(marks_GN.numpy(), axis=1, bitorder="little"))
    assert torch.equal(unpacked_bits(packed_GX, count), marks_GN.to(torch.uint8))
