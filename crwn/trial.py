"""Runs one trial, from its spec to its results: `run_trial`, or `iterate_trial` if the caller stays in control."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from crwn import contexts, learner
from crwn.backbone import Backbone, BackboneSource
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.features import weights_of
from crwn.benchmarks.protocol import Curriculum
from crwn.benchmarks.validation import hold_out
from crwn.data import Datasets
from crwn.engine import Engine
from crwn.events import GroupHalved, Learned, Numerics, Progress, ResumePoint, TaskRow
from crwn.faults import FaultError
from crwn.memory import DeviceKind, tasks_that_fit
from crwn.methods import starts
from crwn.nn.kernels import KERNELS, choose_kernel
from crwn.resume import read_numerics
from crwn.trial_spec import TrialSpec

CPU_GROUP = 4
"""Tasks that a CPU learns at once: with fewer, the fixed cost of a step is paid more often; more need more memory."""
CPU_GROUP_NUMBERS = 2**24
"""Limit of a group's activations on a CPU; more do not fit even in the last-level cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The compute resources of a new trial; `decide_numerics` derives the trial's numerics from them.

    Attributes:
        device: the kind of processor.
        max_group_size: limit of the number of tasks learned at once; None leaves it to the rule.
        threads: number of CPU threads.
        memory_share: the share of the device's memory that the trial may use; it limits the group size.
    """

    device: DeviceKind = "cpu"
    max_group_size: int | None = None
    threads: int = 1
    memory_share: float = 1.0


ONE_THREAD = Allowance()


class EquipmentError(FaultError, RuntimeError):
    """This machine lacks what a trial is to be computed with, or was begun with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A trial starts or resumes.

    Attributes:
        numerics: decided now, or taken from the resume point.
        progress: where it starts or resumes.
    """

    numerics: Numerics
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All results of a trial.

    Attributes:
        rows: the tests. If tasks do not interfere, the diagonal of the accuracy matrix and its last row, which
            determine the whole matrix, since an accuracy stays the same once its task is learned. If tasks are learned
            in turn and interfere, the whole lower triangle; if all are learned jointly, only the last row.
        contexts: the tensors kept for every task as a safetensors file, with trained weights if requested.
        fingerprint: the fingerprint of the backbone used.
        numerics: the numerics that it was computed with.
        peak_memory: peak in bytes since the trial started or resumed: resident memory of the process on a CPU, memory
            allocated by torch on a GPU.
        device_name: the processor's name for itself.
        held_memory: bytes that the process held before the trial started or resumed, measured in the same way.
    """

    rows: tuple[TaskRow, ...]
    contexts: bytes
    fingerprint: str
    numerics: Numerics
    peak_memory: int
    device_name: str
    held_memory: int = 0


Event: TypeAlias = Started | Progress | ResumePoint | GroupHalved | Finished


def run_trial(
    spec: TrialSpec,
    *,
    data: Datasets,
    backbones: BackboneSource,
    allowance: Allowance = ONE_THREAD,
    on_event: Callable[[Event], None] = lambda _: None,
    resume_from: bytes | None = None,
    numerics: Numerics | None = None,
    keep_weights: bool = False,
) -> Finished:
    """Run a trial to its end: `iterate_trial`, passing every event to `on_event` in order.

    Returns:
        The last event, with all results.
    """
    for event in iterate_trial(
        spec,
        data=data,
        backbones=backbones,
        allowance=allowance,
        resume_from=resume_from,
        numerics=numerics,
        keep_weights=keep_weights,
    ):
        on_event(event)
    assert isinstance(event, Finished)
    return event


def iterate_trial(
    spec: TrialSpec,
    *,
    data: Datasets,
    backbones: BackboneSource,
    allowance: Allowance = ONE_THREAD,
    resume_from: bytes | None = None,
    numerics: Numerics | None = None,
    keep_weights: bool = False,
) -> Iterator[Event]:
    """Run a trial as a generator of events; the last is `Finished`.

    Args:
        spec: the trial.
        data: reads the base set.
        backbones: returns the frozen weights, drawn or shared; their fingerprint is verified here.
        allowance: the compute resources of a new trial; a resumed trial keeps its numerics.
        resume_from: the content of a `ResumePoint` of this trial.
        numerics: overrides the numerics that the rule would give a new trial.
        keep_weights: whether to store trained weights with the contexts, both shared and per-task ones.

    Raises:
        ResumeError: the resume point is damaged, or belongs to another trial.
        DataError: the base set, or a file of weights that the benchmark asks for, is not on this machine.
        RuntimeError: the trial was started on a GPU and this process sees none, or with a kernel that torch lacks here.
        FloatingPointError: training diverged.
        ValueError: the method cannot learn groups of the requested size.
    """
    if resume_from is not None:
        numerics = read_numerics(resume_from)
    if (numerics or allowance).device == "cuda" and not torch.cuda.is_available():
        raise EquipmentError(
            "no-gpu",
            "expected a GPU that torch can use, found none: the trial was assigned to one, or started on one. "
            "Run it where there is a GPU, and check torch.cuda.is_available() there.",
        )
    if numerics is None:
        numerics = decide_numerics(spec, allowance)
    if not KERNELS[numerics.kernel].is_available():
        raise EquipmentError(
            "no-kernel",
            f"the trial started with the kernel {numerics.kernel!r}, which this build of torch lacks. Continue "
            "with the torch that it started with, or discard its resume point to start it over.",
        )
    blueprint = spec.blueprint()
    _keep_freed_memory()
    held = start_measuring(numerics.device)
    with _threads(numerics.threads):
        torch_device = torch.device(numerics.device)
        backbone = backbones(blueprint.backbone).checked()
        engine = _build_engine(spec, data, backbone, numerics)
        events = engine.run(resume_from)
        begins_at = next(events)
        assert isinstance(begins_at, Progress)
        yield Started(numerics=numerics, progress=begins_at)
        learned = None
        for event in events:
            if isinstance(event, Learned):
                learned = event
            else:
                yield event
        assert learned is not None
        yield Finished(
            rows=learned.rows,
            contexts=contexts.dump(
                learned.kept if keep_weights or not blueprint.keeps_weights else (),
                learned.shared if keep_weights else {},
                spec,
                backbone.fingerprint,
                activity=learned.activity,
                starts=starts.how_started(spec.method, learned.kept),
            ),
            fingerprint=backbone.fingerprint,
            numerics=engine.numerics,
            peak_memory=max(held, peak_memory(numerics.device)),  # Linux's counters are rough by some pages
            device_name=_device_name(torch_device),
            held_memory=held,
        )


