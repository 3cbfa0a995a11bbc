"""What a benchmark offers, and the gate through which the engine lets a trial see it.

Shapes: N examples, B of them in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch

    from crwn.benchmarks.augmentation import Augmentation
else:
    torch = LazyModule("torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One task's examples on the device: images [N, d] or [N, C, H, W] as unsigned bytes, labels [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.labels)

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples with these numbers."""
        return Split(images=self.images.index_select(0, index_B), labels=self.labels.index_select(0, index_B))


class Mixture(Protocol):
    """The training examples of several tasks as one set, as if they lay end to end in the tasks' order."""

    @property
    def num_examples(self) -> int:
        """Of all its tasks."""
        ...

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples with these numbers, from 0 to `num_examples` - 1."""
        ...


class Benchmark(Protocol):
    """Tasks as tensors on a device, made when asked for."""

    @property
    def num_tasks(self) -> int:
        """The number of tasks."""
        ...

    @property
    def augmentation(self) -> Augmentation | None:
        """How training images are changed at random, if they are."""
        ...

    def train_split(self, task: int) -> Split:
        """The training examples of a task."""
        ...

    def test_split(self, task: int) -> Split:
        """The test examples of a task."""
        ...

    def mixture(self, tasks: Sequence[int]) -> Mixture:
        """The training examples of these tasks as one set; made batch by batch, since all at once may not fit."""
        ...


class Curriculum:
    """A benchmark whose training data can be read only for the tasks that are being learned.

    This is what makes a trial continual: the engine opens a group of tasks, learns them, and closes them for good.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        self._open: frozenset[int] = frozenset()
        self._closed: set[int] = set()

    @property
    def num_tasks(self) -> int:
        """The number of tasks."""
        return self._benchmark.num_tasks

    @property
    def augmentation(self) -> Augmentation | None:
        """How training images are changed at random, if they are."""
        return self._benchmark.augmentation

    @contextmanager
    def learning(self, tasks: Sequence[int]) -> Iterator[Iterator[Split]]:
        """Open the training data of `tasks` for the length of a `with` block.

        Returns:
            Their training splits, in the order of `tasks`, each made when it is asked for.

        Raises:
            PermissionError: one of them was learned before.
        """
        with self._opened(tasks):
            yield (self.train_split(task) for task in tasks)

    @contextmanager
    def learning_together(self, tasks: Sequence[int]) -> Iterator[Mixture]:
        """Open the training data of `tasks` as one set for the length of a `with` block; raises as `learning` does."""
        with self._opened(tasks):
            yield self._benchmark.mixture(tasks)

    @contextmanager
    def _opened(self, tasks: Sequence[int]) -> Iterator[None]:
        if again := self._closed.intersection(tasks):
            raise PermissionError(
                f"the tasks {sorted(again)} were learned already; their training data is closed for good"
            )
        self._open = frozenset(tasks)
        try:
            yield
        except BaseException:
            self._open = frozenset()  # not learned to the end: whoever goes on may open them again
            raise
        self._closed |= self._open
        self._open = frozenset()

    def train_split(self, task: int) -> Split:
        """The training examples of a task that is being learned.

        Raises:
            PermissionError: the task is not being learned.
        """
        if task not in self._open:
            raise PermissionError(
                f"the training data of task {task} was asked for while the tasks {sorted(self._open)} are learned; "
                "in continual learning a task's training data can be read only while that task is learned"
            )
        return self._benchmark.train_split(task)

    def test_split(self, task: int) -> Split:
        """The test examples of any task."""
        return self._benchmark.test_split(task)
