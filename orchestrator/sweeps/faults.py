"""Faults that more than one part of a sweep's file may have: names, repetitions, too many trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.sweeps.yaml_source import KeyPath, Source

MAX_TRIALS = 200_000
"""Of a sweep; a few short lists already ask for more than any machine can list."""

MAX_LABEL = 100
"""Characters of a label: tables, figures and lines show it whole."""


def mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of the file, or nothing where it is absent or of the wrong type, which is reported elsewhere."""
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def name_at(source: Source, place: KeyPath, value: Any) -> str:
    """What stands in the place of a name: the text, or what the file has where YAML reads something else."""
    return value if isinstance(value, str) else source.written.get(place, str(value))


def check_null_label(source: Source, given: Any, labels: Mapping[str, Any], place: KeyPath) -> None:
    """A label may be `null`, but a value that is written so is none."""
    if given is None and source.written.get(place) in labels:
        source.fault(place, f"expected a label; given nothing; {source.in_quotes(place, given)}")


def check_label(source: Source, label: str, place: KeyPath) -> None:
    """Labels are names in tables, figures and lines."""
    if not label.strip() or not label.isprintable():
        source.fault(place, f"expected a label of printable characters on one line, given {label!r}")
    elif len(label) > MAX_LABEL:
        source.fault(place, f"expected a label of at most {MAX_LABEL} characters, given {len(label):,}")


def check_distinct(source: Source, values: Sequence[Any], place: KeyPath) -> None:
    """What a list repeats would be computed once and shown twice."""
    seen = set()
    for index, value in enumerate(values):
        if repr(value) in seen:  # lists, which no set takes, are among what a file may hold
            source.fault((*place, index), f"asks for the same trials twice: {value!r} is repeated; remove it")
        seen.add(repr(value))


def has_too_many(source: Source, num_trials: int, place: KeyPath) -> bool:
    """Notes it where a part of the file alone asks for more trials than a sweep may have."""
    if num_trials > MAX_TRIALS:
        source.fault(
            place, f"expected at most {MAX_TRIALS:,} trials, given lists that make {num_trials:,}; split the sweep"
        )
    return num_trials > MAX_TRIALS
