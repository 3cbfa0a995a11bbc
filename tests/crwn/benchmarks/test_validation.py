"""The validation split: settings are chosen by held-out training images, and the test images are never read."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import crwn.trial
from crwn import backbone
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.validation import hold_out
from crwn.data import Datasets
from crwn.data.base import Embedded, ImageSet, ImageSplit
from crwn.data.digits import DIGITS
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.spec import TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.refusals import refused

every_benchmark = pytest.mark.parametrize("benchmark", [RotatedSpec, PermutedSpec])
"""Those whose every task shows every image."""


def numbered(num_train: int = 20, num_test: int = 5) -> ImageSet:
    """Image i holds the number i, test images from 200 on; labels are the image's number modulo 10."""

    def split(numbers: np.ndarray) -> ImageSplit:
        return ImageSplit(images=numbers.astype(np.uint8).reshape(-1, 1, 1, 1), labels=numbers % 10)

    return ImageSet(train=split(np.arange(num_train)), test=split(np.arange(200, 200 + num_test)))


class Poisoned:
    """Test images that nothing may read."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test part was asked for its {name}")


def trial(benchmark: Any, *, seed: int = 0, name: str = "flynet") -> TrialSpec:
    return TrialSpec(
        method=METHODS[name].spec(),
        benchmark=benchmark,
        scale="1d" if name == "flynet" else "FC8",
        seed=seed,
        training=TrainingSpec(learning_rate=0.01, updates_per_task=3, batch_size=64),
    )


def poisoned_digits(digits: Datasets) -> Datasets:
    """Digits whose test part raises whatever is read of it."""
    train = digits.load("digits").train
    base = dataclasses.replace(DIGITS, source=Embedded(read=lambda: ImageSet(train=train, test=Poisoned())))
    return Datasets({"digits": base}, roots=())


def test_held_out_images_are_no_training_images() -> None:
    """Seven of twenty stand in the place of the test images, the other thirteen stay; labels stay with them.

    None is in both, none is lost, and no test image is among them.
    """
    split = hold_out(numbered(), 7)
    held_out, left = split.test.images.flatten().tolist(), split.train.images.flatten().tolist()
    assert (len(held_out), len(left)) == (7, 13)
    assert sorted(held_out + left) == list(range(20))
    assert split.test.labels.tolist() == [number % 10 for number in held_out]
    assert split.train.labels.tolist() == [number % 10 for number in left]
    assert held_out != sorted(held_out)  # at random, not the first or last ones
    assert split.test.labels.dtype == np.int64


def test_nothing_is_held_out_by_default() -> None:
    """With 0 the images are the same object: training and tests are the real ones."""
    images = numbered()
    assert hold_out(images, 0) is images


def test_a_larger_part_holds_a_smaller_one() -> None:
    """The images are the first of one random order, so that two choices compare on overlapping images."""
    small, large = (hold_out(numbered(), count).test.images.flatten().tolist() for count in (5, 12))
    assert large[:5] == small


def test_the_split_never_changes_by_accident() -> None:
    """The same images on every machine and release so far; other settings would be chosen by others."""
    assert hold_out(numbered(), 6).test.images.flatten().tolist() == [16, 5, 13, 10, 2, 1]


@every_benchmark
def test_the_same_images_are_held_out_at_every_seed(
    digits: Datasets, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    """What a trial builds its tasks from is the same at all seeds: settings are compared on equal terms."""
    given: list[ImageSet] = []
    entry = BENCHMARKS[benchmark().kind]

    def build(spec: Any, images: ImageSet, *rest: Any) -> Any:
        given.append(images)
        return entry.build(spec, images, *rest)

    monkeypatch.setattr(crwn.trial, "BENCHMARKS", {benchmark().kind: type(entry)(spec=entry.spec, build=build)})
    for seed in range(3):
        spec = trial(benchmark(base="digits", num_tasks=2, validation=237), seed=seed)
        rows = run_trial(spec, data=digits, backbones=backbone.draw).rows
        assert {row.num_test for row in rows} == {237}
    for images in given:
        assert len(images.train.labels) == 1200
        assert np.array_equal(images.test.images, given[0].test.images)
        assert np.array_equal(images.train.images, given[0].train.images)
    places = {image.tobytes() for image in given[0].test.images}
    assert not places & {image.tobytes() for image in given[0].train.images}  # digits has no image twice


@every_benchmark
@pytest.mark.parametrize("name", ["flynet", "psp", "mtl"])
def test_the_test_images_are_never_read(digits: Datasets, benchmark: Any, name: str) -> None:
    """A trial with a validation split ends well over a base set whose test part raises; without one it does not."""
    poisoned = poisoned_digits(digits)
    spec = trial(benchmark(base="digits", num_tasks=2, validation=100), name=name)
    rows = run_trial(spec, data=poisoned, backbones=backbone.draw).rows
    assert {(row.task, row.num_test) for row in rows} == {(0, 100), (1, 100)}
    with pytest.raises(AssertionError, match="test part"):
        run_trial(trial(benchmark(base="digits", num_tasks=2), name=name), data=poisoned, backbones=backbone.draw)


@every_benchmark
def test_tests_are_on_the_held_out_images(digits: Datasets, benchmark: Any) -> None:
    """Under each task's own map, training and test images together are the training images of before."""
    images, cpu = digits.load("digits"), torch.device("cpu")
    spec = benchmark(base="digits", num_tasks=3, validation=50)
    entry = BENCHMARKS[spec.kind]
    split = entry.build(spec, hold_out(images, 50), 2, cpu)
    whole = entry.build(benchmark(base="digits", num_tasks=3), images, 2, cpu)
    for task in range(3):
        shown = {image.numpy().tobytes() for image in split.test_split(task).images}
        trained = {image.numpy().tobytes() for image in split.train_split(task).images}
        before = {image.numpy().tobytes() for image in whole.train_split(task).images}
        assert shown | trained == before
        assert len(split.test_split(task).labels) == 50
        assert len(split.train_split(task).labels) == 1387


@every_benchmark
@pytest.mark.parametrize("count", [1437, 1438, 10**6])
def test_something_is_left_to_train_on(benchmark: Any, count: int) -> None:
    """As many images as there are, or more, are refused with the number there is."""
    with refused(InvalidError, "validation-takes-all", says=["validation: ", "1437", "'digits'", f"given {count}"]):
        benchmark(base="digits", validation=count)
    assert benchmark(base="digits", validation=1436).validation == 1436
    assert benchmark(base="mnist", validation=59_999).validation == 59_999


@every_benchmark
@pytest.mark.parametrize(
    ("value", "code", "expected"), [(-1, "too-small", "0"), (1.5, "wrong-type", "int"), (True, "wrong-type", "int")]
)
def test_the_number_is_a_count(benchmark: Any, value: Any, code: str, expected: str) -> None:
    """Negative numbers, fractions and booleans are refused."""
    with refused(InvalidError, code, says=["validation: ", expected, f"given {value}"]):
        benchmark(validation=value)


@every_benchmark
def test_a_validation_trial_is_another_trial(benchmark: Any) -> None:
    """Its results never pass for those on the test images; with 0, the trial is the same as without the setting."""
    original, same, other = (trial(benchmark(**settings)) for settings in ({}, {"validation": 0}, {"validation": 100}))
    assert same.trial_id == original.trial_id
    assert other.trial_id != original.trial_id
    assert "validation" not in original.canonical_json()
    assert '"validation":100' in other.canonical_json()
