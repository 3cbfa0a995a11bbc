"""Summary tables of a sweep: pure functions of its manifest and the store's rows."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from orchestrator.display import show_examples, show_ratio, shown_method
from orchestrator.store import compatibility
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.rows import independent

CELL = ["method", "variant", "scale", "benchmark"]
"""The columns that name a cell of a table."""

SEPARATOR = "; "
"""Separates several values in one field."""

CONFIDENCE = 0.95


def summarise(manifest: Manifest, trials: pd.DataFrame, failures: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row per cell of a sweep, in the sweep's order.

    Incompatible trials (`compatibility`) are never averaged as seeds of one cell: if the trials of a cell are
    incompatible, `mixed` says in which respect, and the cell's numbers are NaN. Likewise if an accuracy is not a
    number: omitting its seed would bias the mean upwards.

    Args:
        manifest: the sweep's manifest, which says which trials belong to which cell.
        trials: their `trials` rows in the store; other rows are ignored. Columns of `compatibility.APART` and `NOTED`
            are compared if present.
        failures: the errors of trials whose last attempt failed, by trial.

    Returns:
        Columns: method, variant, scale, benchmark (the sweep's own names); n, finished trials; asked, trials that the
        sweep requests; accuracy, the mean over seeds of the average accuracy after the last task, in [0, 1]; sd, the
        sample standard deviation (ddof = 1), NaN below two seeds; ci95, half the width of the mean's t interval;
        forgetting, backward_transfer, means over seeds, NaN if a trial lacks the tests they need; params_per_task,
        trained_per_task, stored_per_task; ratio, params_per_task relative to the sweep's reference on the benchmark;
        train_seconds_per_task, the mean over seeds; group_sizes and devices, all that occur; continual, False if all
        tasks are learned at once; missing_seeds, unfinished seeds, including failed ones; failed_seeds;
        invalid_seeds, whose accuracy is not a number; mixed, how incompatible trials differ; noted, how compatible
        trials differ; code_changes, how the code differs between attempts of single seeds; errors, of the failed
        seeds; accuracy_told, the accuracy among only the classes of each task, and incremental_accuracy, also means
        over seeds; forgetting_sd, accuracy_told_sd; can_forget, whether learning a task can change what was learned
        of another; examples_kept, stored_memory.
    """
    known = {row["trial_id"]: row for row in records(trials)}
    return pd.DataFrame([_cell(cell, known, failures or {}) for cell in manifest.cells])


def _cell(cell: ManifestCell, known: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]) -> dict[str, Any]:
    asked = cell.trials
    rows = [{**known[trial_id], "seed": seed} for seed, trial_id in asked.items() if trial_id in known]
    failed = {seed: failures[trial_id] for seed, trial_id in asked.items() if trial_id in failures}
    return {
        **cell.names,
        **seed_statistics(
            rows,
            planned_params=np.nan if cell.params_per_task is None else cell.params_per_task,
            planned_examples=cell.examples_kept,
        ),
        "asked": len(asked),
        "ratio": np.nan if cell.ratio is None else cell.ratio,
        "continual": cell.continual,
        "missing_seeds": " ".join(str(seed) for seed, trial_id in asked.items() if trial_id not in known),
        "failed_seeds": " ".join(map(str, failed)),
        "errors": SEPARATOR.join(f"seed {seed}: {error}" for seed, error in failed.items()),
    }


def seed_statistics(
    rows: Sequence[Mapping[str, Any]], *, planned_params: float = np.nan, planned_examples: int = 0
) -> dict[str, Any]:
    """The columns of `summarise` computed from a cell's finished trials, one per seed.

    Args:
        rows: rows of `trials`.
        planned_params: params_per_task if there is no trial, or if trials differ.
        planned_examples: examples_kept, likewise.
    """
    rows = compatibility.once(rows)
    n = len({row["seed"] for row in rows})
    mixed = compatibility.show_mixture(compatibility.mixture(rows)) or compatibility.show_repeated(rows)
    usable = [] if mixed else rows
    accuracies = _numbers(usable, "accuracy")
    invalid = [row["seed"] for row in rows if not np.isfinite(number(row["accuracy"]))]
    mean, sd, ci95 = mean_and_spread(accuracies) if not invalid else (np.nan, np.nan, np.nan)
    first = usable[0] if usable else {}
    spread = {name: mean_and_spread(_numbers(usable, name)) for name in ("forgetting", "accuracy_told")}
    return {
        "n": n,
        "asked": n,
        "accuracy": mean,
        "sd": sd,
        "ci95": ci95,
        **{name: _mean(_numbers(usable, name)) for name in ("forgetting", "backward_transfer")},
        "params_per_task": first.get("params_per_task", planned_params),
        "trained_per_task": first.get("trained_per_task", np.nan),
        "stored_per_task": first.get("stored_per_task", np.nan),
        "ratio": np.nan,
        "train_seconds_per_task": _known_mean(_numbers(usable, "train_seconds_per_task")),
        "group_sizes": _distinct(row["group_size"] for row in rows),
        "devices": _distinct(row["device"] for row in rows),
        "continual": True,
        "missing_seeds": "",
        "failed_seeds": "",
        "invalid_seeds": " ".join(map(str, invalid)),
        "mixed": mixed,
        "noted": compatibility.show_mixture(compatibility.noted(usable)),
        "code_changes": compatibility.show_code_changes(rows),
        "errors": "",
        "accuracy_told": spread["accuracy_told"][0] if not invalid else np.nan,
        "accuracy_told_sd": spread["accuracy_told"][1] if not invalid else np.nan,
        "incremental_accuracy": _mean(_numbers(usable, "incremental_accuracy")) if not invalid else np.nan,
        "forgetting_sd": spread["forgetting"][1],
        "can_forget": any(_can_forget(row) for row in usable),
        "examples_kept": _count(first.get("examples_kept", planned_examples)),
        "stored_memory": _count(first.get("stored_memory")),
    }


