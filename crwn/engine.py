"""The training loop: groups of tasks, batches, evaluation, events, resume points.

The engine is a generator. Whoever drives it decides what becomes of its events and may stop at any of them; all state
that the rest of the trial depends on is in the latest `ResumePoint`, and going on from one computes the same bits.

Shapes: G tasks learned together, B examples a task, N training examples a task, d numbers an image, m classes. Where a
benchmark's images keep their shape, [..., d] is [..., C, H, W].
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch.nn import functional

from crwn import seeding, tensorfile
from crwn.benchmarks.augmentation import Augmentation
from crwn.benchmarks.protocol import Curriculum, Split
from crwn.methods.protocol import Method, Tensors, is_statistic
from crwn.nn.kernels import KernelName
from crwn.optimizers import OPTIMIZERS, Optimizer
from crwn.spec import Blueprint, TrainingSpec, check_group_size

RESUME_FORMAT = 6
CURVE_EVERY = 50
"""Training steps between two points of a learning curve."""
EVALUATION_BATCH = 500
PROGRESS_SECONDS = 0.5
MAX_RESUME_SECONDS = 60.0
MIN_RESUME_SECONDS = 2.0
RESUME_COST_FACTOR = 100
"""A resume point is due after a hundred times what the last one took: it costs about 1% of the time."""


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
        tasks_learned: after how many.
        accuracy: share of the test examples that were classified correctly.
        loss: mean cross-entropy on them, in nats.
        num_test: test examples.
        train_seconds: what learning the task took, its share of its group's time; None where it was only tested again.
        eval_seconds: what the test took.
        tested: when the test ended, in seconds since 1970.
        curve: of the training; empty where the task was only tested again.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a trial is.

    Attributes:
        tasks_learned: tasks learned and tested.
        num_tasks: of the benchmark.
        step: updates done in the current group.
        num_steps: updates a group.
        learning: tasks learned together in it.
        accuracy: mean test accuracy of the tasks tested so far; None before the first.
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


class ResumeError(ValueError):
    """A resume point cannot be used: it is damaged, of another trial, or of another version."""


def read_numerics(content: bytes) -> Numerics:
    """The numerics that a resume point was computed with.

    Raises:
        ResumeError: the point is damaged or of another version.
    """
    try:
        _, header = tensorfile.parse(content)
        if header["format"] != RESUME_FORMAT:
            raise ResumeError(f"expected a resume point of format {RESUME_FORMAT}, given {header['format']!r}")
        return Numerics(**header["numerics"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResumeError(f"the resume point cannot be read: {error}") from error


class Engine:
    """Learns and tests all tasks of one trial.

    Args:
        method: the learner.
        curriculum: the benchmark behind its gate.
        blueprint: what the method is: which tasks can be learned together, and when shared weights are trained.
        training: the trial's training settings.
        seed: the trial's seed, for the order of the examples.
        numerics: device, group size and so on.
        identity: what a resume point must have been made by: the trial's id and its backbone's fingerprint.
        clock: seconds, for timings and for when a resume point is due.

    Raises:
        ValueError: the numerics ask for groups that the method cannot learn.
    """

    def __init__(
        self,
        *,
        method: Method,
        curriculum: Curriculum,
        blueprint: Blueprint,
        training: TrainingSpec,
        seed: int,
        numerics: Numerics,
        identity: tuple[str, str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_group_size(numerics.group_size, blueprint, curriculum.num_tasks)
        self._method = method
        self._curriculum = curriculum
        self._blueprint = blueprint
        self._training = training
        self._seed = seed
        self._numerics = numerics
        self._identity = identity
        self._clock = clock
        self._device = torch.device(numerics.device)
        self._shared: Tensors = method.start_shared()
        self._kept: list[Tensors] = []
        self._rows: list[TaskRow] = []
        self._images = torch.empty(0)  # of tasks that are learned together
        self._groups: list[_Group] = []  # begun: the first is being learned, others wait since memory ran out
        self._resume_due = self._progress_due = clock()
        self._resume_cost = 0.0

    def run(self, resume_from: bytes | None = None) -> Iterator[EngineEvent]:
        """Learn the tasks that are left, test every task again, and report; first of all where it goes on from.

        Args:
            resume_from: the content of a `ResumePoint` of the same trial.

        Raises:
            ResumeError: `resume_from` is damaged or of another trial.
            FloatingPointError: a loss is no longer a finite number.
        """
        if resume_from is not None:
            self._restore(resume_from)
        yield self.progress()
        self._resume_due = self._clock() + MIN_RESUME_SECONDS
        yield from self._test_again()  # what an interruption left
        while len(self._kept) < self._curriculum.num_tasks:
            yield from self._learn_group()
            yield from self._due_events()
            yield from self._test_again()
        shared = self._shared if self._blueprint.shared_training != "never" else {}
        yield Learned(kept=tuple(self._kept), shared=shared, rows=tuple(self._rows))

    def _test_again(self) -> Iterator[EngineEvent]:
        """Test the tasks learned earlier: after every task where learning one can change them, else at the end."""
        learned = len(self._kept)
        if learned == self._curriculum.num_tasks or not self._blueprint.is_independent:
            tested = {row.task for row in self._rows if row.tasks_learned == learned}
            for task in range(learned):
                if task not in tested:
                    self._rows.append(self._test(task, tasks_learned=learned))
                    yield from self._due_events()

    def _learn_group(self) -> Iterator[EngineEvent]:
        """Learn the next group of tasks, or the rest of one that was begun, and test each of its tasks.

        Where memory runs out, the group is halved instead, and comes back.
        """
        tasks = self._groups[0].tasks if self._groups else self._next_tasks()
        try:
            if not self._groups:
                self._groups = [self._start_group(tasks)]
            group = self._groups[0]
            with self._batches(group) as batches:
                batches.seek(group.step)
                while group.step < self._num_steps:
                    with self._timed(group), group.statistics_kept_on_error():
                        rate = self._rate_at(group, batches.per_epoch)
                        self._train_step(group, *next(batches), rate=rate)
                    yield from self._due_events()
        except (RuntimeError, MemoryError) as error:
            if len(tasks) == 1 or self._blueprint.grouping != "any" or not is_out_of_memory(error):
                raise
            text = str(error)
        else:
            self._close_group(group)
            self._groups.pop(0)
            return
        # Outside of the handler, where the error no longer holds on to what did not fit.
        yield self._halve(len(tasks) // 2, text)

    def _halve(self, group_size: int, error: str) -> GroupHalved:
        """Go on with smaller groups; a half that was learning goes on from the update it had done."""
        self._images = torch.empty(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._numerics = dataclasses.replace(self._numerics, group_size=group_size)
        step = self._groups[0].step if self._groups else 0
        self._groups = [
            self._part_of(group, slice(first, first + group_size))
            for group in self._groups
            for first in range(0, len(group.tasks), group_size)
        ]
        return GroupHalved(group_size=group_size, step=step, error=error)

    @torch.no_grad()
    def _part_of(self, whole: _Group, part: slice) -> _Group:
        """Some of a group's tasks as a group of their own, where the whole was."""
        group = self._start_group(whole.tasks[part])
        for name, tensor in group.changing.items():
            tensor.copy_(whole.changing[name][part])
        for name, state in group.optimizer.state.items():
            before = whole.optimizer.state[name]
            state.copy_(before[part] if before.dim() else before)  # a count of steps is everybody's
        group.block_loss_G.copy_(whole.block_loss_G[part])
        group.block_correct_G.copy_(whole.block_correct_G[part])
        group.curves = whole.curves[part]
        group.step, group.block_examples = whole.step, whole.block_examples
        group.train_seconds = whole.train_seconds * len(group.tasks) / len(whole.tasks)
        return group

    @property
    def numerics(self) -> Numerics:
        """As given, but for a group size that memory did not allow."""
        return self._numerics

    def _next_tasks(self) -> range:
        first, end = len(self._kept), self._curriculum.num_tasks
        size = 1 if first == 0 and self._blueprint.shared_training == "first task" else self._numerics.group_size
        return range(first, min(first + size, end))

    def _start_group(self, tasks: Sequence[int]) -> _Group:
        """The tasks' own state, and beside it the shared weights where these tasks train them."""
        when = self._blueprint.shared_training
        trains_shared = when == "always" or (when == "first task" and 0 in tasks)
        own = self._method.start(tasks)
        trained = {name: tensor for name, tensor in own.items() if tensor.requires_grad}
        if trains_shared:
            trained = {**self._shared, **trained}
        trained = {name: _copied(tensor).requires_grad_() for name, tensor in trained.items()}
        num_losses = 1 if self._blueprint.grouping == "all" else len(tasks)
        zeros_G = torch.zeros(num_losses, dtype=torch.float64, device=self._device)
        return _Group(
            tasks=tuple(tasks),
            untrained={name: tensor for name, tensor in own.items() if not tensor.requires_grad},
            trained=trained,
            optimizer=OPTIMIZERS[self._training.optimizer](trained, self._training.weight_decay, 0.0),
            block_loss_G=zeros_G,
            block_correct_G=zeros_G.clone(),
            curves=[[] for _ in range(num_losses)],
        )

    @property
    def _num_steps(self) -> int:
        """Updates of a group: as many as of one task, or of all where they are mixed."""
        is_mixed = self._blueprint.grouping == "all"
        return self._training.updates_per_task * (self._curriculum.num_tasks if is_mixed else 1)

    def _rate(self, tasks: Sequence[int]) -> float:
        first_rate = self._blueprint.first_task_rate
        return first_rate if first_rate is not None and 0 in tasks else self._training.learning_rate

    def _rate_at(self, group: _Group, steps_per_epoch: int) -> float:
        """The learning rate of the group's next step: constant, or as torch's CosineAnnealingLR gives it by epoch."""
        rate = self._rate(group.tasks)
        if self._training.schedule == "constant":
            return rate
        done = group.step // steps_per_epoch / math.ceil(self._num_steps / steps_per_epoch)
        return rate * (1 + math.cos(math.pi * done)) / 2

    @contextmanager
    def _batches(self, group: _Group) -> Iterator[_Batches]:
        """The group's batches: [G, B] examples, each task's own; or [1, B], mixed over all tasks learned at once."""
        if self._blueprint.grouping == "all":
            with self._curriculum.learning_together(group.tasks) as mixture:
                yield self._endless(mixture.take, mixture.num_examples, ["mixed"])
        else:
            with self._curriculum.learning(group.tasks) as splits:
                together = self._laid_end_to_end(group, splits)
                yield self._endless(together.take, together.num_examples // len(group.tasks), group.tasks)

    def _laid_end_to_end(self, group: _Group, splits: Iterator[Split]) -> Split:
        """The group's training examples as one set, each task's as many, after those of the task before.

        In the memory of the group before, where it fits: on a CPU fresh memory costs far more than the copy into it.
        """
        if len(group.tasks) == 1:
            return self._to_learn(group, 0, next(splits))
        # No name holds a split, so that there is one beside the set, not two.
        labels = [self._lay(group, place, next(splits)) for place in range(len(group.tasks))]
        return Split(images=self._images.flatten(0, 1), labels=torch.cat(labels))

    def _lay(self, group: _Group, place: int, split: Split) -> torch.Tensor:
        """Put a task's examples to their place in the group's set; returns the labels."""
        split = self._to_learn(group, place, split)
        shape = (len(group.tasks), *split.images.shape)
        if place == 0 and self._images.shape != shape:
            self._images = torch.empty(0)  # gone before there is another
            self._images = split.images.new_empty(shape)
        if self._images.shape != shape:
            sizes = sorted([self._images.shape[1], split.num_examples])
            raise ValueError(f"tasks learned together: expected equally many training examples, given {sizes}")
        with self._timed(group):
            self._images[place] = split.images
        return split.labels

    def _to_learn(self, group: _Group, place: int, split: Split) -> Split:
        """What a method computes of a task's images beforehand, which is part of learning."""
        if self._curriculum.augmentation is not None:
            return split
        with self._timed(group):
            return self._prepared(group.tasks[place], split)

    def _prepared(self, task: int, split: Split) -> Split:
        with torch.no_grad():
            return Split(images=self._method.prepare(task, split.images), labels=split.labels)

    def _endless(self, take: Callable[[torch.Tensor], Split], num_each: int, streams: Sequence[int | str]) -> _Batches:
        return _Batches(
            take=take,
            num_each=num_each,
            streams=streams,
            seed=self._seed,
            batch_size=self._training.batch_size,
            device=self._device,
            augmentation=self._curriculum.augmentation,
        )

    def _close_group(self, group: _Group) -> None:
        """Keep what was learned, and test each of the group's tasks."""
        with self._timed(group), torch.no_grad():
            learned = {name: tensor.detach().clone() for name, tensor in group.state.items()}
            self._shared = {name: learned.pop(name, tensor) for name, tensor in self._shared.items()}
            packed = self._method.pack(learned)
        for index, task in enumerate(group.tasks):
            self._kept.append({name: tensor[index : index + 1].clone() for name, tensor in packed.items()})
            learned_by_then = len(group.tasks) if self._blueprint.grouping == "all" else task + 1
            row = self._test(task, tasks_learned=learned_by_then)
            train_seconds = group.train_seconds / len(group.tasks)
            # Mixed tasks have one curve together, which stands with the first of them.
            curve = tuple(group.curves[index]) if index < len(group.curves) else ()
            self._rows.append(dataclasses.replace(row, train_seconds=train_seconds, curve=curve))

    def _train_step(self, group: _Group, images_GBd: torch.Tensor, labels_GB: torch.Tensor, *, rate: float) -> None:
        batch_size = labels_GB.shape[1]
        if self._curriculum.augmentation is not None and self._blueprint.grouping != "all":
            with torch.no_grad():  # of images that are never the same twice, every batch is prepared on its own
                pairs = zip(group.tasks, images_GBd, strict=True)
                images_GBd = torch.stack([self._method.prepare(task, images_Bd) for task, images_Bd in pairs])
        state = {**self._shared, **group.state}
        logits_GBm = self._method.logits(state, images_GBd, training=True)
        logits_GmB = _by_class(logits_GBm)
        loss_G = functional.cross_entropy(logits_GmB, labels_GB, reduction="none").mean(dim=1)
        # Each task's gradient is that of its own loss.
        gradients = torch.autograd.grad(loss_G, list(group.trained.values()), torch.ones_like(loss_G))
        group.optimizer.step(dict(zip(group.trained, gradients, strict=True)), rate)
        group.step += 1
        with torch.no_grad():
            group.block_loss_G.add_(loss_G, alpha=batch_size)
            group.block_correct_G += (logits_GBm.argmax(dim=2) == labels_GB).sum(dim=1)
            group.block_examples += batch_size
        if group.step % CURVE_EVERY == 0 or group.step == self._num_steps:
            self._close_block(group)

    def _close_block(self, group: _Group) -> None:
        """Add a point to the learning curves; the only place where training waits for the device."""
        losses = (group.block_loss_G / group.block_examples).tolist()
        accuracies = (group.block_correct_G / group.block_examples).tolist()
        now = time.time()
        first_tasks = group.tasks[: len(group.curves)]  # all of them, or the first for all that are mixed
        for task, curve, loss, accuracy in zip(first_tasks, group.curves, losses, accuracies, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(task, f"training loss is {loss} after {group.step} updates")
            curve.append(CurvePoint(step=group.step, loss=loss, accuracy=accuracy, time=now))
        group.block_loss_G.zero_()
        group.block_correct_G.zero_()
        group.block_examples = 0

    @torch.no_grad()
    def _test(self, task: int, *, tasks_learned: int) -> TaskRow:
        started = self._clock()
        split = self._prepared(task, self._curriculum.test_split(task))
        batch_size = EVALUATION_BATCH
        if self._blueprint.tests_by_batch:
            order_N = seeding.numpy_generator(self._seed, "test batches", task).permutation(len(split.labels))
            split = split.take(torch.from_numpy(order_N).to(self._device))
            batch_size = self._training.batch_size
        kept = {name: tensor.to(self._device) for name, tensor in self._kept[task].items()}
        state = {**self._shared, **self._method.unpack(kept, [task])}
        num_test = len(split.labels)
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        num_correct = torch.zeros((), dtype=torch.int64, device=self._device)
        for images_Bd, labels_B in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
            logits_1Bm = self._method.logits(state, images_Bd[None])
            loss += functional.cross_entropy(_by_class(logits_1Bm), labels_B[None], reduction="sum")
            num_correct += (logits_1Bm.argmax(dim=2) == labels_B).sum()
        mean_loss = loss.item() / num_test
        if not math.isfinite(mean_loss):
            raise self._diverged(task, f"test loss is {mean_loss}")
        return TaskRow(
            task=task,
            tasks_learned=tasks_learned,
            accuracy=num_correct.item() / num_test,
            loss=mean_loss,
            num_test=num_test,
            train_seconds=None,
            eval_seconds=self._clock() - started,
            tested=time.time(),
            curve=(),
        )

    def _diverged(self, task: int, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"task {task}: the {what}; training diverged. Lower the learning rate, given {self._rate([task])}."
        )

    @contextmanager
    def _timed(self, group: _Group) -> Iterator[None]:
        started = self._clock()
        yield
        group.train_seconds += self._clock() - started

    def _due_events(self) -> Iterator[EngineEvent]:
        """A resume point and a progress report, each where it is due."""
        now = self._clock()
        if now >= self._resume_due:
            content = self._snapshot()
            curves = {
                task: curve for group in self._groups for task, curve in zip(group.tasks, group.curves, strict=False)
            }
            yield ResumePoint(
                content=content,
                progress=self.progress(),
                rows=tuple(self._rows),
                curves={task: tuple(curve) for task, curve in curves.items()},
            )
            self._resume_cost = self._clock() - now
            wait = min(max(RESUME_COST_FACTOR * self._resume_cost, MIN_RESUME_SECONDS), MAX_RESUME_SECONDS)
            self._resume_due = self._clock() + wait
        if now >= self._progress_due:
            self._progress_due = now + PROGRESS_SECONDS
            yield self.progress()

    def progress(self) -> Progress:
        """Where the trial is."""
        tested = {row.task: row.accuracy for row in self._rows}
        return Progress(
            tasks_learned=len(self._kept),
            num_tasks=self._curriculum.num_tasks,
            step=self._groups[0].step if self._groups else 0,
            num_steps=self._num_steps,
            accuracy=sum(tested.values()) / len(tested) if tested else None,
            learning=len(self._groups[0].tasks) if self._groups else 1,
        )

    def _snapshot(self) -> bytes:
        """All state as tensors and JSON. The random streams follow from the seed, the tasks and the step."""
        tensors = {f"kept.{task}.{name}": t for task, kept in enumerate(self._kept) for name, t in kept.items()}
        if self._blueprint.shared_training != "never":
            tensors |= {f"shared.{name}": tensor for name, tensor in self._shared.items()}
        header: dict[str, Any] = {
            "content": "resume point",
            "format": RESUME_FORMAT,
            "identity": self._identity,
            "numerics": dataclasses.asdict(self._numerics),
            "rows": [dataclasses.asdict(row) for row in self._rows],
            "groups": [],
        }
        for number, group in enumerate(self._groups):
            # Constants of the tasks are drawn again.
            tensors |= {f"{number}.state.{name}": tensor for name, tensor in group.changing.items()}
            tensors |= {f"{number}.optimizer.{name}": tensor for name, tensor in group.optimizer.state.items()}
            tensors |= {f"{number}.block.loss": group.block_loss_G, f"{number}.block.correct": group.block_correct_G}
            header["groups"].append(
                {
                    "tasks": group.tasks,
                    "step": group.step,
                    "block_examples": group.block_examples,
                    "train_seconds": group.train_seconds,
                    "curves": [[dataclasses.asdict(point) for point in curve] for curve in group.curves],
                }
            )
        return tensorfile.dump(tensors, header)

    def _restore(self, content: bytes) -> None:
        try:
            tensors, header = tensorfile.parse(content)
            if tuple(header["identity"]) != self._identity:
                raise ResumeError(f"it was made by {header['identity']}, expected {list(self._identity)}")
            self._rows = [_row(values) for values in header["rows"]]
            # A task is kept from the moment its row is there; later rows are the final tests.
            num_kept = len({row.task for row in self._rows})
            self._kept = [_below(tensors, f"kept.{task}.") for task in range(num_kept)]
            if self._blueprint.shared_training != "never":
                kept = _below(tensors, "shared.")
                self._shared = {name: kept[name].to(tensor.device) for name, tensor in self._shared.items()}
            self._groups = [
                self._restore_group(_below(tensors, f"{number}."), values)
                for number, values in enumerate(header["groups"])
            ]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ResumeError(f"the resume point cannot be used: {error}") from error

    def _restore_group(self, tensors: Tensors, header: dict[str, Any]) -> _Group:
        group = self._start_group(header["tasks"])
        with torch.no_grad():
            for name, tensor in group.changing.items():
                tensor.copy_(tensors[f"state.{name}"])
            for name, tensor in group.optimizer.state.items():
                tensor.copy_(tensors[f"optimizer.{name}"])
        group.block_loss_G.copy_(tensors["block.loss"])
        group.block_correct_G.copy_(tensors["block.correct"])
        group.step = header["step"]
        group.block_examples = header["block_examples"]
        group.train_seconds = header["train_seconds"]
        group.curves = [[CurvePoint(**point) for point in curve] for curve in header["curves"]]
        return group


@dataclass(slots=True, kw_only=True)
class _Group:
    """The tasks being learned, and all that changes while they are."""

    tasks: tuple[int, ...]
    untrained: Tensors
    trained: Tensors
    optimizer: Optimizer
    block_loss_G: torch.Tensor
    block_correct_G: torch.Tensor
    curves: list[list[CurvePoint]]
    step: int = 0
    block_examples: int = 0
    train_seconds: float = 0.0

    @property
    def state(self) -> Tensors:
        """What the method computes with: what is trained, and the rest."""
        return {**self.untrained, **self.trained}

    @property
    def statistics(self) -> Tensors:
        """Running statistics, which a forward pass moves."""
        return {name: tensor for name, tensor in self.untrained.items() if is_statistic(name)}

    @property
    def changing(self) -> Tensors:
        """What learning changes: what is trained, and running statistics; the rest are constants of the tasks."""
        return {**self.statistics, **self.trained}

    @contextmanager
    def statistics_kept_on_error(self) -> Iterator[None]:
        """A step that fails half-way, as memory runs out, leaves the statistics where they were: it is done again."""
        before = {name: tensor.clone() for name, tensor in self.statistics.items()}
        try:
            yield
        except (RuntimeError, MemoryError):
            for name, tensor in self.statistics.items():
                tensor.copy_(before[name])
            raise


class _Batches:
    """Endless batches [G, B, ...] and labels [G, B]; every epoch in an order of its own for each of G streams.

    The order, and how examples are changed, are drawn from (seed, stream, epoch): a batch is known from its number.

    Args:
        take: gives examples by number; a stream's are its `num_each` after those of the streams before it.
        num_each: examples of a stream.
        streams: their names: the tasks, or one for a mixture.
        seed: the trial's.
        batch_size: B; the short last batch of an epoch is kept.
        device: where the examples are.
        augmentation: how examples are changed at random, if they are.

    Attributes:
        per_epoch: batches.
    """

    def __init__(
        self,
        *,
        take: Callable[[torch.Tensor], Split],
        num_each: int,
        streams: Sequence[int | str],
        seed: int,
        batch_size: int,
        device: torch.device,
        augmentation: Augmentation | None,
    ) -> None:
        self._device = device
        self._augmentation = augmentation
        self._take = take
        self._num_each = num_each
        self._streams = streams
        self._seed = seed
        self._batch_size = batch_size
        self.per_epoch = math.ceil(num_each / batch_size)
        self._order_GN = torch.empty(0)
        self._draws_GN3 = torch.empty(0)
        self._epoch = -1
        self._step = 0

    def seek(self, step: int) -> None:
        """Make `step`, counted from 0, the next batch."""
        self._step = step

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, batch = divmod(self._step, self.per_epoch)
        if epoch != self._epoch:
            self._order_GN = self._draw_order(epoch)
            if self._augmentation is not None:
                self._draws_GN3 = self._draw_changes(self._augmentation, epoch)
            self._epoch = epoch
        self._step += 1
        places = slice(batch * self._batch_size, (batch + 1) * self._batch_size)
        chosen_GB = self._order_GN[:, places]
        examples = self._take(chosen_GB.reshape(-1))
        images = examples.images
        if self._augmentation is not None:
            images = self._augmentation(images, self._draws_GN3[:, places].flatten(0, 1))
        return images.unflatten(0, chosen_GB.shape), examples.labels.view(chosen_GB.shape)

    def _draw_order(self, epoch: int) -> torch.Tensor:
        """[G, N] numbers of examples."""
        orders = [
            torch.from_numpy(seeding.numpy_generator(self._seed, "batches", stream, epoch).permutation(self._num_each))
            + index * self._num_each
            for index, stream in enumerate(self._streams)
        ]
        return torch.stack(orders).to(self._device)

    def _draw_changes(self, augmentation: Augmentation, epoch: int) -> torch.Tensor:
        """[G, N, 3] draws of the augmentation."""
        generators = [seeding.numpy_generator(self._seed, "augment", stream, epoch) for stream in self._streams]
        draws = [torch.from_numpy(augmentation.draw(generator, self._num_each)) for generator in generators]
        return torch.stack(draws).to(self._device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator had no memory left: a GPU's, or that of the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _by_class(logits_GBm: torch.Tensor) -> torch.Tensor:
    """[G, m, B] in at least single precision: over few classes, the softmax is several times faster so."""
    return logits_GBm.to(torch.promote_types(logits_GBm.dtype, torch.float32)).mT.contiguous()


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _row(values: dict[str, Any]) -> TaskRow:
    return TaskRow(**{**values, "curve": tuple(CurvePoint(**point) for point in values["curve"])})
