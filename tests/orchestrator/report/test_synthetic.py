"""Tables of a store with known numbers, written by the real writer, to the last digit printed.

Two methods and the variants of a third, two benchmarks of four tasks, three seeds. One seed is missing, one trial
failed, one cell is mixed, and one trial was begun and not finished.
"""

from __future__ import annotations

import math
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from crwn.testing import Conditions, new_store, tiny_trial, write_finished, write_sweep
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.report.frames import asked_frame, read_trials
from orchestrator.report.pivots import pivot_table
from orchestrator.report.printable import write
from orchestrator.report.tables import Choice, tables_of
from orchestrator.store.address import open_files
from orchestrator.store.attempts import Attempt, AttemptError
from orchestrator.store.schemas import TASKS_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Cell
from tests.older_records import make_older
from tests.refusals import refused
from tests.said import differs, several_results

SEEDS = (0, 1, 2)
TASKS = 4
MODULATION = {"full": "local+global", "local": "local"}


def spec(method: str, variant: str, benchmark: str, seed: int) -> TrialSpec:
    """A trial."""
    settings = {"modulation": MODULATION[variant]} if variant else {}
    preset = {"rotated": "r-digits", "permuted": "p-digits"}[benchmark]
    return tiny_trial(method, seed=seed, benchmark=preset, num_tasks=TASKS, **settings)


def finals(method: str, variant: str, benchmark: str, seed: int) -> list[float]:
    """The accuracies of a trial's tasks: of 360 images each, none like another."""
    stream = np.random.default_rng([*map(ord, method + variant + benchmark), seed])
    return (stream.integers(250, 350, size=TASKS) / 360).tolist()


CELLS = [
    (method, variant, benchmark)
    for method, variant in (("supsup", ""), ("psp", ""), ("neuromodnet", "full"), ("neuromodnet", "local"))
    for benchmark in ("rotated", "permuted")
]
MISSING, FAILED, MIXED, BEGUN = (
    ("psp", "", "rotated", 1),
    ("psp", "", "permuted", 2),
    ("neuromodnet", "local", "permuted", 2),
    ("supsup", "", "permuted", 0),
)

DEVICES = "numerics.device is cpu (seeds 0, 1), cuda (seed 2)"
"""What the mixed cell is told to differ in."""


def trial_id(method: str, variant: str, benchmark: str, seed: int) -> str:
    """Its id."""
    return spec(method, variant, benchmark, seed).trial_id


