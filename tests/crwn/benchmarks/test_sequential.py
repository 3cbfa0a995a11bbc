"""Classes that arrive in groups."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from crwn.benchmarks import PRESETS
from crwn.benchmarks.augmentation import Augmentation
from crwn.benchmarks.sequential import SequentialSpec, build
from crwn.benchmarks.validation import hold_out
from crwn.data import BASE_SETS, Datasets
from crwn.data.base import AS_THEY_ARE
from crwn.data.cifar100 import CIFAR100_BASE
from crwn.faults import InvalidError
from tests.refusals import refused

CPU = torch.device("cpu")
DIGITS = SequentialSpec(base="digits")
DRAWN = dataclasses.replace(DIGITS, order="drawn")


def test_natural_order_is_that_of_the_classes() -> None:
    """Digits 0 and 1, 2 and 3, and so on, whatever the seed."""
    assert DIGITS.classes(0) == DIGITS.classes(7) == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))


def test_drawn_groups_are_those_of_the_seed() -> None:
    """Every class is in one group; the same groups at the same seed, others at others."""
    drawn = [DRAWN.classes(seed) for seed in (0, 0, 1, 2)]
    for groups in drawn:
        assert sorted(name for group in groups for name in group) == list(range(10))
        assert [len(group) for group in groups] == [2] * 5
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    assert DIGITS.classes(0) not in drawn


def test_the_drawing_never_changes_by_accident() -> None:
    """It is the same on every machine and in every release so far."""
    assert DRAWN.classes(0) == ((4, 9), (1, 3), (6, 7), (0, 2), (5, 8))


@pytest.mark.parametrize("spec", [DIGITS, DRAWN])
def test_a_task_has_all_images_of_its_classes(digits: Datasets, spec: SequentialSpec) -> None:
    """Training and test images with the base set's own labels, in its order; tasks are as large as their classes."""
    images, tasks = digits.load("digits"), build(spec, digits.load("digits"), 3, CPU)
    assert tasks.num_tasks == 5
    assert tasks.augmentation is None
    for task, names in enumerate(spec.classes(3)):
        assert tasks.classes(task) == names
        for shown, known in ((tasks.train_split(task), images.train), (tasks.test_split(task), images.test)):
            chosen = np.isin(known.labels, names)
            assert np.array_equal(shown.images.numpy(), known.images[chosen])
            assert np.array_equal(shown.labels.numpy(), known.labels[chosen])
        counts = [BASE_SETS["digits"].train_counts[name] for name in names]
        assert tasks.num_examples(task) == tasks.train_split(task).num_examples == sum(counts)


@pytest.mark.parametrize("settings", [{}, {"first": 2}, {"num_tasks": 2, "first": 1}, {"num_tasks": 10}])
def test_sizes_are_known_without_data(digits: Datasets, settings: dict[str, Any]) -> None:
    """One head has all classes, however many are learned; training images and classes of each task are known."""
    spec = dataclasses.replace(DIGITS, **settings)
    images = digits.load("digits")
    problem, tasks = spec.problem(), build(spec, images, 0, CPU)
    assert (problem.scenario, problem.labels_are_shared) == ("class", True)
    assert (problem.num_classes, problem.num_tasks) == (10, tasks.num_tasks)
    assert problem.num_segments == problem.num_tasks == (spec.first or spec.num_tasks)
    assert problem.task_classes == tuple(tasks.classes(task) for task in range(tasks.num_tasks))
    assert problem.segment_sizes == tuple(tasks.num_examples(task) for task in range(tasks.num_tasks))


def test_sizes_that_are_left_to_chance_are_expected_ones(digits: Datasets) -> None:
    """A task's classes and held-out images depend on the seed; sizes are their expected values."""
    assert DRAWN.problem().task_classes == ()
    assert sorted(DRAWN.problem().segment_sizes) == [287, 287, 287, 288, 288]
    assert dataclasses.replace(DRAWN, first=2).problem().segment_sizes == DRAWN.problem().segment_sizes[:2]
    for spec in (DIGITS, DRAWN):
        held_out = dataclasses.replace(spec, validation=237)
        tasks = build(held_out, hold_out(digits.load("digits"), 237), 0, CPU)
        sizes = [tasks.num_examples(task) for task in range(5)]
        assert held_out.problem().num_train == sum(sizes) == 1200
        assert held_out.problem().segment_sizes == pytest.approx(sizes, rel=0.15)


@pytest.mark.parametrize("spec", [DIGITS, DRAWN])
def test_a_sequence_is_cut_short(digits: Datasets, spec: SequentialSpec) -> None:
    """The first tasks of the same drawing, the same images."""
    images = digits.load("digits")
    whole, cut = build(spec, images, 1, CPU), build(dataclasses.replace(spec, first=2), images, 1, CPU)
    assert cut.num_tasks == 2
    for task in range(2):
        assert cut.classes(task) == whole.classes(task)
        assert torch.equal(cut.train_split(task).images, whole.train_split(task).images)


