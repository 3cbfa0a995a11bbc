"""Reads JSON files strictly: every field has the expected type, or a ValueError names the one that does not.

Files may be untrusted or damaged. Unknown keys, such as those of a newer crwn, are ignored.

Files carry a SHA-256 of their content: of all other fields as JSON with sorted keys and no whitespace. Files of an
older crwn have none; but a damaged key could make a file look like an older one. Hence the rule: only a file with a
checksum may have unknown fields, since every crwn that adds a field also writes the checksum.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from crwn.faults import InvalidError

MAX_TEXT = 10_000
"""Limit of a name's length. Sweeps limit labels to fewer characters, but once had no limit."""

MAX_INTEGER = 2**63 - 1
MAX_DEPTH = 16
"""Limit of the nesting depth of settings."""

SUM = "sha256"
"""The field with the checksum of the others."""

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

_SETTINGS: Mapping[str, tuple[str, ...]] = {"method": ("kind",), "benchmark": ("kind", "base"), "training": ()}
"""The parts of a spec that have settings, each with its text fields."""

_COUNTS: Sequence[tuple[str, str, bool]] = (
    ("benchmark", "num_tasks", False),
    ("training", "updates_per_task", True),
    ("training", "epochs_per_task", False),
    ("training", "batch_size", False),
)
"""Numbers in a trial's settings by part, and whether they are required: a stream's benchmark has no number of tasks."""


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A file's JSON values with their checksum added."""
    return {**content, SUM: _sum(content)}