def _can_forget(row: Mapping[str, Any]) -> bool:
    """Whether a trial learned tasks in sequence and learning one can change another."""
    grouping, said = row.get("grouping"), row.get("independent")
    if grouping not in ("one", "any") or row.get("stream"):
        return False
    return not independent(grouping, None if said is None or pd.isna(said) else bool(said))


def mean_and_spread(values: NDArray[Any]) -> tuple[float, float, float]:
    """The mean; the sample standard deviation (ddof = 1); half the width of the mean's t interval (`CONFIDENCE`).

    Args:
        values: one value per seed [n]; the spread is NaN for fewer than two.
    """
    n = len(values)
    if n == 0:
        return np.nan, np.nan, np.nan
    sd = float(np.std(values, ddof=1)) if n > 1 else np.nan
    return float(np.mean(values)), sd, _t_quantile(n - 1) * sd / math.sqrt(n)


@functools.cache
def _t_quantile(degrees: int) -> float:
    """The quantile of Student's t distribution for a two-sided interval."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) if degrees else np.nan


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[Any]:
    return np.array([number(row.get(name)) for row in rows], dtype=float)


def number(value: Any) -> float:
    """A number in a record; NaN if absent, such as a measure that older records lack."""
    return np.nan if pd.isna(value) else float(value)


def _count(value: Any) -> int:
    """A count that older records lack."""
    return 0 if pd.isna(value) else int(value)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def _known_mean(values: NDArray[Any]) -> float:
    """The mean of the known values: seconds are not a result, and older records lack them."""
    return _mean(values[~np.isnan(values)])


def _distinct(values: Iterable[Any]) -> str:
    return SEPARATOR.join(f"{value}" for value in sorted({value for value in values if not pd.isna(value)}))


def notes(summary: pd.DataFrame) -> list[str]:
    """Notes on single cells for readers of a table, one line each; empty if there is nothing to note."""
    lines, noted = [], Counter[str]()
    for row in records(summary):
        name = cell_name(row)
        if row["mixed"]:
            lines.append(f"{name}: mixed, so no mean: {row['mixed']}.")
        if row["invalid_seeds"]:
            lines.append(f"{name}: no mean: the accuracy is not a number at {_seeds(row['invalid_seeds'])}.")
        if row["code_changes"]:
            lines.append(note_of_code_changes(name, row["code_changes"]))
        if row["errors"]:
            lines.append(f"{name}: failed: {row['errors']}")
        noted.update(part.partition(" is ")[0] for part in row["noted"].split("; ") if part)
    others = {name: count for name, count in noted.items() if name not in compatibility.CODE}
    if others:
        counts = _counts(others)
        lines.append(f"Within cells, these differ, but results agree across them within a tested tolerance: {counts}.")
    codes = {name: noted[name] for name in compatibility.CODE if name in noted}
    if codes:
        told = "select with --where NAME=VALUE, using the values in the CSV file's column noted"
        lines.append(
            f"Within cells the code differs that seeds were computed with, or is not known of all: {_counts(codes)}; "
            f"{told}."
        )
    return lines + notes_of_code(summary)


def notes_of_code(summary: pd.DataFrame) -> list[str]:
    """What to do, in one line, if a cell has trials that are incompatible because of their code.

    Args:
        summary: with a column `mixed`.
    """
    if not any(f"{name} is " in mixed for mixed in summary["mixed"] for name in compatibility.COUNTS_AS_ONE):
        return []
    again = "crwn run SWEEP --recompute METHOD recomputes those of older code"
    return [f"Where code versions differ: {again}; crwn accept STORE METHOD declares the versions equivalent."]


def _counts(noted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} in {count}" for name, count in noted.items())


MARK = "*"
"""Marks a number with a trial computed by more than one code version; a note says which."""


def note_of_code_changes(name: str, changes: str) -> str:
    """The note below a table on a marked number.

    Args:
        name: the cell's name.
        changes: its value of the column `code_changes`.
    """
    return f"{name}, marked {MARK}: computed by several code versions, since a run resumed with another: {changes}."


def _seeds(seeds: str) -> str:
    return f"seed{'s' if ' ' in seeds else ''} {seeds.replace(' ', ', ')}"


def cell_name(row: Mapping[str, Any]) -> str:
    """A cell in one line: `neuromodnet local FC256 on r-mnist`."""
    names = " ".join(row[name] for name in ("method", "variant", "scale") if row[name])
    return f"{names} on {row['benchmark']}"


def pivot(summary: pd.DataFrame) -> pd.DataFrame:
    """A summary as a printed table: one row per method, variant and scale, one column per benchmark.

    Returns:
        Text. Accuracies are in percent, mean +- sd, with the finished and requested seeds. Columns that only some
        sweeps have: masked, the accuracy among only the classes of each task, if tasks have classes of their own;
        forgetting, if a task can be forgotten; ratio, of params/task to the reference; examples kept, if a row keeps
        any; s/task, measured seconds per task. Values are shown once if all benchmarks agree, else in the benchmarks'
        order.
    """
    benchmarks = list(dict.fromkeys(summary["benchmark"]))
    optional = {
        "masked": _has(summary, "accuracy_told", np.isfinite),
        "forgetting": _has(summary, "can_forget", np.any),
        "ratio": _has(summary, "ratio", np.isfinite),
        "examples kept": _has(summary, "examples_kept", np.any),
        "s/task": _has(summary, "train_seconds_per_task", np.isfinite),
    }
    rows = []
    for names, group in grouped(summary, CELL[:3]).items():
        by_benchmark = {row["benchmark"]: row for row in group}
        present = [by_benchmark[name] for name in benchmarks if name in by_benchmark]
        method, variant, scale = map(str, names)
        shown = {
            "masked": _each(show_spread(row["accuracy_told"], row["accuracy_told_sd"]) for row in present),
            "forgetting": _each(show_spread(row["forgetting"], row["forgetting_sd"]) for row in present),
            "params/task": _once(show_count(row["params_per_task"]) for row in present),
            "ratio": _once(show_ratio(row["ratio"]) for row in present),
            "examples kept": _once(show_examples(row["examples_kept"]) for row in present),
            "s/task": " / ".join(map(show_seconds, present)),
        }
        rows.append(
            {
                "method": shown_method(method, continual=all(row["continual"] for row in present)),
                "variant": variant,
                "scale": scale,
                **{name: show_accuracy(by_benchmark[name]) if name in by_benchmark else "" for name in benchmarks},
                **{name: text for name, text in shown.items() if optional.get(name, True)},
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns="variant") if (table["variant"] == "").all() else table


def _has(summary: pd.DataFrame, name: str, is_one: Callable[[Any], Any]) -> bool:
    """Whether any row has a value in a column, so that it is worth showing."""
    return any(is_one(value) for value in summary[name])


def _each(shown: Iterable[str]) -> str:
    """One value per benchmark, in their order; `-` if none has any."""
    texts = list(shown)
    return "-" if set(texts) == {"-"} else " / ".join(texts)


def _once(shown: Iterable[str]) -> str:
    """The value once if all benchmarks agree; else all values in the benchmarks' order."""
    return " / ".join(dict.fromkeys(shown))


