"""What a store keeps of trials, typed: the row of a finished one, its tests, samples of the system, attempts. Pure.

What is read is checked here, and nowhere else: a record may be a stranger's, or damaged. A field that is None is not
said, as by a record of an older crwn that did not have it.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from crwn.code import Code
from orchestrator.errors import shortened
from orchestrator.store.json_fields import Fields, parse, sealed_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a trial is between two updates.

    Attributes:
        tasks_learned: tasks learned and tested.
        step: updates done of the next group's.
    """

    tasks_learned: int = 0
    step: int = 0

    @classmethod
    def _read(cls, said: Fields | None) -> Position | None:
        if said is None:
            return None
        return cls(tasks_learned=said.count("tasks_learned"), step=said.count("step"))

    def _content(self) -> dict[str, Any]:
        return {"tasks_learned": self.tasks_learned, "step": self.step}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptError:
    """In what an attempt ended.

    Attributes:
        type: the exception's.
        message: its own.
        traceback: as Python prints it; None where a process died without a word.
    """

    type: str | None = None
    message: str | None = None
    traceback: str | None = None

    @property
    def text(self) -> str:
        """Type and message."""
        return ": ".join(part for part in (self.type, self.message) if part is not None)

    @property
    def line(self) -> str:
        """Type and message: the first line, as far as one can read it."""
        return shortened(self.text.partition("\n")[0], 1000)

    @classmethod
    def _read(cls, said: Fields | None) -> AttemptError | None:
        if said is None:
            return None
        return cls(type=said.said_name("type"), message=said.said("message"), traceback=said.said("traceback"))

    def _content(self) -> dict[str, Any]:
        return _without_none(type=self.type, message=self.message, traceback=self.traceback)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """Memory ran out, and the trial went on with smaller groups.

    Attributes:
        group_size: tasks learned together from then on.
        step: updates that the group had done.
        error: what the allocator said.
    """

    group_size: int
    step: int
    error: str | None = None

    @classmethod
    def _read(cls, said: Fields) -> OutOfMemory:
        return cls(group_size=said.count("group_size"), step=said.count("step"), error=said.said("error"))

    def _content(self) -> dict[str, Any]:
        return _without_none(group_size=self.group_size, step=self.step, error=self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One process's work on a trial.

    Attributes:
        started: when, in ISO 8601.
        host: on which machine.
        pid: the process.
        spec: the trial's, as JSON values, so that an unfinished trial's folder says what it is.
        grouping: how many of its tasks can be learned at once; likewise.
        gpus: what it was given; None for whatever the machine has.
        began_at: where it went on from.
        reached: its last resume point.
        out_of_memory: how often memory ran out, and what was done.
        discarded_resume_point: why it could not go on from an earlier attempt's.
        error: in what it ended, if it failed.
        versions: of the libraries and of Python, in its process.
        code: that its process computed with.
    """

    started: str | None = None
    host: str | None = None
    pid: int | None = None
    spec: Mapping[str, Any] | None = None
    grouping: str | None = None
    gpus: float | None = None
    began_at: Position | None = None
    reached: Position | None = None
    out_of_memory: tuple[OutOfMemory, ...] = ()
    discarded_resume_point: str | None = None
    error: AttemptError | None = None
    versions: Mapping[str, str] | None = None
    code: Code | None = None

    @property
    def without_spec(self) -> Attempt:
        """As a finished trial's record has it, which has the spec itself."""
        return replace(self, spec=None, grouping=None)

    @classmethod
    def read(cls, said: Fields) -> Attempt:
        """An attempt from its JSON.

        Raises:
            ValueError: a field is of the wrong kind.
        """
        return cls(
            started=said.said_time("started"),
            host=said.said_name("host"),
            pid=said.said_count("pid"),
            spec=said.settings("spec", of_one_trial=True),
            grouping=said.said_name("grouping"),
            gpus=said.number("gpus"),
            began_at=Position._read(said.part("from")),
            reached=Position._read(said.part("reached")),
            out_of_memory=tuple(map(OutOfMemory._read, said.parts("out_of_memory"))),
            discarded_resume_point=said.said("discarded_resume_point"),
            error=AttemptError._read(said.part("error")),
            versions=said.said_texts("versions"),
            code=_read_code(said.part("code")),
        )

    def content(self) -> dict[str, Any]:
        """The attempt as JSON values; what is not said is left out."""
        parts = {"from": self.began_at, "reached": self.reached, "error": self.error}
        return {
            **_without_none(
                started=self.started,
                host=self.host,
                pid=self.pid,
                spec=self.spec,
                grouping=self.grouping,
                discarded_resume_point=self.discarded_resume_point,
                versions=self.versions,
                code=_code_content(self.code),
            ),
            "gpus": self.gpus,
            **{name: part._content() for name, part in parts.items() if part is not None},
            **({"out_of_memory": [time._content() for time in self.out_of_memory]} if self.out_of_memory else {}),
        }


def read_attempts(content: bytes) -> tuple[Attempt, ...]:
    """An unfinished trial's attempts, oldest first, from their file.

    Raises:
        ValueError, RecursionError: it is damaged.
    """
    said = Fields(parse(content))
    said.check_sum(("attempts",))
    said.take("attempts")
    return tuple(map(Attempt.read, said.parts("attempts")))


def attempts_bytes(attempts: Sequence[Attempt]) -> bytes:
    """Attempts as their file has them."""
    return sealed_bytes({"attempts": [attempt.content() for attempt in attempts]})


def _read_code(said: Fields | None) -> Code | None:
    if said is None:
        return None
    return Code(
        method=said.said_name("method"), crwn=said.said_name("crwn"), results_version=said.said_count("results_version")
    )


def _code_content(code: Code | None) -> dict[str, Any] | None:
    return None if code is None else _without_none(**asdict(code))


def contributing(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The attempts whose work is in what a trial has, oldest first.

    One that went on from where an earlier one had begun, or from before, has none of its work; so a trial that began
    anew has that of the last beginning and what followed. One that never began has done nothing.
    """
    found: list[Attempt] = []
    places: list[tuple[int, int]] = []
    for attempt in attempts:
        if attempt.began_at is None:
            continue
        place = (attempt.began_at.tasks_learned, attempt.began_at.step)
        while places and places[-1] >= place:
            del found[-1], places[-1]
        found.append(attempt)
        places.append(place)
    return tuple(found)


def code_changes(attempts: Sequence[Attempt]) -> str:
    """In what the code differs that a trial's attempts computed with, as far as they contributed and say it.

    Args:
        attempts: all that were made at the trial, oldest first.

    Returns:
        `torch 2.11.0 -> 2.12.0, other code of the method`; empty where they agree. What is unknown agrees with all.
    """
    made = contributing(attempts)
    versions = [attempt.versions or {} for attempt in made]
    codes = [attempt.code or Code() for attempt in made]
    numbers: dict[str, list[str | int | None]] = {
        **{name: [said.get(name) for said in versions] for name in NUMERIC_VERSIONS},
        "Python": [".".join(said["python"].split(".")[:2]) if "python" in said else None for said in versions],
        "results version": [code.results_version for code in codes],
    }
    shown = [f"{name} {' -> '.join(values)}" for name, said in numbers.items() if len(values := _in_turn(said)) > 1]
    digests = {"the method": [code.method for code in codes], "crwn": [code.crwn for code in codes]}
    shown += [f"other code of {name}" for name, said in digests.items() if len(_in_turn(said)) > 1]
    return ", ".join(shown)


NUMERIC_VERSIONS = ("crwn", "torch", "numpy")
"""Packages that numbers depend on. They do on Python as well, by its minor version: its `sum` rounds otherwise."""


def _in_turn(said: Iterable[object]) -> list[str]:
    """What is known, as text, without repetitions of what was said last."""
    return [value for value, _ in itertools.groupby(str(value) for value in said if value is not None)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a finished trial's numbers come from: all that may differ between two equal runs.

    Attributes:
        attempts: at it, oldest first, without their spec.
        finished: when, in ISO 8601.
        host: on which machine.
        device: the processor as it names itself.
        visible_gpus: what CUDA_VISIBLE_DEVICES said.
        peak_memory_bytes: of the process on a CPU, allocated by torch on a GPU.
        held_memory_bytes: what the process held before, see `crwn.trial.Finished`.
        predicted_memory_bytes: what was foreseen.
        train_seconds: of all tasks together.
        train_seconds_per_task: the median.
        eval_seconds: of all tests together.
        commit: of the code.
        python: its version.
        versions: of the libraries that numbers depend on.
        code: that the last attempt computed with.
        code_changes: in what the code differs that the attempts computed with, see `code_changes`; empty if in nothing.
    """

    attempts: tuple[Attempt, ...] = ()
    finished: str | None = None
    host: str | None = None
    device: str | None = None
    visible_gpus: str | None = None
    peak_memory_bytes: int | None = None
    held_memory_bytes: int | None = None
    predicted_memory_bytes: int | None = None
    train_seconds: float | None = None
    train_seconds_per_task: float | None = None
    eval_seconds: float | None = None
    commit: str | None = None
    python: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    code: Code | None = None
    code_changes: str = ""

    @classmethod
    def from_json(cls, text: str | None, *, with_attempts: bool = True) -> Provenance:
        """A record's provenance from its JSON.

        Args:
            text: the JSON; None for one that says nothing.
            with_attempts: whether those are wanted, which are most of it.

        Raises:
            ValueError, RecursionError: it is no JSON object, or a field is of the wrong kind.
        """
        said = Fields(parse(text or "{}"), "provenance")
        return cls(
            attempts=tuple(map(Attempt.read, said.parts("attempts"))) if with_attempts else (),
            finished=said.said_time("finished"),
            host=said.said_name("host"),
            device=said.said_name("device"),
            visible_gpus=said.said_name("visible_gpus"),
            peak_memory_bytes=said.said_count("peak_memory_bytes"),
            held_memory_bytes=said.said_count("held_memory_bytes"),
            predicted_memory_bytes=said.said_count("predicted_memory_bytes"),
            train_seconds=said.number("train_seconds"),
            train_seconds_per_task=said.number("train_seconds_per_task"),
            eval_seconds=said.number("eval_seconds"),
            commit=said.said_name("commit"),
            python=said.said_name("python"),
            versions=said.said_texts("versions") or {},
            code=_read_code(said.part("code")),
            code_changes=said.said("code_changes") or "",
        )

    def to_json(self) -> str:
        """The provenance as its column has it."""
        said = {item.name: getattr(self, item.name) for item in fields(self)}
        said["attempts"] = [attempt.content() for attempt in self.attempts]
        said["code"] = _code_content(self.code)
        return json.dumps(said, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedNumerics:
    """What the last bits of a result depend on besides the spec (`crwn.events.Numerics`), as a record says it.

    Attributes:
        device: the kind of processor, cpu or cuda.
        group_size: how many tasks were learned together.
        kernel: how products were computed.
        threads: of the CPU.
    """

    device: str | None = None
    group_size: int | None = None
    kernel: str | None = None
    threads: int | None = None

    @staticmethod
    @functools.lru_cache(maxsize=1000)  # thousands of trials have the same few
    def from_json(text: str | None) -> RecordedNumerics:
        """A record's numerics from their JSON; raises as `Provenance.from_json` does."""
        said = Fields(parse(text or "{}"), "numerics")
        return RecordedNumerics(
            device=said.said_name("device"),
            group_size=said.said_count("group_size"),
            kernel=said.said_name("kernel"),
            threads=said.said_count("threads"),
        )

    def to_json(self) -> str:
        """The numerics as their column has them."""
        return canonical(_without_none(**{item.name: getattr(self, item.name) for item in fields(self)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """The `trials` row of a finished trial.

    Attributes:
        trial_id: the hash of the spec.
        method, variant, benchmark, scale, seed: what it is, in words.
        accuracy: the mean over tasks after the last one, in [0, 1].
        accuracy_told: the mean over tasks after the last one among each task's own classes, in [0, 1]; None where
            tasks do not bring classes of their own.
        forgetting, backward_transfer: see `crwn.metrics`; None where a test that they need was not made.
        params_per_task: in the paper's convention.
        trained_per_task, stored_per_task: numbers that learning a task changes, and that are kept of it.
        examples_kept: training images that a replay buffer holds at most.
        stored_memory: numbers kept between tasks to learn the next ones by, beside replayed images.
        grouping: how many tasks can be learned at once.
        independent: whether learning a task leaves those learned before as they are; None in an older record, where
            the grouping says it, see `is_independent`.
        fingerprint: of the backbone.
        spec: the trial's, as JSON values.
        numerics: what its last bits depend on besides.
        seconds: of training and tests.
        provenance: where its numbers come from.
    """

    trial_id: str
    method: str
    variant: str
    benchmark: str
    scale: str
    seed: int
    accuracy: float
    accuracy_told: float | None = None
    forgetting: float | None = None
    backward_transfer: float | None = None
    params_per_task: float
    trained_per_task: int
    stored_per_task: int
    examples_kept: int = 0
    stored_memory: int = 0
    grouping: str | None = None
    independent: bool | None = None
    fingerprint: str
    spec: Mapping[str, Any]
    numerics: RecordedNumerics
    seconds: float | None = None
    provenance: Provenance

    @property
    def is_independent(self) -> bool:
        """Whether learning a task leaves those learned before as they are."""
        return independent(self.grouping, self.independent)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> TrialRow:
        """A row from the values of its columns.

        Raises:
            ValueError, RecursionError: a value is missing, or of the wrong kind.
        """
        said = Fields(dict(row))
        specs = Fields({"spec": parse(said.text_of("spec"))})
        spec = specs.settings("spec", of_one_trial=True)
        if spec is None:
            raise ValueError("spec: expected settings, given none")
        return cls(
            trial_id=said.text_of("trial_id"),
            method=said.text_of("method"),
            variant=said.text_of("variant"),
            benchmark=said.text_of("benchmark"),
            scale=said.text_of("scale"),
            seed=said.count("seed"),
            accuracy=said.float_of("accuracy"),
            accuracy_told=said.said_float("accuracy_told"),
            forgetting=said.said_float("forgetting"),
            backward_transfer=said.said_float("backward_transfer"),
            params_per_task=said.float_of("params_per_task"),
            trained_per_task=said.count("trained_per_task"),
            stored_per_task=said.count("stored_per_task"),
            examples_kept=said.said_count("examples_kept") or 0,
            stored_memory=said.said_count("stored_memory") or 0,
            grouping=said.said_name("grouping"),
            independent=said.said_flag("independent"),
            fingerprint=said.text_of("fingerprint"),
            spec=spec,
            numerics=RecordedNumerics.from_json(said.said("numerics")),
            seconds=said.said_float("seconds"),
            provenance=Provenance.from_json(said.said("provenance")),
        )

    def columns(self) -> dict[str, Any]:
        """The row as the values of its columns."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            **row,
            "spec": canonical(self.spec),
            "numerics": self.numerics.to_json(),
            "provenance": self.provenance.to_json(),
        }


def independent(grouping: str | None, said: bool | None) -> bool:
    """Whether learning a task leaves those learned before as they are.

    Args:
        grouping: how many tasks can be learned at once.
        said: what the record says itself; None in an older one, whose methods were independent if their tasks could be
            learned in any number.
    """
    return grouping == "any" if said is None else said


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveEntry:
    """A point of a learning curve.

    Attributes:
        step: the update after which it was taken, counted from 1.
        loss: of the training, in nats.
        accuracy: of the training, in [0, 1].
        time: in seconds since 1970.
    """

    step: int
    loss: float
    accuracy: float
    time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRow:
    """A `tasks` row: one test of one task, or, while that is learned, its curve so far.

    Attributes:
        trial_id, method, variant, benchmark, scale, seed: as the trial's own row has them.
        task: which task.
        tasks_learned: after how many it was tested, of a stream the segments seen whole; None of a task that is being
            learned, as all but the curve.
        update: of a stream, after how many updates it was tested; else None.
        accuracy: in [0, 1].
        accuracy_told: among the task's own classes alone; None where tasks do not bring classes of their own.
        answered: how often each class was the answer, in every scenario but `task`; None where the task is told.
        loss: in nats.
        num_test: examples.
        train_seconds: what learning it took; None where it was only tested again.
        eval_seconds: what the test took.
        tested: when it ended, in seconds since 1970.
        curve: of the training; empty where it was only tested again.
    """

    __test__ = False  # it is no test of pytest's

    trial_id: str
    method: str
    variant: str
    benchmark: str
    scale: str
    seed: int
    task: int
    tasks_learned: int | None = None
    update: int | None = None
    accuracy: float | None = None
    accuracy_told: float | None = None
    answered: tuple[int, ...] | None = None
    loss: float | None = None
    num_test: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    tested: float | None = None
    curve: tuple[CurveEntry, ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether it is the test that follows learning the task."""
        return self.update is None and self.tasks_learned == self.task + 1

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> TestRow:
        """A row from the values of its columns; raises as `TrialRow.read` does."""
        said = Fields(dict(row))
        curve, times = said.parts("curve"), row.get("curve_times") or []
        if times and len(times) != len(curve):
            raise ValueError(f"curve_times: expected {len(curve)} times, given {len(times)}")
        return cls(
            trial_id=said.text_of("trial_id"),
            method=said.text_of("method"),
            variant=said.text_of("variant"),
            benchmark=said.text_of("benchmark"),
            scale=said.text_of("scale"),
            seed=said.count("seed"),
            task=said.count("task"),
            tasks_learned=said.said_count("tasks_learned"),
            update=said.said_count("update"),
            accuracy=said.said_float("accuracy"),
            accuracy_told=said.said_float("accuracy_told"),
            answered=said.said_counts("answered"),
            loss=said.said_float("loss"),
            num_test=said.said_count("num_test"),
            train_seconds=said.said_float("train_seconds"),
            eval_seconds=said.said_float("eval_seconds"),
            tested=said.said_float("tested"),
            curve=tuple(
                CurveEntry(
                    step=point.count("step"),
                    loss=point.float_of("loss"),
                    accuracy=point.float_of("accuracy"),
                    time=times[index] if times else None,
                )
                for index, point in enumerate(curve)
            ),
        )

    def columns(self) -> dict[str, Any]:
        """The row as the values of its columns."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            **row,
            "answered": None if self.answered is None else list(self.answered),
            "curve": [{"step": point.step, "loss": point.loss, "accuracy": point.accuracy} for point in self.curve],
            "curve_times": [point.time for point in self.curve if point.time is not None],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A `system` row: what is in use at one time. 100 % of a process is one core, of a machine all of them.

    Attributes:
        trial_id: the trial that runs.
        time: in seconds since 1970.
        process_cpu_percent, process_memory_bytes: the trial's own process.
        machine_cpu_percent, machine_memory_bytes: all processes of its machine.
        gpu_percent, gpu_memory_bytes, gpu_power_watts: its whole GPU; None without one.
    """

    trial_id: str
    time: float
    process_cpu_percent: float | None = None
    process_memory_bytes: float | None = None
    machine_cpu_percent: float | None = None
    machine_memory_bytes: float | None = None
    gpu_percent: float | None = None
    gpu_memory_bytes: float | None = None
    gpu_power_watts: float | None = None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Sample:
        """A row from the values of its columns; raises as `TrialRow.read` does."""
        said = Fields(dict(row))
        measured = [item.name for item in fields(cls) if item.name not in ("trial_id", "time")]
        return cls(
            trial_id=said.text_of("trial_id"),
            time=said.float_of("time"),
            **{name: said.said_float(name) for name in measured},
        )

    def columns(self) -> dict[str, Any]:
        """The row as the values of its columns."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def milliseconds(time: str | None) -> int:
    """A time in ISO 8601, as records have it, in milliseconds since 1970; 0 where there is none."""
    return round(1000 * datetime.datetime.fromisoformat(time).timestamp()) if time else 0


def canonical(value: Mapping[str, Any]) -> str:
    """JSON values with sorted keys and no white space, as `crwn.spec.canonical_json` has them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
