"""A-GEM against a plain loop, and its projection."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from crwn import seeding
from crwn.data import Datasets
from crwn.methods.agem import AGEMSpec, projected
from crwn.spec import ProblemShape
from tests.crwn.methods import plainly

pytestmark = pytest.mark.usefixtures("one_thread")


def test_agem_projects_the_gradient(digits: Datasets) -> None:
    """So that the loss on 16 examples of each earlier task does not rise; both cases occur."""
    spec, kept = AGEMSpec(buffer=50, replay_batch=24), list[tuple[torch.Tensor, torch.Tensor]]()
    signs = set()

    def update(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int, number: int) -> None:
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(plainly.cross_entropy(network, images, labels), parameters)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        if task:
            keys = plainly.uniform("replay", number, 48)
            slots = sorted(range(len(kept)), key=keys.__getitem__)[:24]
            old_images, old_labels = (torch.stack([kept[slot][part] for slot in slots]) for part in (0, 1))
            reference = torch.autograd.grad(plainly.cross_entropy(network, old_images, old_labels), parameters)
            reference = torch.cat([gradient.flatten() for gradient in reference])
            product = flat @ reference
            signs.add(bool(product < 0))
            if product < 0:
                flat = flat - product / (reference @ reference) * reference
        sizes = [parameter.numel() for parameter in parameters]
        parts = [part.view_as(parameter) for parameter, part in zip(parameters, flat.split(sizes), strict=True)]
        plainly.move(parameters, [-plainly.RATE * part for part in parts])

    def end(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int) -> None:
        chosen = seeding.numpy_generator(plainly.SEED, "segment", "buffer", task).choice(len(labels), 16, replace=False)
        kept.extend((images[place], labels[place]) for place in chosen)

    plainly.assert_same(plainly.run(spec, digits), plainly.learn(spec, digits, update, end))
    assert signs == {True, False}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_projected_gradient_raises_no_reference_loss(dtype: torch.dtype) -> None:
    """Where the product was negative it is below 1e-6 of the norms' product; elsewhere no bit is moved."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (100, 784), "vector": (100,)}
    signs = set()
    for _ in range(40):
        gradients, reference = (
            {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
            for _ in range(2)
        )
        after = projected(gradients, reference)
        flat, moved, other = (
            torch.cat([part[name].flatten() for name in shapes]).double() for part in (gradients, after, reference)
        )
        signs.add(bool(flat @ other < 0))
        if flat @ other < 0:
            assert abs(moved @ other) < 1e-6 * moved.norm() * other.norm()
            torch.testing.assert_close(moved, flat - (flat @ other) / (other @ other) * other, rtol=1e-4, atol=1e-5)
        else:
            assert all(torch.equal(after[name], gradients[name]) for name in shapes)
    assert signs == {True, False}


def test_without_a_reference_nothing_is_moved() -> None:
    """A gradient of zeros, as an empty buffer has."""
    gradients = {"a": torch.randn(5)}
    assert torch.equal(projected(gradients, {"a": torch.zeros(5)})["a"], gradients["a"])


@pytest.mark.parametrize("buffer", [0, -1])
def test_there_is_a_buffer(buffer: int) -> None:
    """A buffer of size 0 is refused."""
    with pytest.raises(ValueError, match="buffer"):
        AGEMSpec(buffer=buffer)


def test_the_buffer_has_room_for_every_task() -> None:
    """Otherwise, nothing would be kept of some tasks; the remainder of the division is not used."""
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=7)
    expected = re.escape("buffer: expected at least one example for each of 7 tasks, given 6")
    with pytest.raises(ValueError, match=expected):
        AGEMSpec(buffer=6).blueprint("FC8", problem, 0)
    assert AGEMSpec(buffer=20).blueprint("FC8", problem, 0).examples_kept == 14
