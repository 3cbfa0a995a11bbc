"""Records that no trial writes, or that do not belong together, never become a number."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crwn.faults import InvalidError
from crwn.testing import tiny_trial, write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.store import index, integrity, parquet_files
from orchestrator.store.index import results
from orchestrator.store.schemas import CONTEXTS_FILE, SYSTEM_FILE, TASKS_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from tests.older_records import make_older
from tests.refusals import refused

Change = Callable[[pa.Table], pa.Table]

A, B = tiny_trial(seed=0), tiny_trial(seed=1)


def with_values(**values: Any) -> Change:
    """The record with these values in its first row."""

    def change(table: pa.Table) -> pa.Table:
        first, *others = table.to_pylist()
        return pa.Table.from_pylist([first | values, *others], schema=table.schema)

    return change


def with_last(**values: Any) -> Change:
    """The record with these values in its last row."""
    return lambda table: pa.Table.from_pylist([*table.to_pylist()[:-1], table.to_pylist()[-1] | values], table.schema)


def rewrite(store: Store, spec: TrialSpec, file: str, change: Change) -> None:
    """Write a record again with sums of its own, as who knows our format can."""
    path = store.folder(spec.trial_id) / file
    path.write_bytes(parquet_files.dump(change(pq.ParquetFile(path).read())))


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with two finished trials."""
    write_finished(store, A, accuracy=[0.5, 0.75])
    write_finished(store, B, accuracy=0.25)
    return store


def test_whole_records_are_read(filled: Store) -> None:
    """With the accuracy of every task, those that are implied filled in."""
    table = results(filled)
    assert dict(zip(table["trial_id"].to_pylist(), table["final"].to_pylist(), strict=True)) == {
        A.trial_id: [0.5, 0.75],
        B.trial_id: [0.25, 0.25],
    }


REFUSED: list[tuple[str, Change, str, str]] = [
    (TRIAL_FILE, with_values(accuracy=0.75), "mean-differs", "accuracy is 0.75"),
    (TRIAL_FILE, with_values(accuracy=None), "wrong-type", "accuracy: "),
    (TRIAL_FILE, with_values(accuracy=5.0), "out-of-range", "given 5.0"),
    (TRIAL_FILE, with_values(accuracy=-1.0), "out-of-range", "given -1.0"),
    (TRIAL_FILE, with_values(accuracy=math.inf), "out-of-range", "given inf"),
    (TRIAL_FILE, with_values(forgetting=7.0), "out-of-range", "given 7.0"),
    (TRIAL_FILE, with_values(params_per_task=-1.0), "out-of-range", "params_per_task"),
    (TRIAL_FILE, with_values(trial_id=B.trial_id), "of-another-trial", repr(B.trial_id)),
    (TRIAL_FILE, with_values(seed=7), "column-of-another-spec", "seed is 7"),
    (TRIAL_FILE, with_values(method="supsup"), "column-of-another-spec", "method is 'supsup'"),
    (TRIAL_FILE, with_values(benchmark="split-cifar100"), "column-of-another-spec", "benchmark"),
    (TRIAL_FILE, with_values(scale="FC17"), "column-of-another-spec", "scale"),
    (TRIAL_FILE, with_values(spec=B.canonical_json()), "of-another-trial", B.trial_id),
    (TRIAL_FILE, with_values(spec="{"), "record-unreadable", "column 2"),
    (TRIAL_FILE, with_values(spec=None), "wrong-type", "spec: "),
    (TRIAL_FILE, with_values(provenance="[1]"), "wrong-type", "provenance"),
    (TRIAL_FILE, with_values(numerics='{"group_size": 1e999}'), "not-a-count", "numerics.group_size"),
    (TRIAL_FILE, with_values(numerics='{"group_size": 99999999999999999999}'), "not-a-count", "group_size"),
    (TRIAL_FILE, with_values(numerics='{"group_size": 0}'), "out-of-range", "given 0"),
    (TRIAL_FILE, with_values(provenance='{"versions": 5}'), "wrong-type", "provenance.versions"),
    (TRIAL_FILE, with_values(fingerprint=None), "wrong-type", "fingerprint: "),
    (TRIAL_FILE, lambda table: pa.concat_tables([table, table]), "rows-miscounted", "given 2"),
    (TRIAL_FILE, lambda table: table[:0], "rows-miscounted", "given 0"),
    (TASKS_FILE, with_last(accuracy=0.625), "made-with-others", ""),
    (TASKS_FILE, with_values(trial_id=B.trial_id), "of-another-trial", repr(B.trial_id)),
    (TASKS_FILE, with_values(task=None), "test-of-no-task", ""),
    (TASKS_FILE, with_values(task=10**12), "out-of-range", "1000000000000"),
    (TASKS_FILE, with_values(task=-1), "out-of-range", "task from 0"),
    (TASKS_FILE, with_values(tasks_learned=-1), "out-of-range", "tasks_learned"),
    (TASKS_FILE, with_values(accuracy=1.5), "out-of-range", "1.5"),
    (TASKS_FILE, with_values(update=3), "tests-of-two-kinds", ""),
    (TASKS_FILE, with_values(accuracy_told=1.5), "out-of-range", "task told"),
    (TRIAL_FILE, with_values(accuracy_told=0.5), "mean-differs", "accuracy_told is 0.5"),
    (TASKS_FILE, lambda table: table[:1], "made-with-others", ""),
    (TASKS_FILE, lambda table: table[:0], "made-with-others", ""),
    (TASKS_FILE, lambda table: pa.concat_tables([table, table]), "task-tested-twice", ""),
]


