"""The Ray executor: trials are Ray actors, placed by Ray Tune.

Tune decides which trial runs where, and restarts trials whose process died; it stores nothing. Results and resume
points go to the store, and a new run builds a new Tuner over the trials that the store lacks: Tune's own restore runs
finished trials again after its driver was killed.

Frozen weights are put into the object store once per distinct backbone, and trials read them without copying.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from crwn.trial_spec import TrialSpec
from orchestrator import scratch
from orchestrator.execution.backbones import SharedBackbones
from orchestrator.execution.packing import measured, resources_of
from orchestrator.execution.protocol import Assignment, Capacity, Job, NodeResources, TrialUpdate, say_nothing
from orchestrator.execution.ray_actors import HomeAddress, Sent, TrialActor, home_of
from orchestrator.execution.ray_cluster import ask_each, cluster_capacity, cluster_nodes, connect
from orchestrator.execution.reaching_ray import check_start, cluster_address
from orchestrator.execution.resources import check_resources, this_machine
from orchestrator.execution.survey import NodeReport, Questions, gpu_memory, look
from orchestrator.store.attempts import Attempt, AttemptError
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources

WAVE = 200
"""Number of trials per Tuner, since the driver's memory grows with it."""

MAX_PROCESS_DEATHS = 2
"""Number of times that a trial whose process dies is restarted in the same run."""


class RayTuneExecutor:
    """Runs trials in parallel on the cluster at $RAY_ADDRESS, or on this machine if none is named."""

    def check(self, resources: Resources) -> None:
        """Check that Ray is usable and some node has a trial's resources; connects to a cluster, starts no local Ray.

        Raises:
            UnavailableError: the cluster does not answer, or a local Ray cannot start.
            UserError: no node has the resources.
        """
        if ray.is_initialized() or cluster_address():
            connect()
            check_resources(resources, cluster_nodes())
        else:
            check_start()
            check_resources(resources, [this_machine(count_gpus=bool(resources.gpus))])

    def capacity(self) -> Capacity:
        """The resources of the cluster's machines, or of this one without a cluster."""
        if not (ray.is_initialized() or cluster_address()):
            memory = gpu_memory()
            cpus = len(os.sched_getaffinity(0))
            return Capacity(nodes=(NodeResources(cpus=cpus, gpus=len(memory)),), gpu_memory=min(memory, default=None))
        connect()
        return cluster_capacity()

    def survey(self, questions: Questions) -> Mapping[str, NodeReport | str]:
        """The answers of a cluster's machines with CPUs or GPUs for trials, or of this one without a cluster."""
        if not (ray.is_initialized() or cluster_address()):
            return {"this machine": look(questions)}
        connect()
        return ask_each(questions)

    def run(
        self, job: Job, on_update: Callable[[TrialUpdate], None], on_wait: Callable[[str], None] = say_nothing
    ) -> None:
        """Run the trials in waves; see `Executor.run`."""
        on_wait("the Ray cluster to answer" if cluster_address() else "Ray to start on this machine")
        started_here = connect()
        try:
            on_wait("the first trial's process to start")
            given = _with_gpus(job)
            shared, home = SharedBackbones(ray.put), home_of(job.store)
            for wave in _waves(given):
                _run_wave(job, wave, on_update, shared=shared, home=home)
            # Retry with a whole GPU each: other trials on the same GPU may have used the memory.
            for wave in _waves([_alone(each) for each in given if _lacked_memory(job.store, each)]):
                _run_wave(job, wave, on_update, shared=shared, home=home)
        finally:
            if started_here:
                on_wait("Ray to stop")
                ray.shutdown()


def _with_gpus(job: Job) -> Sequence[Assignment]:
    """Assignments with the GPUs of each trial: as requested, else a fraction that fits its expected memory."""
    capacity, known = cluster_capacity(), measured(job.store, job.known_trials)
    return [
        replace(each, resources=resources_of(each.spec, each.resources, capacity, known.get(each.spec.trial_id)))
        for each in job.assignments
    ]


