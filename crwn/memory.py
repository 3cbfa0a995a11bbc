"""Predicts the memory of a trial from its spec, before it runs.

The prediction counts the images, the frozen weights, trained tensors, replay buffers and other memory, and the
activations of a step; `STARTED` stands for the rest. perf/README.md compares predictions with measurements.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from crwn.data import BASE_SETS
from crwn.trial_spec import TrialSpec

DeviceKind: TypeAlias = Literal["cpu", "cuda"]

STARTED = 640 * 2**20
"""Memory of a process that has loaded torch and computed something, in bytes."""
COPIES_OF_IMAGES = 3
"""Copies of a base set held in memory: as read, as tensors, and as a task's test images with temporaries."""
TASKS_BEING_MADE = 1
"""Tasks whose images are in memory in addition to those being learned."""
COPIES_OF_FROZEN = 3
"""Copies of the frozen weights: as drawn, and laid out for the forward and the backward product."""
STARTED_ON_GPU = 640 * 2**20
"""`STARTED` for GPU memory: the CUDA context and the libraries' workspaces. Estimated, without a GPU."""
GROUP_SHARE = 0.125
"""Share of a device's memory for the tasks learned at once; trials may share the device."""
GROUP_SHARE_OF_OWN = 0.8
"""The same, as a share of what the trial may use of the device."""
STATE_OF_TRAINED = 4
"""Numbers stored per trained number: itself, its gradient, and two of the optimiser."""
COPIES_OF_ACTIVATIONS = 1.25
"""More than 1 because the gradients of some activations are in memory too."""


def predicted_bytes(spec: TrialSpec, group_size: int, device: DeviceKind = "cpu") -> int:
    """Peak memory of a new process that runs the trial, in bytes; within a tenth on a CPU. On a GPU, GPU memory.

    Args:
        spec: the trial.
        group_size: number of tasks learned at once.
        device: the device that the trial runs on.
    """
    return (STARTED_ON_GPU if device == "cuda" else STARTED) + needed_bytes(spec, group_size, device)


def predicted_peak(spec: TrialSpec, group_size: int, device: DeviceKind, held: int) -> int:
    """The measured peak (`crwn.trial.peak_memory`) to expect in a process that already holds memory, in bytes.

    It is too high by what the trial reuses: the same images, or memory that an earlier trial freed and the process
    kept. On a GPU, the measurement covers only what torch allocates, without the CUDA context.

    Args:
        spec: the trial.
        group_size: number of tasks learned at once.
        device: the device that the trial runs on.
        held: bytes held when the trial begins, measured on the same device; more than `STARTED` in a process that ran
            other trials before.
    """
    return (held if device == "cuda" else max(STARTED, held)) + needed_bytes(spec, group_size, device)


def needed_bytes(spec: TrialSpec, group_size: int, device: DeviceKind) -> int:
    """Bytes that a trial adds to a started process: images, frozen weights, and the tasks learned at once."""
    base, frozen = BASE_SETS[spec.benchmark.base], spec.blueprint().backbone.num_bytes
    images = 0 if base.is_mapped else (base.num_train + base.num_test) * math.prod(base.image_shape)
    group = group_bytes(spec, group_size) + memory_bytes(spec)
    if device == "cuda":  # holds images and frozen weights once, as tensors
        return images + frozen + group
    return COPIES_OF_IMAGES * images + COPIES_OF_FROZEN * frozen + group


def tasks_that_fit(spec: TrialSpec, memory: int, share: float = 1.0) -> int:
    """The number of tasks that fit in memory at once; at least one, at most all.

    Args:
        spec: the trial.
        memory: the device's memory, in bytes.
        share: the share of it that the trial may use.
    """
    allowed = memory * min(GROUP_SHARE, share * GROUP_SHARE_OF_OWN)
    beside = group_bytes(spec, 0)
    return min(spec.benchmark.problem().num_tasks, max(1, int((allowed - beside) / (group_bytes(spec, 1) - beside))))


def group_bytes(spec: TrialSpec, group_size: int) -> int:
    """Bytes that the tasks learned at once need: their images, their own tensors, and the activations of a step."""
    blueprint, problem = spec.blueprint(), spec.benchmark.problem()
    # A stream is loaded as a whole; otherwise count the largest segment for each task.
    sizes = [problem.num_train] if problem.is_stream else problem.segment_sizes
    images = max(sizes, default=BASE_SETS[spec.benchmark.base].num_train) * problem.input_size
    activations = (
        COPIES_OF_ACTIVATIONS * blueprint.examples_per_update(spec.training.batch_size) * blueprint.activations
    )
    numbers = STATE_OF_TRAINED * blueprint.trained_per_task + activations
    return math.ceil((group_size + TASKS_BEING_MADE) * images + group_size * _bytes_each(spec) * numbers)


def memory_bytes(spec: TrialSpec) -> int:
    """Bytes that a method keeps while it learns later tasks: the replay buffer's images, as bytes, and numbers."""
    blueprint = spec.blueprint()
    images = blueprint.examples_kept * spec.benchmark.problem().input_size
    return images + blueprint.stored_memory * _bytes_each(spec)


def _bytes_each(spec: TrialSpec) -> int:
    return 8 if spec.training.dtype == "float64" else 4
