"""The rows of a trial's tables, typed: the one of a finished trial, its tests, samples of the system. Pure.

What is read is checked here: a record may be a stranger's, or damaged. A field that is None is not said, as by a
record of an older crwn that did not have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.store.json_fields import Fields, canonical, parse
from orchestrator.store.provenance import Provenance, RecordedNumerics


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
