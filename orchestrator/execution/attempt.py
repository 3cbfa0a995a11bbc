"""One attempt at one trial, the same on every executor: from the store's resume point to its final record."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import math
import os
import platform
import socket
import statistics
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from types import MappingProxyType
from typing import Any

import torch

from crwn.backbone import BackboneSource
from crwn.data import Datasets
from crwn.events import CurvePoint, GroupHalved, Progress, ResumePoint, TaskRow
from crwn.memory import predicted_peak
from crwn.metrics import average_accuracy
from crwn.plugins import InstalledPlugin
from crwn.resume import ResumeError
from crwn.spec import BenchmarkSpec
from crwn.trial import Allowance, Event, Finished, Started, iterate_trial
from crwn.trial_spec import TrialSpec, code_of_trial, used_by
from orchestrator.errors import LostError, StorageError, UserError
from orchestrator.execution.progress import describe
from orchestrator.execution.protocol import Assignment, TrialUpdate
from orchestrator.execution.sampling import SystemSampler
from orchestrator.store import integrity
from orchestrator.store.attempts import Attempt, AttemptError, OutOfMemory, Position, code_changes
from orchestrator.store.finished import TrialRecord
from orchestrator.store.provenance import Provenance, RecordedNumerics
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.rows import CurveEntry, Sample, TestRow, TrialRow
from orchestrator.store.store import Store

RECORDED_VERSIONS = ("crwn", "torch", "torchvision", "numpy", "ray")


def attempt(
    assignment: Assignment, *, store: Store, data: Datasets, backbones: BackboneSource
) -> Generator[TrialUpdate, None, None]:
    """Run a trial, or the rest of it, and store its results.

    An error in the trial itself is stored and reported, not raised; the next attempt resumes from the last resume
    point.

    Args:
        assignment: the trial, and how the run wants it computed; it uses one thread per whole CPU core.
        store: where results are written.
        data: the base sets on this machine.
        backbones: returns the frozen weights.

    Returns:
        Updates; the last one says how the trial ended.
    """
    spec, gpus = assignment.spec, assignment.resources.gpus
    trial_id = spec.trial_id
    try:
        if store.is_finished(trial_id):
            store.clear_leftovers([trial_id])
            yield TrialUpdate(trial_id=trial_id, state="finished")
            return
        attempts = [*store.unfinished.attempts(trial_id), new_attempt(spec, gpus)]
        samples = _earlier_samples(store, trial_id)
    except OSError as error:  # if the store cannot be read, the error cannot be stored
        yield _failed(trial_id, error)
        return
    use_gpu = torch.cuda.is_available() and gpus != 0
    memory_share = _claimed_memory(gpus) if use_gpu else 1.0
    sampler = SystemSampler(trial_id, samples, use_gpu=use_gpu)
    yield from _without_gpu(trial_id, gpus, use_gpu=use_gpu)
    iterate = functools.partial(
        iterate_trial,
        spec,
        data=data,
        backbones=backbones,
        allowance=Allowance(
            device="cuda" if use_gpu else "cpu",
            max_group_size=assignment.max_group_size,
            threads=max(1, int(assignment.resources.cpus)),
            memory_share=memory_share,
        ),
        keep_weights=assignment.keep_weights,
    )
    yield from _computed(assignment, store, attempts, iterate, sampler)


def _computed(
    assignment: Assignment,
    store: Store,
    attempts: list[Attempt],
    iterate: Callable[..., Iterator[Event]],
    sampler: SystemSampler,
) -> Iterator[TrialUpdate]:
    """Process and store a trial's events, yielding updates."""
    spec = assignment.spec
    trial_id = spec.trial_id
    try:
        store.unfinished.write_attempts(trial_id, attempts)
        for event in _events(trial_id, store, attempts, iterate):
            sampler.sample_if_due()
            match event:
                case Started():
                    here = position(event.progress)
                    attempts[-1] = replace(attempts[-1], began_at=here, reached=here)
                    store.unfinished.write_attempts(trial_id, attempts)
                    note = _note_of_other_code(spec, attempts)
                    yield TrialUpdate(trial_id=trial_id, state="running", progress=event.progress, note=note)
                case Progress():
                    yield TrialUpdate(trial_id=trial_id, state="running", progress=event)
                case GroupHalved():
                    note = f"memory ran out; from now on, tasks are learned {event.group_size} at once"
                    halved = OutOfMemory(group_size=event.group_size, step=event.step, error=event.error)
                    attempts[-1] = replace(attempts[-1], out_of_memory=(*attempts[-1].out_of_memory, halved))
                    store.unfinished.write_attempts(trial_id, attempts)
                    yield TrialUpdate(trial_id=trial_id, state="running", note=note)
                case ResumePoint():
                    tasks = [*task_rows(spec, event.rows), *learning_rows(spec, event.curves)]
                    if not store.unfinished.write_resume(trial_id, event.content, tasks, sampler.rows):
                        store.clear_leftovers([trial_id])
                        break  # another run, which took over, has finished it
                    attempts[-1] = replace(attempts[-1], reached=position(event.progress))
                    store.unfinished.write_attempts(trial_id, attempts)
                case Finished():
                    sampler.sample()
                    store.records.write(trial_id, record_of(spec, event, attempts, assignment.commit, sampler.rows))
    except Exception as error:  # noqa: BLE001 (any error of a trial is stored, and other trials continue)
        ended = AttemptError(type=type(error).__name__, message=str(error), traceback=traceback.format_exc())
        attempts[-1] = replace(attempts[-1], error=ended)
        with contextlib.suppress(OSError):  # a full disk may be the error itself, which is reported anyway
            store.unfinished.write_attempts(trial_id, attempts)
        yield _failed(trial_id, error)
    else:
        yield TrialUpdate(trial_id=trial_id, state="finished")