@pytest.mark.parametrize("how", ["with sums", "older"])
@pytest.mark.parametrize(("file", "change", "code", "fact"), REFUSED)
def test_a_record_that_no_trial_leaves_is_refused(
    filled: Store, file: str, change: Change, code: str, fact: str, how: str
) -> None:
    """In a line that names the file; the same without sums, but for what nothing but a sum can show."""
    if how == "with sums":
        rewrite(filled, A, file, change)
    else:
        make_older(filled.folder(A.trial_id) / TRIAL_FILE)
        make_older(filled.folder(A.trial_id) / file, change)
    expected = "mean-differs" if how == "older" and code == "made-with-others" else code
    with refused(UserError, expected, says=[".parquet: ", fact]):
        results(filled)
    assert set(index.look(filled, [A.trial_id, B.trial_id]).faults) == {A.trial_id}


def test_a_folder_under_another_trials_id_is_refused(filled: Store) -> None:
    """Copied whole, and with its id rewritten in every file: a spec has one id."""
    shutil.rmtree(filled.folder(B.trial_id))
    shutil.copytree(filled.folder(A.trial_id), filled.folder(B.trial_id))
    with refused(UserError, "of-another-trial", says=A.trial_id):
        results(filled)
    for file in (TRIAL_FILE, TASKS_FILE, SYSTEM_FILE):
        path = filled.folder(B.trial_id) / file
        table = pq.ParquetFile(path).read()
        place = table.schema.get_field_index("trial_id")
        column = pa.array([B.trial_id] * len(table), pa.string())
        path.write_bytes(parquet_files.dump(table.set_column(place, table.schema.field("trial_id"), column)))
    with refused(UserError, "of-another-trial", says=[B.trial_id, A.trial_id]):
        results(filled)


def test_the_tests_of_another_computation_are_refused(filled: Store, tmp_path: Path) -> None:
    """Of the very same trial, with the same mean: the trial's record names the rows that it was made from."""
    other = Store(tmp_path / "other")
    other.create()
    write_finished(other, A, accuracy=[0.75, 0.5])
    shutil.copy(other.folder(A.trial_id) / TASKS_FILE, filled.folder(A.trial_id) / TASKS_FILE)
    with refused(UserError, "made-with-others", says="tasks.parquet: "):
        results(filled)


def test_equal_tests_with_other_times_are_as_good(filled: Store) -> None:
    """A second driver on object storage may write them after the first has finished the trial."""
    rewrite(filled, A, TASKS_FILE, with_values(train_seconds=99.0, eval_seconds=98.0))
    assert len(results(filled)) == 2


def test_all_damaged_trials_are_named_at_once(filled: Store) -> None:
    """Not one per run."""
    for spec in (A, B):
        rewrite(filled, spec, TRIAL_FILE, with_values(accuracy=0.9))
    with pytest.raises(UserError) as refused:
        results(filled)
    assert [line.split("/")[-2] for line in str(refused.value).splitlines()] == sorted([A.trial_id, B.trial_id])


