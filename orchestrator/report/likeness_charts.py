"""Figures of task similarity: maps, bands of similarity against distance, and matrices in the order of a tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.cluster import hierarchy

from orchestrator.report import filenames, fonts
from orchestrator.report.charts import SETTINGS, Chart
from orchestrator.report.likeness import ANSWERS, Comparison
from orchestrator.report.pointing import Point, PointedFigure
from orchestrator.report.printable import FIGURES_FOLDER, write_files
from orchestrator.store.files import Files

PANEL_INCHES = (2.7, 2.7)
PANEL_LETTERS = 26
"""The number of characters that fit above a panel at the usual size."""

MAX_PANELS = 9
"""More panels would be too small to read; the figure's data file has all of them."""

MAX_LABELLED = 12
"""The number of tasks on a map that are labelled with their number."""

GREY = "#9a9a9a"

UNITS = {ANSWERS: "divergence of answers, nats"}
"""What a distance is, unless it is between contexts."""

Panel = Callable[[Axes, Comparison], Sequence[Point]]
"""Draws one trial's comparison, and names its points."""


def similarity_charts(found: Sequence[Comparison], sweep: str) -> Iterator[Chart]:
    """The figures of each benchmark, with a panel per cell and kind of comparison, at the first seed.

    Args:
        found: the comparisons, of one store or sweep.
        sweep: what the names of the files begin with.
    """
    for benchmark in dict.fromkeys(one.benchmark for one in found):
        mine = sorted((one for one in found if one.benchmark == benchmark), key=lambda one: (one.names, one.by))
        cells: dict[tuple[object, ...], list[Comparison]] = {}
        for one in mine:
            cells.setdefault((one.names, one.by), []).append(one)
        first = [min(each, key=lambda one: one.seed) for each in cells.values()]
        yield Chart(
            name=filenames.figure(sweep, benchmark, "map"),
            benchmark=benchmark,
            title="Maps of tasks",
            caption="Points whose distances approximate those of the tasks (classical scaling), at the first seed; "
            "axes show their share of the variance. Lines join tasks in the benchmark's order, colours follow it.",
            values=pd.concat([_places(one) for one in mine], ignore_index=True),
            draw=lambda first=first: _panels(first, _draw_map),  # type: ignore[misc]  # mypy infers no default
        )
        if all(one.apart is not None for one in mine):
            yield Chart(
                name=filenames.figure(sweep, benchmark, "band"),
                benchmark=benchmark,
                title="Distance between tasks against their distance in the benchmark",
                caption="Mean over pairs of tasks at the first seed, shaded by one standard deviation; dotted: the "
                "mean over all pairs, expected at every distance if tasks are permuted.",
                values=pd.concat([_bands(one) for one in mine], ignore_index=True),
                draw=lambda first=first: _panels(first, _draw_band),  # type: ignore[misc]  # likewise
            )
        yield Chart(
            name=filenames.figure(sweep, benchmark, "unlike"),
            benchmark=benchmark,
            title="Distances between all pairs of tasks",
            caption="Tasks in the order of a tree's leaves (average linkage), at the first seed; dark: similar.",
            values=pd.concat([_matrix(one) for one in mine], ignore_index=True),
            draw=lambda first=first: _panels(first, _draw_matrix),  # type: ignore[misc]  # likewise
        )


def write_charts(charts: Sequence[Chart], to: Files) -> list[str]:
    """Write figures and their numbers to the folder of figures.

    Returns:
        The full path of the folder, if there is a figure.

    Raises:
        UserError: the folder cannot be written.
    """
    write_files({f"{FIGURES_FOLDER}/{name}": content for chart in charts for name, content in chart.files()}, to)
    return [to.locate(FIGURES_FOLDER)] if charts else []


