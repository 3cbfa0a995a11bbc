"""Synthetic trials: eight seeds of one cell, in the order of their ids, and their records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from crwn.testing import DEFAULT, Accuracy, Conditions, finished_record, tiny_trial
from crwn.trial_spec import TrialSpec
from orchestrator.execution.protocol import Assignment
from orchestrator.store.finished import TrialRecord
from orchestrator.sweeps.sweep import Resources

SPECS = {
    spec.trial_id: spec for spec in sorted((tiny_trial(seed=seed) for seed in range(8)), key=lambda spec: spec.trial_id)
}
A, B, C, D, E, F, G, H = SPECS

ON_CPU = Resources(gpus=0)


def record(trial_id: str, accuracy: Accuracy = 0.5, conditions: Conditions = DEFAULT) -> TrialRecord:
    """The record of a finished one: two tasks, three tests, two samples."""
    return finished_record(SPECS[trial_id], accuracy, conditions)


def stream_record(trial_id: str, accuracies: Sequence[float], *, updates: Sequence[int] = (10, 17)) -> TrialRecord:
    """What one of them would leave had it learned a stream: at each of these updates every test has its accuracy."""
    made = record(trial_id)
    tests = [
        dataclasses.replace(
            made.tasks[0],
            task=task,
            tasks_learned=0,
            update=update,
            accuracy=accuracy if update == updates[-1] else accuracy / 2,
            answered=(3, 4),
        )
        for update in updates
        for task, accuracy in enumerate(accuracies)
    ]
    trial = dataclasses.replace(
        made.trial,
        accuracy=fmean(accuracies),
        forgetting=None,
        backward_transfer=None,
        grouping="one",
        independent=False,
    )
    return dataclasses.replace(made, trial=trial, tasks=tests)


def class_record(
    trial_id: str, matrix: Sequence[Sequence[float]], told: Sequence[float], *, examples_kept: int = 0
) -> TrialRecord:
    """What one of them would leave had it learned two groups of classes, of which one can change the other.

    Args:
        trial_id: of them.
        matrix: the accuracies of both tasks after each.
        told: those among the task's own classes alone, after the last task.
        examples_kept: by its buffer.
    """
    made = record(trial_id)
    tests = [
        dataclasses.replace(
            made.tasks[task],
            task=task,
            tasks_learned=learned,
            accuracy=matrix[learned - 1][task],
            accuracy_told=told[task],
            answered=(learned, task),
        )
        for task, learned in ((0, 1), (1, 2), (0, 2))
    ]
    (first, _), (last, second) = matrix
    trial = dataclasses.replace(
        made.trial,
        accuracy=(last + second) / 2,
        accuracy_told=fmean(told),
        forgetting=first - last,
        backward_transfer=last - first,
        grouping="one",
        independent=False,
        examples_kept=examples_kept,
    )
    return dataclasses.replace(made, trial=trial, tasks=tests)


def files_of(folder: Path) -> set[str]:
    """The names of a folder's files."""
    return {path.name for path in folder.iterdir()}


def assignments_of(*trials: TrialSpec, resources: Resources = ON_CPU, **options: Any) -> tuple[Assignment, ...]:
    """Trials as a run hands them to an executor; here for one thread on the CPU."""
    return tuple(Assignment(spec=spec, resources=resources, **options) for spec in trials)
