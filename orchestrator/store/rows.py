"""The typed rows of a trial's tables: the row of a finished trial, its tests, and samples of the system. Pure.

Records may be untrusted or damaged; they are validated here. A field that is None was not recorded, for instance
because an older crwn did not have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from crwn.faults import InvalidError
from crwn.strict_json import parse
from orchestrator.store.json_fields import Fields, canonical
from orchestrator.store.provenance import Provenance, RecordedNumerics
from orchestrator.store.recorded_spec import RecordedSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """The `trials` row of a finished trial.

    Attributes:
        trial_id: the hash of the spec.
        method, variant, benchmark, scale, seed: the names of the trial.
        accuracy: the mean over tasks after the last one, in [0, 1].
        accuracy_told: the same among each task's own classes only, in [0, 1]; None except in the scenario `class`.
        forgetting, backward_transfer: see `crwn.metrics`; None if a test that they need was not made.
        params_per_task: parameters per task in the paper's convention.
        trained_per_task, stored_per_task: numbers trained and stored per task.
        examples_kept: capacity of the replay buffer, in training images.
        stored_memory: numbers kept between tasks to help learn later ones, besides replayed images.
        grouping: how many tasks can be learned at once.
        independent: whether learning a task leaves earlier tasks unchanged; None in an older record, where it follows
            from the grouping, see `is_independent`.
        fingerprint: the fingerprint of the backbone.
        spec: the trial's settings.
        numerics: what its last bits depend on besides the spec.
        seconds: time of training and tests.
        provenance: where its results come from.
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
    spec: RecordedSpec
    numerics: RecordedNumerics
    seconds: float | None = None
    provenance: Provenance

    @property
    def is_independent(self) -> bool:
        """Whether learning a task leaves earlier tasks unchanged."""
        return independent(self.grouping, self.independent)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> TrialRow:
        """Read a row from the values of its columns.

        Raises:
            ValueError, RecursionError: a value is missing, or has the wrong type.
        """
        said = Fields(dict(row))
        specs = Fields({"spec": parse(said.text_of("spec"))})
        spec = RecordedSpec.read(specs, "spec", of_one_trial=True)
        if spec is None:
            raise InvalidError("missing-key", "spec: expected settings, given none")
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
            "spec": canonical(self.spec.values),
            "numerics": self.numerics.to_json(),
            "provenance": self.provenance.to_json(),
        }


def independent(grouping: str | None, said: bool | None) -> bool:
    """Whether learning a task leaves earlier tasks unchanged.

    Args:
        grouping: how many tasks can be learned at once.
        said: the recorded value; None in an older record, whose methods were independent if any number of their tasks
            could be learned at once.
    """
    return grouping == "any" if said is None else said


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveEntry:
    """A point of a learning curve.

    Attributes:
        step: the update after which it was taken, counted from 1.
        loss: training loss, in nats.
        accuracy: training accuracy, in [0, 1].
        time: in seconds since 1970.
    """

    step: int
    loss: float
    accuracy: float
    time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRow:
    """A `tasks` row: one test of one task or, while the task is being learned, its curve so far.

    Attributes:
        trial_id, method, variant, benchmark, scale, seed: as in the trial's own row.
        task: the task.
        tasks_learned: number of tasks learned before the test, or segments of a stream seen completely; None while the
            task is being learned, like all fields but the curve.
        update: number of updates before the test, for a stream; else None.
        accuracy: in [0, 1].
        accuracy_told: accuracy among the task's own classes only; None except in the scenario `class`.
        answered: how often each class was predicted; None in the scenario `task`.
        loss: in nats.
        num_test: number of test examples.
        train_seconds: time to learn the task; None if it was only tested again.
        eval_seconds: time of the test.
        tested: when the test ended, in seconds since 1970.
        curve: the training curve; empty if it was only tested again.
    """

    __test__ = False  # not a test for pytest to collect

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
    def position(self) -> int:
        """The number of tasks before it, for a stream the number of updates; 0 while its task is being learned."""
        return (self.tasks_learned if self.update is None else self.update) or 0

    @property
    def milliseconds(self) -> int:
        """When the test ended, in milliseconds since 1970; 0 if it was not recorded."""
        return 0 if self.tested is None else round(1000 * self.tested)

    @property
    def is_first(self) -> bool:
        """Whether it is the test right after the task was learned."""
        return self.update is None and self.tasks_learned == self.task + 1

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> TestRow:
        """Read a row from the values of its columns; raises like `TrialRow.read`."""
        said = Fields(dict(row))
        curve, times = said.parts("curve"), row.get("curve_times") or []
        if times and len(times) != len(curve):
            raise InvalidError("times-miscounted", f"curve_times: expected {len(curve)} times, given {len(times)}")
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
    """A `system` row: usage at one time. For a process, 100 % is one core; for a machine, all cores.

    Attributes:
        trial_id: the running trial.
        time: in seconds since 1970.
        process_cpu_percent, process_memory_bytes: usage of the trial's own process.
        machine_cpu_percent, machine_memory_bytes: usage of all processes on its machine.
        gpu_percent, gpu_memory_bytes, gpu_power_watts: usage of its whole GPU; None without one.
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
        """Read a row from the values of its columns; raises like `TrialRow.read`."""
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
