"""The index of a store's finished trials: one table with one row per trial, with the accuracy of every task.

Reading the records of ten thousand trials takes most of a minute, reading one file of them a second. So the store keeps
that file, `index/trials.parquet`, and updates it whenever all trials are read: a listing of the store shows which
records are new, gone, or rewritten since they were read (by modification time and size), and only those are read. The
index is a copy of the records and can be deleted at any time; if it is in any doubt, or cannot be written, the records
are read instead.

Only intact, consistent records enter the index, so trials found in it need no further checks.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from crwn.code import Code
from orchestrator import measures
from orchestrator.errors import UserError
from orchestrator.store import parquet_files
from orchestrator.store.finished import Result
from orchestrator.store.parquet_files import SEALED_SINCE
from orchestrator.store.provenance import Provenance
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.schemas import TRIALS_SCHEMA
from orchestrator.store.store import Store

_BY_TASK = ("final", "learned", "seen", "recalled")
_COMPUTED = tuple(name for name in measures.COMPUTED if name not in TRIALS_SCHEMA.names)

RESULTS_SCHEMA = pa.schema(
    [
        *TRIALS_SCHEMA,
        *(pa.field(name, pa.list_(pa.float64())) for name in _BY_TASK),
        *(pa.field(name, pa.float64()) for name in _COMPUTED),
        pa.field("stream", pa.bool_()),
    ]
)
"""The `trials` row; final, learned, seen and recalled from `integrity.Outcome`; the measures of `measures.COMPUTED`,
some of which are in the record, null if unknown; stream, whether tests are by update. Lists have NaN for tasks not
tested."""

INDEX_FILE = "trials.parquet"

INDEX_VERSION = "5"
"""Version of the index; an index of another version is rebuilt."""

FEW = 100
"""Number of trials below which there is no index."""

UNSETTLED = 3.0
"""Seconds after a write in which another may go unnoticed, if times are whole seconds; the record is then reread."""

BATCH = 500
"""Number of records read before their tables are merged: small tables take many times the memory of their rows."""

MOST_FAULTS = 10
"""Number of damaged trials that an error lists individually."""

_SIGNED_SCHEMA = pa.schema(
    [
        *RESULTS_SCHEMA,
        pa.field("signature", pa.string()),
        pa.field("sealed", pa.bool_()),
        pa.field("method_code", pa.string()),
        pa.field("results_version", pa.int64()),
        pa.field("benchmark_kind", pa.string()),
        pa.field("base", pa.string()),
        pa.field("added_code", pa.string()),
    ],
    metadata=TRIALS_SCHEMA.metadata,
)
_CODES = ("trial_id", "method", "method_code", "results_version", "benchmark_kind", "base", "scale", "added_code")
_CODES_SCHEMA = pa.schema([_SIGNED_SCHEMA.field(name) for name in _CODES])
_KNOWN_SCHEMA = pa.schema(
    [*_CODES_SCHEMA, *(_SIGNED_SCHEMA.field(name) for name in ("signature", "sealed"))],
)


def results(store: Store, trial_ids: Iterable[str] | None = None) -> pa.Table:
    """The finished trials of a store.

    Args:
        store: the store.
        trial_ids: the trials wanted; None: all.

    Returns:
        Rows of `RESULTS_SCHEMA`, in the order asked for, or sorted by trial; unfinished trials have no row.

    Raises:
        UserError: records are damaged, swapped, or newer than this reader; the message names them.
    """
    wanted = None if trial_ids is None else list(dict.fromkeys(trial_ids))
    if wanted is not None and len(wanted) < FEW:
        finished = store.finished(wanted)
        found = _read(store, [trial_id for trial_id in wanted if trial_id in finished])
    else:
        signatures = store.signatures()  # before reading the records, so that concurrent writes cause a reread
        if len(signatures) < FEW:
            asked = list(signatures) if wanted is None else [trial_id for trial_id in wanted if trial_id in signatures]
            found = _read(store, asked)
        else:
            found = _up_to_date(store, signatures)
    _refuse(found.faults if wanted is None else {name: found.faults[name] for name in wanted if name in found.faults})
    table = found.table.select(RESULTS_SCHEMA.names)
    if wanted is None:
        return table
    places = {trial_id: place for place, trial_id in enumerate(table["trial_id"].to_pylist())}
    return table.take(pa.array([places[trial_id] for trial_id in wanted if trial_id in places], pa.int64()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a quick look shows of a finished trial.

    Attributes:
        trial_id: the hash of the spec.
        spec: its settings as JSON.
        seconds: time of training and tests; None if not recorded.
        host: the machine's name; None if not recorded.
    """

    trial_id: str
    spec: str
    seconds: float | None
    host: str | None


