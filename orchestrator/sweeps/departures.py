"""How a sweep's trials deviate from their methods' defaults, and where that makes a comparison doubtful. Pure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from orchestrator.display import counted
from orchestrator.sweeps.sweep import Cell

_LENGTHS = ("updates_per_task", "epochs_per_task")


def departures(trial: TrialSpec) -> dict[str, tuple[Any, Any]]:
    """The settings of a trial that differ from its method's defaults.

    Returns:
        Each as given and the method's own, by the part of a sweep and the name: `settings.buffer`.
    """
    given, own = trial.training, trial.method.training(trial.scale)
    method = type(trial.method)()
    pairs = {
        **{f"settings.{item.name}": (trial.method, method) for item in dataclasses.fields(method)},  # type: ignore[arg-type]  # every spec is a dataclass
        **{f"training.{item.name}": (given, own) for item in dataclasses.fields(own) if item.name not in _LENGTHS},
    }
    found = {name: tuple(getattr(each, name.partition(".")[2]) for each in pair) for name, pair in pairs.items()}
    found["training.length"] = (_length(given), _length(own))
    return {name: (first, second) for name, (first, second) in found.items() if first != second}


def _length(training: TrainingSpec) -> str:
    """The length of training per task, in words."""
    if training.epochs_per_task:
        return f"{training.epochs_per_task} epoch{'s' * (training.epochs_per_task > 1)}"
    return f"{training.updates_per_task} updates"


def lines(cells: Iterable[Cell]) -> Iterator[str]:
    """The settings that differ from a method's defaults, one line per value, with the methods that have it."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for cell in cells:
        for name, (given, own) in departures(cell.trials[0]).items():
            text = f"{given} per task" if name == "training.length" else f"{name.partition('.')[2]} {_text(given)}"
            found[f"{text} instead of {_text(own)}"][" ".join(filter(None, (cell.method, cell.variant)))] = None
    for text, methods in found.items():
        yield f"not the default: {text}: {', '.join(methods)}"


def _text(value: Any) -> str:
    """A value as a sweep writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def warnings(cells: Iterable[Cell]) -> list[str]:
    """A line that names the methods with shortened training at a learning rate meant for full training.

    Deliberately short sweeps, such as the quickstart, have many of them. A second line says how to check whether
    it matters; without such methods, there is no line.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    seen: dict[str, None] = {}
    for cell in cells:
        trial = cell.trials[0]
        own = dataclasses.replace(trial, training=trial.method.training(trial.scale))
        share, rate = trial.num_updates() / own.num_updates(), trial.training.learning_rate
        if share < 1 and rate == own.training.learning_rate and cell.method not in seen:
            seen[cell.method] = None
            found[f"{100 * share:.0f} % of the updates, rate {rate:g}"][cell.method] = None
    if not seen:
        return []
    groups = ", ".join(f"{', '.join(methods)} ({text})" for text, methods in found.items())
    owner, they = ("its", "it") if len(seen) == 1 else ("their", "they")
    shorter = (
        f"{counted(len(seen), 'method')} with less than {owner} own training, at the learning rate meant for all of it"
    )
    return [
        f"warning: {shorter}: {groups}; {they} may rank lower than {they} could",
        f"  to see, try a higher one, such as --set 'methods.{next(iter(seen))}.training.learning_rate=...'",
    ]
