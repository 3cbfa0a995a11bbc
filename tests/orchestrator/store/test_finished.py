"""The records of finished trials: what comes back, in which form, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crwn.testing import Conditions, tiny_trial, write_finished, write_unfinished
from orchestrator.errors import UserError
from orchestrator.store import parquet_files
from orchestrator.store.finished import Result
from orchestrator.store.parquet_files import stable_columns
from orchestrator.store.schemas import (
    CONTEXTS_FILE,
    RESUME_FILE,
    SYSTEM_FILE,
    SYSTEM_SCHEMA,
    TASKS_FILE,
    TASKS_SCHEMA,
    TRIAL_FILE,
    TRIALS_SCHEMA,
)
from orchestrator.store.store import Store
from tests.older_records import make_older
from tests.orchestrator.made_up import SPECS, A, B, C, D, class_record, files_of, record, stream_record
from tests.refusals import refused

Listing = Callable[[Path], dict[str, bytes]]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_record_comes_back_as_it_was_written(store: Store, device: Literal["cpu", "cuda"]) -> None:
    """Every column of all three tables, and the contexts byte for byte."""
    written = record(A, 1 / 3, Conditions(device=device))
    store.records.write(A, written)
    assert store.records.row(A) == written.trial
    assert store.records.trials([A]).to_pylist() == [written.trial.columns()]
    assert store.records.tasks([A]).to_pylist() == [row.columns() for row in written.tasks]
    assert store.so_far(A) == (list(written.tasks), list(written.system))
    assert (store.folder(A) / CONTEXTS_FILE).read_bytes() == written.contexts
    assert files_of(store.folder(A)) == {TRIAL_FILE, TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE}


def test_a_measure_that_is_not_known_is_null(store: Store) -> None:
    """It is null, not NaN, so that readers who average with any tool see that it is missing."""
    together, in_turn = tiny_trial("mtl"), tiny_trial("psp")
    write_finished(store, together)
    write_finished(store, in_turn, [[0.75, 0.0], [0.5, 0.5]])
    file = pq.ParquetFile(store.folder(together.trial_id) / TRIAL_FILE).read()
    table = store.records.trials([together.trial_id, in_turn.trial_id])
    for name, known in (("forgetting", 0.25), ("backward_transfer", -0.25)):
        assert (file[name].null_count, file[name].type) == (1, pa.float64())
        assert table[name].to_pylist() == [None, known]


def test_rows_come_in_the_order_asked_for(anywhere: Store) -> None:
    """Trials that are not finished are left out; nothing is an empty table with all columns."""
    for name in (A, B, C):
        anywhere.records.write(name, record(name))
    write_unfinished(anywhere, SPECS[D])
    assert anywhere.records.trials([C, "absent", A, D])["trial_id"].to_pylist() == [C, A]
    assert list(anywhere.records.rows([C, "absent", A, D])) == [C, A]
    assert anywhere.records.tasks([B, D])["tasks_learned"].to_pylist() == [1, 2, 2]
    empty = anywhere.records.trials([])
    assert len(empty) == 0
    assert empty.schema.names == TRIALS_SCHEMA.names


def test_a_trial_is_finished_when_its_last_file_is_there(store: Store) -> None:
    """The one row of `trial.parquet` is written last and alone decides."""
    assert not store.is_finished(A)
    store.records.write(A, record(A))
    assert store.is_finished(A)
    assert store.trial_ids() == [A]
    (store.folder(A) / TRIAL_FILE).unlink()
    assert not store.is_finished(A)
    assert store.trial_ids() == []
    assert len(store.records.trials([A])) == 0


def test_the_final_record_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before it leaves an unfinished trial, which can resume."""
    store.unfinished.write_resume(A, b"...", [], [])
    seen: list[tuple[str, bool, bool]] = []
    replace = Path.replace

    def watch(path: Path, target: Path) -> Path:
        seen.append((target.name, store.is_finished(A), store.unfinished.read_resume(A) is not None))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    store.records.write(A, record(A))
    assert seen == [(name, False, True) for name in (TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE, TRIAL_FILE)]


