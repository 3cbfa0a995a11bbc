"""A paper's tables in its layout, from complete and incomplete stores: those of the first paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from crwn.testing import write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.papers.reading import read_paper
from orchestrator.report.frames import empty_frame
from orchestrator.report.paper_tables import PaperSource, SweepSource, paper_tables
from orchestrator.report.tables import Choice, tables_of
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from tests.refusals import refused
from tests.said import several_results

PAPER = read_paper("hong2022")


def paper_trial(method: str, scale: str, benchmark: str, seed: int, **settings: Any) -> TrialSpec:
    """A trial of the paper's settings."""
    spec = METHODS[method].spec(**settings)
    return TrialSpec(method=spec, benchmark=PRESETS[benchmark], scale=scale, seed=seed, training=spec.training(scale))


def test_the_layouts_are_the_papers() -> None:
    """Rows, columns, exact parameters and ratios stand before the first trial; every accuracy is missing of three."""
    tables = {table.name: table.table for table in paper_tables(PAPER, PaperSource(PAPER, empty_frame()))}
    assert list(tables) == ["table1", "table2", "table3", "table4"]
    first = tables["table1"].set_index("network")
    assert list(first.columns) == ["r-mnist", "p-mnist", "params/task", "ratio"]
    assert list(first.index) == [
        *("MTL FC256 (not continual)", "PSP FC256", "BatchE FC256", "SupSup FC256"),
        *(f"FlyNet {scale}" for scale in ("10d", "20d", "30d", "40d")),
        *(f"NeuroModNet {scale}" for scale in ("FC256", "FC512", "FC1024", "FC2048", "FC4096")),
    ]
    assert set(first["r-mnist"]) | set(first["p-mnist"]) == {"- (0/3)"}
    assert first.loc["BatchE FC256"].tolist()[2:] == ["9,285 / 4,506", "0.0345 / 0.0168"]
    assert first.loc["NeuroModNet FC4096", "params/task"] == "8,979"
    second = tables["table2"].set_index("network")
    assert list(second.columns) == ["split-cifar100", "split-miniimagenet", "params/task", "ratio", "s/task"]
    assert second["split-miniimagenet"].tolist() == ["- (0/3)"] * 5 + [""] * 3
    assert second.loc["NeuroModNet 6d", "params/task"] == "29,568"
    third = tables["table3"].set_index("network")
    assert list(third.columns) == ["local+global", "local", "difference", "params/task"]
    assert len(third) == 9
    fourth = tables["table4"].set_index("network")
    assert list(fourth.index) == ["without pretraining FC4096", "with pretraining FC4096"]
    assert fourth["params/task"].tolist() == ["8,979", "565,352"]


def test_the_papers_trials_are_found_whatever_a_sweep_calls_them(store: Store) -> None:
    """By their settings; one of other settings fills no cell; the difference of Table 3 is paired by seed."""
    for seed, accuracy in ((0, 0.9), (1, 0.92), (7, 0.94)):
        write_finished(store, paper_trial("neuromodnet", "FC256", "r-mnist", seed), accuracy)
    for seed, accuracy in ((0, 0.89), (7, 0.91)):
        write_finished(store, paper_trial("neuromodnet", "FC256", "r-mnist", seed, modulation="local"), accuracy)
    write_finished(store, paper_trial("neuromodnet", "FC256", "p-mnist", 0, modulation="global"), 0.99)
    tables = {table.name: table.table.set_index("network") for table in tables_of([store], Choice(paper="hong2022"))}
    first = tables["paper-hong2022-table1"]
    assert first.loc["NeuroModNet FC256", ["r-mnist", "p-mnist"]].tolist() == ["92.00 ± 2.00 (n=3)", "- (0/3)"]
    row = tables["paper-hong2022-table3"].loc["NeuroModNet FC256"]
    assert row.tolist()[:3] == ["92.00 ± 2.00 (n=3)", "90.00 ± 1.41 (2/3)", "+2.00 ± 1.41 (2/3)"]


