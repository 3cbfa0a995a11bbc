"""Tasks that rearrange pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crwn.benchmarks.pixels import PixelTasks
from crwn.data.base import ImageSet, ImageSplit
from crwn.data.digits import DIGITS

MAPS = {0: [0, 1, 2, 3], 1: [3, 3, -1, 0]}


def tasks() -> PixelTasks:
    images = np.array([[10, 20, 30, 40], [50, 60, 70, 255]], dtype=np.uint8).reshape(2, 1, 2, 2)
    labels = np.array([7, 9], dtype=np.int64)
    return PixelTasks(
        base=DIGITS,
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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_normalising_subtracts_the_mean_and_divides_by_the_deviation(dtype: torch.dtype, tolerance: float) -> None:
    """(byte / 255 - mean) / deviation for all 256 bytes, to rounding; the bytes themselves stay."""
    images = torch.arange(256, dtype=torch.uint8).view(16, 16)
    normalised = tasks().normalise(images, dtype)
    expected = [(byte / 255 - DIGITS.mean) / DIGITS.std for byte in range(256)]
    assert normalised.dtype == dtype
    assert normalised.shape == images.shape
    assert normalised.flatten().tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert images.flatten().tolist() == list(range(256))
