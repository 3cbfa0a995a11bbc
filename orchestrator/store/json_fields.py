"""What JSON files hold, read strictly: every field is of its kind, or a ValueError says which one is not.

A file may be a stranger's, or damaged. Keys that are not asked for, of a newer crwn, are left aside.

Files carry the SHA-256 of their content: all their other fields as JSON with sorted keys and no white space. Those of
an older crwn have none; but then a damaged key could make a file look like an older one. Hence the rule: only a file
with a sum may have fields that are not known here, since every crwn that adds a field also writes the sum.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

MAX_TEXT = 10_000
"""Characters of a name. Labels may be shorter than that in a sweep, but once had no limit."""

MAX_INTEGER = 2**63 - 1
MAX_DEPTH = 16
"""How deep settings nest at most."""

SUM = "sha256"
"""The field with the sum of the others."""

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

_SETTINGS: Mapping[str, tuple[str, ...]] = {"method": ("kind",), "benchmark": ("kind", "base"), "training": ()}
"""The parts of a spec that have settings, with the texts that name them."""

_COUNTS: Mapping[str, tuple[str, bool]] = {"benchmark": ("num_tasks", False), "training": ("updates_per_task", True)}
"""What a trial's settings say besides, by part, and whether all do: a stream's benchmark has no number of tasks."""


def parse(content: bytes | str) -> Any:
    """JSON as it is read, with what Python's reader lets pass refused: a key twice in an object, NaN, infinities.

    Raises:
        ValueError: it is no such JSON.
        RecursionError: it nests too deep.
    """
    text = content.decode() if isinstance(content, bytes) else content
    return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A file's JSON values with the sum of all that is there."""
    return {**content, SUM: _sum(content)}


