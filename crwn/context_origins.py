"""The origins of a bank's tasks: trials, from their specs, and the names and classes of their tasks.

A plug-in may define a part of a trial. If it is not loaded, the trial's network cannot predict and its spec cannot be
checked, but what its store holds can still be read (`tasks_without_plugin`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from crwn.benchmarks import MOST_TASKS
from crwn.benchmarks.specs import RegroupsClasses
from crwn.context_files import BankTask
from crwn.faults import InvalidError
from crwn.plugins import FILE_NAME
from crwn.spec_json import unknown_names
from crwn.trial_spec import TrialSpec

MAX_SHOWN = 100
"""The largest number of characters of an unknown name that an error shows."""


def trial_from(values: Mapping[str, object], trial_id: str, plugins: Sequence[str] = ()) -> TrialSpec:
    """The trial with this spec, given as parsed JSON, possibly from an untrusted source.

    Args:
        values: the spec.
        trial_id: the trial's id.
        plugins: the names of the plug-ins that its sweep used, if they are known; an error names them.

    Raises:
        ValueError: this process does not know the spec, it has too many tasks, or it is another trial's.
    """
    benchmark = values.get("benchmark")
    num_tasks = benchmark.get("num_tasks") if isinstance(benchmark, Mapping) else None
    if isinstance(num_tasks, int) and num_tasks > MOST_TASKS:
        raise InvalidError("too-many-tasks", f"contexts: expected at most {MOST_TASKS:,} tasks, given {num_tasks}")
    if lacks := unknown_names(values):
        raise InvalidError("unknown-name", f"contexts: {_how_to_load(lacks, plugins)}")
    found = TrialSpec.from_values(values)
    if found.trial_id != trial_id:
        message = f"contexts: expected the spec of the trial {trial_id}, given {found.trial_id}'s"
        raise InvalidError("another-trial", message)
    return found


def tasks_of(trial: TrialSpec, starts: Collection[str]) -> tuple[BankTask, ...]:
    """The tasks of a trial with their names in a bank: the benchmark and their number there.

    Args:
        trial: the trial.
        starts: how each task's context started; empty: each from its own draw.

    Raises:
        ValueError: there is not one start for each task.
    """
    problem, benchmark = trial.benchmark.problem(), trial.benchmark
    if starts and len(starts) != problem.num_tasks:
        message = f"contexts: expected how each of {problem.num_tasks} tasks started, given {len(starts)}"
        raise InvalidError("tensors-do-not-fit", message)
    behind = [tuple(range(problem.num_classes))] * problem.num_tasks
    if isinstance(benchmark, RegroupsClasses):
        behind = list(benchmark.classes_behind(trial.seed))
    return tuple(
        BankTask(
            name=name_of(benchmark.kind, index),
            trial_id=trial.trial_id,
            index=index,
            start=start,
            classes=tuple(map(str, classes)),
        )
        for index, (classes, start) in enumerate(zip(behind, starts or ["own"] * problem.num_tasks, strict=True))
    )


def tasks_without_plugin(values: Mapping[str, Any], trial_id: str, starts: Sequence[str]) -> tuple[BankTask, ...]:
    """The tasks of a trial whose parts this process does not know: as `tasks_of`, without the names of classes.

    Args:
        values: the trial's spec, as parsed JSON.
        trial_id: its id.
        starts: how each of the T tasks' contexts started.
    """
    kind = values["benchmark"]["kind"]
    return tuple(
        BankTask(name=name_of(kind, index), trial_id=trial_id, index=index, start=start)
        for index, start in enumerate(starts)
    )


def name_of(kind: str, index: int) -> str:
    """The name of a trial's task: its benchmark's name, and its number there."""
    return f"{kind} {index}"


def _how_to_load(lacks: Mapping[str, str], plugins: Sequence[str]) -> str:
    """Which names this process does not know, and how to load them."""
    names = " and ".join(f"the {what} {name[:MAX_SHOWN]!r}" for what, name in lacks.items())
    files = [name for name in plugins if FILE_NAME.fullmatch(name)]
    defined = f"{', '.join(plugins)} defines it" if plugins else "a plug-in may define it"
    argument = f", plugins={files}" if files else "" if plugins else ", plugins=[FILE]"
    load = f"load it first, with crwn.load_sweep(SWEEP{argument})"
    installed = "" if files else ", or install its distribution"
    return f"expected a trial known to this process, given one of {names}; {defined}: {load}{installed}"
