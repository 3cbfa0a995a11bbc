"""What the specs of several benchmarks share: classes, truncated sequences, normalisation, channels, pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crwn.data import BASE_SETS
from crwn.data.base import AS_THEY_ARE, Normalisation
from crwn.faults import Fault, InvalidError

if TYPE_CHECKING:
    import torch

    from crwn.data.base import Images


@runtime_checkable
class AddsClasses(Protocol):
    """The interface of the spec of a benchmark whose tasks add classes to one label space."""

    def classes(self, seed: int) -> tuple[tuple[int, ...], ...]:
        """Each task's classes."""


@runtime_checkable
class OrdersTrainings(Protocol):
    """The interface of the spec of a benchmark that may train a task more than once, or in any order."""

    def trainings(self, seed: int) -> tuple[int, ...]:
        """The task that each segment trains."""


@runtime_checkable
class RegroupsClasses(Protocol):
    """The interface of the spec of a benchmark whose tasks renumber some of the base set's classes."""

    def classes_behind(self, seed: int) -> tuple[tuple[int, ...], ...]:
        """The base set's class behind each output of each task."""


@runtime_checkable
class RelatesTasks(Protocol):
    """The interface of the spec of a benchmark that defines distances between its tasks."""

    def distances(self, seed: int) -> NDArray[np.float64] | None:
        """The distances between tasks, in any unit: [T, T], symmetric, zeros on the diagonal.

        None if the settings give the tasks no order. The tasks closest to a task are its neighbours.
        """


def check_first(first: int, num_tasks: int) -> None:
    """Check that `first` truncates a sequence to fewer tasks than it has, so that no two specs mean the same trial.

    Raises:
        ValueError: it does not.
    """
    if first >= num_tasks:
        raise InvalidError(
            "first-not-fewer",
            f"first: expected fewer than the {num_tasks} tasks of the sequence, or 0 for all of them, given {first}",
        )


def normalisation_of(base: str, *, normalise: bool) -> Normalisation:
    """The normalisation of a base set's images; without it, pixels are from 0 to 1."""
    return BASE_SETS[base].normalisation if normalise else AS_THEY_ARE


def pool_faults(base: str, size: int) -> list[Fault]:
    """The fault of pooling a base set's images over squares of this size: a side that it does not divide."""
    _, height, width = BASE_SETS[base].image_shape
    if height % size == width % size == 0:
        return []
    message = f"pool: expected a divisor of {height} and {width}, the size of {base!r}, given {size}"
    return [Fault("pool-does-not-divide", message)]


def pooled(images_NCHW: Images, size: int) -> Images:
    """Means over squares, rounded to bytes: [N, C, H / size, W / size]."""
    if size == 1:
        return images_NCHW
    num, channels, height, width = images_NCHW.shape
    squares = images_NCHW.reshape(num, channels, height // size, size, width // size, size)
    sums = sum(squares[:, :, :, row, :, column].astype(np.int64) for row in range(size) for column in range(size))
    means: Images = np.rint(sums / size**2).astype(np.uint8)  # a third of the time of `mean` over two axes
    return means


def with_channels(images_N1HW: torch.Tensor, channels: int) -> torch.Tensor:
    """Grey images expanded to `channels` equal channels, which share memory; colour images unchanged."""
    return images_N1HW.expand(-1, max(channels, images_N1HW.shape[1]), -1, -1)