def sealed_bytes(content: Mapping[str, Any]) -> bytes:
    """The same as a file has it; equal content gives equal bytes."""
    return (json.dumps(sealed(content), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _sum(content: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal digits, of all fields but the sum; raises ValueError where a number is infinite."""
    others = {name: value for name, value in content.items() if name != SUM}
    return hashlib.sha256(CANONICAL.encode(others).encode()).hexdigest()


def milliseconds(time: str | None) -> int:
    """A time in ISO 8601, as records have it, in milliseconds since 1970; 0 where there is none."""
    return round(1000 * datetime.datetime.fromisoformat(time).timestamp()) if time else 0


def canonical(value: Mapping[str, Any]) -> str:
    """JSON values with sorted keys and no white space, as `crwn.spec.canonical_json` has them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def without_none(**values: Any) -> dict[str, Any]:
    """What is said of these values: those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


class Fields:
    """The fields of a JSON object, by their kinds.

    Args:
        value: the object, as JSON is read.
        place: its own, for errors; empty for the outermost.

    Raises:
        ValueError: by any call, where a field is missing or of another kind: it says which.
    """

    def __init__(self, value: Any, place: str = "") -> None:
        self._prefix = f"{place}." if place else ""
        if not isinstance(value, dict):
            raise ValueError(f"{place or 'at the top'}: expected keys with values, given {reprlib.repr(value)}")
        self._value = value

    def check_sum(self, known: Collection[str]) -> bool:
        """Whether there is a sum, which then has to be that of the other fields.

        Args:
            known: all fields that a file without a sum may have.
        """
        if SUM in self._value:
            if self._value[SUM] != _sum(self._value):
                raise ValueError(
                    f"its content is not what was written, by its {SUM}; it was damaged, or changed by hand"
                )
            return True
        self.refuse_others(known)
        return False

    def refuse_others(self, known: Collection[str]) -> None:
        """See that there are no other fields, as in a file without a sum."""
        for name in self._value:
            if name not in known:
                raise ValueError(f"{self._prefix}{reprlib.repr(name)}: no file without a {SUM} has such a key")

    def take(self, name: str) -> Any:
        """A field that every such file has."""
        if name not in self._value:
            raise ValueError(f"{self._prefix}{name}: expected this key, not given")
        return self._value[name]

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """A name, which is shown."""
        value = self.take(name)
        if not _is_text(value) or not (may_be_empty or value.strip()):
            raise self._fault(name, f"at most {MAX_TEXT:,} printable characters", value)
        return str(value)

    def optional_text(self, name: str) -> str | None:
        """A name, or None where there is none."""
        return None if self._value.get(name) is None else self.text(name)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._value.get(name, default)
        if not isinstance(value, bool):
            raise self._fault(name, "true or false", value)
        return value

    def count(self, name: str, *, default: int | None = None) -> int:
        """A number of things."""
        value = self.take(name) if default is None else self._value.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
            raise self._fault(name, "a whole number of at least 0", value)
        return value

    def number(self, name: str) -> float | None:
        """A finite number of at least 0, or None where there is none."""
        value = self._value.get(name)
        if value is None:
            return None
        if not _is_number(value) or value < 0:
            raise self._fault(name, "a finite number of at least 0", value)
        return float(value)

    def said(self, name: str) -> str | None:
        """Any text; None where there is none.

        Half a surrogate pair, which JSON can escape and no encoding has, is spelled out: an error's message has some
        where it names a file in another encoding.
        """
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._fault(name, "text", value)
        return value.encode(errors="backslashreplace").decode()

    def said_name(self, name: str) -> str | None:
        """Text of a length that can be shown; None where there is none."""
        value = self.said(name)
        if value is not None and len(value) > MAX_TEXT:
            raise self._fault(name, f"at most {MAX_TEXT:,} characters", value)
        return value

    def text_of(self, name: str) -> str:
        """Any text, which must be there."""
        value = self.said(name)
        if value is None:
            raise self._fault(name, "text", value)
        return value

    def said_float(self, name: str) -> float | None:
        """Any number, as a column of numbers holds it; None where there is none."""
        value = self._value.get(name)
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise self._fault(name, "a number", value)
        return value

    def float_of(self, name: str) -> float:
        """Any number, which must be there."""
        value = self.said_float(name)
        if value is None:
            raise self._fault(name, "a number", value)
        return value

    def said_count(self, name: str) -> int | None:
        """A number of things; None where there is none."""
        return None if self._value.get(name) is None else self.count(name)

    def said_counts(self, name: str) -> tuple[int, ...] | None:
        """Numbers of things; None where there are none."""
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._fault(name, "a list", value)
        parts = Fields({f"{name}[{place}]": part for place, part in enumerate(value)})
        return tuple(parts.count(part) for part in parts._value)

    def said_flag(self, name: str) -> bool | None:
        """True or false; None where neither is said."""
        return None if self._value.get(name) is None else self.flag(name, default=False)

    def said_time(self, name: str) -> str | None:
        """A time as ISO 8601 has it; None where there is none."""
        value = self.said(name)
        try:
            if value is not None:
                datetime.datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise self._fault(name, "a time such as 2026-01-31T12:00:00+00:00", value) from error
        return value

    def said_texts(self, name: str) -> dict[str, str] | None:
        """Texts by name; None where there are none."""
        value = self._value.get(name)
        if value is None:
            return None
        inner = Fields(value, f"{self._prefix}{name}")
        return {key: inner.said_name(key) or "" for key in value}

    def part(self, name: str) -> Fields | None:
        """An object's fields; None where there is none."""
        value = self._value.get(name)
        return None if value is None else Fields(value, f"{self._prefix}{name}")

    def parts(self, name: str) -> list[Fields]:
        """The fields of a list of objects; no list is an empty one."""
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._fault(name, "a list", value)
        return [Fields(part, f"{self._prefix}{name}[{index}]") for index, part in enumerate(value)]

    def settings(self, name: str, *, of_one_trial: bool = False) -> dict[str, Any] | None:
        """The settings of a trial, or None where there are none.

        Args:
            name: the field.
            of_one_trial: whether they are of one trial, and so have its seed, or of all that differ by it alone.
        """
        value = self._value.get(name)
        if value is None:
            return None
        place = f"{self._prefix}{name}"
        settings = Fields(value, place)
        if not of_one_trial and "seed" in value:
            raise ValueError(f"{place}.seed: expected settings that all seeds share, given a seed")
        for part, texts in _SETTINGS.items():
            inner = Fields(settings.take(part), f"{place}.{part}")
            for text in texts:
                inner.text(text)
        settings.text("scale")
        if of_one_trial:
            settings.count("seed")
            for part, (number, is_said) in _COUNTS.items():
                counts = Fields(settings.take(part), f"{place}.{part}")
                counts.count(number) if is_said else counts.said_count(number)
            check_values(value, place)
        return dict(value)

    def _fault(self, name: str, expected: str, value: Any) -> ValueError:
        return ValueError(f"{self._prefix}{name}: expected {expected}, given {reprlib.repr(value)}")


def check_values(value: Any, place: str, depth: int = 0) -> None:
    """See that settings are those that a spec has: texts that can be shown, and numbers that are some.

    Raises:
        ValueError: they are not.
    """
    if isinstance(value, dict):
        for name in value:
            if not _is_text(name):
                raise ValueError(f"{place}: expected printable keys, given {reprlib.repr(name)}")
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(part, dict | list):
            if depth == MAX_DEPTH:
                raise ValueError(f"{place}.{name}: expected values that nest at most {MAX_DEPTH} deep")
            check_values(part, f"{place}.{name}", depth + 1)
        elif not (part is None or part is True or part is False or _is_text(part) or _is_number(part)):
            raise ValueError(
                f"{place}.{name}: expected a printable text or a finite number, given {reprlib.repr(part)}"
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that every reader can hold."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_INTEGER <= value <= MAX_INTEGER


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no key occurs twice: the last would silently win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {reprlib.repr(again)} occurs twice in one object")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"expected finite numbers, given {constant}")
