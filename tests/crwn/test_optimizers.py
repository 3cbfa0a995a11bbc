"""The optimisers, against torch's own."""

from __future__ import annotations

import pytest
import torch

from crwn.methods.protocol import Tensors
from crwn.optimizers import OPTIMIZERS

SHAPES = {"matrix": (7, 11), "vector": (901,), "number": (1,)}
KINDS = [("rmsprop", torch.optim.RMSprop, 0.0), ("adam", torch.optim.Adam, 0.0), ("adam", torch.optim.Adam, 0.1)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("name", "theirs", "decay"), KINDS)
def test_the_optimizers_are_torchs(
    name: str, theirs: type[torch.optim.Optimizer], decay: float, dtype: torch.dtype, tolerance: float
) -> None:
    """From the first step on, over gradients of all sizes, zeros among them, at rates that change.

    Half-way the state goes to a new optimiser, as a resume point takes it there.
    """
    generator = torch.Generator().manual_seed(0)
    ours: Tensors = {part: torch.randn(shape, dtype=dtype, generator=generator) for part, shape in SHAPES.items()}
    plain = [tensor.clone().requires_grad_() for tensor in ours.values()]
    reference = theirs(plain, lr=0.01, weight_decay=decay)  # type: ignore[call-arg]
    fused = OPTIMIZERS[name](ours, decay)
    for step in range(50):
        for parameter in plain:
            sizes = 10.0 ** torch.linspace(-12, 3, parameter.numel(), dtype=dtype).view_as(parameter)
            drawn = torch.randn(parameter.shape, dtype=dtype, generator=generator)
            parameter.grad = drawn * sizes * (step % 7 != 3)
        gradients = [parameter.grad.clone() for parameter in plain if parameter.grad is not None]
        reference.param_groups[0]["lr"] = rate = 0.01 / (1 + step)
        reference.step()
        fused.step(gradients, rate)
        if step == 25:
            kept, fused = fused.state, OPTIMIZERS[name](ours, decay)
            for part, tensor in fused.state.items():
                tensor.copy_(kept[part])
        for tensor, parameter in zip(ours.values(), plain, strict=True):
            torch.testing.assert_close(tensor, parameter.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_may_have_any_strides(name: str) -> None:
    """Turned over, spread from one number, or as memory has it: the same step."""
    gradient = torch.arange(6.0).view(2, 3) - 2
    for given in (gradient.t().contiguous().t(), gradient, torch.ones(()).expand(2, 3)):
        strided, plain = torch.zeros(2, 3), torch.zeros(2, 3)
        OPTIMIZERS[name]({"a": strided}, 0.0).step([given], 0.1)
        OPTIMIZERS[name]({"a": plain}, 0.0).step([given.clone(memory_format=torch.contiguous_format)], 0.1)
        assert torch.equal(strided, plain)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_lies_beside_what_is_trained(name: str) -> None:
    """In the shape of each trained tensor, by its name; what they share is a number."""
    trained = {part: torch.zeros(shape).requires_grad_() for part, shape in SHAPES.items()}
    for key, tensor in OPTIMIZERS[name](trained, 0.0).state.items():
        assert not tensor.requires_grad
        if tensor.dim():
            assert tensor.shape == trained[key.partition(".")[2]].shape
