"""The optimisers against torch's own."""

from __future__ import annotations

import pytest
import torch

from crwn.methods.protocol import Tensors
from crwn.optimizers import OPTIMIZERS

SHAPES = {"matrix": (7, 11), "vector": (901,), "number": (1,)}
KINDS = [
    ("rmsprop", torch.optim.RMSprop, 0.0, 0.0),
    ("adam", torch.optim.Adam, 0.0, 0.0),
    ("adam", torch.optim.Adam, 0.1, 0.0),
    ("sgd", torch.optim.SGD, 0.0, 0.0),
    ("sgd", torch.optim.SGD, 0.1, 0.0),
    ("sgd", torch.optim.SGD, 0.0, 0.9),
    ("sgd", torch.optim.SGD, 0.1, 0.9),
]


def theirs(
    optimizer: type[torch.optim.Optimizer], plain: list[torch.Tensor], decay: float, momentum: float
) -> torch.optim.Optimizer:
    """torch's own optimiser; momentum is given where it has one, as we have it."""
    given = {"momentum": momentum} if optimizer is torch.optim.SGD else {}
    return optimizer(plain, lr=0.01, weight_decay=decay, **given)  # type: ignore[call-arg]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("name", "optimizer", "decay", "momentum"), KINDS)
def test_the_optimizers_are_torchs(
    *,
    name: str,
    optimizer: type[torch.optim.Optimizer],
    decay: float,
    momentum: float,
    dtype: torch.dtype,
    tolerance: float,
    missing: bool,
) -> None:
    """From the first step on, over gradients of all sizes, zeros among them, at rates that change.

    Half-way the state goes to a new optimiser, as a resume point takes it there. Where gradients are missing, one
    tensor has none in every third step: from the first on; for Adam, whose count of steps tensors share here and not in
    torch, from the second on, with the count told to torch.
    """
    first_missing = 1 if name == "adam" else 0
    generator = torch.Generator().manual_seed(0)
    ours: Tensors = {part: torch.randn(shape, dtype=dtype, generator=generator) for part, shape in SHAPES.items()}
    plain = {part: tensor.clone().requires_grad_() for part, tensor in ours.items()}
    reference = theirs(optimizer, list(plain.values()), decay, momentum)
    fused = OPTIMIZERS[name](ours, decay, momentum)
    for step in range(50):
        for part, parameter in plain.items():
            sizes = 10.0 ** torch.linspace(-12, 3, parameter.numel(), dtype=dtype).view_as(parameter)
            drawn = torch.randn(parameter.shape, dtype=dtype, generator=generator)
            is_missing = missing and part == "vector" and step % 3 == first_missing
            parameter.grad = None if is_missing else drawn * sizes * (step % 7 != 3)
        gradients = {part: parameter.grad.clone() for part, parameter in plain.items() if parameter.grad is not None}
        reference.param_groups[0]["lr"] = rate = 0.01 / (1 + step)
        for state in reference.state.values():
            if name == "adam":
                state["step"].fill_(step)
        reference.step()
        before = ours["vector"].clone()
        fused.step(dict(reversed(gradients.items())), rate)
        assert torch.equal(ours["vector"], before) or "vector" in gradients
        if step == 25:
            kept, fused = fused.state, OPTIMIZERS[name](ours, decay, momentum)
            assert fused.state.keys() == kept.keys()
            for part, tensor in fused.state.items():
                tensor.copy_(kept[part])
        for part in SHAPES:
            torch.testing.assert_close(ours[part], plain[part].detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_gradients_nothing_moves(name: str) -> None:
    """No tensor moves, and no optimiser state."""
    trained: Tensors = {"a": torch.ones(3)}
    optimizer = OPTIMIZERS[name](trained, 0.0, 0.0)
    before = {key: tensor.clone() for key, tensor in optimizer.state.items()}
    optimizer.step({}, 0.1)
    assert torch.equal(trained["a"], torch.ones(3))
    assert all(torch.equal(tensor, before[key]) for key, tensor in optimizer.state.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_may_have_any_strides(name: str) -> None:
    """Transposed, expanded from one number, or contiguous: the step is the same."""
    gradient = torch.arange(6.0).view(2, 3) - 2
    for given in (gradient.t().contiguous().t(), gradient, torch.ones(()).expand(2, 3)):
        strided, plain = torch.zeros(2, 3), torch.zeros(2, 3)
        OPTIMIZERS[name]({"a": strided}, 0.0, 0.0).step({"a": given}, 0.1)
        OPTIMIZERS[name]({"a": plain}, 0.0, 0.0).step({"a": given.clone(memory_format=torch.contiguous_format)}, 0.1)
        assert torch.equal(strided, plain)


@pytest.mark.parametrize(("name", "momentum"), [("rmsprop", 0.0), ("adam", 0.0), ("sgd", 0.9)])
def test_state_lies_beside_what_is_trained(name: str, momentum: float) -> None:
    """In the shape of each trained tensor, by its name; what they share is a number."""
    trained = {part: torch.zeros(shape).requires_grad_() for part, shape in SHAPES.items()}
    state = OPTIMIZERS[name](trained, 0.0, momentum).state
    assert state
    for key, tensor in state.items():
        assert not tensor.requires_grad
        if tensor.dim():
            assert tensor.shape == trained[key.partition(".")[2]].shape


def test_sgd_without_momentum_keeps_nothing() -> None:
    """So it adds nothing to resume points."""
    assert OPTIMIZERS["sgd"]({"a": torch.zeros(3)}, 0.1, 0.0).state == {}
