"""Dense layers: of a task's own, behind a rotation, and with a rank-one factor."""

from __future__ import annotations

import pytest
import torch

from crwn.nn.dense import own_linear, rank_one_linear, rotated_linear


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


INPUT_GBI, OWN_GOI, WEIGHT_OI = numbers(3, 4, 5), numbers(3, 2, 5), numbers(2, 5)
ROTATION_GII, OUT_GO, IN_GI = numbers(3, 5, 5), numbers(3, 2), numbers(3, 5, seed=1)


def test_a_tasks_own_layer_is_its_definition() -> None:
    """y = W_t x for every task, example and output, each sum written out."""
    output_GBO = own_linear(INPUT_GBI, OWN_GOI)
    assert output_GBO.shape == (3, 4, 2)
    for task in range(3):
        for example in range(4):
            for unit in range(2):
                expected = sum((OWN_GOI[task, unit, i] * INPUT_GBI[task, example, i]).item() for i in range(5))
                assert output_GBO[task, example, unit].item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_a_rotated_layer_is_its_definition() -> None:
    """y = W (C_t x): first the task's matrix, then the shared one; sums written out. C need not be a rotation here."""
    output_GBO = rotated_linear(INPUT_GBI, WEIGHT_OI, ROTATION_GII)
    assert output_GBO.shape == (3, 4, 2)
    for task in range(3):
        for example in range(4):
            x = INPUT_GBI[task, example]
            turned = [sum((ROTATION_GII[task, j, i] * x[i]).item() for i in range(5)) for j in range(5)]
            for unit in range(2):
                expected = sum(WEIGHT_OI[unit, j].item() * turned[j] for j in range(5))
                assert output_GBO[task, example, unit].item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_a_rank_one_layer_is_its_definition() -> None:
    """y = (W * r s^T) x for every task: the matrix that the paper means, formed and summed element by element."""
    output_GBO = rank_one_linear(INPUT_GBI, WEIGHT_OI, OUT_GO, IN_GI)
    assert output_GBO.shape == (3, 4, 2)
    for task in range(3):
        for example in range(4):
            for unit in range(2):
                terms = [
                    WEIGHT_OI[unit, i] * OUT_GO[task, unit] * IN_GI[task, i] * INPUT_GBI[task, example, i]
                    for i in range(5)
                ]
                torch.testing.assert_close(output_GBO[task, example, unit], sum(terms), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (own_linear, (INPUT_GBI, OWN_GOI)),
        (rotated_linear, (INPUT_GBI, WEIGHT_OI, ROTATION_GII)),
        (rank_one_linear, (INPUT_GBI, WEIGHT_OI, OUT_GO, IN_GI)),
    ],
    ids=["own", "rotated", "rank-one"],
)
def test_layers_have_their_gradients_and_keep_tasks_apart(layer: object, arguments: tuple[torch.Tensor, ...]) -> None:
    """Finite differences with respect to every argument; other numbers of task 1 change no bit of tasks 0 and 2."""
    assert torch.autograd.gradcheck(layer, tuple(tensor.clone().requires_grad_() for tensor in arguments))
    before = layer(*arguments)
    for place, tensor in enumerate(arguments):
        if len(tensor) == 3:
            other = tensor.clone()
            other[1] += 1
            after = layer(*arguments[:place], other, *arguments[place + 1 :])
            assert torch.equal(after[[0, 2]], before[[0, 2]])
            assert not torch.equal(after[1], before[1])
