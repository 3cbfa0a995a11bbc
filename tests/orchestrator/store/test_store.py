"""The results store: what it keeps, how it is written, and which folders it refuses."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crwn.testing import Conditions, tiny_trial, write_finished, write_unfinished
from orchestrator.errors import LostError, UserError
from orchestrator.store import leases, parquet_files
from orchestrator.store.address import open_files
from orchestrator.store.locks import Holder
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.parquet_files import stable_columns
from orchestrator.store.records import Attempt, AttemptError, CurveEntry, TestRow
from orchestrator.store.store import (
    ATTEMPTS_FILE,
    CONTEXTS_FILE,
    RESUME_FILE,
    SYSTEM_FILE,
    SYSTEM_SCHEMA,
    TASKS_FILE,
    TASKS_SCHEMA,
    TRIAL_FILE,
    TRIALS_SCHEMA,
    Result,
    Store,
    sees,
)
from tests.object_storage import ObjectStorage
from tests.older_records import make_older
from tests.orchestrator.made_up import SPECS, A, B, C, D, class_record, record, stream_record

Listing = Callable[[Path], dict[str, bytes]]

CELL = ManifestCell(method="m", variant="", scale="FC16", benchmark="b", trials={0: "0" * 16, 1: "1" * 16})
MANIFEST = Manifest(name="small", cells=(CELL,))


def files_of(folder: Path) -> set[str]:
    """The names of a folder's files."""
    return {path.name for path in folder.iterdir()}


@pytest.fixture(params=["folder", "objects"])
def anywhere(request: pytest.FixtureRequest) -> Store:
    """A new, empty store on a path and on object storage: what is kept is the same."""
    if request.param == "folder":
        made: Store = request.getfixturevalue("store")
        return made
    made = Store(request.getfixturevalue("storage").new_address())
    made.create()
    return made


# Records


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_record_comes_back_as_it_was_written(store: Store, device: Literal["cpu", "cuda"]) -> None:
    """Every column of all three tables, and the contexts byte for byte."""
    written = record(A, 1 / 3, Conditions(device=device))
    store.write_record(A, written)
    assert store.row(A) == written.trial
    assert store.trials([A]).to_pylist() == [written.trial.columns()]
    assert store.tasks([A]).to_pylist() == [row.columns() for row in written.tasks]
    assert store.so_far(A) == (list(written.tasks), list(written.system))
    assert (store.folder(A) / CONTEXTS_FILE).read_bytes() == written.contexts
    assert files_of(store.folder(A)) == {TRIAL_FILE, TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE}


def test_a_measure_that_is_not_known_is_null(store: Store) -> None:
    """Not a number that is none: a reader who averages with any tool sees that it is missing."""
    together, in_turn = tiny_trial("mtl"), tiny_trial("psp")
    write_finished(store, together)
    write_finished(store, in_turn, [[0.75, 0.0], [0.5, 0.5]])
    file = pq.ParquetFile(store.folder(together.trial_id) / TRIAL_FILE).read()
    table = store.trials([together.trial_id, in_turn.trial_id])
    for name, known in (("forgetting", 0.25), ("backward_transfer", -0.25)):
        assert (file[name].null_count, file[name].type) == (1, pa.float64())
        assert table[name].to_pylist() == [None, known]


def test_rows_come_in_the_order_asked_for(anywhere: Store) -> None:
    """Trials that are not finished are left out; nothing is an empty table with all columns."""
    for name in (A, B, C):
        anywhere.write_record(name, record(name))
    write_unfinished(anywhere, SPECS[D])
    assert anywhere.trials([C, "absent", A, D])["trial_id"].to_pylist() == [C, A]
    assert list(anywhere.rows([C, "absent", A, D])) == [C, A]
    assert anywhere.tasks([B, D])["tasks_learned"].to_pylist() == [1, 2, 2]
    empty = anywhere.trials([])
    assert len(empty) == 0
    assert empty.schema.names == TRIALS_SCHEMA.names


def test_a_trial_is_finished_when_its_last_file_is_there(store: Store) -> None:
    """The one row of `trial.parquet` is written last and alone decides."""
    assert not store.is_finished(A)
    store.write_record(A, record(A))
    assert store.is_finished(A)
    assert store.trial_ids() == [A]
    (store.folder(A) / TRIAL_FILE).unlink()
    assert not store.is_finished(A)
    assert store.trial_ids() == []
    assert len(store.trials([A])) == 0


