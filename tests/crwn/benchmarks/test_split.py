"""Tasks with classes of their own."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

from crwn import backbone
from crwn.benchmarks import PRESETS, benchmark_name
from crwn.benchmarks.augmentation import Augmentation
from crwn.benchmarks.split import SplitSpec, build, classes_of_tasks
from crwn.data import BASE_SETS, Datasets
from crwn.data.base import ImageSet, ImageSplit
from crwn.data.cifar100 import SUPERCLASSES
from crwn.events import Numerics
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.spec import canonical_json
from crwn.trial import Allowance, decide_numerics, run_trial
from crwn.trial_spec import TrialSpec
from tests.refusals import refused

CPU = torch.device("cpu")
DIGITS = SplitSpec(base="digits", num_tasks=5, crop_padding=0, flip=False)


def test_every_class_is_in_one_task() -> None:
    """Twenty tasks of five of the hundred classes."""
    tasks = classes_of_tasks(100, 20, seed=0)
    assert [len(task) for task in tasks] == [5] * 20
    assert sorted(name for task in tasks for name in task) == list(range(100))


def test_the_split_is_drawn_from_the_seed() -> None:
    """The same for the same seed, different for others, and not in the order of the classes."""
    splits = [classes_of_tasks(100, 20, seed) for seed in (0, 0, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2] != splits[3]
    shared = sum(len(set(one) & set(other)) == 5 for one, other in zip(splits[0], splits[2], strict=True))
    assert shared == 0
    assert splits[0][0] != sorted(splits[0][0])


def test_the_split_never_changes_by_accident() -> None:
    """It is the same on every machine and in every release so far."""
    assert classes_of_tasks(10, 5, seed=0) == [[7, 1], [8, 0], [3, 5], [9, 2], [4, 6]]


RING = SplitSpec(base="cifar100", by="superclass")


def test_tasks_near_each_other_share_superclasses() -> None:
    """Each class is in one task; tasks d apart on the ring share 5 - d super-classes, which have the same labels."""
    for seed in range(3):
        groups = RING.classes_behind(seed)
        assert sorted(label for names in groups for label in names) == list(range(100))
        above = [[SUPERCLASSES[name] for name in names] for names in groups]
        assert all(len(set(names)) == 5 for names in above)
        apart = RING.distances(seed)
        assert apart is not None
        for one, other in itertools.product(range(20), repeat=2):
            steps = min((one - other) % 20, (other - one) % 20)
            shared = set(above[one]) & set(above[other])
            assert len(shared) == max(0, 5 - steps)
            assert apart[one, other] == 5 - len(shared)
            assert all(above[one].index(name) == above[other].index(name) for name in shared)


def test_the_ring_is_drawn_from_the_seed() -> None:
    """Equal seeds give equal rings; fewer tasks are the first of the ring; random groups have no order."""
    assert RING.classes_behind(0) == RING.classes_behind(0) != RING.classes_behind(1)
    few = SplitSpec(base="cifar100", by="superclass", first=6)
    assert few.classes_behind(0) == RING.classes_behind(0)[:6]
    apart, whole = few.distances(0), RING.distances(0)
    assert apart is not None
    assert whole is not None
    assert np.array_equal(apart, whole[:6, :6])
    assert SplitSpec(base="cifar100").distances(0) is None


def test_a_split_by_superclasses_needs_them() -> None:
    """Another base set is refused, another number of tasks too; the default stays out of the canonical JSON."""
    with refused(InvalidError, "no-superclasses", says=["'superclass'", "'digits'", "'cifar100'"]):
        SplitSpec(base="digits", num_tasks=5, by="superclass")
    with refused(InvalidError, "not-a-task-per-superclass", says=["num_tasks", "20", "10"]):
        SplitSpec(base="cifar100", num_tasks=10, by="superclass")
    assert '"by"' not in canonical_json(SplitSpec())
    assert '"by":"superclass"' in canonical_json(RING)
    names = [benchmark_name(json.loads(canonical_json(spec))) for spec in (SplitSpec(), RING)]
    assert names == ["split-cifar100", "superclass-cifar100"]


def test_the_superclasses_are_those_of_the_files(data_root: Path) -> None:
    """The coarse label of each fine label, in the published files."""
    file = data_root / "cifar100" / "test-00000-of-00001.parquet"
    if not file.is_file():
        pytest.skip("needs CIFAR-100 as Parquet files with coarse labels")
    table = parquet.read_table(file, columns=["fine_label", "coarse_label"])
    pairs = set(zip(table["fine_label"].to_pylist(), table["coarse_label"].to_pylist(), strict=True))
    assert pairs == set(enumerate(SUPERCLASSES))


def test_a_task_shows_its_classes_and_no_others(digits: Datasets) -> None:
    """Labels are a class's place in its task; every image of it that is tested is there, in the set's order."""
    images, tasks = digits.load("digits"), build(DIGITS, digits.load("digits"), 3, CPU)
    for task, names in enumerate(classes_of_tasks(10, 5, seed=3)):
        split = tasks.test_split(task)
        assert split.images.shape[1:] == (1, 8, 8)
        for label, name in enumerate(names):
            expected = images.test.images[images.test.labels == name]
            assert np.array_equal(split.images[split.labels == label].numpy(), expected)
        assert set(split.labels.tolist()) == {0, 1}


def test_every_class_gives_equally_many_training_images(digits: Datasets) -> None:
    """As many as the rarest has, the first of each: tasks that are learned together have equally many."""
    images, tasks = digits.load("digits"), build(DIGITS, digits.load("digits"), 0, CPU)
    fewest = int(np.bincount(images.train.labels).min())
    for task, names in enumerate(classes_of_tasks(10, 5, seed=0)):
        split = tasks.train_split(task)
        assert split.labels.tolist() == [0] * fewest + [1] * fewest
        for label, name in enumerate(names):
            expected = images.train.images[images.train.labels == name][:fewest]
            assert np.array_equal(split.images[split.labels == label].numpy(), expected)


def test_a_mixture_is_the_tasks_end_to_end(digits: Datasets) -> None:
    """In the order asked for."""
    tasks = build(DIGITS, digits.load("digits"), 0, CPU)
    splits = [tasks.train_split(task) for task in (3, 1)]
    mixture = tasks.mixture([3, 1])
    everything = mixture.take(torch.arange(mixture.num_examples))
    assert torch.equal(everything.images, torch.cat([split.images for split in splits]))
    assert torch.equal(everything.labels, torch.cat([split.labels for split in splits]))


@pytest.mark.parametrize(
    ("padding", "flip", "expected"),
    [
        (4, True, Augmentation(padding=4, flip=True)),
        (0, True, Augmentation(padding=0, flip=True)),
        (4, False, Augmentation(padding=4, flip=False)),
        (0, False, None),
    ],
)
def test_the_spec_says_how_images_are_changed(
    digits: Datasets, padding: int, expected: Augmentation | None, *, flip: bool
) -> None:
    """Crops, flips, both or neither."""
    spec = dataclasses.replace(DIGITS, crop_padding=padding, flip=flip)
    assert build(spec, digits.load("digits"), 0, CPU).augmentation == expected


@pytest.mark.parametrize("num_tasks", [3, 10, 20])
def test_classes_that_do_not_divide_are_refused(num_tasks: int) -> None:
    """With the numbers of tasks that there can be; a task of one class would have nothing to tell apart."""
    with refused(InvalidError, "classes-do-not-divide", says=["num_tasks: ", "1, 2, 5", f"given {num_tasks}"]):
        SplitSpec(base="digits", num_tasks=num_tasks)


@pytest.mark.parametrize(("name", "size"), [("cifar100", 32), ("miniimagenet", 84), ("tinyimagenet", 64)])
def test_the_presets_are_the_papers(name: str, size: int) -> None:
    """Twenty tasks of five classes, crops with four pixels of padding and flips; labels belong to their task."""
    problem = PRESETS[f"split-{name}"].problem()
    assert (problem.input_shape, problem.num_classes, problem.num_tasks) == ((3, size, size), 5, 20)
    assert not problem.labels_are_shared
    assert PRESETS[f"split-{name}"] == SplitSpec(base=name, num_tasks=20, crop_padding=4, flip=True)
    assert BASE_SETS[name].num_classes == 100


def test_one_network_for_all_is_refused() -> None:
    """MTL is not told the task, so a label must mean one thing; the error names what to take instead."""
    with refused(InvalidError, "labels-not-shared", says=["mtl", "'split'", "such as stl"]):
        trial("mtl", DIGITS)


def trial(method: str, benchmark: SplitSpec, *, updates: int = 60, seed: int = 0) -> TrialSpec:
    spec = METHODS[method].spec()
    return TrialSpec(
        method=spec,
        benchmark=benchmark,
        scale="10d" if method == "flynet" else "FC32",
        seed=seed,
        training=dataclasses.replace(spec.training("FC256"), updates_per_task=updates, learning_rate=0.01),
    )


@pytest.mark.parametrize(
    ("method", "crop_padding"),
    [("neuromodnet", 0), *((name, 1) for name in ("neuromodnet", "flynet", "supsup", "batche", "psp", "stl"))],
)
def test_methods_learn_classes(digits: Datasets, method: str, crop_padding: int) -> None:
    """Two classes per task, with and without augmentation: far above chance, for PSP right after learning.

    By one kernel, since a mask passes rounding on: after 60 updates SupSup's worst task differs by 20 points.
    """
    spec = dataclasses.replace(DIGITS, crop_padding=crop_padding, first=2)
    numerics = Numerics(device="cpu", group_size=1, kernel="plain", threads=1)
    rows = run_trial(trial(method, spec, updates=150), data=digits, backbones=backbone.draw, numerics=numerics).rows
    learned = [row.accuracy for row in rows if row.tasks_learned == row.task + 1]
    assert len(learned) == 2
    assert min(learned) > 0.8


@pytest.mark.slow(reason="it trains nine ResNets")
@pytest.mark.parametrize(
    ("method", "group_size"),
    [
        *((method, size) for method in ("neuromodnet", "supsup", "batche", "stl") for size in (1, 2)),
        ("psp", 1),  # learns one task at a time
    ],
)
def test_resnets_learn_classes(digits: Datasets, method: str, group_size: int) -> None:
    """Five classes a task, at least twice as often right as chance; two tasks at once where the method can."""
    spec = METHODS[method].spec()
    training = dataclasses.replace(
        spec.training("nf8"), updates_per_task=60, batch_size=64, learning_rate=0.1 if method == "neuromodnet" else 0.01
    )
    if method == "batche":
        spec = dataclasses.replace(spec, first_task_rate=0.01)
    benchmark = dataclasses.replace(DIGITS, num_tasks=2)
    trial_spec = TrialSpec(method=spec, benchmark=benchmark, scale="nf8", seed=0, training=training)
    numerics = dataclasses.replace(decide_numerics(trial_spec), group_size=group_size)
    finished = run_trial(trial_spec, data=digits, backbones=backbone.draw, numerics=numerics)
    learned = [row.accuracy for row in finished.rows if row.tasks_learned == row.task + 1]
    assert min(learned) > 0.4


def test_groups_learn_changed_images_as_single_tasks_do(digits: Datasets) -> None:
    """A task's augmentation depends on the seed, the task and the epoch, not on the other tasks in its group."""
    spec = trial("neuromodnet", dataclasses.replace(DIGITS, crop_padding=2, flip=True))
    spec = dataclasses.replace(spec, training=dataclasses.replace(spec.training, dtype="float64"))
    one, all_together = (
        run_trial(spec, data=digits, backbones=backbone.draw, allowance=Allowance(max_group_size=size)).rows
        for size in (1, 5)
    )
    assert [row.accuracy for row in one] == [row.accuracy for row in all_together]
    assert [row.loss for row in one] == pytest.approx([row.loss for row in all_together], rel=1e-9)


def test_held_out_images_are_tested_on(digits: Datasets) -> None:
    """Every held-out image is in one task's test, and the training images are as many of each class as are left."""
    spec = dataclasses.replace(DIGITS, validation=200)
    rows = run_trial(trial("neuromodnet", spec, updates=2), data=digits, backbones=backbone.draw).rows
    assert sum(row.num_test for row in rows if row.tasks_learned == row.task + 1) == 200


def test_a_task_is_made_when_it_is_asked_for() -> None:
    """One image of each class is enough; a task holds its own."""
    split = ImageSplit(images=np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), labels=np.arange(10))
    tasks = build(DIGITS, ImageSet(train=split, test=split), 0, CPU)
    for task, names in enumerate(classes_of_tasks(10, 5, seed=0)):
        assert tasks.train_split(task).images.flatten().tolist() == names
