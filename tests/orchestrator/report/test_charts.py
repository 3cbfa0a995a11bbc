"""Charts: a method looks the same everywhere, files are complete and reproducible, with their data next to them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from crwn.methods import METHODS
from orchestrator.report import charts, fonts, looks
from orchestrator.report.charts import Chart
from orchestrator.report.looks import KNOWN

CELLS = [
    ("stl", "", "FC256"),
    ("neuromodnet", "", "FC256"),
    ("neuromodnet", "", "FC1024"),
    ("neuromodnet", "local", "FC256"),
]


def frame(**columns: Any) -> pd.DataFrame:
    """One row per cell, with these columns."""
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
    """Three tasks per cell."""
    return pd.concat([frame(task=task, accuracy=0.8 + task / 100, sd=0.01, n=3) for task in (1, 2, 3)])


def test_a_method_has_one_look_everywhere() -> None:
    """Regardless of the other cells; variants have open markers, and wider scales are darker."""
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
    assert sum(wide.colour) < sum(first.colour)


def test_colours_differ_in_grey_or_by_marker() -> None:
    """No two methods of a known look share a marker, so that a print without colour is read too."""
    looks = [charts.style(name) for name in KNOWN]
    assert len({marker for _, marker in looks}) == len(looks)
    luminance = [np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for colour, _ in looks]
    assert len({round(value, 2) for value in luminance}) == len(looks)


def test_a_chart_has_vectors_a_picture_and_its_numbers() -> None:
    """The CSV is what was drawn, whole; drawn again, all files are the same."""
    chart = charts.accuracy_by_task("s", "r-digits-36", by_task(), {})
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
    final, none = by_task(), by_task().assign(step=0)[:0]
    shown = final[(final["method"] == "neuromodnet") & (final["variant"] == "")]
    frames = {"summary": SUMMARY, "final": shown, "curves": none, "seen": none, "matrices": none}
    made = list(charts.charts("s", frames, {}))
    assert [chart.name.removeprefix("s-r-digits-") for chart in made] == ["tasks", "parameters"]
    assert all(chart.caption.endswith(" The 2 of 3 cells with the highest accuracy.") for chart in made)
    assert made[1].values["scale"].tolist() == ["FC256", "FC1024"]


def test_points_that_lie_above_one_another_are_not_drawn() -> None:
    """Against a cost that all cells share, or where a loss was noted at one update, there is nothing to see."""
    none = by_task()[:0]
    curves = frame(step=50, loss=0.5, accuracy=0.5, n=3)
    summary = SUMMARY.assign(params_per_task=579.0)
    frames = {"summary": summary, "final": by_task(), "curves": curves, "seen": none, "matrices": none}
    names = [chart.name.removeprefix("s-r-digits-") for chart in charts.charts("s", frames, {})]
    assert names == ["tasks", "seconds"]


def test_a_sweep_without_results_has_no_chart() -> None:
    """Where something is there, each kind is drawn once a benchmark."""
    curves = pd.concat([frame(step=step, loss=0.5, accuracy=0.5, n=3) for step in (50, 100)])
    matrices = pd.concat([frame(tasks_learned=learned, task=1, accuracy=0.5) for learned in (1, 2)])
    seen = by_task().rename(columns={"task": "tasks_learned"})
    frames = {"summary": SUMMARY, "final": by_task(), "seen": seen, "curves": curves, "matrices": matrices}
    names = [chart.name.removeprefix("s-r-digits-") for chart in charts.charts("s", frames, {})]
    assert names == ["tasks", "seen", "parameters", "seconds", "curves", "matrix"]
    for chart in charts.charts("s", frames, {}):
        assert chart.draw().axes
    assert list(charts.charts("s", {**frames, "final": by_task()[:0]}, {})) == []


def every_chart(rows: list[tuple[str, str, str]], kinds: dict[str, str]) -> list[Chart]:
    """Each kind of figure of these cells on one benchmark."""
    cells = pd.DataFrame(rows, columns=["method", "variant", "scale"]).assign(benchmark="r-digits", accuracy=0.8)
    frames = {
        "summary": cells.assign(
            sd=0.01, ci95=0.01, n=3, asked=3, **dict.fromkeys(charts.COSTS, range(1, len(rows) + 1))
        ),
        "final": pd.concat([cells.assign(task=task, sd=0.01, ci95=0.02, n=3) for task in (1, 2)]),
        "seen": pd.concat([cells.assign(tasks_learned=learned, sd=0.01, ci95=0.02, n=3) for learned in (1, 2)]),
        "curves": pd.concat([cells.assign(step=step, loss=1 / step, n=3) for step in (1, 2)]),
        "matrices": pd.concat([cells.assign(task=1, tasks_learned=learned, n=3) for learned in (1, 2)]),
    }
    return list(charts.charts("s", frames, kinds))


def names_in(chart: Chart) -> list[str]:
    """What a figure calls its lines or maps."""
    figure = chart.draw()
    if figure.legends:
        return [text.get_text() for text in figure.legends[0].get_texts()]
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize("number", [9, 10, 40])
def test_every_figure_takes_any_number_of_methods(number: int) -> None:
    """Those that the registry does not know, too: all are in the picture, and in its legend, which fits in."""
    rows = [(f"method {index}", "", "FC256") for index in range(number)]
    made = every_chart(rows, {})
    assert len(made) == 6
    for chart in made:
        assert names_in(chart) == [" ".join(row[::2]) for row in rows]
    figure = made[0].draw()
    figure.canvas.draw()
    (legend,) = figure.legends
    assert legend.get_window_extent().y0 >= 0
    drawn = figure.axes[0].lines
    looks_drawn = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in drawn}
    assert len(drawn) == len(looks_drawn) == number


ODD = [
    "_ours",
    "__",
    "$x",
    "a$b$c",
    "$",
    "\\alpha",
    "{x}",
    "网络",
    "\U0001f0ff",
    "שלום",
    "مرحبا",
    "❤️",
    "%s",
    "x" * 5000,
    "#",
    "é",
]


def test_every_label_is_shown_as_it_is_and_nothing_is_warned_of() -> None:
    """A legend leaves out no label that begins with `_`; dollars are no formula; no sign is lacking."""
    rows = [(label, "", "FC16") for label in ODD] + [("a b", "", "F"), ("a", "b", "F")]
    for chart in every_chart(rows, {}):
        shown = names_in(chart)
        assert shown == [*(fonts.label(f"{label} FC16") for label in ODD), "a b F", "a | b | F"]
        assert shown[:5] == [f"{label} FC16" for label in ODD[:5]]
    assert len(dict(chart.files(["svg"]))) == 2  # a warning would be an error here


def test_variants_without_lines_are_told_apart_in_the_legend() -> None:
    """Where points alone are drawn, the legend has the dashes that join them."""
    rows = [("psp", variant, "FC16") for variant in ("one", "two", "three")]
    chart = next(chart for chart in every_chart(rows, {}) if chart.name.endswith("-parameters"))
    handles = chart.draw().legends[0].legend_handles
    assert len({(handle.get_linestyle(), str(handle.get_color())) for handle in handles}) == 3


def test_a_method_has_one_look_in_all_figures_of_a_report() -> None:
    """Also in figures with other methods and scales."""
    rows = pd.DataFrame([("a", "", "FC1024"), ("b", "x", "FC16")], columns=["method", "variant", "scale"])
    names = [("a", "a", "", scale) for scale in ("FC16", "FC256", "FC1024")] + [("b", "b", "x", "FC16")]
    report = looks.palette([*names, *(("a", "a", f"{index}", "FC16") for index in range(20))])
    both, alone = charts.lines(rows, {}, report), charts.lines(rows[:1], {}, report)
    assert both["a", "", "FC1024"] == alone["a", "", "FC1024"]


def test_labels_that_read_alike_have_files_of_their_own() -> None:
    """All benchmarks of a sweep keep their figures."""
    final = by_task()
    labels = ["a/b", "a b", "a?b", "A", "a", "网络", "网", "x" * 5000]
    frames = {
        "summary": pd.concat([SUMMARY.assign(benchmark=label) for label in labels]),
        "final": pd.concat([final.assign(benchmark=label) for label in labels]),
        "seen": final[:0],
        "curves": final.assign(step=0)[:0],
        "matrices": final[:0],
    }
    names = [chart.name for chart in charts.charts("s", frames, {})]
    assert len({name.casefold() for name in names}) == len(names) == 3 * len(labels)
    assert "s-a-tasks" in names