def test_the_final_record_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed before it leaves an unfinished trial, which can go on."""
    store.write_resume(A, b"...", [], [])
    seen: list[tuple[str, bool, bool]] = []
    replace = Path.replace

    def watch(path: Path, target: Path) -> Path:
        seen.append((target.name, store.is_finished(A), store.read_resume(A) is not None))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    store.write_record(A, record(A))
    assert seen == [(name, False, True) for name in (TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE, TRIAL_FILE)]


def test_what_may_differ_between_equal_runs_is_marked(store: Store) -> None:
    """Times, provenance and samples are volatile in the files themselves; nothing else is, nor is more dropped."""
    store.write_record(A, record(A))
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
    anywhere.write_record(A, record(A))
    first = anywhere.trials([A])
    anywhere.write_record(A, record(A, conditions=Conditions(host="elsewhere", task_seconds=2.0)))
    second = anywhere.trials([A])
    assert not first.equals(second)
    assert stable_columns(first).equals(stable_columns(second))


def test_records_carry_their_version(store: Store) -> None:
    """Each file says by which version it was written and what its rows are."""
    store.write_record(A, record(A))
    for file, kind in ((TRIAL_FILE, b"trials"), (TASKS_FILE, b"tasks"), (SYSTEM_FILE, b"system")):
        metadata = pq.ParquetFile(store.folder(A) / file).schema_arrow.metadata
        assert metadata[b"crwn.version"] == b"1.3"
        assert metadata[b"crwn.record"] == kind
    matrix = pq.ParquetFile(store.folder(A) / TASKS_FILE).schema_arrow.metadata[b"crwn.matrix"]
    for part in (b"diagonal", b"last row", b"lower triangle"):
        assert part in matrix


def test_a_record_of_a_newer_major_version_is_refused(store: Store) -> None:
    """Its columns may mean something else."""
    store.write_record(A, record(A))
    make_older(store.folder(A) / TRIAL_FILE, version="3.0")
    with pytest.raises(UserError, match=r"trial\.parquet: expected version 2 or older, given 3\.0; upgrade crwn"):
        store.trials([A])


def test_a_streams_records_are_not_for_readers_that_know_none(store: Store) -> None:
    """They would take tests by update for damage; the trials beside it stay readable for them."""
    store.write_record(A, record(A))
    store.write_record(B, stream_record(B, [0.25, 0.75]))
    for trial_id, version in ((A, b"1.3"), (B, b"2.0")):
        for file in (TRIAL_FILE, TASKS_FILE):
            metadata = pq.ParquetFile(store.folder(trial_id) / file).schema_arrow.metadata
            assert metadata[b"crwn.version"] == version
    found, *_ = store.results([B])
    assert isinstance(found, Result)
    assert (found.is_stream, found.is_sealed) == (True, True)
    assert found.outcome.final.tolist() == [0.25, 0.75]


def test_what_classes_were_answered_comes_back(store: Store) -> None:
    """With the accuracy among the task's own classes, and the update of a stream's test; null where there is none."""
    store.write_record(A, record(A))
    store.write_record(B, stream_record(B, [0.25, 0.75]))
    store.write_record(C, class_record(C, [[0.5, 0], [0.25, 0.75]], [0.875, 1.0], examples_kept=7))
    for trial_id, expected in (
        (A, [(None, None, None)] * 3),
        (B, [(update, (3, 4), None) for update in (10, 10, 17, 17)]),
        (C, [(None, (1, 0), 0.875), (None, (2, 1), 1.0), (None, (2, 0), 0.875)]),
    ):
        tests, _ = store.so_far(trial_id)
        assert [(test.update, test.answered, test.accuracy_told) for test in tests] == expected
    row = store.row(C)
    assert row is not None
    assert (row.accuracy_told, row.examples_kept, row.independent) == (0.9375, 7, False)


def test_an_older_record_is_independent_as_its_grouping_says(store: Store) -> None:
    """It lacks the columns that came later, and means what it meant."""
    later = ["independent", "accuracy_told", "examples_kept", "stored_memory"]
    for trial_id, grouping in ((A, "any"), (B, "one"), (C, "all")):
        store.write_record(trial_id, record(trial_id))
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
    rows = store.rows([A, B, C])
    assert [rows[trial_id].is_independent for trial_id in (A, B, C)] == [True, False, False]
    assert {(row.examples_kept, row.stored_memory, row.accuracy_told) for row in rows.values()} == {(0, 0, None)}


def test_a_record_of_a_newer_minor_version_is_read(store: Store) -> None:
    """It has only more columns, which this reader leaves out."""
    store.write_record(A, record(A))
    before = store.trials([A])
    added = pa.array(["new"])
    path = store.folder(A) / TRIAL_FILE
    table = pq.ParquetFile(path).read().add_column(0, "added", added)
    path.write_bytes(parquet_files.dump(table, {"version": "1.7"}))
    assert store.trials([A]).equals(before)


def test_an_older_record_with_fewer_columns_is_read(store: Store) -> None:
    """What it has not is null, at its place; it stands beside newer ones."""
    for name in (A, B):
        store.write_record(name, record(name))
    make_older(store.folder(A) / TRIAL_FILE, lambda table: table.drop_columns(["grouping", "forgetting"]), "1.0")
    table = store.trials([A, B])
    assert table.schema.names == TRIALS_SCHEMA.names
    assert table["grouping"].to_pylist() == [None, "any"]
    assert table["forgetting"].to_pylist() == [None, 0.0]
    assert table["accuracy"].to_pylist() == [0.5, 0.5]


def test_a_store_of_version_1_0_is_read(store: Store, tmp_path: Path) -> None:
    """It has no times, no samples and no id: the columns are null, the samples none, and its path stands for its id."""
    for name in (A, B):
        store.write_record(name, record(name))
    added = ["tested", "curve_times"]
    make_older(store.folder(A) / TASKS_FILE, lambda table: table.drop_columns(added), "1.0")
    later = ["grouping", "forgetting", "backward_transfer"]
    make_older(store.folder(A) / TRIAL_FILE, lambda table: table.drop_columns(later), "1.0")
    (store.folder(A) / SYSTEM_FILE).unlink()
    (store.root / "store.json").write_text('{"format": "crwn-store", "version": [1, 0]}')

    old = Store(store.root)
    tasks, system = old.so_far(A)
    assert tasks == [
        replace(row, tested=None, curve=tuple(replace(point, time=None) for point in row.curve))
        for row in record(A).tasks
    ]
    assert system == []
    assert old.trials([A, B]).select(["accuracy", *later]).to_pylist() == [
        {"accuracy": 0.5, "grouping": None, "forgetting": None, "backward_transfer": None},
        {"accuracy": 0.5, "grouping": "any", "forgetting": 0.0, "backward_transfer": 0.0},
    ]
    assert old.tasks([A, B])["tested"].null_count == 3
    assert old.identity == str(tmp_path / "store")
    old.create()  # a run goes on in it
    assert old.identity == str(tmp_path / "store")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"\x00" * 100])
def test_a_damaged_record_is_named(store: Store, content: bytes) -> None:
    """The message says which file, and how to have the trial run again."""
    store.write_record(A, record(A))
    (store.folder(A) / TRIAL_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)trial\.parquet: expected a record that can be read: .*remove its folder"):
        store.trials([A])


def test_a_record_without_a_version_is_refused(store: Store) -> None:
    """A Parquet file that is no record of ours is not taken for one."""
    store.write_record(A, record(A))
    pq.write_table(pa.table({"x": [1]}), store.folder(A) / TASKS_FILE)
    with pytest.raises(UserError, match=r"tasks\.parquet: expected a record that can be read"):
        store.tasks([A])


# Writing


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, listing: Listing, failing: str
) -> None:
    """On a full disk the earlier resume point and its rows stay whole, and no temporary file is left."""
    store = Store(store.root)  # one that waits for the disk
    store.write_resume(A, b"earlier", [], [])
    before = listing(store.root)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if failing == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="no space left"):
        store.write_resume(A, b"later", [], [])
    assert listing(store.root) == before
    assert store.read_resume(A) == b"earlier"


def test_a_write_that_is_interrupted_leaves_no_temporary_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, listing: Listing
) -> None:
    """Ctrl-C in the middle of a write is no exception to the rule."""
    before = listing(store.root)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Store(store.root).write_manifest(MANIFEST)  # which waits for the disk
    assert {name: content for name, content in listing(store.root).items() if content != b"a folder"} == before


def test_an_equal_manifest_is_left_alone(store: Store) -> None:
    """A run with nothing to change writes nothing; one with something does."""
    store.write_manifest(MANIFEST)
    path = store.root / "sweeps" / "small.json"
    os.utime(path, ns=(1, 1))
    store.write_manifest(replace(MANIFEST, cells=(replace(CELL, trials=dict(reversed(CELL.trials.items()))),)))
    assert path.stat().st_mtime_ns == 1
    changed = replace(MANIFEST, reference="m")
    store.write_manifest(changed)
    assert path.stat().st_mtime_ns != 1
    assert store.manifests() == [changed]


def test_manifests_come_by_name(anywhere: Store) -> None:
    """Several sweeps may share a anywhere."""
    assert anywhere.manifests() == []
    for name in ("b", "a"):
        anywhere.write_manifest(replace(MANIFEST, name=name))
    assert [manifest.name for manifest in anywhere.manifests()] == ["a", "b"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_manifest_is_named(store: Store, content: str) -> None:
    """A file that was changed by hand is the user's to mend; the run that wrote it can write it again."""
    store.write_manifest(MANIFEST)
    (store.root / "sweeps" / "small.json").write_text(content)
    with pytest.raises(UserError, match=r"small\.json: expected a sweep's manifest.*crwn run"):
        store.manifests()


