"""The choice of tables and how to make them: of every sweep of a store, or of any rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from crwn.faults import InvalidError
from orchestrator.errors import UserError, nearest
from orchestrator.papers.reading import read_paper
from orchestrator.report.diff import Differences, differ, with_other_contexts
from orchestrator.report.filenames import dotted
from orchestrator.report.frames import asked_frame, read_trials
from orchestrator.report.paper_tables import PaperSource, SweepSource, paper_tables
from orchestrator.report.pivots import conditions, pivot_table, select
from orchestrator.report.printable import (
    Printable,
    Table,
    write,
)
from orchestrator.report.sweep_tables import (
    ablation_table,
    comparison_table,
    rank_table,
    sweep_table,
    sweep_trials,
)
from orchestrator.store.files import Files
from orchestrator.store.manifests import Manifest
from orchestrator.store.store import Store

CELL = ("method", "variant", "scale", "benchmark")
"""The names that distinguish cells: by default, one of these forms a table's columns and the others its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A choice of tables; by default those of all sweeps.

    Attributes:
        sweep: only this sweep's tables, under its own labels.
        against: the row to compare a sweep's other rows with; the rows are also ranked.
        rows: names whose values get one row each, in a table that replaces the sweeps'; see `pivots.pivot_table`.
        columns: a name whose values get one column each, likewise.
        value: what the cells show, likewise. Any of the three selects that table.
        where: `NAME=VALUE`: only trials with this value.
        paper: the tables of the paper of this name instead.
    """

    sweep: str | None = None
    against: str | None = None
    rows: tuple[str, ...] = ()
    columns: str | None = None
    value: str | None = None
    where: tuple[str, ...] = ()
    paper: str | None = None

    @property
    def pivot(self) -> tuple[tuple[str, ...], str, str] | None:
        """Rows, columns and value of the table that replaces the sweeps'; None if it is not requested."""
        if not self.rows and self.columns is None and self.value is None:
            return None
        columns = self.columns or "benchmark"
        return self.rows or tuple(name for name in CELL if name != columns), columns, self.value or "accuracy"


def tables_of(stores: Sequence[Store], choice: Choice | None = None) -> list[Printable]:
    """The tables of stores.

    Args:
        stores: one store; for `rows` or a paper's tables, any number, whose trials are pooled.
        choice: which tables; by default those of all sweeps, each followed by that of its ablations.

    Raises:
        UserError: there is no sweep or no trial to make them of, or a name or value is unknown.
    """
    choice = choice or Choice()
    _check(stores, choice)
    paper = None if choice.paper is None else read_paper(choice.paper)
    if paper is not None and choice.sweep is None:
        trials = pd.concat([read_trials(store) for store in stores])
        if trials.empty and not any(store.manifests() for store in stores):
            raise UserError(
                "store-empty", f"{stores[0].address}: expected at least one trial, found none; start with crwn run"
            )
        return list(
            paper_tables(paper, PaperSource(paper, select(trials, conditions(choice.where))), f"paper-{paper.name}-")
        )
    if choice.pivot is not None:
        return [_pivot(stores, choice, *choice.pivot)]
    found: list[Printable] = []
    for manifest in manifests_of(stores[0], choice.sweep):
        trials = _chosen(sweep_trials(stores[0], manifest), choice)
        if paper is not None:
            found += paper_tables(paper, SweepSource(manifest, trials), f"{manifest.name}.")
            continue
        table = sweep_table(stores[0], manifest, trials)
        more = [ablation_table(manifest, trials)]
        if choice.against is not None:
            more += [comparison_table(manifest, trials, choice.against), rank_table(manifest.name, table.summary)]
        found += [table, *(item for item in more if item is not None)]
    if not found:
        raise UserError(
            "paper-without-rows",
            f"--paper: expected a sweep with rows of the paper's tables; {choice.sweep!r} has none",
        )
    return found


def _check(stores: Sequence[Store], choice: Choice) -> None:
    """Refuse choices that cannot be combined."""
    if len(stores) > 1 and choice.pivot is None and choice.paper is None:
        raise UserError(
            "several-stores",
            f"expected one store, given {len(stores)}; use --rows or --paper for tables over several stores",
        )
    if len(stores) > 1 and choice.sweep is not None:
        raise UserError("several-stores", f"--sweep: expected one store with it, given {len(stores)}")
    asked = {"--rows": bool(choice.rows), "--cols": choice.columns is not None, "--value": choice.value is not None}
    pivot = next((name for name, is_given in asked.items() if is_given), "--rows")
    given = {
        pivot: choice.pivot is not None,
        "--paper": choice.paper is not None,
        "--against": choice.against is not None,
    }
    several = [name for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise UserError("options-conflict", f"{' and '.join(several)}: expected one of them")


def _pivot(stores: Sequence[Store], choice: Choice, rows: Sequence[str], columns: str, value: str) -> Table:
    frames = [
        asked_frame(store.manifests(), read_trials(store), choice.sweep).assign(store=store.address)
        for store in stores
        if choice.sweep is None or manifests_of(store, choice.sweep)
    ]
    name = "-by-".join(["-".join(map(dotted, [value, *rows])), dotted(columns)])
    return pivot_table(pd.concat(frames), rows, columns, value, where=conditions(choice.where), name=name)


def _chosen(trials: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """A sweep's trials that satisfy the conditions; the others count as missing."""
    return select(trials, conditions(choice.where))


def manifests_of(store: Store, sweep: str | None = None) -> list[Manifest]:
    """The manifests of a store's sweeps, or of one sweep; raises like `tables_of`."""
    manifests = store.manifests()
    if not manifests:
        raise UserError(
            "store-empty", f"{store.address}: expected a store with at least one sweep, found none; start with crwn run"
        )
    if sweep is None:
        return manifests
    chosen = [manifest for manifest in manifests if manifest.name == sweep]
    if not chosen:
        raise UserError("unknown-name", f"--sweep: {nearest(sweep, (manifest.name for manifest in manifests))}")
    return chosen


def write_tables(store: Store, to: Files) -> list[str]:
    """Write the tables of every sweep of a store, in every format of `printable.FORMATS`.

    Args:
        store: the store.
        to: the folder to write to.

    Returns:
        The full paths of the files written.

    Raises:
        UserError: the store has no sweep, or the folder cannot be written.
    """
    return write(tables_of([store]), to)


def differences(a: Store, b: Store, where: Sequence[str], noise: float) -> Differences:
    """The differences between two stores' finished trials; if all accuracies are equal, contexts are compared too.

    Args:
        a: a store.
        b: another.
        where: `NAME=VALUE`: only trials with this value.
        noise: see `diff.differ`.

    Raises:
        UserError: a store has no finished trial, or several that match one trial of the other; or compared files are
            damaged.
    """
    frames = []
    for store in (a, b):
        trials = read_trials(store)
        if trials.empty:
            raise UserError(
                "store-empty", f"{store.address}: expected at least one finished trial to compare, found none"
            )
        frames.append(select(trials, conditions(where)))
    try:
        found = differ(frames[0], frames[1], noise)
    except InvalidError as error:
        raise UserError(error.codes, f"diff: {error}.") from error
    same = found.trials[(found.trials["state"] == "same") & (found.trials["trial_a"] == found.trials["trial_b"])]
    return with_other_contexts(
        found,
        [trial_id for trial_id in same["trial_a"] if a.records.contexts(trial_id) != b.records.contexts(trial_id)],
    )
