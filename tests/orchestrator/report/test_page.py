"""The page: made from a store's files, self-contained, and read in a real browser."""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crwn.code import Code
from crwn.testing import Conditions, tiny_trial, write_finished, write_unfinished
from orchestrator.papers.paper import Paper
from orchestrator.papers.reading import read_paper
from orchestrator.report import fonts
from orchestrator.report import page as page_module
from orchestrator.report.charts import Chart
from orchestrator.report.page import sections, write_report
from orchestrator.report.pointing import PointedFigure, inline
from orchestrator.store.address import open_files
from orchestrator.store.manifests import Manifest
from orchestrator.store.store import Store
from tests.orchestrator.report.test_report import manifest
from tests.said import done_of

FIRST, SECOND, THIRD, FOURTH = (tiny_trial(seed=seed, learning_rate=rate) for rate in (0.01, 0.02) for seed in (0, 1))
ASKED = {0: FIRST.trial_id, 1: SECOND.trial_id}
CELLS = (
    *manifest(method="stl", trials=ASKED).cells,
    *manifest(method="neuromodnet", trials={0: THIRD.trial_id, 1: FOURTH.trial_id}).cells,
)
PROBE = """<script>
addEventListener("load", () => {
  const table = document.querySelector("table.sortable"), head = table.tHead.rows[0].cells[2];
  const rows = () => [...table.tBodies[0].rows].map(r => r.cells[2].textContent).join();
  const states = [rows()];
  for (let i = 0; i < 2; i++) { head.querySelector("button").click(); states.push(head.ariaSort + " " + rows()); }
  const figures = [...document.querySelectorAll("figure")].map(f => {
    const picture = f.querySelector("a.picture"), svg = picture.querySelector("svg");
    return svg.getBoundingClientRect().width > 300 && picture.ariaLabel.length > 20;
  });
  const circle = document.querySelector(".points circle");
  circle.dispatchEvent(new PointerEvent("pointerover", { bubbles: true, clientX: innerWidth - 1, clientY: 300 }));
  const tip = document.querySelector(".tip"), told = tip.textContent;
  const wide = [document.documentElement, document.body].map(e => e.scrollWidth - e.clientWidth);
  const parts = [...document.querySelectorAll("main > section > *")];
  const cut = parts.filter(e => e.getBoundingClientRect().right > innerWidth).length;
  const tipped = tip.getBoundingClientRect().right <= innerWidth;
  const figure = document.querySelector("figure"), small = figure.querySelector("svg").getBoundingClientRect().width;
  location.hash = figure.id;
  const large = figure.querySelector("svg").getBoundingClientRect().width;
  const out = document.createElement("pre");
  out.id = "found";
  const unnamed = [...document.querySelectorAll("button,a")].filter(e => !e.textContent.trim()).length;
  const window_ = innerWidth, enlarged = [getComputedStyle(figure).position, large > small];
  out.textContent = JSON.stringify({ states, figures, errors, wide, unnamed, told, tipped, cut, window_, enlarged });
  document.body.append(out);
  parent.postMessage(out.textContent, "*");
});
</script>"""
FRAME = """<!DOCTYPE html><iframe src="%s" style="width: %spx; height: %spx; border: 0"></iframe>
<script>addEventListener("message", message => {
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = message.data;
  document.body.append(out);
});</script>"""
"""A window of any width: that of a browser without a screen is no narrower than 500 pixels."""
LISTEN = """<script>const errors = []; addEventListener("error", e => errors.push(e.message));
console.error = (...said) => errors.push(said.join(" "));</script>"""