def _claimed_memory(gpus: float | None) -> float:
    """The share of its GPU's memory that this process may use; enforced here, since Ray enforces no limit."""
    if gpus is None or gpus >= 1:
        return 1.0
    torch.cuda.set_per_process_memory_fraction(gpus)
    return gpus


def _failed(trial_id: str, error: Exception) -> TrialUpdate:
    message = f"{type(error).__name__}: {error}".splitlines()[0]
    return TrialUpdate(trial_id=trial_id, state="failed", error=message, is_lost=isinstance(error, LostError))


def _without_gpu(trial_id: str, gpus: float | None, *, use_gpu: bool) -> Iterator[TrialUpdate]:
    """A note if a trial was assigned a GPU that it cannot use."""
    if gpus and not use_gpu:
        note = (
            f"a trial was given {gpus:g} GPU, but torch can use none on {socket.gethostname()}; it computes on the CPU"
        )
        yield TrialUpdate(trial_id=trial_id, state="running", note=note)


def _events(
    trial_id: str,
    store: Store,
    attempts: list[Attempt],
    iterate: Callable[..., Iterator[Event]],
) -> Iterator[Event]:
    """The trial's events from its resume point, or from its start if there is no usable one."""
    try:
        yield from iterate(resume_from=store.unfinished.read_resume(trial_id))
    except ResumeError as error:
        attempts[-1] = replace(attempts[-1], discarded_resume_point=str(error))
        store.unfinished.discard_resume(trial_id)
        yield from iterate()


def _note_of_other_code(spec: TrialSpec, attempts: Sequence[Attempt]) -> str | None:
    """A note if a trial resumes that was started by other code."""
    changes = code_changes(attempts)
    if not changes:
        return None
    return f"{describe(spec)} ({spec.trial_id}) resumes with different code: {changes}; tables mark its result"


def position(progress: Progress) -> Position:
    """The position of an attempt, as it is stored."""
    return Position(tasks_learned=progress.tasks_learned, step=progress.step)


def new_attempt(spec: TrialSpec, gpus: float | None) -> Attempt:
    """A new attempt in this process."""
    return Attempt(
        started=_now(),
        host=socket.gethostname(),
        pid=os.getpid(),
        spec=RecordedSpec.of(spec),
        grouping=spec.blueprint().grouping,
        gpus=gpus,
        versions={**versions_for(spec), "python": platform.python_version()},
        code=code_of_trial(spec),
    )


@functools.cache
def versions() -> Mapping[str, str]:
    """The versions of the recorded libraries in this process."""
    return MappingProxyType({name: metadata.version(name) for name in RECORDED_VERSIONS})


def versions_for(spec: TrialSpec) -> dict[str, str]:
    """The same, and those of the installed plug-ins that define parts of a trial."""
    installed = (plugin for plugin in used_by(spec) if isinstance(plugin, InstalledPlugin))
    return {**versions(), **{plugin.name: plugin.version for plugin in installed}}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _earlier_samples(store: Store, trial_id: str) -> list[Sample]:
    try:
        _, system = store.so_far(trial_id)
    except StorageError:
        raise
    except UserError:
        return []  # damaged, but nothing depends on them
    return system


