"""SI against a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crwn.data import Datasets
from crwn.methods.si import SISpec
from tests.crwn.methods import plainly

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("strength", "rate"), [(2.0, 0.05), (2.0, 1.0), (0.0, 0.05)])
def test_si_pulls_weights_back(strength: float, rate: float, digits: Datasets) -> None:
    """Omega is the sum of rate g^2 over (what the weight moved in the task)^2 + xi; at a high rate gradients clip."""
    damping, clipped = 0.2, set()
    omega: list[torch.Tensor] = []
    anchor: list[torch.Tensor] = []
    path: list[torch.Tensor] = []

    def update(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int, number: int) -> None:
        parameters = list(network.parameters())
        if number == 0:
            omega[:] = [torch.zeros_like(parameter) for parameter in parameters]
            anchor[:] = [parameter.detach().clone() for parameter in parameters]
            path[:] = [torch.zeros_like(parameter) for parameter in parameters]
        loss = plainly.cross_entropy(network, images, labels)
        weights = zip(parameters, omega, anchor, strict=True)
        loss = loss + strength * sum((value * (now - then) ** 2).sum() for now, value, then in weights)
        gradients = torch.autograd.grad(loss, parameters)
        clipped.add(any(bool((gradient.abs() > 1).any()) for gradient in gradients))
        gradients = [gradient.clamp(-1, 1) for gradient in gradients]
        path[:] = [noted + rate * gradient**2 for noted, gradient in zip(path, gradients, strict=True)]
        plainly.move(parameters, [-rate * gradient for gradient in gradients])

    def end(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int) -> None:
        for place, parameter in enumerate(network.parameters()):
            omega[place] = omega[place] + path[place] / ((parameter.detach() - anchor[place]) ** 2 + damping)
            anchor[place] = parameter.detach().clone()
            path[place] = torch.zeros_like(parameter)

    spec = SISpec(strength=strength, damping=damping)
    plainly.assert_same(plainly.run(spec, digits, learning_rate=rate), plainly.learn(spec, digits, update, end))
    assert (True in clipped) == (rate == 1.0)
