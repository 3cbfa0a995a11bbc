"""Typed attempts at a trial: which process worked on it, from where to where, with which code, and how it ended. Pure.

Files may be untrusted or damaged; they are validated here. A field that is None was not recorded, for instance because
an older crwn did not have it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from crwn.code import Code
from crwn.strict_json import parse
from orchestrator.errors import shortened
from orchestrator.store.json_fields import Fields, sealed_bytes, without_none
from orchestrator.store.recorded_spec import RecordedSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a trial between two updates.

    Attributes:
        tasks_learned: number of tasks learned and tested.
        step: number of updates done in the next group.
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
    """The error that ended an attempt.

    Attributes:
        type: the exception's type.
        message: the exception's message.
        traceback: the traceback as Python prints it; None if the process died without one.
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
        """Type and message: the first line, shortened to be readable."""
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
    """Memory ran out, and the trial continued with smaller groups.

    Attributes:
        group_size: number of tasks learned at once from then on.
        step: number of updates that the group had done.
        error: the allocator's message.
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
        started: start time, in ISO 8601.
        host: the machine's name.
        pid: the process id.
        spec: the trial's settings, so that an unfinished trial's folder says what it is.
        grouping: how many of its tasks can be learned at once; likewise.
        gpus: the GPUs assigned to it; None: whatever the machine has.
        began_at: the position from which it started or resumed.
        reached: the position of its last resume point.
        out_of_memory: each time that memory ran out, and what was done.
        discarded_resume_point: why it could not resume from an earlier attempt's resume point.
        error: the error that ended it, if it failed.
        versions: versions of libraries and of Python in its process.
        code: the code that its process used.
    """

    started: str | None = None
    host: str | None = None
    pid: int | None = None
    spec: RecordedSpec | None = None
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
        """The attempt as stored in a finished trial's record, which has the spec itself."""
        return replace(self, spec=None, grouping=None)

    @classmethod
    def read(cls, said: Fields) -> Attempt:
        """Read an attempt from its JSON.

        Raises:
            ValueError: a field has the wrong type.
        """
        return cls(
            started=said.said_time("started"),
            host=said.said_name("host"),
            pid=said.said_count("pid"),
            spec=RecordedSpec.read(said, "spec", of_one_trial=True),
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
        """The attempt as JSON values, without fields that are None."""
        parts = {"from": self.began_at, "reached": self.reached, "error": self.error}
        return {
            **without_none(
                started=self.started,
                host=self.host,
                pid=self.pid,
                spec=None if self.spec is None else self.spec.values,
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
    """Read an unfinished trial's attempts, oldest first, from their file.

    Raises:
        ValueError, RecursionError: the file is damaged.
    """
    said = Fields(parse(content))
    said.check_sum(("attempts",))
    said.take("attempts")
    return tuple(map(Attempt.read, said.parts("attempts")))


def attempts_bytes(attempts: Sequence[Attempt]) -> bytes:
    """The content of the attempts file."""
    return sealed_bytes({"attempts": [attempt.content() for attempt in attempts]})


def read_code(said: Fields | None) -> Code | None:
    """Read fingerprints of code from their JSON; raises like `Attempt.read`."""
    if said is None:
        return None
    return Code(
        method=said.said_name("method"),
        crwn=said.said_name("crwn"),
        results_version=said.said_count("results_version"),
        added=said.said_name("added"),
    )


def code_content(code: Code | None) -> dict[str, Any] | None:
    """Fingerprints of code as JSON values, without those that are None."""
    return None if code is None else without_none(**asdict(code))


def contributing(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The attempts that contributed to a trial's results, oldest first.

    If an attempt resumed from where an earlier one had begun, or before, the earlier one's work is lost; so a trial
    that started over includes only the last start and what followed. An attempt that never began contributed nothing.
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
    """How the code differs between a trial's attempts that contributed, as far as recorded.

    Args:
        attempts: all attempts at the trial, oldest first.

    Returns:
        `torch 2.11.0 -> 2.12.0, other code of the method`; empty if they agree. Unknown values agree with all others.
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
    digests = {
        "the method": [code.method for code in codes],
        "plug-ins": [code.added for code in codes],
        "crwn": [code.crwn for code in codes],
    }
    shown += [f"other code of {name}" for name, said in digests.items() if len(_in_turn(said)) > 1]
    return ", ".join(shown)


NUMERIC_VERSIONS = ("crwn", "torch", "numpy")
"""Packages that results depend on. They also depend on Python's minor version, as its `sum` may round differently."""


def _in_turn(said: Iterable[object]) -> list[str]:
    """The known values as text, without consecutive repetitions."""
    return [value for value, _ in itertools.groupby(str(value) for value in said if value is not None)]
