"""The exact numbers of parameters a task, in the blueprint and in networks really built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch

from crwn import backbone
from crwn.backbone import Backbone, BackboneSpec
from crwn.methods import METHODS
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.protocol import Surroundings, Tensors
from crwn.methods.supsup import SupSupSpec
from crwn.spec import ProblemShape

MNIST = ProblemShape(input_shape=(1, 28, 28), num_classes=10, num_tasks=36)


@dataclass(frozen=True)
class Case:
    """A network and its exact counts: numbers trained a task and numbers kept of it."""

    method: Any
    scale: str
    trained: int
    kept: int

    def __str__(self) -> str:
        return f"{self.method.kind}-{self.scale}-{getattr(self.method, 'modulation', 'masks')}"


def cases() -> Iterator[Case]:
    """FC_H has contexts of 784 + H + H and three strengths; FlyNet one of N = s 784 and one; SupSup a bit a weight."""
    for hidden, params in ((256, 1299), (512, 1811), (1024, 2835), (2048, 4883), (4096, 8979)):
        yield Case(NeuroModNetSpec(), f"FC{hidden}", params, params)
        yield Case(NeuroModNetSpec(modulation="local"), f"FC{hidden}", params - 3, params)
        yield Case(NeuroModNetSpec(modulation="global"), f"FC{hidden}", 3, params)
    for expansion, params in ((10, 7841), (20, 15_681), (30, 23_521), (40, 31_361)):
        yield Case(FlyNetSpec(), f"{expansion}d", params, params)
        yield Case(FlyNetSpec(modulation="local"), f"{expansion}d", params - 1, params)
        yield Case(FlyNetSpec(modulation="global"), f"{expansion}d", 1, params)
    yield Case(SupSupSpec(), "FC256", 268_800, 268_800)


@lru_cache(maxsize=1)
def drawn(spec: BackboneSpec) -> Backbone:
    """The variants of a network, which follow each other, share their frozen weights: a hundred megabytes."""
    return backbone.draw(spec)


def build(case: Case) -> Any:
    arrays = drawn(case.method.blueprint(case.scale, MNIST, 0).backbone).arrays
    surroundings = Surroundings(
        scale=case.scale,
        problem=MNIST,
        seed=0,
        backbone={name: torch.tensor(array) for name, array in arrays.items()},
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return METHODS[case.method.kind].build(case.method, surroundings)


def num_kept(kept: Tensors) -> int:
    """A byte of a packed mask holds eight entries; all layers here have a multiple of eight."""
    return sum(tensor.numel() * (8 if tensor.dtype == torch.uint8 else 1) for tensor in kept.values())


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_counts_are_exact(case: Case) -> None:
    """What the blueprint says before anything is built is what the built network trains and keeps."""
    blueprint = case.method.blueprint(case.scale, MNIST, 0)
    assert blueprint.params_per_task == case.trained
    assert blueprint.trained_per_task == case.trained
    assert blueprint.stored_per_task == case.kept

    method = build(case)
    state = method.start([0])
    assert sum(tensor.numel() for tensor in state.values() if tensor.requires_grad) == case.trained
    assert num_kept(method.pack({name: tensor.detach() for name, tensor in state.items()})) == case.kept


@pytest.mark.parametrize(
    ("method", "scale", "arrays"),
    [
        (NeuroModNetSpec(), "FC256", [("layer1", 256, 784), ("layer2", 256, 256), ("layer3", 10, 256)]),
        (SupSupSpec(), "FC512", [("layer1", 512, 784), ("layer2", 512, 512), ("layer3", 10, 512)]),
        (FlyNetSpec(), "10d", [("encoder", 7840, 784), ("decoder", 10, 7840)]),
    ],
)
def test_frozen_weights_have_the_shapes_of_the_layers(method: Any, scale: str, arrays: list[tuple[Any, ...]]) -> None:
    """FC_H is 784 -> H -> H -> 10; FlyNet 784 -> N -> 10; no biases anywhere."""
    specs = method.blueprint(scale, MNIST, 7).backbone
    assert [(array.name, *array.shape) for array in specs.arrays] == arrays
    assert specs.seed == 7


@pytest.mark.parametrize(
    ("method", "scale", "multiply_adds", "activations"),
    [
        # forward and to each layer's input: twice 784 H + H H + 10 H; the input and e * x of each layer, and logits
        (NeuroModNetSpec(), "FC256", 2 * 268_800, 2 * (784 + 256 + 256) + 10),
        # forward, to all scores, and to the inputs of all layers but the first
        (SupSupSpec(), "FC256", 3 * 268_800 - 784 * 256, 784 + 256 + 256 + 10),
        # the encoder forward only, the decoder twice; the input, z, h and e * h, and logits
        (FlyNetSpec(), "10d", 7840 * (784 + 2 * 10), 784 + 3 * 7840 + 10),
    ],
)
def test_estimates_for_planning(method: Any, scale: str, multiply_adds: int, activations: int) -> None:
    """The work and the memory of a training step on one example, summed by hand for each network."""
    blueprint = method.blueprint(scale, MNIST, 0)
    assert blueprint.multiply_adds == multiply_adds
    assert blueprint.activations == activations
    assert blueprint.grouping == "any"