@pytest.fixture
def filled(tmp_path: Path, known: Path) -> Store:
    """A copy of the store."""
    return Store(shutil.copytree(known, tmp_path / "store"))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store, which no test changes."""
    store = new_store(tmp_path_factory.mktemp("known") / "store")
    for names in CELLS:
        for seed in SEEDS:
            key = (*names, seed)
            if key not in (MISSING, FAILED, BEGUN):
                conditions = Conditions(device="cuda" if key == MIXED else "cpu")
                write_finished(store, spec(*key), finals(*key), conditions)
    error = AttemptError(type="RuntimeError", message="training diverged\nand more")
    store.unfinished.write_attempts(trial_id(*FAILED), [Attempt(host="here", error=error)])
    store.unfinished.write_attempts(trial_id(*BEGUN), [Attempt(host="here")])
    store.folder(trial_id(*BEGUN)).joinpath(TASKS_FILE).write_bytes(b"PAR1 half of a rec")
    cells = [
        Cell(
            method=method,
            variant=variant,
            scale="FC16",
            benchmark=f"{benchmark} digits",
            trials=tuple(spec(method, variant, benchmark, seed) for seed in SEEDS),
            base="full" if variant else None,
        )
        for method, variant, benchmark in CELLS
    ]
    write_sweep(store, cells, name="known")
    return store.root


def averages(method: str, variant: str, benchmark: str, seeds: tuple[int, ...] = SEEDS) -> list[float]:
    """By hand: the accuracy of each seed."""
    return [sum(finals(method, variant, benchmark, seed)) / TASKS for seed in seeds]


def shown(values: list[float], seeds: str) -> str:
    """By hand: what the table prints of these accuracies."""
    deviation = f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "-"
    return f"{100 * statistics.fmean(values):.2f} ± {deviation} {seeds}"


def test_every_cell_is_what_its_trials_are(filled: Store) -> None:
    """Means and deviations by hand; what is missing, failed or mixed is no mean over the rest."""
    table = tables_of([filled])[0]
    rows = {(row["method"], row["variant"]): row for row in table.table.to_dict("records")}
    assert rows["supsup", ""]["rotated digits"] == shown(averages("supsup", "", "rotated"), "(n=3)")
    assert rows["supsup", ""]["permuted digits"] == shown(averages("supsup", "", "permuted", (1, 2)), "(2/3)")
    assert rows["psp", ""]["rotated digits"] == shown(averages("psp", "", "rotated", (0, 2)), "(2/3)")
    assert rows["psp", ""]["permuted digits"] == shown(averages("psp", "", "permuted", (0, 1)), "(2/3)")
    full = averages("neuromodnet", "full", "permuted")
    assert rows["neuromodnet", "full"]["permuted digits"] == shown(full, "(n=3)")
    assert rows["neuromodnet", "local"]["permuted digits"] == "mixed (n=3)"
    assert list(table.notes) == [
        "psp FC16 on permuted digits: failed: seed 2: RuntimeError: training diverged",
        f"neuromodnet local FC16 on permuted digits: mixed, so no mean: {DEVICES}.",
    ]
    cells = table.summary.set_index(["method", "variant", "benchmark"])
    for column in ("accuracy", "sd", "ci95", "forgetting", "train_seconds_per_task", "trained_per_task"):
        assert math.isnan(cells.loc[("neuromodnet", "local", "permuted digits"), column]), column
    assert cells.loc[("psp", "", "rotated digits"), ["missing_seeds", "failed_seeds"]].tolist() == ["1", ""]
    assert cells.loc[("psp", "", "permuted digits"), ["missing_seeds", "failed_seeds"]].tolist() == ["2", "2"]


def test_intervals_are_those_of_the_seeds(filled: Store) -> None:
    """Every digit of them, against scipy's."""
    cells = tables_of([filled])[0].summary.set_index(["method", "variant", "benchmark"])
    for names, seeds in ((("supsup", "", "rotated"), SEEDS), (("psp", "", "rotated"), (0, 2))):
        values = averages(*names, seeds)
        low, high = stats.t.interval(0.95, len(values) - 1, statistics.fmean(values), stats.sem(values))
        cell = cells.loc[(*names[:2], f"{names[2]} digits")]
        assert cell["accuracy"] - cell["ci95"] == pytest.approx(low, rel=1e-9)
        assert cell["accuracy"] + cell["ci95"] == pytest.approx(high, rel=1e-9)


