"""The similarity of tasks in a store's trials: comparisons, table, figures, the report and the command."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from orchestrator.api import run
from orchestrator.errors import UserError
from orchestrator.report import likeness, likeness_charts, page
from orchestrator.report.likeness import ANSWERS, APART, CONTEXTS, Comparison
from orchestrator.store.store import Store
from tests.refusals import refused

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err

NUM_TASKS = 12
TURNED = RotatedSpec(base="digits", num_tasks=NUM_TASKS, step_degrees=30)


def spec(method: Any, *, scale: str = "FC32", seed: int = 0, benchmark: Any = TURNED) -> TrialSpec:
    training = TrainingSpec(learning_rate=0.01, updates_per_task=80)
    return TrialSpec(method=method, benchmark=benchmark, scale=scale, seed=seed, training=training)


SHARED = NeuroModNetSpec(context_start="shared")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Trials that started alike and apart, one without an order, one of few tasks, one that has no tasks of its own."""
    untold = RotatedSpec(base="digits", num_tasks=4, step_degrees=30, task_known=False)
    work = [
        *(spec(SHARED, seed=seed) for seed in (0, 1)),
        spec(NeuroModNetSpec()),
        spec(FlyNetSpec(), scale="4d"),
        spec(NeuroModNetSpec(), benchmark=PermutedSpec(base="digits", num_tasks=4)),
        spec(NeuroModNetSpec(), benchmark=RotatedSpec(base="digits", num_tasks=3, step_degrees=10)),
        spec(FinetuneSpec(), benchmark=untold),
    ]
    place = tmp_path_factory.mktemp("runs") / "alike"
    run(work, store=place, executor="inline", keep_weights=True)
    return Store.existing(str(place))


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def found(store: Store, told: list[str]) -> list[Comparison]:
    return likeness.compare(store, data_root=None, tell=told.append)


def test_trials_are_compared_by_all_that_they_allow(found: list[Comparison], told: list[str]) -> None:
    """Answers always; contexts if they started alike, otherwise as a null model; trials left out are named."""
    by = {(one.names[0], one.names[1], one.benchmark, one.seed, one.by) for one in found}
    shared = "context_start=shared"
    assert by == {
        *(("neuromodnet", shared, "r-digits", seed, kind) for seed in (0, 1) for kind in (CONTEXTS, ANSWERS)),
        *(("neuromodnet", "", "r-digits", 0, kind) for kind in (APART, ANSWERS)),
        *(("flynet", "", "r-digits", 0, kind) for kind in (CONTEXTS, ANSWERS)),
        *(("neuromodnet", "", "p-digits", 0, kind) for kind in (APART, ANSWERS)),
    }
    assert sum("left out" in line for line in told) == 2
    assert all(one.found.distances.shape == (len(one.found.names),) * 2 for one in found)


def test_the_table_has_the_order_of_those_that_have_one(found: list[Comparison]) -> None:
    """A row per cell and kind; the numbers of every seed are in the summary; without an order there is no rho."""
    table = likeness.table_of(found)
    rows = table.table.set_index(["method", "variant", "benchmark", "by"])
    assert len(rows) == len(table.summary) - 2
    assert rows.loc[("neuromodnet", "context_start=shared", "r-digits", CONTEXTS), "seeds"] == "2"
    assert rows.loc[("neuromodnet", "", "p-digits", ANSWERS), "rho"] == ""
    summary = table.summary.set_index(["method", "variant", "benchmark", "by", "seed"])
    expected = next(one for one in found if one.names[0] == "flynet" and one.by == CONTEXTS).order
    assert expected is not None
    assert summary.loc[("flynet", "", "r-digits", CONTEXTS, 0), "rho"] == expected.rho
    assert expected.chance == pytest.approx(2 / (NUM_TASKS - 1))
    assert any("different starts" in note for note in table.notes)


def test_every_figure_has_its_numbers(found: list[Comparison]) -> None:
    """Maps, bands and matrices by benchmark, each in every format; a band only where the benchmark has an order."""
    charts = {chart.name: chart for chart in likeness_charts.similarity_charts(found, "similarity")}
    assert set(charts) == {
        *(f"similarity-r-digits-{what}" for what in ("map", "band", "unlike")),
        *(f"similarity-p-digits-{what}" for what in ("map", "unlike")),
    }
    turned = [one for one in found if one.benchmark == "r-digits"]
    assert len(charts["similarity-r-digits-map"].values) == NUM_TASKS * len(turned)
    assert len(charts["similarity-r-digits-unlike"].values) == NUM_TASKS * (NUM_TASKS - 1) // 2 * len(turned)
    band = charts["similarity-r-digits-band"].values
    one = next(one for one in turned if one.names[0] == "flynet" and one.by == CONTEXTS)
    rows = band[(band["method"] == "flynet") & (band["by"] == CONTEXTS)]
    assert rows["apart"].tolist() == [30.0, 60.0, 90.0, 120.0, 150.0, 180.0]
    neighbours = [one.found.distances[task, (task + 1) % NUM_TASKS] for task in range(NUM_TASKS)]
    assert rows["distance"].iloc[0] == pytest.approx(np.mean(neighbours))
    for chart in charts.values():
        files = dict(chart.files())
        assert {name.rpartition(".")[2] for name in files} == {"svg", "pdf", "png", "csv"}
        assert len(pd.read_csv(io.BytesIO(files[f"{chart.name}.csv"]))) == len(chart.values)


def test_a_report_shows_those_that_were_asked_to_start_alike(store: Store) -> None:
    """The sweep's own figures, without any data: of the shared starts alone, and of a sweep without them none."""
    (manifest,) = store.manifests()
    found = likeness.of_sweep(store, manifest, set(manifest.trial_ids))
    assert {(one.names[1], one.by) for one in found} == {("context_start=shared", CONTEXTS)}
    assert len(found) == 2
    assert likeness.of_sweep(store, manifest, set()) == []
    files = page.report_files([store], formats=("svg",))
    shown = [name for name in files if name.endswith(("-map.svg", "-band.svg", "-unlike.svg"))]
    assert len(shown) == 3
    assert b"Maps of tasks" in files[page.PAGE_FILE]


def test_the_command_writes_tables_and_figures(store: Store, tmp_path: Path, crwn: Crwn) -> None:
    """`crwn contexts STORE --similarity` prints and writes the table, and writes figures with their data."""
    outcome = crwn("contexts", store.address, "--similarity", "--where", "method=flynet", "--to", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "task-similarity" in outcome.out
    assert str(tmp_path / "figures") in outcome.out.splitlines()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {f"similarity-r-digits-{what}.csv" for what in ("map", "band", "unlike")} <= names
    assert {"task-similarity.md", "task-similarity.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_a_store_without_tasks_to_compare_is_refused(store: Store) -> None:
    """The error says what a trial needs."""
    with refused(UserError, "no-trial", says=["4 tasks"]):
        likeness.compare(store, where=["method=finetune"], data_root=None, tell=lambda line: None)
