"""The compacted index: quick, never wrong, thrown away at will."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from orchestrator import index
from orchestrator.errors import UserError
from orchestrator.index import INDEX_FILE, final_accuracies, results
from orchestrator.store import TASKS_FILE, TRIAL_FILE, Store, TrialRecord
from tests.object_storage import ObjectStorage

Record = Callable[..., TrialRecord]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few trials are many, and what was written a moment ago is settled."""
    monkeypatch.setattr(index, "FEW", 2)
    monkeypatch.setattr(index, "UNSETTLED", -60.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials whose records were read, in order."""
    seen: list[str] = []
    original = Store.tests

    def tests(self: Store, trial_ids: list[str]) -> object:
        seen.extend(trial_ids)
        return original(self, trial_ids)

    monkeypatch.setattr(Store, "tests", tests)
    return seen


@pytest.fixture
def filled(store: Store, record: Record) -> Store:
    """A store of three trials."""
    for number, name in enumerate("abc"):
        store.write_record(name, record(name, accuracy=0.5 + number / 10))
    return store


def accuracies(store: Store) -> dict[str, float]:
    """What the table says, by trial."""
    table = results(store)
    assert table["final"].to_pylist() == [[value] * 2 for value in table["accuracy"].to_pylist()]
    return dict(zip(table["trial_id"].to_pylist(), table["accuracy"].to_pylist(), strict=True))


def test_records_are_read_once(filled: Store, read: list[str]) -> None:
    """The second time there is the index, with the same rows."""
    first = results(filled)
    assert read == ["a", "b", "c"]
    assert results(filled).equals(first)
    assert read == ["a", "b", "c"]


def test_a_new_trial_is_there_at_once(filled: Store, record: Record, read: list[str]) -> None:
    """Only it is read."""
    results(filled)
    filled.write_record("d", record("d", accuracy=0.9))
    assert accuracies(filled) == {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.9}
    assert read == ["a", "b", "c", "d"]


def test_a_trial_that_was_computed_again_is_read_again(filled: Store, record: Record, read: list[str]) -> None:
    """Its record was written anew, of equal length; and one that is gone is gone."""
    results(filled)
    path = filled.folder("b") / TRIAL_FILE
    filled.write_record("b", record("b", accuracy=0.65))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    (filled.folder("c") / TRIAL_FILE).unlink()
    assert accuracies(filled) == {"a": 0.5, "b": 0.65}
    assert read == ["a", "b", "c", "b"]


def test_changed_tests_are_read_again(filled: Store, record: Record, read: list[str]) -> None:
    """The accuracies of single tasks have a file of their own."""
    results(filled)
    made = record("a", accuracy=0.5)
    filled.write_record("a", replace(made, tasks=[{**row, "accuracy": 0.25} for row in made.tasks]))
    assert results(filled, ["a", "b"])["final"].to_pylist() == [[0.25, 0.25], [0.6, 0.6]]
    assert read[3:] == ["a"]


def test_what_was_just_written_is_not_trusted(filled: Store, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where times are whole seconds, a second record of the same second would look like the first."""
    monkeypatch.setattr(index, "UNSETTLED", 60.0)
    results(filled)
    results(filled)
    assert read == ["a", "b", "c"] * 2
    old = time.time() - 3600
    for path in filled.root.rglob("*.parquet"):
        os.utime(path, (old, old))
    results(filled)
    results(filled)
    assert read == ["a", "b", "c"] * 3


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
    monkeypatch.setattr(index, "INDEX_VERSION", b"2")
    results(filled)
    assert len(read) == 6


def test_a_store_that_cannot_be_written_is_read(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's, say."""

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("orchestrator.files.LocalFiles.write", refuse)
    assert accuracies(filled) == {"a": 0.5, "b": 0.6, "c": 0.7}


def test_a_half_written_trial_has_no_row(filled: Store) -> None:
    """Its final record is not there yet; a damaged one is named."""
    filled.folder("d").mkdir()
    (filled.folder("d") / TASKS_FILE).write_bytes(b"half")
    assert list(accuracies(filled)) == ["a", "b", "c"]
    (filled.folder("d") / TRIAL_FILE).write_bytes(b"half")
    with pytest.raises(UserError, match=r"d/trial\.parquet: expected a record that can be read"):
        results(filled)


def test_few_trials_are_read_themselves(
    filled: Store, record: Record, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order asked for, and no index is kept of a small store."""
    assert results(filled, ["c"])["trial_id"].to_pylist() == ["c"]
    monkeypatch.setattr(index, "FEW", 4)
    assert results(filled, ["c", "none", "a"])["trial_id"].to_pylist() == ["c", "a"]
    results(filled)
    assert not (filled.root / "index").exists()
    filled.write_record("d", record("d"))
    assert results(filled, ["d", "x", "a", "c", "b"])["trial_id"].to_pylist() == ["d", "a", "c", "b"]
    assert (filled.root / "index").exists()


def test_an_index_on_object_storage_is_one_as_any(storage: ObjectStorage, record: Record, read: list[str]) -> None:
    """One listing and one file."""
    store = Store(storage.new_address())
    store.create()
    for name in "ab":
        store.write_record(name, record(name))
    results(store)
    assert accuracies(store) == {"a": 0.5, "b": 0.5}
    assert read == ["a", "b"]


def test_the_last_row_and_the_diagonal() -> None:
    """Where tasks are independent the diagonal stands for tests not made; where they are not, nothing does."""
    tests = [(0, 1, 0.9), (1, 2, 0.8), (2, 3, 0.7), (0, 3, 0.6)]
    columns = [np.array(column) for column in zip(*tests, strict=True)]
    tasks, learned, values = columns
    final, diagonal = final_accuracies(tasks, learned, values, independent=True)
    assert (final.tolist(), diagonal.tolist()) == ([0.6, 0.8, 0.7], [0.9, 0.8, 0.7])
    final, _ = final_accuracies(tasks, learned, values, independent=False)
    assert json.dumps(final.tolist()) == "[0.6, NaN, 0.7]"
