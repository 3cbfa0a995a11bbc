"""The scores of tasks for images, by every criterion."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from crwn import contexts
from crwn.benchmarks.protocol import Benchmark
from crwn.contexts import ContextBank
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.task_criteria import by_group, certainty, margin, nearness
from tests.crwn.test_contexts import run
from tests.crwn.test_task_inference import PERMUTED, learned, tasks_of
from tests.refusals import refused


@pytest.fixture(scope="module")
def tasks(digits: Datasets) -> Benchmark:
    return tasks_of(PERMUTED, digits)


@pytest.fixture(scope="module")
def bank(digits: Datasets) -> ContextBank:
    """Four permutations of digits."""
    return learned(PERMUTED, digits)


def test_certainty_is_minus_the_entropy() -> None:
    """Zero where one class is sure, minus log m where none is; numbers worked out by hand."""
    logits = torch.tensor([[[0.0, 0.0], [50.0, 0.0], [math.log(3), 0.0]]])
    expected = [-math.log(2), 0.0, 0.75 * math.log(0.75) + 0.25 * math.log(0.25)]
    assert certainty(logits)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_margin_is_between_the_two_highest() -> None:
    """Of probabilities, not of scores: [3/6, 2/6, 1/6] has 1/6."""
    logits = torch.tensor([[[3.0, 1.0, 2.0], [5.0, 5.0, 1.0]]]).log()
    assert margin(logits)[0].tolist() == pytest.approx([1 / 6, 0.0], abs=1e-6)
    assert margin(torch.zeros(2, 3, 1)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_nearness_is_minus_the_squared_distance() -> None:
    """Of means in grey levels, as written out plainly."""
    batches, means = torch.tensor([[0.0, 255.0], [10.0, 20.0]]), torch.tensor([[0, 250], [10, 20], [255, 0]])
    expected = -((batches[:, None] - means) ** 2).mean(dim=2)
    assert torch.allclose(nearness(batches, means.to(torch.uint8)), expected)


def test_a_groups_mean_is_its_own() -> None:
    """Groups may be mixed and of different sizes."""
    values = torch.tensor([[1.0], [10.0], [3.0]])
    assert by_group(values, torch.tensor([1, 0, 1]), 2).tolist() == [[10.0], [2.0]]


@pytest.mark.parametrize("by", ["entropy", "margin", "mean-image"])
def test_the_task_of_a_batch_is_found(bank: ContextBank, tasks: Benchmark, by: str) -> None:
    """Permutations, from 64 images: the highest score is the task's."""
    for task in range(4):
        scores = bank.infer_task(tasks.test_split(task).images[:64], by=by)  # type: ignore[arg-type]
        assert scores.shape == (4,)
        assert int(scores.argmax()) == task


@pytest.mark.parametrize("by", ["entropy", "margin", "mean-image"])
def test_groups_are_batches_asked_together(bank: ContextBank, tasks: Benchmark, by: str) -> None:
    """With images of several tasks mixed, each group has the scores that it has alone."""
    parts = [tasks.test_split(task).images[:10] for task in (3, 1)]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    images, groups = torch.cat(parts)[order], torch.tensor([0] * 10 + [1] * 10)[order]
    together = bank.infer_task(images, by=by, groups=groups)  # type: ignore[arg-type]
    alone = torch.stack([bank.infer_task(part, by=by) for part in parts])  # type: ignore[arg-type]
    assert together.shape == (2, 4)
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("groups", "code"),
    [([0, 1], "not-a-group-per-image"), ([0.0] * 3, "not-a-group-per-image"), ([0, -1, 0], "not-a-group-per-image"),
     ([0, 2, 2], "not-a-group-per-image"), ([10**12, 0, 0], "not-a-group-per-image")],
)  # fmt: skip
def test_groups_that_are_none_are_refused(bank: ContextBank, groups: list[int], code: str) -> None:
    """Too few, not whole numbers, negative, a missing group, a number that would need terabytes."""
    with refused(InvalidError, code):
        bank.infer_task(torch.zeros(3, 64, dtype=torch.uint8), groups=groups)


def test_what_cannot_be_inferred_is_refused(bank: ContextBank, digits: Datasets) -> None:
    """No images, an unknown criterion, missing mean images, one network for all tasks."""
    images = torch.zeros(3, 64, dtype=torch.uint8)
    with refused(InvalidError, "no-images"):
        bank.infer_task(images[:0])
    with refused(InvalidError, "unknown-name", says=["entropy", "'magic'"]):
        bank.infer_task(images, by="magic")  # type: ignore[arg-type]
    with refused(InvalidError, "no-mean-images"):
        dataclasses.replace(bank, mean_images=None).infer_task(images, by="mean-image")
    with refused(InvalidError, "task-not-told", says="mtl"):
        contexts.load(run("mtl", digits)[0].contexts).infer_task(images)
    with refused(InvalidError, "one-network", says="er"):
        contexts.load(run("er", digits)[0].contexts).infer_task(images)
