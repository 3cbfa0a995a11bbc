"""The report's charts, each with the numbers it shows.

`looks.py` defines colours, markers and lines; `fonts.py` defines how labels are drawn.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, Formatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from orchestrator.report import filenames, fonts, pointing
from orchestrator.report.aggregate import CELL
from orchestrator.report.looks import Line, Look, Names, lines, palette, style
from orchestrator.report.plain import csv_text
from orchestrator.report.pointing import MAX_POINTS, Point, PointedFigure, pointed

__all__ = ["FORMATS", "Chart", "Line", "charts", "lines", "palette", "style"]

PLAIN_TICKS = functools.partial(StrMethodFormatter, "{x:g}")
"""Plain numbers; matplotlib's own powers are formulas."""

INCHES = (6.4, 4.0)
LINE_INCHES, ENTRY_INCHES, MARGIN_INCHES = 0.135, 0.06, 0.3
"""Of a legend: the height of a line, the space after an entry, and the margins."""

MATRIX_LETTERS = 24
"""Characters that fit above a matrix at the usual size."""

DOTS_PER_INCH = 200
SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": [fonts.FONT],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # dollar signs in labels are not formulas
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "crwn",  # makes ids in an SVG deterministic
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


Looks: TypeAlias = Mapping[Names, Look] | None