def show_accuracy(row: Mapping[str, Any]) -> str:
    """An accuracy in percent, mean +- sd, and the finished out of the requested seeds."""
    seeds = f"({show_n(row)}){show_mark(row)}"
    if row["n"] == 0:
        return f"- {seeds}"
    if row.get("mixed"):
        return f"mixed {seeds}"
    if np.isnan(row["accuracy"]):
        return f"not a number {seeds}"
    sd = "-" if np.isnan(row["sd"]) else f"{100 * row['sd']:.2f}"
    return f"{100 * row['accuracy']:.2f} ± {sd} {seeds}"


def show_spread(mean: float, sd: float) -> str:
    """A fraction, or a difference of fractions, in percent: mean +- sd, or without sd if unknown."""
    if np.isnan(mean):
        return "-"
    shown = f"{100 * mean + 0.0:.2f}"
    return shown if np.isnan(sd) else f"{shown} ± {100 * sd:.2f}"


def show_mark(row: Mapping[str, Any]) -> str:
    """The mark of a cell with a trial computed by more than one code version; empty for others."""
    return MARK if row.get("code_changes") else ""


def show_n(row: Mapping[str, Any]) -> str:
    """The number of finished seeds: `n=3`; with the number requested if some are missing: `2/3`."""
    return f"n={row['n']}" if row["n"] == row["asked"] else f"{row['n']}/{row['asked']}"


def show_count(count: float) -> str:
    """A number of parameters with thousands separators."""
    return "-" if np.isnan(count) else f"{count:,.0f}"


def show_seconds(row: Mapping[str, Any]) -> str:
    """Training seconds per task, and the number of tasks learned at once if more than one."""
    if np.isnan(row["train_seconds_per_task"]):
        return "-"
    together = "" if row["group_sizes"] in ("", "1") else f" ({row['group_sizes']})"
    return f"{row['train_seconds_per_task']:.3g}{together}"


def grouped(frame: pd.DataFrame, names: Sequence[str]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """The rows of a table grouped by some columns, in order; pandas' own groupby takes milliseconds per group."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in records(frame):
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
