"""A paper's figures: over its own rows, as far as there are trials, with the numbers that a sweep's figures have."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from crwn.testing import write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.papers.reading import read_paper
from orchestrator.report.frames import empty_frame, read_trials
from orchestrator.report.looks import palette
from orchestrator.report.page import report_files
from orchestrator.report.paper_figures import paper_figures
from orchestrator.report.series import names
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.store import Store

PAPER = read_paper("hong2022")


def paper_trial(method: str, scale: str, seed: int, *, pretrained: bool = False) -> TrialSpec:
    """A trial of the paper's settings on its first benchmark."""
    spec = METHODS[method].spec(**({"pretrained": True} if pretrained else {}))
    return TrialSpec(method=spec, benchmark=PRESETS["r-mnist"], scale=scale, seed=seed, training=spec.training(scale))


def test_a_figure_shows_the_rows_that_have_a_mean(store: Store, tmp_path: Path) -> None:
    """By the paper's names, over all seeds that are there; rows whose trials are not of one kind are left out."""
    other = Store(tmp_path / "other")
    other.create()
    for seed, accuracy in ((0, 0.9), (1, 0.94)):
        write_finished(store, paper_trial("neuromodnet", "FC256", seed), accuracy)
    write_finished(store, paper_trial("supsup", "FC256", 0), 0.8)
    write_finished(store, paper_trial("psp", "FC256", 0), 0.8)
    write_finished(other, paper_trial("psp", "FC256", 0), 0.7)  # another result of one trial: no mean
    trials = pd.concat([read_trials(store), read_trials(other)])
    drawable = {one.figure.title.rpartition("Figure ")[2][0]: one for one in paper_figures(PAPER, trials)}
    assert list(drawable) == ["2", "3"]
    by_task, against = (one.chart() for one in drawable.values())
    assert (by_task.name, against.name) == ("paper-hong2022-figure2", "paper-hong2022-figure3")
    rows = by_task.values.groupby("method", sort=False)
    assert {name: (len(row), set(row["n"])) for name, row in rows} == {"SupSup": (36, {1}), "NeuroModNet": (36, {2})}
    mean = by_task.values.set_index("method").loc["NeuroModNet", "accuracy"].mean()
    assert mean == pytest.approx(0.92)
    assert against.values.set_index("method")["params_per_task"].to_dict() == {
        "SupSup": 268_800.0,
        "NeuroModNet": 1299.0,
    }


def test_a_row_of_other_settings_has_its_own_line(store: Store) -> None:
    """Random and pretrained weights are one method, told apart by the paper's names and by their looks."""
    for pretrained in (False, True):
        write_finished(store, paper_trial("neuromodnet", "FC4096", 0, pretrained=pretrained), 0.9)
    last = list(paper_figures(PAPER, read_trials(store)))[-1]
    assert list(dict.fromkeys(last.chart().values["method"])) == ["without pretraining", "with pretraining"]
    assert len({(look.face, look.dashes) for look in palette(names(last.manifest)).values()}) == 2


def test_without_trials_there_is_no_figure() -> None:
    """There is no empty figure either."""
    assert list(paper_figures(PAPER, empty_frame())) == []


def test_the_page_has_a_papers_figures_and_tables(store: Store) -> None:
    """After the sweeps, drawn and as files, where the paper is asked for."""
    spec = paper_trial("supsup", "FC256", 0)
    write_finished(store, spec, 0.8)
    cell = ManifestCell(method="mine", variant="", scale="FC256", benchmark="turned", trials={0: spec.trial_id})
    store.write_manifest(Manifest(name="main", cells=(cell,)))
    files = report_files([store], formats=("svg",), paper=PAPER)
    assert {"figures/paper-hong2022-figure2.svg", "figures/paper-hong2022-figure3.csv"} <= set(files)
    page = files["report.html"].decode()
    assert page.index('id="sweep-1"') < page.index('id="paper"') < page.index('id="claims"')
    assert "Figure 2)" in page
    assert "<h3>table1</h3>" in page
    assert not [name for name in report_files([store], formats=("svg",)) if "paper" in name]
