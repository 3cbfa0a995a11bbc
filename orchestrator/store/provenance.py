"""The typed provenance of a finished trial's results: attempts, machines, code, and the numerics. Pure.

Records may be untrusted or damaged; they are validated here. A field that is None was not recorded, for instance
because an older crwn did not have it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from crwn.code import Code
from crwn.strict_json import parse
from orchestrator.store.attempts import Attempt, code_content, read_code
from orchestrator.store.json_fields import Fields, canonical, without_none


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The provenance of a finished trial's results: everything that may differ between two equal runs.

    Attributes:
        attempts: the attempts at it, oldest first, without their spec.
        finished: when it finished, in ISO 8601.
        host: the machine's name.
        device: the processor's name for itself.
        visible_gpus: the value of CUDA_VISIBLE_DEVICES.
        peak_memory_bytes: peak memory of the process on a CPU, or allocated by torch on a GPU.
        held_memory_bytes: memory that the process held before, see `crwn.trial.Finished`.
        predicted_memory_bytes: the predicted memory.
        train_seconds: training time of all tasks in total.
        train_seconds_per_task: median training time per task.
        eval_seconds: time of all tests in total.
        commit: the commit of the code.
        python: Python's version.
        versions: versions of the libraries that results depend on.
        code: the code that the last attempt used.
        code_changes: how the code differs between attempts, see `code_changes`; empty if it does not.
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
        """Read a record's provenance from its JSON.

        Args:
            text: the JSON; None for an empty one.
            with_attempts: whether to read the attempts, which are most of it.

        Raises:
            ValueError, RecursionError: it is not a JSON object, or a field has the wrong type.
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
        """The provenance as JSON, as stored in its column."""
        said = {item.name: getattr(self, item.name) for item in fields(self)}
        said["attempts"] = [attempt.content() for attempt in self.attempts]
        said["code"] = code_content(self.code)
        return json.dumps(said, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedNumerics:
    """What the last bits of a result depend on besides the spec (`crwn.events.Numerics`), as recorded.

    Attributes:
        device: the kind of processor, cpu or cuda.
        group_size: number of tasks learned at once.
        kernel: how products were computed.
        threads: number of CPU threads.
    """

    device: str | None = None
    group_size: int | None = None
    kernel: str | None = None
    threads: int | None = None

    @staticmethod
    @functools.lru_cache(maxsize=1000)  # thousands of trials have the same few
    def from_json(text: str | None) -> RecordedNumerics:
        """Read a record's numerics from their JSON; raises like `Provenance.from_json`."""
        said = Fields(parse(text or "{}"), "numerics")
        return RecordedNumerics(
            device=said.said_name("device"),
            group_size=said.said_count("group_size"),
            kernel=said.said_name("kernel"),
            threads=said.said_count("threads"),
        )

    def to_json(self) -> str:
        """The numerics as JSON, as stored in their column."""
        return canonical(without_none(**{item.name: getattr(self, item.name) for item in fields(self)}))
