"""The tables of a sweep, under its own names: its cells, ablations, and comparisons with one row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.report import aggregate, comparison, filenames
from orchestrator.report.frames import read_trials
from orchestrator.report.printable import NAME_COLUMNS, Table
from orchestrator.store.manifests import Manifest
from orchestrator.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTable:
    """One sweep's results.

    Attributes:
        name: the sweep's name.
        summary: the table as numbers, one row per cell.
        table: the table as text, for print.
        reference: the method that ratios are relative to, or None.
        validation: the benchmarks whose tests were on held-out training images.
        notes: notes on single cells.
    """

    name: str
    summary: pd.DataFrame
    table: pd.DataFrame
    reference: str | None = None
    validation: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    @property
    def file_name(self) -> str:
        """The name of its files, without extension."""
        return filenames.table(self.name)

    @property
    def name_columns(self) -> Sequence[str]:
        """The columns of `table` that name its rows."""
        return NAME_COLUMNS

    @property
    def caption(self) -> str:
        """What the numbers are."""
        caption = (
            "Test accuracy in %, averaged over tasks after the last one: mean ± sample standard deviation over seeds "
            "(n seeds, or finished/asked where some are missing). params/task in the paper's convention."
        )
        if "masked" in self.table:
            caption += (
                " masked: the same among each task's own classes only, as if the task were told; the accuracy itself "
                "is among all classes."
            )
        if "forgetting" in self.table:
            caption += (
                " forgetting: how far a task's final accuracy is below its best one before the last task, averaged "
                "over tasks, in points."
            )
        if "examples kept" in self.table:
            caption += " examples kept: capacity of the replay buffer, in training images."
        if self.reference:
            caption += f" ratio: params/task relative to {self.reference}."
        if "s/task" in self.table:
            devices = sorted(
                {name for cell in self.summary["devices"] for name in cell.split(aggregate.SEPARATOR) if name}
            )
            caption += (
                " s/task: training seconds per task (in brackets: tasks that are learned together and share the time), "
                f"median over tasks, mean over seeds; on {' and '.join(devices)}."
            )
        if not self.summary["continual"].all():
            caption += " (not continual): all tasks are learned jointly."
        if self.validation:
            caption += f" Tested on held-out training images, not on the test set: {', '.join(self.validation)}."
        return caption


def sweep_trials(store: Store, manifest: Manifest) -> pd.DataFrame:
    """The finished trials that a sweep requests, as returned by `frames.trials_frame`."""
    return read_trials(store, manifest.trial_ids)


def sweep_table(store: Store, manifest: Manifest, trials: pd.DataFrame | None = None) -> SweepTable:
    """A store's results of a sweep.

    Args:
        store: the store.
        manifest: the sweep's manifest.
        trials: the trials to include, by default all finished ones; others count as missing.
    """
    trials = sweep_trials(store, manifest) if trials is None else trials
    finished = set(trials["trial_id"])
    failures = store.unfinished.errors(trial_id for trial_id in manifest.trial_ids if trial_id not in finished)
    summary = aggregate.summarise(manifest, trials, failures)
    return SweepTable(
        name=manifest.name,
        summary=summary,
        table=aggregate.pivot(summary),
        reference=manifest.reference,
        validation=tuple(dict.fromkeys(cell.benchmark for cell in manifest.cells if cell.validation)),
        notes=aggregate.notes(summary),
    )


def ablation_table(manifest: Manifest, trials: pd.DataFrame) -> Table | None:
    """The table of what each variant of a sweep's ablations changes; None if the sweep declares no ablations.

    Args:
        manifest: the sweep's manifest.
        trials: as returned by `sweep_trials`.
    """
    if not any(cell.base for cell in manifest.cells):
        return None
    found = comparison.compare(manifest, trials, comparison.ablation_bases(manifest))
    return _comparisons(f"{manifest.name}.ablations", found, "the base of its ablation")


def comparison_table(manifest: Manifest, trials: pd.DataFrame, reference: str) -> Table:
    """The table that compares every row of a sweep with one of them; raises like `comparison.against`.

    Args:
        manifest: the sweep's manifest.
        trials: as returned by `sweep_trials`.
        reference: see `comparison.against`.
    """
    found = comparison.compare(manifest, trials, comparison.against(manifest, reference))
    return _comparisons(filenames.against(manifest.name, reference), found, reference)


def _comparisons(name: str, found: pd.DataFrame, base: str) -> Table:
    rows = [
        {
            **{column: row[column] for column in (*aggregate.CELL, "against")},
            "difference": show_difference(row),
            "95 % interval": _interval(row),
            "p": show_p(row["p"]),
            "p (Holm)": show_p(row["p_holm"]),
            "tasks above": "-" if pd.isna(row["tasks_above"]) else f"{row['tasks_above']:.0f}/{row['num_tasks']:.0f}",
            "p over tasks": show_p(row["p_tasks"]),
            "p over tasks (Holm)": show_p(row["p_tasks_holm"]),
        }
        for row in aggregate.records(found)
    ]
    table = pd.DataFrame(rows, columns=None if rows else [*aggregate.CELL, "against", "difference"])
    return Table(
        name=name,
        summary=found,
        table=table.drop(columns="variant") if (table["variant"] == "").all() else table,
        caption=(
            f"Test accuracy after the last task minus that of {base}, in percentage points, paired by seed and task: "
            "mean ± sample standard deviation over the seeds that both have. The interval is the t interval, p that of "
            "the paired t test over seeds; p over tasks is of a sign-flip test of the tasks' differences, averaged "
            "over "
            f"these seeds, and says nothing of others. Holm: corrected for the {len(found)} comparisons here."
        ),
        notes=[
            note
            for row in aggregate.records(found)
            for note in (
                f"{aggregate.cell_name(row)}: not compared: {row['apart']}." if row["apart"] else "",
                aggregate.note_of_code_changes(aggregate.cell_name(row), row["code_changes"])
                if row["code_changes"]
                else "",
            )
            if note
        ],
        name_columns=(*aggregate.CELL, "against"),
    )


def show_difference(row: Mapping[str, Any]) -> str:
    """A difference in points, mean +- sd, and the seeds that both sides have out of the requested ones."""
    seeds = f"({aggregate.show_n(row)}){aggregate.show_mark(row)}"
    if row["apart"]:
        return f"not compared {seeds}"
    if pd.isna(row["difference"]):
        return f"- {seeds}"
    sd = "-" if pd.isna(row["sd"]) else f"{100 * row['sd']:.2f}"
    return f"{100 * row['difference']:+.2f} ± {sd} {seeds}"


def _interval(row: Mapping[str, Any]) -> str:
    if pd.isna(row["ci95"]):
        return "-"
    return f"{100 * (row['difference'] - row['ci95']):+.2f} to {100 * (row['difference'] + row['ci95']):+.2f}"


def show_p(p: float) -> str:
    """A p value with two digits; smaller ones as below 0.0001."""
    if math.isnan(p):
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


def rank_table(name: str, summary: pd.DataFrame) -> Table | None:
    """The table of average ranks over a sweep's benchmarks; None if there is only one benchmark.

    Args:
        name: the sweep's name.
        summary: the result of `aggregate.summarise`.
    """
    if summary["benchmark"].nunique() < 2:
        return None
    found = comparison.ranks(summary).sort_values("rank", kind="stable")
    rows = [
        {
            **{column: row[column] for column in NAME_COLUMNS},
            "average rank": "-" if pd.isna(row["rank"]) else f"{row['rank']:.2f}",
            "best, worst": "-" if pd.isna(row["rank"]) else f"{row['best']:g}, {row['worst']:g}",
        }
        for row in aggregate.records(found)
    ]
    table = pd.DataFrame(rows)
    return Table(
        name=f"{name}.ranks",
        summary=found,
        table=table.drop(columns="variant") if (table["variant"] == "").all() else table,
        caption=(
            f"Ranks by mean accuracy, averaged over {found['num_benchmarks'].iloc[0]} benchmarks; 1 is the best of the "
            f"{found['num_ranked'].iloc[0]} rows that have all their seeds on all of them; the others have no rank."
        ),
        notes=[
            f"{' '.join(row[column] for column in NAME_COLUMNS if row[column])}: lacks {row['lacking']}."
            for row in aggregate.records(found)
            if row["lacking"]
        ],
    )
