"""Rows in, tables out: pure functions over a sweep's manifest and the store's rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.display import show_ratio, shown_method

CELL = ["method", "variant", "scale", "benchmark"]
"""What names a cell of a table."""

SEPARATOR = "; "
"""Between several values in one field."""

CONFIDENCE = 0.95


def summarise(manifest: Mapping[str, Any], trials: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell of a sweep, in the sweep's order.

    Args:
        manifest: the sweep's, which says which trials belong to which cell.
        trials: the `trials` rows that the store has of them; more do no harm.

    Returns:
        Columns: method, variant, scale, benchmark (the sweep's own names); n, finished trials; asked, trials that the
        sweep asks for; accuracy, the mean over seeds of the average accuracy after the last task, in [0, 1]; sd, the
        sample standard deviation (ddof = 1), NaN below two seeds; ci95, half the width of the t interval of the mean;
        forgetting, backward_transfer, means over seeds, NaN where a trial did not test what they need;
        params_per_task, trained_per_task, stored_per_task; ratio, of params_per_task to the sweep's reference on the
        benchmark; train_seconds_per_task, the mean over seeds; group_sizes and devices, those that occur; continual,
        False where all tasks are learned at once; missing_seeds.
    """
    known = trials.set_index("trial_id", drop=False)
    return pd.DataFrame([_cell(cell, known) for cell in manifest["cells"]])


def _cell(cell: Mapping[str, Any], known: pd.DataFrame) -> dict[str, Any]:
    asked: Mapping[str, str] = cell["trials"]
    rows = known.loc[[trial_id for trial_id in asked.values() if trial_id in known.index]]
    accuracies = rows["accuracy"].to_numpy()
    n = len(accuracies)
    sd = float(np.std(accuracies, ddof=1)) if n > 1 else np.nan
    first = rows.iloc[0] if n else None
    return {
        **{name: cell[name] for name in CELL},
        "n": n,
        "asked": len(asked),
        "accuracy": float(np.mean(accuracies)) if n else np.nan,
        "sd": sd,
        "ci95": float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * sd / np.sqrt(n)) if n > 1 else np.nan,
        **{name: float(rows[name].mean(skipna=False)) if n else np.nan for name in ("forgetting", "backward_transfer")},
        "params_per_task": first["params_per_task"] if first is not None else cell.get("params_per_task", np.nan),
        "trained_per_task": first["trained_per_task"] if first is not None else np.nan,
        "stored_per_task": first["stored_per_task"] if first is not None else np.nan,
        "ratio": np.nan if cell.get("ratio") is None else cell["ratio"],  # older manifests have none
        "train_seconds_per_task": float(rows["train_seconds_per_task"].mean()) if n else np.nan,
        "group_sizes": _distinct(rows["group_size"]),
        "devices": _distinct(rows["device"]),
        "continual": cell.get("continual", True),
        "missing_seeds": " ".join(seed for seed, trial_id in asked.items() if trial_id not in known.index),
    }


def _distinct(values: pd.Series) -> str:
    return SEPARATOR.join(f"{value}" for value in sorted(values.dropna().unique().tolist()))


def pivot(summary: pd.DataFrame) -> pd.DataFrame:
    """A summary as people print it: a row a method, variant and scale, a column a benchmark.

    Returns:
        Text. An accuracy is in percent, mean +- sd, with the finished and the asked seeds; params/task, and its ratio
        to the reference where there is one, are given once where all benchmarks agree, else in the benchmarks' order,
        as are the seconds a task, which are measured.
    """
    benchmarks = list(dict.fromkeys(summary["benchmark"]))
    has_ratio = bool(summary["ratio"].notna().any())
    has_seconds = bool(summary["train_seconds_per_task"].notna().any())
    rows = []
    for names, group in summary.groupby(CELL[:3], sort=False):
        by_benchmark = {row["benchmark"]: row for row in _records(group)}
        present = [by_benchmark[name] for name in benchmarks if name in by_benchmark]
        method, variant, scale = map(str, names)
        ratios = {"ratio": _once(show_ratio(row["ratio"]) for row in present)} if has_ratio else {}
        seconds = {"s/task": " / ".join(map(show_seconds, present))} if has_seconds else {}
        rows.append(
            {
                "method": shown_method(method, continual=all(row["continual"] for row in present)),
                "variant": variant,
                "scale": scale,
                **{name: show_accuracy(by_benchmark[name]) if name in by_benchmark else "" for name in benchmarks},
                "params/task": _once(show_count(row["params_per_task"]) for row in present),
                **ratios,
                **seconds,
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns="variant") if (table["variant"] == "").all() else table


def _once(shown: Iterable[str]) -> str:
    """What all benchmarks agree on, once; else in their order."""
    return " / ".join(dict.fromkeys(shown))


def show_accuracy(row: Mapping[str, Any]) -> str:
    """An accuracy in percent, mean +- sd, and the finished of the asked seeds."""
    seeds = f"(n={row['n']})" if row["n"] == row["asked"] else f"({row['n']}/{row['asked']})"
    if row["n"] == 0:
        return f"- {seeds}"
    sd = "-" if np.isnan(row["sd"]) else f"{100 * row['sd']:.2f}"
    return f"{100 * row['accuracy']:.2f} ± {sd} {seeds}"


def show_count(count: float) -> str:
    """A number of parameters with thousands separated."""
    return "-" if np.isnan(count) else f"{count:,.0f}"


def show_seconds(row: Mapping[str, Any]) -> str:
    """Training seconds a task, and how many were learned at once where that is more than one."""
    if np.isnan(row["train_seconds_per_task"]):
        return "-"
    together = "" if row["group_sizes"] in ("", "1") else f" ({row['group_sizes']})"
    return f"{row['train_seconds_per_task']:.3g}{together}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
