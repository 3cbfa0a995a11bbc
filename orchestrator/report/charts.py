"""The report's charts: the paper's Figures 2 to 6 and those that it lacks, each with the numbers that it shows.

A method has one colour, one marker and one line everywhere, from its place in the registry: Okabe and Ito's colours,
which people tell apart however they see colours, with markers for grey. Scales of a method share its colour, from dark
to light; so do its variants and a sweep's other names for it, whose markers are open.
"""

from __future__ import annotations

import functools
import io
import textwrap
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from crwn.methods import METHODS
from orchestrator.aggregate import CELL
from orchestrator.report.plain import csv_text

STYLES = (
    ("#0072b2", "o"),
    ("#d55e00", "s"),
    ("#009e73", "v"),
    ("#e69f00", "^"),
    ("#cc79a7", "D"),
    ("#000000", "P"),
    ("#7f7f7f", "X"),
    ("#56b4e9", "*"),
    ("#f0e442", "h"),
)
"""Colour and marker by a method's place in the registry; black and grey for the bounds, mtl and stl."""

DASHES = ("-", "--", ":", "-.")
"""Of a method's variants, in a sweep's order."""

PLAIN_TICKS = functools.partial(StrMethodFormatter, "{x:g}")
"""Numbers as people write them; matplotlib's own powers are formulas."""

LABEL_WIDTH, LABEL_LINES = 30, 3
"""Letters in a line of a label, and lines."""

LIGHTEST = 0.5
"""How far the last scale of a method is on the way from its colour to white."""

INCHES = (6.4, 4.0)
DOTS_PER_INCH = 200
SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: equal everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # a label's dollars are no formula
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "crwn",  # names inside of an SVG hang on nothing else
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


