"""What is learned when: the segments in their order, their updates, the learning rate of each update."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crwn.benchmarks.protocol import Curriculum, Segment
from crwn.spec import Blueprint, TrainingSpec


class Schedule:
    """Worked out from numbers and facts alone.

    Args:
        curriculum: what there is to learn.
        blueprint: what can be learned at once.
        training: how long.
    """

    def __init__(self, curriculum: Curriculum, blueprint: Blueprint, training: TrainingSpec) -> None:
        self._curriculum = curriculum
        self._blueprint = blueprint
        self._training = training
        self._together = not blueprint.is_continual

    def segment(self, tasks: Sequence[int]) -> Segment:
        """These tasks as the method learns them."""
        return self._curriculum.segment(tasks, together=self._together)

    def next_segment(self, learned: int, group_size: int) -> Segment:
        """What follows after so many tasks; after all of them, the last once more.

        Args:
            learned: tasks that are done.
            group_size: how many are learned side by side.
        """
        end = self._curriculum.num_segments
        if self._together or self._curriculum.is_stream:
            return self.segment(range(end))
        first = min(learned, end - 1)
        if first == 0 and self._blueprint.moves_shared == "first segment":
            group_size = 1  # it prepares what the others share
        return self.segment(range(first, min(first + group_size, end)))

    def tested_after(self, learned: int) -> range:
        """The tasks that have a test once so many are learned.

        Those learned: after every task where learning one can change them, else at the end. With `tests_ahead` the next
        one too, and all before anything is learned. A stream is tested by its updates.
        """
        end, num_tasks = self._curriculum.num_segments, self._curriculum.num_tasks
        if self._curriculum.is_stream or (learned < end and (self._together or self._blueprint.is_independent)):
            return range(0)
        if not self._curriculum.tests_ahead:
            return range(learned)
        return range(min(learned + 1, num_tasks) if learned else num_tasks)

    def trains_shared(self, segment: Segment) -> bool:
        """Whether shared weights are trained with a segment."""
        when = self._blueprint.moves_shared
        return when == "always" or (when == "first segment" and segment.number == 0)

    def num_steps(self, segment: Segment) -> int:
        """Updates of a segment: as many as of one task, or of all that are mixed; a stream is seen once."""
        num_images = self._curriculum.num_examples(segment.lanes[0])
        if self._curriculum.is_stream:
            return math.ceil(num_images / self._training.batch_size)
        return self._training.num_updates(num_images, len(segment.lanes[0]))

    def updates_before(self, segment: Segment) -> int:
        """Of the trial; tasks side by side count once each, so that the number does not depend on their groups."""
        return sum(self.num_steps(self.segment([task])) for task in range(segment.number))

    def rate(self, rate: float, step: int, num_steps: int, steps_per_epoch: int) -> float:
        """The learning rate of an update: constant, or as torch's CosineAnnealingLR gives it by epoch.

        Args:
            rate: the segment's.
            step: updates that are done.
            num_steps: of the segment.
            steps_per_epoch: batches of an epoch.
        """
        if self._training.schedule == "constant":
            return rate
        done = step // steps_per_epoch / math.ceil(num_steps / steps_per_epoch)
        return rate * (1 + math.cos(math.pi * done)) / 2
