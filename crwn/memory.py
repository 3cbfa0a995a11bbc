"""How much memory a trial takes, worked out from its spec before it runs.

Counted are the images, the frozen weights, what is trained and remembered, and the activations of a step; `STARTED`
stands for the rest. perf/README.md compares it with what trials took.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from crwn.data import BASE_SETS
from crwn.spec import TrialSpec

DeviceKind: TypeAlias = Literal["cpu", "cuda"]

STARTED = 640 * 2**20
"""Of a process that has loaded torch and computed something, in bytes."""
COPIES_OF_IMAGES = 3
"""Of a base set that is held in memory: as read, as tensors, and as a task's test images and what makes them."""
TASKS_BEING_MADE = 1
"""Whose images are in memory beside those of the tasks that are learned."""
COPIES_OF_FROZEN = 3
"""As drawn, and laid out for the product of each direction."""
STARTED_ON_GPU = 640 * 2**20
"""The same of a GPU's memory: the context and the libraries' workspaces. An estimate: no GPU was at hand."""
GROUP_SHARE = 0.125
"""Of a device's memory, for the tasks learned together; trials may share the device."""
GROUP_SHARE_OF_OWN = 0.8
"""The same of what a trial may take of it."""
STATE_OF_TRAINED = 4
"""Of a number that is trained: itself, its gradient, two numbers of the optimiser."""
COPIES_OF_ACTIVATIONS = 1.25
"""Some have their gradient beside them."""


def predicted_bytes(spec: TrialSpec, group_size: int, device: DeviceKind = "cpu") -> int:
    """Peak memory of a new process that runs a trial and learns so many tasks at once; a tenth more or less on a CPU.

    On a GPU, of the GPU's memory.
    """
    return (STARTED_ON_GPU if device == "cuda" else STARTED) + needed_bytes(spec, group_size, device)


def predicted_peak(spec: TrialSpec, group_size: int, device: DeviceKind, held: int) -> int:
    """The peak that is measured (`crwn.trial.peak_memory`) of a process that held something when the trial began.

    Too much by what the trial uses again of it: the same images, memory that an earlier trial freed and the process
    kept. On a GPU only what torch allocates is measured, without the context.

    Args:
        spec: the trial.
        group_size: tasks that are learned at once.
        device: that the trial computes on.
        held: in bytes, measured on the same device: more than `STARTED` in a process that ran other trials before.
    """
    return (held if device == "cuda" else max(STARTED, held)) + needed_bytes(spec, group_size, device)


def needed_bytes(spec: TrialSpec, group_size: int, device: DeviceKind) -> int:
    """What a trial adds to a process that has started: images, frozen weights, and the tasks learned at once."""
    base, frozen = BASE_SETS[spec.benchmark.base], spec.blueprint().backbone.num_bytes
    images = 0 if base.is_mapped else (base.num_train + base.num_test) * math.prod(base.image_shape)
    group = group_bytes(spec, group_size) + memory_bytes(spec)
    if device == "cuda":  # images and frozen weights are there once, as tensors
        return images + frozen + group
    return COPIES_OF_IMAGES * images + COPIES_OF_FROZEN * frozen + group


def tasks_that_fit(spec: TrialSpec, memory: int, share: float = 1.0) -> int:
    """How many tasks may be learned at once, by the memory they need; at least one, at most all.

    Args:
        spec: the trial.
        memory: of the device, in bytes.
        share: of it, that the trial may take.
    """
    allowed = memory * min(GROUP_SHARE, share * GROUP_SHARE_OF_OWN)
    beside = group_bytes(spec, 0)
    return min(spec.benchmark.problem().num_tasks, max(1, int((allowed - beside) / (group_bytes(spec, 1) - beside))))


def group_bytes(spec: TrialSpec, group_size: int) -> int:
    """What tasks that are learned at once need of it: their images, their own numbers, and a step's activations."""
    blueprint, problem = spec.blueprint(), spec.benchmark.problem()
    # A stream is opened as one; else the largest segment counts for each.
    sizes = [problem.num_train] if problem.is_stream else problem.segment_sizes
    images = max(sizes, default=BASE_SETS[spec.benchmark.base].num_train) * problem.input_size
    activations = (
        COPIES_OF_ACTIVATIONS * blueprint.examples_per_update(spec.training.batch_size) * blueprint.activations
    )
    numbers = STATE_OF_TRAINED * blueprint.trained_per_task + activations
    return math.ceil((group_size + TASKS_BEING_MADE) * images + group_size * _bytes_each(spec) * numbers)


def memory_bytes(spec: TrialSpec) -> int:
    """What a method keeps to learn later tasks by: images of a buffer as bytes, and numbers."""
    blueprint = spec.blueprint()
    images = blueprint.examples_kept * spec.benchmark.problem().input_size
    return images + blueprint.stored_memory * _bytes_each(spec)


def _bytes_each(spec: TrialSpec) -> int:
    return 8 if spec.training.dtype == "float64" else 4
