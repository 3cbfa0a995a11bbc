"""Where a finished trial's numbers come from, typed: attempts, machines, code, and the numerics. Pure.

What is read is checked here: a record may be a stranger's, or damaged. A field that is None is not said, as by a
record of an older crwn that did not have it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from crwn.code import Code
from orchestrator.store.attempts import Attempt, code_content, read_code
from orchestrator.store.json_fields import Fields, canonical, parse, without_none


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
            code=read_code(said.part("code")),
            code_changes=said.said("code_changes") or "",
        )

    def to_json(self) -> str:
        """The provenance as its column has it."""
        said = {item.name: getattr(self, item.name) for item in fields(self)}
        said["attempts"] = [attempt.content() for attempt in self.attempts]
        said["code"] = code_content(self.code)
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
        return canonical(without_none(**{item.name: getattr(self, item.name) for item in fields(self)}))
