"""A store's finished trials as one table: a row a trial, with the accuracy of every task.

Reading ten thousand trials' records takes most of a minute, reading one file of them a second. So that file is kept in
the store, `index/trials.parquet`, and brought up to date whenever all trials are asked for: a listing of the store says
which records are new, gone, or written again since they were read (by when they were written and how long they are),
and only those are read. It is a copy of what the records say and can be thrown away at any time; where it is damaged,
of another version, or cannot be written, the records are read.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.store import TRIALS_SCHEMA, Store

RESULTS_SCHEMA = pa.schema(
    [*TRIALS_SCHEMA, pa.field("final", pa.list_(pa.float64())), pa.field("learned", pa.list_(pa.float64()))]
)
"""The `trials` row; final, the accuracy of each task after the last one, in [0, 1], in the tasks' order; learned, that
of each when it was learned. NaN where a task was not tested."""

INDEX_FILE = "trials.parquet"

INDEX_VERSION = b"1"
"""Another one is not read but made anew."""

FEW = 100
"""Trials below which no index is kept."""

UNSETTLED = 3.0
"""Seconds for which a record may be written again unnoticed, where times are whole seconds; it is then read again."""

BATCH = 500
"""Records read before they are put together: small tables take many times the memory of their rows."""

_SIGNED_SCHEMA = pa.schema([*RESULTS_SCHEMA, pa.field("signature", pa.string())])


def results(store: Store, trial_ids: Iterable[str] | None = None) -> pa.Table:
    """The finished trials of a store.

    Args:
        store: the store.
        trial_ids: those wanted; None for all.

    Returns:
        Rows of `RESULTS_SCHEMA`, in the order asked for, or by trial; trials that are not finished have none.

    Raises:
        UserError: a record is damaged or newer than this reader.
    """
    wanted = None if trial_ids is None else list(dict.fromkeys(trial_ids))
    if wanted is not None and len(wanted) < FEW:
        return _read(store, wanted)
    signatures = store.signatures()  # before the records are read: what is written meanwhile is then read again
    if len(signatures) < FEW:
        return _read(store, list(signatures) if wanted is None else wanted)
    table = _up_to_date(store, signatures)
    if wanted is None:
        return table
    places = {trial_id: place for place, trial_id in enumerate(table["trial_id"].to_pylist())}
    return table.take(pa.array([places[trial_id] for trial_id in wanted if trial_id in places], pa.int64()))


def _up_to_date(store: Store, signatures: Mapping[str, tuple[tuple[int, int], ...]]) -> pa.Table:
    """All rows by trial: those of the index that are still true, the others from their records; kept for next time."""
    now = time.time()
    current = {trial_id: _text(signature, now) for trial_id, signature in signatures.items()}
    index = _load(store)
    known = dict(zip(index["trial_id"].to_pylist(), index["signature"].to_pylist(), strict=True))
    is_true = [bool(known[trial_id]) and known[trial_id] == current.get(trial_id) for trial_id in known]
    kept = index.filter(pa.array(is_true, pa.bool_()))
    missing = [trial_id for trial_id in current if not known.get(trial_id) or known[trial_id] != current[trial_id]]
    if not missing and len(kept) == len(index):
        return index.select(RESULTS_SCHEMA.names)
    found = _read(store, missing)
    signed = pa.array([current[trial_id] for trial_id in found["trial_id"].to_pylist()], pa.string())
    table = pa.concat_tables([kept, found.append_column(_SIGNED_SCHEMA.field("signature"), signed)])
    table = table.sort_by("trial_id").combine_chunks()
    with contextlib.suppress(OSError):  # a store that may only be read is read
        store.index.write(INDEX_FILE, _bytes(table))
    return table.select(RESULTS_SCHEMA.names)


def _text(signature: Sequence[tuple[int, int]], now: float) -> str:
    """A trial's signature as the index keeps it; empty while it may change unnoticed."""
    if any(written / 1e9 > now - UNSETTLED for written, _ in signature):
        return ""
    return json.dumps(signature)


def _load(store: Store) -> pa.Table:
    """The index as it is kept; no rows where there is none that can be used."""
    with contextlib.suppress(OSError, pa.ArrowException, ValueError):
        table = pq.ParquetFile(pa.BufferReader(store.index.read(INDEX_FILE))).read()
        if (table.schema.metadata or {}).get(b"crwn.index") == INDEX_VERSION:
            return table.select(_SIGNED_SCHEMA.names).cast(_SIGNED_SCHEMA)
    return _SIGNED_SCHEMA.empty_table()


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    marked = table.replace_schema_metadata({b"crwn.index": INDEX_VERSION})
    pq.write_table(marked, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _read(store: Store, trial_ids: Sequence[str]) -> pa.Table:
    """From the records themselves."""
    tables = [RESULTS_SCHEMA.empty_table(), *_read_batches(store, trial_ids)]
    return pa.concat_tables(tables).combine_chunks()


def _read_batches(store: Store, trial_ids: Sequence[str]) -> Iterator[pa.Table]:
    for start in range(0, len(trial_ids), BATCH):
        trials = store.trials(trial_ids[start : start + BATCH]).combine_chunks()
        tests = store.tests(trials["trial_id"].to_pylist())
        accuracies = [
            final_accuracies(*test, independent=grouping == "any")
            for test, grouping in zip(tests, trials["grouping"].to_pylist(), strict=True)
        ]
        columns = {"final": [final for final, _ in accuracies], "learned": [learned for _, learned in accuracies]}
        for name, lists in columns.items():
            trials = trials.append_column(RESULTS_SCHEMA.field(name), pa.array(lists, RESULTS_SCHEMA.field(name).type))
        yield trials.cast(RESULTS_SCHEMA)


def final_accuracies(
    tasks: NDArray[Any], tasks_learned: NDArray[Any], accuracies: NDArray[Any], *, independent: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The last row and the diagonal of a trial's accuracy matrix, from the tests that were made.

    Args:
        tasks: of each test [N].
        tasks_learned: before it [N].
        accuracies: [N], in [0, 1].
        independent: whether an accuracy stays what it was when its task was learned, and stands for tests not made.

    Returns:
        [T] and [T], in [0, 1]; NaN where a task was not tested.
    """
    num_tasks = int(tasks.max()) + 1 if len(tasks) else 0
    final, learned = np.full(num_tasks, np.nan), np.full(num_tasks, np.nan)
    is_first, is_last = tasks_learned == tasks + 1, tasks_learned == num_tasks
    learned[tasks[is_first]] = accuracies[is_first]
    if independent:
        final[:] = learned
    final[tasks[is_last]] = accuracies[is_last]
    return final, learned
