"""The data of figures: pure functions from a sweep's manifest and the store's rows to one row per point.

A figure's CSV is its complete frame. A cell without a mean in the sweep's table, because its trials are incompatible
or an accuracy is not a number, has no points either. Shapes: T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from crwn.metrics import accuracy_matrix
from orchestrator.report import aggregate
from orchestrator.report.aggregate import CELL
from orchestrator.store.manifests import Manifest

MAX_DRAWN = 20
"""Cells of a benchmark in one figure: more are no longer told apart."""


def drawn(manifest: Manifest, summary: pd.DataFrame) -> Manifest:
    """A sweep's manifest with only the cells that figures draw: the best `MAX_DRAWN` of each benchmark with a mean.

    Args:
        manifest: the sweep's manifest.
        summary: the result of `aggregate.summarise`, one row per cell.
    """
    if summary.empty:
        return replace(manifest, cells=())
    known = summary.reset_index(drop=True).dropna(subset=["accuracy"])
    best = known.sort_values("accuracy", ascending=False, kind="stable").groupby("benchmark").head(MAX_DRAWN)
    return replace(manifest, cells=tuple(manifest.cells[place] for place in sorted(best.index)))


def kinds(manifest: Manifest) -> dict[str, str]:
    """The registered method behind each of a sweep's own names; the name itself if an older manifest does not say."""
    return {cell.method: cell.method_kind for cell in manifest.cells}