FORMATS: Mapping[str, dict[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
"""Vector, print and picture, each with what of the moment is left out: equal figures are equal files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One figure.

    Attributes:
        name: of its files.
        title: what it shows, in a line.
        caption: what is drawn, from which numbers.
        values: the numbers, a row a point.
        draw: draws it anew.
    """

    name: str
    title: str
    caption: str
    values: pd.DataFrame
    draw: Callable[[], Figure]

    def files(self, formats: Collection[str] = tuple(FORMATS)) -> Iterator[tuple[str, bytes]]:
        """The figure in each of some `FORMATS`, and its numbers, by their names."""
        figure = self.draw()
        for suffix in formats:
            content = io.BytesIO()
            with rc_context(SETTINGS):
                figure.savefig(content, format=suffix, dpi=DOTS_PER_INCH, metadata=FORMATS[suffix])
            yield f"{self.name}.{suffix}", content.getvalue()
        yield f"{self.name}.csv", csv_text(self.values).encode()


@dataclass(frozen=True, slots=True)
class Line:
    """How a cell is drawn.

    Attributes:
        label: in the legend.
        colour: as matplotlib takes it.
        marker: likewise.
        face: the marker's inside.
        dashes: the line's style.
    """

    label: str
    colour: Any
    marker: str
    face: Any
    dashes: str

    @property
    def look(self) -> dict[str, Any]:
        """Matplotlib's arguments."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": self.face,
            "linestyle": self.dashes,
            "label": self.label,
        }


def lines(cells: pd.DataFrame, kinds: Mapping[str, str]) -> dict[tuple[str, str, str], Line]:
    """How the cells of a table are drawn, by method, variant and scale.

    Args:
        cells: `aggregate.CELL`'s columns, in the table's order.
        kinds: of `series.kinds`.
    """
    rows = list(cells[["method", "variant", "scale"]].drop_duplicates().itertuples(index=False, name=None))
    found = {}
    for method, variant, scale in rows:
        kind = kinds.get(method, method)
        alike = [row for row in rows if kinds.get(row[0], row[0]) == kind]
        scales = list(dict.fromkeys(other for _, _, other in alike))
        versions = list(dict.fromkeys(names[:2] for names in alike))
        colour, marker = style(kind)
        shade = _lighter(colour, LIGHTEST * scales.index(scale) / max(1, len(scales) - 1))
        version = versions.index((method, variant))
        found[method, variant, scale] = Line(
            label=_wrapped(" ".join(part for part in (method, variant, scale) if part)),
            colour=shade,
            marker=marker,
            face="white" if version else shade,
            dashes=DASHES[version % len(DASHES)],
        )
    return found


def _wrapped(label: str) -> str:
    """A label in a few lines, so that a long one leaves room for what it names."""
    return textwrap.fill(label, LABEL_WIDTH, max_lines=LABEL_LINES, placeholder=" …")


def style(kind: str) -> tuple[str, str]:
    """A method's colour and marker; one that the registry does not know has one that no method of it has."""
    names = list(METHODS)
    free = len(STYLES) - len(names)
    return STYLES[names.index(kind) if kind in names else len(names) + zlib.crc32(kind.encode()) % free]


def _lighter(colour: str, share: float) -> tuple[float, ...]:
    return tuple(value + share * (1 - value) for value in to_rgb(colour))


def _figure(draw: Callable[[Axes], None]) -> Figure:
    with rc_context(SETTINGS):
        figure = Figure(figsize=INCHES, layout="constrained")
        draw(figure.subplots())
        return figure


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside right upper")


def accuracy_by_task(sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str]) -> Chart:
    """Test accuracy of every task after the last one, a line a method: the paper's Figures 2, 4 and 6.

    Args:
        sweep: its name.
        benchmark: the sweep's own name for it.
        values: of `series.final_accuracies`, this benchmark's.
        kinds: of `series.kinds`.
    """

    def draw(axes: Axes) -> None:
        for names, line in lines(values, kinds).items():
            rows = _of(values, names)
            accuracy, spread = 100 * rows["accuracy"], 100 * rows["sd"].fillna(0.0)
            every = max(1, len(rows) // 12)
            axes.plot(rows["task"], accuracy, markevery=every, **line.look)
            axes.fill_between(rows["task"], accuracy - spread, accuracy + spread, color=line.colour, alpha=0.15, lw=0)
        axes.set(xlabel="task", ylabel="test accuracy after the last task, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes)

    return Chart(
        name=f"{sweep}-{_plain(benchmark)}-tasks",
        title=f"Accuracy of every task: {benchmark}",
        caption="Test accuracy of each task after the last one was learned: mean over seeds, shaded by one standard "
        "deviation.",
        values=values,
        draw=functools.partial(_figure, draw),
    )


def accuracy_against(
    sweep: str, benchmark: str, summary: pd.DataFrame, kinds: Mapping[str, str], *, cost: str
) -> Chart:
    """Average accuracy against what it costs, on a logarithmic axis: the paper's Figures 3 and 5, and seconds a task.

    Args:
        sweep: its name.
        benchmark: the sweep's own name for it.
        summary: of `aggregate.summarise`, this benchmark's.
        kinds: of `series.kinds`.
        cost: `params_per_task` or `train_seconds_per_task`.
    """
    known = summary[summary["accuracy"].notna() & (summary[cost] > 0)]
    values = known[[*CELL, cost, "accuracy", "sd", "ci95", "n", "asked"]]
    label, what, ticks = COSTS[cost]

    def draw(axes: Axes) -> None:
        styles = lines(values, kinds)
        for names, rows in values.groupby(["method", "variant"], sort=False):
            method, variant = map(str, names)
            own = [styles[method, variant, str(scale)] for scale in rows["scale"]]
            costs, accuracies = rows[cost].to_numpy(), 100 * rows["accuracy"].to_numpy()
            axes.plot(costs, accuracies, color=own[0].colour, linestyle=own[0].dashes, lw=1)
            for at, accuracy, width, line in zip(costs, accuracies, 100 * rows["ci95"], own, strict=True):
                if not np.isnan(width):
                    axes.vlines(at, accuracy - width, accuracy + width, color=line.colour, lw=1)
                axes.plot([at], [accuracy], **{**line.look, "linestyle": "none"})
        axes.set_xscale("log")
        _few_ticks(axes.xaxis, ticks)
        axes.set(xlabel=label, ylabel="test accuracy, average over tasks, %")
        _legend(axes)

    return Chart(
        name=f"{sweep}-{_plain(benchmark)}-{what}",
        title=f"Accuracy against {label}: {benchmark}",
        caption="Average test accuracy after the last task: mean over seeds with its 95 % interval where there are two "
        "seeds or more. Scales of a method are joined.",
        values=values,
        draw=functools.partial(_figure, draw),
    )


COSTS: Mapping[str, tuple[str, str, Callable[[], Formatter]]] = {
    "params_per_task": ("parameters a task", "parameters", functools.partial(EngFormatter, sep="")),
    "train_seconds_per_task": ("training seconds a task", "seconds", PLAIN_TICKS),
}
"""An axis's label, what it is called in a file's name, and how its numbers are written."""


def training_loss(sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str]) -> Chart:
    """Loss while a task is learned.

    Args:
        sweep: its name.
        benchmark: the sweep's own name for it.
        values: of `series.learning_curves`, this benchmark's.
        kinds: of `series.kinds`.
    """

    def draw(axes: Axes) -> None:
        for names, line in lines(values, kinds).items():
            rows = _of(values, names)
            axes.plot(rows["step"], rows["loss"], markevery=max(1, len(rows) // 8), **line.look)
        axes.set_yscale("log")
        _few_ticks(axes.yaxis, PLAIN_TICKS)
        axes.set(xlabel="update of a task", ylabel="training loss, nats")
        _legend(axes)

    return Chart(
        name=f"{sweep}-{_plain(benchmark)}-curves",
        title=f"Learning curves: {benchmark}",
        caption="Training loss while a task is learned: mean over tasks and seeds.",
        values=values,
        draw=functools.partial(_figure, draw),
    )


def matrices(sweep: str, benchmark: str, values: pd.DataFrame, kinds: Mapping[str, str]) -> Chart:
    """Accuracy of every task after every task, a map a method.

    Args:
        sweep: its name.
        benchmark: the sweep's own name for it.
        values: of `series.accuracy_matrices`, this benchmark's.
        kinds: of `series.kinds`.
    """

    def draw() -> Figure:
        cells = lines(values, kinds)
        lowest = 10 * np.floor(10 * values["accuracy"].min())
        num_columns = min(4, len(cells))
        num_rows = -(-len(cells) // num_columns)
        with rc_context({**SETTINGS, "axes.grid": False}):
            figure = Figure(figsize=(2.1 * num_columns + 0.6, 2.3 * num_rows + 0.4), layout="constrained")
            grid = figure.subplots(num_rows, num_columns, squeeze=False)
            for axes in grid.flat[len(cells) :]:
                axes.set_axis_off()
            for axes, (names, line) in zip(grid.flat, cells.items(), strict=False):
                matrix = _matrix(_of(values, names))
                edges = (0.5, len(matrix) + 0.5, len(matrix) + 0.5, 0.5)
                image = axes.imshow(
                    matrix, vmin=lowest, vmax=100, cmap="cividis", extent=edges, interpolation="nearest"
                )
                axes.set_title(line.label, fontsize=8)
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_locator(MaxNLocator(integer=True, nbins=4))
            figure.supxlabel("task tested", fontsize=9)
            figure.supylabel("tasks learned", fontsize=9)
            figure.colorbar(image, ax=grid, label="test accuracy, %", shrink=0.8)
            return figure

    return Chart(
        name=f"{sweep}-{_plain(benchmark)}-matrix",
        title=f"Accuracy of every task after every task: {benchmark}",
        caption="Test accuracy of each task (columns) after each number of tasks learned (rows), mean over seeds. "
        "Where tasks do not interfere, what was not tested again is what it was; white: not learned, or not tested.",
        values=values,
        draw=draw,
    )


def _matrix(rows: pd.DataFrame) -> NDArray[Any]:
    """Percent, [tasks learned, task]; NaN where nothing is known."""
    num_tasks = int(rows[["task", "tasks_learned"]].max().max())
    matrix_TT = np.full((num_tasks, num_tasks), np.nan)
    matrix_TT[rows["tasks_learned"] - 1, rows["task"] - 1] = 100 * rows["accuracy"]
    return matrix_TT


def _few_ticks(axis: Axis, ticks: Callable[[], Formatter]) -> None:
    """Numbers at 1, 2 and 5 of each power of ten on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticks())
    axis.set_minor_formatter(NullFormatter())


def _of(values: pd.DataFrame, names: tuple[str, str, str]) -> pd.DataFrame:
    method, variant, scale = names
    return values[(values["method"] == method) & (values["variant"] == variant) & (values["scale"] == scale)]


def _plain(name: str) -> str:
    """A name as part of a file's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()) or "benchmark"


def charts(sweep: str, frames: Mapping[str, pd.DataFrame], kinds: Mapping[str, str]) -> Iterator[Chart]:
    """All charts of a sweep whose numbers are there, benchmark by benchmark.

    Args:
        sweep: its name.
        frames: `summary` of `aggregate.summarise`, of all cells; `final`, `curves` and `matrices` of `series`, of those
            that are drawn.
        kinds: of `series.kinds`.
    """
    for benchmark in dict.fromkeys(frames["summary"]["benchmark"]):
        own = {name: frame[frame["benchmark"] == benchmark] for name, frame in frames.items()}
        shown = own["final"][CELL].drop_duplicates()
        if shown.empty:
            continue
        num_known = own["summary"]["accuracy"].notna().sum()
        more = f" Of {num_known} cells the {len(shown)} with the highest accuracy." if num_known > len(shown) else ""
        own["summary"] = shown.merge(own["summary"], on=CELL)
        made = [accuracy_by_task(sweep, benchmark, own["final"], kinds)]
        made += [accuracy_against(sweep, benchmark, own["summary"], kinds, cost=cost) for cost in COSTS]
        made += [training_loss(sweep, benchmark, own["curves"], kinds)]
        made += [matrices(sweep, benchmark, own["matrices"], kinds)]
        yield from (replace(chart, caption=chart.caption + more) for chart in made if not chart.values.empty)
