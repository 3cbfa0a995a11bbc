"""Pivot tables with any rows and columns over the trials of one or several stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.errors import UserError, nearest
from orchestrator.measures import MEASURES, Measure
from orchestrator.report import aggregate
from orchestrator.report.frames import NAMES
from orchestrator.report.printable import Table
from orchestrator.store import compatibility


def pivot_table(
    trials: pd.DataFrame,
    rows: Sequence[str],
    columns: str,
    value: str,
    *,
    where: Mapping[str, str] | None = None,
    name: str = "pivot",
) -> Table:
    """A table of the means over seeds of any value, grouped by any names.

    Args:
        trials: as returned by `frames.asked_frame`; those of several stores may be concatenated.
        rows: names of columns of trials, or settings such as `training.learning_rate`.
        columns: another such name, each of whose values gets a column.
        value: one of `measures.MEASURES`.
        where: only trials with these values under these names.
        name: the table's name.

    Returns:
        A table whose summary has one row per cell: the names requested; value; n, asked, mean, sd, ci95, missing_seeds,
        invalid_seeds, mixed, noted, code_changes, each as in `aggregate.summarise`.

    Raises:
        UserError: a name or a value is unknown, no trial is left, or the value does not exist for some trials.
    """
    if value not in MEASURES:
        raise UserError("unknown-name", f"--value: {nearest(value, MEASURES)}")
    measure = MEASURES[value]
    wanted = [*rows, columns]
    if len(set(wanted)) < len(wanted):
        raise UserError("name-repeated", f"--rows and --cols: expected each name once, given {', '.join(wanted)}")
    is_placed = trials["settings"].notna()
    named = with_columns(select(trials[is_placed], where or {}), wanted)
    if named.empty:
        raise UserError("store-empty", "expected at least one trial, found none; start with crwn run")
    _check_known(named, measure)
    summary = pd.DataFrame(
        [
            {**dict(zip(wanted, key, strict=True)), "value": value, **_cell(group, value)}
            for key, group in _groups(named, wanted).items()
        ]
    )
    table = (
        summary.assign(shown=[_shown(row, measure) for row in aggregate.records(summary)])
        .pivot(index=list(rows), columns=columns, values="shown")
        .reindex(index=_order(summary, rows), columns=list(dict.fromkeys(summary[columns])))
        .fillna("")
        .rename(columns={name: f"{columns}={name}" for name in rows})  # a value of `columns` may equal a name in `rows`
        .reset_index()
    )
    return Table(
        name=name,
        summary=summary,
        table=table.rename_axis(columns=None),
        caption=(
            f"{measure.says[0].upper()}{measure.says[1:]}: mean ± sample standard deviation over seeds (n seeds, or "
            f"finished/asked where some are missing). Columns: {columns}."
        ),
        notes=[*_notes(summary, wanted), *_unplaced(int((~is_placed).sum()))],
        name_columns=tuple(rows),
    )


def _check_known(trials: pd.DataFrame, measure: Measure) -> None:
    """Check that a measure exists for these trials, whatever its values.

    Raises:
        UserError: the measure does not exist; the message says what would work.
    """
    finished = [row for row in aggregate.records(trials) if row["finished"]]
    streams = sorted({str(row["benchmark"]) for row in finished if row["stream"]})
    if streams and not measure.is_known_for_streams:
        raise UserError(
            "stream-has-no-tasks",
            f"--value {measure.name}: expected trials that learn a sequence of tasks, given streams on "
            f"{', '.join(streams)}, which have no measures of single tasks; use accuracy, or exclude them: "
            "--where benchmark=NAME",
        )
    if finished and measure.lacks and all(pd.isna(row[measure.name]) for row in finished):
        raise UserError(
            "measure-not-taken",
            f"--value {measure.name}: {measure.lacks}; none of these trials has it. Choose another value.",
        )


def conditions(texts: Iterable[str]) -> dict[str, str]:
    """What `--where` asks for: values by name.

    Raises:
        UserError: a text is not `NAME=VALUE`.
    """
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise UserError("not-name-value", f"--where: expected NAME=VALUE, such as scale=FC256; given {text!r}")
        found[name] = value
    return found


def select(trials: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """The trials that have these values under these names, see `pivot_table`.

    Raises:
        UserError: a name is unknown, or no trial has the value.
    """
    for name, given in where.items():
        if trials.empty:
            raise UserError(
                "store-empty", f"--where {name}={given}: expected at least one trial to choose from, found none"
            )
        texts = with_columns(trials, [name])[name].map(show)
        if given not in set(texts):
            raise UserError("unknown-name", f"--where {name}: {nearest(given, set(texts))}")
        trials = trials[texts == given]
    return trials


def with_columns(trials: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The trials with a column for every name; settings are read from `settings`.

    Raises:
        UserError: a name is unknown.
    """
    described = (*compatibility.DESCRIBED[1:], compatibility.CODE_CHANGES)
    own = [*NAMES, "seed", *described, *(["store"] if "store" in trials else [])]
    settings = [compatibility.flat(text) if isinstance(text, str) else {} for text in trials["settings"]]
    known = dict.fromkeys([*own, *(name for setting in settings for name in setting)])
    for name in names:
        if name not in known:
            raise UserError("unknown-name", f"--rows, --cols and --where: {nearest(name, known)}")
    return trials.assign(
        **{name: [setting.get(name, compatibility.ABSENT) for setting in settings] for name in names if name not in own}
    )


