"""What the specs of several benchmarks share: classes, truncated sequences, normalisation, channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from crwn.data import BASE_SETS
from crwn.data.base import AS_THEY_ARE, Normalisation
from crwn.faults import InvalidError

if TYPE_CHECKING:
    import torch


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


def with_channels(images_N1HW: torch.Tensor, channels: int) -> torch.Tensor:
    """Grey images expanded to `channels` equal channels, which share memory; colour images unchanged."""
    return images_N1HW.expand(-1, max(channels, images_N1HW.shape[1]), -1, -1)
