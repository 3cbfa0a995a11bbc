"""Shares of a GPU, trials in parallel, and what earlier trials took."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from crwn.benchmarks import PRESETS
from crwn.memory import predicted_bytes, tasks_that_fit
from crwn.methods import METHODS
from crwn.testing import TEST_SECONDS, Conditions, write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.execution.packing import HEADROOM, Measured, gpu_share, measured, num_slots, resources_of
from orchestrator.execution.protocol import Capacity, NodeResources
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources

GIB = 2**30
GPU_NODE = NodeResources(cpus=16, gpus=1)


def r_mnist(method: str = "neuromodnet", scale: str = "FC256", seed: int = 0) -> TrialSpec:
    """At the paper's settings."""
    settings = METHODS[method].spec()
    return TrialSpec(
        method=settings, benchmark=PRESETS["r-mnist"], scale=scale, seed=seed, training=settings.training(scale)
    )


@pytest.mark.parametrize(
    ("gigabytes", "taken", "share"),
    [(80, 1, 0.125), (80, 8, 0.125), (80, 9, 0.25), (80, 31, 0.5), (80, 33, 1.0), (80, 79, 1.0), (8, 1, 0.25)],
)
def test_the_smallest_share_that_holds_what_its_like_took(gigabytes: int, taken: int, share: float) -> None:
    """With a quarter more; if it does not fit, the trial gets a whole GPU."""
    known = Measured(gpu_bytes=taken * GIB, seconds=1.0)
    assert gpu_share(r_mnist(), gigabytes * GIB, known) == share


@pytest.mark.parametrize("known", [None, Measured(gpu_bytes=None, seconds=1.0)])
def test_without_a_past_on_a_gpu_the_prediction_counts(known: Measured | None) -> None:
    """FC256 does not hold a whole H100; what it is given holds the groups that it will choose there."""
    spec, memory = r_mnist(), 80 * GIB
    share = gpu_share(spec, memory, known)
    assert share == 0.125
    assert HEADROOM * predicted_bytes(spec, 36, "cuda") <= share * memory
    assert tasks_that_fit(spec, memory, share) == 36
    small = gpu_share(spec, 16 * GIB, known)
    assert small == 0.25
    assert HEADROOM * predicted_bytes(spec, tasks_that_fit(spec, 16 * GIB), "cuda") <= small * 16 * GIB


def test_a_gpu_whose_memory_is_not_known_is_not_shared() -> None:
    """It is unknown whether two trials fit."""
    assert gpu_share(r_mnist(), None, Measured(gpu_bytes=1, seconds=1.0)) == 1.0


def test_what_is_asked_for_stands() -> None:
    """Also `--gpus 0` on machines with GPUs; by default, none if there is none."""
    with_gpus = Capacity(nodes=(GPU_NODE,), gpu_memory=80 * GIB)
    assert resources_of(r_mnist(), Resources(gpus=0.0), with_gpus, None) == Resources(gpus=0.0)
    assert resources_of(r_mnist(), Resources(gpus=2.0), with_gpus, None) == Resources(gpus=2.0)
    assert resources_of(r_mnist(), Resources(cpus=2.0), with_gpus, None) == Resources(gpus=0.125, cpus=2.0)
    without = Capacity(nodes=(NodeResources(cpus=4, gpus=0),), gpu_memory=None)
    assert resources_of(r_mnist(), Resources(), without, None) == Resources(gpus=0.0)


@pytest.mark.parametrize(
    ("gpus", "cpus", "slots"),
    [
        (0.125, 1.0, 8 + 4),  # the second machine has four CPUs
        (0.4, 1.0, 2 + 4),  # of 0.4 two fit on a GPU: nothing is left over between GPUs
        (1.0, 1.0, 1 + 4),
        (2.0, 1.0, 0 + 2),
        (0.0, 1.0, 16 + 4),
        (0.0, 0.5, 32 + 8),
        (0.125, 32.0, 0),
    ],
)
def test_trials_at_once(gpus: float, cpus: float, slots: int) -> None:
    """On each machine, as many as its CPUs and GPUs allow."""
    nodes = [GPU_NODE, NodeResources(cpus=4, gpus=4)]
    assert num_slots(Resources(gpus=gpus, cpus=cpus), nodes) == slots


def test_what_trials_took_tells_of_other_seeds(store: Store, trial: Callable[..., TrialSpec]) -> None:
    """The largest peak of those on a GPU, the mean time of all; nothing is said of another scale."""
    trials = [trial(seed=seed) for seed in range(4)]
    other = dataclasses.replace(trial(), scale="FC32")
    conditions = (
        Conditions(device="cuda", memory=5, task_seconds=1.0),
        Conditions(device="cuda", memory=7, task_seconds=2.0),
        Conditions(device="cpu", memory=99, task_seconds=6.0),
    )
    for spec, one in zip(trials, conditions, strict=False):
        write_finished(store, spec, conditions=one)
    found = measured(store, [*trials, other])
    assert found == dict.fromkeys(
        (spec.trial_id for spec in trials), Measured(gpu_bytes=7, seconds=2 * 3.0 + 3 * TEST_SECONDS)
    )