def _groups(named: pd.DataFrame, wanted: Sequence[str]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The trials of each cell, keyed by the cell's names as text."""
    shown = named[list(wanted)].map(show)
    keys = list(zip(*(shown[name] for name in wanted), strict=True))
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {key: [] for key in keys}
    for key, row in zip(keys, aggregate.records(named), strict=True):
        groups[key].append(row)
    return groups


def show(value: Any) -> str:
    """A value of a name as text; `unknown` if the record lacks it."""
    if pd.isna(value):
        return "unknown"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(rows: Sequence[Mapping[str, Any]], value: str) -> dict[str, Any]:
    """The numbers of a cell from its trials, finished or not."""
    finished = compatibility.once([row for row in rows if row["finished"]])
    seeds = {row["seed"] for row in finished}
    mixed = compatibility.show_mixture(compatibility.mixture(rows)) or compatibility.show_repeated(finished)
    numbers = np.array([np.nan if pd.isna(row[value]) else float(row[value]) for row in finished])
    invalid = [row["seed"] for row, number in zip(finished, numbers, strict=True) if not np.isfinite(number)]
    mean, sd, ci95 = (np.nan, np.nan, np.nan) if mixed or invalid else aggregate.mean_and_spread(numbers)
    missing = sorted({row["seed"] for row in rows} - seeds)
    return {
        "n": len(seeds),
        "asked": len(seeds) + len(missing),
        "mean": mean,
        "sd": sd,
        "ci95": ci95,
        "missing_seeds": " ".join(map(str, missing)),
        "invalid_seeds": " ".join(map(str, invalid)),
        "mixed": mixed,
        "noted": compatibility.show_mixture(compatibility.noted(finished)),
        "code_changes": compatibility.show_code_changes(finished),
    }


def _shown(row: Mapping[str, Any], measure: Measure) -> str:
    seeds = f"({aggregate.show_n(row)}){aggregate.show_mark(row)}"
    if row["n"] == 0:
        return f"- {seeds}"
    if row["mixed"]:
        return f"mixed {seeds}"
    if np.isnan(row["mean"]):
        return f"not known {seeds}"
    if measure.is_in_percent:
        sd = "-" if np.isnan(row["sd"]) else f"{100 * row['sd']:.2f}"
        return f"{100 * row['mean']:.2f} ± {sd} {seeds}"
    if measure.unit in ("seconds", "amount"):
        sd = "-" if np.isnan(row["sd"]) else f"{row['sd']:.2g}"
        return f"{row['mean']:.3g} ± {sd} {seeds}"
    return f"{aggregate.show_count(row['mean'])} {seeds}"


def _order(summary: pd.DataFrame, rows: Sequence[str]) -> pd.Index:
    """The rows in order of first occurrence."""
    first = summary[list(rows)].drop_duplicates()
    return pd.Index(first[rows[0]]) if len(rows) == 1 else pd.MultiIndex.from_frame(first)


def _unplaced(number: int) -> list[str]:
    if not number:
        return []
    told = "the manifest of their sweep is of an older crwn and does not say what they are; crwn run rewrites it"
    return [f"In no cell: {number} trials that are not finished; {told}."]


def _notes(summary: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    lines = []
    for row in aggregate.records(summary):
        cell = ", ".join(row[name] for name in wanted if row[name])
        if row["mixed"]:
            lines.append(f"{cell}: mixed, so no mean: {row['mixed']}.")
        if row["invalid_seeds"]:
            lines.append(f"{cell}: no mean: not known, or not a number, at seeds {row['invalid_seeds']}.")
        if row["code_changes"]:
            lines.append(aggregate.note_of_code_changes(cell, row["code_changes"]))
    if summary["mixed"].any():
        lines.append(
            "Choose with --where NAME=VALUE, or add NAME to --rows; a sweep's own labels are taken with --sweep."
        )
    lines += aggregate.notes_of_code(summary)
    return lines
