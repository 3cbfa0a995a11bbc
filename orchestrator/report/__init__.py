"""What comes out for people: tables of every sweep of a store. All of it can be made again from the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from orchestrator import aggregate
from orchestrator.errors import UserError
from orchestrator.files import Files
from orchestrator.report.plain import csv_text
from orchestrator.store import Store

NAME_COLUMNS = ("method", "variant", "scale")
"""The columns of a table that name its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTable:
    """One sweep's results.

    Attributes:
        name: the sweep's.
        summary: as numbers, a row a cell.
        table: as text, as people print it.
        reference: the method that ratios are to, or None.
        validation: the benchmarks whose tests were on held-out training images.
    """

    name: str
    summary: pd.DataFrame
    table: pd.DataFrame
    reference: str | None = None
    validation: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """What the numbers are."""
        caption = (
            "Test accuracy in %, averaged over tasks after the last one: mean ± sample standard deviation over seeds "
            "(n seeds, or finished/asked where some are missing). params/task in the paper's convention."
        )
        if self.reference:
            caption += f" ratio: params/task to those of {self.reference}."
        if "s/task" in self.table:
            devices = sorted(
                {name for cell in self.summary["devices"] for name in cell.split(aggregate.SEPARATOR) if name}
            )
            caption += (
                " s/task: training seconds of a task, its share of those learned together (how many), median over "
                f"tasks, mean over seeds; on {' and '.join(devices)}."
            )
        if not self.summary["continual"].all():
            caption += " (not continual): learns all tasks at once."
        if self.validation:
            caption += f" Tested on held-out training images, not on the test set: {', '.join(self.validation)}."
        return caption


def sweep_table(store: Store, manifest: Mapping[str, Any]) -> SweepTable:
    """The results that a store has of a sweep."""
    trials = store.trials(trial_id for cell in manifest["cells"] for trial_id in cell["trials"].values()).to_pandas()
    trials["train_seconds_per_task"] = pd.to_numeric(
        _from_json(trials["provenance"], "train_seconds_per_task", int | float)
    )
    trials["device"] = _from_json(trials["provenance"], "device", str)
    trials["group_size"] = pd.Series(_from_json(trials["numerics"], "group_size", int), dtype="Int64")
    summary = aggregate.summarise(manifest, trials)
    return SweepTable(
        name=manifest["name"],
        summary=summary,
        table=aggregate.pivot(summary),
        reference=manifest.get("reference"),
        validation=tuple(dict.fromkeys(cell["benchmark"] for cell in manifest["cells"] if cell.get("validation"))),
    )


def _from_json(texts: pd.Series, name: str, kind: type | UnionType) -> list[Any]:
    """A value of a JSON column; None where an older record does not say, and where it is of another kind."""
    values = [json.loads(text or "{}").get(name) for text in texts]
    return [value if isinstance(value, kind) else None for value in values]


def write_tables(store: Store, to: Files) -> list[str]:
    """Write the table of every sweep of a store as Markdown and CSV.

    Args:
        store: the store.
        to: where they are written.

    Returns:
        The full names of the files written.

    Raises:
        UserError: the store has no sweep, or the folder cannot be written.
    """
    manifests = store.manifests()
    if not manifests:
        raise UserError(f"{store.address}: expected a store with at least one sweep, found none; start with crwn run")
    files = {}
    for manifest in manifests:
        table = sweep_table(store, manifest)
        files[f"{table.name}.md"] = markdown(table)
        files[f"{table.name}.csv"] = csv_text(table.summary)
    try:
        for name, text in files.items():
            to.write(name, text.encode())
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{to.address}: expected a folder that can be written: {error}. Name another with --to."
        ) from error
    return [to.locate(name) for name in files]


def markdown(table: SweepTable) -> str:
    """A sweep's table as a Markdown document."""
    return f"# {table.name}\n\n{markdown_caption(table)}\n\n{markdown_rows(table)}\n"


def markdown_caption(table: SweepTable) -> str:
    """What the numbers are, in Markdown."""
    return table.caption.translate(_AS_TEXT)


def markdown_rows(table: SweepTable) -> str:
    """A sweep's table in Markdown, nothing around it."""
    header = list(table.table.columns)
    lines = [header, ["---"] * len(header), *table.table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).translate(_AS_TEXT) for cell in line) + " |" for line in lines)


_AS_TEXT = str.maketrans({"|": "\\|", "<": "&lt;", "[": "\\[", "`": "\\`", "\\": "\\\\"})
"""A label is text in Markdown: no column, no HTML, no link, no image."""


def matrix_csv(matrix: NDArray[Any]) -> str:
    """An accuracy matrix [T, T] as CSV: a row for each number of tasks learned; empty where a task was not tested."""
    num_tasks = len(matrix)
    frame = pd.DataFrame(
        matrix,
        index=pd.RangeIndex(1, num_tasks + 1, name="tasks learned"),
        columns=[f"task {task + 1}" for task in range(num_tasks)],
    )
    return frame.to_csv(lineterminator="\n")
