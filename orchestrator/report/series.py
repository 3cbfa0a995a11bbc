"""What figures draw, as numbers: pure functions from a sweep's manifest and the store's rows to one row a point.

A figure's CSV is its frame, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.aggregate import CELL, CONFIDENCE


def final_accuracies(manifest: Mapping[str, Any], tasks: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of every task after the last one, over a cell's seeds: the paper's Figures 2, 4 and 6.

    Args:
        manifest: the sweep's.
        tasks: the `tasks` rows that the store has of its trials.

    Returns:
        A row a cell and task, in the sweep's order: the cell's names; task, counted from 1; accuracy in [0, 1], the
        mean over seeds; sd, n and ci95 as in `aggregate.summarise`.
    """
    named = _named(manifest, tasks)
    last = named[named["tasks_learned"] == named.groupby("trial_id")["tasks_learned"].transform("max")]
    last = last.assign(task=last["task"] + 1).sort_values(["order", "task", "seed"], kind="stable")
    return _over_seeds(last, [*CELL, "task"], "accuracy")


def learning_curves(manifest: Mapping[str, Any], tasks: pd.DataFrame) -> pd.DataFrame:
    """Training loss while a task is learned, over a cell's tasks and seeds.

    Args:
        manifest: the sweep's.
        tasks: the `tasks` rows that the store has of its trials.

    Returns:
        A row a cell and update: the cell's names; step, updates since the task began; loss, in nats, the mean over
        tasks of the seeds' means; accuracy on the training batches in [0, 1], likewise; n, seeds.
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


def accuracy_matrices(manifest: Mapping[str, Any], tasks: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every task after every task, over a cell's seeds.

    Args:
        manifest: the sweep's.
        tasks: the `tasks` rows that the store has of its trials.

    Returns:
        A row a cell, tasks learned and task: the cell's names; tasks_learned and task, counted from 1; accuracy in
        [0, 1], the mean over seeds; sd, n, ci95. Tests that a method does not need are not there, see the store's
        schema.
    """
    named = _named(manifest, tasks).dropna(subset=["accuracy"])
    return _over_seeds(named.assign(task=named["task"] + 1), [*CELL, "tasks_learned", "task"], "accuracy")


def _named(manifest: Mapping[str, Any], tasks: pd.DataFrame) -> pd.DataFrame:
    """Rows under the sweep's own names, in its order; those of other trials are left out."""
    owners = pd.DataFrame(
        [
            {"trial_id": trial_id, "order": order, **{name: cell[name] for name in CELL}}
            for order, cell in enumerate(manifest["cells"])
            for trial_id in cell["trials"].values()
        ],
        columns=["trial_id", "order", *CELL],
    )
    own = tasks.drop(columns=CELL, errors="ignore")
    return owners.merge(own, on="trial_id").sort_values(["order", "seed"], kind="stable")


def _over_seeds(rows: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    grouped = rows.groupby(keys, sort=False)[value]
    found = grouped.agg(["mean", "std", "size"]).reset_index()
    found.columns = pd.Index([*keys, value, "sd", "n"])
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(found["n"] - 1, 1))
    found["ci95"] = quantile * found["sd"] / np.sqrt(found["n"])
    return found