def test_what_may_differ_between_equal_runs_is_marked(store: Store) -> None:
    """Times, provenance and samples are volatile in the files themselves; nothing else is, nor is more dropped."""
    store.records.write(A, record(A))
    for file, schema, volatile in (
        (TRIAL_FILE, TRIALS_SCHEMA, {"seconds", "provenance"}),
        (TASKS_FILE, TASKS_SCHEMA, {"train_seconds", "eval_seconds", "tested", "curve_times"}),
        (SYSTEM_FILE, SYSTEM_SCHEMA, set(SYSTEM_SCHEMA.names) - {"trial_id"}),
    ):
        table = pq.ParquetFile(store.folder(A) / file).read()
        marked = {item.name for item in table.schema if (item.metadata or {}).get(b"volatile") == b"true"}
        assert marked == volatile
        assert stable_columns(table).schema.names == [name for name in schema.names if name not in volatile]
        assert stable_columns(table).equals(table.drop_columns(sorted(volatile)))


def test_tables_that_were_read_can_be_compared_too(anywhere: Store) -> None:
    """Reading keeps the marks: two trials that differ in time alone have equal stable columns."""
    anywhere.records.write(A, record(A))
    first = anywhere.records.trials([A])
    anywhere.records.write(A, record(A, conditions=Conditions(host="elsewhere", task_seconds=2.0)))
    second = anywhere.records.trials([A])
    assert not first.equals(second)
    assert stable_columns(first).equals(stable_columns(second))


def test_records_carry_their_version(store: Store) -> None:
    """Each file says by which version it was written and what its rows are."""
    store.records.write(A, record(A))
    for file, kind in ((TRIAL_FILE, b"trials"), (TASKS_FILE, b"tasks"), (SYSTEM_FILE, b"system")):
        metadata = pq.ParquetFile(store.folder(A) / file).schema_arrow.metadata
        assert metadata[b"crwn.version"] == b"1.3"
        assert metadata[b"crwn.record"] == kind
    matrix = pq.ParquetFile(store.folder(A) / TASKS_FILE).schema_arrow.metadata[b"crwn.matrix"]
    for part in (b"diagonal", b"last row", b"lower triangle"):
        assert part in matrix


def test_a_record_of_a_newer_major_version_is_refused(store: Store) -> None:
    """Its columns may mean something else."""
    store.records.write(A, record(A))
    make_older(store.folder(A) / TRIAL_FILE, version="3.0")
    with refused(UserError, "newer-version", says=["trial.parquet: ", "3.0"]):
        store.records.trials([A])


def test_a_streams_records_are_not_for_readers_that_know_none(store: Store) -> None:
    """They would take tests by update for damage; other trials in the store stay readable for them."""
    store.records.write(A, record(A))
    store.records.write(B, stream_record(B, [0.25, 0.75]))
    for trial_id, version in ((A, b"1.3"), (B, b"2.0")):
        for file in (TRIAL_FILE, TASKS_FILE):
            metadata = pq.ParquetFile(store.folder(trial_id) / file).schema_arrow.metadata
            assert metadata[b"crwn.version"] == version
    found, *_ = store.records.results([B])
    assert isinstance(found, Result)
    assert (found.is_stream, found.is_sealed) == (True, True)
    assert found.outcome.final.tolist() == [0.25, 0.75]