def test_a_manifest_of_a_newer_format_is_refused(store: Store) -> None:
    """It may say more than this reader understands."""
    store.write_manifest(MANIFEST)
    path = store.root / "sweeps" / "small.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(UserError, match=r"small\.json: expected format 1 or older.*upgrade crwn"):
        store.manifests()


# What an unfinished trial leaves


def test_a_resume_point_replaces_the_one_before(store: Store) -> None:
    """Only the last is kept; discarding it leaves none, also where there was none."""
    assert store.read_resume(A) is None
    store.write_resume(A, b"first", [], [])
    store.write_resume(A, b"second", [], [])
    assert store.read_resume(A) == b"second"
    assert files_of(store.folder(A)) == {RESUME_FILE, TASKS_FILE, SYSTEM_FILE}
    store.discard_resume(A)
    store.discard_resume(A)
    assert store.read_resume(A) is None


# A task that is being learned: what names it, and its curve so far.
def learning() -> TestRow:
    """The row of a task that is being learned."""
    point = CurveEntry(step=50, loss=1.5, accuracy=0.5, time=1.75e9)
    tested = dict.fromkeys(("tasks_learned", "accuracy", "loss", "num_test", "train_seconds", "eval_seconds", "tested"))
    return replace(record(A).tasks[0], task=1, curve=(point,), **tested)


