"""The compacted index: quick, never wrong, thrown away at will."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from orchestrator import index
from orchestrator.errors import UserError
from orchestrator.index import INDEX_FILE, final_accuracies, results
from orchestrator.store import TASKS_FILE, TRIAL_FILE, Store
from tests.object_storage import ObjectStorage
from tests.orchestrator.made_up import A, B, C, D, record


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
def filled(store: Store) -> Store:
    """A store of three trials."""
    for number, name in enumerate((A, B, C)):
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
    assert read == [A, B, C]
    assert results(filled).equals(first)
    assert read == [A, B, C]


def test_a_new_trial_is_there_at_once(filled: Store, read: list[str]) -> None:
    """Only it is read."""
    results(filled)
    filled.write_record(D, record(D, accuracy=0.9))
    assert accuracies(filled) == {A: 0.5, B: 0.6, C: 0.7, D: 0.9}
    assert read == [A, B, C, D]


def test_a_trial_that_was_computed_again_is_read_again(filled: Store, read: list[str]) -> None:
    """Its record was written anew, of equal length; and one that is gone is gone."""
    results(filled)
    path = filled.folder(B) / TRIAL_FILE
    filled.write_record(B, record(B, accuracy=0.65))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    (filled.folder(C) / TRIAL_FILE).unlink()
    assert accuracies(filled) == {A: 0.5, B: 0.65}
    assert read == [A, B, C, B]


def test_changed_tests_are_read_again(filled: Store, read: list[str]) -> None:
    """The accuracies of single tasks have a file of their own."""
    results(filled)
    made = record(A, accuracy=0.5)
    filled.write_record(A, replace(made, tasks=[replace(row, accuracy=0.25) for row in made.tasks]))
    assert results(filled, [A, B])["final"].to_pylist() == [[0.25, 0.25], [0.6, 0.6]]
    assert read[3:] == [A]


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
    monkeypatch.setattr(index, "INDEX_VERSION", b"2")
    results(filled)
    assert len(read) == 6


def test_a_store_that_cannot_be_written_is_read(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's, say."""

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("orchestrator.files.LocalFiles.write", refuse)
    assert accuracies(filled) == {A: 0.5, B: 0.6, C: 0.7}


def test_a_half_written_trial_has_no_row(filled: Store) -> None:
    """Its final record is not there yet; a damaged one is named."""
    filled.folder(D).mkdir()
    (filled.folder(D) / TASKS_FILE).write_bytes(b"half")
    assert list(accuracies(filled)) == [A, B, C]
    (filled.folder(D) / TRIAL_FILE).write_bytes(b"half")
    with pytest.raises(UserError, match=r"/trial\.parquet: expected a record that can be read"):
        results(filled)


def test_few_trials_are_read_themselves(filled: Store, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order asked for, and no index is kept of a small store."""
    assert results(filled, [C])["trial_id"].to_pylist() == [C]
    monkeypatch.setattr(index, "FEW", 4)
    assert results(filled, [C, "none", A])["trial_id"].to_pylist() == [C, A]
    results(filled)
    assert not (filled.root / "index").exists()
    filled.write_record(D, record(D))
    assert results(filled, [D, "x", A, C, B])["trial_id"].to_pylist() == [D, A, C, B]
    assert (filled.root / "index").exists()


def test_an_index_on_object_storage_is_one_as_any(storage: ObjectStorage, read: list[str]) -> None:
    """One listing and one file."""
    store = Store(storage.new_address())
    store.create()
    for name in (A, B):
        store.write_record(name, record(name))
    results(store)
    assert accuracies(store) == {A: 0.5, B: 0.5}
    assert read == [A, B]


def test_the_last_row_and_the_diagonal() -> None:
    """Where tasks are independent the diagonal stands for tests not made; where they are not, nothing does."""
    tests = [(0, 1, 0.9), (1, 2, 0.8), (2, 3, 0.7), (0, 3, 0.6)]
    columns = [np.array(column) for column in zip(*tests, strict=True)]
    tasks, learned, values = columns
    final, diagonal = final_accuracies(tasks, learned, values, independent=True)
    assert (final.tolist(), diagonal.tolist()) == ([0.6, 0.8, 0.7], [0.9, 0.8, 0.7])
    final, _ = final_accuracies(tasks, learned, values, independent=False)
    assert json.dumps(final.tolist()) == "[0.6, NaN, 0.7]"
