"""How a trial's memory is predicted."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest

from crwn.benchmarks import PRESETS
from crwn.memory import (
    GROUP_SHARE,
    STARTED,
    STARTED_ON_GPU,
    group_bytes,
    needed_bytes,
    predicted_bytes,
    predicted_peak,
    tasks_that_fit,
)
from crwn.methods import METHODS
from crwn.methods.derpp import DERPPSpec
from crwn.trial_spec import TrialSpec

MEASURED = """
from crwn import backbone
from crwn.data import datasets
from crwn.trial import run_trial
from tests.crwn.test_memory import small
print(run_trial(small(), data=datasets(), backbones=backbone.draw).peak_memory)
"""


def trial(method: str, benchmark: str, scale: str, **training: Any) -> TrialSpec:
    """A trial at the paper's settings, with changes to its training."""
    settings = METHODS[method].spec()
    return TrialSpec(
        method=settings,
        benchmark=PRESETS[benchmark],
        scale=scale,
        seed=0,
        training=dataclasses.replace(settings.training(scale), **training),
    )


def small() -> TrialSpec:
    """A trial that takes a second, and whose memory is mostly activations."""
    spec = trial("supsup", "split-digits", "nf32", updates_per_task=2, batch_size=512)
    return dataclasses.replace(spec, benchmark=dataclasses.replace(spec.benchmark, num_tasks=2))


def test_what_a_group_needs_by_hand() -> None:
    """NeuroModNet FC256 on r-mnist: images, trained numbers, activations.

    60,000 images of 784 bytes a task, and once more for the task being made; four times 1,299 numbers in float32; of
    128 examples the inputs of three layers, twice because they are modulated, and the scores, and a quarter more for
    gradients.
    """
    spec = trial("neuromodnet", "r-mnist", "FC256")
    activations = 2 * (784 + 256 + 256) + 10
    assert spec.blueprint().activations == activations
    images, numbers = 60_000 * 784, 4 * (4 * 1299 + 1.25 * 128 * activations)
    assert group_bytes(spec, 1) == 2 * images + numbers
    assert group_bytes(spec, 36) == 37 * images + 36 * numbers


def test_what_segments_of_their_own_size_need_by_hand() -> None:
    """The largest two classes of MNIST, in one channel or three; all of a stream, which is opened as one; digits."""

    def images(name: str, **settings: Any) -> float:
        spec = trial("finetune", "p-digits-domain", "FC32")
        benchmark = dataclasses.replace(PRESETS[name], **settings)
        training = dataclasses.replace(spec.training, epochs_per_task=0)
        spec = dataclasses.replace(spec, benchmark=benchmark, training=training)
        return group_bytes(spec, 0)  # those of the segment being made

    assert images("seq-mnist") == 12_665 * 784
    assert images("seq-mnist", channels=3) == 12_665 * 3 * 784
    assert images("mnist-360") == 54_051 * 784
    assert images("p-digits-domain") == 1437 * 64


def test_what_else_a_trial_needs_by_hand() -> None:
    """MNIST three times, and the frozen weights as drawn and laid out twice; CIFAR-100 is mapped from its file."""
    spec = trial("neuromodnet", "r-mnist", "FC256")
    weights = 784 * 256 + 256 * 256 + 256 * 10
    assert predicted_bytes(spec, 4) - group_bytes(spec, 4) == STARTED + 3 * 70_000 * 784 + 3 * 4 * weights
    mapped = trial("neuromodnet", "split-cifar100", "1d")
    drawn = mapped.blueprint().backbone.num_bytes
    assert predicted_bytes(mapped, 1) - group_bytes(mapped, 1) == STARTED + 3 * drawn


def test_what_a_process_holds_already_counts() -> None:
    """A new one holds less than one that has computed; on a GPU nothing but what torch has allocated is held."""
    spec = trial("neuromodnet", "r-mnist", "FC256")
    needed = predicted_bytes(spec, 4) - STARTED
    assert predicted_peak(spec, 4, "cpu", 100) == predicted_bytes(spec, 4)
    assert predicted_peak(spec, 4, "cpu", STARTED + 7) == STARTED + 7 + needed
    on_gpu = predicted_bytes(spec, 4, "cuda") - STARTED_ON_GPU
    assert predicted_peak(spec, 4, "cuda", 0) == on_gpu
    assert predicted_peak(spec, 4, "cuda", 7) == on_gpu + 7


def test_as_many_tasks_fit_as_the_memory_holds() -> None:
    """Including the task being prepared; at least one, at most all."""
    spec = trial("neuromodnet", "r-mnist", "FC256")
    for num_tasks in (1, 7, 36):
        needed = group_bytes(spec, num_tasks)
        assert tasks_that_fit(spec, math.ceil(needed / GROUP_SHARE)) == num_tasks
        assert tasks_that_fit(spec, math.floor((needed - 8) / GROUP_SHARE)) == max(1, num_tasks - 1)
    assert tasks_that_fit(spec, 2**50) == 36


def test_double_precision_takes_twice_the_numbers() -> None:
    """Numbers take twice the memory; images stay bytes."""
    single, double = (trial("supsup", "r-mnist", "FC256", dtype=dtype) for dtype in ("float32", "float64"))
    images = 2 * 60_000 * 784
    assert group_bytes(double, 1) - images == 2 * (group_bytes(single, 1) - images)


@pytest.mark.slow(reason="a process is started to be measured")
def test_a_trial_takes_about_what_was_predicted() -> None:
    """The peak of a process of its own, within a third; the exact figures are in perf/."""
    found = subprocess.run([sys.executable, "-c", MEASURED], check=True, capture_output=True, text=True)
    assert predicted_bytes(small(), 1) == pytest.approx(int(found.stdout), rel=1 / 3)


def test_a_buffer_counts() -> None:
    """Each stored image and each other number counts with its bytes."""
    small, large = (
        TrialSpec(
            method=DERPPSpec(buffer=size),
            benchmark=PRESETS["seq-mnist"],
            scale="FC100",
            seed=0,
            training=DERPPSpec().training("FC100"),
        )
        for size in (100, 1100)
    )
    added = needed_bytes(large, 1, "cpu") - needed_bytes(small, 1, "cpu")
    activations = group_bytes(large, 1) - group_bytes(small, 1)
    numbers = large.blueprint().stored_memory - small.blueprint().stored_memory
    assert numbers >= 1000 * 10  # the scores of each image
    assert added - activations == 1000 * 784 + 4 * numbers
