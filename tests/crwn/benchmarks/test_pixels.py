"""Tasks that rearrange pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.pixels import PixelTasks
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.base import ImageSet, ImageSplit
from crwn.data.digits import DIGITS

MAPS = {0: [0, 1, 2, 3], 1: [3, 3, -1, 0]}


def tasks() -> PixelTasks:
    images = np.array([[10, 20, 30, 40], [50, 60, 70, 255]], dtype=np.uint8).reshape(2, 1, 2, 2)
    labels = np.array([7, 9], dtype=np.int64)
    return PixelTasks(
        images=ImageSet(
            train=ImageSplit(images=images, labels=labels),
            test=ImageSplit(images=images[:1], labels=labels[:1]),
        ),
        num_tasks=2,
        pixel_map=lambda task: np.array(MAPS[task], dtype=np.int64),
        device=torch.device("cpu"),
    )


def test_a_pixel_shows_its_source_or_nothing() -> None:
    """Worked out by hand: pixels 3, 3, none and 0 of each image, and labels as they were."""
    split = tasks().train_split(1)
    assert split.images.tolist() == [[40, 40, 0, 10], [255, 255, 0, 50]]
    assert split.images.dtype == torch.uint8
    assert split.labels.tolist() == [7, 9]
    assert tasks().test_split(1).images.tolist() == [[40, 40, 0, 10]]


def test_a_task_leaves_the_images_as_they_are() -> None:
    """The zeros of one task do not show in the next."""
    pixels = tasks()
    pixels.train_split(1)
    assert pixels.train_split(0).images.tolist() == [[10, 20, 30, 40], [50, 60, 70, 255]]


def test_a_mixture_is_the_tasks_end_to_end() -> None:
    """Worked out by hand, with pixels that show nothing: examples of task 1, then of task 0, in any order and again."""
    mixture = tasks().mixture([1, 0])
    assert mixture.num_examples == 4
    examples = mixture.take(torch.tensor([3, 0, 1, 1, 2]))
    upright, other = [[10, 20, 30, 40], [50, 60, 70, 255]], [[40, 40, 0, 10], [255, 255, 0, 50]]
    assert examples.images.tolist() == [upright[1], other[0], other[1], other[1], upright[0]]
    assert examples.images.dtype == torch.uint8
    assert examples.labels.tolist() == [9, 7, 9, 9, 7]


@pytest.mark.parametrize("spec", [RotatedSpec(base="digits", num_tasks=3), PermutedSpec(base="digits", num_tasks=3)])
def test_a_mixture_equals_its_splits_example_by_example(digits: Datasets, spec: Any) -> None:
    """All examples of three tasks, in the order of the tasks and in another one; bytes and labels alike."""
    benchmark = BENCHMARKS[spec.kind].build(spec, digits.load("digits"), 4, torch.device("cpu"))
    for chosen in ([0, 1, 2], [2, 0], [1]):
        splits = [benchmark.train_split(task) for task in chosen]
        images, labels = torch.cat([split.images for split in splits]), torch.cat([split.labels for split in splits])
        mixture = benchmark.mixture(chosen)
        assert mixture.num_examples == len(labels) == len(chosen) * DIGITS.num_train
        for order in (
            torch.arange(len(labels)),
            torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)),
        ):
            examples = mixture.take(order)
            assert torch.equal(examples.images, images[order])
            assert torch.equal(examples.labels, labels[order])


def test_a_mixture_leaves_the_images_as_they_are() -> None:
    """Taking examples of one task does not show in those of another, nor in the splits."""
    pixels = tasks()
    mixture = pixels.mixture([0, 1])
    mixture.take(torch.tensor([2, 3]))
    assert mixture.take(torch.tensor([0, 1])).images.tolist() == [[10, 20, 30, 40], [50, 60, 70, 255]]
    assert pixels.train_split(0).images.tolist() == [[10, 20, 30, 40], [50, 60, 70, 255]]
