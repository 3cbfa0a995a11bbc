"""One trial's accuracy matrix: as CSV, and as a figure drawn without a window or pyplot, whose state is global."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from orchestrator.display import without_middle
from orchestrator.report import fonts
from orchestrator.store.integrity import MOST_TASKS, Tests, matrix_of

INCHES = (5.2, 4.4)
DOTS_PER_INCH = 100
MAX_TITLE = 70
"""Characters that fit above the matrix."""


def draw_accuracy_matrix(matrix: NDArray[Any], title: str) -> bytes:
    """An accuracy matrix as a PNG: one row per number of tasks learned, one column per task.

    Args:
        matrix: [T, T], accuracies in [0, 1]; NaN, drawn white, if a task was not tested.
        title: the title; a long one is shortened in the middle.
    """
    num_tasks = len(matrix)
    figure = Figure(figsize=INCHES)  # fixed margins: fitting them takes as long as drawing
    axes = figure.subplots(gridspec_kw={"left": 0.12, "right": 0.98, "bottom": 0.12, "top": 0.92})
    edges = (0.5, num_tasks + 0.5, num_tasks + 0.5, 0.5)
    image = axes.imshow(100 * matrix, vmin=0, vmax=100, cmap="viridis", extent=edges, interpolation="nearest")
    axes.set(xlabel="task tested", ylabel="tasks learned")
    title = fonts.drawable(without_middle(title, MAX_TITLE))
    # Do not parse dollar signs in labels as formulas.
    axes.set_title(title, fontsize="medium", fontfamily=fonts.families(title), parse_math=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    figure.colorbar(image, ax=axes, label="test accuracy in %")
    content = io.BytesIO()
    figure.savefig(
        content,
        format="png",
        dpi=DOTS_PER_INCH,
        metadata={"Software": None},
        pil_kwargs={"compress_level": 3},  # fast, and 10 % larger than the best: a sync draws a thousand figures
    )
    return content.getvalue()


def matrix_files(tests: Tests, title: str, *, independent: bool) -> dict[str, bytes]:
    """A trial's accuracy matrix as CSV and as a picture, by file names; of a stream, which has no such matrix, none.

    Args:
        tests: the trial's.
        title: of the picture.
        independent: see `crwn.metrics.accuracy_matrix`.
    """
    if tests.update is not None or tests.num_tasks > MOST_TASKS:
        return {}
    matrix = matrix_of(tests, independent=independent)
    return {
        "accuracy_matrix.csv": matrix_csv(matrix).encode(),
        "accuracy_matrix.png": draw_accuracy_matrix(matrix, title),
    }


def matrix_csv(matrix: NDArray[Any]) -> str:
    """An accuracy matrix [T, T] as CSV: one row per number of tasks learned; empty if a task was not tested."""
    num_tasks = len(matrix)
    frame = pd.DataFrame(
        matrix,
        index=pd.RangeIndex(1, num_tasks + 1, name="tasks learned"),
        columns=[f"task {task + 1}" for task in range(num_tasks)],
    )
    return frame.to_csv(lineterminator="\n")
