"""What the tests of layers share: one thread, the kernels, numbers, and a layer's comparison with its formula.

A layer takes tensors and gives one; its formula is an einsum of the same tensors, or a function of them. `trained`
names the places of those that may require a gradient.

Shapes: G tasks, B examples a task, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest
import torch

from crwn.nn.kernels import KERNELS, Kernel

Layer: TypeAlias = Callable[..., torch.Tensor]

SIZES = {"g": 3, "b": 4, "i": 5, "j": 5, "o": 2}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def _with_one_thread(one_thread: None) -> None:
    """Every test here computes with one thread."""


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each kernel that this build of torch has."""
    kernel = KERNELS[request.param]
    if not kernel.is_available():
        pytest.skip(f"this build of torch lacks the routines of the kernel {request.param!r}")
    return kernel


@pytest.fixture
def numbers() -> Callable[..., torch.Tensor]:
    """Draws normal numbers of a shape in float64: other ones at every call, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.fixture
def operands(numbers: Callable[..., torch.Tensor]) -> Callable[[str], list[torch.Tensor]]:
    """Draws the tensors that a formula takes."""
    return lambda formula: [numbers(*(SIZES[letter] for letter in term)) for term in formula.split("->")[0].split(",")]


@pytest.fixture
def assert_is_formula(numbers: Callable[..., torch.Tensor]) -> Callable[..., None]:
    """Checks values and gradients, in float32 or float64, against autograd of the formula in float64."""

    def check(layer: Layer, formula: str | Layer, tensors: Sequence[torch.Tensor], trained: Sequence[int]) -> None:
        dtype = tensors[0].dtype
        outcomes = []
        exactly = functools.partial(torch.einsum, formula) if isinstance(formula, str) else formula
        for function, of_dtype in ((layer, dtype), (exactly, torch.float64)):
            copies = [tensor.to(of_dtype, copy=True) for tensor in tensors]
            required = [copies[place].requires_grad_() for place in trained]
            outcomes.append((function(*copies), required))
        sensitivity = numbers(*outcomes[0][0].shape)
        (found, *_), (expected, *_) = results = [
            (output, *torch.autograd.grad(output, required, sensitivity.to(output.dtype)))
            for output, required in outcomes
        ]
        assert found.shape == expected.shape
        for given, exact in zip(*results, strict=True):
            assert given.dtype == dtype
            torch.testing.assert_close(given.double(), exact, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])

    return check


@pytest.fixture
def assert_differentiable() -> Callable[..., None]:
    """Checks gradients by finite differences in float64, for every choice of what requires one."""

    def check(layer: Layer, tensors: Sequence[torch.Tensor], trained: Sequence[int]) -> None:
        for count in range(1, len(trained) + 1):
            for required in itertools.combinations(trained, count):
                copies = [tensor.clone().requires_grad_(place in required) for place, tensor in enumerate(tensors)]
                assert torch.autograd.gradcheck(layer, copies)

    return check


@pytest.fixture
def assert_keeps_tasks_apart() -> Callable[..., None]:
    """Checks that other numbers of task 1 change no bit of tasks 0 and 2."""

    def check(layer: Layer, tensors: Sequence[torch.Tensor], of_tasks: Sequence[int]) -> None:
        before = layer(*tensors)
        for place in of_tasks:
            others = [tensor.clone() for tensor in tensors]
            others[place][1] *= -2
            after = layer(*others)
            assert torch.equal(after[[0, 2]], before[[0, 2]])
            assert not torch.equal(after[1], before[1])

    return check
