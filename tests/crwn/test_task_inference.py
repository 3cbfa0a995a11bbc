"""Task inference: how often a bank identifies the task of test images."""

from __future__ import annotations

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
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import BenchmarkSpec, TrainingSpec
from crwn.task_inference import Tally, mean_images, measure, neighbours
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec

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
    """Every criterion, at every batch size with enough images; larger batches do better; permutations have no order."""
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
