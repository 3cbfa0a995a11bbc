"""Charts of which units each class uses; see `crwn.modularity`.

Shapes: C classes, L layers, N units, d values per image.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from crwn import modularity
from crwn.methods import METHODS
from crwn.methods.protocol import Method
from orchestrator.errors import UserError
from orchestrator.report import filenames, fonts
from orchestrator.report.aggregate import CELL
from orchestrator.report.charts import SETTINGS, Chart, Looks, rows_of
from orchestrator.report.looks import lines
from orchestrator.report.pointing import PointedFigure
from orchestrator.report.results import Results
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.store import Store

COLUMNS, CELL_INCHES = 3, (2.5, 2.3)


def units(manifest: Manifest, store: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Which units each class uses, for a sweep's trials of methods that show it (`Method.shows_activity`).

    Args:
        manifest: the result of `series.drawn`.
        store: the store of its trials.

    Returns:
        kept: one row per cell, layer and class: the cell's names; layer; label; share, the mean activity of the layer's
            units over the class's test images, and over seeds; n, the number of seeds.
        pairs: one row per cell, seed and pair of classes, if the base set is on this machine: the cell's names; seed;
            one, other; overlap and similarity, as in `modularity.Modularity`; same_task; and the seed's spearman and p.
    """
    results, images = Results(store), dict[str, NDArray[Any]]()
    kept: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for cell in manifest.cells:
        if not _shows_units(cell):
            continue
        names = dict(zip(CELL, (cell.method, cell.variant, cell.scale, cell.benchmark), strict=True))
        for seed, trial_id in cell.trials.items():
            if not store.is_finished(trial_id):
                continue
            bank = results.contexts(trial_id)
            shown = {layer: tensor.flatten(1).double().numpy() for layer, tensor in bank.activity.items()}
            for layer, activity_CN in shown.items():
                means_C = enumerate(activity_CN.mean(axis=1).tolist())
                kept += [{**names, "layer": layer, "label": label, "share": share} for label, share in means_C]
            classes = results.spec(trial_id).benchmark.problem().task_classes
            if shown and classes:
                if cell.benchmark not in images and (found := _mean_images(results, trial_id)) is not None:
                    images[cell.benchmark] = found
                if cell.benchmark in images:
                    activity_CN = np.concatenate(list(shown.values()), axis=1)
                    found_pairs = _pairs(activity_CN, images[cell.benchmark], classes)
                    pairs += [{**names, "seed": seed, **pair} for pair in found_pairs]
    shares = pd.DataFrame(kept, columns=[*CELL, "layer", "label", "share"])
    grouped = shares.groupby([*CELL, "layer", "label"], sort=False)["share"]
    columns = [*CELL, "seed", "one", "other", "overlap", "similarity", "same_task", "spearman", "p"]
    return grouped.agg(share="mean", n="size").reset_index(), pd.DataFrame(pairs, columns=columns)


def _shows_units(cell: ManifestCell) -> bool:
    """Whether a cell's method can show its units."""
    if cell.method_kind not in METHODS:
        return False
    build = METHODS[cell.method_kind].build
    return getattr(build, "shows_activity", Method.shows_activity) is not Method.shows_activity


def _mean_images(results: Results, trial_id: str) -> NDArray[Any] | None:
    """Each class's mean test image [C, d]; None if the base set is not on this machine."""
    problem = results.spec(trial_id).benchmark.problem()
    try:
        tests = [results.test_set(trial_id, task) for task in range(problem.num_tasks)]
    except UserError:
        return None
    images_Xd = np.concatenate([images.flatten(1).numpy() for images, _ in tests])
    labels_X = np.concatenate([labels.numpy() for _, labels in tests])
    return np.stack([images_Xd[labels_X == label].mean(axis=0) for label in range(problem.num_classes)])


def _pairs(
    activity_CN: NDArray[Any], means_Cd: NDArray[Any], tasks: tuple[tuple[int, ...], ...]
) -> Iterator[dict[str, Any]]:
    measured = modularity.measure(activity_CN, means_Cd, tasks)
    task_of = {label: task for task, labels in enumerate(tasks) for label in labels}
    for one, other in combinations(range(len(activity_CN)), 2):
        yield {
            "one": one,
            "other": other,
            "overlap": measured.overlap[one, other],
            "similarity": measured.similarity[one, other],
            "same_task": task_of[one] == task_of[other],
            "spearman": measured.spearman,
            "p": measured.p,
        }


