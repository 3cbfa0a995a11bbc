"""The schedule of a trial: the segments in order, their number of updates, and the learning rate of each update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from crwn.batches import num_seen
from crwn.benchmarks.protocol import Curriculum, Segment
from crwn.events import CurvePoint
from crwn.groups import Group
from crwn.spec import Blueprint, TrainingSpec


class Schedule:
    """The schedule of a trial, which depends only on sizes and settings, never on data.

    Args:
        curriculum: the segments to learn.
        blueprint: says which tasks can be learned at once.
        training: says how long each segment is trained.
    """

    def __init__(self, curriculum: Curriculum, blueprint: Blueprint, training: TrainingSpec) -> None:
        self._curriculum = curriculum
        self._blueprint = blueprint
        self._training = training
        self._together = not blueprint.is_continual

    def segment(self, tasks: Sequence[int]) -> Segment:
        """The segment of these tasks, as the method learns them."""
        return self._curriculum.segment(tasks, together=self._together)

    def next_segment(self, learned: int, group_size: int) -> Segment:
        """The segment after the given number of tasks; after all of them, the last one again.

        Args:
            learned: number of tasks learned.
            group_size: number of tasks learned at once.
        """
        end = self._curriculum.num_segments
        if self._together or self._curriculum.is_stream:
            return self.segment(range(end))
        first = min(learned, end - 1)
        if first == 0 and self._blueprint.moves_shared == "first segment":
            group_size = 1  # it trains what the others share
        return self.segment(range(first, min(first + group_size, end)))

    def tested_after(self, learned: int) -> Sequence[int]:
        """The tasks to test once the given number of segments is learned.

        All learned tasks are tested: after every task if learning one can change the others, else at the end. With
        `tests_ahead`, the next task is tested too, and all tasks before the first is learned. A stream is tested by its
        updates instead.
        """
        end, num_tasks = self._curriculum.num_segments, self._curriculum.num_tasks
        if self._curriculum.is_stream or (learned < end and (self._together or self._blueprint.is_independent)):
            return range(0)
        if not self._curriculum.tests_ahead:
            return sorted(set(self._curriculum.trains[:learned]))
        return range(min(learned + 1, num_tasks) if learned else num_tasks)

    def tested_with(self, segment: Segment) -> list[tuple[int, int]]:
        """The tasks to test when a segment ends, each with the number of segments that are learned by then."""
        if segment.is_one_by_one:
            return [(self._curriculum.trains[number], number + 1) for number in segment.tasks]
        return [(task, segment.tasks[-1] + 1) for task in range(self._curriculum.num_tasks)]

    def curves_by_task(self, groups: Iterable[Group]) -> dict[int, tuple[CurvePoint, ...]]:
        """The curve of each lane, by the task that its segment trains; that of a mixture or a stream by task 0."""
        found: dict[int, tuple[CurvePoint, ...]] = {}
        for group in groups:
            segment = group.segment
            tasks = [self._curriculum.trains[number] for number in segment.tasks] if segment.is_one_by_one else [0]
            found |= zip(tasks, map(tuple, group.curves), strict=True)
        return found

    def trains_shared(self, segment: Segment) -> bool:
        """Whether a segment trains the shared weights."""
        when = self._blueprint.moves_shared
        return when == "always" or (when == "first segment" and segment.number == 0)

    def num_steps(self, segment: Segment) -> int:
        """Number of updates of a segment: those of one task, or of all mixed tasks; a stream is seen once."""
        num_images = self._curriculum.num_examples(segment.lanes[0])
        if self._curriculum.is_stream:
            return math.ceil(num_images / self._training.batch_size)
        return self._training.num_updates(num_images, len(segment.lanes[0]))

    def update_of(self, learned: int) -> int | None:
        """The update after which tests are recorded once the given number of segments is learned; None: by number."""
        if not self._curriculum.tests_by_update:
            return None
        segments = range(learned)
        if self._together or self._curriculum.is_stream:
            return self.num_steps(self.segment(segments))
        return sum(self.num_steps(self.segment([number])) for number in segments)

    def before(self, segment: Segment) -> tuple[int, int]:
        """Updates of the trial before a segment, and their examples.

        Each task counts separately, so group sizes make no difference.
        """
        sizes = [self._curriculum.num_examples([task]) for task in range(segment.number)]
        updates = [self._training.num_updates(size, 1) for size in sizes]
        seen = map(num_seen, updates, sizes, [self._training.batch_size] * len(sizes))
        return sum(updates), sum(seen)

    def rate(self, rate: float, step: int, num_steps: int, steps_per_epoch: int) -> float:
        """The learning rate of an update: constant, or per epoch as in torch's CosineAnnealingLR.

        Args:
            rate: the segment's learning rate.
            step: number of updates done.
            num_steps: number of updates of the segment.
            steps_per_epoch: batches per epoch.
        """
        if self._training.schedule == "constant":
            return rate
        done = step // steps_per_epoch / math.ceil(num_steps / steps_per_epoch)
        return rate * (1 + math.cos(math.pi * done)) / 2
