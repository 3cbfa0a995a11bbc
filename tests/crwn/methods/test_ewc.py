"""Online EWC against a plain loop, with a Fisher matrix of single examples."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from crwn import backbone
from crwn.data import Datasets
from crwn.methods.ewc import EWC, EWCSpec
from crwn.methods.protocol import Tensors
from crwn.spec import ProblemShape
from tests.crwn.methods import plainly
from tests.crwn.methods.building import lanes_of, plain_surroundings

pytestmark = pytest.mark.usefixtures("one_thread")


def squares_of_all(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """The mean of p(y|x) (d log p(y|x))^2, from a gradient for each example."""
    weights = dict(network.named_parameters())

    def log_p(weights: Tensors, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return functional_call(network, weights, image).log_softmax(dim=0).gather(0, label[None])[0]

    each = vmap(grad(log_p), in_dims=(None, 0, 0))(weights, images, labels)
    p = vmap(log_p, in_dims=(None, 0, 0))(weights, images, labels).exp().detach()
    return [torch.tensordot(p, each[name].detach() ** 2, dims=1) / len(labels) for name in weights]


@pytest.mark.parametrize("gamma", [1.0, 0.6])
def test_ewc_pulls_weights_back(gamma: float, digits: Datasets) -> None:
    """strength sum of F (theta - theta*)^2, without a half; F grows task by task, what it was fades with gamma."""
    strength, memory = 5.0, dict[str, list[torch.Tensor]]()

    def update(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int, number: int) -> None:
        loss = plainly.cross_entropy(network, images, labels)
        if memory:
            weights = zip(network.parameters(), memory["fisher"], memory["anchor"], strict=True)
            loss = loss + strength * sum((fisher * (now - then) ** 2).sum() for now, fisher, then in weights)
        plainly.descend(network, loss)

    def end(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int) -> None:
        squares = squares_of_all(network, images, labels)
        before = memory.get("fisher", [torch.zeros_like(square) for square in squares])
        memory["fisher"] = [gamma * old + new for old, new in zip(before, squares, strict=True)]
        memory["anchor"] = [parameter.detach().clone() for parameter in network.parameters()]

    spec = EWCSpec(strength=strength, gamma=gamma)
    plainly.assert_same(plainly.run(spec, digits), plainly.learn(spec, digits, update, end))
    assert max(fisher.max() for fisher in memory["fisher"]) > 0.01


@pytest.mark.parametrize("scale", ["FC8", "nf2"])
def test_the_fisher_matrix_is_a_mean_over_single_examples(scale: str) -> None:
    """Of a loop over 37 examples in float64, in test mode, to 1e-10; the same in batches of 1 and of 32."""
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=4, num_tasks=2)
    drawn = backbone.draw(EWCSpec().blueprint(scale, problem, 0).backbone).arrays
    method = EWC(EWCSpec(), plain_surroundings(scale, problem, backbone=drawn, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    state = method.start_shared()
    with torch.no_grad():  # anywhere, not only where it starts
        for tensor in state.values():
            tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) / 5)
    images = torch.randint(0, 256, (37, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 4, (37,), generator=generator)
    trained = {name: tensor for name, tensor in state.items() if tensor.requires_grad}
    expected = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
    for image, label in zip(images, labels, strict=True):
        log_p = method.logits(state, image[None, None])[0, 0].log_softmax(dim=0)[label]
        for name, slope in zip(trained, torch.autograd.grad(log_p, list(trained.values())), strict=True):
            expected[name] += log_p.exp().detach() * slope**2 / 37
    examples = lanes_of(images, labels).whole()
    for batch_size in (1, 32, None):
        found = method.fisher({**state, **method.start_memory()}, examples, batch_size)
        assert found.keys() == trained.keys()
        for name, square in found.items():
            torch.testing.assert_close(square, expected[name], rtol=1e-10, atol=1e-14)
