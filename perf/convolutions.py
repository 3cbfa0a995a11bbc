"""Measure ways to convolve for several tasks at once, and a task of Table 2's rows by group size.

    CRWN_DATA=... .venv/bin/python -m perf.convolutions

Writes the tables in README.md between their marks. One thread; run it on an idle machine. With a GPU, it measures that.

Shapes: G tasks, B examples per task, I channels in, O channels out, S height and width, k side of a kernel.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.nn import functional

from crwn import backbone
from crwn.benchmarks import PRESETS
from crwn.data import datasets
from crwn.events import CurvePoint, Numerics, ResumePoint
from crwn.methods import METHODS
from crwn.methods.networks import Layer, resnet18
from crwn.trial import Allowance, decide_numerics, iterate_trial
from crwn.trial_spec import TrialSpec
from perf.engine import machine, one_thread, replace_between

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
B = 128
GROUPS = (1, 2, 4)
ROUNDS = 5
UPDATES_PER_TASK = 5000
"""Of Table 2, to which all seconds are scaled."""
Way = Callable[[torch.Tensor, torch.Tensor, Layer], torch.Tensor]
"""From images [G, B, I, S, S] and weights [G, O, I, k, k] of a layer to its output, in any layout."""


def grouped(images_GBISS: torch.Tensor, weight_GOIkk: torch.Tensor, layer: Layer) -> torch.Tensor:
    """One convolution in G groups."""
    return functional.conv2d(
        images_GBISS.transpose(0, 1).flatten(1, 2),
        weight_GOIkk.flatten(0, 1),
        stride=layer.stride,
        padding=layer.shape[-1] // 2,
        groups=len(images_GBISS),
    )


def grouped_channels_last(images_GBISS: torch.Tensor, weight_GOIkk: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The same with channels last; the engine's way."""
    return functional.conv2d(
        images_GBISS.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last),
        weight_GOIkk.flatten(0, 1).contiguous(memory_format=torch.channels_last),
        stride=layer.stride,
        padding=layer.shape[-1] // 2,
        groups=len(images_GBISS),
    )


def one_by_one(images_GBISS: torch.Tensor, weight_GOIkk: torch.Tensor, layer: Layer) -> torch.Tensor:
    """One convolution per task, channels last."""
    outputs = [
        grouped_channels_last(images[None], weight[None], layer)
        for images, weight in zip(images_GBISS, weight_GOIkk, strict=True)
    ]
    return torch.stack(outputs)


def unfolded(images_GBISS: torch.Tensor, weight_GOIkk: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Patches as columns of a matrix, and one product per task."""
    side = layer.shape[-1]
    patches = functional.unfold(images_GBISS.flatten(0, 1), side, padding=side // 2, stride=layer.stride)
    return weight_GOIkk.flatten(2)[:, None] @ patches.unflatten(0, images_GBISS.shape[:2])


def mapped(images_GBISS: torch.Tensor, weight_GOIkk: torch.Tensor, layer: Layer) -> torch.Tensor:
    """torch.func.vmap over the tasks."""

    def one(images_BISS: torch.Tensor, weight_OIkk: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(images_BISS, weight_OIkk, stride=layer.stride, padding=layer.shape[-1] // 2)

    return torch.func.vmap(one)(images_GBISS, weight_GOIkk)


WAYS: Mapping[str, Way] = {
    "grouped": grouped,
    "grouped, channels last": grouped_channels_last,
    "one by one, channels last": one_by_one,
    "unfold and products": unfolded,
    "vmap": mapped,
}


def main() -> None:
    """Measure, write, print."""
    one_thread()
    lines = [f"{torch.cuda.get_device_name() if DEVICE == 'cuda' else machine()}, torch {torch.__version__}."]
    replace_between("convolutions.py", [*lines, "", *ways_table(), "", *tasks_table()])


def ways_table() -> Iterator[str]:
    """Milliseconds per task for all convolutions of the reduced ResNet-18, forward and backward."""
    layers = [
        layer for layer in resnet18(PRESETS["split-cifar100"].problem(), 10).layers.values() if layer.is_convolution
    ]
    yield "| tasks at once | " + " | ".join(WAYS) + " |"
    yield "| --- |" + " --- |" * len(WAYS)
    for size in GROUPS:
        taken: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(ROUNDS):  # the ways take turns
            for name, way in WAYS.items():
                taken[name].append(sum(_seconds(way, layer, size) for layer in layers))
        figures = [f"{1000 * statistics.median(values) / size:.0f}" for values in taken.values()]
        yield f"| {size} | " + " | ".join(figures) + " |"


def _seconds(way: Way, layer: Layer, size: int) -> float:
    side = round((layer.input_size / layer.shape[1]) ** 0.5)
    images = torch.randn(size, B, layer.shape[1], side, side, device=DEVICE, requires_grad=not layer.first)
    weight = torch.randn(size, *layer.shape, device=DEVICE, requires_grad=True)
    way(images, weight, layer).sum().backward()
    _wait()
    started = time.perf_counter()
    way(images, weight, layer).sum().backward()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def tasks_table() -> Iterator[str]:
    """Seconds per task of Table 2's settings on split-cifar100, from 50 updates after the first 50, by group size."""
    sizes, scale = (GROUPS[0], GROUPS[-1]), "1d"
    yield f"| method | scale | {' | '.join(f'{size} at once, s per task' for size in sizes)} | the rule's |"
    yield "| --- | --- |" + " --- |" * (len(sizes) + 1)
    for method in ("stl", "psp", "batche", "supsup", "neuromodnet"):
        settings = METHODS[method].spec()
        training = dataclasses.replace(settings.training(scale), updates_per_task=150)
        spec = TrialSpec(method=settings, benchmark=PRESETS["split-cifar100"], scale=scale, seed=0, training=training)
        rule = decide_numerics(spec, Allowance(device=DEVICE))
        figures = []
        for size in sizes:
            if size > 1 and spec.blueprint().grouping != "any":
                figures.append("")
                continue
            seconds = _seconds_of_a_block(spec, dataclasses.replace(rule, group_size=size))
            figures.append(f"{seconds / size / 50 * UPDATES_PER_TASK:.0f}")
        line = f"| {method} | {scale} | {' | '.join(figures)} | {rule.group_size} |"
        print(line, flush=True)
        yield line


def _seconds_of_a_block(spec: TrialSpec, numerics: Numerics) -> float:
    """Between the first two points of the last task's learning curve, 50 updates apart; BatchE's second task's."""
    after_first = spec.blueprint().moves_shared == "first segment"
    for event in iterate_trial(
        spec, data=datasets(), backbones=backbone.draw, allowance=Allowance(device=DEVICE), numerics=numerics
    ):
        if isinstance(event, ResumePoint):
            points: tuple[CurvePoint, ...] = event.curves.get(1 if after_first else 0, ())
            if len(points) == 2:
                return points[1].time - points[0].time
    raise AssertionError("no resume point lay after the second point of the curve")


if __name__ == "__main__":
    main()
