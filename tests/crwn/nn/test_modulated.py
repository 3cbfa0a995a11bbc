"""The modulated linear layer."""

from __future__ import annotations

import torch

from crwn.nn.modulated import modulated_linear


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


def test_the_layer_is_its_definition() -> None:
    """y = a (R * c) x for every task, example and output, each sum written out, with contexts of both signs."""
    input_GBI, weight_OI = numbers(3, 4, 5), numbers(2, 5)
    context_GI, strength_G = numbers(3, 5), numbers(3)
    output_GBO = modulated_linear(input_GBI, weight_OI, context_GI, strength_G)
    assert output_GBO.shape == (3, 4, 2)
    for task in range(3):
        for example in range(4):
            for unit in range(2):
                terms = [
                    strength_G[task] * weight_OI[unit, i] * context_GI[task, i] * input_GBI[task, example, i]
                    for i in range(5)
                ]
                torch.testing.assert_close(output_GBO[task, example, unit], sum(terms), rtol=1e-12, atol=1e-14)


def test_gradients_are_those_of_finite_differences() -> None:
    """With respect to context, strength and input; the fixed weights get none."""
    weight_OI = numbers(2, 5)
    trained = [numbers(3, 5).requires_grad_(), numbers(3).requires_grad_()]
    input_GBI = numbers(3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda inputs, context, strength: modulated_linear(inputs, weight_OI, context, strength), (input_GBI, *trained)
    )
    modulated_linear(input_GBI, weight_OI, *trained).sum().backward()
    assert weight_OI.grad is None


def test_tasks_do_not_touch_each_other() -> None:
    """Another context, strength or input of one task changes no bit of another's output."""
    weight_OI = numbers(2, 5)
    input_GBI, context_GI, strength_G = numbers(3, 4, 5), numbers(3, 5), numbers(3)
    before = modulated_linear(input_GBI, weight_OI, context_GI, strength_G)
    for tensor in (input_GBI, context_GI, strength_G):
        tensor[1] += 1
    after = modulated_linear(input_GBI, weight_OI, context_GI, strength_G)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])