def test_so_far_are_the_rows_up_to_the_resume_point(anywhere: Store) -> None:
    """With null for what a test would say of a task that is being learned; no trial is finished by that."""
    whole = record(A)
    anywhere.write_resume(A, b"first", whole.tasks[:1], whole.system[:1])
    anywhere.write_resume(A, b"second", [whole.tasks[0], learning()], whole.system)
    tasks, system = anywhere.so_far(A)
    assert tasks == [whole.tasks[0], learning()]
    assert tasks[1].accuracy is None
    assert system == list(whole.system)
    assert not anywhere.is_finished(A)
    assert len(anywhere.tasks([A])) == 0
    assert anywhere.trial_ids() == []


def test_a_record_replaces_the_rows_so_far(anywhere: Store) -> None:
    """What a trial had told of a task that it was learning is not kept beside the test."""
    whole = record(A)
    anywhere.write_resume(A, b"...", [learning()], [])
    anywhere.write_record(A, whole)
    assert anywhere.so_far(A) == (list(whole.tasks), list(whole.system))


def test_so_far_of_a_trial_that_is_not_there_is_nothing(store: Store, listing: Listing) -> None:
    """Nor of one that has not come to its first resume point; nothing is written."""
    store.write_attempts(D, [Attempt()])
    before = listing(store.root)
    for name in ("absent", D):
        assert store.so_far(name) == ([], [])
    assert listing(store.root) == before


@pytest.mark.parametrize("file", [TASKS_FILE, SYSTEM_FILE])
def test_damaged_rows_so_far_are_named(store: Store, file: str) -> None:
    """As those of a finished trial are."""
    store.write_resume(A, b"...", record(A).tasks, record(A).system)
    (store.folder(A) / file).write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=rf"{file}: expected a record that can be read"):
        store.so_far(A)


@pytest.mark.parametrize("killed_before", [RESUME_FILE, TASKS_FILE, SYSTEM_FILE])
def test_a_kill_between_a_resume_point_and_its_rows_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, killed_before: str
) -> None:
    """Rows are never ahead of the point, or they would be computed once more; each file is whole, old or new.

    Those that lag behind are in the resume point, and come with the next.
    """
    whole = record(A)
    store.write_resume(A, b"first", whole.tasks[:1], whole.system[:1])
    move = Path.replace

    def kill(path: Path, target: Path) -> Path:
        if target.name == killed_before:
            raise KeyboardInterrupt
        return move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            store.write_resume(A, b"second", whole.tasks, whole.system)
    found = (store.read_resume(A), *map(len, store.so_far(A)))
    assert (
        found
        == {
            RESUME_FILE: (b"first", 1, 1),
            TASKS_FILE: (b"second", 1, 1),
            SYSTEM_FILE: (b"second", 3, 1),
        }[killed_before]
    )
    store.write_resume(A, b"third", whole.tasks, whole.system)
    assert [len(table) for table in store.so_far(A)] == [3, 2]


