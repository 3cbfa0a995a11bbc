"""Straightforward implementations to compare the engine's speed with: modules, autograd, torch.optim, one task.

A: a DataLoader that rotates and normalises images one by one. B: the task's images as tensors, prepared in advance.

Shapes: B examples per batch, d numbers per image, N hidden units of FlyNet, m classes, I inputs, O outputs of a layer.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as images

MEAN, STD = 0.1307, 0.3081
BATCH = 128
SIZE, CLASSES = 784, 10

Batch = tuple[torch.Tensor, torch.Tensor]


class ModulatedLinear(nn.Module):
    """W_t = a (R * c)."""

    def __init__(self, inputs: int, outputs: int, std: float | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(outputs, inputs) * (std or (2 / inputs) ** 0.5))
        self.context = nn.Parameter(torch.rand(inputs) * 2 - 1)
        self.strength = nn.Parameter(torch.ones(()))

    def forward(self, input_BI: torch.Tensor) -> torch.Tensor:
        """[B, O]."""
        return functional.linear(input_BI * (self.strength * self.context), self.weight)


class RankOneLinear(nn.Module):
    """BatchEnsemble's layer with its shared weight frozen."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(outputs, inputs) * (2 / inputs) ** 0.5)
        self.r = nn.Parameter(torch.randint(0, 2, (outputs,)) * 2.0 - 1)
        self.s = nn.Parameter(torch.randint(0, 2, (inputs,)) * 2.0 - 1)

    def forward(self, input_BI: torch.Tensor) -> torch.Tensor:
        """[B, O]."""
        return functional.linear(input_BI * self.s, self.weight) * self.r


class StraightThrough(torch.autograd.Function):
    """1 where a score is at least 0, else 0, with a straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor) -> torch.Tensor:
        """The mask."""
        return (scores >= 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        """The gradient to the mask."""
        return grads[0]


class MaskedLinear(nn.Module):
    """SupSup's layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(outputs, inputs).sign() * (2 / inputs) ** 0.5)
        self.scores = nn.Parameter((torch.rand(outputs, inputs) * 2 - 1) * inputs**-0.5)

    def forward(self, input_BI: torch.Tensor) -> torch.Tensor:
        """[B, O]."""
        return functional.linear(input_BI, self.weight * StraightThrough.apply(self.scores))


class RotatedLinear(nn.Module):
    """PSP's layer: a trained weight behind a fixed rotation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (2 / (inputs + outputs)) ** 0.5)
        self.register_buffer("rotation", torch.linalg.qr(torch.randn(inputs, inputs))[0])

    def forward(self, input_BI: torch.Tensor) -> torch.Tensor:
        """[B, O]."""
        return functional.linear(functional.linear(input_BI, self.rotation), self.weight)


class FlyNet(nn.Module):
    """The fixed encoder as a dense matrix, and the modulated decoder."""

    def __init__(self, expansion: int) -> None:
        super().__init__()
        units = expansion * SIZE
        chosen = torch.rand(units, SIZE).argsort(dim=1)[:, : SIZE // 10]
        self.register_buffer("encoder", torch.zeros(units, SIZE).scatter_(1, chosen, 1.0))
        self.decoder = ModulatedLinear(units, CLASSES, std=10 / units)

    def forward(self, input_Bd: torch.Tensor) -> torch.Tensor:
        """[B, m]."""
        units_BN = functional.linear(input_Bd, self.encoder)
        return self.decoder(functional.relu(units_BN - units_BN.mean(dim=1, keepdim=True)))


def fully_connected(layer: Callable[[int, int], nn.Module]) -> Callable[[int], nn.Module]:
    """FC_H with the given type of layer."""
    return lambda hidden: nn.Sequential(
        layer(SIZE, hidden), nn.ReLU(), layer(hidden, hidden), nn.ReLU(), layer(hidden, CLASSES)
    )


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], float]] = {
    "neuromodnet": (fully_connected(ModulatedLinear), 0.01),
    "batche": (fully_connected(RankOneLinear), 0.01),
    "supsup": (fully_connected(MaskedLinear), 1e-4),
    "psp": (fully_connected(RotatedLinear), 1e-4),
    "flynet": (FlyNet, 0.01),
}
"""By method: the network of a scale's number, and the learning rate."""


class RotatedImages(Dataset[tuple[torch.Tensor, int]]):
    """Images [N, 28, 28] rotated by an angle, each on access."""

    def __init__(self, pictures: NDArray[np.uint8], labels: NDArray[np.int64], degrees: float) -> None:
        self._pictures = pictures
        self._labels = labels
        self._degrees = degrees

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = images.rotate(Image.fromarray(self._pictures[index]), self._degrees)
        return images.normalize(images.to_tensor(picture), [MEAN], [STD]).flatten(), int(self._labels[index])


def batches_a(pictures: NDArray[np.uint8], labels: NDArray[np.int64], degrees: float = 10.0) -> Iterator[Batch]:
    """Endless batches of A."""
    loader = DataLoader(RotatedImages(pictures, labels, degrees), batch_size=BATCH, shuffle=True)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def batches_b(pictures: NDArray[np.uint8], labels: NDArray[np.int64], degrees: float = 10.0) -> Iterator[Batch]:
    """Endless batches of B."""
    turned = images.rotate(torch.from_numpy(pictures), degrees)
    input_Nd = ((turned.float() / 255 - MEAN) / STD).flatten(1)
    label_N = torch.from_numpy(labels)
    while True:
        for index_B in torch.randperm(len(label_N)).split(BATCH):
            yield input_Nd[index_B], label_N[index_B]


def train(method: str, size: int, batches: Iterator[Batch], updates: int) -> float:
    """Seconds per update, after three warm-up updates."""
    build, rate = NETWORKS[method]
    network = build(size)
    optimizer = torch.optim.RMSprop([p for p in network.parameters() if p.requires_grad], lr=rate)
    for step in range(updates + 3):
        if step == 3:
            started = time.perf_counter()
        input_Bd, label_B = next(batches)
        loss = functional.cross_entropy(network(input_Bd), label_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) / updates
