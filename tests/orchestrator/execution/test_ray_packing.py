"""How the Ray executor assigns GPUs, with a fake in place of Ray's session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from crwn.trial_spec import TrialSpec
from orchestrator.errors import LostError
from orchestrator.execution import ray_tune
from orchestrator.execution.backbones import SharedBackbones
from orchestrator.execution.protocol import Assignment, Capacity, Job, NodeResources, TrialUpdate
from orchestrator.execution.ray_tune import RayTuneExecutor
from orchestrator.store.attempts import Attempt, AttemptError
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources
from tests.orchestrator.made_up import assignments_of

Wave = dict[TrialSpec, float]


def test_what_the_driver_raises_over_news_ends_the_wave(
    store: Store, trial: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was raised, where Tune makes an error of its own out of it: a run ends so whose store is lost."""
    lost = LostError("store-moved", "it is now elsewhere")
    wave = (trial(),)

    class Tuner:
        def __init__(self, *_: Any, run_config: Any, **__: Any) -> None:
            (self.reporter,) = run_config.callbacks

        def fit(self) -> None:
            update = TrialUpdate(trial_id=wave[0].trial_id, state="failed", is_lost=True)
            try:
                self.reporter.on_trial_result(1, [], None, {"update": update})
            except LostError as error:
                raise RuntimeError("a text that ends in: it is now elsewhere") from error

    def stop(_: TrialUpdate) -> None:
        raise lost

    monkeypatch.setattr(ray_tune.tune, "Tuner", Tuner)
    monkeypatch.setattr(ray_tune.tune, "with_parameters", lambda *_, **__: None)
    monkeypatch.setattr(ray_tune.tune, "with_resources", lambda *_: None)
    shared = SharedBackbones(lambda _: None)
    monkeypatch.setattr(shared, "get", lambda _: None)
    of_one = job(store, wave, gpus=0.0)
    with pytest.raises(LostError) as ended:
        ray_tune._run_wave(of_one, of_one.assignments, stop, shared=shared, home=None)
    assert ended.value is lost


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> list[Wave]:
    """The waves that were run, with each trial's GPUs, on one machine with one GPU of 80 GiB."""
    run: list[Wave] = []

    def run_wave(job: Job, wave: Sequence[Assignment], *_: Any, **__: Any) -> None:
        run.append({each.spec: each.resources.gpus for each in wave})

    capacity = Capacity(nodes=(NodeResources(cpus=16, gpus=1),), gpu_memory=80 * 2**30)
    monkeypatch.setattr(ray_tune, "connect", lambda: False)
    monkeypatch.setattr(ray_tune, "cluster_capacity", lambda: capacity)
    monkeypatch.setattr(ray_tune, "_run_wave", run_wave)
    return run


def job(store: Store, trials: tuple[TrialSpec, ...], gpus: float | None = None) -> Job:
    """Of these trials."""
    resources = Resources(gpus=gpus)
    return Job(assignments=assignments_of(*trials, resources=resources), store=store, data_roots=())


def failed(store: Store, spec: TrialSpec, error: str) -> None:
    """Have the store say that the last attempt ended with an error of a type."""
    store.unfinished.write_attempts(
        spec.trial_id, [Attempt(error=AttemptError(type=kind)) for kind in ("ValueError", error)]
    )


def test_trials_share_a_gpu_where_nobody_says(waves: list[Wave], store: Store, trial: Callable[..., TrialSpec]) -> None:
    """A small trial gets an eighth, and what is asked for is given."""
    trials = (trial(seed=0), trial(seed=1))
    RayTuneExecutor().run(job(store, trials), lambda _: None)
    RayTuneExecutor().run(job(store, trials, gpus=1.0), lambda _: None)
    assert waves == [dict.fromkeys(trials, 0.125), dict.fromkeys(trials, 1.0)]


def test_a_trial_that_ran_out_of_memory_is_tried_once_alone(
    waves: list[Wave], store: Store, trial: Callable[..., TrialSpec]
) -> None:
    """On a whole GPU, after the others; one that failed for another reason, or on a whole GPU already, is not."""
    hungry, broken, fine = (trial(seed=seed) for seed in range(3))
    failed(store, hungry, "OutOfMemoryError")
    failed(store, broken, "FloatingPointError")
    trials = (hungry, broken, fine)
    RayTuneExecutor().run(job(store, trials), lambda _: None)
    assert waves == [dict.fromkeys(trials, 0.125), {hungry: 1.0}]
    waves.clear()
    RayTuneExecutor().run(job(store, trials, gpus=1.0), lambda _: None)
    assert waves == [dict.fromkeys(trials, 1.0)]
