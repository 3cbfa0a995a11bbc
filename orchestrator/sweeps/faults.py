"""Checks shared by several parts of a sweep file: names, repetitions, too many trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crwn.plugins import PluginError, find, installed_names
from crwn.registry import Registry
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.yaml_source import Source

MAX_TRIALS = 200_000
"""Limit of a sweep's trials; a few short lists can request more than any machine can list."""

MAX_LABEL = 100
"""Limit of a label's length: tables, figures and messages show it in full."""


def mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of the file; empty if it is absent, or has the wrong type, which is reported elsewhere."""
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def name_at(source: Source, place: KeyPath, value: Any) -> str:
    """The value given as a name: the text, or the text in the file if YAML reads it as something else."""
    return value if isinstance(value, str) else source.written.get(place, str(value))


def has_looked_up(source: Source, registry: Registry[Any], name: Any, place: KeyPath) -> bool:
    """Look up a name among installed plug-ins if a registry lacks it; False if that fails, which is reported."""
    try:
        if isinstance(name, str):
            find(registry, name)
    except PluginError as error:
        source.fault(place, error.codes, str(error))
        return False
    return True


def is_known(source: Source, registry: Registry[Any], name: Any, place: KeyPath) -> bool:
    """Whether a registry has a name, or an installed plug-in, which is then imported; if not, that is reported."""
    if not has_looked_up(source, registry, name, place):
        return False
    if isinstance(name, str) and name in registry:
        return True
    source.unknown(place, name_at(source, place, name), {*registry, *installed_names(registry)})
    return False


def check_null_label(source: Source, given: Any, labels: Mapping[str, Any], place: KeyPath) -> None:
    """Report a reference written as `null` if there is a label `null`: unquoted, it means no value."""
    if given is None and source.written.get(place) in labels:
        source.fault(place, "label-unquoted", f"expected a label; given nothing; {source.in_quotes(place, given)}")


def check_label(source: Source, label: str, place: KeyPath) -> None:
    """Check that a label is fit for tables, figures and messages."""
    if not label.strip() or not label.isprintable():
        message = f"expected a label of printable characters on one line, given {label!r}"
        source.fault(place, "label-not-printable", message)
    elif len(label) > MAX_LABEL:
        message = f"expected a label of at most {MAX_LABEL} characters, given {len(label):,}"
        source.fault(place, "label-too-long", message)


def check_distinct(source: Source, values: Sequence[Any], place: KeyPath) -> None:
    """Report repeated values of a list, which would be computed once and shown twice."""
    seen = set()
    for index, value in enumerate(values):
        if repr(value) in seen:  # by repr, since a file may hold lists, which are not hashable
            message = f"requests the same trials twice: {value!r} is repeated; remove it"
            source.fault((*place, index), "same-trials-twice", message)
        seen.add(repr(value))


def has_too_many(source: Source, num_trials: int, place: KeyPath) -> bool:
    """Whether a part of the file alone requests more trials than a sweep may have, which is reported."""
    if num_trials > MAX_TRIALS:
        message = f"expected at most {MAX_TRIALS:,} trials, given lists that expand to {num_trials:,}; split the sweep"
        source.fault(place, "too-many-trials", message)
    return num_trials > MAX_TRIALS
