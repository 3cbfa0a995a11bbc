"""How well a store's finished trials infer the task of images, and what they keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from orchestrator.api import run
from orchestrator.errors import UserError
from orchestrator.report.banks import banks_table
from orchestrator.report.inference import inference_table
from orchestrator.report.printable import Table
from orchestrator.store.store import Store
from tests.methods import CASES
from tests.refusals import refused

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err


def spec(name: str, *, seed: int = 0, rotated: bool = False) -> TrialSpec:
    benchmark = RotatedSpec(base="digits", num_tasks=3) if rotated else PermutedSpec(base="digits", num_tasks=3)
    training = TrainingSpec(learning_rate=0.01, updates_per_task=60)
    return TrialSpec(method=CASES[name].method, benchmark=benchmark, scale="FC64", seed=seed, training=training)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Trials whose tasks can be inferred, and two whose cannot."""
    work = [
        spec("neuromodnet"),
        spec("neuromodnet", seed=1),
        spec("neuromodnet", rotated=True),
        spec("supsup"),
        dataclasses.replace(spec("stl"), seed=3),
        spec("er"),
    ]
    place = tmp_path_factory.mktemp("runs") / "asked"
    run(work, store=place, executor="inline")
    return Store.existing(str(place))


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def table(store: Store, told: list[str]) -> Table:
    return inference_table(store, images=128, data_root=None, tell=told.append)


def test_every_trial_that_tells_tasks_apart_is_asked(table: Table, told: list[str]) -> None:
    """The others are left out, with the reason; nothing is trained."""
    asked = table.summary.groupby(["method", "benchmark"])["seed"].agg(lambda seeds: sorted(set(seeds)))
    assert asked.to_dict() == {
        ("neuromodnet", "p-digits"): [0, 1],
        ("neuromodnet", "r-digits"): [0],
        ("supsup", "p-digits"): [0],
    }
    left_out = [line for line in told if "left out" in line]
    assert len(left_out) == 2
    assert any("stl" in line and "keep_weights" in line for line in left_out)
    assert any(" er " in line for line in left_out)


def test_the_baseline_stands_beside_every_result(table: Table) -> None:
    """In each row, the same images by the mean image, in the file too; searches are for masks only."""
    shown, summary = table.table, table.summary
    assert not shown["by"].str.startswith("mean image").any()
    alone = summary[summary["by"] == "mean-image"].set_index(["trial_id", "batch"])
    for _, row in summary.iterrows():
        mine = alone.loc[(row["trial_id"], row["batch"])]
        assert row["baseline_task_accuracy"] == mine["task_accuracy"]
        assert row["baseline_class_accuracy"] == mine["class_accuracy"]
    row = shown.set_index(["method", "benchmark", "batch", "by"]).loc[("supsup", "p-digits", "32", "lowest entropy")]
    expected = alone.query("method == 'supsup' and batch == 32")
    assert row["task by mean image"] == f"{100 * expected['task_accuracy'].item():.1f}"
    assert row["class by mean image"] == f"{100 * expected['class_accuracy'].item():.1f}"
    searched = shown[shown["by"].str.contains("superposed")]
    assert set(searched["method"]) == {"supsup"}
    assert set(shown["batch"]) == {"1", "8", "32", "128"}


def test_seeds_are_averaged_and_neighbours_shown_where_there_are_any(table: Table) -> None:
    """Mean and deviation over two seeds; a benchmark without an order has no neighbours."""
    rows = table.table.set_index(["method", "benchmark", "batch", "by"])
    two = rows.loc[("neuromodnet", "p-digits", "32", "lowest entropy")]
    assert (two["seeds"], two["task or neighbour"]) == ("2", "")
    values = table.summary.query(
        "method == 'neuromodnet' and benchmark == 'p-digits' and batch == 32 and by == 'entropy'"
    )["class_accuracy"]
    assert two["class"] == f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"
    one = rows.loc[("neuromodnet", "r-digits", "32", "lowest entropy")]
    assert "±" not in one["task"]
    assert float(one["task or neighbour"]) >= float(one["task"])


def test_a_store_without_such_a_trial_is_refused(store: Store) -> None:
    """The message says what a trial must keep."""
    with refused(UserError, "no-trial", says="keep_weights"):
        inference_table(store, where=["method=er"], images=10, data_root=None, tell=lambda _: None)


def test_what_trials_keep_is_listed(store: Store) -> None:
    """Bytes per file and per task, or why there are none."""
    table = banks_table(store)
    rows = table.summary.set_index(["method", "benchmark", "seed"])
    kept = rows.loc[("neuromodnet", "p-digits", 0)]
    assert kept["bytes_per_task"] == 4 * (64 + 64 + 64 + 3)
    assert (kept["tasks"], kept["shared_bytes"]) == (3, 0)
    assert kept["bytes"] > 3 * kept["bytes_per_task"]
    assert "keep_weights" in rows.loc[("stl", "p-digits", 3), "note"]
    assert len(table.notes) == 2


def test_the_command_prints_and_writes_both(store: Store, crwn: Crwn) -> None:
    """Tables in the store's report; progress on standard error."""
    listed = crwn("contexts", store.address)
    assert (listed.code, listed.err) == (0, "")
    assert "task-inference" not in listed.out
    asked = crwn("contexts", store.address, "--infer", "--images", "32", "--where", "method=supsup")
    assert asked.code == 0
    assert "supsup FC64 on p-digits, seed 0: 1 of 1" in asked.err
    assert "binary search, superposed masks" in asked.out
    assert {"contexts.md", "task-inference.csv"} <= {path.name for path in (Path(store.address) / "report").iterdir()}
