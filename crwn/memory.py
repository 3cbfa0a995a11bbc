"""How much memory a trial takes, worked out from its spec before it runs.

Counted are the images, the frozen weights, what is trained and the activations of a step; `STARTED` stands for the
rest. perf/README.md compares it with what trials took.
"""

from __future__ import annotations

import math

from crwn.data import BASE_SETS
from crwn.spec import TrialSpec

STARTED = 640 * 2**20
"""Of a process that has loaded torch and computed something, in bytes."""
COPIES_OF_IMAGES = 3
"""Of a base set that is held in memory: as read, as tensors, and as a task's test images and what makes them."""
COPIES_OF_TASK_IMAGES = 2
"""Each task's, and those learned together laid end to end."""
COPIES_OF_FROZEN = 3
"""As drawn, and laid out for the product of each direction."""
STATE_OF_TRAINED = 5
"""Of a number that is trained: itself, its gradient as it comes and as it is laid out, two numbers of the optimiser."""
COPIES_OF_ACTIVATIONS = 1.25
"""Some have their gradient beside them."""


def predicted_bytes(spec: TrialSpec, group_size: int) -> int:
    """Peak memory of a process that runs a trial and learns so many tasks at once; a tenth more or less."""
    base = BASE_SETS[spec.benchmark.base]
    held = 0 if base.is_mapped else COPIES_OF_IMAGES * (base.num_train + base.num_test) * math.prod(base.image_shape)
    frozen = COPIES_OF_FROZEN * spec.blueprint().backbone.num_bytes
    return STARTED + held + frozen + group_bytes(spec, group_size)


def group_bytes(spec: TrialSpec, group_size: int) -> int:
    """What tasks that are learned at once need of it: their images, their own numbers, and a step's activations."""
    blueprint, problem = spec.blueprint(), spec.benchmark.problem()
    # A task shows all training images, or those of its own classes.
    share = 1 if problem.labels_are_shared else 1 / problem.num_tasks
    images = COPIES_OF_TASK_IMAGES * share * BASE_SETS[spec.benchmark.base].num_train * problem.input_size
    activations = COPIES_OF_ACTIVATIONS * spec.training.batch_size * blueprint.activations
    numbers = STATE_OF_TRAINED * blueprint.trained_per_task + activations
    return math.ceil(group_size * (images + _bytes_each(spec) * numbers))


def _bytes_each(spec: TrialSpec) -> int:
    return 8 if spec.training.dtype == "float64" else 4