def decide_numerics(spec: TrialSpec, allowance: Allowance = ONE_THREAD) -> Numerics:
    """The numerics of a new trial, by a fixed rule.

    On a CPU, a group is a few tasks, or one task if more would not fit in the caches; on a GPU, where launch overhead
    dominates small kernels, all of them. A group never exceeds its share of the memory, what the method allows, or
    `max_group_size`.
    """
    blueprint, num_tasks = spec.blueprint(), spec.benchmark.problem().num_tasks
    device = allowance.device
    match blueprint.grouping:
        case "one":
            group_size = 1
        case "all":
            group_size = num_tasks
        case "any":
            favourable = _tasks_for_a_cpu(spec) if device == "cpu" else num_tasks
            fitting = tasks_that_fit(spec, _memory(device), allowance.memory_share)
            group_size = min(favourable, fitting, allowance.max_group_size or num_tasks)
    kernel = choose_kernel(device, learner.product_dtype(spec))
    return Numerics(device=device, group_size=group_size, kernel=kernel, threads=allowance.threads)


def _tasks_for_a_cpu(spec: TrialSpec) -> int:
    blueprint = spec.blueprint()
    activations = blueprint.examples_per_update(spec.training.batch_size) * blueprint.activations
    if blueprint.trained_per_task > activations:
        return 1  # one task's own weights or scores already fill the cache
    return min(CPU_GROUP, max(1, CPU_GROUP_NUMBERS // activations))


def _memory(device: DeviceKind) -> int:
    """The device's memory in bytes."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _build_engine(spec: TrialSpec, data: Datasets, backbone: Backbone, numerics: Numerics) -> Engine:
    device = torch.device(numerics.device)
    problem = spec.benchmark.problem()
    images = hold_out(data.load(spec.benchmark.base), spec.benchmark.validation)
    if (weights := weights_of(spec.benchmark)) is not None:
        images = dataclasses.replace(images, weights=weights.find(data.roots))
    benchmark = BENCHMARKS[spec.benchmark.kind].build(spec.benchmark, images, spec.seed, device)
    return Engine(
        method=learner.build(spec, backbone, device, numerics.kernel),
        curriculum=Curriculum(benchmark, problem.scenario, tests_ahead=problem.tests_ahead),
        blueprint=spec.blueprint(),
        training=spec.training,
        seed=spec.seed,
        numerics=numerics,
        identity=(spec.trial_id, backbone.fingerprint),
    )


@functools.cache
def _keep_freed_memory() -> None:
    """Make the C library keep freed memory, if it is glibc.

    Otherwise every step returns its activations to the system, which has to map and zero them again: a tenth of a small
    network's time.
    """
    largest_mmap_threshold = 2**25
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, largest_mmap_threshold)
        mallopt(M_TRIM_THRESHOLD, 8 * largest_mmap_threshold)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt, from malloc.h."""


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def start_measuring(device: DeviceKind) -> int:
    """Reset the peak that `peak_memory` measures, so that earlier trials of this process do not count.

    Returns:
        Bytes held now: modules, images, and freed memory that the process keeps for its next trial.
    """
    if device == "cuda":
        torch.cuda.empty_cache()  # memory that earlier trials freed becomes available to other processes
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    with contextlib.suppress(OSError):  # elsewhere, or without permission, the peak is that of the whole process
        PEAK_RESET.write_text("5")
    return _resident("VmRSS") or _largest_resident()


PEAK_RESET = Path("/proc/self/clear_refs")
"""Writing a 5 here makes Linux reset the process's peak resident set size."""


def peak_memory(device: DeviceKind) -> int:
    """Peak memory in bytes: allocated by torch on a GPU, or resident memory of this process on a CPU.

    Measured since `start_measuring` if the system supports that, else since the process started.
    """
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    # On Linux, getrusage includes memory of the process that started this one.
    return _resident("VmHWM") or _largest_resident()


def _resident(name: str) -> int | None:
    """A memory size of this process in bytes, by its name in /proc/self/status; None outside Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _largest_resident() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()
