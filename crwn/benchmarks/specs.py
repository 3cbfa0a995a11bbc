"""What the specs of several benchmarks have in common: a sequence that is cut short, pixels that stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crwn.data import BASE_SETS
from crwn.data.base import AS_THEY_ARE, Normalisation

if TYPE_CHECKING:
    import torch


def check_first(first: int, num_tasks: int) -> None:
    """Check that a sequence is cut to fewer tasks than it has: no two specs mean the same trial.

    Raises:
        ValueError: it is not.
    """
    if first >= num_tasks:
        raise ValueError(
            f"first: expected fewer than the {num_tasks} tasks of the sequence, or 0 for all of them, given {first}"
        )


def normalisation_of(base: str, *, normalise: bool) -> Normalisation:
    """Of the images of a base set; without it, pixels are numbers from 0 to 1."""
    return BASE_SETS[base].normalisation if normalise else AS_THEY_ARE


def with_channels(images_N1HW: torch.Tensor, channels: int) -> torch.Tensor:
    """Grey images with so many equal channels, which share their memory; images in colour as they are."""
    return images_N1HW.expand(-1, max(channels, images_N1HW.shape[1]), -1, -1)
