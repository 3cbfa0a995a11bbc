"""Charts of recall for a sequence of tasks with one class each; see `crwn.recall`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.report import filenames, pointing
from orchestrator.report.charts import Chart, Looks, band, figure_of, rows_of
from orchestrator.report.looks import Line, lines
from orchestrator.report.pointing import MAX_POINTS, Point


def recall_so_far(
    sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None, *, what: str
) -> Chart:
    """Recall of the tasks learned so far against their number, one line per method.

    Args:
        sweep: the sweep's name.
        benchmark: the sweep's own name for the benchmark.
        values: the result of `series.recalled_so_far` for this benchmark.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these values.
        what: `gross` or `memorised`.
    """
    label = RECALLED[what]

    def draw(axes: Axes, points: list[Point]) -> Sequence[Line]:
        del points
        cells = lines(values, kinds, looks)
        last = int(values["tasks_learned"].max())
        axes.plot([1, last], [1, last], color="#9a9a9a", linewidth=0.8, linestyle=":")
        for names, line in cells.items():
            rows = rows_of(values, names)
            band(axes, rows["tasks_learned"], rows[what], rows[f"{what}_sd"], line)
        axes.set(xlabel="tasks learned", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return list(cells.values())

    return Chart(
        name=filenames.figure(sweep, benchmark, what),
        benchmark=benchmark,
        title=f"{label[:1].upper()}{label[1:]}",
        caption=f"Of the tasks learned so far, the {label}: mean over seeds, shaded by one standard deviation. Dotted: "
        "all of them.",
        values=values,
        draw=functools.partial(figure_of, draw),
    )


def before_and_after(
    sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None
) -> Chart:
    """Test accuracy of every task at the end, for a benchmark and for the one that it continues.

    Args:
        sweep: the sweep's name.
        benchmark: the sweep's own name for the benchmark that continues the other.
        values: the result of `series.final_accuracies` for both benchmarks.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these values.
    """

    def draw(axes: Axes, points: list[Point]) -> Sequence[Line]:
        cells = lines(values, kinds, looks)
        for names, line in cells.items():
            rows = rows_of(values, names)
            for of_benchmark, each in rows.groupby("benchmark", sort=False):
                look = line.look if of_benchmark == benchmark else {**line.look, **BEFORE}
                axes.plot(each["task"], 100 * each["accuracy"], clip_on=False, **look)
                points += pointing.accuracies(axes, each, "task", names, MAX_POINTS // len(cells) // 2)
        axes.set(xlabel="task", ylabel="test accuracy at the end, %", ylim=(0, 102))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return list(cells.values())

    (before,) = set(values["benchmark"]) - {benchmark}
    return Chart(
        name=filenames.figure(sweep, benchmark, "before"),
        benchmark=benchmark,
        title="Accuracy of every task, before and after",
        caption=f"Test accuracy of each task at the end, mean over seeds: with markers of {benchmark}, thin and "
        f"without of {before}.",
        values=values,
        draw=functools.partial(figure_of, draw),
    )


BEFORE: Mapping[str, Any] = {"marker": "", "linestyle": "-", "linewidth": 0.9, "alpha": 0.6}
"""How a line before differs from the one after."""

RECALLED: Mapping[str, str] = {
    "gross": "sum of test accuracies",
    "memorised": "number recalled better than by chance",
}
"""What a figure shows of the tasks learned so far, in words."""
