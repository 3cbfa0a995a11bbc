"""Reads a trial's spec from JSON strictly: all faults are reported together, each with its place."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crwn.benchmarks import BENCHMARKS
from crwn.data import BASE_SETS
from crwn.faults import Fault, InvalidError, codes_of
from crwn.methods import METHODS
from crwn.methods.networks import is_built_in
from crwn.methods.protocol import NETWORKS
from crwn.plugins import PluginError, find, find_network, installed_names
from crwn.registry import Registry
from crwn.spec import TrainingSpec
from crwn.strict_json import parse

MAX_SHOWN = 100
"""Maximum number of characters shown of a faulty value."""


def values_of(text: str) -> Any:
    """A trial's spec as parsed JSON.

    Raises:
        ValueError: it is no JSON, or nested too deeply, or has a key twice.
    """
    if not isinstance(text, str):
        raise InvalidError("wrong-type", f"expected a trial's spec as JSON text, given {type(text).__name__}")
    try:
        return parse(text)
    except RecursionError as error:
        message = "expected a trial's spec as JSON, given text that is nested too deeply"
        raise InvalidError("not-json", message) from error
    except ValueError as error:
        message = f"expected a trial's spec as JSON, given {_shown(text)}: {error}"
        raise InvalidError(codes_of(error, "not-json"), message) from error


def fields_of(values: Any, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a trial's spec, each built from its part of the parsed JSON.

    Args:
        values: the parsed JSON.
        names: the fields' names; all are required.

    Raises:
        ValueError: keys are unknown or missing, or values are wrong; the message names all faults.
    """
    if not isinstance(values, Mapping):
        message = f"expected a trial's spec, with {', '.join(names)}, given {_shown(values)}"
        raise InvalidError("wrong-type", message)
    faults = _key_faults("", values, names, needed=names)
    registries: dict[str, Registry[Any]] = {"method": METHODS, "benchmark": BENCHMARKS}
    parts = {name: _part(name, values[name], known, faults) for name, known in registries.items() if name in values}
    if "training" in values:
        parts["training"] = _built("training", TrainingSpec, values["training"], faults)
    try:
        if isinstance(scale := values.get("scale"), str):
            find_network(scale)
    except PluginError as error:
        faults.append(Fault(error.codes, f"scale: {error}"))
    if faults:
        raise InvalidError.of(faults)
    return {**values, **parts}


def unknown_names(values: Mapping[str, Any]) -> dict[str, str]:
    """The names in a trial's spec that this process does not know, since a plug-in that defines them is not loaded.

    Args:
        values: the spec, as parsed JSON.

    Returns:
        The names by what they name: `method`, `benchmark`, `base set` or `network`.
    """
    method, benchmark, scale = (values.get(name) for name in ("method", "benchmark", "scale"))
    named: dict[str, tuple[Registry[Any], Any]] = {
        "method": (METHODS, method.get("kind") if isinstance(method, Mapping) else None),
        "benchmark": (BENCHMARKS, benchmark.get("kind") if isinstance(benchmark, Mapping) else None),
        "base set": (BASE_SETS, benchmark.get("base") if isinstance(benchmark, Mapping) else None),
    }
    found = {what: name for what, (known, name) in named.items() if isinstance(name, str) and not _finds(known, name)}
    # A plug-in's names begin with a small letter, unlike most scales.
    if isinstance(scale, str) and scale[:1].islower() and not is_built_in(scale) and not _finds(NETWORKS, scale):
        found["network"] = scale
    return found


def _finds(known: Registry[Any], name: str) -> bool:
    """Whether a registry has a name, possibly from an installed plug-in; a broken plug-in does not count."""
    try:
        return find(known, name)
    except PluginError:
        return False


def _part(place: str, value: Any, known: Registry[Any], faults: list[Fault]) -> Any:
    """A method's or benchmark's spec, built in or from an installed plug-in; None if it has faults."""
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str):
        expected = f"settings with a kind, one of {', '.join(known)}"
        faults.append(Fault("wrong-type", f"{place}: expected {expected}; given {_shown(value)}"))
        return None
    try:
        if not find(known, kind):
            names = sorted({*known, *installed_names(known)})
            faults.append(Fault("unknown-name", f"{place}.kind: {_unknown(kind, names)}"))
            return None
    except PluginError as error:
        faults.append(Fault(error.codes, f"{place}.kind: {error}"))
        return None
    settings = {name: each for name, each in value.items() if name != "kind"}
    return _built(place, known[kind].spec, settings, faults)


def _built(place: str, spec: Any, value: Any, faults: list[Fault]) -> Any:
    """An object of the class `spec`, by its fields; None if it has faults."""
    if not isinstance(value, Mapping):
        faults.append(Fault("wrong-type", f"{place}: expected settings, given {_shown(value)}"))
        return None
    fields = [item for item in dataclasses.fields(spec) if item.init]
    needed = [item.name for item in fields if item.default is dataclasses.MISSING]
    found = _key_faults(f"{place}.", value, [item.name for item in fields], needed=needed)
    faults += found
    if found:
        return None
    try:
        return spec(**value)
    except ValueError as error:
        faults.append(Fault(codes_of(error, "setting-refused"), f"{place}: {error}"))
        return None


def _key_faults(prefix: str, value: Mapping[str, Any], known: Iterable[str], *, needed: Iterable[str]) -> list[Fault]:
    """The keys that are unknown or missing."""
    unknown = [name for name in value if name not in known]
    missing = [name for name in needed if name not in value]
    return [
        *(Fault("unknown-key", f"{prefix}{_cut(name)}: {_unknown(name, known)}") for name in unknown),
        *(Fault("missing-key", f"{prefix}{name}: expected this key, not given; add it") for name in missing),
    ]


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected one of {', '.join(known)}; given {_shown(name)}{hint}"


def _shown(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
