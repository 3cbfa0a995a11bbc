"""What a trial says of itself while it is learned: where it is, what was tested, what to go on from, what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from crwn.methods.protocol import Tensors
from crwn.nn.kernels import KernelName


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """What the last bits of a result depend on besides the spec; decided when a trial first starts, kept ever after.

    Attributes:
        device: the kind of processor.
        group_size: how many tasks are learned together.
        kernel: how products with frozen weights are computed.
        threads: CPU threads.
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
        loss: in nats.
        accuracy: in [0, 1].
        time: when it was computed, in seconds since 1970.
    """

    step: int
    loss: float
    accuracy: float
    time: float = field(compare=False)  # equal trials have equal curves, at other times


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One test of one task.

    Attributes:
        task: which task was tested.
        tasks_learned: after how many; of a stream, the segments that were seen whole.
        accuracy: share of the test examples that were classified correctly; where each task brings classes of its own,
            among all classes seen so far.
        loss: mean cross-entropy on them, in nats.
        num_test: test examples.
        train_seconds: what learning the task took, its share of its group's time; None where it was only tested again.
        eval_seconds: what the test took.
        tested: when the test ended, in seconds since 1970.
        curve: of the training; empty where the task was only tested again.
        update: of a stream, after how many updates; else None.
        answered: how often each class was the answer, in every scenario but `task`; None where the task is told.
        accuracy_told: the accuracy among the task's own classes alone, as if the task were told; None where tasks do
            not bring classes of their own.
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
    """Where a trial is.

    Attributes:
        tasks_learned: tasks, or segments of a stream, that are learned and tested.
        num_tasks: of the benchmark.
        step: updates done in the current group.
        num_steps: updates of the current group.
        learning: tasks learned together in it.
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
    """Everything needed to go on from here.

    Attributes:
        content: tensors, positions of the random streams, results so far.
        progress: where it is.
        rows: the tests so far.
        curves: of the tasks being learned, by task.
    """

    content: bytes
    progress: Progress
    rows: tuple[TaskRow, ...]
    curves: Mapping[int, tuple[CurvePoint, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The end.

    Attributes:
        kept: every task's kept tensors, each with a task axis of length 1.
        shared: the weights that all tasks share, where they were trained.
        rows: all tests, the last row of the accuracy matrix included.
    """

    kept: tuple[Tensors, ...]
    shared: Tensors
    rows: tuple[TaskRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHalved:
    """Memory ran out, and what was learned so far goes on in halves of the group; nothing is computed again.

    Attributes:
        group_size: how many tasks are learned together from now on.
        step: updates that the group had done.
        error: what the allocator said.
    """

    group_size: int
    step: int
    error: str


EngineEvent: TypeAlias = Progress | ResumePoint | GroupHalved | Learned
