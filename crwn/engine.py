"""The training loop: opens, learns, closes and tests segments, and emits events and resume points.

The engine is a generator. Its caller handles the events and may stop at any of them; the latest `ResumePoint` holds all
state that the rest of the trial depends on, and resuming from it computes the same bits.

Shapes: G tasks learned at once, B examples per task, N training examples per task, m classes.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch

from crwn import resume, seeding
from crwn.batches import Batch, Lanes, Table
from crwn.benchmarks.protocol import Curriculum, Mixture, Segment
from crwn.evaluation import Tester
from crwn.events import EngineEvent, GroupHalved, Learned, Numerics, Progress, ResumePoint, TaskRow
from crwn.faults import codes_of
from crwn.groups import Group
from crwn.methods.protocol import Method, Tensors
from crwn.schedule import Schedule
from crwn.spec import Blueprint, TrainingSpec, check_group_size

PROGRESS_SECONDS = 0.5
MAX_RESUME_SECONDS = 60.0
MIN_RESUME_SECONDS = 2.0
RESUME_COST_FACTOR = 100
"""The interval between resume points, as a multiple of the time that the last one took: they cost about 1%."""


class Engine:
    """Learns and tests all segments of one trial.

    Args:
        method: the learner.
        curriculum: controls access to the benchmark.
        blueprint: says which tasks can be learned at once, and when shared weights are trained.
        training: the trial's training settings.
        seed: the trial's seed, for the order of the examples.
        numerics: device, group size and so on.
        identity: the trial's id and its backbone's fingerprint, which a resume point must match.
        clock: returns the time in seconds, for timings and to schedule resume points.

    Raises:
        ValueError: the method cannot learn groups of the size in the numerics.
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
        shared = method.start_shared()
        self._moves_shared = blueprint.moves_shared != "never"
        self._trainable = [name for name, tensor in shared.items() if tensor.requires_grad]
        self._shared: Tensors = {name: tensor.detach() for name, tensor in shared.items()}
        self._memory = method.start_memory()
        self._learned = 0
        self._kept: list[Tensors] = []
        self._rows: list[TaskRow] = []
        self._schedule = Schedule(curriculum, blueprint, training)
        self._table = Table()
        self._tester = Tester(method, curriculum, blueprint, training, seed=seed, device=self._device, clock=clock)
        self._groups: list[Group] = []  # in progress: the first is learned now, others are pending since memory ran out
        self._resume_due = self._progress_due = clock()
        forked = functools.partial(seeding.forked, self._device, seed, "network")
        self._drawing = forked if blueprint.draws else lambda *_: nullcontext()  # hooks may draw within it

    @property
    def numerics(self) -> Numerics:
        """The numerics as given, except for the group size if memory ran out."""
        return self._numerics

    def run(self, resume_from: bytes | None = None) -> Iterator[EngineEvent]:
        """Learn the remaining segments and test every task; the first event is the progress at the start.

        Args:
            resume_from: the content of a `ResumePoint` of the same trial.

        Raises:
            ResumeError: `resume_from` is damaged, or belongs to another trial.
            FloatingPointError: a loss is no longer finite.
        """
        if resume_from is not None:
            self._restore(resume_from)
        yield self.progress()
        self._resume_due = self._clock() + MIN_RESUME_SECONDS
        yield from self._test_again()  # tests that an interruption left undone
        while self._learned < self._curriculum.num_segments:
            yield from self._learn_segment()
            yield from self._due_events()
            yield from self._test_again()
        shared = self._method.needed_to_predict(self._shared) if self._moves_shared else {}
        activity = self._tester.activity({**self._shared, **self._memory})
        yield Learned(kept=tuple(self._kept), shared=shared, activity=activity, rows=tuple(self._rows))

    def _learn_segment(self) -> Iterator[EngineEvent]:
        """Learn the next segment, or the rest of one in progress, and test its tasks.

        If memory runs out, split the segment in halves instead, to be learned by later calls.
        """
        segment = self._groups[0].segment if self._groups else self._next_segment()
        try:
            if not self._groups:
                self._groups = [self._start_group(segment)]
            group = self._groups[0]
            with self._curriculum.learning(group.segment) as lanes:
                yield from self._learn(group, self._lanes(group, lanes))
        except (RuntimeError, MemoryError) as error:
            if len(segment.lanes) == 1 or not is_out_of_memory(error):
                raise
            text = str(error)
        else:
            self._close(group)
            return
        # Outside the handler, the error no longer holds references to what did not fit.
        yield self._halve(len(segment.lanes) // 2, text)

    def _learn(self, group: Group, lanes: Lanes) -> Iterator[EngineEvent]:
        """Learn a segment: everything here is all that a method sees of its training data."""
        method, tells, rate = self._method, group.segment.tells_ends, self._rate(group)
        if tells and not group.begun:
            with self._timed(group), self._drawing("segment", group.segment.number):
                self._keep(group, method.begin(self._state(group), lanes.whole(), rate))
        group.begun = True
        while not group.is_learned:
            with self._timed(group):
                self._update_until_due(group, lanes, rate)
            self._test_stream(group)
            yield from self._due_events()
        if tells:
            with self._timed(group), self._drawing("segment", group.segment.number):
                self._keep(group, method.end(self._state(group), lanes.whole()))

    @torch.no_grad()
    def _update_until_due(self, group: Group, lanes: Lanes, rate: float) -> None:
        """Make updates until all are done, or events or tests in the middle of a stream may be due."""
        due, test_every = min(self._resume_due, self._progress_due), self._curriculum.test_every
        while not group.is_learned:
            rate_now = self._schedule.rate(rate, group.step, group.num_steps, lanes.per_epoch)
            self._update(group, lanes.batch(group.step, rate=rate_now))
            if self._clock() >= due or (test_every and group.step % test_every == 0):
                return

    def _update(self, group: Group, batch: Batch) -> None:
        """Make one update: the method's step, each task's gradient of its own loss, and the optimiser's step."""
        method, state = self._method, self._state(group)
        with self._drawing("update", batch.update):
            with torch.set_grad_enabled(not method.learns_by_hand):
                step = method.learn(state, batch)
                gradients = step.gradients(group.trained)
            gradients, adjusted = method.adjust(state, batch, gradients)
        group.optimizer.step(gradients, batch.rate)
        self._keep(group, {**step.moved, **adjusted})
        group.note(step, batch.labels, rate=self._rate(group))

    def _state(self, group: Group) -> Tensors:
        return {**self._shared, **self._memory, **group.own, **group.trained}

    def _keep(self, group: Group, moved: Mapping[str, torch.Tensor]) -> None:
        """Replace old values of state or memory by new ones."""
        for name, tensor in moved.items():
            if name in self._memory:
                self._memory[name] = tensor
            elif name in group.trained:
                group.trained[name].detach().copy_(tensor)
            elif name in group.own:
                group.own[name] = tensor
                group.moving.add(name)
            else:
                assert name in self._shared, f"{name}: the method moved what it did not start"
                self._shared[name] = tensor

    def _next_segment(self) -> Segment:
        return self._schedule.next_segment(self._learned, self._numerics.group_size)

    def _start_group(self, segment: Segment) -> Group:
        """A new group: the lanes' own state, and the shared weights if this segment trains them."""
        trains_shared = self._schedule.trains_shared(segment)
        return Group.start(
            segment,
            self._schedule.num_steps(segment),
            own=self._method.start(segment.tasks) if segment.tells_tasks else {},
            shared={name: self._shared[name] for name in self._trainable} if trains_shared else {},
            training=self._training,
            device=self._device,
        )

    def _rate(self, group: Group) -> float:
        return self._method.rate(group.segment.number, self._training.learning_rate)

    def _lanes(self, group: Group, mixtures: Iterator[Mixture]) -> Lanes:
        return self._table.lay(
            group.segment,
            mixtures,
            curriculum=self._curriculum,
            prepare=self._method.prepare,
            seed=self._seed,
            batch_size=self._training.batch_size,
            before=self._schedule.before(group.segment),
            timed=lambda: self._timed(group),
        )

    def _close(self, group: Group) -> None:
        """Keep what a finished segment learned, and test its tasks."""
        segment = group.segment
        with self._timed(group), torch.no_grad():
            learned = {name: tensor.detach().clone() for name, tensor in (group.own | group.trained).items()}
            self._shared = {name: learned.pop(name, tensor) for name, tensor in self._shared.items()}
            packed = self._method.pack(learned) if segment.tells_tasks else {}
        self._learned += len(segment.tasks)
        for index in range(len(segment.tasks)):
            self._kept.append({name: tensor[index : index + 1].clone() for name, tensor in packed.items()})
        self._groups.pop(0)
        curves, taught = self._schedule.curves_by_task([group]), self._schedule.tested_with(segment)
        for task, num_learned in taught:
            row = self._test(task, tasks_learned=num_learned, update=self._schedule.update_of(num_learned))
            train_seconds = group.train_seconds / len(taught)
            self._rows.append(dataclasses.replace(row, train_seconds=train_seconds, curve=curves.get(task, ())))

    def _halve(self, group_size: int, error: str) -> GroupHalved:
        """Continue with smaller groups; the halves of a group in progress continue from its current update."""
        self._table.clear()
        torch.cuda.empty_cache()  # nothing happens without a GPU
        self._numerics = dataclasses.replace(self._numerics, group_size=group_size)
        self._groups = [part for group in self._groups for part in self._parts(group, group_size)]
        return GroupHalved(group_size=group_size, step=self._groups[0].step if self._groups else 0, error=error)

    def _parts(self, group: Group, size: int) -> Iterator[Group]:
        for first in range(0, len(group.segment.lanes), size):
            lanes = slice(first, first + size)
            segment = self._schedule.segment(group.segment.tasks[lanes])
            yield group.part(lanes, segment, self._start_group(segment))

    def _test_again(self) -> Iterator[EngineEvent]:
        """Run the tests that are due after the tasks learned so far and have not been run."""
        tested = {row.task for row in self._rows if row.tasks_learned == self._learned}
        for task in self._schedule.tested_after(self._learned):
            if task not in tested:
                update = self._schedule.update_of(self._learned)
                self._rows.append(self._test(task, tasks_learned=self._learned, update=update))
                yield from self._due_events()

    def _test_stream(self, group: Group) -> None:
        """Test in the middle of a stream, if due; before any event, so that resume points include the tests."""
        every = self._curriculum.test_every
        if every == 0 or group.segment.shuffled or group.is_learned or group.step % every:
            return
        ended = self._curriculum.segments_within(group.step * self._training.batch_size)
        for task in range(self._curriculum.num_tasks):
            self._rows.append(self._test(task, tasks_learned=ended, update=group.step))

    def _test(self, task: int, *, tasks_learned: int, update: int | None = None) -> TaskRow:
        state = {**self._shared, **self._memory}
        if update is not None and self._groups:  # in the middle of a stream
            state |= {name: tensor.detach() for name, tensor in self._groups[0].trained.items()}
        return self._tester.test(task, state, self._kept, tasks_learned=tasks_learned, update=update)

    @contextmanager
    def _timed(self, group: Group) -> Iterator[None]:
        started = self._clock()
        yield
        group.train_seconds += self._clock() - started

    def _due_events(self) -> Iterator[EngineEvent]:
        """A resume point and a progress report, each only if due."""
        now = self._clock()
        if now >= self._resume_due:
            yield ResumePoint(
                content=self._snapshot(),
                progress=self.progress(),
                rows=tuple(self._rows),
                curves=self._schedule.curves_by_task(self._groups),
            )
            cost = self._clock() - now
            wait = min(max(RESUME_COST_FACTOR * cost, MIN_RESUME_SECONDS), MAX_RESUME_SECONDS)
            self._resume_due = self._clock() + wait
        if now >= self._progress_due:
            self._progress_due = now + PROGRESS_SECONDS
            yield self.progress()

    def progress(self) -> Progress:
        """The progress of the trial."""
        tested = {row.task: row.accuracy for row in self._rows if row.update or row.task < row.tasks_learned}
        group = self._groups[0] if self._groups else None
        segment = group.segment if group else self._next_segment()
        return Progress(
            tasks_learned=self._learned,
            num_tasks=self._curriculum.num_segments,
            step=group.step if group else 0,
            num_steps=self._schedule.num_steps(segment),
            accuracy=sum(tested.values()) / len(tested) if tested else None,
            learning=len(segment.tasks) if group else 1,
        )

    def _snapshot(self) -> bytes:
        position = resume.Position(
            learned=self._learned,
            rows=self._rows,
            kept=self._kept,
            shared=self._shared if self._moves_shared else {},
            memory=self._memory,
            groups=[group.saved() for group in self._groups],
        )
        return resume.dump(position, identity=self._identity, numerics=self._numerics)

    def _restore(self, content: bytes) -> None:
        position = resume.load(content, identity=self._identity)
        self._learned, self._rows, self._kept = position.learned, list(position.rows), list(position.kept)
        try:
            if self._moves_shared:
                self._shared = {name: position.shared[name].to(self._device) for name in self._shared}
            self._memory = {name: position.memory[name].to(self._device) for name in self._memory}
            for saved in position.groups:
                group = self._start_group(self._schedule.segment(saved.tasks))
                group.load(saved)
                self._groups.append(group)
        except (KeyError, RuntimeError) as error:
            raise resume.ResumeError(
                codes_of(error, "resume-point-unusable"), f"the resume point cannot be used: {error}"
            ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that an allocator ran out of memory, on a GPU or on the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
