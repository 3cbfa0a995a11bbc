"""A plain loop over rotated digits with torch's own modules, which methods of one plain network are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from crwn import backbone, contexts, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.methods.protocol import Tensors
from crwn.spec import MethodSpec, TrainingSpec
from crwn.trial import Finished, run_trial
from crwn.trial_spec import TrialSpec

NUM_TASKS, NUM_UPDATES, BATCH_SIZE, RATE, SEED = 3, 6, 32, 0.05, 1

Update = Callable[[nn.Module, torch.Tensor, torch.Tensor, int, int], None]
"""Learns from images [B, d] and labels [B] of a task; the last number counts the trial's updates."""
End = Callable[[nn.Module, torch.Tensor, torch.Tensor, int], None]
"""Sees all of a task's images [N, d] and labels [N] after the task was learned."""


def trial(method: MethodSpec, **training: Any) -> TrialSpec:
    """Three tasks of digits in float64, each turned a quarter further; six updates of SGD each."""
    settings = {"learning_rate": RATE, "optimizer": "sgd", "updates_per_task": NUM_UPDATES, "batch_size": BATCH_SIZE}
    return TrialSpec(
        method=method,
        benchmark=RotatedSpec(base="digits", num_tasks=NUM_TASKS, step_degrees=90),
        scale="FC12",
        seed=SEED,
        training=TrainingSpec(**{**settings, "dtype": "float64", **training}),
    )


def run(method: MethodSpec, digits: Datasets, **training: Any) -> Finished:
    """The trial, with its weights."""
    return run_trial(trial(method, **training), data=digits, backbones=backbone.draw, keep_weights=True)


def weights_of(finished: Finished) -> Tensors:
    """The learned weights, by name."""
    tensors = contexts.load(finished.contexts).tensors
    return {name.removeprefix("shared."): tensor for name, tensor in tensors.items()}


def network_of(spec: TrialSpec) -> nn.Sequential:
    """torch's layers with the weights that the trial starts from, and biases of 0."""
    layers = [nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)]
    drawn = backbone.draw(spec.blueprint().backbone).arrays
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).double()
    with torch.no_grad():
        for number, layer in enumerate(layers, start=1):
            layer.weight.copy_(torch.tensor(drawn[f"layer{number}"]))
            layer.bias.zero_()
    return network


def learn(method: MethodSpec, digits: Datasets, update: Update, end: End = lambda *_: None) -> nn.Sequential:
    """Learn the trial's tasks in turn, with the batches of its seed."""
    split, network = digits.load("digits").train, network_of(trial(method))
    upright = (torch.from_numpy(split.images[:, 0]).double() / 255 - DIGITS.mean[0]) / DIGITS.std[0]
    labels = torch.from_numpy(split.labels)
    number = 0
    for task in range(NUM_TASKS):
        images = torch.rot90(upright, task, dims=(1, 2)).flatten(1)
        order = seeding.numpy_generator(SEED, "batches", task, 0).permutation(len(labels))
        for step in range(NUM_UPDATES):
            chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            update(network, images[chosen], labels[chosen], task, number)
            number += 1
        end(network, images, labels, task)
    return network


def descend(network: nn.Module, loss: torch.Tensor, rate: float = RATE) -> None:
    """One step of plain SGD."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    move(parameters, [-rate * gradient for gradient in gradients])


@torch.no_grad()
def move(parameters: Sequence[torch.Tensor], steps: Sequence[torch.Tensor]) -> None:
    """Add steps."""
    for parameter, step in zip(parameters, steps, strict=True):
        parameter.add_(step)


def cross_entropy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over a batch."""
    return functional.cross_entropy(network(images), labels)


def uniform(name: str, number: int, count: int) -> list[float]:
    """The random numbers of an update by their name."""
    return seeding.numpy_generator(SEED, "update", name, number).random(count).tolist()


def assert_same(finished: Finished, network: nn.Sequential) -> None:
    """The trial's weights are the network's."""
    weights = weights_of(finished)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    assert len(weights) == 2 * len(layers)
    for number, layer in enumerate(layers, start=1):
        for part in ("weight", "bias"):
            expected = getattr(layer, part).detach()
            torch.testing.assert_close(weights[f"layer{number}.{part}"], expected, rtol=1e-8, atol=1e-11)


class Reservoir:
    """Algorithm R, one example after another.

    Args:
        capacity: how many are kept.
    """

    def __init__(self, capacity: int) -> None:
        self.kept: list[tuple[torch.Tensor, ...]] = []
        self._capacity = capacity
        self._seen = 0

    def offer(self, number: int, *fields: torch.Tensor) -> None:
        """A batch, each field [B, ...], after the update of this number."""
        uniforms = uniform("reservoir", number, len(fields[0]))
        for example, draw in zip(zip(*fields, strict=True), uniforms, strict=True):
            self._seen += 1
            slot = int(draw * self._seen)
            if len(self.kept) < self._capacity:
                self.kept.append(example)
            elif slot < self._capacity:
                self.kept[slot] = example

    def draw(self, name: str, number: int, count: int) -> list[torch.Tensor]:
        """Fields [R, ...] of those with the smallest keys."""
        keys = uniform(name, number, self._capacity)
        slots = sorted(range(len(self.kept)), key=keys.__getitem__)[:count]
        return [torch.stack(field) for field in zip(*(self.kept[slot] for slot in slots), strict=True)]