def names(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """For each cell of a sweep, its method's registered name, and the sweep's names of method, variant and scale."""
    known = kinds(manifest)
    return [(known[cell.method], cell.method, cell.variant, cell.scale) for cell in manifest.cells]


def final_accuracies(manifest: Manifest, trials: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of every task after the last one, over a cell's seeds.

    Args:
        manifest: the result of `drawn`.
        trials: as returned by `frames.trials_frame`.

    Returns:
        One row per cell and task, in the sweep's order: the cell's names; task, counted from 1; accuracy in [0, 1],
        the mean over seeds; sd, ci95 and n as in `aggregate.summarise`.
    """
    named = _named(manifest, trials)[[*CELL, "final"]].explode("final").dropna(subset=["final"])
    named["task"] = named.groupby(level=0).cumcount() + 1
    return _over_seeds(named.rename(columns={"final": "accuracy"}), [*CELL, "task"])


def seen_accuracies(manifest: Manifest, trials: pd.DataFrame) -> pd.DataFrame:
    """The mean accuracy of the tasks seen so far, over a cell's seeds: the standard continual-learning curve.

    Args:
        manifest: the result of `drawn`.
        trials: as returned by `frames.trials_frame`.

    Returns:
        One row per cell and number of tasks: the cell's names; tasks_learned, counted from 1; accuracy in [0, 1], the
        mean over seeds of `crwn.metrics.seen_accuracies`; sd, ci95 and n as in `aggregate.summarise`. Numbers of tasks
        after which a task was not tested again are omitted, as are cells that learn all tasks at once, and streams.
    """
    named = _named(manifest, trials)
    curves = named.loc[named["grouping"] != "all", [*CELL, "seen"]].explode("seen")
    curves["tasks_learned"] = curves.groupby(level=0).cumcount() + 1
    return _over_seeds(curves.dropna(subset=["seen"]).rename(columns={"seen": "accuracy"}), [*CELL, "tasks_learned"])


def recalled_so_far(manifest: Manifest, trials: pd.DataFrame) -> pd.DataFrame:
    """Recall of the tasks learned so far, over a cell's seeds.

    Args:
        manifest: the result of `drawn`.
        trials: as returned by `frames.trials_frame`.

    Returns:
        One row per cell and number of tasks: the cell's names; tasks_learned, counted from 1; gross, the sum of the
        accuracies on them, and memorised, how many of them are recalled better than by chance, means over seeds; their
        sd, as gross_sd and memorised_sd; n. Rows without any test of them are omitted.
    """
    named = _named(manifest, trials)
    is_known = (named["grouping"] != "all") & (named["recalled"].map(len) == named["seen"].map(len))
    curves = named.loc[is_known, [*CELL, "seen", "recalled"]].explode(["seen", "recalled"])
    curves["tasks_learned"] = curves.groupby(level=0).cumcount() + 1
    curves = curves.dropna(subset=["seen", "recalled"])
    curves["gross"] = curves["seen"].astype(float) * curves["tasks_learned"]
    curves["memorised"] = curves["recalled"].astype(float)
    found = []
    for names, group in curves.groupby([*CELL, "tasks_learned"], sort=False):
        row = dict(zip([*CELL, "tasks_learned"], names, strict=True))
        for name in ("gross", "memorised"):
            row[name], row[f"{name}_sd"], _ = aggregate.mean_and_spread(group[name].to_numpy())
        found.append({**row, "n": len(group)})
    columns = [*CELL, "tasks_learned", "gross", "gross_sd", "memorised", "memorised_sd", "n"]
    return pd.DataFrame(found, columns=columns)


def learning_curves(manifest: Manifest, tasks: pd.DataFrame) -> pd.DataFrame:
    """Training loss over the updates of a task, over a cell's tasks and seeds.

    Args:
        manifest: the result of `drawn`.
        tasks: the store's `tasks` rows of its trials.

    Returns:
        One row per cell and update: the cell's names; step, updates since the task began; loss, in nats, the mean over
        seeds of the tasks' mean; accuracy on the training batches in [0, 1], likewise; n, the number of seeds.
    """
    named = _named(manifest, tasks)
    curves = named[[*CELL, "seed", "curve"]].explode("curve").dropna(subset=["curve"])
    if curves.empty:
        return pd.DataFrame(columns=[*CELL, "step", "loss", "accuracy", "n"])
    points = pd.DataFrame(curves["curve"].tolist(), index=curves.index)
    curves = pd.concat([curves.drop(columns="curve"), points], axis=1)
    by_seed = curves.groupby([*CELL, "step", "seed"], sort=False)[["loss", "accuracy"]].mean().reset_index()
    grouped = by_seed.groupby([*CELL, "step"], sort=False)
    return grouped.agg(loss=("loss", "mean"), accuracy=("accuracy", "mean"), n=("seed", "size")).reset_index()


def accuracy_matrices(manifest: Manifest, trials: pd.DataFrame, tasks: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every task after every task, over a cell's seeds.

    Args:
        manifest: the result of `drawn`.
        trials: as returned by `frames.trials_frame`.
        tasks: their `tasks` rows.

    Returns:
        One row per cell, tasks learned and task: the cell's names; tasks_learned and task, counted from 1; accuracy in
        [0, 1], the mean over seeds, of `crwn.metrics.accuracy_matrix`; sd, ci95, n. Entries that were not tested and
        cannot be inferred from another test are omitted, as are streams, which have no such matrix.
    """
    made = tasks.dropna(subset=["accuracy"])
    tests = {str(trial_id): rows for trial_id, rows in made[made["update"].isna()].groupby("trial_id")}
    named = _named(manifest, trials)
    known = [row for row in aggregate.records(named) if row["trial_id"] in tests]
    found = [entry for row in known for entry in _entries(row, tests[row["trial_id"]])]
    columns = [*CELL, "tasks_learned", "task", "accuracy"]
    return _over_seeds(pd.DataFrame(found, columns=columns), [*CELL, "tasks_learned", "task"])


def _entries(trial: Mapping[str, Any], tests: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A trial's accuracy matrix, one row per entry."""
    known = zip(tests["task"], tests["tasks_learned"], tests["accuracy"], strict=True)
    matrix_TT = accuracy_matrix(known, len(trial["final"]), independent=trial["independent"])
    names = {name: trial[name] for name in CELL}
    for learned, task in np.argwhere(~np.isnan(matrix_TT)):
        yield {**names, "tasks_learned": learned + 1, "task": task + 1, "accuracy": matrix_TT[learned, task]}


def _named(manifest: Manifest, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows under the sweep's own names, in its order, without those of other trials."""
    owners = pd.DataFrame(
        [
            {"trial_id": trial_id, "order": order, **cell.names}
            for order, cell in enumerate(manifest.cells)
            for trial_id in cell.trials.values()
        ],
        columns=["trial_id", "order", *CELL],
    )
    own = rows.drop(columns=CELL, errors="ignore")
    return owners.merge(own, on="trial_id").sort_values(["order", "seed"], kind="stable", ignore_index=True)


def _over_seeds(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The mean accuracy of the rows with equal keys, its spread and their number, in the rows' order."""
    found = [
        {**dict(zip(keys, names, strict=True)), **_statistics(group["accuracy"].to_numpy(dtype=float))}
        for names, group in rows.groupby(keys, sort=False)
    ]
    return pd.DataFrame(found, columns=[*keys, "accuracy", "sd", "ci95", "n"])


def _statistics(accuracies: Any) -> dict[str, Any]:
    mean, sd, ci95 = aggregate.mean_and_spread(accuracies)
    return {"accuracy": mean, "sd": sd, "ci95": ci95, "n": len(accuracies)}
