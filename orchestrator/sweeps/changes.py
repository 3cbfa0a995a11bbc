"""Command-line overrides of a sweep (`--set KEY=VALUE`), applied to the parsed file before it is checked.

A key is the path of the value in the file, such as `methods.supsup.training.learning_rate`; the value is read like one
of the file. Methods, variants and benchmarks must be in the file. Other keys may be missing there, and are checked
like the file's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from orchestrator.errors import nearest
from orchestrator.store.json_fields import MAX_TEXT
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.yaml_source import Source, parse

OPTION = "--set"


def make(source: Source, changes: Iterable[str]) -> None:
    """Make changes to a parsed file.

    Args:
        source: the file, which is changed, and collects the faults of changes that cannot be made.
        changes: each a key, `=` and a value.
    """
    for change in changes:
        if not change.isprintable() or len(change) > MAX_TEXT:
            message = f"expected at most {MAX_TEXT:,} printable characters, since the store records it"
            _refuse(
                source, (change,), change if change.isprintable() else repr(change), "change-not-printable", message
            )
            continue
        found = _split(source, change)
        if found is None:
            continue
        path, text = found
        if path in source.options:
            source.fault(path, "repeated-key", f"given twice, also as {OPTION} {change}; keep one of them")
        else:
            _put(source, path, text, f"{OPTION} {change}")


def _split(source: Source, change: str) -> tuple[KeyPath, str] | None:
    """The path and the value's text of a change; None after a fault.

    The file's own names may contain dots and equals signs, so the longest name that fits is taken.
    """
    path: KeyPath = ()
    here, rest = source.value, change
    while True:
        if path == ("benchmarks",) and isinstance(here, list):
            here = _with_keys(source, here)
        names = {} if here is None else here
        if not isinstance(names, dict):
            message = f"expected keys, given {source.given(path, here)}; set it as a whole"
            _refuse(source, path, change, "wrong-type", message)
            return None
        fitting = [name for name in names if rest.startswith((f"{name}.", f"{name}="))]
        key = max(fitting, key=len, default=rest[: _end(rest)])
        path = (*path, key)
        if _end(rest) == len(rest):
            example = "methods.supsup.training.learning_rate=0.001"
            _refuse(source, path, change, "change-without-value", f"expected a key, = and a value, such as {example}")
            return None
        if _is_label(path) and key not in names:
            _refuse(source, path, change, "unknown-name", nearest(key, names))
            return None
        here, end, rest = names.get(key), rest[len(key)], rest[len(key) + 1 :]
        if end == "=":
            return path, rest


def _end(text: str) -> int:
    """The index after the first key of a text."""
    return min((at for sign in ".=" if (at := text.find(sign)) >= 0), default=len(text))


def _is_label(path: KeyPath) -> bool:
    """Whether the last key of a path is one of the file's names, which a change cannot add."""
    return path[:-1] in (("methods",), ("benchmarks",)) or (len(path) == 4 and path[2] == "variants")


def _refuse(source: Source, path: KeyPath, change: str, code: str, message: str) -> None:
    source.options[path] = f"{OPTION} {change}"
    source.fault(path, code, message)


def _with_keys(source: Source, presets: list[Any]) -> Any:
    """A list of benchmarks as the equivalent mapping, so that their settings can be changed."""
    if not all(isinstance(name, str) for name in presets) or len(set(presets)) < len(presets):
        return presets  # faults that are reported for the list
    for index, name in enumerate(presets):
        source.lines["benchmarks", name] = source.lines["benchmarks", index]
    source.value["benchmarks"] = dict.fromkeys(presets)
    return source.value["benchmarks"]


def _put(source: Source, path: KeyPath, text: str, option: str) -> None:
    """Set the value at a path, all of whose parents are mappings or missing."""
    here: dict[str, Any] = source.value
    for depth, key in enumerate(path[:-1], start=1):
        if here.get(str(key)) is None:
            here[str(key)] = {}
            source.options.setdefault(path[:depth], option)
        here = here[str(key)]
    _forget(source, path)
    source.options[path] = option
    try:
        here[str(path[-1])] = parse(source, text, path)
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or " ".join(str(error).split())
        message = f"expected a value in YAML, but it does not parse: {why}; quote what is text"
        source.fault(path, "value-not-yaml", message)
        source.unread.add(path)
    source.lines = _without(source.lines, path)


def _forget(source: Source, path: KeyPath) -> None:
    """Forget the place and text in the file of a replaced value."""
    source.lines = _without(source.lines, path)
    source.written = _without(source.written, path)


def _without(values: Mapping[KeyPath, Any], path: KeyPath) -> dict[KeyPath, Any]:
    return {place: value for place, value in values.items() if place[: len(path)] != path}