def modular_charts(
    sweep: str, kept: pd.DataFrame, pairs: pd.DataFrame, kinds: Mapping[str, str], looks: Looks = None
) -> Iterator[Chart]:
    """The charts of a sweep that have data, benchmark by benchmark.

    Args:
        sweep: the sweep's name.
        kept: the first result of `units`.
        pairs: the second.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole page; by default over each chart's cells.
    """
    for benchmark, rows in kept.groupby("benchmark", sort=False):
        yield Chart(
            name=filenames.figure(sweep, str(benchmark), "kept"),
            benchmark=str(benchmark),
            title="Share of units kept, by layer and class",
            caption="Mean activity of a layer's units over a class's test images at the end (for gates, the share of "
            "open ones), mean over seeds.",
            values=rows,
            draw=functools.partial(_small_multiples, _draw_kept, rows, kinds, looks),
        )
    for benchmark, rows in pairs.groupby("benchmark", sort=False):
        yield Chart(
            name=filenames.figure(sweep, str(benchmark), "overlap"),
            benchmark=str(benchmark),
            title="Overlap of two classes' units against their similarity",
            caption="One point per pair of classes, mean over seeds: sum of minima of the two mean activities over sum "
            "of maxima, against the correlation of the mean test images. Filled: pairs of one task. Above: Spearman's "
            "rank correlation, mean over seeds; Mantel's p of each seed, from permutations of the classes; the mean "
            "overlap of pairs of one task, and of all others.",
            values=rows,
            draw=functools.partial(_small_multiples, _draw_pairs, rows, kinds, looks),
        )


def _small_multiples(draw: Any, values: pd.DataFrame, kinds: Mapping[str, str], looks: Looks) -> PointedFigure:
    """A plot for each cell."""
    cells = lines(values, kinds, looks)
    num_columns = min(COLUMNS, len(cells))
    num_rows = -(-len(cells) // num_columns)
    with rc_context({**SETTINGS, "axes.grid": False}):
        size = (CELL_INCHES[0] * num_columns + 0.8, CELL_INCHES[1] * num_rows + 0.5)
        figure = PointedFigure(figsize=size, layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(cells) :]:
            axes.set_axis_off()
        for axes, (names, line) in zip(grid.flat, cells.items(), strict=False):
            title = draw(axes, rows_of(values, names), line.colour)
            axes.set_title(f"{line.label}{title}", fontsize=7, fontfamily=fonts.families(line.label))
        if draw is _draw_kept:
            figure.colorbar(grid.flat[0].images[0], ax=grid, label="share kept, %", shrink=0.8)
            figure.supxlabel("class", fontsize=9)
        else:
            figure.supxlabel("correlation of the classes' mean images", fontsize=9)
            figure.supylabel("overlap of their units", fontsize=9)
        return figure


def _draw_kept(axes: Axes, rows: pd.DataFrame, colour: Any) -> str:
    """A matrix of layers and classes, with its numbers."""
    del colour
    layers, num_classes = list(dict.fromkeys(rows["layer"])), int(rows["label"].max()) + 1
    share_LC = 100 * rows["share"].to_numpy().reshape(len(layers), num_classes)
    axes.imshow(share_LC, vmin=0, vmax=100, cmap="cividis", aspect="auto", interpolation="nearest")
    for (place, label), share in np.ndenumerate(share_LC):
        ink = "black" if share > 50 else "white"
        axes.text(label, place, f"{share:.0f}", ha="center", va="center", fontsize=5, color=ink)
    axes.set_yticks(range(len(layers)), layers, fontsize=6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ""


def _draw_pairs(axes: Axes, rows: pd.DataFrame, colour: Any) -> str:
    """Points of pairs; what is measured over all of them goes into the title."""
    found = rows.groupby(["one", "other"])[["overlap", "similarity", "same_task"]].mean()
    together = found["same_task"] > 0
    axes.plot(found["similarity"][~together], found["overlap"][~together], "o", mec=colour, mfc="none", ms=4)
    axes.plot(found["similarity"][together], found["overlap"][together], "o", color=colour, ms=5)
    seeds = rows.drop_duplicates("seed")
    each = ", ".join(f"{p:.3f}" for p in seeds["p"])
    same, others = found["overlap"][together].mean(), found["overlap"][~together].mean()
    return f"\nrho {seeds['spearman'].mean():.2f}, p {each}\none task {same:.2f}, others {others:.2f}"
