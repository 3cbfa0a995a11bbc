"""The interface of benchmarks, and the curriculum, through which alone the engine accesses one.

Shapes: N examples, B of them in a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from crwn.faults import FaultError
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
        """The device of the tensors."""
        return self.labels.device

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples at these indices."""
        return Split(images=self.images.index_select(0, index_B), labels=self.labels.index_select(0, index_B))


class GateError(FaultError, PermissionError):
    """Training data was requested that is not open: of a task that is not being learned, or was learned before."""


class Mixture(Protocol):
    """The training examples of several tasks as one set, as if concatenated in the order of the tasks."""

    @property
    def num_examples(self) -> int:
        """Number of examples of all its tasks."""

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples at these indices, from 0 to `num_examples` - 1."""


class Benchmark(Protocol):
    """Segments to learn and tasks to test, as tensors on a device, built on demand.

    In a sequence of tasks, the segments are the tasks, unless tasks are trained again (`TrainsAgain`). A stream has
    segments too, but their boundaries are not told, and its tests may differ from its segments.
    """

    @property
    def num_tasks(self) -> int:
        """Number of tasks, each of which is tested separately."""

    @property
    def num_segments(self) -> int:
        """Number of segments, which are learned one after another."""

    @property
    def test_every(self) -> int:
        """Updates between two tests of a stream; else 0: tests follow the segments."""

    @property
    def augmentation(self) -> Augmentation | None:
        """Random augmentation of training images; None: none."""

    def num_examples(self, segment: int) -> int:
        """Number of training examples of a segment, available at any time."""

    def classes(self, task: int) -> tuple[int, ...]:
        """The labels that occur in a task."""

    def train_split(self, segment: int) -> Split:
        """The training examples of a segment."""

    def test_split(self, task: int) -> Split:
        """The test examples of a task."""

    def mixture(self, segments: Sequence[int]) -> Mixture:
        """The training examples of these segments as one set; built batch by batch, since all may not fit in memory."""


@runtime_checkable
class TrainsAgain(Protocol):
    """The additional interface of a benchmark that may train a task more than once, or in any order."""

    @property
    def trains(self) -> tuple[int, ...]:
        """The task that each segment trains; every task occurs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A unit of learning: opened, learned and closed as a whole.

    Attributes:
        lanes: what is learned in parallel: one task per lane, or a single lane of all tasks that are mixed or streamed.
        streams: the name of each lane's random order.
        shuffled: whether every epoch is shuffled; a stream keeps its own order and is seen once.
        tells_tasks: whether the method is told the task of each lane.
        tells_ends: whether it is told when the segment begins and ends.
    """

    lanes: tuple[tuple[int, ...], ...]
    streams: tuple[int | str, ...]
    shuffled: bool
    tells_tasks: bool
    tells_ends: bool

    @property
    def tasks(self) -> tuple[int, ...]:
        """The tasks of all lanes."""
        return tuple(task for lane in self.lanes for task in lane)

    @property
    def number(self) -> int:
        """The segment's number, counted from 0: that of its first task."""
        return self.lanes[0][0]

    @property
    def is_one_by_one(self) -> bool:
        """Whether every lane is a single task."""
        return all(len(lane) == 1 for lane in self.lanes) and self.shuffled

    @property
    def told(self) -> tuple[int, ...] | None:
        """The task of each lane; None if tasks are not told."""
        return self.tasks if self.tells_tasks else None


class Curriculum:
    """A benchmark whose training data can be read only while it is being learned.

    This makes a trial continual: the engine opens a segment, learns it, and closes it for good.

    Args:
        benchmark: the benchmark.
        scenario: what the learner is told.
        tests_ahead: see `ProblemShape`.

    Attributes:
        num_tasks: number of tasks, each of which is tested separately.
        num_segments: number of segments, which are learned one after another.
        test_every: updates between two tests of a stream.
        augmentation: random augmentation of training images; None: none.
        is_stream: whether nothing is told, not even when a segment ends.
        tells_ends: whether it is told when a segment begins and ends.
        tells_tasks: whether it is told which task a test image is from.
        tells_classes: whether it is told that each task adds its own classes, all of which one learner distinguishes.
        tests_ahead: as given.
        trains: the task that each segment trains; meaningless for a stream.
        tests_by_update: whether tests are recorded by update, since the segments are not the tasks in order.
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
        self.trains = benchmark.trains if isinstance(benchmark, TrainsAgain) else tuple(range(self.num_segments))
        self.tests_by_update = self.is_stream or self.num_segments != self.num_tasks
        self._benchmark = benchmark
        self._open: frozenset[int] = frozenset()
        self._closed: set[int] = set()

    def segment(self, tasks: Sequence[int], *, together: bool) -> Segment:
        """The segment of these tasks: one lane per task, or a single lane if they are learned jointly or streamed."""
        as_one = together or self.is_stream
        return Segment(
            lanes=(tuple(tasks),) if as_one else tuple((task,) for task in tasks),
            streams=("mixed",) if as_one else tuple(tasks),
            shuffled=together or not self.is_stream,
            tells_tasks=self.tells_tasks and not as_one,
            tells_ends=self.tells_ends,
        )

    def num_examples(self, tasks: Sequence[int]) -> int:
        """Number of training examples of all these tasks; available at any time."""
        return sum(self._benchmark.num_examples(task) for task in tasks)

    def segments_within(self, num_examples: int) -> int:
        """Number of segments of a stream that have ended after the given number of images."""
        ends = itertools.accumulate(map(self._benchmark.num_examples, range(self.num_segments)))
        return sum(end <= num_examples for end in ends)

    def classes(self, tasks: Sequence[int]) -> tuple[int, ...]:
        """The labels that occur in these tasks."""
        return tuple(sorted({label for task in tasks for label in self._benchmark.classes(task)}))

    @contextmanager
    def learning(self, segment: Segment) -> Iterator[Iterator[Mixture]]:
        """Open the training data of a segment for the duration of a `with` block.

        Returns:
            The training data of each lane in order, built on demand.

        Raises:
            PermissionError: a task of the segment was learned before.
        """
        if again := self._closed.intersection(segment.tasks):
            raise GateError(
                "task-closed", f"the tasks {sorted(again)} were learned already; their training data is closed for good"
            )
        self._open = frozenset(segment.tasks)
        try:
            yield (self.lane(lane) for lane in segment.lanes)
        except BaseException:
            self._open = frozenset()  # not finished: a resumed trial may open them again
            raise
        self._closed |= self._open
        self._open = frozenset()

    def lane(self, tasks: Sequence[int]) -> Mixture:
        """The training examples of tasks that are being learned, as one set.

        Raises:
            PermissionError: one of the tasks is not being learned.
        """
        if unopened := sorted(set(tasks) - self._open):
            raise GateError(
                "task-not-open",
                f"the training data of the tasks {unopened} was requested while the tasks {sorted(self._open)} are "
                "learned; in continual learning a task's training data can be read only while that task is learned",
            )
        return self._benchmark.train_split(tasks[0]) if len(tasks) == 1 else self._benchmark.mixture(tasks)

    def test_split(self, task: int) -> Split:
        """The test examples of any task."""
        return self._benchmark.test_split(task)