def test_what_classes_were_answered_comes_back(store: Store) -> None:
    """With the accuracy among the task's own classes, and the update of a stream's test; null where there is none."""
    store.records.write(A, record(A))
    store.records.write(B, stream_record(B, [0.25, 0.75]))
    store.records.write(C, class_record(C, [[0.5, 0], [0.25, 0.75]], [0.875, 1.0], examples_kept=7))
    for trial_id, expected in (
        (A, [(None, None, None)] * 3),
        (B, [(update, (3, 4), None) for update in (10, 10, 17, 17)]),
        (C, [(None, (1, 0), 0.875), (None, (2, 1), 1.0), (None, (2, 0), 0.875)]),
    ):
        tests, _ = store.so_far(trial_id)
        assert [(test.update, test.answered, test.accuracy_told) for test in tests] == expected
    row = store.records.row(C)
    assert row is not None
    assert (row.accuracy_told, row.examples_kept, row.independent) == (0.9375, 7, False)


def test_an_older_record_is_independent_as_its_grouping_says(store: Store) -> None:
    """It lacks the columns that came later, and means what it meant."""
    later = ["independent", "accuracy_told", "examples_kept", "stored_memory"]
    for trial_id, grouping in ((A, "any"), (B, "one"), (C, "all")):
        store.records.write(trial_id, record(trial_id))
        place = TRIALS_SCHEMA.get_field_index("grouping")
        column = pa.array([grouping])
        make_older(
            store.folder(trial_id) / TRIAL_FILE,
            lambda table, place=place, column=column: table.set_column(place, "grouping", column).drop_columns(later),
        )
        make_older(
            store.folder(trial_id) / TASKS_FILE,
            lambda table: table.drop_columns(["update", "answered", "accuracy_told"]),
        )
    rows = store.records.rows([A, B, C])
    assert [rows[trial_id].is_independent for trial_id in (A, B, C)] == [True, False, False]
    assert {(row.examples_kept, row.stored_memory, row.accuracy_told) for row in rows.values()} == {(0, 0, None)}


def test_a_record_of_a_newer_minor_version_is_read(store: Store) -> None:
    """It has only more columns, which this reader leaves out."""
    store.records.write(A, record(A))
    before = store.records.trials([A])
    added = pa.array(["new"])
    path = store.folder(A) / TRIAL_FILE
    table = pq.ParquetFile(path).read().add_column(0, "added", added)
    path.write_bytes(parquet_files.dump(table, {"version": "1.7"}))
    assert store.records.trials([A]).equals(before)


def test_an_older_record_with_fewer_columns_is_read(store: Store) -> None:
    """Missing columns are null, in their place; older and newer records can be combined."""
    for name in (A, B):
        store.records.write(name, record(name))
    make_older(store.folder(A) / TRIAL_FILE, lambda table: table.drop_columns(["grouping", "forgetting"]), "1.0")
    table = store.records.trials([A, B])
    assert table.schema.names == TRIALS_SCHEMA.names
    assert table["grouping"].to_pylist() == [None, "any"]
    assert table["forgetting"].to_pylist() == [None, 0.0]
    assert table["accuracy"].to_pylist() == [0.5, 0.5]


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"\x00" * 100])
def test_a_damaged_record_is_named(store: Store, content: bytes) -> None:
    """The message says which file, and how to have the trial run again."""
    store.records.write(A, record(A))
    (store.folder(A) / TRIAL_FILE).write_bytes(content)
    with refused(UserError, "record-unreadable", says="trial.parquet: "):
        store.records.trials([A])


def test_a_record_without_a_version_is_refused(store: Store) -> None:
    """A Parquet file that is no record of ours is not taken for one."""
    store.records.write(A, record(A))
    pq.write_table(pa.table({"x": [1]}), store.folder(A) / TASKS_FILE)
    with refused(UserError, "not-a-record", says="tasks.parquet: "):
        store.records.tasks([A])


def test_leftovers_of_a_killed_writer_are_cleared(store: Store) -> None:
    """A partial temporary file that a kill left is removed when the trial is finished."""
    store.unfinished.write_resume(A, b"...", [], [])
    (store.folder(A) / f"{RESUME_FILE}.0123abcd.part").write_bytes(b"half")
    store.records.write(A, record(A))
    assert files_of(store.folder(A)) == {TRIAL_FILE, TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE}
