"""Values under the pointer: at the right places, as text, and limited in number."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from orchestrator.report import charts, pointing
from orchestrator.report.charts import Chart
from orchestrator.report.pointing import Point, PointedFigure, inline, pointed
from tests.orchestrator.report.test_charts import SUMMARY, by_task, every_chart

CIRCLE = re.compile(r'<circle cx="([^"]*)" cy="([^"]*)" r="5"><title>(.*?)</title></circle>')


def svg_of(chart: Chart) -> str:
    """The figure as a file."""
    return dict(chart.files(["svg"]))[f"{chart.name}.svg"].decode()


def test_a_point_lies_where_its_marker_is() -> None:
    """In the SVG's own units; the text is the mean, its deviation and the number of seeds."""
    svg = svg_of(charts.accuracy_by_task("s", "r-digits", by_task()[:3], {}))
    markers = {
        (round(float(x)), round(float(y))) for x, y in re.findall(r'<use xlink:href="#m\w+" x="(.*?)" y="(.*?)"', svg)
    }
    circles = CIRCLE.findall(svg)
    assert len(circles) == 3
    for x, y, _ in circles:
        assert any(abs(float(x) - left) <= 1 and abs(float(y) - top) <= 1 for left, top in markers)
    assert circles[0][2] == "stl FC256, task 1: 81.00 ± 1.00 % (n=3)"


def test_every_kind_of_figure_has_points() -> None:
    """With what it shows of each: costs, losses, entries of a matrix."""
    said = {
        chart.name.rpartition("-")[2]: CIRCLE.findall(svg_of(chart))[0][2]
        for chart in every_chart([("psp", "", "F"), ("psp", "", "G")], {})
    }
    assert said == {
        "tasks": "psp F, task 1: 80.00 ± 1.00 % (n=3)",
        "seen": "psp F, after 1 task: 80.00 ± 1.00 % (n=3)",
        "parameters": "psp F: 80.00 ± 1.00 % (n=3), 1 parameters per task",
        "seconds": "psp F: 80.00 ± 1.00 % (n=3), 1 training seconds per task",
        "curves": "psp F, update 1: loss 1, accuracy 80.0 %",
        "matrix": "psp F, task 1 after 1 task: 80.00 %",
    }


def test_text_of_strangers_stays_text() -> None:
    """Markup, control characters and lines; the file stays XML, and a page gets no comment, address or shared name."""
    label = "</title><script>-->" + "x" * 1000
    svg = svg_of(every_chart([(label, "", "F")], {})[0])
    (_, _, text), *_ = CIRCLE.findall(svg)
    assert text.startswith("&lt;/title&gt;&lt;script&gt;--&gt;xxx")
    assert len(text) < 250
    assert ElementTree.fromstring(svg).tag.endswith("svg")  # noqa: S314 (our own)
    figure = PointedFigure()
    figure.points = [Point(figure.subplots(), 0, 0, "\x1b[1m\nred")]
    assert "<title>\\x1b[1m red</title>" in pointed(figure, "<svg></svg>")
    part = inline(svg)
    assert part.startswith('<svg viewBox="0 0 ')
    assert part.endswith("</svg>\n")
    assert [unwanted for unwanted in ("<script", "<!--", "http", '<g id="', "<?xml") if unwanted in part] == []


def test_points_are_few_enough_for_a_page() -> None:
    """Long lines are thinned, with their last point; a figure of too many has none."""
    rows = SUMMARY.loc[[0] * 1000].assign(task=range(1, 1001), n=3)
    found = list(pointing.accuracies(PointedFigure().subplots(), rows, "task", ("stl", "", "F"), 75))
    assert len(found) <= 75
    assert found[-1].x == 1000
    figure = PointedFigure()
    figure.points = [Point(figure.subplots(), 0.5, 0.5, "x")] * (pointing.MAX_POINTS + 1)
    assert pointed(figure, "<svg></svg>") == "<svg></svg>"
    figure.points.pop()
    assert pointed(figure, "<svg></svg>").count("<circle") == pointing.MAX_POINTS


@pytest.mark.parametrize("name", ["tasks", "seen", "parameters", "seconds"])
def test_no_axis_goes_past_100(name: str) -> None:
    """Nor below 0, even with deviations and intervals."""
    cells = every_chart([("psp", "", "F"), ("stl", "", "F")], {})
    chart = next(chart for chart in cells if chart.name.endswith(name))
    for accuracy in (0.0, 0.001, 1.0):
        values = chart.values
        values["accuracy"], values["sd"], values["ci95"] = accuracy, 0.2, 0.4
        figure = chart.draw()
        low, high = figure.axes[0].get_ylim()
        assert 0 <= low < high <= 100
