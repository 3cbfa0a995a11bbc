"""Two-digit items."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import crwn.engine
from crwn.benchmarks.items import Items, ItemsSpec, build, pairs_of
from crwn.benchmarks.protocol import TrainsAgain
from crwn.benchmarks.specs import pooled
from crwn.contract import results, run
from crwn.data import Datasets
from crwn.events import ResumePoint
from crwn.faults import InvalidError
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.joint import JointSpec
from crwn.methods.metaplastic import MetaplasticSpec
from crwn.spec import TrainingSpec
from crwn.trial import Event
from crwn.trial_spec import TrialSpec
from tests.refusals import refused

CPU = torch.device("cpu")


def spec_of(**changes: Any) -> ItemsSpec:
    return ItemsSpec(**{"base": "digits", "images": 36, "test_images": 30, "pool": 1, **changes})


def items_of(digits: Datasets, seed: int = 0, **changes: Any) -> Items:
    return build(spec_of(**changes), digits.load("digits"), seed, CPU)


def known(images: np.ndarray, labels: np.ndarray) -> dict[bytes, int]:
    """The label of each image of the base set."""
    return {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


# Items


def test_an_item_is_two_digits_side_by_side(digits: Datasets) -> None:
    """Training images pair training digits, test images test digits; the smaller digit is on the left."""
    images, items = digits.load("digits"), items_of(digits, seed=3, noise=0.0)
    pairs = pairs_of(10, 10, 3)
    assert len(set(pairs)) == 10
    assert all(first < second for first, second in pairs)
    train, test = (known(split.images, split.labels) for split in (images.train, images.test))
    for item, pair in enumerate(pairs):
        for split, labels in ((items.train_split(item), train), (items.test_split(item), test)):
            halves = [split.images[..., :8].numpy(), split.images[..., 8:].numpy()]
            found = [tuple(labels[half[place].tobytes()] for half in halves) for place in range(len(split.labels))]
            assert set(found) == {pair}
            assert (split.labels == item).all()
    assert items.train_split(0).images.shape == (36, 1, 8, 16)
    assert items.test_split(0).images.shape == (30, 1, 8, 16)


def test_seeds_have_items_and_images_of_their_own(digits: Datasets) -> None:
    """Equal seeds have equal items and images; different seeds do not."""
    one, again, other = items_of(digits, 0), items_of(digits, 0), items_of(digits, 1)
    assert torch.equal(one.train_split(4).images, again.train_split(4).images)
    assert not torch.equal(one.train_split(4).images, other.train_split(4).images)
    assert pairs_of(10, 10, 0) != pairs_of(10, 10, 1)


def test_squares_are_averaged() -> None:
    """Worked out by hand, rounded to even."""
    images = np.array([[[[0, 1, 10, 20], [2, 4, 30, 40]]]], dtype=np.uint8)
    assert pooled(images, 2).tolist() == [[[[2, 25]]]]
    assert pooled(images, 1) is images


# Trainings


def test_noise_is_of_all_other_items_with_wrong_labels(digits: Datasets) -> None:
    """Counts per item differ by at most one; labels are uniform over all but the image's own and the trained one."""
    items, spec = items_of(digits, images=360), spec_of(images=360)
    counts: Counter[tuple[int, int]] = Counter()
    for item in range(10):
        split = items.train_split(item)
        assert split.num_examples == items.num_examples(item) == 720
        assert (split.labels[:360] == item).all()
        own = {
            other: {image.tobytes() for image in items.train_split(other).images[:360].numpy()} for other in range(10)
        }
        shown: Counter[int] = Counter()
        for image, label in zip(split.images[360:].numpy(), split.labels[360:].tolist(), strict=True):
            (source,) = [other for other, known_images in own.items() if image.tobytes() in known_images]
            shown[source] += 1
            counts[source, label] += 1
            assert label not in (source, item)
        assert shown == {other: 40 for other in range(10) if other != item}
    assert spec.problem().segment_sizes == (720,) * 10
    assert set(Counter(label for _, label in counts.elements()).keys()) == set(range(10))
    assert min(Counter(label for _, label in counts.elements()).values()) > 250


def test_noise_differs_from_training_to_training_and_images_do_not(digits: Datasets) -> None:
    """The second round has the same images of the item, with different noise."""
    items = items_of(digits, rounds=2)
    first, second = items.train_split(2), items.train_split(12)
    assert torch.equal(first.images[:36], second.images[:36])
    assert not torch.equal(first.labels[36:], second.labels[36:])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "0123"),
        ({"rounds": 3}, "0123 0123 0123"),
        ({"rounds": 3, "repeated": "half"}, "0123 02 02"),
        ({"rounds": 2, "poisoned_rounds": 1}, "0123 0123 0123"),
        ({"rounds": 2, "new_items": 1}, "0123 0123 4"),
        ({"rounds": 2, "repeated": "half", "poisoned_rounds": 2}, "0123 02 0123 0123"),
    ],
)
def test_the_sequence_of_trainings(digits: Datasets, changes: dict[str, Any], expected: str) -> None:
    """Rounds, repeated items, poisoned rounds and new items, in this order."""
    sequence = tuple(int(item) for item in expected.replace(" ", ""))
    spec, items = spec_of(num_tasks=4, **changes), items_of(digits, num_tasks=4, **changes)
    assert isinstance(items, TrainsAgain)
    assert spec.trainings(0) == items.trains == sequence
    problem = spec.problem()
    assert problem.num_segments == items.num_segments == len(sequence)
    assert problem.num_tasks == items.num_tasks == problem.num_classes == max(sequence) + 1
    assert problem.tests_by_update == (len(sequence) != problem.num_tasks)


