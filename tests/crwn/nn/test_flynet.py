"""FlyNet's encoder."""

from __future__ import annotations

import pytest
import torch

from crwn.nn.flynet import encode


@pytest.mark.parametrize("inhibition", [0.0, 1.0, 2.0])
def test_the_encoder_is_its_definition(inhibition: float) -> None:
    """Each unit sums its inputs, the units' mean times gamma is subtracted, and what is negative becomes zero."""
    generator = torch.Generator().manual_seed(0)
    input_GBD = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator)
    encoder_ND = (torch.rand(8, 6, dtype=torch.float64, generator=generator) < 0.4).double()
    hidden_GBN = encode(input_GBD, encoder_ND, inhibition)
    assert hidden_GBN.shape == (2, 3, 8)
    for task in range(2):
        for example in range(3):
            x = input_GBD[task, example].tolist()
            sums = [sum(x[i] for i in range(6) if encoder_ND[unit, i] == 1) for unit in range(8)]
            mean = sum(sums) / 8
            expected = [max(0.0, z - inhibition * mean) for z in sums]
            assert hidden_GBN[task, example].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_inhibition_takes_the_mean_of_one_example() -> None:
    """Worked out by hand: sums 1, 2 and 9, mean 4; of the second example twice as much, in the same batch."""
    input_GBD = torch.tensor([[[1.0, 2.0, 9.0], [2.0, 4.0, 18.0]]])
    assert encode(input_GBD, torch.eye(3), 1.0).tolist() == [[[0, 0, 5], [0, 0, 10]]]
    assert encode(input_GBD, torch.eye(3), 0.25).tolist() == [[[0, 1, 8], [0, 2, 16]]]