def test_an_ablation_shows_differences_paired_by_seed(filled: Store) -> None:
    """Mean, deviation, interval, n and p by hand; nothing where a side has no mean."""
    table = tables_of([filled])[1]
    assert table.name == "known.ablations"
    rows = {row["benchmark"]: row for row in table.table.to_dict("records")}
    local = np.array([finals("neuromodnet", "local", "rotated", seed) for seed in SEEDS])
    full = np.array([finals("neuromodnet", "full", "rotated", seed) for seed in SEEDS])
    test = stats.ttest_rel(local.mean(axis=1), full.mean(axis=1))
    low, high = test.confidence_interval(0.95)
    by_seed = 100 * (local - full).mean(axis=1)
    by_task = (local - full).mean(axis=0)
    over_tasks = stats.permutation_test((by_task,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert rows["rotated digits"] == {
        "method": "neuromodnet",
        "variant": "local",
        "scale": "FC16",
        "benchmark": "rotated digits",
        "against": "neuromodnet full FC16",
        "difference": f"{by_seed.mean():+.2f} ± {by_seed.std(ddof=1):.2f} (n=3)",
        "95 % interval": f"{100 * low:+.2f} to {100 * high:+.2f}",
        "p": f"{test.pvalue:.2g}",
        "p (Holm)": f"{test.pvalue:.2g}",
        "tasks above": f"{(by_task > 0).sum()}/4",
        "p over tasks": f"{over_tasks:.2g}",
        "p over tasks (Holm)": f"{over_tasks:.2g}",
    }
    assert rows["permuted digits"]["difference"] == "not compared (0/3)"
    assert list(table.notes) == [
        f"neuromodnet local FC16 on permuted digits: not compared: this cell is mixed: {DEVICES}."
    ]


def test_a_comparison_takes_the_seeds_that_both_have(filled: Store) -> None:
    """Two of three: seed 1 of PSP is missing. Holm's correction is for all that could be compared."""
    table = next(table for table in tables_of([filled], Choice(against="supsup")) if "against" in table.name)
    rows = table.summary.set_index(["method", "variant", "benchmark"])
    differences = [
        statistics.fmean(finals("psp", "", "rotated", seed)) - statistics.fmean(finals("supsup", "", "rotated", seed))
        for seed in (0, 2)
    ]
    cell = rows.loc[("psp", "", "rotated digits")]
    assert (cell["n"], cell["asked"]) == (2, 3)
    assert cell["difference"] == pytest.approx(statistics.fmean(differences), rel=1e-9)
    assert cell["p"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-6)
    smallest = rows["p"].min()
    known = rows["p"].notna().sum()
    assert rows["p_holm"].min() == pytest.approx(min(1, known * smallest))


def test_a_pivot_of_two_stores_takes_a_trial_once_and_refuses_what_differs(filled: Store, tmp_path: Any) -> None:
    """The same trial in both counts once; with another result it is no mean."""
    other = Store(tmp_path / "other")
    other.create()
    key = ("supsup", "", "rotated", 0)
    write_finished(other, spec(*key), finals(*key))
    choice = Choice(rows=("method", "variant"), columns="benchmark")
    before = tables_of([filled], choice)[0]
    assert tables_of([filled, other], choice)[0].table.equals(before.table)
    rows = before.table.set_index(["method", "variant"])
    assert rows.loc[("supsup", ""), "r-digits"] == shown(averages("supsup", "", "rotated"), "(n=3)")
    assert rows.loc[("psp", ""), "r-digits"] == shown(averages("psp", "", "rotated", (0, 2)), "(2/3)")
    write_finished(other, spec(*key), 0.5)
    mixed = tables_of([filled, other], choice)[0]
    assert mixed.table.set_index(["method", "variant"]).loc[("supsup", ""), "r-digits"] == "mixed (n=3)"
    assert "supsup, , r-digits".replace(", ,", ",") in mixed.notes[0]
    assert several_results(0) in mixed.notes[0]


def test_what_a_pivot_would_mix_is_chosen(filled: Store) -> None:
    """By method alone the variants fall together: no mean, and how to choose; with a condition there is one."""
    table = tables_of([filled], Choice(rows=("method",)))[0]
    rows = table.table.set_index("method")
    assert rows.loc["neuromodnet", "r-digits"] == "mixed (n=3)"
    assert differs("method.modulation", "local+global (seeds 0, 1, 2)", "local (seeds 0, 1, 2)") in "".join(table.notes)
    for option in ("--where NAME=VALUE", "--rows"):
        assert option in table.notes[-1]
    chosen = tables_of([filled], Choice(rows=("method",), where=("method.modulation=local", "seed=1")))[0].table
    values = averages("neuromodnet", "local", "rotated", (1,))
    assert chosen.set_index("method").loc["neuromodnet", "r-digits"] == shown(values, "(n=1)")
    split = tables_of([filled], Choice(rows=("method", "training.learning_rate"), value="params_per_task"))[0].table
    assert split[split["method"] == "psp"]["r-digits"].tolist() == [
        f"{spec(*MISSING).blueprint().params_per_task:,.0f} (2/3)"
    ]


def test_a_pivot_of_a_sweep_has_its_labels(filled: Store) -> None:
    """And its cells are those of the sweep's own table."""
    table = tables_of([filled], Choice(rows=("method", "variant"), sweep="known"))[0].table
    own = tables_of([filled])[0].table
    assert table["rotated digits"].tolist() == own["rotated digits"].tolist()


def test_a_value_may_be_called_like_a_column_of_names(filled: Store) -> None:
    """Then its own column says whose value it is."""
    trials = asked_frame(filled.manifests(), read_trials(filled)).replace({"method": {"psp": "scale"}})
    made = pivot_table(trials[trials["benchmark"] == "r-digits"], ["scale"], "method", "params_per_task")
    assert list(made.table.columns)[:1] == ["scale"]
    assert "method=scale" in made.table.columns


def test_a_condition_leaves_the_other_trials_missing(filled: Store) -> None:
    """Of a sweep's table too, which then has a mean where it was mixed."""
    table = tables_of([filled], Choice(where=("numerics.device=cpu",)))[0].table
    local = table[table["variant"] == "local"]["permuted digits"].item()
    assert local == shown(averages("neuromodnet", "local", "permuted", (0, 1)), "(2/3)")


@pytest.mark.parametrize(
    ("choice", "code", "facts"),
    [
        (Choice(rows=("metod",)), "unknown-name", ["--rows", "'metod'", "'method'?"]),
        (Choice(rows=("method",), columns="benchmrk"), "unknown-name", ["--cols", "'benchmrk'", "'benchmark'?"]),
        (Choice(rows=("method",), value="acuracy"), "unknown-name", ["--value: ", "'acuracy'", "'accuracy'?"]),
        (Choice(rows=("method", "method")), "name-repeated", ["--rows", "method, method"]),
        (Choice(rows=("method",), where=("scale=FC17",)), "unknown-name", ["--where scale: ", " FC16;", "'FC17'"]),
        (Choice(rows=("method",), where=("scale",)), "not-name-value", ["--where: ", "NAME=VALUE", "'scale'"]),
        (Choice(sweep="knwn"), "unknown-name", ["--sweep: ", " known;", "'knwn'"]),
        (Choice(against="sup"), "unknown-name", ["--against: ", "'sup'"]),
        (Choice(rows=("method",), paper="hong2022"), "options-conflict", ["--rows", "--paper"]),
        (Choice(value="accuracy", against="psp"), "options-conflict", ["--value", "--against"]),
        (Choice(paper="hong"), "unknown-name", ["--paper", "'hong'", "'hong2022'?"]),
    ],
)
def test_a_choice_that_is_wrong_is_refused(filled: Store, choice: Choice, code: str, facts: list[str]) -> None:
    """With the nearest name."""
    with refused(UserError, code, says=facts):
        tables_of([filled], choice)


def test_several_stores_are_for_tables_over_trials(filled: Store) -> None:
    """A sweep is in one store."""
    with refused(UserError, "several-stores", says=[" 2;", "--rows", "--paper"]):
        tables_of([filled, filled])
    with refused(UserError, "several-stores", says=["--sweep: ", " 2"]):
        tables_of([filled, filled], Choice(rows=("method",), sweep="known"))


@pytest.mark.parametrize(
    "choice", [Choice(), Choice(rows=("method",)), Choice(paper="hong2022"), Choice(sweep="known")]
)
def test_an_empty_store_is_refused(store: Store, choice: Choice) -> None:
    """There is nothing to make any table of."""
    with refused(UserError, "store-empty", says="crwn run"):
        tables_of([store], choice)


def test_a_store_of_failed_trials_has_tables_without_numbers(filled: Store) -> None:
    """Every cell says that no seed is finished."""
    for trial in filled.trial_ids():
        filled.folder(trial).joinpath(TRIAL_FILE).unlink()
    for choice in (Choice(), Choice(rows=("method", "variant")), Choice(against="psp")):
        for table in tables_of([filled], choice):
            cells = {
                cell
                for name in table.table
                for cell in table.table[name]
                if name.endswith("digits") or name == "difference"
            }
            assert cells <= {"- (0/3)"}, table.name


def test_trials_of_an_older_manifest_are_placed_by_their_cell(filled: Store) -> None:
    """Without a spec in it, a finished seed says what the others are; where there is none, a note counts them."""
    manifest = filled.manifest("known")
    filled.write_manifest(replace(manifest, cells=tuple(replace(cell, spec=None) for cell in manifest.cells)))
    rows = tables_of([filled], Choice(rows=("method", "variant")))[0].table.set_index(["method", "variant"])
    assert rows.loc[("psp", ""), "r-digits"].endswith("(2/3)")
    for seed in SEEDS:
        filled.folder(trial_id("supsup", "", "rotated", seed)).joinpath(TRIAL_FILE).unlink()
    table = tables_of([filled], Choice(rows=("method", "variant")))[0]
    assert table.notes[-1].startswith("In no cell: 3 trials that are not finished")


def test_a_record_of_a_newer_version_is_refused_and_an_older_one_read(filled: Store) -> None:
    """A newer major version may mean something else; what an older one lacks is not known."""
    path = filled.folder(trial_id("supsup", "", "rotated", 0)) / TRIAL_FILE
    make_older(path, lambda table: table.drop_columns(["forgetting"]))
    cells = tables_of([filled])[0].summary
    first = cells[(cells["method"] == "supsup") & (cells["benchmark"] == "rotated digits")].iloc[0]
    assert first["accuracy"] == pytest.approx(statistics.fmean(averages("supsup", "", "rotated")))
    assert math.isnan(first["forgetting"])
    make_older(path, version="3.0")
    with refused(UserError, "newer-version", says=[" 2 ", " 3.0;"]):
        tables_of([filled])


def test_a_trial_without_its_tests_is_refused(filled: Store) -> None:
    """If the file was removed, there is no accuracy of single tasks, and none is invented."""
    filled.folder(trial_id("supsup", "", "rotated", 0)).joinpath(TASKS_FILE).unlink()
    with refused(UserError, "file-missing", says="tasks.parquet: "):
        tables_of([filled])


def test_files_have_every_digit_in_every_format(filled: Store, tmp_path: Any) -> None:
    """CSV and Parquet hold the same numbers; Markdown has the notes; nothing else is written."""
    write(tables_of([filled]), open_files(tmp_path / "tables"))
    names = sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert names == sorted(f"{name}.{ending}" for name in ("known", "known.ablations") for ending in _ENDINGS)
    numbers = pd.read_parquet(tmp_path / "tables" / "known.parquet")
    text = pd.read_csv(tmp_path / "tables" / "known.csv", keep_default_na=False, na_values={"accuracy": [""]})
    np.testing.assert_array_equal(numbers["accuracy"], text["accuracy"])
    assert "- psp FC16 on permuted digits: failed" in (tmp_path / "tables" / "known.md").read_text(encoding="utf-8")


_ENDINGS = ("md", "csv", "tex", "parquet")


def test_accuracies_by_task_are_those_that_were_tested(filled: Store) -> None:
    """After the last task and when learned, in the tasks' order; arrays for figures."""
    trials = read_trials(filled).set_index("trial_id")
    row = trials.loc[trial_id("psp", "", "rotated", 0)]
    assert row["final"].tolist() == row["learned"].tolist() == finals("psp", "", "rotated", 0)
    asked = asked_frame(filled.manifests(), trials.reset_index())
    assert (len(asked), int(asked["finished"].sum())) == (24, 21)
