"""The typed settings of a trial as records hold them. Pure.

Records may be from an older or a newer crwn, or of a method that is not installed here. So this is no `TrialSpec`,
which knows every setting: it gives by type what every crwn writes, and keeps the rest as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crwn.spec import TrialSpec
from orchestrator.store.json_fields import Fields


@dataclass(frozen=True, slots=True)
class RecordedSpec:
    """The settings of one trial, or those that all seeds of a cell share.

    Attributes:
        values: all of them, as JSON values that `Fields.settings` accepts.
    """

    values: Mapping[str, Any]

    @classmethod
    def of(cls, spec: TrialSpec) -> RecordedSpec:
        """The settings of a trial."""
        return cls(json.loads(spec.canonical_json()))

    @classmethod
    def read(cls, fields: Fields, name: str, *, of_one_trial: bool = False) -> RecordedSpec | None:
        """Read and check a field; see `Fields.settings`."""
        values = fields.settings(name, of_one_trial=of_one_trial)
        return None if values is None else cls(values)

    @classmethod
    def from_index(cls, text: str) -> RecordedSpec:
        """The settings in a column of the index, which holds checked records only."""
        return cls(json.loads(text))

    @property
    def method(self) -> Mapping[str, Any]:
        """The method's kind and settings."""
        method: Mapping[str, Any] = self.values["method"]
        return method

    @property
    def method_kind(self) -> str:
        """The method's name in the registry."""
        return str(self.values["method"]["kind"])

    @property
    def method_settings(self) -> Mapping[str, Any]:
        """The method's settings, without its kind."""
        return _without_kind(self.values["method"])

    @property
    def benchmark(self) -> Mapping[str, Any]:
        """The benchmark's kind and settings, as `benchmark_name` and `problem_of` of `crwn.benchmarks` read them."""
        benchmark: Mapping[str, Any] = self.values["benchmark"]
        return benchmark

    @property
    def benchmark_kind(self) -> str:
        """The benchmark's name in the registry."""
        return str(self.values["benchmark"]["kind"])

    @property
    def benchmark_settings(self) -> Mapping[str, Any]:
        """The benchmark's settings, without its kind."""
        return _without_kind(self.values["benchmark"])

    @property
    def scale(self) -> str:
        """The scale."""
        return str(self.values["scale"])

    @property
    def seed(self) -> int | None:
        """The seed; None of a cell's settings."""
        seed: int | None = self.values.get("seed")
        return seed

    @property
    def training_settings(self) -> Mapping[str, Any]:
        """The training settings."""
        training: Mapping[str, Any] = self.values["training"]
        return training

    @property
    def updates_per_task(self) -> int:
        """Optimiser steps per task, unless epochs determine them."""
        return int(self.values["training"]["updates_per_task"])

    @property
    def epochs_per_task(self) -> int:
        """Passes over a task's images; 0: `updates_per_task` steps instead, as always in older records."""
        return int(self.values["training"].get("epochs_per_task", 0))

    @property
    def batch_size(self) -> int:
        """Examples per batch, at least 1."""
        return max(1, int(self.values["training"].get("batch_size", 1)))

    @property
    def without_seed(self) -> RecordedSpec:
        """The settings that it shares with its cell's other seeds."""
        return RecordedSpec({name: value for name, value in self.values.items() if name != "seed"})


def _without_kind(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "kind"}
