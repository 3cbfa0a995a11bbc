"""The context banks in a store: what each finished trial keeps, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from crwn.contexts import SHARED, ContextBank
from crwn.faults import InvalidError
from orchestrator.errors import UserError
from orchestrator.report.frames import NAMES, read_trials
from orchestrator.report.pivots import conditions, select
from orchestrator.report.printable import Table
from orchestrator.report.results import Results
from orchestrator.store.store import Store

CAPTION = (
    "What each finished trial keeps of its tasks. Bytes: its file. Per task: one task's tensors. Shared: "
    "learned weights that all tasks share. Accuracy: mean over tasks at the end, in percent."
)


def banks_table(store: Store, where: Sequence[str] = ()) -> Table:
    """The table of a store's banks.

    Args:
        store: the store.
        where: only trials with these values, `NAME=VALUE`.

    Raises:
        UserError: no trial is finished.
    """
    results, frame = Results(store), select(read_trials(store), conditions(where))
    if frame.empty:
        raise UserError("no-trial", f"{store.address}: expected a finished trial, found none")
    rows: list[dict[str, Any]] = []
    for _, trial in frame.iterrows():
        row = {column: trial[column] for column in (*NAMES, "seed")} | {"trial_id": trial["trial_id"]}
        try:
            bank = results.contexts(trial["trial_id"])
        except UserError as error:
            rows.append({**row, "note": str(error)})
            continue
        shared = sum(tensor.nbytes for name, tensor in bank.tensors.items() if name.startswith(SHARED))
        rows.append(
            {
                **row,
                "tasks": bank.num_tasks,
                "bytes": len(store.records.contexts(trial["trial_id"])),
                "bytes_per_task": sum(tensor.nbytes for tensor in bank.own.values()) / bank.num_tasks,
                "shared_bytes": shared,
                "accuracy": trial["accuracy"],
                "note": _note(bank),
            }
        )
    summary = pd.DataFrame(rows, columns=[*NAMES, "seed", "trial_id", *MEASURED, "note"])
    table = pd.DataFrame(
        {
            **{name: summary[name].astype(str) for name in (*NAMES, "seed")},
            "trial": summary["trial_id"],
            **{word: summary[name].map(show) for name, (word, show) in MEASURED.items()},
        }
    )
    if not table["variant"].any():
        table = table.drop(columns="variant")
    notes = [f"{row['trial_id']}: {row['note']}" for row in rows if row["note"]]
    name_columns = [name for name in (*NAMES, "seed", "trial") if name in table.columns]
    return Table(name="contexts", summary=summary, table=table, caption=CAPTION, notes=notes, name_columns=name_columns)


def _note(bank: ContextBank) -> str:
    """What a reader should know of a bank."""
    try:
        return "" if bank.needs_task else "one network answers for all tasks"
    except InvalidError as error:  # of a plug-in that is not loaded
        return str(error)


def _whole(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}"


def _percent(value: Any) -> str:
    return "" if pd.isna(value) else f"{100 * value:.2f}"


MEASURED = {
    "tasks": ("tasks", _whole),
    "bytes": ("bytes", _whole),
    "bytes_per_task": ("per task", _whole),
    "shared_bytes": ("shared", _whole),
    "accuracy": ("accuracy", _percent),
}
"""What the table calls the measures, and how it shows them."""