def test_poison_is_another_items_label(digits: Datasets) -> None:
    """Only in the last round: no item keeps its label, each label is trained once, and noise has neither label."""
    items = items_of(digits, num_tasks=5, rounds=2, poisoned_rounds=1)
    assert [items.taught(segment) for segment in range(10)] == [*range(5), *range(5)]
    taught = [items.taught(segment) for segment in range(10, 15)]
    assert sorted(taught) == list(range(5))
    assert all(label != item for item, label in enumerate(taught))
    split = items.train_split(11)
    assert (split.labels[:36] == taught[1]).all()
    assert not (split.labels[36:] == taught[1]).any()
    assert torch.equal(split.images[:36], items.train_split(1).images[:36])


def test_a_mixture_is_all_trainings_in_order(digits: Datasets) -> None:
    """As joint training sees them."""
    items = items_of(digits, num_tasks=3)
    mixture = items.mixture([0, 2])
    assert torch.equal(mixture.labels, torch.cat([items.train_split(0).labels, items.train_split(2).labels]))


# What is refused


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"num_tasks": 1, "noise": 0.0}, "items-too-few", ["num_tasks: ", "given 1"]),
        ({"num_tasks": 44, "new_items": 2}, "items-too-many", ["at most 45", "given 46"]),
        ({"outputs": 9}, "outputs-too-few", ["outputs: ", "10", "given 9"]),
        ({"num_tasks": 2}, "noise-without-label", ["noise: ", "0.5"]),
        ({"repeated": "half"}, "nothing-repeated", ["repeated: ", "rounds"]),
        ({"poisoned_rounds": 1, "new_items": 1}, "poison-beside-new-items", ["poisoned_rounds: ", "new_items"]),
        ({"frequency": "graded", "rounds": 2}, "frequencies-not-graded", ["frequency: ", "rounds: 2"]),
        ({"frequency": "mixed", "num_tasks": 3}, "frequencies-not-graded", ["num_tasks: 3"]),
        ({"pool": 3}, "pool-does-not-divide", ["pool: ", "'digits'", "given 3"]),
        ({"rounds": 10**12}, "trainings-too-many", ["rounds: ", "100,000"]),
        ({"validation": 5000}, "validation-takes-all", ["validation: "]),
        ({"noise": 1.0}, "too-large", ["noise: ", "less than 1"]),
        ({"base": "cifar100"}, "unknown-name", ["base: "]),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], code: str, says: list[str]) -> None:
    """Before anything is built, with what was expected and given."""
    with refused(InvalidError, code, says=says):
        spec_of(**changes)


def test_all_contradictions_are_reported_at_once() -> None:
    """Three of them."""
    with refused(InvalidError, "items-too-many", "poison-beside-new-items", "pool-does-not-divide", says=[]):
        spec_of(num_tasks=60, poisoned_rounds=1, new_items=1, pool=5)


# Learning


def trial(method: Any, **changes: Any) -> TrialSpec:
    training = TrainingSpec(learning_rate=0.1, optimizer="sgd", batch_size=24, epochs_per_task=2)
    settings = {"num_tasks": 3, **changes}
    return TrialSpec(method=method, benchmark=spec_of(**settings), scale="FC16", seed=0, training=training)


@pytest.mark.parametrize("changes", [{"rounds": 2, "poisoned_rounds": 1}, {"num_tasks": 4, "frequency": "mixed"}])
def test_items_trained_so_far_are_tested_after_each_training(digits: Datasets, changes: dict[str, Any]) -> None:
    """Tests are by update, beginning with the trained item, which has the curve; a resumed trial computes the same."""
    spec = trial(MetaplasticSpec(steepness=50.0), **changes)
    points: list[bytes] = []

    def keep(event: Event) -> None:
        if isinstance(event, ResumePoint):
            points.append(event.content)

    with mock.patch.multiple(crwn.engine, MIN_RESUME_SECONDS=0.0, RESUME_COST_FACTOR=0.0):
        whole = run(spec, digits, on_event=keep)
    sequence = spec.benchmark.trainings(0)  # type: ignore[attr-defined]  # items have an order
    expected = []
    for number, item in enumerate(sequence, start=1):
        others = sorted(set(sequence[:number]) - {item})
        expected += [(task, number, 6 * number) for task in (item, *others)]
    assert [(row.task, row.tasks_learned, row.update) for row in whole.rows] == expected
    assert [row.task for row in whole.rows if row.curve] == list(sequence)
    assert all(sum(row.answered or ()) == row.num_test == 30 for row in whole.rows)
    for point in points[:: max(1, len(points) // 9)]:
        resumed = run(spec, digits, resume_from=point)
        assert results(resumed) == results(whole)
        assert resumed.contexts == whole.contexts


def test_one_round_is_a_sequence_of_tasks(digits: Datasets) -> None:
    """With the lower triangle of the accuracy matrix, as of any other benchmark."""
    rows = run(trial(FinetuneSpec()), digits).rows
    assert {(row.task, row.tasks_learned, row.update) for row in rows} == {
        (task, learned, None) for learned in range(1, 4) for task in range(learned)
    }


def test_joint_training_sees_all_trainings_mixed(digits: Datasets) -> None:
    """It tests each item once, at the end."""
    rows = run(trial(JointSpec(), rounds=2), digits).rows
    assert [(row.task, row.update) for row in rows] == [(task, 36) for task in range(3)]