def _identity(spec: TrialSpec) -> dict[str, Any]:
    """The columns that name a trial in every record."""
    return {
        "trial_id": spec.trial_id,
        "method": spec.method.kind,
        "variant": spec.variant,
        "benchmark": recorded_benchmark(spec.benchmark),
        "scale": spec.scale,
        "seed": spec.seed,
    }


def recorded_benchmark(benchmark: BenchmarkSpec) -> str:
    """A benchmark's name in records; results on held-out training images never pass for results on the test set."""
    return f"{benchmark.kind}-{benchmark.base}" + ("-validation" if benchmark.validation else "")


def record_of(
    spec: TrialSpec,
    finished: Finished,
    attempts: Sequence[Attempt],
    commit: str | None,
    system: Sequence[Sample],
) -> TrialRecord:
    """The record of a finished trial.

    Args:
        spec: the trial.
        finished: its results.
        attempts: the attempts at it.
        commit: the commit of the code, if known.
        system: its system samples.
    """
    blueprint, tests = spec.blueprint(), task_rows(spec, finished.rows)
    outcome = integrity.outcome(
        integrity.Tests.of_rows(tests), independent=blueprint.is_independent, benchmark=spec.benchmark, seed=spec.seed
    )
    seconds = [row.train_seconds for row in finished.rows if row.train_seconds is not None]
    train_seconds = sum(seconds)
    eval_seconds = sum(row.eval_seconds for row in finished.rows)
    provenance = Provenance(
        attempts=tuple(entry.without_spec for entry in attempts),
        finished=_now(),
        host=socket.gethostname(),
        device=finished.device_name,
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
        peak_memory_bytes=finished.peak_memory,
        held_memory_bytes=finished.held_memory,
        predicted_memory_bytes=predicted_peak(
            spec, finished.numerics.group_size, finished.numerics.device, finished.held_memory
        ),
        train_seconds=train_seconds,
        train_seconds_per_task=statistics.median(seconds) if seconds else None,
        eval_seconds=eval_seconds,
        commit=commit,
        python=platform.python_version(),
        versions=versions_for(spec),
        code=code_of_trial(spec),
        code_changes=code_changes(attempts),
    )
    trial = TrialRow(
        **_identity(spec),
        accuracy=average_accuracy(outcome.final.tolist()),
        accuracy_told=_known(average_accuracy(outcome.told.tolist())),
        forgetting=_known(outcome.measures["forgetting"]),
        backward_transfer=_known(outcome.measures["backward_transfer"]),
        params_per_task=float(blueprint.params_per_task),
        trained_per_task=blueprint.trained_per_task,
        stored_per_task=blueprint.stored_per_task,
        examples_kept=blueprint.examples_kept,
        stored_memory=blueprint.stored_memory,
        grouping=blueprint.grouping,
        independent=blueprint.is_independent,
        fingerprint=finished.fingerprint,
        spec=RecordedSpec.of(spec),
        numerics=RecordedNumerics(**dataclasses.asdict(finished.numerics)),
        seconds=train_seconds + eval_seconds,
        provenance=provenance,
    )
    return TrialRecord(trial=trial, tasks=tests, system=system, contexts=finished.contexts)


def _known(measure: float) -> float | None:
    return measure if math.isfinite(measure) else None


def task_rows(spec: TrialSpec, rows: Iterable[TaskRow]) -> list[TestRow]:
    """The `tasks` rows of tests."""
    identity = _identity(spec)
    return [
        TestRow(
            **identity,
            task=row.task,
            tasks_learned=row.tasks_learned,
            update=row.update,
            accuracy=row.accuracy,
            accuracy_told=row.accuracy_told,
            answered=row.answered,
            loss=row.loss,
            num_test=row.num_test,
            train_seconds=row.train_seconds,
            eval_seconds=row.eval_seconds,
            tested=row.tested,
            curve=_curve(row.curve),
        )
        for row in rows
    ]


def learning_rows(spec: TrialSpec, curves: Mapping[int, Iterable[CurvePoint]]) -> list[TestRow]:
    """The `tasks` rows of tasks in progress: their curves so far."""
    identity = _identity(spec)
    return [TestRow(**identity, task=task, curve=_curve(curve)) for task, curve in curves.items()]


def _curve(points: Iterable[CurvePoint]) -> tuple[CurveEntry, ...]:
    return tuple(CurveEntry(step=p.step, loss=p.loss, accuracy=p.accuracy, time=p.time) for p in points)