def glance(store: Store) -> Iterator[Glance]:
    """The finished trials of a store that are quick to read: all of a small store, else those in its index.

    Nothing is written, and damaged records are left out.
    """
    signatures = store.signatures()
    table = _read(store, list(signatures)).table if len(signatures) < FEW else _load(store, RESULTS_SCHEMA)
    if table is None:
        return
    columns = (table[name].to_pylist() for name in ("trial_id", "spec", "seconds", "provenance"))
    for trial_id, spec, seconds, provenance in zip(*columns, strict=True):
        host = Provenance.from_json(provenance, with_attempts=False).host
        yield Glance(trial_id=trial_id, spec=spec, seconds=seconds, host=host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The code that computed a finished trial.

    Attributes:
        method: its name in the registry.
        benchmark, base: the names of its benchmark and base set in theirs.
        scale: its scale, perhaps the name of a network.
        code: what keeps it apart from other trials (`store.compatibility`), as far as recorded.
    """

    method: str
    benchmark: str
    base: str
    scale: str
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The state of the records of finished trials.

    Attributes:
        faults: what is wrong with damaged records, by trial.
        computed: the code that computed the other trials, by trial.
    """

    faults: Mapping[str, UserError]
    computed: Mapping[str, Computed]


def look(store: Store, trial_ids: Iterable[str]) -> Looked:
    """Check whether the records of finished trials are intact, and which code computed them.

    Records in the index are not read again.
    """
    wanted = list(dict.fromkeys(trial_ids))
    if len(wanted) < FEW:
        found = _read(store, wanted)
        return Looked(faults=found.faults, computed=_computed(found.table))
    signatures = store.signatures()
    computed = _known(store, signatures)
    faults: Mapping[str, UserError] = {}
    if not all(trial_id in computed for trial_id in wanted):
        found = _up_to_date(store, signatures)
        computed, faults = _computed(found.table), found.faults
    return Looked(
        faults={trial_id: faults[trial_id] for trial_id in wanted if trial_id in faults},
        computed={trial_id: computed[trial_id] for trial_id in wanted if trial_id in computed},
    )


def _computed(table: pa.Table) -> dict[str, Computed]:
    """The code of each trial, from the columns of `_CODES_SCHEMA`; thousands of trials share equal objects."""
    columns = [table[name].to_pylist() for name in _CODES_SCHEMA.names]
    known: dict[tuple[Any, ...], Computed] = {}
    found = {}
    for trial_id, *key in zip(*columns, strict=True):
        each = known.get(tuple(key))
        if each is None:
            method, code, version, benchmark, base, scale, added = key
            whole = Code(method=code, results_version=version, added=added)
            each = Computed(method=method, benchmark=benchmark, base=base, scale=scale, code=whole)
            known[tuple(key)] = each
        found[trial_id] = each
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Numbers of finished trials whose records are omitted from tables, or cannot be verified.

    Attributes:
        damaged: trials with damaged records.
        unsealed: trials whose records have no checksums, so they cannot be verified.
        computed: the code that computed trials, by trial, as far as a quick look shows.
    """

    damaged: int = 0
    unsealed: int = 0
    computed: Mapping[str, Computed] = field(default_factory=dict, compare=False)


def doubts(store: Store, finished: Sequence[str]) -> Doubts:
    """A quick look at the records of finished trials.

    In a large store of a version with checksums, only the index is consulted: records without checksums can only have
    been copied in, and damaged ones are found whenever all records are read.

    Args:
        store: the store.
        finished: the trials to consider.
    """
    if not finished:
        return Doubts()
    is_large = len(finished) >= FEW
    computed: dict[str, Computed] = {}
    if is_large and store.version >= SEALED_SINCE:
        index = _load(store, _KNOWN_SCHEMA)
        pairs = [] if index is None else zip(index["trial_id"].to_pylist(), index["sealed"].to_pylist(), strict=True)
        without = {trial_id for trial_id, sealed in pairs if not sealed}
        asked = set(finished)
        known = {} if index is None else _computed(index)
        computed = {trial_id: each for trial_id, each in known.items() if trial_id in asked}
        finished = [trial_id for trial_id in finished if trial_id in without]
        if not finished:
            return Doubts(computed=computed)
    found = _up_to_date(store, store.signatures()) if len(finished) >= FEW else _read(store, finished)
    asked = set(finished)
    read = {trial_id: each for trial_id, each in _computed(found.table).items() if trial_id in asked}
    pairs = zip(found.table["trial_id"].to_pylist(), found.table["sealed"].to_pylist(), strict=True)
    return Doubts(
        damaged=len(asked & set(found.faults)),
        unsealed=sum(trial_id in asked and not sealed for trial_id, sealed in pairs),
        computed={**computed, **read},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Rows of `_SIGNED_SCHEMA` for trials with intact records, and what is wrong with the others, by trial."""

    table: pa.Table
    faults: dict[str, UserError]


def _refuse(faults: Mapping[str, UserError]) -> None:
    if not faults:
        return
    lines = [str(error) for error in faults.values()]
    more = [f"and the records of {len(lines) - MOST_FAULTS} more trials"] if len(lines) > MOST_FAULTS else []
    raise UserError.of(faults.values(), "\n".join(lines[:MOST_FAULTS] + more))


def _up_to_date(store: Store, signatures: Mapping[str, tuple[tuple[int, int], ...]]) -> _Found:
    """All rows sorted by trial, from the index if still current, else from the records; the index is updated."""
    now = time.time()
    current = {trial_id: _text(signature, now) for trial_id, signature in signatures.items()}
    index = _load(store, _SIGNED_SCHEMA)
    index = _SIGNED_SCHEMA.empty_table() if index is None else index
    is_true = _are_true(index, current)
    kept = index.filter(pa.array(is_true, pa.bool_()))
    have = set(kept["trial_id"].to_pylist())
    missing = [trial_id for trial_id in current if trial_id not in have]
    if not missing and len(kept) == len(index):
        return _Found(table=index, faults={})
    read = _read(store, missing)
    signed = pa.array([current[trial_id] for trial_id in read.table["trial_id"].to_pylist()], pa.string())
    place = _SIGNED_SCHEMA.get_field_index("signature")
    table = pa.concat_tables([kept, read.table.set_column(place, _SIGNED_SCHEMA.field("signature"), signed)])
    table = table.sort_by("trial_id").combine_chunks()
    with contextlib.suppress(OSError):  # a read-only store can still be read
        content = parquet_files.dump(table.replace_schema_metadata(TRIALS_SCHEMA.metadata), {"index": INDEX_VERSION})
        store.index.write(INDEX_FILE, content)
    return _Found(table=table, faults=read.faults)


def _known(store: Store, signatures: Mapping[str, tuple[tuple[int, int], ...]]) -> dict[str, Computed]:
    """The trials whose rows in the index are still current, with the code that computed them."""
    now = time.time()
    current = {trial_id: _text(signature, now) for trial_id, signature in signatures.items()}
    index = _load(store, _KNOWN_SCHEMA)
    if index is None:
        return {}
    return _computed(index.filter(pa.array(_are_true(index, current), pa.bool_())))


def _are_true(index: pa.Table, current: Mapping[str, str]) -> list[bool]:
    """For each row of the index, whether its trial's records are unchanged since they were read."""
    pairs = zip(index["trial_id"].to_pylist(), index["signature"].to_pylist(), strict=True)
    return [bool(signature) and signature == current.get(trial_id) for trial_id, signature in pairs]


def _text(signature: Sequence[tuple[int, int]], now: float) -> str:
    """A trial's signature as stored in the index; empty while records may change unnoticed."""
    if any(written / 1e9 > now - UNSETTLED for written, _ in signature):
        return ""
    return json.dumps(signature)


def _load(store: Store, schema: pa.Schema) -> pa.Table | None:
    """These columns of the stored index; None if there is no valid index.

    An empty table instead of None would make Arrow import pandas, which takes a second.
    """
    with contextlib.suppress(OSError, UserError):
        found = parquet_files.load(store.index.read(INDEX_FILE), schema, store.index.locate(INDEX_FILE))
        has_all = not any(found.table[name].null_count for name in _ALWAYS & set(schema.names))
        if found.is_sealed and has_all and found.said.get("index") == INDEX_VERSION:
            return found.table
    return None


_ALWAYS = {"trial_id", *("method", "variant", "benchmark", "scale", "seed", "accuracy", "fingerprint", "spec")} | {
    *(*_BY_TASK, "stream", "signature", "sealed")
}
"""Columns in which every trial has a value; a file that lacks one has nulls."""


def _read(store: Store, trial_ids: Sequence[str]) -> _Found:
    """Rows read from the records themselves, without signatures."""
    tables, faults = [_SIGNED_SCHEMA.empty_table()], {}
    for start in range(0, len(trial_ids), BATCH):
        batch = trial_ids[start : start + BATCH]
        found: list[Result] = []
        for trial_id, result in zip(batch, store.records.results(batch), strict=True):
            if isinstance(result, UserError):
                faults[trial_id] = result
            else:
                found.append(result)
        tables.append(_together(found))
    return _Found(table=pa.concat_tables(tables).combine_chunks(), faults=faults)


def _or_null(value: float) -> float | None:
    """A measure as stored in its column: null if unknown."""
    return None if math.isnan(value) else value


def _together(found: Sequence[Result]) -> pa.Table:
    """The results as rows of `_SIGNED_SCHEMA`."""
    table = pa.concat_tables([TRIALS_SCHEMA.empty_table(), *(result.trial for result in found)]).combine_chunks()
    benchmarks = [RecordedSpec.from_index(spec).benchmark for spec in table["spec"].to_pylist()]
    columns = {
        **{name: [getattr(result.outcome, name) for result in found] for name in _BY_TASK},
        **{name: [_or_null(result.outcome.measures[name]) for result in found] for name in _COMPUTED},
        "stream": [result.is_stream for result in found],
        "signature": [""] * len(found),
        "sealed": [result.is_sealed for result in found],
        "method_code": [result.code.method for result in found],
        "results_version": [result.code.results_version for result in found],
        "benchmark_kind": [benchmark["kind"] for benchmark in benchmarks],
        "base": [benchmark["base"] for benchmark in benchmarks],
        "added_code": [result.code.added for result in found],
    }
    for name, values in columns.items():
        field = _SIGNED_SCHEMA.field(name)
        table = table.append_column(field, pa.array(values, field.type))
    return table.cast(_SIGNED_SCHEMA)