FORMATS: Mapping[str, dict[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
"""Vector, print and raster formats, with the time-dependent metadata to omit: equal figures are equal files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One figure.

    Attributes:
        name: the name of its files.
        benchmark: the sweep's own name for the benchmark.
        title: what it shows, in one line.
        caption: what is drawn, from which numbers.
        values: the numbers, one row per point.
        draw: draws a new copy.
    """

    name: str
    benchmark: str
    title: str
    caption: str
    values: pd.DataFrame
    draw: Callable[[], PointedFigure]

    def files(self, formats: Collection[str] = tuple(FORMATS)) -> Iterator[tuple[str, bytes]]:
        """The figure in some of `FORMATS`, and its numbers, by file name."""
        figure = self.draw()
        for suffix in formats:
            content = io.BytesIO()
            with rc_context(SETTINGS):
                figure.savefig(content, format=suffix, dpi=DOTS_PER_INCH, metadata=FORMATS[suffix])
            drawn = content.getvalue()
            yield f"{self.name}.{suffix}", pointed(figure, drawn.decode()).encode() if suffix == "svg" else drawn
        yield f"{self.name}.csv", csv_text(self.values).encode()


Draw: TypeAlias = Callable[[Axes, list[Point]], Sequence[Line]]
"""Draws into a plot, names its points, and gives the lines of the legend."""


def figure_of(draw: Draw) -> PointedFigure:
    """A figure of one plot and its legend, tall enough for both."""
    with rc_context(SETTINGS):
        figure = PointedFigure(figsize=INCHES, layout="constrained")
        shown = draw(figure.subplots(), figure.points)
        _legend(figure, shown)
        return figure


def _legend(figure: PointedFigure, shown: Sequence[Line]) -> None:
    """A legend next to the plot, with the full style of each line."""
    handles = [Line2D([], [], **line.look) for line in shown]
    # Matplotlib omits entries whose label begins with `_`, but shows any label that is set afterwards.
    legend = figure.legend(handles, ["-"] * len(shown), loc="outside right upper", handlelength=4)
    for text, line in zip(legend.get_texts(), shown, strict=True):
        text.set(text=line.label, fontfamily=fonts.families(line.label))
    num_lines = sum(1 + line.label.count("\n") for line in shown)
    height = num_lines * LINE_INCHES + len(shown) * ENTRY_INCHES + MARGIN_INCHES
    figure.set_size_inches(INCHES[0], max(INCHES[1], height))


def accuracy_by_task(
    sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None
) -> Chart:
    """Test accuracy of every task after the last one, one line per method.

    Args:
        sweep: the sweep's name.
        benchmark: the sweep's own name for the benchmark.
        values: the result of `series.final_accuracies` for this benchmark.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these values.
    """

    def draw(axes: Axes, points: list[Point]) -> Sequence[Line]:
        cells = lines(values, kinds, looks)
        for names, line in cells.items():
            _percentages(axes, rows_of(values, names), "task", line)
            points += pointing.accuracies(axes, rows_of(values, names), "task", names, MAX_POINTS // len(cells))
        axes.set(xlabel="task", ylabel="test accuracy after the last task, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _up_to_100(axes)
        return list(cells.values())

    return Chart(
        name=filenames.figure(sweep, benchmark, "tasks"),
        benchmark=benchmark,
        title="Accuracy of every task",
        caption="Test accuracy of each task after the last one was learned: mean over seeds, shaded by one standard "
        "deviation.",
        values=values,
        draw=functools.partial(figure_of, draw),
    )


def accuracy_so_far(
    sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None
) -> Chart:
    """Mean test accuracy of the tasks seen so far, after each task, one line per method.

    Args:
        sweep: the sweep's name.
        benchmark: the sweep's own name for the benchmark.
        values: the result of `series.seen_accuracies` for this benchmark.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these values.
    """

    def draw(axes: Axes, points: list[Point]) -> Sequence[Line]:
        cells = lines(values, kinds, looks)
        for names, line in cells.items():
            _percentages(axes, rows_of(values, names), "tasks_learned", line)
            points += pointing.accuracies(
                axes, rows_of(values, names), "tasks_learned", names, MAX_POINTS // len(cells)
            )
        axes.set(xlabel="tasks learned", ylabel="mean accuracy of the tasks seen so far, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _up_to_100(axes)
        return list(cells.values())

    return Chart(
        name=filenames.figure(sweep, benchmark, "seen"),
        benchmark=benchmark,
        title="Mean accuracy of the tasks seen so far",
        caption="Test accuracy after each number of tasks, averaged over the tasks learned by then: mean over seeds, "
        "shaded by one standard deviation. Methods that learn all tasks jointly have no such curve.",
        values=values,
        draw=functools.partial(figure_of, draw),
    )


def band(axes: Axes, x: pd.Series, mean: pd.Series, spread: pd.Series, line: Line, top: float | None = None) -> None:
    """A line of means, shaded by one standard deviation, which stays between 0 and `top`."""
    spread = spread.fillna(0.0)
    axes.plot(x, mean, markevery=max(1, len(x) // 12), clip_on=False, **line.look)
    axes.fill_between(
        x, (mean - spread).clip(lower=0), (mean + spread).clip(upper=top), color=line.colour, alpha=0.15, lw=0
    )


def _percentages(axes: Axes, rows: pd.DataFrame, x: str, line: Line) -> None:
    """A line of accuracies in percent, with its band."""
    band(axes, rows[x], 100 * rows["accuracy"], 100 * rows["sd"], line, top=100)


def _up_to_100(axes: Axes) -> None:
    """Keep an axis of percentages within 0 and 100; markers at its ends are not clipped."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 100.0))


def accuracy_against(
    sweep: str, benchmark: str, summary: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None, *, cost: str
) -> Chart:
    """Average accuracy against cost on a logarithmic axis: parameters or seconds per task.

    Args:
        sweep: the sweep's name.
        benchmark: the sweep's own name for the benchmark.
        summary: the result of `aggregate.summarise` for this benchmark.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these values.
        cost: `params_per_task` or `train_seconds_per_task`.
    """
    known = summary[summary["accuracy"].notna() & (summary[cost] > 0)]
    values = known[[*CELL, cost, "accuracy", "sd", "ci95", "n", "asked"]]
    label, what, ticks = COSTS[cost]

    def draw(axes: Axes, points: list[Point]) -> Sequence[Line]:
        styles = lines(values, kinds, looks)
        for names, rows in values.groupby(["method", "variant"], sort=False):
            method, variant = map(str, names)
            own = [styles[method, variant, str(scale)] for scale in rows["scale"]]
            costs, accuracies = rows[cost].to_numpy(), 100 * rows["accuracy"].to_numpy()
            axes.plot(costs, accuracies, color=own[0].colour, linestyle=own[0].dashes, lw=1)
            for at, accuracy, width, line in zip(costs, accuracies, 100 * rows["ci95"], own, strict=True):
                if not np.isnan(width):
                    axes.vlines(at, max(0, accuracy - width), min(100, accuracy + width), color=line.colour, lw=1)
                axes.plot([at], [accuracy], clip_on=False, **{**line.look, "linestyle": "none"})
            points += pointing.costed(axes, rows, cost, label)
        axes.set_xscale("log")
        _up_to_100(axes)
        _few_ticks(axes.xaxis, ticks)
        axes.set(xlabel=label, ylabel="test accuracy, average over tasks, %")
        return list(styles.values())

    return Chart(
        name=filenames.figure(sweep, benchmark, what),
        benchmark=benchmark,
        title=f"Accuracy against {label}",
        caption="Average test accuracy after the last task: mean over seeds, with its 95 % interval if there are two "
        "or more seeds. Scales of a method are connected.",
        values=values,
        draw=functools.partial(figure_of, draw),
    )


COSTS: Mapping[str, tuple[str, str, Callable[[], Formatter]]] = {
    "params_per_task": ("parameters per task", "parameters", functools.partial(EngFormatter, sep="")),
    "train_seconds_per_task": ("training seconds per task", "seconds", PLAIN_TICKS),
}
"""An axis's label, what it is called in a file's name, and how its numbers are written."""


def training_loss(
    sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None
) -> Chart:
    """Training loss over the updates of a task.

    Args:
        sweep: the sweep's name.
        benchmark: the sweep's own name for the benchmark.
        values: the result of `series.learning_curves` for this benchmark.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these values.
    """

    def draw(axes: Axes, points: list[Point]) -> Sequence[Line]:
        cells = lines(values, kinds, looks)
        for names, line in cells.items():
            rows = rows_of(values, names)
            axes.plot(rows["step"], rows["loss"], markevery=max(1, len(rows) // 8), **line.look)
            points += pointing.losses(axes, rows, names, MAX_POINTS // len(cells))
        axes.set_yscale("log")
        _few_ticks(axes.yaxis, PLAIN_TICKS)
        axes.set(xlabel="update of a task", ylabel="training loss, nats")
        return list(cells.values())

    return Chart(
        name=filenames.figure(sweep, benchmark, "curves"),
        benchmark=benchmark,
        title="Learning curves",
        caption="Training loss while a task is learned: mean over tasks and seeds.",
        values=values,
        draw=functools.partial(figure_of, draw),
    )


def matrices(sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None) -> Chart:
    """Accuracy of every task after every task, one heat map per method.

    Args:
        sweep: the sweep's name.
        benchmark: the sweep's own name for the benchmark.
        values: the result of `series.accuracy_matrices` for this benchmark.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these values.
    """

    def draw() -> PointedFigure:
        cells = lines(values, kinds, looks)
        lowest = 10 * np.floor(10 * values["accuracy"].min())
        num_columns = min(4, len(cells))
        num_rows = -(-len(cells) // num_columns)
        with rc_context({**SETTINGS, "axes.grid": False}):
            figure = PointedFigure(figsize=(2.1 * num_columns + 0.6, 2.3 * num_rows + 0.4), layout="constrained")
            grid = figure.subplots(num_rows, num_columns, squeeze=False)
            for axes in grid.flat[len(cells) :]:
                axes.set_axis_off()
            for axes, (names, line) in zip(grid.flat, cells.items(), strict=False):
                matrix = _matrix(rows_of(values, names))
                edges = (0.5, len(matrix) + 0.5, len(matrix) + 0.5, 0.5)
                image = axes.imshow(
                    matrix, vmin=lowest, vmax=100, cmap="cividis", extent=edges, interpolation="nearest"
                )
                figure.points += pointing.entries(axes, rows_of(values, names), names)
                size = 8 if max(map(len, line.label.split("\n"))) <= MATRIX_LETTERS else 6
                axes.set_title(line.label, fontsize=size, fontfamily=fonts.families(line.label))
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_locator(MaxNLocator(integer=True, nbins=4))
            figure.supxlabel("task tested", fontsize=9)
            figure.supylabel("tasks learned", fontsize=9)
            figure.colorbar(image, ax=grid, label="test accuracy, %", shrink=0.8)
            return figure

    return Chart(
        name=filenames.figure(sweep, benchmark, "matrix"),
        benchmark=benchmark,
        title="Accuracy of every task after every task",
        caption="Test accuracy of each task (columns) after each number of tasks learned (rows), mean over seeds. "
        "If tasks do not interfere, missing tests are filled in from earlier ones; white: not learned, or not tested.",
        values=values,
        draw=draw,
    )


def _matrix(rows: pd.DataFrame) -> NDArray[Any]:
    """Accuracies in percent, [tasks learned, task]; NaN if unknown."""
    num_tasks = int(rows[["task", "tasks_learned"]].max().max())
    matrix_TT = np.full((num_tasks, num_tasks), np.nan)
    matrix_TT[rows["tasks_learned"] - 1, rows["task"] - 1] = 100 * rows["accuracy"]
    return matrix_TT


def _few_ticks(axis: Axis, ticks: Callable[[], Formatter]) -> None:
    """Put ticks at 1, 2 and 5 times each power of ten on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticks())
    axis.set_minor_formatter(NullFormatter())


def rows_of(values: pd.DataFrame, names: tuple[str, str, str]) -> pd.DataFrame:
    method, variant, scale = names
    return values[(values["method"] == method) & (values["variant"] == variant) & (values["scale"] == scale)]


def charts(
    sweep: str, frames: Mapping[str, pd.DataFrame], kinds: Mapping[str, str], looks: Looks = None
) -> Iterator[Chart]:
    """All charts of a sweep that have data, benchmark by benchmark; none with all points above one another.

    Args:
        sweep: the sweep's name.
        frames: `summary`, from `aggregate.summarise`, of all cells; `final`, `seen`, `curves` and `matrices`, from
            `series`, of the cells that are drawn.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over each chart's cells.
    """
    for benchmark in dict.fromkeys(frames["summary"]["benchmark"]):
        own = {name: frame[frame["benchmark"] == benchmark] for name, frame in frames.items()}
        shown = own["final"][CELL].drop_duplicates()
        if shown.empty:
            continue
        num_known = own["summary"]["accuracy"].notna().sum()
        more = f" The {len(shown)} of {num_known} cells with the highest accuracy." if num_known > len(shown) else ""
        own["summary"] = shown.merge(own["summary"], on=CELL)
        made = [accuracy_by_task(sweep, benchmark, own["final"], kinds, looks)]
        made += [accuracy_so_far(sweep, benchmark, own["seen"], kinds, looks)]
        differ = [cost for cost in COSTS if own["summary"][cost].nunique() > 1]
        made += [accuracy_against(sweep, benchmark, own["summary"], kinds, looks, cost=cost) for cost in differ]
        if own["curves"]["step"].nunique() > 1:
            made.append(training_loss(sweep, benchmark, own["curves"], kinds, looks))
        made += [matrices(sweep, benchmark, own["matrices"], kinds, looks)]
        yield from (replace(chart, caption=chart.caption + more) for chart in made if not chart.values.empty)