@pytest.fixture
def browser() -> str:
    """Chromium's program; tests that ask for it skip where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a browser: Debian's package chromium")
    return program


@pytest.fixture
def filled(store: Store) -> Store:
    """A sweep of two cells and two seeds, of which one trial failed."""
    for spec, accuracy in ((FIRST, 0.5), (SECOND, 0.75), (THIRD, 0.9)):
        write_finished(store, spec, accuracy)
    write_unfinished(store, FOURTH, error=ValueError("a <b>loss</b> of NaN\nmore"))
    store.write_manifest(Manifest(name="main", cells=CELLS))
    return store


def written(store: Store, folder: Path, paper: Paper | None = None) -> str:
    """The page over a store."""
    page, *figures = write_report([store], open_files(folder), paper=paper)
    assert all(Path(one).is_dir() for one in figures)
    return Path(page).read_text()


def test_many_numbers_are_linked_and_few_are_in_the_page() -> None:
    """A matrix over a hundred tasks is megabytes of text, which would keep the page from opening at once."""
    values = pd.DataFrame({"x": range(9)})
    chart = Chart(name="s-a%b-matrix", benchmark="", title="", caption="", values=values, draw=PointedFigure)
    assert page_module._numbers(chart).startswith("data:text/csv;base64,")
    large = dataclasses.replace(chart, values=pd.DataFrame({"x": range(200_000)}))
    assert page_module._numbers(large) == "figures/s-a%25b-matrix.csv"


def test_a_section_says_what_ran_and_what_did_not(filled: Store) -> None:
    """Counts, the failure in a line, settings and provenance of every number."""
    (section,) = sections(filled)
    assert (section.num_done, section.num_asked) == (3, 4)
    (failure,) = section.failures
    assert (failure.trial, failure.state) == (FOURTH.trial_id, "failed")
    assert failure.name == "neuromodnet FC16, r-digits, seed 1"
    assert failure.error == "ValueError: a <b>loss</b> of NaN"
    assert section.provenance["trial_id"].tolist() == [spec.trial_id for spec in (FIRST, SECOND, THIRD)]
    assert section.settings.to_dict("list") == {
        "cell": ["stl FC16, r-digits", "neuromodnet FC16, r-digits"],
        "training.learning_rate": ["0.01", "0.02"],
    }
    assert section.shared["scale"] == "FC16"
    assert "seed" not in section.shared


@pytest.mark.usefixtures("plain_figures")
def test_tracebacks_are_shown_once_and_not_without_end(store: Store, tmp_path: Path) -> None:
    """Trials that failed alike share one; untrusted text is shortened, and cannot control the terminal."""
    specs = [tiny_trial(seed=seed) for seed in range(30)]
    for seed, spec in enumerate(specs):
        write_unfinished(store, spec, error=ValueError("<i>\x1b[1m" + ("same" if seed < 3 else f"{seed}" * 20_000)))
    store.write_manifest(manifest("main", trials={spec.seed: spec.trial_id for spec in specs}))
    (section,) = sections(store)
    assert [len(names) for names in section.tracebacks.values()] == [3] + [1] * (page_module.MAX_TRACEBACKS - 1)
    assert max(map(len, section.tracebacks)) <= page_module.MAX_TRACEBACK + 10
    page = written(store, tmp_path / "report")
    assert " 2 more</summary>" in page
    assert "<i>" not in page
    assert "\x1b" not in page


@pytest.mark.usefixtures("plain_figures")
def test_the_page_says_what_was_computed_under_more_than_one_code(store: Store, tmp_path: Path) -> None:
    """At the number, in a note below, and where every number is from, with the fingerprints of the code."""
    older = Conditions(versions=(("torch", "2.10.0"),))
    write_finished(store, FIRST, 0.5, Conditions(before=older, code=Code(method="a" * 16, crwn="b" * 16)))
    write_finished(store, SECOND, 0.75, Conditions(code=None))
    store.write_manifest(Manifest(name="main", cells=CELLS[:1]))
    page = written(store, tmp_path / "report")
    changes = html.escape("torch 2.10.0 -> 2.11.0, other code of the method, other code of crwn")
    for expected in ("62.50 ± 17.68 (n=2)*", f"seed 0: {changes}.", "a" * 16, "b" * 16, f"<td>{changes}</td>"):
        assert expected in page


def test_the_page_is_whole_in_itself(filled: Store, tmp_path: Path) -> None:
    """It links only to its own content; text from a store stays text; figures are also separate files."""
    page = written(filled, tmp_path / "report")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {address[:5] for address in addresses if not address.startswith("#")} == {"data:"}
    assert "http" not in re.sub(r"data:[^\"]*", "", page)
    assert "<b>loss</b>" not in page
    assert html.escape("<b>loss</b>") in page
    for expected in ("62.50 ± 17.68 (n=2)", "90.00 ± - (1/2)", "ValueError", done_of(3, 4)):
        assert expected in page
    summary = "<summary>Traceback of neuromodnet FC16, r-digits, seed 1</summary>"
    assert re.search(summary + r"\n<div [^>]*><pre>[^<]*ValueError: a &lt;b&gt;loss", page)
    assert '<h3 id="sweep-1-1">r-digits</h3>' in page
    files = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert {f"main-r-digits-tasks.{suffix}" for suffix in ("svg", "pdf", "png", "csv")} <= files


@pytest.mark.usefixtures("plain_figures")
def test_a_papers_claims_are_there_for_whoever_asks(filled: Store, tmp_path: Path) -> None:
    """With the paper's title, in the page and as a file; a report without `--paper` mentions no paper."""
    paper = read_paper("hong2022")
    own = written(filled, tmp_path / "own")
    assert [text for text in ("#claims", 'id="claims"', paper.title, "Nothing is forgotten") if text in own] == []
    assert not (tmp_path / "own/figures/claims.csv").exists()
    asked = written(filled, tmp_path / "asked", paper)
    for expected in (paper.title, "9. Nothing is forgotten", '<a href="#claims">'):
        assert html.escape(expected) in asked or expected in asked
    assert len(pd.read_csv(tmp_path / "asked/figures/claims.csv")) == len(paper.claims)


