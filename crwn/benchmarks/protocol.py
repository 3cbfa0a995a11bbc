"""What a benchmark offers, and the gate through which the engine lets a trial see it.

Shapes: N examples, B of them in a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crwn.lazy import LazyModule
from crwn.spec import SCENARIOS, Scenario

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

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.labels.device

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples with these numbers."""
        return Split(images=self.images.index_select(0, index_B), labels=self.labels.index_select(0, index_B))


class Mixture(Protocol):
    """The training examples of several tasks as one set, as if they lay end to end in the tasks' order."""

    @property
    def num_examples(self) -> int:
        """Of all its tasks."""

    @property
    def device(self) -> torch.device:
        """Where they are."""

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples with these numbers, from 0 to `num_examples` - 1."""


class Benchmark(Protocol):
    """Segments to learn and tasks to test as tensors on a device, made when asked for.

    In a sequence of tasks the segments are the tasks. A stream has segments too, whose ends nobody is told, and its
    tests may be of something else.
    """

    @property
    def num_tasks(self) -> int:
        """What is tested, each with a figure of its own."""

    @property
    def num_segments(self) -> int:
        """What is learned one after another."""

    @property
    def test_every(self) -> int:
        """Of a stream, the updates between two tests; else 0: tests follow the segments."""

    @property
    def augmentation(self) -> Augmentation | None:
        """How training images are changed at random, if they are."""

    def num_examples(self, segment: int) -> int:
        """Training examples of a segment, which may be asked for at any time."""

    def classes(self, task: int) -> tuple[int, ...]:
        """The labels that occur in a task."""

    def train_split(self, segment: int) -> Split:
        """The training examples of a segment."""

    def test_split(self, task: int) -> Split:
        """The test examples of a task."""

    def mixture(self, segments: Sequence[int]) -> Mixture:
        """The training examples of these segments as one set; made batch by batch, since all at once may not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What is opened, learned and closed as one.

    Attributes:
        lanes: what is learned side by side: a task each, or, as one lane, all that are mixed or stream by.
        streams: the names of the lanes' orders.
        shuffled: whether every epoch has an order of its own; a stream comes in its own, once.
        tells_tasks: whether the lanes' tasks are told.
        tells_ends: whether its beginning and its end are told.
    """

    lanes: tuple[tuple[int, ...], ...]
    streams: tuple[int | str, ...]
    shuffled: bool
    tells_tasks: bool
    tells_ends: bool

    @property
    def tasks(self) -> tuple[int, ...]:
        """Of all lanes."""
        return tuple(task for lane in self.lanes for task in lane)

    @property
    def number(self) -> int:
        """From 0: that of its first task."""
        return self.lanes[0][0]

    @property
    def is_one_by_one(self) -> bool:
        """Whether every lane is a task of its own."""
        return all(len(lane) == 1 for lane in self.lanes) and self.shuffled

    @property
    def told(self) -> tuple[int, ...] | None:
        """The task of each lane; None where it is not told."""
        return self.tasks if self.tells_tasks else None


class Curriculum:
    """A benchmark whose training data can be read only for what is being learned.

    This is what makes a trial continual: the engine opens a segment, learns it, and closes it for good.

    Args:
        benchmark: behind the gate.
        scenario: what is told of it.
        tests_ahead: see `ProblemShape`.

    Attributes:
        num_tasks: what is tested, each with a figure of its own.
        num_segments: what is learned one after another.
        test_every: of a stream, the updates between two tests.
        augmentation: how training images are changed at random, if they are.
        is_stream: whether nothing is told, not even when a segment ends.
        tells_ends: whether the beginning and the end of a segment are told.
        tells_tasks: whether a test says which task its images are from.
        tells_classes: whether each task brings classes of its own, which one learner tells apart.
        tests_ahead: as given.
    """

    def __init__(self, benchmark: Benchmark, scenario: Scenario = "task", *, tests_ahead: bool = False) -> None:
        self.num_tasks = benchmark.num_tasks
        self.num_segments = benchmark.num_segments
        self.test_every = benchmark.test_every
        self.augmentation = benchmark.augmentation
        self.is_stream = scenario == "general"
        self.tells_tasks, self.tells_ends, self.tells_classes = (
            need in SCENARIOS[scenario] for need in ("tasks", "ends", "classes")
        )
        self.tests_ahead = tests_ahead
        self._benchmark = benchmark
        self._open: frozenset[int] = frozenset()
        self._closed: set[int] = set()

    def segment(self, tasks: Sequence[int], *, together: bool) -> Segment:
        """These tasks side by side; or as one, where they are learned together or stream by."""
        as_one = together or self.is_stream
        return Segment(
            lanes=(tuple(tasks),) if as_one else tuple((task,) for task in tasks),
            streams=("mixed",) if as_one else tuple(tasks),
            shuffled=together or not self.is_stream,
            tells_tasks=self.tells_tasks and not as_one,
            tells_ends=self.tells_ends,
        )

    def num_examples(self, tasks: Sequence[int]) -> int:
        """Training examples of all these tasks; may be asked for at any time."""
        return sum(self._benchmark.num_examples(task) for task in tasks)

    def segments_within(self, num_examples: int) -> int:
        """How many segments of a stream have ended when so many of its images were seen."""
        ends = itertools.accumulate(map(self._benchmark.num_examples, range(self.num_segments)))
        return sum(end <= num_examples for end in ends)

    def classes(self, tasks: Sequence[int]) -> tuple[int, ...]:
        """The labels that occur in these tasks."""
        return tuple(sorted({label for task in tasks for label in self._benchmark.classes(task)}))

    @contextmanager
    def learning(self, segment: Segment) -> Iterator[Iterator[Mixture]]:
        """Open the training data of a segment for the length of a `with` block.

        Returns:
            That of each lane in order, made when it is asked for.

        Raises:
            PermissionError: some of it was learned before.
        """
        if again := self._closed.intersection(segment.tasks):
            raise PermissionError(
                f"the tasks {sorted(again)} were learned already; their training data is closed for good"
            )
        self._open = frozenset(segment.tasks)
        try:
            yield (self.lane(lane) for lane in segment.lanes)
        except BaseException:
            self._open = frozenset()  # not learned to the end: whoever goes on may open them again
            raise
        self._closed |= self._open
        self._open = frozenset()

    def lane(self, tasks: Sequence[int]) -> Mixture:
        """The training examples of tasks that are being learned, as one set.

        Raises:
            PermissionError: one of them is not being learned.
        """
        if unopened := sorted(set(tasks) - self._open):
            raise PermissionError(
                f"the training data of the tasks {unopened} was asked for while the tasks {sorted(self._open)} are "
                "learned; in continual learning a task's training data can be read only while that task is learned"
            )
        return self._benchmark.train_split(tasks[0]) if len(tasks) == 1 else self._benchmark.mixture(tasks)

    def test_split(self, task: int) -> Split:
        """The test examples of any task."""
        return self._benchmark.test_split(task)