def sealed_bytes(content: Mapping[str, Any]) -> bytes:
    """The content of a file with its checksum; equal content gives equal bytes."""
    return (json.dumps(sealed(content), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _sum(content: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal digits, of all fields but the checksum; raises ValueError if a number is infinite."""
    others = {name: value for name, value in content.items() if name != SUM}
    return hashlib.sha256(CANONICAL.encode(others).encode()).hexdigest()


def milliseconds(time: str | None) -> int:
    """A record's time, in ISO 8601, as milliseconds since 1970; 0 if there is none."""
    return round(1000 * datetime.datetime.fromisoformat(time).timestamp()) if time else 0


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no whitespace, as in `crwn.spec.canonical_json`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def without_none(**values: Any) -> dict[str, Any]:
    """The given values except those that are None."""
    return {name: value for name, value in values.items() if value is not None}


class Fields:
    """The fields of a JSON object, read by type.

    Args:
        value: the object, as parsed JSON.
        place: its place in the file, for errors; empty for the outermost object.

    Raises:
        ValueError: from any call, if a field is missing or has the wrong type; the message names it.
    """

    def __init__(self, value: Any, place: str = "") -> None:
        self._prefix = f"{place}." if place else ""
        if not isinstance(value, dict):
            raise InvalidError(
                "wrong-type", f"{place or 'at the top'}: expected keys with values, given {reprlib.repr(value)}"
            )
        self._value = value

    def check_sum(self, known: Collection[str]) -> bool:
        """Whether there is a checksum, which must then match the other fields.

        Args:
            known: all fields that a file without a checksum may have.
        """
        if SUM in self._value:
            if self._value[SUM] != _sum(self._value):
                raise InvalidError(
                    "content-changed",
                    f"its content has changed since it was written: the {SUM} differs; it was damaged or edited",
                )
            return True
        self.refuse_others(known)
        return False

    def refuse_others(self, known: Collection[str]) -> None:
        """Check that there are no other fields, as required without a checksum."""
        for name in self._value:
            if name not in known:
                raise InvalidError(
                    "unknown-key", f"{self._prefix}{reprlib.repr(name)}: a file without a {SUM} cannot have this key"
                )

    def take(self, name: str) -> Any:
        """A required field."""
        if name not in self._value:
            raise InvalidError("missing-key", f"{self._prefix}{name}: expected this key, not given")
        return self._value[name]

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """A required name, fit for display."""
        value = self.take(name)
        if not _is_text(value) or not (may_be_empty or value.strip()):
            raise self._fault("text-not-printable", name, f"at most {MAX_TEXT:,} printable characters", value)
        return str(value)

    def optional_text(self, name: str) -> str | None:
        """A name; None if there is none."""
        return None if self._value.get(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """An optional list of printable texts."""
        value = self._value.get(name, [])
        if not isinstance(value, list) or not all(map(_is_text, value)):
            raise self._fault("text-not-printable", name, "a list of printable texts", value)
        return tuple(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean."""
        value = self._value.get(name, default)
        if not isinstance(value, bool):
            raise self._fault("wrong-type", name, "true or false", value)
        return value

    def count(self, name: str, *, default: int | None = None) -> int:
        """A non-negative integer."""
        value = self.take(name) if default is None else self._value.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
            raise self._fault("not-a-count", name, "a whole number of at least 0", value)
        return value

    def number(self, name: str) -> float | None:
        """A finite number of at least 0; None if there is none."""
        value = self._value.get(name)
        if value is None:
            return None
        if not _is_number(value) or value < 0:
            raise self._fault("not-a-quantity", name, "a finite number of at least 0", value)
        return float(value)

    def said(self, name: str) -> str | None:
        """Any text; None if there is none.

        Lone surrogates, which JSON can escape but no encoding can represent, are escaped: error messages contain them
        when they name a file in another encoding.
        """
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._fault("wrong-type", name, "text", value)
        return value.encode(errors="backslashreplace").decode()

    def said_name(self, name: str) -> str | None:
        """Text short enough to display; None if there is none."""
        value = self.said(name)
        if value is not None and len(value) > MAX_TEXT:
            raise self._fault("text-too-long", name, f"at most {MAX_TEXT:,} characters", value)
        return value

    def text_of(self, name: str) -> str:
        """Any text; required."""
        value = self.said(name)
        if value is None:
            raise self._fault("wrong-type", name, "text", value)
        return value

    def said_float(self, name: str) -> float | None:
        """Any number, as a numeric column holds it; None if there is none."""
        value = self._value.get(name)
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise self._fault("wrong-type", name, "a number", value)
        return value

    def float_of(self, name: str) -> float:
        """Any number; required."""
        value = self.said_float(name)
        if value is None:
            raise self._fault("wrong-type", name, "a number", value)
        return value

    def said_count(self, name: str) -> int | None:
        """A non-negative integer; None if there is none."""
        return None if self._value.get(name) is None else self.count(name)

    def said_counts(self, name: str) -> tuple[int, ...] | None:
        """A list of non-negative integers; None if there is none."""
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._fault("wrong-type", name, "a list", value)
        parts = Fields({f"{name}[{place}]": part for place, part in enumerate(value)})
        return tuple(parts.count(part) for part in parts._value)

    def said_flag(self, name: str) -> bool | None:
        """A boolean; None if there is none."""
        return None if self._value.get(name) is None else self.flag(name, default=False)

    def said_time(self, name: str) -> str | None:
        """A time in ISO 8601; None if there is none."""
        value = self.said(name)
        try:
            if value is not None:
                datetime.datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise self._fault("not-a-time", name, "a time such as 2026-01-31T12:00:00+00:00", value) from error
        return value

    def said_texts(self, name: str) -> dict[str, str] | None:
        """Texts by name; None if there are none."""
        value = self._value.get(name)
        if value is None:
            return None
        inner = Fields(value, f"{self._prefix}{name}")
        return {key: inner.said_name(key) or "" for key in value}

    def part(self, name: str) -> Fields | None:
        """The fields of a nested object; None if there is none."""
        value = self._value.get(name)
        return None if value is None else Fields(value, f"{self._prefix}{name}")

    def parts(self, name: str) -> list[Fields]:
        """The fields of each object in a list; empty if there is no list."""
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._fault("wrong-type", name, "a list", value)
        return [Fields(part, f"{self._prefix}{name}[{index}]") for index, part in enumerate(value)]

    def settings(self, name: str, *, of_one_trial: bool = False) -> dict[str, Any] | None:
        """The settings of a trial; None if there are none.

        Args:
            name: the field.
            of_one_trial: whether they are those of one trial, including its seed, rather than those that all seeds
                share.
        """
        value = self._value.get(name)
        if value is None:
            return None
        place = f"{self._prefix}{name}"
        settings = Fields(value, place)
        if not of_one_trial and "seed" in value:
            raise InvalidError(
                "settings-with-seed", f"{place}.seed: expected settings that all seeds share, given a seed"
            )
        for part, texts in _SETTINGS.items():
            inner = Fields(settings.take(part), f"{place}.{part}")
            for text in texts:
                inner.text(text)
        settings.text("scale")
        if of_one_trial:
            settings.count("seed")
            for part, number, is_said in _COUNTS:
                counts = Fields(settings.take(part), f"{place}.{part}")
                counts.count(number) if is_said else counts.said_count(number)
            check_values(value, place)
        return dict(value)

    def _fault(self, code: str, name: str, expected: str, value: Any) -> InvalidError:
        return InvalidError(code, f"{self._prefix}{name}: expected {expected}, given {reprlib.repr(value)}")


def check_values(value: Any, place: str, depth: int = 0) -> None:
    """Check that settings are possible in a spec: printable text and finite numbers.

    Raises:
        ValueError: they are not.
    """
    if isinstance(value, dict):
        for name in value:
            if not _is_text(name):
                raise InvalidError(
                    "text-not-printable", f"{place}: expected printable keys, given {reprlib.repr(name)}"
                )
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(part, dict | list):
            if depth == MAX_DEPTH:
                raise InvalidError("nested-too-deep", f"{place}.{name}: expected at most {MAX_DEPTH} levels of nesting")
            check_values(part, f"{place}.{name}", depth + 1)
        elif not (part is None or part is True or part is False or _is_text(part) or _is_number(part)):
            raise InvalidError(
                "setting-impossible",
                f"{place}.{name}: expected a printable text or a finite number, given {reprlib.repr(part)}",
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that every reader can represent."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_INTEGER <= value <= MAX_INTEGER
