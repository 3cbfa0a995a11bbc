"""Values under the pointer: an SVG whose points name what they show, and the same for putting into a page.

A browser shows the title of an element that the pointer rests on, so this needs no script and no network. Titles are
the only text that these SVGs contain; matplotlib draws the rest as outlines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.display import counted, printable, without_middle
from orchestrator.report import aggregate

MAX_POINTS = 1500
"""Points of a figure that have a title: each takes a hundred bytes."""

MAX_OF_CURVE = 25
"""Points of a learning curve that have one."""

MAX_TEXT = 160
"""Characters of a title."""

RADIUS = 5
"""Of the circle around a point that feels the pointer, in points."""

Names: TypeAlias = tuple[str, str, str]
"""Of a cell: method, variant and scale."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at its place in a figure.

    Attributes:
        axes: the plot.
        x: horizontal position, in the plot's data.
        y: vertical position, likewise.
        text: what it shows, in one line.
    """

    axes: Axes
    x: float
    y: float
    text: str


class PointedFigure(Figure):
    """A figure that knows its values.

    Attributes:
        points: the values.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.points: list[Point] = []


def accuracies(axes: Axes, rows: pd.DataFrame, x: str, names: Names, number: int) -> Iterator[Point]:
    """The points of a line of accuracies.

    Args:
        axes: the plot.
        rows: the line's rows of `series.final_accuracies` or `series.seen_accuracies`.
        x: `task` or `tasks_learned`.
        names: method, variant and scale.
        number: of points at most.
    """
    for row in aggregate.records(_thinned(rows, number)):
        at = row[x]
        where = f"task {at}" if x == "task" else f"after {counted(at, 'task')}"
        yield Point(axes, at, 100 * row["accuracy"], f"{_joined(names)}, {where}: {_mean(row)}")


def costed(axes: Axes, rows: pd.DataFrame, cost: str, label: str) -> Iterator[Point]:
    """The points of cells with their accuracy and a cost: rows of `aggregate.summarise`, a column and its name."""
    for row in aggregate.records(rows):
        at = row[cost]
        names = (row["method"], row["variant"], row["scale"])
        yield Point(axes, at, 100 * row["accuracy"], f"{_joined(names)}: {_mean(row)}, {at:,.4g} {label}")


def losses(axes: Axes, rows: pd.DataFrame, names: Names, number: int) -> Iterator[Point]:
    """The points of a learning curve, which are thinned: its rows of `series.learning_curves`."""
    for row in aggregate.records(_thinned(rows, min(number, MAX_OF_CURVE))):
        step, loss, accuracy = row["step"], row["loss"], 100 * row["accuracy"]
        text = f"{_joined(names)}, update {step}: loss {loss:.3g}, accuracy {accuracy:.1f} %"
        yield Point(axes, step, loss, text)


def entries(axes: Axes, rows: pd.DataFrame, names: Names) -> Iterator[Point]:
    """The entries of an accuracy matrix: its rows of `series.accuracy_matrices`."""
    for row in aggregate.records(rows):
        task, learned, accuracy = row["task"], row["tasks_learned"], 100 * row["accuracy"]
        text = f"{_joined(names)}, task {task} after {counted(learned, 'task')}: {accuracy:.2f} %"
        yield Point(axes, task, learned, text)


def _thinned(rows: pd.DataFrame, number: int) -> pd.DataFrame:
    """At most a number of rows, evenly, with the last one."""
    every = -(-len(rows) // max(1, number)) or 1
    return rows[::-1][::every][::-1]


def _mean(row: Mapping[str, Any]) -> str:
    """A mean accuracy in percent, with its spread if there is one, and the number of seeds."""
    accuracy, sd, n = 100 * row["accuracy"], 100 * row["sd"], row["n"]
    return f"{accuracy:.2f}" + ("" if math.isnan(sd) else f" ± {sd:.2f}") + f" % (n={n})"


def _joined(names: Iterable[str]) -> str:
    return " ".join(name for name in names if name)


def pointed(figure: PointedFigure, svg: str) -> str:
    """The SVG of a figure that was just drawn, with a title at each of its points.

    Args:
        figure: the figure.
        svg: what matplotlib wrote of it.
    """
    if not figure.points or len(figure.points) > MAX_POINTS:
        return svg
    width, height = (72 * inches for inches in figure.get_size_inches())  # SVG has 72 units to the inch
    circles = []
    for point in figure.points:
        pixels = point.axes.transData.transform((point.x, point.y))
        x, y = figure.transFigure.inverted().transform(pixels)
        text = escape(printable(without_middle(" ".join(point.text.split()), MAX_TEXT)))
        circles.append(
            f'<circle cx="{x * width:.1f}" cy="{(1 - y) * height:.1f}" r="{RADIUS}"><title>{text}</title></circle>'
        )
    shown = f'<g class="points" fill="#fff" fill-opacity="0">{"".join(circles)}</g>'
    before, end, after = svg.rpartition("</svg>")
    return f"{before}{shown}\n{end}{after}"


def inline(svg: str) -> str:
    """An SVG as a part of a page: without what only files need, and with coordinates of two digits."""
    body = svg[svg.index("<svg") :]
    start, _, rest = body.partition(">")
    (box,) = re.findall(r'viewBox="([^"]*)"', start)
    rest = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)  # nothing refers to groups, whose names figures share
    rest = re.sub(r' (?:d|x|y|points)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), rest)
    rest = re.sub(r" ?\n *", "\n", rest)
    return f'<svg viewBox="{box}" aria-hidden="true">{rest}'
