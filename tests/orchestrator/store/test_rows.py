"""The rows of a trial's tables: they come back as they were, and what is of another kind is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from crwn.testing import Conditions, finished_record, tiny_trial, write_finished
from orchestrator.errors import UserError
from orchestrator.store.index import results
from orchestrator.store.rows import Sample, TestRow, TrialRow
from orchestrator.store.schemas import SYSTEM_FILE, SYSTEM_SCHEMA, TASKS_FILE, TASKS_SCHEMA, TRIALS_SCHEMA
from orchestrator.store.store import Store
from tests.older_records import make_older

RECORD = finished_record(tiny_trial(), conditions=Conditions(device="cuda"))


def test_rows_have_the_columns_of_their_tables() -> None:
    """All of them, in their order, and come back from their values."""
    assert list(RECORD.trial.columns()) == TRIALS_SCHEMA.names
    assert sorted(RECORD.tasks[0].columns()) == sorted(TASKS_SCHEMA.names)
    assert list(RECORD.system[0].columns()) == SYSTEM_SCHEMA.names
    assert TrialRow.read(RECORD.trial.columns()) == RECORD.trial
    assert [TestRow.read(row.columns()) for row in RECORD.tasks] == list(RECORD.tasks)
    assert [Sample.read(row.columns()) for row in RECORD.system] == list(RECORD.system)


def test_an_older_row_says_less() -> None:
    """What it does not say is None, or empty, and no fault."""
    older = {**RECORD.tasks[0].columns(), "tested": None, "curve_times": None, "curve": None}
    assert TestRow.read(older) == dataclasses.replace(RECORD.tasks[0], tested=None, curve=())


def _with(**changes: Any) -> Callable[[pa.Table], pa.Table]:
    """A table whose first row has other values."""

    def change(table: pa.Table) -> pa.Table:
        first, *others = table.to_pylist()
        return pa.Table.from_pylist([first | changes, *others], schema=table.schema)

    return change


@pytest.mark.parametrize(
    ("file", "change", "by_index"),
    [
        (TASKS_FILE, _with(task=None), True),
        (TASKS_FILE, _with(task=10**12), True),
        (TASKS_FILE, _with(task=-1), True),
        (TASKS_FILE, _with(tasks_learned=None), True),
        (TASKS_FILE, _with(tasks_learned=10**12), True),
        (TASKS_FILE, _with(curve_times=[1.0, 2.0, 3.0]), False),
        (TASKS_FILE, _with(curve=[{"step": None, "loss": 1.0, "accuracy": 1.0}]), False),
        (TASKS_FILE, _with(method=None), False),
        (SYSTEM_FILE, _with(time=None), False),
        (SYSTEM_FILE, _with(trial_id=None), False),
    ],
)
def test_rows_of_another_kind_are_refused(
    store: Store, file: str, change: Callable[[pa.Table], pa.Table], *, by_index: bool
) -> None:
    """In one line that names the file, before anything is made as large as they say."""
    spec = tiny_trial()
    write_finished(store, spec)
    path = store.folder(spec.trial_id) / file
    make_older(path, change)  # without sums, so that all of it is read
    with pytest.raises(UserError) as caught:
        results(store) if by_index else store.so_far(spec.trial_id)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