def test_a_discarded_resume_point_takes_its_rows_along(store: Store) -> None:
    """The trial begins anew, so that nothing is known of it; what is known of its attempts stays."""
    store.write_attempts(A, [Attempt()])
    store.write_resume(A, b"...", record(A).tasks, record(A).system)
    store.discard_resume(A)
    assert files_of(store.folder(A)) == {ATTEMPTS_FILE}
    assert [len(table) for table in store.so_far(A)] == [0, 0]


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_kill_while_a_resume_point_is_discarded_leaves_it_to_be_discarded(
    store: Store, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """The rows go first: without their point nobody would find that they are to be removed."""
    store.write_resume(A, b"...", record(A).tasks, record(A).system)
    unlink, calls = Path.unlink, iter(range(3))

    def kill(path: Path, missing_ok: bool = False) -> None:
        if next(calls) == killed_at:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(KeyboardInterrupt):
            store.discard_resume(A)
    assert store.read_resume(A) is not None
    assert sum(bool(len(table)) for table in store.so_far(A)) == 2 - killed_at


def test_attempts_are_kept_until_the_trial_is_finished(store: Store) -> None:
    """The record takes them over; then they and the resume point are removed."""
    assert store.attempts(A) == ()
    attempts = (Attempt(error=AttemptError(type="E")), Attempt(pid=1))
    store.write_attempts(A, attempts)
    store.write_resume(A, b"...", [], [])
    assert store.attempts(A) == attempts
    assert files_of(store.folder(A)) == {ATTEMPTS_FILE, RESUME_FILE, TASKS_FILE, SYSTEM_FILE}
    store.write_record(A, record(A))
    assert store.attempts(A) == ()
    assert store.read_resume(A) is None


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null"])
def test_damaged_attempts_count_as_none(store: Store, content: str) -> None:
    """They are notes: the trial can go on without them."""
    store.write_attempts(A, [Attempt(pid=1)])
    (store.folder(A) / ATTEMPTS_FILE).write_text(content)
    assert store.attempts(A) == ()
    assert store.state(A, driven=False) == "interrupted"
    assert ATTEMPTS_FILE in (store.attempts_fault(A) or "")


def test_a_changed_letter_in_attempts_is_seen(store: Store) -> None:
    """They have a sum of their content; what another error would say is not shown."""
    store.write_attempts(A, [Attempt(error=AttemptError(type="E", message="no room"))])
    assert store.attempts_fault(A) is None
    file = store.folder(A) / ATTEMPTS_FILE
    file.write_bytes(file.read_bytes().replace(b"no room", b"no rook"))
    assert store.attempts(A) == ()
    assert "its content is not what was written" in (store.attempts_fault(A) or "")


@pytest.mark.parametrize(
    "old_new", [(b'"version"', b'"versjon"'), (b" 3", b" 4"), (b'"id"', b'"ie"'), (b"-", b"_"), (b"crwn-", b"crwm-")]
)
def test_a_changed_mark_is_refused(tmp_path: Path, old_new: tuple[bytes, bytes]) -> None:
    """The id of the store's own mark ends in a sum of it; another version or id would be believed."""
    Store(tmp_path / "made").create()
    file = tmp_path / "made" / "store.json"
    file.write_bytes(file.read_bytes().replace(*old_new))
    with pytest.raises(UserError, match=r"store\.json: expected a store's mark that can be read"):
        Store(tmp_path / "made")


def test_a_mark_without_a_sum_is_read(tmp_path: Path) -> None:
    """An older crwn wrote it."""
    (tmp_path / "store.json").write_text('{"format": "crwn-store", "version": [1, 1], "id": "abc"}')
    assert (Store(tmp_path).version, Store(tmp_path).identity) == ((1, 1), "abc")


def test_leftovers_of_a_killed_writer_are_cleared(store: Store) -> None:
    """Half a file that a kill left beside its place goes when the trial is finished."""
    store.write_resume(A, b"...", [], [])
    (store.folder(A) / f"{RESUME_FILE}.0123abcd.part").write_bytes(b"half")
    store.write_record(A, record(A))
    assert files_of(store.folder(A)) == {TRIAL_FILE, TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE}


# How trials stand


@pytest.mark.parametrize("driven", [False, True])
def test_states(anywhere: Store, *, driven: bool) -> None:
    """What the anywhere has of a trial says how it stands; whether a begun one runs depends on the driver."""
    failed = Attempt(error=AttemptError(type="OSError", message="no space left"))
    anywhere.write_record(A, record(A))
    anywhere.write_attempts(B, [Attempt(pid=1), failed])
    anywhere.write_attempts(D, [failed, Attempt(pid=2)])
    states = [anywhere.state(name, driven=driven) for name in (A, B, D, "absent")]
    assert states == ["done", "failed", "running" if driven else "interrupted", "left"]


def test_a_finished_trial_is_done_whatever_else_is_there(anywhere: Store) -> None:
    """A driver that was killed while clearing up leaves its attempts; the record decides."""
    anywhere.write_record(A, record(A))
    anywhere.write_attempts(A, [Attempt(error=AttemptError(type="OSError", message="no space left"))])
    assert anywhere.state(A, driven=True) == "done"


def test_all_of_a_sweeps_trials_at_once(anywhere: Store) -> None:
    """The same states as one by one, in the order asked for, also of many."""
    for name in (A, B):
        anywhere.write_record(name, record(name))
    anywhere.write_attempts(D, [Attempt(pid=1)])
    names = [D, A, *(f"absent {index}" for index in range(40)), B]
    assert anywhere.finished(names) == {A, B}
    states = anywhere.states(names, driven=False)
    assert list(states.items()) == [(name, anywhere.state(name, driven=False)) for name in names]


def test_leftovers_of_unfinished_trials_stay(anywhere: Store) -> None:
    """Those of the trials named go, one or several."""
    for name in (A, B, C):
        anywhere.write_record(name, record(name))
        anywhere.write_attempts(name, [Attempt(pid=1)])
    anywhere.write_attempts(D, [Attempt(pid=1)])
    anywhere.clear_leftovers([A])
    assert [bool(anywhere.attempts(name)) for name in (A, B, C, D)] == [False, True, True, True]
    anywhere.clear_leftovers([A, B, C])
    assert [bool(anywhere.attempts(name)) for name in (A, B, C, D)] == [False, False, False, True]
    assert anywhere.trial_ids() == [A, B, C]


def test_what_another_run_has_finished_stays_as_it_is(anywhere: Store) -> None:
    """Where no lock keeps a second run away, it neither writes its rows over a finished trial's nor removes them."""
    anywhere.write_record(A, record(A))
    assert not anywhere.write_resume(A, b"...", record(A).tasks[:1], [])
    anywhere.discard_resume(A)
    assert anywhere.read_resume(A) is None
    assert len(anywhere.tasks([A])) == len(record(A).tasks)


def test_a_trial_that_is_finished_while_another_run_writes_its_rows_is_begun(
    anywhere: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows may be those of the other run's resume point: it counts as finished only when all of it is whole."""
    whole = record(A)
    finished = iter([False])  # asked before another run's record came
    is_finished = anywhere.is_finished

    monkeypatch.setattr(
        anywhere, "is_finished", lambda trial_id: next(finished, None) is None and is_finished(trial_id)
    )
    anywhere.write_record(A, whole)
    assert anywhere.write_resume(A, b"...", whole.tasks[:1], [])
    assert not anywhere.is_finished(A)
    assert anywhere.read_resume(A) == b"..."
    anywhere.write_record(A, whole)
    assert anywhere.so_far(A)[0] == list(whole.tasks)


def test_a_store_pickles_as_its_address(anywhere: Store) -> None:
    """Another process opens the same one."""
    anywhere.write_record(A, record(A))
    again = pickle.loads(pickle.dumps(anywhere))  # noqa: S301 (this very process made it)
    assert (again.address, again.identity) == (anywhere.address, anywhere.identity)
    assert again.trial_ids() == [A]


# Object storage


def test_a_prefix_with_other_objects_is_refused(storage: ObjectStorage) -> None:
    """As a folder with other files is; an object is no store either."""
    address = storage.new_address()
    open_files(address).write("thesis/thesis.tex", b"...")
    with pytest.raises(UserError, match=r"expected a store or an empty folder; it holds other files"):
        Store(address)
    with pytest.raises(UserError, match=r"expected a store's folder, such as runs/quickstart, given a file"):
        Store(open_files(address).below("thesis/thesis.tex").address)


def test_opening_a_prefix_where_nothing_is_writes_nothing(storage: ObjectStorage) -> None:
    """Planning looks at a store that a run would make."""
    opened = Store(storage.new_address())
    assert (opened.exists, opened.is_driven, opened.manifests(), opened.trial_ids()) == (False, False, [], [])
    assert open_files(opened.address).names("") == []


def test_each_of_two_drivers_of_object_storage_is_told_of_the_other(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no locks there: both go on, each seen by the other and by who asks, until it ends."""
    first = Store(storage.new_address())
    second = Store(first.address)
    first.create()
    assert not first.is_driven
    told: list[Holder] = []
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    with first.lock(told.append) as before:
        assert before == []
        assert second.is_driven
        with second.lock() as found:
            assert [driver.is_live for driver in found] == [True]
            assert f"process {os.getpid()}" in found[0].text
            while not told:
                time.sleep(0.01)
            assert (told, len(told)) == (before, 1)
            assert len(Store(first.address).drivers()) == 2
        assert len(second.drivers()) == 1
    assert not first.is_driven


# Folders


def test_opening_a_store_that_does_not_exist_writes_nothing(tmp_path: Path, listing: Listing) -> None:
    """Planning looks at a store that a run would make."""
    opened = Store(tmp_path / "deep" / "store")
    assert not opened.exists
    assert not opened.is_finished(A)
    assert not opened.is_driven
    assert opened.manifests() == []
    assert opened.trial_ids() == []
    assert listing(tmp_path) == {}


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is opened by its full path, so that a change of folder does not lose it."""
    monkeypatch.chdir(tmp_path)
    opened = Store(Path("runs/a"))
    monkeypatch.chdir("/")
    assert opened.root == tmp_path / "runs" / "a"


def test_a_store_is_made_with_its_parents(tmp_path: Path) -> None:
    """Its mark says what it is and by which version it was made; making it again changes nothing."""
    made = Store(tmp_path / "deep" / "store")
    made.create()
    assert made.exists
    assert files_of(made.root) == {"store.json"}
    mark = json.loads((made.root / "store.json").read_text())
    assert mark == {"format": "crwn-store", "version": [1, 3], "id": made.identity}
    os.utime(made.root / "store.json", ns=(1, 1))
    Store(made.root).create()
    assert (made.root / "store.json").stat().st_mtime_ns == 1


def test_a_store_is_known_wherever_it_is(store: Store, tmp_path: Path) -> None:
    """Moved and made again it has the identity it was made with; another store has another, also at its old place."""
    identity = store.identity
    store.root.rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved")
    moved.create()
    assert moved.identity == identity
    successor = Store(tmp_path / "store")
    successor.create()
    assert successor.identity != identity
    assert Store(successor.root).identity == successor.identity


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    """So does one in which only a lock was taken."""
    for name, files in (("empty", ()), ("locked", (".lock",))):
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            (folder / file).touch()
        Store(folder).create()
        assert Store(folder).exists


def test_a_folder_with_other_files_is_refused(tmp_path: Path, listing: Listing) -> None:
    """Nothing of somebody's is mixed with results."""
    (tmp_path / "thesis.tex").write_text("...")
    before = listing(tmp_path)
    with pytest.raises(UserError, match=r"expected a store or an empty folder; it holds other files"):
        Store(tmp_path)
    assert listing(tmp_path) == before


def test_a_file_is_refused(tmp_path: Path) -> None:
    """A store is a folder."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: expected a store's folder, such as runs/quickstart, given a file"):
        Store(tmp_path / "file")


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    """A dangling link cannot become a folder."""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"link: expected a store's folder"):
        Store(tmp_path / "link")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, listing: Listing) -> None:
    """A store below a file, for one; the file stays as it was."""
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(UserError, match=r"file/store: expected a folder that can be written: .*--out"):
        Store(tmp_path / "file" / "store").create()
    assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out before hours of training, not after."""

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", fail)
    with pytest.raises(UserError, match=r"store: expected a folder that can be written: .*Permission denied"):
        store.create()


def test_a_newer_store_is_refused(store: Store) -> None:
    """A newer major version may keep things elsewhere; a newer minor one only adds."""
    mark = store.root / "store.json"
    mark.write_text(json.dumps({"format": "crwn-store", "version": [1, 9]}))
    assert Store(store.root).exists
    mark.write_text(json.dumps({"format": "crwn-store", "version": [2, 0]}))
    with pytest.raises(UserError, match=r"expected a store of version 1 or older, given version 2.*upgrade"):
        Store(store.root)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": []}', '{"version": ["a"]}', '{"version": 1}'])
def test_a_damaged_mark_is_named(store: Store, content: str) -> None:
    """A folder whose mark cannot be read is not written into."""
    (store.root / "store.json").write_text(content)
    with pytest.raises(UserError, match=r"store\.json: expected a store's mark that can be read"):
        Store(store.root)


# One driver at a time


def test_a_second_driver_is_refused(store: Store) -> None:
    """Two runs on one store would learn the same trials; the second is told what to do."""
    with store.lock():
        assert Store(store.root).is_driven
        with (
            pytest.raises(UserError, match=r"expected no other run on this store.*crwn status.*--out"),
            Store(store.root).lock(),
        ):
            pass
    assert not store.is_driven
    with Store(store.root).lock():
        pass


def test_a_driver_in_another_process_is_seen(store: Store) -> None:
    """The lock holds between processes and ends with its holder, however that ends."""
    script = (
        "import sys; from pathlib import Path; from orchestrator.store.store import Store\n"
        "with Store(Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert store.is_driven
        with pytest.raises(UserError, match="expected no other run"), store.lock():
            pass
        process.kill()
        process.wait()
        assert not store.is_driven
        with store.lock():
            pass


def test_a_run_that_fails_lets_go_of_its_store(store: Store) -> None:
    """An error inside the block releases the lock at once."""
    with pytest.raises(RuntimeError) as kept, store.lock():
        raise RuntimeError("an error")
    assert not store.is_driven
    del kept


def test_asking_for_the_driver_makes_no_file(store: Store, listing: Listing) -> None:
    """`crwn status` writes nothing."""
    before = listing(store.root)
    assert not store.is_driven
    assert listing(store.root) == before


@pytest.mark.parametrize("name", ["store.json.1a2b3c4d.part", "1a2b3c4d.part", ".lock"])
def test_what_a_killed_run_left_is_no_foreign_file(tmp_path: Path, name: str) -> None:
    """A kill while the store was being made must not make its folder a foreign one for ever."""
    (tmp_path / name).touch()
    store = Store(tmp_path)
    store.create()
    assert store.exists


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    """Whatever ends a run, the next one can begin at once."""
    store = Store(tmp_path)
    store.create()
    with pytest.raises(KeyboardInterrupt), store.lock():
        raise KeyboardInterrupt
    assert not store.is_driven
    with store.lock():
        assert store.is_driven


def test_another_machine_knows_the_store_by_its_drivers_word(tmp_path: Path) -> None:
    """Neither a folder of that name without it, nor a copy from before the run, is the store."""
    store = Store(tmp_path / "store")
    store.create()
    early = shutil.copytree(store.root, tmp_path / "copied early")
    word = store.give_word()
    assert word is not None
    assert sees(store.address, word)
    late = shutil.copytree(store.root, tmp_path / "copied late")
    assert [sees(str(path), word) for path in (early, tmp_path / "nowhere")] == [False, False]
    again = store.give_word()
    assert again is not None
    assert [sees(str(path), again) for path in (store.root, late)] == [True, False]


def test_a_run_and_its_other_processes_know_the_store(anywhere: Store) -> None:
    """By the word of this very run, or on object storage by the store's mark; other processes write as before."""
    run = anywhere.driven()
    assert (run.word is None) is (not anywhere.is_folder)
    again = pickle.loads(pickle.dumps(run))  # noqa: S301 (this very process made it)
    assert (again.address, again.mark) == (run.address, run.mark)
    again.write_record(A, record(A))
    shown = anywhere.followed()
    shown.check()
    later = anywhere.driven()
    later.write_record(B, record(B))
    shown.mark_behind("tiny", behind=True)
    anywhere.mark_behind("tiny", behind=False)
    if anywhere.is_folder:
        with pytest.raises(LostError, match="expected the store that this run began on, found another folder"):
            again.write_attempts("c", [])
    assert (anywhere.trial_ids(), anywhere.is_behind("tiny")) == ([A, B], False)


def test_what_only_reads_or_shows_a_store_does_not_bring_it_back(
    store: Store, tmp_path: Path, listing: Listing
) -> None:
    """Tables, the index, marks of MLflow's and locks are nothing without the store that they are of."""
    store.write_record(A, record(A))
    shown = store.followed()
    store.root.rename(tmp_path / "renamed")
    before = listing(tmp_path)
    for write in (
        lambda: store.report.write("x", b""),
        lambda: store.index.write("x", b""),
        lambda: store.mark_behind("tiny", behind=True),
        lambda: store.write_manifest(MANIFEST),
        lambda: store.tracking_lock().acquire(timeout=0),
        shown.check,
    ):
        with pytest.raises(OSError, match=str(store.root)):
            write()
    store.mark_behind("tiny", behind=False)
    store.clear_leftovers([A])
    assert listing(tmp_path) == before


def test_object_storage_needs_no_word(storage: ObjectStorage) -> None:
    """All machines see it, and a second driver would change the word."""
    assert Store(storage.new_address()).give_word() is None
