"""Which task is an image from?"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from crwn import backbone, contexts
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.protocol import Benchmark
from crwn.benchmarks.rotated import RotatedSpec
from crwn.contexts import ContextBank
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import BenchmarkSpec, TrainingSpec
from crwn.task_inference import Tally, by_group, certainty, margin, mean_images, measure, nearness, neighbours
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.test_contexts import run
from tests.refusals import refused

PERMUTED = PermutedSpec(base="digits", num_tasks=4)
ROTATED = RotatedSpec(base="digits", num_tasks=4, step_degrees=90)


def tasks_of(benchmark: BenchmarkSpec, digits: Datasets) -> Benchmark:
    return BENCHMARKS[benchmark.kind].build(benchmark, digits.load("digits"), 0, torch.device("cpu"))


def learned(benchmark: BenchmarkSpec, digits: Datasets) -> ContextBank:
    """A bank of the tasks, with their mean images."""
    spec = TrialSpec(
        method=NeuroModNetSpec(),
        benchmark=benchmark,
        scale="FC256",
        seed=0,
        training=TrainingSpec(learning_rate=0.01, updates_per_task=100),
    )
    bank = contexts.load(run_trial(spec, data=digits, backbones=backbone.draw).contexts)
    return bank.with_mean_images(mean_images(tasks_of(benchmark, digits)))


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


def test_neighbours_are_the_nearest_tasks() -> None:
    """On a circle of 36 turns by ten degrees: one on either side, and the task itself."""
    near = neighbours(RotatedSpec().distances(0))
    assert near.sum(axis=1).tolist() == [3] * 36
    assert np.flatnonzero(near[0]).tolist() == [0, 1, 35]
    line = neighbours(np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0))))
    assert line.astype(int).tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    assert neighbours(np.zeros((1, 1))).tolist() == [[True]]


def test_turns_are_as_far_apart_as_their_angles() -> None:
    """Wrapped, symmetric; random angles as drawn."""
    distances = RotatedSpec().distances(0)
    assert distances[0, 35] == distances[35, 0] == 10
    assert distances[0, 18] == distances.max() == 180
    random = RotatedSpec(num_tasks=3, angles="random", task_known=False)
    assert random.distances(1)[0, 1] == pytest.approx(abs(random.degrees(1, 0) - random.degrees(1, 1)))


def test_mean_images_are_of_training_images(bank: ContextBank, tasks: Benchmark) -> None:
    """Rounded to bytes; the first task's is the mean of the base set's training images."""
    plain = tasks.train_split(0).images.numpy().astype(float).mean(axis=0).round().astype(np.uint8)
    assert bank.mean_images is not None
    assert bank.mean_images.dtype == torch.uint8
    assert np.array_equal(bank.mean_images[0].numpy(), plain)


@pytest.mark.parametrize("by", ["entropy", "margin", "mean-image"])
def test_the_task_of_a_batch_is_found(bank: ContextBank, tasks: Benchmark, by: str) -> None:
    """Permutations, from 64 images: the highest score is the task's."""
    for task in range(4):
        scores = bank.infer_task(tasks.test_split(task).images[:64], by=by)  # type: ignore[arg-type]
        assert scores.shape == (4,)
        assert int(scores.argmax()) == task


@pytest.mark.parametrize("by", ["entropy", "margin", "mean-image"])
def test_groups_are_batches_asked_together(bank: ContextBank, tasks: Benchmark, by: str) -> None:
    """Images of several tasks, mixed: each group has the scores that it has alone."""
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
    """Too few, no whole numbers, below zero, one left out, one that would ask for terabytes."""
    with refused(InvalidError, code):
        bank.infer_task(torch.zeros(3, 64, dtype=torch.uint8), groups=groups)


def test_what_cannot_be_inferred_is_refused(bank: ContextBank, digits: Datasets) -> None:
    """No images, an unknown criterion, mean images that are not there, one network for all tasks."""
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


def test_a_tally_counts_batches_and_classes() -> None:
    """Two batches of task 1: one found, one given to its neighbour, whose network has one of two classes right."""
    near = np.array([[True, True, False], [True, True, False], [False, False, True]])
    tally = Tally("entropy", 2, near)
    scores = torch.tensor([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    correct = torch.tensor([[0, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    tally.add(1, scores, correct)
    found = tally.result()
    assert (found.num_batches, found.task_accuracy, found.near_accuracy) == (2, 0.5, 1.0)
    assert (found.class_accuracy, found.told_accuracy) == (0.75, 0.75)


def test_a_finished_trial_is_measured_without_training(bank: ContextBank, tasks: Benchmark) -> None:
    """Every criterion and size that there are images for; more images tell more; permutations have no order."""
    found = {(each.by, each.batch): each for each in measure(bank, tasks, batches=(1, 32, 999), images=320)}
    assert found.keys() == {(by, batch) for by in ("entropy", "margin", "mean-image") for batch in (1, 32)}
    for by in ("entropy", "margin", "mean-image"):
        single, many = found[by, 1], found[by, 32]
        assert (single.num_batches, many.num_batches) == (4 * 320, 4 * 10)
        assert 0.25 < single.task_accuracy <= many.task_accuracy
        assert many.task_accuracy > 0.95
        assert many.near_accuracy is None
        assert single.class_accuracy <= many.class_accuracy
        assert many.class_accuracy == pytest.approx(many.told_accuracy, abs=0.05)


def test_the_told_accuracy_is_the_trials(bank: ContextBank, tasks: Benchmark) -> None:
    """Over all test images, the mean of the accuracies with the task told."""
    told = []
    for task in range(4):
        split = tasks.test_split(task)
        told.append((bank.predict(split.images, task=task).argmax(dim=1) == split.labels).double().mean().item())
    found = measure(bank, tasks, batches=(1,), images=10**6)[0]
    assert found.told_accuracy == pytest.approx(float(np.mean(told)), abs=1e-9)


def test_neighbours_count_where_tasks_have_an_order(digits: Datasets) -> None:
    """Right angles: a task or one of its two neighbours is found at least as often as the task."""
    found = measure(learned(ROTATED, digits), tasks_of(ROTATED, digits), batches=(16,), images=320)
    assert {each.by for each in found} == {"entropy", "margin", "mean-image"}
    for each in found:
        assert each.near_accuracy is not None
        assert each.task_accuracy <= each.near_accuracy <= 1
    assert found[-1].task_accuracy > 0.95
