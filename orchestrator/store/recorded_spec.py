"""The typed settings of a trial as records hold them. Pure.

Records may be from an older or a newer crwn, or of a method that is not installed here. So this is no `TrialSpec`,
which knows every setting: it gives by type what every crwn writes, and keeps the rest as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crwn.spec import ProblemShape
from crwn.trial_spec import TrialSpec
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

    def num_updates(self, problem: ProblemShape) -> list[int]:
        """The number of updates of each segment, or of the stream, as far as known without the data.

        Args:
            problem: the sizes of its benchmark.
        """
        training: Mapping[str, Any] = self.values["training"]
        batch_size = max(1, training.get("batch_size", 1))
        if problem.is_stream:
            return [math.ceil(problem.num_train / batch_size)]
        if epochs := training.get("epochs_per_task"):  # 0, and missing in older records: so many updates instead
            return [epochs * math.ceil(size / batch_size) for size in problem.segment_sizes]
        return [training["updates_per_task"]] * problem.num_segments

    @property
    def without_seed(self) -> RecordedSpec:
        """The settings that it shares with its cell's other seeds."""
        return RecordedSpec({name: value for name, value in self.values.items() if name != "seed"})


def _without_kind(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "kind"}
