"""The gate through which a trial sees a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from crwn.benchmarks.protocol import Curriculum, GateError, Segment, Split
from crwn.spec import Scenario
from tests.refusals import refused

SCENARIOS: tuple[Scenario, ...] = ("task", "domain", "class", "general")
TOGETHER = pytest.mark.parametrize("together", [False, True])


class Numbered:
    """A benchmark whose splits hold the number of the segment, or 100 and that of the task that is tested."""

    num_tasks = 4
    num_segments = 4
    test_every = 7
    augmentation = None

    def num_examples(self, segment: int) -> int:
        return 2 + segment

    def classes(self, task: int) -> tuple[int, ...]:
        return (2 * task, 2 * task + 1)

    def train_split(self, segment: int) -> Split:
        size = self.num_examples(segment)
        return Split(images=torch.full((size, 1), segment, dtype=torch.uint8), labels=torch.arange(size))

    def test_split(self, task: int) -> Split:
        return Split(images=torch.full((1, 1), 100 + task, dtype=torch.uint8), labels=torch.tensor([0]))

    def mixture(self, segments: Sequence[int]) -> Split:
        splits = [self.train_split(segment) for segment in segments]
        return Split(
            images=torch.cat([split.images for split in splits]), labels=torch.cat([split.labels for split in splits])
        )


def gate(scenario: Scenario = "task") -> Curriculum:
    return Curriculum(Numbered(), scenario)


def numbers(examples: Any) -> list[int]:
    """Which segment each example is of."""
    return examples.take(torch.arange(examples.num_examples)).images.flatten().tolist()


# The gate


def test_training_data_can_be_read_only_while_it_is_learned() -> None:
    """Outside the `with` block no task's, inside it only that of the tasks opened, in their order."""
    curriculum = gate()
    with refused(GateError, "task-not-open", says=["[0]", "[]"]):
        curriculum.lane([0])
    with curriculum.learning(curriculum.segment([2, 1], together=False)) as lanes:
        assert [numbers(lane) for lane in lanes] == [[2] * 4, [1] * 3]
        assert numbers(curriculum.lane([1])) == [1] * 3
        for tasks, unopened in (([0], [0]), ([3], [3]), ([1, 0], [0])):
            with refused(GateError, "task-not-open", says=[str(unopened), "[1, 2]"]):
                curriculum.lane(tasks)
    with refused(GateError, "task-not-open", says=["[1]", "[]"]):
        curriculum.lane([1])


def test_tasks_learned_together_pass_the_same_gate() -> None:
    """Their examples come as one set, in the order of the tasks, while each of them is open and no other."""
    curriculum = gate()
    with curriculum.learning(curriculum.segment([2, 0], together=True)) as lanes:
        (mixture,) = lanes
        assert numbers(mixture) == [2] * 4 + [0] * 2
        assert numbers(curriculum.lane([0])) == [0] * 2
        with refused(GateError, "task-not-open", says=["[1]", "[0, 2]"]):
            curriculum.lane([1])
    with refused(GateError, "task-not-open", says=["[2]", "[]"]):
        curriculum.lane([2])


@pytest.mark.parametrize("again", [False, True])
@TOGETHER
def test_a_task_that_was_learned_is_closed_for_good(*, together: bool, again: bool) -> None:
    """A segment with an earlier task in it is not opened, and nothing else of it either, side by side or as one."""
    curriculum = gate()
    with curriculum.learning(curriculum.segment([0, 1], together=together)):
        pass
    with (
        refused(GateError, "task-closed", says="[1]"),
        curriculum.learning(curriculum.segment([1, 2], together=again)),
    ):
        pytest.fail("it was opened")
    with curriculum.learning(curriculum.segment([2], together=False)) as lanes:
        assert numbers(next(lanes)) == [2] * 4


def test_the_gate_closes_after_an_error() -> None:
    """A task whose learning failed is closed, and may be opened again."""
    curriculum = gate()
    segment = curriculum.segment([0], together=False)
    with pytest.raises(FloatingPointError, match="diverged"), curriculum.learning(segment):
        raise FloatingPointError("diverged")
    with refused(GateError, "task-not-open", says=["[0]", "[]"]):
        curriculum.lane([0])
    with curriculum.learning(segment) as lanes:
        assert numbers(next(lanes)) == [0] * 2


def test_test_data_can_be_read_at_any_time() -> None:
    """Every task is tested again at the end; sizes are the benchmark's."""
    curriculum = gate()
    assert (curriculum.num_tasks, curriculum.num_segments, curriculum.test_every) == (4, 4, 7)
    assert curriculum.test_split(3).images[0, 0] == 103
    with curriculum.learning(curriculum.segment([0], together=False)):
        assert curriculum.test_split(2).images[0, 0] == 102


# What is told


@pytest.mark.parametrize(
    ("scenario", "tasks", "ends", "classes"),
    [
        ("task", True, True, False),
        ("domain", False, True, False),
        ("class", False, True, True),
        ("general", False, False, False),
    ],
)
def test_a_scenario_tells_what_it_says(scenario: Scenario, *, tasks: bool, ends: bool, classes: bool) -> None:
    """About tasks, their ends and their classes; lanes say their tasks only if tasks are told."""
    curriculum = gate(scenario)
    segment = curriculum.segment([1, 2], together=False)
    assert (curriculum.tells_tasks, curriculum.tells_classes) == (tasks, classes)
    assert (segment.tells_tasks, segment.tells_ends) == (tasks, ends)
    assert segment.told == ((1, 2) if tasks else None)
    assert curriculum.is_stream == (scenario == "general")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_tasks_lie_side_by_side_or_as_one(scenario: Scenario) -> None:
    """A lane each where they are learned in turn; one lane, of no told task, where they are mixed or stream by."""
    curriculum = gate(scenario)
    in_turn, as_one = (curriculum.segment([1, 2], together=together) for together in (False, True))
    mixed: dict[str, Any] = {"lanes": ((1, 2),), "streams": ("mixed",), "tells_tasks": False}
    assert as_one == Segment(**mixed, shuffled=True, tells_ends=scenario != "general")
    if scenario == "general":
        assert in_turn == Segment(**mixed, shuffled=False, tells_ends=False)
    else:
        assert (in_turn.lanes, in_turn.streams, in_turn.shuffled) == (((1,), (2,)), (1, 2), True)
    for segment in (in_turn, as_one):
        assert (segment.tasks, segment.number) == ((1, 2), 1)
    assert in_turn.is_one_by_one == (scenario != "general")
    assert not as_one.is_one_by_one


def test_counts_and_labels_of_several_tasks() -> None:
    """Examples are added up, labels put together; segments that have ended are counted by the images seen."""
    curriculum = gate("class")
    assert curriculum.num_examples([0, 3]) == 2 + 5
    assert curriculum.classes([2, 0]) == (0, 1, 4, 5)
    ended = [curriculum.segments_within(seen) for seen in (0, 1, 2, 4, 5, 13, 14, 20)]
    assert ended == [0, 0, 1, 1, 2, 3, 4, 4]
