"""The rule that decides which trials may be averaged as seeds of one cell. Pure.

Trials that differ in any of these are kept apart, since a mean over them is meaningless:

- `settings`: the spec without the seed, so the method's settings, benchmark, scale and training, including the dtype;
- `numerics.device`: the kind of processor, cpu or cuda;
- `crwn`: the major version of the code (with the minor one while it is 0, as in semantic versioning);
- `backbones`: the scheme by which frozen weights were drawn, named by a fingerprint `scheme:digits`; digits alone
  denote the first scheme;
- `code.method`: the fingerprint of the method's file, among trials of the same method;
- `code.results_version`: increased by crwn whenever its own methods give different results;
- `code.added`: the fingerprint of the plug-ins that define the network, the benchmark or the base set.

Code that a user has accepted as equivalent (`accepted.py`) counts as equal.

Differences in these are only noted, since results agree within the tolerance stated in tests/contracts: group size,
kernel, threads, host, the processor's name, the versions of torch and NumPy, the commit. Times depend on them, and a
table says so. Also noted: the fingerprint of all of crwn's code, code that is unknown for some trials, and code
accepted as equivalent.

A trial whose own attempts used different code (`attempts.code_changes`) stays in the mean, and is marked.

A field that was not recorded, by an older crwn or because a source could not be read, does not count as a difference.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from crwn.code import Code
from orchestrator.store.accepted import NOTHING, Accepted
from orchestrator.store.provenance import Provenance, RecordedNumerics

APART = ("settings", "numerics.device", "crwn", "backbones", "code.method", "code.results_version", "code.added")
"""Columns of trials in which the seeds of one cell must agree."""

CODE = ("code.method", "code.results_version", "code.added", "code.crwn")
"""Columns that identify the code, see `crwn.code`; the last is only noted, the others keep trials apart."""

COUNTS_AS_ONE: Mapping[str, str] = MappingProxyType(
    {name: f"{name}.accepted" for name in ("code.method", "code.results_version")}
)
"""For these columns of `APART`, the columns with all values equivalent to a trial's own; None if only its own is."""

NOTED = (
    "numerics.group_size",
    "numerics.kernel",
    "numerics.threads",
    "host",
    "device",
    "versions.torch",
    "versions.numpy",
    "commit",
    "code.crwn",
)
"""Columns of trials in which the seeds of one cell may differ."""

DESCRIBED = (*APART, *NOTED)
"""Columns by which trials can be chosen."""

CODE_CHANGES = "code_changes"
"""The column of trials that says how the code of a trial's own attempts differs; empty if it does not."""

UNKNOWN = "unknown"
"""Shown for code that was not recorded."""

ABSENT = "as before"
"""Shown for a setting that only one of two specs has, because the other predates it and implies its default."""


def describe(
    spec: str, numerics: str, provenance: str, fingerprint: str, accepted: Accepted = NOTHING
) -> dict[str, Any]:
    """The values of `DESCRIBED`, `COUNTS_AS_ONE`, `CODE_CHANGES` and `train_seconds_per_task` in a trial's record.

    A value that was not recorded is None.

    Args:
        spec: JSON, as stored.
        numerics: JSON, as stored.
        provenance: JSON, as stored.
        fingerprint: the fingerprint of the trial's backbone.
        accepted: the code accepted as equivalent in its store.
    """
    settings = json.loads(spec)
    computed, origin = RecordedNumerics.from_json(numerics), Provenance.from_json(provenance, with_attempts=False)
    code = origin.code or Code()
    return {
        "settings": settings_of(settings),
        "crwn": major(origin.versions.get("crwn")),
        "backbones": fingerprint.rpartition(":")[0] or "first",
        "numerics.group_size": computed.group_size,
        "numerics.threads": computed.threads,
        "numerics.device": computed.device,
        "numerics.kernel": computed.kernel,
        **{f"versions.{name}": origin.versions.get(name) for name in ("torch", "numpy")},
        "host": origin.host,
        "device": origin.device,
        "commit": origin.commit,
        "code.method": code.method,
        "code.results_version": code.results_version,
        "code.added": code.added,
        "code.crwn": code.crwn,
        **_counts_as_one(settings, code, accepted),
        CODE_CHANGES: origin.code_changes,
        "train_seconds_per_task": origin.train_seconds_per_task,
    }


def _counts_as_one(spec: Mapping[str, Any], code: Code, accepted: Accepted) -> dict[str, frozenset[Any] | None]:
    """The code equivalent to a trial's, by the names of `COUNTS_AS_ONE`."""
    one: dict[str, frozenset[Any] | None] = dict.fromkeys(COUNTS_AS_ONE.values())
    if accepted.agreements:
        kind = spec["method"]["kind"]
        if code.method is not None:
            one[COUNTS_AS_ONE["code.method"]] = accepted.codes(kind, code.method)
        if code.results_version is not None:
            one[COUNTS_AS_ONE["code.results_version"]] = accepted.results_versions(kind, code.results_version)
    return one


def settings_of(spec: Mapping[str, Any]) -> str:
    """A spec without its seed, as JSON that is equal for equal settings."""
    kept = {name: value for name, value in spec.items() if name != "seed"}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def major(version: str | None) -> str | None:
    """The part of a version that changes with the meaning of results: `2` of 2.1.0, `0.3` of 0.3.1."""
    if version is None:
        return None
    first, *others = version.split(".")
    return ".".join([first, *others[:1]]) if first == "0" else first


