"""FlyNet's encoder.

Shapes: G tasks, B examples a task, D input features, N hidden units.
"""

from __future__ import annotations

import pytest
import torch

from crwn.data.base import Normalisation
from crwn.nn.flynet import Encoder
from crwn.nn.kernels import KERNELS, PLAIN, Kernel

MNIST = Normalisation(mean=(0.1307,), std=(0.3081,))
(FACTOR,), (OFFSET,) = MNIST.factors, MNIST.offsets


def random_encoder(num_units: int, num_inputs: int, ones: int) -> torch.Tensor:
    """Equally many ones in every row, as FlyNet has them."""
    keys_ND = torch.rand(num_units, num_inputs, generator=torch.Generator().manual_seed(0))
    return torch.zeros(num_units, num_inputs).scatter_(1, keys_ND.argsort(dim=1)[:, :ones], 1.0)


def random_pixels(*shape: int) -> torch.Tensor:
    """Four of five are black, so that some units are active under any inhibition."""
    generator = torch.Generator().manual_seed(1)
    bytes_GBD = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return bytes_GBD * (torch.rand(shape, generator=generator) < 0.2)


@pytest.mark.parametrize("inhibition", [0.0, 1.0, 2.0])
def test_the_encoder_is_its_definition(inhibition: float, kernel: Kernel) -> None:
    """Each unit sums normalised pixels, gamma times the units' mean is subtracted, what is negative becomes zero."""
    bytes_GBD, encoder_ND = random_pixels(2, 3, 6), random_encoder(8, 6, ones=2)
    encode = Encoder(
        encoder_ND,
        inhibition=inhibition,
        factor=FACTOR,
        offset=OFFSET,
        dtype=torch.float64,
        kernel=kernel,
    )
    hidden_GBN = encode(bytes_GBD)
    assert hidden_GBN.shape == (2, 3, 8)
    assert 0 < hidden_GBN.count_nonzero() < hidden_GBN.numel()
    input_GBD = MNIST(bytes_GBD, torch.float64)
    for task in range(2):
        for example in range(3):
            x = input_GBD[task, example].tolist()
            sums = [sum(x[i] for i in range(6) if encoder_ND[unit, i] == 1) for unit in range(8)]
            mean = sum(sums) / 8
            expected = [max(0.0, z - inhibition * mean) / FACTOR for z in sums]
            assert hidden_GBN[task, example].tolist() == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(
    ("inhibition", "expected"),
    [(0.0, [[0, 0, 70], [0, 20, 160]]), (1.0, [[0, 0, 50], [0, 0, 100]]), (2.0, [[0, 0, 30], [0, 0, 40]])],
)
def test_the_encoder_by_hand(inhibition: float, expected: list[list[float]], kernel: Kernel) -> None:
    """Inhibition takes the mean of one example's units.

    Pixels 10, 20, 90 become z = -5, 0, 35 with mean 10, and 20, 40, 180 become 0, 10, 80 with mean 30; what gamma
    leaves of them is divided by f = 1/2.
    """
    encode = Encoder(torch.eye(3), inhibition=inhibition, factor=0.5, offset=10.0, dtype=torch.float32, kernel=kernel)
    assert encode(torch.tensor([[[10, 20, 90], [20, 40, 180]]], dtype=torch.uint8)).tolist() == [expected]


@pytest.mark.parametrize("inhibition", [0.0, 1.0, 2.0])
def test_kernels_and_dtypes_give_the_same_bits(inhibition: float) -> None:
    """Sums are exact, so every kernel gives the same float32, and bfloat16 is that rounded once."""
    bytes_GBD, encoder_ND = random_pixels(2, 5, 784), random_encoder(1000, 784, ones=78)

    def encoded(kernel: Kernel, dtype: torch.dtype) -> torch.Tensor:
        encode = Encoder(encoder_ND, inhibition=inhibition, factor=FACTOR, offset=OFFSET, dtype=dtype, kernel=kernel)
        return encode(bytes_GBD)

    expected = encoded(PLAIN, torch.float32)
    assert 0 < expected.count_nonzero() < expected.numel()
    for kernel in KERNELS.values():
        if kernel.is_available():
            assert torch.equal(encoded(kernel, torch.float32), expected)
            assert torch.equal(encoded(kernel, torch.bfloat16), expected.bfloat16())
