"""Strict JSON: refuses what Python's parser accepts but other readers interpret differently."""

from __future__ import annotations

import json
import reprlib
from typing import Any, NoReturn

from crwn.faults import InvalidError


def parse(content: bytes | str) -> Any:
    """Parse JSON, but refuse what Python's parser accepts: duplicate keys in an object, NaN, infinities.

    Raises:
        ValueError: it is not such JSON.
        RecursionError: it nests too deeply.
    """
    text = content.decode() if isinstance(content, bytes) else content
    return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without duplicate keys, of which the last would silently win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        message = f"expected distinct keys, given {reprlib.repr(again)} twice in one object; remove one"
        raise InvalidError("repeated-key", message)
    return found


def _refuse(constant: str) -> NoReturn:
    raise InvalidError("not-finite", f"expected finite numbers, given {constant}")
