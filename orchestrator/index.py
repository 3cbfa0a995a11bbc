"""A store's finished trials as one table: a row a trial, with the accuracy of every task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.store import TRIALS_SCHEMA, Store

RESULTS_SCHEMA = pa.schema(
    [*TRIALS_SCHEMA, pa.field("final", pa.list_(pa.float64())), pa.field("learned", pa.list_(pa.float64()))]
)
"""The `trials` row; final, the accuracy of each task after the last one, in [0, 1], in the tasks' order; learned, that
of each when it was learned. NaN where a task was not tested."""


def results(store: Store, trial_ids: Iterable[str] | None = None) -> pa.Table:
    """The finished trials of a store.

    Args:
        store: the store.
        trial_ids: those wanted; None for all.

    Returns:
        Rows of `RESULTS_SCHEMA`, in the order asked for; trials that are not finished have none.

    Raises:
        UserError: a record is damaged or newer than this reader.
    """
    return _read(store, store.trial_ids() if trial_ids is None else list(trial_ids))


def _read(store: Store, trial_ids: list[str]) -> pa.Table:
    """From the records themselves."""
    trials = store.trials(trial_ids)
    tests = store.tests(trials["trial_id"].to_pylist())
    accuracies = [
        final_accuracies(*test, independent=grouping == "any")
        for test, grouping in zip(tests, trials["grouping"].to_pylist(), strict=True)
    ]
    columns = {"final": [final for final, _ in accuracies], "learned": [learned for _, learned in accuracies]}
    for name, lists in columns.items():
        trials = trials.append_column(RESULTS_SCHEMA.field(name), pa.array(lists, RESULTS_SCHEMA.field(name).type))
    return trials.cast(RESULTS_SCHEMA)


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