@pytest.mark.usefixtures("plain_figures")
def test_a_page_over_several_stores_has_a_section_for_each(filled: Store, tmp_path: Path) -> None:
    """A trial that is in both counts once for the claims."""
    other = Store(tmp_path / "other")
    other.create()
    write_finished(other, FIRST)
    other.write_manifest(manifest("second", trials=ASKED))
    page, _ = write_report([filled, other], open_files(tmp_path / "report"), paper=read_paper("hong2022"))
    text = Path(page).read_text()
    assert text.index('id="sweep-1">main') < text.index('id="sweep-2">second') < text.index('id="claims"')


def test_sweeps_of_one_name_in_two_stores_keep_their_figures(filled: Store, tmp_path: Path) -> None:
    """The first store's have the names that they have alone; the page shows each its own."""
    other = Store(tmp_path / "other")
    other.create()
    write_finished(other, FIRST, 0.25)
    other.write_manifest(manifest("main", trials=ASKED))
    files = page_module.report_files([filled, other], formats=("svg",))
    svgs = [name for name in files if "-tasks" in name and name.endswith(".svg")]
    assert svgs[0] == "figures/main-r-digits-tasks.svg"
    assert len(svgs) == 2
    for name in svgs:
        assert inline(files[name].decode()).encode() in files["report.html"]


def test_labels_of_a_store_of_old_are_reported_however_long(store: Store) -> None:
    """They are shortened in pictures, and whole in the page."""
    write_finished(store, FIRST)
    store.write_manifest(manifest("main", trials=ASKED, method="x" * 5000, variant="_" * 5000, benchmark="y" * 5000))
    files = page_module.report_files([store], formats=("svg",))
    assert any(name.endswith("-tasks.svg") for name in files)
    assert b"y" * 5000 in files["report.html"]


def test_signs_that_no_font_has_are_named_in_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how they are written instead; nothing is said where there is nothing to say."""
    monkeypatch.setattr(fonts, "_fonts", lambda: iter(()))
    monkeypatch.setattr(fonts, "_found", functools.cache(fonts._found.__wrapped__))
    said: list[str] = []
    for label in ("plain", "网络"):
        store.write_manifest(manifest("main", method=label))
        write_report([store], open_files(tmp_path / "report"), said.append)
    (line,) = said
    assert line.startswith("figures: no font on this machine has ")
    assert set(line.removeprefix("figures: no font on this machine has ")[:3]) == {"网", " ", "络"}
    assert "such as \\u" in line


def test_a_sweep_without_results_has_a_page(store: Store, tmp_path: Path) -> None:
    """Its table is of missing cells, and there is no figure."""
    store.create()
    store.write_manifest(manifest("empty"))
    page = written(store, tmp_path / "report")
    assert done_of(0, 2) in page
    assert "<figure>" not in page
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.html"]


@pytest.mark.parametrize("size", ["1280,900", "390,800"])
def test_in_a_browser_tables_sort_and_figures_tell(browser: str, filled: Store, tmp_path: Path, size: str) -> None:
    """At a desk and on a phone: no error, nothing cut off; a figure tells its values and becomes larger."""
    found = browsed(browser, written(filled, tmp_path / "report"), tmp_path, size)
    assert found["errors"] == []
    assert found["figures"]
    assert all(found["figures"])
    assert found["window_"] == int(size.partition(",")[0])
    assert max(found["wide"]) <= 0
    assert (found["unnamed"], found["cut"], found["tipped"]) == (0, 0, True)
    assert re.fullmatch(r"stl FC16, task 1: 62\.50 ± 17\.68 % \(n=2\)", found["told"])
    assert found["enlarged"] == ["fixed", True]
    low, high = "62.50 ± 17.68 (n=2)", "90.00 ± - (1/2)"
    assert found["states"] == [f"{low},{high}", f"ascending {low},{high}", f"descending {high},{low}"]


def browsed(browser: str, page: str, folder: Path, size: str) -> Any:
    """What a script in the page finds in headless Chromium."""
    file = folder / "probed.html"
    file.write_text(page.replace("<head>", "<head>" + LISTEN, 1).replace("</body>", PROBE + "</body>"))
    options = ["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    options += ["--no-sandbox"] if os.getuid() == 0 else []
    command = [browser, *options, f"--user-data-dir={folder / 'browser'}", "--window-size=1600,1200"]
    frame = folder / "frame.html"
    frame.write_text(FRAME % (file.as_uri(), *size.split(",")))
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(html.unescape(found))
