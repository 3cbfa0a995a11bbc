"""The gate through which a trial sees a benchmark."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch

from crwn.benchmarks.protocol import Curriculum, Split


class Numbers:
    """Examples that hold the numbers of tasks."""

    def __init__(self, tasks: Sequence[int]) -> None:
        self.tasks = list(tasks)
        self.num_examples = len(self.tasks)

    def take(self, index_B: torch.Tensor) -> Split:
        return Split(images=torch.tensor(self.tasks)[index_B][:, None].to(torch.uint8), labels=index_B)


class Numbered:
    """A benchmark whose splits hold the task's number."""

    num_tasks = 4

    def train_split(self, task: int) -> Split:
        return Split(images=torch.full((2, 1), task, dtype=torch.uint8), labels=torch.tensor([0, 1]))

    def test_split(self, task: int) -> Split:
        return Split(images=torch.full((1, 1), 100 + task, dtype=torch.uint8), labels=torch.tensor([0]))

    def mixture(self, tasks: Sequence[int]) -> Numbers:
        return Numbers(tasks)


def refusal(task: int, learned: list[int]) -> str:
    return re.escape(f"the training data of task {task} was asked for while the tasks {learned} are learned")


def test_training_data_can_be_read_only_while_it_is_learned() -> None:
    """Outside the `with` block no task's, inside it only that of the tasks opened."""
    curriculum = Curriculum(Numbered())
    with pytest.raises(PermissionError, match=refusal(0, [])):
        curriculum.train_split(0)
    with curriculum.learning([2, 1]) as splits:
        assert [split.images[0, 0].item() for split in splits] == [2, 1]
        assert curriculum.train_split(1).images[0, 0] == 1
        for task in (0, 3):
            with pytest.raises(PermissionError, match=refusal(task, [1, 2])):
                curriculum.train_split(task)
    with pytest.raises(PermissionError, match=refusal(1, [])):
        curriculum.train_split(1)


def test_tasks_learned_together_pass_the_same_gate() -> None:
    """Their examples come as one set, in the order of the tasks, while each of them is open and no other."""
    curriculum = Curriculum(Numbered())
    with curriculum.learning_together([2, 0]) as mixture:
        assert mixture.num_examples == 2
        assert mixture.take(torch.tensor([1, 0, 1])).images.tolist() == [[0], [2], [0]]
        assert curriculum.train_split(0).images[0, 0] == 0
        with pytest.raises(PermissionError, match=refusal(1, [0, 2])):
            curriculum.train_split(1)
    with pytest.raises(PermissionError, match=refusal(2, [])):
        curriculum.train_split(2)


@pytest.mark.parametrize("again", ["learning", "learning_together"])
@pytest.mark.parametrize("first", ["learning", "learning_together"])
def test_a_task_that_was_learned_is_closed_for_good(first: str, again: str) -> None:
    """A group with an earlier task in it is not opened, and nothing else of it either, alone or as one set."""
    curriculum = Curriculum(Numbered())
    with getattr(curriculum, first)([0, 1]):
        pass
    with (
        pytest.raises(PermissionError, match=re.escape("the tasks [1] were learned already")),
        getattr(curriculum, again)([1, 2]),
    ):
        pytest.fail("it was opened")
    with curriculum.learning([2]) as splits:
        assert next(splits).images[0, 0] == 2


def test_the_gate_closes_after_an_error() -> None:
    """A task whose learning failed is closed like one that was learned."""
    curriculum = Curriculum(Numbered())
    with pytest.raises(FloatingPointError, match="diverged"), curriculum.learning([0]):
        raise FloatingPointError("diverged")
    with pytest.raises(PermissionError, match=refusal(0, [])):
        curriculum.train_split(0)


def test_test_data_can_be_read_at_any_time() -> None:
    """Every task is tested again at the end; sizes are the benchmark's."""
    curriculum = Curriculum(Numbered())
    assert curriculum.num_tasks == 4
    assert curriculum.test_split(3).images[0, 0] == 103
    with curriculum.learning([0]):
        assert curriculum.test_split(2).images[0, 0] == 102