TWIN = """
name: twin
seeds: [0, 1]
benchmarks: {turned: {preset: r-digits, num_tasks: 2}, mixed up: {preset: p-digits, num_tasks: 2}}
methods:
  mtl: {scales: [FC16]}
  mine: {method: neuromodnet, scales: [FC16, FC32], base: a, variants: {a: , b: {settings: {modulation: local}}}}
"""


def test_a_sweep_fills_the_layout_with_its_own_benchmarks(store: Store, sweep_file: Callable[..., Any]) -> None:
    """Those tables that it has the rows of, under its labels, with the paper's names for methods."""
    sweep = load_sweep(sweep_file(TWIN))
    store.write_manifest(sweep.manifest())
    for spec in sweep.trials:
        if spec.method.kind == "mtl" and spec.seed == 0:
            write_finished(store, spec, 0.75)
    tables = {table.name: table for table in tables_of([store], Choice(paper="hong2022", sweep="twin"))}
    assert list(tables) == ["twin.table1", "twin.table3"]
    first = tables["twin.table1"].table.set_index("network")
    assert list(first.index) == ["MTL FC16 (not continual)", "NeuroModNet FC16", "NeuroModNet FC32"]
    assert first.loc["MTL FC16 (not continual)", ["turned", "mixed up"]].tolist() == ["75.00 ± - (1/2)"] * 2
    assert " sweep twin" in tables["twin.table1"].caption
    assert list(tables["twin.table3"].table.columns)[:4] == ["network", "local+global", "local", "difference"]


def test_a_sweep_without_the_papers_rows_is_refused(store: Store) -> None:
    """None of its tables can be made of it."""
    cell = ManifestCell(method="x", variant="", scale="FC16", benchmark="b", trials={0: "a" * 16})
    store.write_manifest(Manifest(name="odd", cells=(cell,)))
    with refused(UserError, "paper-without-rows", says=["--paper", "'odd'"]):
        tables_of([store], Choice(paper="hong2022", sweep="odd"))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"kind": "of a plug-in"}},
        {"method": {"kind": "supsup", "of a later version": 1}},
        {"benchmark": {"kind": "none", "base": "digits"}},
        {"scale": "FC" + 500 * "9"},
    ],
)
def test_settings_that_cannot_be_built_here_are_none_of_the_papers(changes: dict[str, Any]) -> None:
    """An untrusted manifest, or one of a crwn with other methods, may have such settings."""
    spec = json.loads(paper_trial("supsup", "FC16", "r-digits", 0).canonical_json()) | changes
    del spec["seed"]
    cell = ManifestCell(
        method="x", variant="", scale="FC16", benchmark="b", trials={0: "a" * 16}, spec=RecordedSpec(spec)
    )
    assert paper_tables(PAPER, SweepSource(Manifest(name="odd", cells=(cell,)), empty_frame())) == []


def test_two_results_of_one_setting_and_seed_are_no_mean(store: Store, tmp_path: Any) -> None:
    """Two stores have the trial: once where they agree, not at all where they do not."""
    other = Store(tmp_path / "other")
    other.create()
    spec = paper_trial("neuromodnet", "FC256", "r-mnist", 0)
    write_finished(store, spec, 0.8)
    write_finished(other, spec, 0.8)
    one = tables_of([store, other], Choice(paper="hong2022"))[0].table.set_index("network")
    assert one.loc["NeuroModNet FC256", "r-mnist"] == "80.00 ± - (1/3)"
    write_finished(other, spec, 0.9)
    table = tables_of([store, other], Choice(paper="hong2022"))[0]
    assert table.table.set_index("network").loc["NeuroModNet FC256", "r-mnist"] == "mixed (1/3)"
    assert several_results(0) in table.notes[0]
    assert json.dumps(list(table.notes))
