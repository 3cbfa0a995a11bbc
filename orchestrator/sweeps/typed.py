"""Reads parts of a parsed file strictly as frozen dataclasses; mismatches become faults with their places."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from crwn.data import BASE_SETS
from crwn.faults import Codes, codes_of
from crwn.spec import TrainingSpec
from orchestrator.errors import nearest
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.yaml_source import Source

T = TypeVar("T")

_LENGTHS = ("updates_per_task", "epochs_per_task")
"""Two ways to set the length of training: giving one replaces the other, set by the method or higher up in the file."""


def read(source: Source, cls: type[T], value: Mapping[str, Any], place: KeyPath) -> T | None:
    """Read a part of a file as a dataclass.

    Args:
        source: the file, which collects faults.
        cls: a dataclass that carries `crwn.spec.READ_STRICTLY`. Its own fields are plain values; nested parts are read
            by separate calls, so that each fault names the keys of its own level.
        value: the part.
        place: its place in the file.

    Returns:
        The dataclass; None if the part has faults.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(cls, tuple(BASE_SETS))  # type: ignore[arg-type]  # a class is hashable
        return adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if details["type"] == "too_short" and details["input"]:
                continue  # all elements are faulty, and each was reported; the list is not empty
            here = (*place, *details["loc"])
            message = details["msg"] if source.is_full else _explain(source, details, cls, here)
            source.fault(here, _codes(details), message)
        return None


def override(source: Source, base: T, changes: Mapping[str, Any], place: KeyPath) -> T:
    """Apply changes from a file to a dataclass.

    Args:
        source: the file, which collects faults.
        base: the dataclass to change, of a class as for `read`.
        changes: the part of the file.
        place: its place in the file.

    Returns:
        The changed copy; the base itself if the changes have faults.
    """
    assert dataclasses.is_dataclass(base)
    current = {item.name: getattr(base, item.name) for item in dataclasses.fields(base) if item.init}
    if isinstance(base, TrainingSpec):
        current |= other_length(changes)
    changed = read(source, type(base), {**current, **changes}, place) if changes else base
    return base if changed is None else changed


def other_length(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The default of the other way to set the length of training, if changes of a `TrainingSpec` give one way."""
    return {
        other: getattr(TrainingSpec(learning_rate=1.0), other)
        for given, other in (_LENGTHS, _LENGTHS[::-1])
        if given in changes and other not in changes
    }


_CODES: Mapping[str, str] = {
    "unexpected_keyword_argument": "unknown-key",
    "missing": "missing-key",
    "missing_keyword_only_argument": "missing-key",
    "literal_error": "unknown-name",
    "too_short": "empty",
    "finite_number": "not-finite",
    "greater_than": "too-small",
    "greater_than_equal": "too-small",
    "less_than": "too-large",
    "less_than_equal": "too-large",
}
"""The codes of pydantic's errors, the same as of `crwn.spec.check_fields`; all others are of values of a wrong type."""


def _codes(details: ErrorDetails) -> Codes:
    """The codes of one of pydantic's errors: those of the dataclass, if it refused its fields itself."""
    if details["type"] == "value_error":
        return codes_of(details["ctx"]["error"], "setting-refused")
    return _CODES.get(details["type"], "wrong-type")


def _explain(source: Source, details: ErrorDetails, cls: type[Any], place: KeyPath) -> str:
    """One of pydantic's errors as our own message: expected, given, what to do."""
    given, shown = details["input"], source.given(place, details["input"])
    match details["type"]:
        case "unexpected_keyword_argument":
            known = [item.name for item in dataclasses.fields(cls) if item.init]
            return f"unknown key; {nearest(str(details['loc'][-1]), known)}"
        case "missing" | "missing_keyword_only_argument":
            return "expected this key, not given; add it"
        case "literal_error":
            expected = details["ctx"]["expected"]
            known = re.findall(r"'([^']*)'", expected)
            return nearest(given, known) if isinstance(given, str) else f"expected {expected}; given {shown}"
        case "value_error":
            return str(details["ctx"]["error"])
        case "too_short":
            return "expected at least one, given none; an empty grid has no trials"
    expected = details["msg"].removeprefix("Input should be ")
    expected = {"a valid array": "a list", "an object": "keys with values"}.get(expected, expected)
    is_meant = details["type"] == "string_type" and not isinstance(given, list | dict)
    return f"expected {expected}; given {shown}" + (f"; {source.in_quotes(place, given)}" if is_meant else "")


@functools.cache
def _adapter(cls: type[Any], bases: tuple[str, ...]) -> TypeAdapter[Any]:
    """The adapter of a class, and of the base sets that are known by now (`crwn.spec.OneOf`)."""
    del bases
    return TypeAdapter(cls)