def _alone(assignment: Assignment) -> Assignment:
    return replace(assignment, resources=replace(assignment.resources, gpus=1.0))


def _lacked_memory(store: Store, assignment: Assignment) -> bool:
    """Whether a trial ran out of memory on a GPU that it shared."""
    return 0 < (assignment.resources.gpus or 0.0) < 1 and ran_out_of_memory(store, assignment.spec)


def ran_out_of_memory(store: Store, spec: TrialSpec) -> bool:
    """Whether the last attempt at a trial ended because memory ran out."""
    attempts = store.unfinished.attempts(spec.trial_id)
    error = attempts[-1].error if attempts else None
    return error is not None and error.type == "OutOfMemoryError"


def _waves(assignments: Sequence[Assignment]) -> Iterator[Sequence[Assignment]]:
    for start in range(0, len(assignments), WAVE):
        yield assignments[start : start + WAVE]


def _run_wave(
    job: Job,
    wave: Sequence[Assignment],
    on_update: Callable[[TrialUpdate], None],
    *,
    shared: SharedBackbones,
    home: HomeAddress | None,
) -> None:
    shared.keep_only(each.spec.blueprint().backbone for each in wave)
    sent = {
        each.spec.trial_id: Sent(
            plugins=job.plugins,
            assignment=each,
            backbone=shared.get(each.spec.blueprint().backbone),
            store=job.store.address,
            mark=job.store.mark,
            home=home,
            data_roots=job.data_roots,
        )
        for each in wave
    }
    reporter = _Reporter(job.store, on_update)
    with scratch.folder("crwn-tune-") as folder:  # Tune requires one; nothing important goes there
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialActor, sent=sent),
                lambda config: tune.PlacementGroupFactory([_placed(sent[config["trial_id"]])]),
            ),
            param_space={"trial_id": tune.grid_search(list(sent))},
            tune_config=tune.TuneConfig(
                # A process keeps its GPU memory, so each trial on a GPU gets a new one; CPU processes are reused.
                reuse_actors=not any(each.gpus for each in sent.values()),
                trial_name_creator=lambda trial: trial.config["trial_id"],
                trial_dirname_creator=lambda trial: trial.config["trial_id"],
            ),
            run_config=tune.RunConfig(
                name="wave",
                storage_path=str(folder),
                verbose=0,
                callbacks=[reporter],
                failure_config=tune.FailureConfig(max_failures=MAX_PROCESS_DEATHS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if reporter.error is not None:
                raise reporter.error from None  # Tune turns it into text
            raise


def _placed(sent: Sent) -> dict[str, float]:
    """The resources that Ray reserves for a trial."""
    return {"CPU": sent.assignment.resources.cpus, "GPU": sent.gpus}


class _Reporter(tune.Callback):
    """Passes the actors' reports to the driver, and records the death of a process as the trial's error.

    Attributes:
        error: an exception that the driver raised on a report, which ends the wave.
    """

    def __init__(self, store: Store, on_update: Callable[[TrialUpdate], None]) -> None:
        self._store = store
        self._on_update = on_update
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles its callbacks to a file that we never read, and a display cannot be pickled."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        self._tell(result["update"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_id = trial.config["trial_id"]
        message = (
            f"its process failed or died {MAX_PROCESS_DEATHS + 1} times, such as killed or out of memory; it goes on "
            "from its last resume point at the next run"
        )
        with contextlib.suppress(OSError):  # a full disk must not stop the other trials
            *earlier, last = self._store.unfinished.attempts(trial_id) or (Attempt(),)
            error = AttemptError(type="ProcessFailed", message=message, traceback=_error_text(trial))
            self._store.unfinished.write_attempts(trial_id, [*earlier, replace(last, error=error)])
        self._tell(TrialUpdate(trial_id=trial_id, state="failed", error=message))

    def _tell(self, update: TrialUpdate) -> None:
        try:
            self._on_update(update)
        except Exception as error:
            self.error = error
            raise


def _error_text(trial: Any) -> str:
    with contextlib.suppress(OSError, TypeError):
        return Path(trial.error_file).read_text()
    return ""
