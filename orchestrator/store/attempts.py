"""Attempts at a trial, typed: who worked on it, from where to where, with which code, and in what it ended. Pure.

What is read is checked here: notes may be a stranger's, or damaged. A field that is None is not said, as by an older
crwn that did not have it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from crwn.code import Code
from orchestrator.errors import shortened
from orchestrator.store.json_fields import Fields, parse, sealed_bytes, without_none


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
        return without_none(type=self.type, message=self.message, traceback=self.traceback)


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
        return without_none(group_size=self.group_size, step=self.step, error=self.error)


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
            code=read_code(said.part("code")),
        )

    def content(self) -> dict[str, Any]:
        """The attempt as JSON values; what is not said is left out."""
        parts = {"from": self.began_at, "reached": self.reached, "error": self.error}
        return {
            **without_none(
                started=self.started,
                host=self.host,
                pid=self.pid,
                spec=self.spec,
                grouping=self.grouping,
                discarded_resume_point=self.discarded_resume_point,
                versions=self.versions,
                code=code_content(self.code),
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


def read_code(said: Fields | None) -> Code | None:
    """Fingerprints of code from their JSON; raises as `Attempt.read` does."""
    if said is None:
        return None
    return Code(
        method=said.said_name("method"), crwn=said.said_name("crwn"), results_version=said.said_count("results_version")
    )


def code_content(code: Code | None) -> dict[str, Any] | None:
    """Fingerprints of code as JSON values; what is not said is left out."""
    return None if code is None else without_none(**asdict(code))


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
