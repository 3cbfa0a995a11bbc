"""Charts: the same method looks the same everywhere, files are whole and repeat, numbers are beside them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from crwn.methods import METHODS
from orchestrator.report import charts

CELLS = [
    ("stl", "", "FC256"),
    ("neuromodnet", "", "FC256"),
    ("neuromodnet", "", "FC1024"),
    ("neuromodnet", "local", "FC256"),
]


def frame(**columns: Any) -> pd.DataFrame:
    """A row a cell, with these columns."""
    names = pd.DataFrame(CELLS, columns=["method", "variant", "scale"]).assign(benchmark="r-digits")
    return names.assign(**columns)


SUMMARY = frame(
    accuracy=[0.9, 0.8, 0.85, np.nan],
    sd=0.01,
    ci95=[0.02, np.nan, 0.01, np.nan],
    n=[3, 1, 3, 0],
    asked=3,
    params_per_task=[84_480.0, 579.0, 1000.0, 579.0],
    train_seconds_per_task=[2.0, 1.0, np.nan, np.nan],
)


def by_task() -> pd.DataFrame:
    """Three tasks a cell."""
    return pd.concat([frame(task=task, accuracy=0.8 + task / 100, sd=0.01, n=3) for task in (1, 2, 3)])


def test_a_method_has_one_look_everywhere() -> None:
    """Whichever cells are beside it; variants have open markers, and wider scales are lighter."""
    assert charts.style("a method of tomorrow") not in map(charts.style, METHODS)
    assert len({charts.style(name) for name in METHODS}) == len(METHODS)
    all_cells, few = charts.lines(frame(), {}), charts.lines(frame()[:2], {})
    assert few["stl", "", "FC256"] == all_cells["stl", "", "FC256"]
    first, wide, local = (
        all_cells["neuromodnet", *rest] for rest in (("", "FC256"), ("", "FC1024"), ("local", "FC256"))
    )
    assert first.marker == wide.marker == local.marker
    assert (first.face, local.face) == (first.colour, "white")
    assert first.dashes != local.dashes
    assert sum(wide.colour) > sum(first.colour)


def test_colours_differ_in_grey_or_by_marker() -> None:
    """No two methods share a marker, so that a print without colour is read too."""
    looks = [charts.style(name) for name in METHODS]
    assert len({marker for _, marker in looks}) == len(looks)
    luminance = [np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for colour, _ in looks]
    assert len({round(value, 2) for value in luminance}) == len(looks)


def test_a_chart_has_vectors_a_picture_and_its_numbers() -> None:
    """The CSV is what was drawn, whole; drawn again, all files are the same."""
    chart = charts.accuracy_by_task("s", "r-digits, 36", by_task(), {})
    files = dict(chart.files())
    assert list(files) == [f"s-r-digits-36-tasks.{suffix}" for suffix in ("svg", "pdf", "png", "csv")]
    assert files["s-r-digits-36-tasks.png"].startswith(b"\x89PNG")
    assert files["s-r-digits-36-tasks.pdf"].startswith(b"%PDF")
    assert b"<svg" in files["s-r-digits-36-tasks.svg"]
    numbers = pd.read_csv(io.BytesIO(files["s-r-digits-36-tasks.csv"]), keep_default_na=False)
    assert numbers["accuracy"].tolist() == by_task()["accuracy"].tolist()
    assert dict(chart.files()) == files


def test_costs_that_are_not_known_are_left_out() -> None:
    """A cell without accuracy or without the cost has no point; the interval is drawn where there is one."""
    parameters = charts.accuracy_against("s", "r-digits", SUMMARY, {}, cost="params_per_task")
    assert parameters.values["scale"].tolist() == ["FC256", "FC256", "FC1024"]
    seconds = charts.accuracy_against("s", "r-digits", SUMMARY, {}, cost="train_seconds_per_task")
    assert seconds.values["method"].tolist() == ["stl", "neuromodnet"]
    (axes,) = parameters.draw().axes
    assert axes.get_xscale() == "log"
    assert len(axes.collections) == 2  # intervals of the two cells with more than one seed


def test_a_sweeps_own_name_for_a_method_changes_its_look_as_a_variant_does() -> None:
    """Its colour and marker are the method's, wherever the sweep says which that is."""
    names = pd.DataFrame([("mine", "", "FC16"), ("supsup", "", "FC16")], columns=["method", "variant", "scale"])
    both = charts.lines(names, {"mine": "supsup"})
    mine, plain = both["mine", "", "FC16"], both["supsup", "", "FC16"]
    assert (mine.marker, mine.colour) == (plain.marker, plain.colour)
    assert mine.face != plain.face
    assert mine.dashes != plain.dashes
    assert charts.lines(names, {})["mine", "", "FC16"].marker != plain.marker


def test_numbers_at_axes_are_plain() -> None:
    """Neither a formula nor, of seconds, a thousandth part with a letter that stands for minutes elsewhere."""
    curves = pd.concat([frame(step=step, loss=loss, accuracy=0.5, n=3) for step, loss in ((50, 1.3), (100, 0.06))])
    losses = charts.training_loss("s", "r-digits", curves, {}).draw().axes[0].yaxis
    seconds = charts.accuracy_against("s", "r-digits", SUMMARY, {}, cost="train_seconds_per_task").draw().axes[0].xaxis
    labels = [axis.get_major_formatter()(value) for axis in (losses, seconds) for value in (0.05, 0.2, 1, 20)]
    assert labels == ["0.05", "0.2", "1", "20"] * 2


def test_a_matrix_is_drawn_as_it_is() -> None:
    """What is not known stays white."""
    tests = [(1, 1, 0.9), (2, 1, 0.5), (2, 2, 0.6)]
    matrix = charts._matrix(pd.DataFrame(tests, columns=["tasks_learned", "task", "accuracy"]))
    np.testing.assert_allclose(matrix, [[90, np.nan], [50, 60]])


def test_a_figure_says_what_it_leaves_out() -> None:
    """Where a sweep has more cells than can be told apart: how many, and which are drawn."""
    final = by_task()
    frames = {"summary": SUMMARY, "final": final[final["scale"] == "FC1024"], "curves": by_task()[:0]}
    made = list(charts.charts("s", {**frames, "matrices": frames["curves"]}, {}))
    assert [chart.name.removeprefix("s-r-digits-") for chart in made] == ["tasks", "parameters"]
    assert all(chart.caption.endswith(" Of 3 cells the 1 with the highest accuracy.") for chart in made)
    assert made[1].values["scale"].tolist() == ["FC1024"]


def test_a_sweep_without_results_has_no_chart() -> None:
    """Where something is there, each kind is drawn once a benchmark."""
    curves = frame(step=50, loss=0.5, accuracy=0.5, n=3)
    matrices = pd.concat([frame(tasks_learned=learned, task=1, accuracy=0.5) for learned in (1, 2)])
    frames = {"summary": SUMMARY, "final": by_task(), "curves": curves, "matrices": matrices}
    names = [chart.name.removeprefix("s-r-digits-") for chart in charts.charts("s", frames, {})]
    assert names == ["tasks", "parameters", "seconds", "curves", "matrix"]
    for chart in charts.charts("s", frames, {}):
        assert chart.draw().axes
    assert list(charts.charts("s", {**frames, "final": by_task()[:0]}, {})) == []