def test_three_channels_are_equal(digits: Datasets) -> None:
    """Each is the grey image; the shape that networks are planned from has three."""
    images = digits.load("digits")
    spec = dataclasses.replace(DIGITS, channels=3)
    assert spec.problem().input_shape == (3, 8, 8)
    for task in (0, 4):
        grey, coloured = build(DIGITS, images, 0, CPU).test_split(task), build(spec, images, 0, CPU).test_split(task)
        assert coloured.images.shape[1] == 3
        taken = coloured.take(torch.arange(20))
        for channel in range(3):
            assert torch.equal(coloured.images[:, channel], grey.images[:, 0])
            assert torch.equal(taken.images[:, channel], grey.images[:20, 0])


def test_pixels_are_means_over_squares(digits: Datasets) -> None:
    """Per channel, rounded to bytes; the sizes from which networks are planned shrink, as do test images."""
    images = digits.load("digits")
    spec = dataclasses.replace(DIGITS, channels=3, pool=2)
    assert spec.problem().input_shape == (3, 4, 4)
    tasks, whole = build(spec, images, 0, CPU), build(DIGITS, images, 0, CPU)
    for found, full in ((tasks.train_split(1), whole.train_split(1)), (tasks.test_split(1), whole.test_split(1))):
        expected = functional.avg_pool2d(full.images.double(), 2).round()
        assert torch.equal(found.images, expected.to(torch.uint8).expand(-1, 3, -1, -1))
        assert torch.equal(found.labels, full.labels)


def test_a_mixture_is_the_tasks_end_to_end(digits: Datasets) -> None:
    """In the order asked for, tasks of different sizes."""
    tasks = build(DIGITS, digits.load("digits"), 0, CPU)
    splits = [tasks.train_split(task) for task in (3, 1)]
    mixture = tasks.mixture([3, 1])
    everything = mixture.take(torch.arange(mixture.num_examples))
    assert torch.equal(everything.images, torch.cat([split.images for split in splits]))
    assert torch.equal(everything.labels, torch.cat([split.labels for split in splits]))


def test_the_spec_says_how_images_are_changed(digits: Datasets) -> None:
    """Crops, flips, both or neither."""
    for padding, flip in ((4, True), (4, False), (0, True)):
        spec = dataclasses.replace(DIGITS, crop_padding=padding, flip=flip)
        assert build(spec, digits.load("digits"), 0, CPU).augmentation == Augmentation(padding=padding, flip=flip)


@pytest.mark.parametrize("num_tasks", [3, 4, 20])
def test_classes_that_do_not_divide_are_refused(num_tasks: int) -> None:
    """The error lists the possible numbers of tasks; a group may be one class, since all classes share one head."""
    with refused(InvalidError, "classes-do-not-divide", says=["num_tasks: ", "1, 2, 5, 10", f"given {num_tasks}"]):
        SequentialSpec(base="digits", num_tasks=num_tasks)
    assert SequentialSpec(base="digits", num_tasks=10).classes(0)[3] == (3,)


def test_wrong_fields_are_refused() -> None:
    """Colour images in one channel; `first` that truncates nothing; no images left to train on."""
    with refused(InvalidError, "channels-too-few", says=["channels: ", "'cifar100'", "given 1"]):
        SequentialSpec(base="cifar100", num_tasks=10)
    with refused(InvalidError, "first-not-fewer", says=["first: ", "5 tasks"]):
        SequentialSpec(base="digits", first=5)
    with refused(InvalidError, "validation-takes-all", says=["validation: ", "1437"]):
        SequentialSpec(base="digits", validation=1437)
    with refused(InvalidError, "pool-does-not-divide", says=["pool: ", "28", "'mnist'", "given 3"]):
        SequentialSpec(pool=3)
    with refused(InvalidError, "pool-does-not-divide", "channels-too-few", says=["pool: ", "channels: "]):
        SequentialSpec(base="cifar100", num_tasks=10, pool=3)
    with refused(InvalidError, "unknown-name", says=["channels: ", "1, 3", "given 2"]):
        SequentialSpec(base="digits", channels=2)  # type: ignore[arg-type]  # what is refused


def test_the_presets_are_mammoths() -> None:
    """Pixels of digits from 0 to 1, never changed; photographs normalised, cropped and flipped, ten classes a task."""
    for name in ("seq-mnist", "seq-digits"):
        assert PRESETS[name].normalisation() == AS_THEY_ARE
    assert PRESETS["seq-mnist"] == SequentialSpec(base="mnist", num_tasks=5, order="natural", channels=1)
    cifar100 = PRESETS["seq-cifar100"]
    assert cifar100.normalisation() == CIFAR100_BASE.normalisation
    assert (cifar100.problem().input_shape, cifar100.problem().num_classes) == ((3, 32, 32), 100)
    assert [len(names) for names in cifar100.problem().task_classes] == [10] * 10


@pytest.mark.data
def test_mnist_as_it_is(mnist: Datasets) -> None:
    """The known sizes: 12,665 to 11,379 training images per task, 10,000 test images."""
    tasks, problem = build(SequentialSpec(), mnist.load("mnist"), 0, CPU), PRESETS["seq-mnist"].problem()
    sizes = [tasks.train_split(task).num_examples for task in range(5)]
    assert sizes == [12_665, 12_089, 11_263, 12_183, 11_800]
    assert problem.segment_sizes == tuple(sizes)
    assert problem.num_train == 60_000
    assert [tasks.test_split(task).num_examples for task in range(5)] == [2115, 2042, 1874, 1986, 1983]
