"""Task inference: how often a store's finished trials identify the task of test images. Nothing is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from crwn.contexts import HOW_TO_KEEP_WEIGHTS
from crwn.faults import InvalidError
from crwn.task_inference import SEARCHES, measure
from orchestrator.errors import UserError
from orchestrator.report.frames import NAMES, read_trials
from orchestrator.report.pivots import conditions, select
from orchestrator.report.printable import Table
from orchestrator.report.results import Results, tasks_of
from orchestrator.store.store import Store

BASELINE = "mean-image"
"""The criterion that asks no network: its results stand beside those of each other one."""

WORDS = {
    "entropy": "lowest entropy",
    "margin": "largest margin",
    BASELINE: "mean image, no network",
    "one-shot": "one-shot, superposed masks",
    "binary": "binary search, superposed masks",
}
"""What tables call the criteria."""

MEASURED = {
    "task_accuracy": "task",
    "baseline_task_accuracy": "task by mean image",
    "near_accuracy": "task or neighbour",
    "class_accuracy": "class",
    "baseline_class_accuracy": "class by mean image",
    "told_accuracy": "class, task told",
}
"""What tables call the measures."""

CAPTION = (
    "Accuracy in percent on test images whose task is not given, in batches of one task. Class: accuracy of the "
    "classes, predicted for the inferred task. By mean image: the baseline, which infers the task without a network, "
    "from the mean of its training images. Mean over seeds, with the sample standard deviation."
)


def inference_table(
    store: Store,
    *,
    where: Sequence[str] = (),
    images: int,
    data_root: str | None,
    tell: Callable[[str], None],
) -> Table:
    """The table of a store's trials.

    Args:
        store: the store.
        where: only trials with these values, `NAME=VALUE`.
        images: test images per task.
        data_root: where data sets are looked for first.
        tell: called with a line for each step, and for each trial that is left out.

    Raises:
        UserError: there is no such trial, none has tasks to infer, or data are missing.
    """
    results, frame = Results(store), select(read_trials(store), conditions(where))
    rows: list[dict[str, Any]] = []
    for number, (_, trial) in enumerate(frame.iterrows(), start=1):
        name = f"{trial['method']} {trial['scale']} on {trial['benchmark']}, seed {trial['seed']}"
        try:
            bank = results.contexts(trial["trial_id"])
            if not (bank.needs_task and bank.tells_tasks_apart):
                raise UserError("task-not-told", "one network answers for all tasks")
        except (InvalidError, UserError) as error:
            tell(f"  {name}: left out: {error}")
            continue
        tell(f"  {name}: {number} of {len(frame)}")
        found = measure(bank, tasks_of(bank.trial, data_root), images=images)
        names = {column: trial[column] for column in (*NAMES, "seed")}
        rows += [{**names, "trial_id": trial["trial_id"], **dataclasses.asdict(each)} for each in found]
    if not rows:
        raise UserError(
            "no-trial",
            f"{store.address}: expected a finished trial of a method that is told the task, found none; it must "
            f"keep what each task learned, including weights ({HOW_TO_KEEP_WEIGHTS})",
        )
    return table_of(pd.DataFrame(rows))


def table_of(summary: pd.DataFrame) -> Table:
    """The table of results, given one row per trial, criterion and batch size."""
    keys, lines, notes = [*NAMES, "batch", "by"], [], []
    has_order = bool(summary["near_accuracy"].notna().any())
    order = summary["by"].map(list(WORDS).index)
    summary = summary.assign(order=order).sort_values([*NAMES, "batch", "order", "seed"]).drop(columns="order")
    baseline = summary.loc[summary["by"] == BASELINE, ["trial_id", "batch", "task_accuracy", "class_accuracy"]]
    baseline = baseline.set_index(["trial_id", "batch"]).add_prefix("baseline_")
    summary = summary.join(baseline, on=["trial_id", "batch"])
    for names, group in summary[summary["by"] != BASELINE].groupby(keys, sort=False, dropna=False):
        line = dict(zip(keys, names, strict=True))
        line["by"] = WORDS[str(line["by"])]
        line["seeds"] = str(len(group))
        for measure_, word in MEASURED.items():
            if measure_ != "near_accuracy" or has_order:
                line[word] = _spread(group[measure_].dropna())
        lines.append({column: str(value) for column, value in line.items()})
    if has_order:
        notes.append("Neighbours are the tasks closest to a task in the benchmark, such as those with near angles.")
    if summary["by"].isin(["one-shot", "binary"]).any():
        notes.append(f"Searches in a superposition use at most {SEARCHES} batches per task and batch size, others all.")
    num_images = ", ".join(f"{n:,}" for n in sorted((summary["batch"] * summary["num_batches"]).unique())[-1:])
    notes.append(f"At most {num_images} images per trial, drawn from its test images.")
    table = pd.DataFrame(lines)
    if not table["variant"].any():
        table = table.drop(columns="variant")
    name_columns = [name for name in (*NAMES, "batch", "by", "seeds") if name in table.columns]
    return Table(
        name="task-inference", summary=summary, table=table, caption=CAPTION, notes=notes, name_columns=name_columns
    )


def _spread(values: pd.Series) -> str:
    """Mean and sample standard deviation in percent."""
    if values.empty:
        return ""
    mean = f"{100 * values.mean():.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * values.std(ddof=1):.1f}"