def flat(settings: str | Mapping[str, Any]) -> dict[str, Any]:
    """Settings, also as JSON, by dotted names, such as `training.learning_rate`."""
    return dict(_leaves("", json.loads(settings) if isinstance(settings, str) else settings))


def _leaves(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for name, part in value.items():
        yield from _leaves(f"{prefix}.{name}" if prefix else name, part)


def mixture(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = APART) -> dict[str, dict[str, list[Any]]]:
    """The differences between trials of one cell, or of two compared cells, in columns in which they must agree.

    Args:
        rows: trials, with `seed` and those columns of `names` and `COUNTS_AS_ONE` that they have.
        names: the columns of `APART` to compare.

    Returns:
        The result of `differences`, without equivalent code and code of different methods.
    """
    found = differences(rows, names)
    for name in COUNTS_AS_ONE.keys() & found.keys():
        apart = _of_unlike_code(rows, name)
        if apart:
            found[name] = _by_value((row.get("seed"), row[name]) for row in apart)
        else:
            del found[name]
    return found


def noted(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """The allowed differences between trials of one cell: `NOTED`, equivalent code, and code unknown for some.

    Args:
        rows: as in `mixture`, which must find no differences.
    """
    found = differences(rows, NOTED)
    for name in COUNTS_AS_ONE:
        said = [(row.get("seed"), UNKNOWN if _is_unknown(row.get(name)) else row[name]) for row in rows]
        values = _by_value(said)
        if len(values) > 1:
            found[name] = values
    return found


def differences(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """All differences between trials.

    Args:
        rows: trials, with `seed` and those columns of `names` that they have.
        names: the columns to compare; `settings` is split into its dotted names.

    Returns:
        For each name that differs, the seeds by value as text, in order of occurrence; empty if the trials agree.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for name in names:
        said = [(row.get("seed"), row[name]) for row in rows if not _is_unknown(row.get(name))]
        if len({value for _, value in said}) < 2:
            continue
        if name != "settings":
            found[name] = _by_value(said)
            continue
        leaves = [(seed, flat(value)) for seed, value in said]
        for leaf in dict.fromkeys(leaf for _, values in leaves for leaf in values):
            values = _by_value((seed, values.get(leaf, ABSENT)) for seed, values in leaves)
            if len(values) > 1:
                found[leaf] = values
    return found


def _of_unlike_code(rows: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """The trials whose code differs from some other trial's, and is not equivalent to it."""
    groups: dict[tuple[str | None, frozenset[Any]], list[Mapping[str, Any]]] = {}
    for row in rows:
        if not _is_unknown(row.get(name)):
            accepted = row.get(COUNTS_AS_ONE[name])
            one = accepted if isinstance(accepted, frozenset) else frozenset({row[name]})
            groups.setdefault((_method(row) if name == "code.method" else None, one), []).append(row)
    apart = {
        group
        for pair in itertools.combinations(groups, 2)
        for group in pair
        if pair[0][0] == pair[1][0] and not pair[0][1] & pair[1][1]
    }
    return [row for group, members in groups.items() if group in apart for row in members]


def _method(row: Mapping[str, Any]) -> str | None:
    """The method's name in the registry; the row's own method column may hold a sweep's label."""
    settings = row.get("settings")
    return None if _is_unknown(settings) else str(json.loads(str(settings)).get("method", {}).get("kind"))


def _is_unknown(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 (NaN, or a missing value of pandas)


def _by_value(said: Iterable[tuple[Any, Any]]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for seed, value in said:
        seeds = values.setdefault(str(value), [])
        if seed not in seeds:
            seeds.append(seed)
    return values


def show_mixture(found: Mapping[str, Mapping[str, Sequence[Any]]]) -> str:
    """The result of `mixture` as text: `training.learning_rate is 0.01 (seeds 0, 1), 0.1 (seed 2)`; may be empty."""
    return "; ".join(
        f"{name} is "
        + ", ".join(
            f"{value} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
            for value, seeds in values.items()
        )
        for name, values in found.items()
    )


def show_code_changes(rows: Sequence[Mapping[str, Any]]) -> str:
    """How the code of trials' own attempts differs, as text: `seed 1: torch 2.11.0 -> 2.12.0`; may be empty."""
    return "; ".join(f"seed {row['seed']}: {changes}" for row in rows if (changes := code_changes(row)))


def code_changes(row: Mapping[str, Any]) -> str:
    """How the code of a trial's own attempts differs; empty if it does not, or is not known."""
    changes = row.get(CODE_CHANGES)
    return "" if _is_unknown(changes) else str(changes)


def once(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Trials without duplicates that have the same result, such as copies in two stores.

    Args:
        rows: trials, with `trial_id`, and `fingerprint` and `final` if they have them.
    """
    kept: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        kept.setdefault((row["trial_id"], row.get("fingerprint"), tuple(row.get("final", ()))), row)
    return list(kept.values())


def show_repeated(rows: Sequence[Mapping[str, Any]]) -> str:
    """The seeds with several results, as text; empty if there are none."""
    counts = Counter(row["seed"] for row in rows)
    again = [str(seed) for seed, count in counts.items() if count > 1]
    return f"several results at seed {', '.join(again)}, with equal settings" if again else ""
