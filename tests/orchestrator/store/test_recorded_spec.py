"""A trial's settings in records: what every version writes is typed, the rest is kept."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.spec import TrainingSpec, canonical_json
from crwn.testing import tiny_trial
from orchestrator.store.json_fields import Fields
from orchestrator.store.recorded_spec import RecordedSpec
from tests.methods import CASES
from tests.refusals import refused


@pytest.mark.parametrize("kind", METHODS)
def test_a_trials_settings_are_those_of_its_spec(kind: str) -> None:
    """Together they are the whole spec again."""
    trial = CASES[kind].trial()
    spec = RecordedSpec.of(trial)
    assert (spec.method_kind, spec.benchmark_kind) == (kind, trial.benchmark.kind)
    assert (spec.scale, spec.seed) == (trial.scale, trial.seed)
    assert spec.method == {"kind": kind, **spec.method_settings}
    assert spec.benchmark == {"kind": spec.benchmark_kind, **spec.benchmark_settings}
    training = json.loads(canonical_json(trial.training))
    parts = {"method": spec.method, "benchmark": spec.benchmark, "training": training}
    assert spec.values == {**parts, "scale": spec.scale, "seed": spec.seed} == json.loads(trial.canonical_json())


@pytest.mark.parametrize("training", [{"updates_per_task": 7}, {"epochs_per_task": 2}], ids=["updates", "epochs"])
@pytest.mark.parametrize(
    "benchmark", [SequentialSpec(base="digits"), TurningSpec(base="digits")], ids=["tasks", "stream"]
)
def test_its_updates_are_those_that_a_trial_makes(benchmark: Any, training: dict[str, int]) -> None:
    """Of each task, or of the stream, which is seen once whatever the training settings say."""
    if isinstance(benchmark, TurningSpec):
        training = {}
    trial = tiny_trial("finetune", benchmark=benchmark)
    trial = dataclasses.replace(trial, training=TrainingSpec(learning_rate=0.1, batch_size=10, **training))
    problem = benchmark.problem()
    updates = RecordedSpec.of(trial).num_updates(problem)
    assert len(updates) == (1 if problem.is_stream else problem.num_tasks)
    assert sum(updates) == trial.num_updates()


def test_a_cells_settings_have_no_seed() -> None:
    """And are otherwise the trial's."""
    spec = RecordedSpec.of(tiny_trial())
    assert spec.without_seed.seed is None
    assert {**spec.without_seed.values, "seed": tiny_trial().seed} == spec.values


def test_what_another_crwn_recorded_is_kept() -> None:
    """Settings that are not known here stay; those that an older crwn did not have mean as before."""
    values = json.loads(tiny_trial().canonical_json())
    values["method"]["later"] = [1]
    values["later"] = {"a": 1}
    del values["training"]["batch_size"]
    spec = RecordedSpec.read(Fields({"spec": values}), "spec", of_one_trial=True)
    assert spec is not None
    assert spec.values == values
    assert spec.method_settings["later"] == [1]
    problem = tiny_trial().benchmark.problem()
    assert spec.num_updates(problem) == [tiny_trial().training.updates_per_task] * problem.num_tasks


@pytest.mark.parametrize("name", ["updates_per_task", "epochs_per_task", "batch_size"])
@pytest.mark.parametrize("value", ["1", -1, 1.5, True])
def test_counts_of_a_trial_are_whole_numbers(name: str, value: Any) -> None:
    """Otherwise, the record is refused as damaged."""
    values = json.loads(tiny_trial().canonical_json())
    values["training"][name] = value
    with refused(InvalidError, "not-a-count", says=f"spec.training.{name}: "):
        RecordedSpec.read(Fields({"spec": values}), "spec", of_one_trial=True)


def test_a_batch_has_an_example() -> None:
    """A record that says otherwise divides nothing by zero."""
    problem = TurningSpec(base="digits").problem()
    values = json.loads(tiny_trial().canonical_json())
    spec = RecordedSpec({**values, "training": {**values["training"], "batch_size": 0}})
    assert spec.num_updates(problem) == [problem.num_train]