def test_rows_of_another_trial_are_refused_one_by_one_too(filled: Store) -> None:
    """Also when a single trial's rows are read."""
    for file in (TASKS_FILE, SYSTEM_FILE):
        shutil.copy(filled.folder(B.trial_id) / file, filled.folder(A.trial_id) / file)
        with refused(UserError, "of-another-trial", says=repr(B.trial_id)):
            filled.so_far(A.trial_id)
    with refused(UserError, "of-another-trial", says=repr(B.trial_id)):
        filled.records.tasks([A.trial_id])


def made_tests(rows: list[tuple[int, int, float]], *, told: float = math.nan, updates: Any = None) -> integrity.Tests:
    """Tests from (task, tasks learned, accuracy)."""
    task, learned, accuracy = zip(*rows, strict=True)
    return integrity.Tests(
        task=np.array(task),
        tasks_learned=np.array(learned),
        accuracy=np.array(accuracy),
        accuracy_told=np.full(len(rows), told),
        update=updates if updates is None else np.array(updates),
    )


def test_the_last_row_and_the_diagonal() -> None:
    """Where tasks do not touch each other, a test when a task was learned stands for those that were not made."""
    tests = made_tests([(0, 1, 0.5), (1, 2, 0.25), (2, 3, 0.75), (0, 3, 0.125)])
    found = integrity.outcome(tests, independent=True)
    assert found.final.tolist() == [0.125, 0.25, 0.75]
    assert found.learned.tolist() == [0.5, 0.25, 0.75]
    assert found.measures["backward_transfer"] == pytest.approx((0.125 - 0.5) / 2)
    found = integrity.outcome(tests, independent=False)
    np.testing.assert_array_equal(found.final, [0.125, np.nan, 0.75])
    assert math.isnan(found.measures["backward_transfer"])


def test_the_accuracy_over_the_tasks_seen_so_far() -> None:
    """By hand: .5 after one task, (.25 + .75)/2 after two; and what the task's own classes alone would give."""
    tests = made_tests([(0, 1, 0.5), (1, 2, 0.75), (0, 2, 0.25)], told=0.875)
    found = integrity.outcome(tests, independent=False)
    assert found.seen.tolist() == [0.5, 0.5]
    assert found.measures["forgetting"] == 0.25
    assert found.told.tolist() == [0.875, 0.875]


def test_a_test_before_the_first_task_is_what_transfer_is_measured_from() -> None:
    """Task 1 had .1 untrained and .4 before it was learned; nothing else hangs on such tests."""
    tests = [(0, 1, 0.5), (1, 2, 0.75), (0, 2, 0.25)]
    before = [(0, 0, 0.125), (1, 0, 0.125), (1, 1, 0.375)]
    plain, found = (integrity.outcome(made_tests(rows), independent=False) for rows in (tests, tests + before))
    assert math.isnan(plain.measures["forward_transfer"])
    assert found.measures["forward_transfer"] == 0.25
    assert found.final.tolist() == plain.final.tolist()
    assert found.seen.tolist() == plain.seen.tolist()


def test_a_stream_ends_with_its_last_update() -> None:
    """Three tests twice: what counts is the last time; what is of single tasks in turn does not exist.

    What is of the end alone does: the first, last and worst of the three, and their sum.
    """
    rows = [(task, 0, accuracy) for accuracy in (0.25, 0.5) for task in range(3)]
    found = integrity.outcome(made_tests(rows, updates=[10] * 3 + [17] * 3), independent=False)
    assert found.final.tolist() == [0.5] * 3
    assert np.isnan(found.learned).all()
    assert np.isnan(found.seen).all()
    known = {name: value for name, value in found.measures.items() if not math.isnan(value)}
    assert known == {"first_task": 0.5, "last_task": 0.5, "worst_task": 0.5, "gross_memory": 1.5}


def test_contexts_are_those_of_the_record(filled: Store) -> None:
    """A trial's record names the bytes of its contexts, too."""
    trial = parquet_files.load(filled.read(A.trial_id, TRIAL_FILE), pa.schema([]), "x")

    content = filled.read(A.trial_id, CONTEXTS_FILE)
    assert content is not None
    integrity.check_contexts(trial, content)
    with refused(InvalidError, "made-with-others"):
        integrity.check_contexts(trial, content + b"\0")
