"""Cases for the tests of all methods: a case is a method, or a mode that computes differently."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crwn.benchmarks.rotated import RotatedSpec
from crwn.spec import BenchmarkSpec, Blueprint, MethodSpec, TrainingSpec
from crwn.trial_spec import TrialSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """How far a result may be from the recorded one.

    Attributes:
        loss: for losses. Sums in another order, on another processor, change the last of 16 digits.
        accuracy: for accuracies; 1/360 is one image.
    """

    loss: float = 1e-6
    accuracy: float = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A method as the tests use it; the defaults suit a fully connected network on r-digits.

    Attributes:
        method: its spec.
        quick: the settings for the contract, if thirty updates with those of `method` would not show what is promised.
        scale: the scale of a small network, for contracts, resume points and kept tensors.
        trace_scale: another scale, for the golden trace.
        table_scale: the scale shown in the documents' table.
        benchmark: the benchmark in tests; default: rotations of digits, as many as a test needs.
        learning_rate: a rate at which thirty updates of a small network learn something.
        tolerances: of the golden trace.
        changes: alternative values of settings for which tests cannot guess one.
    """

    method: MethodSpec
    quick: MethodSpec | None = None
    scale: str = "FC16"
    trace_scale: str = "FC32"
    table_scale: str = "FC256"
    benchmark: BenchmarkSpec | None = None
    learning_rate: float = 0.01
    tolerances: Tolerances = Tolerances()
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def under_contract(self) -> Case:
        """The case whose method has the settings under contract."""
        return dataclasses.replace(self, method=self.quick or self.method)

    def learns(self, num_tasks: int, step_degrees: float) -> BenchmarkSpec:
        """Its benchmark, or so many rotations of digits by so much."""
        return self.benchmark or RotatedSpec(base="digits", num_tasks=num_tasks, step_degrees=step_degrees)

    def trial(self, *, num_tasks: int = 3, step_degrees: float = 40.0, **changes: Any) -> TrialSpec:
        """A trial of a fraction of a second: four updates of 64 examples for each task, or what a stream has.

        Args:
            num_tasks: number of rotations.
            step_degrees: likewise.
            **changes: other parts of the trial's spec.
        """
        benchmark = self.learns(num_tasks, step_degrees)
        training = TrainingSpec(learning_rate=self.learning_rate, batch_size=64)
        if not benchmark.problem().is_stream:
            training = dataclasses.replace(training, updates_per_task=4)
        settings = {
            "method": self.method,
            "benchmark": benchmark,
            "scale": self.scale,
            "seed": 0,
            "training": training,
        }
        return TrialSpec(**{**settings, **changes})

    def shortened(self, num_tasks: int) -> BenchmarkSpec:
        """Its own benchmark with so many tasks."""
        own: Any = self.benchmark
        return dataclasses.replace(own, **{"first" if hasattr(own, "first") else "num_tasks": num_tasks})

    def blueprint(self) -> Blueprint:
        """That of the trial."""
        return self.trial().blueprint()
