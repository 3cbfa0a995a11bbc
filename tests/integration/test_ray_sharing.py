"""Sharing under Ray: frozen weights without copies, GPUs by halves and quarters."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crwn.benchmarks import PRESETS
from crwn.data import BASE_SETS, Datasets
from crwn.events import Progress
from crwn.methods import METHODS
from orchestrator.execution.protocol import Job, TrialUpdate
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Resources
from tests.orchestrator.made_up import assignments_of
from tests.refusals import refused
from tests.said import ON_THE_CPU

pytestmark = [pytest.mark.ray, pytest.mark.slow(reason="a Ray session, and each of its workers imports torch")]

NUM_TRIALS = 4


@pytest.fixture(scope="module")
def ray_session() -> Iterator[Any]:
    """One Ray session for this file: four CPU slots and one GPU that exists on paper only."""
    from orchestrator.execution import ray_cluster

    for name, value in ray_cluster.ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(
        address="local",
        num_cpus=NUM_TRIALS,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray
    ray.shutdown()


def test_a_shared_backbone_costs_a_worker_nothing(ray_session: Any) -> None:
    """Four workers read one FC4096 backbone: one object, read-only arrays, private memory up by less than a tenth."""
    import torch

    from orchestrator.execution import ray_actors, ray_cluster
    from orchestrator.execution.backbones import SharedBackbones

    spec = METHODS["neuromodnet"].spec().blueprint("FC4096", PRESETS["r-mnist"].problem(), 0).backbone
    shared = SharedBackbones(ray_session.put)
    reference = [shared.get(spec) for _ in range(NUM_TRIALS)][-1]

    @ray_session.remote(num_cpus=1)
    class Worker:
        def read(self) -> dict[str, Any]:
            import psutil

            from crwn.learner import tensors_on

            process = psutil.Process()
            before = process.memory_full_info().uss
            backbone = ray_actors.source(reference)(spec).checked()
            tensors = tensors_on(backbone, torch.device("cpu"), torch.float32)
            return {
                "grown": process.memory_full_info().uss - before,
                "writeable": [array.flags.writeable for array in backbone.arrays.values()],
                "copied": [tensors[name].data_ptr() != array.ctypes.data for name, array in backbone.arrays.items()],
            }

    workers = [Worker.remote() for _ in range(NUM_TRIALS)]
    try:
        found = ray_session.get([worker.read.remote() for worker in workers])
    finally:
        for worker in workers:  # else a failure here keeps them, and their CPUs from the next test
            ray_session.kill(worker)
    for seen in found:
        assert seen["grown"] < spec.num_bytes / 10
        assert not any(seen["writeable"])
        assert not any(seen["copied"])
    from ray._private.internal_api import memory_summary

    ray_cluster.alive()  # on a busy machine Ray's own first question may go unanswered
    summary = memory_summary(stats_only=True)  # what `ray memory --stats-only` prints
    assert f"Plasma memory usage {spec.num_bytes // 2**20} MiB, 1 objects" in summary


def test_four_concurrent_trials_share_one_gpu(ray_session: Any, tmp_path: Path) -> None:
    """Four trials at a quarter of a GPU run at once on the same one, with one FC4096 backbone and its fingerprint."""
    import torch

    from orchestrator.execution.ray_tune import RayTuneExecutor

    file = tmp_path / "shared.yaml"
    file.write_text(
        """
        seeds: [0]
        benchmarks: {r-digits: {num_tasks: 1}}
        resources: {gpus: 0.25, cpus: 1}
        methods:
          neuromodnet:
            scales: [FC4096]
            training: {updates_per_task: 80}
            variants:
              first: {}
              second: {training: {learning_rate: 0.02}}
              third: {training: {learning_rate: 0.03}}
              fourth: {settings: {modulation: local}}
        """
    )
    sweep, store = load_sweep(file), Store(tmp_path / "store")
    store.create()
    executor = RayTuneExecutor()
    executor.check(sweep.resources)
    puts: list[Any] = []
    put = ray_session.put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_session, "put", lambda value: puts.append(value) or put(value))
        updates: list[TrialUpdate] = []
        job = Job(
            assignments=assignments_of(*sweep.trials, resources=sweep.resources),
            store=store,
            data_roots=Datasets(BASE_SETS, ()).roots,
        )
        executor.run(job, updates.append)
    backbone_puts = [value for value in puts if isinstance(value, dict) and "layer1" in value]
    assert len(backbone_puts) == 1
    rows = store.records.rows(store.trial_ids()).values()
    assert len(rows) == NUM_TRIALS
    assert len({row.fingerprint for row in rows}) == 1
    assert {row.provenance.visible_gpus for row in rows} == {"0"}
    # All were running before the first one ended: they shared the GPU rather than took turns.
    first_end = next(index for index, update in enumerate(updates) if update.state != "running")
    begun = {update.trial_id for update in updates[:first_end]}
    assert begun == {trial.trial_id for trial in sweep.trials}
    assert any(isinstance(update.progress, Progress) for update in updates)
    notes = [update.note for update in updates if update.note]
    assert all(ON_THE_CPU in note for note in notes)
    assert bool(notes) != torch.cuda.is_available()  # a GPU on paper only is said to be one


def test_a_request_that_no_node_can_meet_is_refused(ray_session: Any) -> None:
    """Two GPUs per trial on nodes with one are refused at once, where Ray would wait forever."""
    from orchestrator.errors import UserError
    from orchestrator.execution.ray_tune import RayTuneExecutor

    with refused(UserError, "resources-too-large", says=["1 CPUs and 2 GPUs", ": 4 CPUs and 1 GPUs"]):
        RayTuneExecutor().check(Resources(gpus=2.0))


def test_a_process_that_dies_is_started_again(ray_session: Any, tmp_path: Path) -> None:
    """Kill -9 of a trial's process: the trial resumes from its resume point in the same run."""
    import psutil

    from orchestrator.execution.ray_tune import RayTuneExecutor

    file = tmp_path / "dies.yaml"
    file.write_text(
        """
        seeds: [0]
        benchmarks: {r-digits: {num_tasks: 1}}
        methods: {neuromodnet: {scales: [FC64], training: {updates_per_task: 12000}}}
        resources: {gpus: 0}
        """
    )
    sweep, store = load_sweep(file), Store(tmp_path / "store")
    store.create()
    (trial,) = sweep.trials
    killed: list[int] = []

    def kill_once(update: TrialUpdate) -> None:
        attempts = store.unfinished.attempts(update.trial_id)
        reached = attempts[-1].reached if attempts else None
        if not killed and reached is not None and reached.step > 0:
            killed.append(reached.step)
            psutil.Process(attempts[-1].pid).kill()

    job = Job(assignments=assignments_of(*sweep.trials, resources=sweep.resources), store=store, data_roots=())
    RayTuneExecutor().run(job, kill_once)
    attempts = store.all_attempts(trial.trial_id)
    assert len(attempts) == 2
    assert attempts[1].began_at is not None
    assert attempts[1].began_at.step >= killed[0] > 0
