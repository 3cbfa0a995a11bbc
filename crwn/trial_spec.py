"""A trial as a value: a method, a benchmark, a scale, a seed, and the training settings."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from crwn import spec_json
from crwn.benchmarks import BENCHMARKS
from crwn.code import Code, code_of
from crwn.data import BASE_SETS
from crwn.faults import Fault, InvalidError
from crwn.methods import METHODS, modules
from crwn.methods.protocol import NETWORKS
from crwn.plugins import Plugin, added_code, provider
from crwn.registry import Registry
from crwn.spec import (
    DEFAULT_UPDATES,
    NEEDS,
    SCENARIOS,
    BenchmarkSpec,
    Blueprint,
    Index,
    MethodSpec,
    ProblemShape,
    TrainingSpec,
    canonical_json,
    check_fields,
    trial_id_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial with all settings resolved. Equal specs are the same trial, whichever sweep requests it.

    Raises:
        ValueError: a part has the wrong type; the method cannot be built at this scale for this benchmark, or needs to
            know what the benchmark's scenario does not tell; or the training settings do not fit the benchmark.
    """

    method: MethodSpec
    benchmark: BenchmarkSpec
    scale: str
    seed: Index
    training: TrainingSpec

    def __post_init__(self) -> None:
        check_fields(self)
        problem, blueprint = self.benchmark.problem(), self.blueprint()
        if faults := _scenario_faults(self, blueprint, problem):
            raise InvalidError.of(faults)

    @classmethod
    def from_json(cls, text: str) -> TrialSpec:
        """The trial whose spec is this JSON: what `canonical_json` gives, or what is written by hand.

        Settings of the method, the benchmark and the training that are left out have their spec's defaults.

        Raises:
            ValueError: it is no JSON, a key is unknown, missing or given twice, or a value is wrong; the message names
                all faults that can be known together.
        """
        return cls.from_values(spec_json.values_of(text))

    @classmethod
    def from_values(cls, values: Any) -> TrialSpec:
        """The trial whose spec is this, as parsed JSON; raises like `from_json`."""
        return cls(**spec_json.fields_of(values, [item.name for item in dataclasses.fields(cls)]))

    def blueprint(self) -> Blueprint:
        """What the method builds for this trial."""
        return self.method.blueprint(self.scale, self.benchmark.problem(), self.seed)

    def num_updates(self) -> int:
        """Optimiser steps of the whole trial, computed from the base set's counts."""
        problem, training = self.benchmark.problem(), self.training
        if problem.is_stream:
            return math.ceil(problem.num_train / training.batch_size)
        if not training.epochs_per_task:
            return training.updates_per_task * problem.num_segments
        if not self.blueprint().is_continual:
            return training.num_updates(problem.num_train)
        return sum(training.num_updates(size) for size in problem.segment_sizes)

    def multiply_adds_per_update(self) -> int:
        """Multiply-adds of one training step, in the plain computation."""
        blueprint = self.blueprint()
        return blueprint.multiply_adds * blueprint.examples_per_update(self.training.batch_size)

    def canonical_json(self) -> str:
        """The spec as JSON with sorted keys and no whitespace: equal specs give equal text."""
        return canonical_json(self)

    @property
    def trial_id(self) -> str:
        """The trial's identity, sixteen hexadecimal digits: a hash of the canonical JSON."""
        return trial_id_of(self.canonical_json())

    @property
    def variant(self) -> str:
        """The method's settings that differ from the paper's, such as `modulation=local`; empty if none do."""
        default: Any = type(self.method)()
        names = sorted(item.name for item in dataclasses.fields(default))
        changed = [name for name in names if getattr(self.method, name) != getattr(default, name)]
        return ",".join(f"{name}={getattr(self.method, name)}" for name in changed)


def _scenario_faults(trial: TrialSpec, blueprint: Blueprint, problem: ProblemShape) -> list[Fault]:
    """Why the method cannot learn the benchmark in its scenario or with these training settings; empty if it can."""
    method, scenario, training = trial.method.kind, problem.scenario, trial.training
    faults = []
    if missing := sorted(blueprint.needs - SCENARIOS[scenario]):
        able = [name for name, told in SCENARIOS.items() if blueprint.needs <= told]
        message = (
            f"{method} needs to be told {' and '.join(NEEDS[need] for need in missing)}, which the scenario "
            f"{scenario!r} of {trial.benchmark.kind!r} does not tell; it runs where the scenario is "
            f"{' or '.join(map(repr, able))}"
        )
        faults.append(Fault("scenario-tells-too-little", message))
    elif "tasks" not in blueprint.needs and not problem.labels_are_shared:
        message = (
            f"{method} is one network that is not told the task: expected a benchmark whose labels mean the same in "
            f"every task, given {trial.benchmark.kind!r}, whose tasks renumber their classes; use a benchmark of "
            "the scenario 'class', such as seq-cifar100, or a method with parameters for each task, such as stl"
        )
        faults.append(Fault("labels-not-shared", message))
    if problem.segment_sizes and blueprint.examples_kept > problem.num_train:
        message = (
            f"buffer: expected at most the {problem.num_train} training images of the benchmark, given "
            f"{blueprint.examples_kept}"
        )
        faults.append(Fault("buffer-larger-than-data", message))
    # A stream is one epoch, which many methods have by default.
    if problem.is_stream and (training.epochs_per_task > 1 or training.updates_per_task != DEFAULT_UPDATES):
        name = "epochs_per_task" if training.epochs_per_task else "updates_per_task"
        message = (
            f"{name}: expected to be left out on {trial.benchmark.kind!r}, a stream whose images are each seen once, "
            f"given {getattr(training, name)}; its number of images and batch_size decide"
        )
        faults.append(Fault("length-of-a-stream", message))
    return faults


def check_network(trial: TrialSpec) -> None:
    """Check that a trial's method can learn its network; its parts are checked where they are made.

    Raises:
        NetworkError: the method needs the last layer of a network of a user's own, which has none.
    """
    if METHODS[trial.method.kind].reads_features and trial.scale in NETWORKS:
        modules.check_head(trial.scale, trial.benchmark.problem())


def used_by(trial: TrialSpec) -> tuple[Plugin, ...]:
    """The plug-ins that define parts of a trial."""
    named: tuple[tuple[Registry[Any], str], ...] = (
        (METHODS, trial.method.kind),
        (NETWORKS, trial.scale),
        (BENCHMARKS, trial.benchmark.kind),
        (BASE_SETS, trial.benchmark.base),
    )
    found = (provider(registry, name) for registry, name in named)
    return tuple(dict.fromkeys(plugin for plugin in found if plugin is not None))


def code_of_trial(trial: TrialSpec) -> Code:
    """The code with which this process computes a trial; see `crwn.code.code_of`."""
    added = added_code(trial.benchmark.kind, trial.benchmark.base, trial.scale)
    return dataclasses.replace(code_of(trial.method), added=added)