def _panels(found: Sequence[Comparison], draw: Panel) -> PointedFigure:
    """One panel per comparison, in a grid."""
    shown = found[:MAX_PANELS]
    num_columns = math.ceil(math.sqrt(len(shown)))
    num_rows = -(-len(shown) // num_columns)
    width, height = PANEL_INCHES
    with rc_context({**SETTINGS, "axes.grid": False}):
        figure = PointedFigure(figsize=(width * num_columns, height * num_rows), layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
        for axes, one in zip(grid.flat, shown, strict=False):
            figure.points += draw(axes, one)
            title = fonts.drawable(f"{' '.join(filter(None, one.names))}\n{one.by}")
            rho = "" if one.order is None else f", rho {round(one.order.rho, 2) + 0.0:.2f}"  # not -0.00
            size = 8 if max(map(len, title.split("\n"))) <= PANEL_LETTERS else 6
            axes.set_title(f"{title}{rho}", fontsize=size, fontfamily=fonts.families(title))
        return figure


def _draw_map(axes: Axes, one: Comparison) -> list[Point]:
    points, shares = one.found.map()
    num = len(points)
    axes.plot(*points.T, color=GREY, linewidth=0.6)
    colours = colormaps["twilight_shifted"](np.arange(num) / num)
    axes.scatter(points[:, 0], points[:, 1], color=colours, s=18, edgecolors="#404040", lw=0.3, zorder=2)
    for task in range(0, num, -(-num // MAX_LABELLED)):
        axes.annotate(str(task + 1), points[task], xytext=(4, 3), textcoords="offset points", fontsize=6)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel=f"{100 * shares[0]:.0f} %", ylabel=f"{100 * shares[1]:.0f} %", xticks=[], yticks=[])
    return [
        Point(axes, float(x), float(y), f"task {task + 1}, {name}")
        for task, (name, (x, y)) in enumerate(zip(one.found.names, points, strict=True))
    ]


def _draw_band(axes: Axes, one: Comparison) -> list[Point]:
    rows = _bands(one)
    axes.axhline(float((rows["distance"] * rows["pairs"]).sum() / rows["pairs"].sum()), color=GREY, ls=":", lw=0.9)
    axes.plot(rows["apart"], rows["distance"], color="#0072b2", marker="o", ms=2.5)
    low, high = rows["distance"] - rows["sd"].fillna(0), rows["distance"] + rows["sd"].fillna(0)
    axes.fill_between(rows["apart"], low.clip(lower=0), high, color="#0072b2", alpha=0.15, lw=0)
    axes.set(xlabel="apart in the benchmark", ylabel=UNITS.get(one.by, "1 - cosine of contexts"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    columns = (rows[name].tolist() for name in ("apart", "distance", "pairs"))
    return [
        Point(axes, apart, distance, f"{pairs} pairs {apart:g} apart: {distance:.3g}")
        for apart, distance, pairs in zip(*columns, strict=True)
    ]


def _draw_matrix(axes: Axes, one: Comparison) -> list[Point]:
    leaves, num = one.found.leaves, len(one.found.names)
    ordered = one.found.distances[np.ix_(leaves, leaves)].copy()
    np.fill_diagonal(ordered, np.nan)
    axes.imshow(ordered, cmap="cividis", interpolation="nearest", extent=(0, num, num, 0))
    tree = hierarchy.dendrogram(one.found.linkage, no_plot=True)
    height = 0.25 * num / max(*map(max, tree["dcoord"]), 1e-12)
    for xs, ys in zip(tree["icoord"], tree["dcoord"], strict=True):
        axes.plot(np.array(xs) / 10, -height * np.array(ys), color="#404040", lw=0.5, clip_on=False)
    axes.set(xlim=(0, num), ylim=(num, -0.27 * num))
    step = -(-num // MAX_LABELLED)
    places = range(0, num, step)
    axes.set_xticks([place + 0.5 for place in places], [str(leaves[place] + 1) for place in places], fontsize=6)
    axes.set_yticks([place + 0.5 for place in places], [str(leaves[place] + 1) for place in places], fontsize=6)
    for side in axes.spines.values():
        side.set_visible(False)
    return []


def _named(one: Comparison, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the names of their comparison."""
    method, variant, scale = one.names
    names = {"method": method, "variant": variant, "scale": scale, "benchmark": one.benchmark, "seed": one.seed}
    return pd.DataFrame({**{name: [value] * len(rows) for name, value in names.items()}, "by": one.by, **rows})


def _places(one: Comparison) -> pd.DataFrame:
    """One row per task: its place on the map, and each axis's share of the variance."""
    points, shares = one.found.map()
    return _named(
        one,
        pd.DataFrame(
            {
                "task": np.arange(1, len(points) + 1),
                "x": points[:, 0],
                "y": points[:, 1],
                "share_x": shares[0],
                "share_y": shares[1],
            }
        ),
    )


def _bands(one: Comparison) -> pd.DataFrame:
    """One row per distance in the benchmark: the mean and spread of the distances over its pairs of tasks."""
    assert one.apart is not None
    pairs = np.triu_indices(len(one.apart), k=1)
    frame = pd.DataFrame({"apart": one.apart[pairs].round(6), "distance": one.found.distances[pairs]})
    grouped = frame.groupby("apart")["distance"].agg(["mean", "std", "size"]).reset_index()
    return _named(one, grouped.rename(columns={"mean": "distance", "std": "sd", "size": "pairs"}))


def _matrix(one: Comparison) -> pd.DataFrame:
    """One row per pair of tasks."""
    rows, columns = np.triu_indices(len(one.found.names), k=1)
    unlike = one.found.distances[rows, columns]
    pairs = {"task": rows + 1, "other": columns + 1, "distance": unlike}
    if one.apart is not None:
        pairs["apart"] = one.apart[rows, columns]
    return _named(one, pd.DataFrame(pairs))
