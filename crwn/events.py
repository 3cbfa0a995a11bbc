"""Events that a trial emits while it runs: its progress, tests, resume points and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from crwn.methods.protocol import Tensors
from crwn.nn.kernels import KernelName


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """What the last bits of a result depend on besides the spec; decided when a trial first starts, then kept.

    Attributes:
        device: the kind of processor.
        group_size: number of tasks learned at once.
        kernel: how products with frozen weights are computed.
        threads: number of CPU threads.
    """

    device: Literal["cpu", "cuda"]
    group_size: int
    kernel: KernelName
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The mean training loss and accuracy over the steps since the last point.

    Attributes:
        step: the last of these steps, counted from 1.
        loss: mean loss in nats.
        accuracy: mean accuracy in [0, 1].
        time: when it was computed, in seconds since 1970.
    """

    step: int
    loss: float
    accuracy: float
    time: float = field(compare=False)  # equal trials have equal curves, but at different times


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One test of one task.

    Attributes:
        task: the task tested.
        tasks_learned: number of tasks learned before the test; for a stream, segments seen completely.
        accuracy: share of the test examples classified correctly; in the scenario `class`, among all classes seen so
            far.
        loss: mean cross-entropy on the test examples, in nats.
        num_test: number of test examples.
        train_seconds: time to learn the task, its share of its group's time; None if it was only tested again.
        eval_seconds: time of the test.
        tested: when the test ended, in seconds since 1970.
        curve: the training curve; empty if the task was only tested again.
        update: number of updates before the test, for a stream; else None.
        answered: how often each class was predicted; None in the scenario `task`.
        accuracy_told: accuracy among the task's own classes alone, as if the task were told; None except in the
            scenario `class`.
    """

    task: int
    tasks_learned: int
    accuracy: float
    loss: float
    num_test: int
    train_seconds: float | None
    eval_seconds: float
    tested: float
    curve: tuple[CurvePoint, ...]
    update: int | None = None
    answered: tuple[int, ...] | None = None
    accuracy_told: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a trial.

    Attributes:
        tasks_learned: number of tasks, or segments of a stream, learned and tested.
        num_tasks: number of tasks of the benchmark.
        step: updates done in the current group.
        num_steps: updates of the current group in total.
        learning: number of tasks in the current group.
        accuracy: mean test accuracy of the tasks learned so far; None before the first.
    """

    tasks_learned: int
    num_tasks: int
    step: int
    num_steps: int
    accuracy: float | None
    learning: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """Everything needed to resume the trial from here.

    Attributes:
        content: tensors, positions of the random streams, results so far.
        progress: the trial's progress.
        rows: the tests so far.
        curves: the curves of the tasks being learned, by task.
    """

    content: bytes
    progress: Progress
    rows: tuple[TaskRow, ...]
    curves: Mapping[int, tuple[CurvePoint, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """All tasks are learned.

    Attributes:
        kept: the tensors kept for every task, each with a task axis of length 1.
        shared: the weights that all tasks share, if they were trained.
        activity: the units' activity by class, if the method shows any.
        rows: all tests, including the last row of the accuracy matrix.
    """

    kept: tuple[Tensors, ...]
    shared: Tensors
    activity: Tensors
    rows: tuple[TaskRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHalved:
    """Memory ran out, so the group was split in halves, which continue from their current state without recomputing.

    Attributes:
        group_size: number of tasks learned at once from now on.
        step: number of updates that the group had done.
        error: the allocator's message.
    """

    group_size: int
    step: int
    error: str


EngineEvent: TypeAlias = Progress | ResumePoint | GroupHalved | Learned
