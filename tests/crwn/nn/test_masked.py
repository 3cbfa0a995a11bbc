"""The masked linear layer."""

from __future__ import annotations

import pytest
import torch

from crwn.nn.masked import masked_linear, threshold_mask


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


def test_the_layer_is_its_definition() -> None:
    """y = (W * m) x for every task, example and output, each sum written out."""
    input_GBI, weight_OI = numbers(3, 4, 5), numbers(2, 5)
    mask_GOI = (numbers(3, 2, 5) >= 0).double()
    output_GBO = masked_linear(input_GBI, weight_OI, mask_GOI)
    assert output_GBO.shape == (3, 4, 2)
    for task in range(3):
        for example in range(4):
            for unit in range(2):
                chosen = [i for i in range(5) if mask_GOI[task, unit, i] == 1]
                expected = sum((weight_OI[unit, i] * input_GBI[task, example, i]).item() for i in chosen)
                assert output_GBO[task, example, unit].item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_mask_is_exactly_zero_or_one(dtype: torch.dtype, *, requires_grad: bool) -> None:
    """1 from zero on, negative zero included, else 0, with no rounding from the scores, however large or small."""
    scores = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 0.1, -0.1, 1e38, -1e38], dtype=dtype)
    mask = threshold_mask(scores.requires_grad_(requires_grad))
    assert mask.dtype == dtype
    assert mask.tolist() == [1, 1, 1, 0, 1, 0, 1, 0]


def test_gradients_pass_straight_through_the_threshold() -> None:
    """Scores get the gradient of their mask: dL/ds = (dL/dy)^T x * W, summed by hand, also where a weight is unused."""
    input_GBI, weight_OI, sensitivity_GBO = numbers(3, 4, 5), numbers(2, 5), numbers(3, 4, 2)
    scores_GOI = numbers(3, 2, 5).requires_grad_()
    output_GBO = masked_linear(input_GBI, weight_OI, threshold_mask(scores_GOI))
    (output_GBO * sensitivity_GBO).sum().backward()

    expected = torch.zeros(3, 2, 5, dtype=torch.float64)
    for task in range(3):
        for example in range(4):
            outer = sensitivity_GBO[task, example][:, None] * input_GBI[task, example][None, :]
            expected[task] += outer * weight_OI
    torch.testing.assert_close(scores_GOI.grad, expected, rtol=1e-12, atol=1e-14)
    assert (expected[scores_GOI < 0] != 0).all()


def test_the_input_gets_its_gradient_through_the_masked_weights() -> None:
    """Finite differences of the layer with respect to its input; the fixed weights get no gradient."""
    weight_OI, mask_GOI = numbers(2, 5), (numbers(3, 2, 5) >= 0).double()
    input_GBI = numbers(3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda inputs: masked_linear(inputs, weight_OI, mask_GOI), (input_GBI,))
    assert weight_OI.grad is None


def test_tasks_do_not_touch_each_other() -> None:
    """Another mask or input of one task changes no bit of another's output."""
    input_GBI, weight_OI, mask_GOI = numbers(3, 4, 5), numbers(2, 5), (numbers(3, 2, 5) >= 0).double()
    before = masked_linear(input_GBI, weight_OI, mask_GOI)
    input_GBI[1] += 1
    mask_GOI[1] = 1 - mask_GOI[1]
    after = masked_linear(input_GBI, weight_OI, mask_GOI)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])
