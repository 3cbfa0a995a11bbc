"""The compacted index: fast, never wrong, and disposable."""

from __future__ import annotations

import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import UserError
from orchestrator.store import index, parquet_files
from orchestrator.store.finished import Records
from orchestrator.store.index import INDEX_FILE, Doubts, doubts, look, results
from orchestrator.store.schemas import TASKS_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from tests.object_storage import ObjectStorage
from tests.older_records import make_older
from tests.orchestrator.made_up import A, B, C, D, record
from tests.refusals import refused


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the index's thresholds: a few trials count as many, and recent files as settled."""
    monkeypatch.setattr(index, "FEW", 2)
    monkeypatch.setattr(index, "UNSETTLED", -60.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials whose records were read, in order."""
    seen: list[str] = []
    original = Records.results

    def watched(self: Records, trial_ids: list[str]) -> object:
        seen.extend(trial_ids)
        return original(self, trial_ids)

    monkeypatch.setattr(Records, "results", watched)
    return seen


@pytest.fixture
def filled(store: Store) -> Store:
    """A store of three trials."""
    for number, name in enumerate((A, B, C)):
        store.records.write(name, record(name, accuracy=0.5 + number / 10))
    return store


def accuracies(store: Store) -> dict[str, float]:
    """What the table says, by trial."""
    table = results(store)
    assert table["final"].to_pylist() == [[value] * 2 for value in table["accuracy"].to_pylist()]
    return dict(zip(table["trial_id"].to_pylist(), table["accuracy"].to_pylist(), strict=True))


def test_records_are_read_once(filled: Store, read: list[str]) -> None:
    """The second time there is the index, with the same rows."""
    first = results(filled)
    assert read == [A, B, C]
    assert results(filled).equals(first)
    assert read == [A, B, C]


def test_a_new_trial_is_there_at_once(filled: Store, read: list[str]) -> None:
    """Only it is read."""
    results(filled)
    filled.records.write(D, record(D, accuracy=0.9))
    assert accuracies(filled) == {A: 0.5, B: 0.6, C: 0.7, D: 0.9}
    assert read == [A, B, C, D]


def test_a_trial_that_was_computed_again_is_read_again(filled: Store, read: list[str]) -> None:
    """Its record was rewritten with the same length; a removed trial disappears."""
    results(filled)
    path = filled.folder(B) / TRIAL_FILE
    filled.records.write(B, record(B, accuracy=0.65))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    (filled.folder(C) / TRIAL_FILE).unlink()
    assert accuracies(filled) == {A: 0.5, B: 0.65}
    assert read == [A, B, C, B]


def test_changed_tests_are_read_again(filled: Store, read: list[str]) -> None:
    """The accuracies of single tasks have a file of their own: exchanged, it is noticed."""
    results(filled)
    path, made = filled.folder(A) / TASKS_FILE, record(A, accuracy=0.25)
    before = path.read_bytes()
    filled.records.write(A, made)
    changed = path.read_bytes()
    filled.records.write(A, record(A, accuracy=0.5))
    results(filled)
    path.write_bytes(changed)
    with refused(UserError, "made-with-others", says="tasks.parquet: "):
        results(filled, [A, B])
    path.write_bytes(before)
    assert results(filled, [A, B])["final"].to_pylist() == [[0.5, 0.5], [0.6, 0.6]]


def test_what_was_just_written_is_not_trusted(filled: Store, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where times are whole seconds, a second record of the same second would look like the first."""
    monkeypatch.setattr(index, "UNSETTLED", 60.0)
    results(filled)
    results(filled)
    assert read == [A, B, C] * 2
    old = time.time() - 3600
    for path in filled.root.rglob("*.parquet"):
        os.utime(path, (old, old))
    results(filled)
    results(filled)
    assert read == [A, B, C] * 3


@pytest.mark.parametrize("content", [b"", b"PAR1 half of one", None])
def test_an_index_that_cannot_be_read_is_made_anew(filled: Store, content: bytes | None, read: list[str]) -> None:
    """Damaged, of another version, or removed: the records are the truth."""
    expected = results(filled)
    path = filled.root / "index" / INDEX_FILE
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert results(filled).equals(expected)
    assert len(read) == 6
    assert results(filled).equals(expected)
    assert len(read) == 6


def test_an_index_of_another_version_is_made_anew(
    filled: Store, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may mean something else."""
    results(filled)
    monkeypatch.setattr(index, "INDEX_VERSION", "another")
    results(filled)
    assert len(read) == 6


def test_a_store_that_cannot_be_written_is_read(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, somebody else's."""

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("orchestrator.store.folder.LocalFiles.write", refuse)
    assert accuracies(filled) == {A: 0.5, B: 0.6, C: 0.7}


def test_a_half_written_trial_has_no_row(filled: Store) -> None:
    """Its final record is not there yet; a damaged one is named."""
    filled.folder(D).mkdir()
    (filled.folder(D) / TASKS_FILE).write_bytes(b"half")
    assert list(accuracies(filled)) == [A, B, C]
    (filled.folder(D) / TRIAL_FILE).write_bytes(b"half")
    with refused(UserError, "record-unreadable", says="/trial.parquet: "):
        results(filled)


def test_few_trials_are_read_themselves(filled: Store, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order asked for, and no index is kept of a small store."""
    assert results(filled, [C])["trial_id"].to_pylist() == [C]
    monkeypatch.setattr(index, "FEW", 4)
    assert results(filled, [C, "none", A])["trial_id"].to_pylist() == [C, A]
    results(filled)
    assert not (filled.root / "index").exists()
    filled.records.write(D, record(D))
    assert results(filled, [D, "x", A, C, B])["trial_id"].to_pylist() == [D, A, C, B]
    assert (filled.root / "index").exists()


def test_an_index_on_object_storage_is_one_as_any(storage: ObjectStorage, read: list[str]) -> None:
    """It takes one listing and one file."""
    store = Store(storage.new_address())
    store.create()
    for name in (A, B):
        store.records.write(name, record(name))
    results(store)
    assert accuracies(store) == {A: 0.5, B: 0.5}
    assert read == [A, B]


def test_an_index_that_somebody_changed_is_made_anew(filled: Store, read: list[str]) -> None:
    """Every accuracy at 1, a column gone, a row twice, with what the file says of itself left as it was."""
    expected = results(filled)
    path = filled.root / "index" / INDEX_FILE
    table = pq.ParquetFile(path).read()
    ones = table.set_column(
        table.schema.get_field_index("accuracy"), table.schema.field("accuracy"), pa.array([1.0] * len(table))
    )
    for number, changed in enumerate((ones, table.drop_columns(["final"]), pa.concat_tables([table, table])), 2):
        pq.write_table(changed, path)
        assert results(filled).equals(expected)
        assert len(read) == 3 * number


def test_a_flipped_bit_in_the_index_changes_nothing(filled: Store) -> None:
    """It is rebuilt from the records."""
    expected = results(filled)
    path = filled.root / "index" / INDEX_FILE
    content = path.read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(content), 40, replace=False).tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert results(filled).equals(expected)


@pytest.mark.parametrize("name", ["accuracy", "final", "spec", "trial_id", "signature", "sealed"])
@pytest.mark.parametrize("how", ["gone", "null"])
def test_an_index_that_lacks_something_is_made_anew(filled: Store, name: str, how: str) -> None:
    """Even with valid checksums."""
    expected = results(filled)
    path = filled.root / "index" / INDEX_FILE
    table = pq.ParquetFile(path).read()
    field = table.schema.field(name)
    nulls = pa.nulls(len(table), field.type)
    place = table.schema.get_field_index(name)
    changed = table.drop_columns([name]) if how == "gone" else table.set_column(place, field, nulls)
    path.write_bytes(parquet_files.dump(changed))
    assert results(filled).equals(expected)


def test_damaged_records_stay_out_of_the_index(filled: Store, read: list[str]) -> None:
    """The others are in it; requesting damaged ones reports them each time."""
    filled.records.write(D, record(D))
    (filled.folder(B) / TRIAL_FILE).write_bytes(b"half")
    assert set(look(filled, [A, B, C, D]).faults) == {B}
    assert len(read) == 4
    assert set(look(filled, [A, B, C, D]).faults) == {B}
    assert len(read) == 5
    assert look(filled, [A, C]).faults == {}
    assert len(read) == 5
    assert results(filled, [A, C])["trial_id"].to_pylist() == [A, C]
    with refused(UserError, "record-unreadable", says=f"{B}/trial.parquet"):
        results(filled)


@pytest.mark.parametrize("version", ["[1, 1]", "[1, 2]"])
def test_records_without_sums_are_counted(filled: Store, read: list[str], version: str) -> None:
    """Those of an older version; in a store of this one those that the index knows of, and no other record is read."""
    if version == "[1, 1]":
        (filled.root / "store.json").write_text('{"format": "crwn-store", "version": [1, 1], "id": "abc"}')
    make_older(filled.folder(A) / TRIAL_FILE)
    results(filled)
    read.clear()
    assert doubts(filled, [A, B, C]) == Doubts(unsealed=1)
    assert doubts(filled, [B, C]) == Doubts()
    assert set(read) <= {A}


def test_few_records_without_sums_are_counted(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no index they are read."""
    monkeypatch.setattr(index, "FEW", 10)
    make_older(filled.folder(A) / TRIAL_FILE)
    assert doubts(filled, [A, B]) == Doubts(unsealed=1)
    (filled.folder(B) / TRIAL_FILE).write_bytes(b"half")
    assert doubts(filled, [A, B]) == Doubts(unsealed=1, damaged=1)
