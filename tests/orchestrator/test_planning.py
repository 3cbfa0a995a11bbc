"""What a sweep would run: the table for people and the JSON for programs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from crwn.spec import TrialSpec
from orchestrator.planning import as_json, petaflop, show
from orchestrator.store import Store, TrialRecord
from orchestrator.sweep import Sweep, load_sweep

SweepFile = Callable[..., Path]
Trial = Callable[..., TrialSpec]
Record = Callable[..., TrialRecord]

# The methods of the paper on its first benchmark; their parameters a task by hand:
# NeuroModNet FC256 has a context of 784 + 256 + 256 numbers and 3 strengths; FlyNet 10d has 7,840 units and a strength;
# SupSup FC256 has a score for each of 784 * 256 + 256 * 256 + 256 * 10 weights.
PAPER = """\
name: paper
seeds: [0, 1, 2]
benchmarks: [r-mnist]
methods:
  neuromodnet: {scales: [FC256]}
  flynet: {scales: [10d]}
  supsup: {scales: [FC256]}
"""
PARAMETERS = {"neuromodnet": 1_299, "flynet": 7_841, "supsup": 268_800}


def printed(sweep: Sweep, store: Store, width: int = 10_000) -> str:
    """What is shown of a plan without a terminal."""
    file = io.StringIO()
    show(sweep, store, Console(file=file, width=width, force_terminal=False))
    return file.getvalue()


def cells_of(text: str) -> list[list[str]]:
    """The rows of a table with the text of each cell."""
    return [[part.strip() for part in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


@pytest.fixture
def paper(sweep_file: SweepFile) -> Sweep:
    return load_sweep(sweep_file(PAPER))


@pytest.fixture
def absent(tmp_path: Path) -> Store:
    """A store that no run has made yet."""
    return Store(tmp_path / "absent")


def test_every_cell_has_a_row(paper: Sweep, absent: Store) -> None:
    """Names, tasks, updates, seeds, what is done, and the exact counts of parameters."""
    rows = cells_of(printed(paper, absent))
    assert [row[:-1] for row in rows] == [
        [method, "", scale, "r-mnist", "0 1 2", "36", "1000", "0/3", *[f"{PARAMETERS[method]:,}"] * 3]
        for method, scale in (("neuromodnet", "FC256"), ("flynet", "10d"), ("supsup", "FC256"))
    ]


def test_the_totals_follow(paper: Sweep, absent: Store) -> None:
    """How many trials, where they go, how much work, and that nothing happened."""
    text = printed(paper, absent)
    total = 3 * sum(petaflop(cell.trials[0]) for cell in paper.cells)
    assert text.startswith("paper: 9 trials")
    assert f"9 trials to run, 0 done in {absent.root}" in text
    assert f"{total:.3g} PFLOP of training left; nothing was started" in text


def test_finished_trials_are_counted_and_cost_nothing_more(paper: Sweep, store: Store, record: Record) -> None:
    """The row says how many are done; the work left is that of the others."""
    for trial in paper.cells[0].trials[:2]:
        store.write_record(trial.trial_id, record(trial.trial_id))
    text = printed(paper, store)
    assert [row[7] for row in cells_of(text)] == ["2/3", "0/3", "0/3"]
    assert "7 trials to run, 2 done" in text
    first, *others = (petaflop(cell.trials[0]) for cell in paper.cells)
    assert f"{first + 3 * sum(others):.3g} PFLOP of training left" in text


def test_the_work_of_a_trial_by_hand(trial: Trial) -> None:
    """NeuroModNet FC16 on digits: two operations a weight, forward and back, 128 images, 5 updates, 2 tasks."""
    num_weights = 64 * 16 + 16 * 16 + 16 * 10
    assert petaflop(trial()) == pytest.approx(2 * 2 * num_weights * 128 * 5 * 2 / 1e15)


def test_a_plan_is_neither_cut_nor_wrapped_without_a_terminal(sweep_file: SweepFile, absent: Store) -> None:
    """A label of three hundred letters stands whole in one line of a log file."""
    label = "label-" * 50
    sweep = load_sweep(sweep_file(PAPER.replace("neuromodnet: {", f"{label}: {{method: neuromodnet, ")))
    text = printed(sweep, absent)
    assert cells_of(text)[0][0] == label
    assert "…" not in text


def test_numbers_stay_whole_in_a_terminal(paper: Sweep, absent: Store) -> None:
    """Eighty columns are what a terminal has at first: a count that is broken over two lines reads as another."""
    text = printed(paper, absent, width=80)
    for whole in ("1000", "1,299", "7,841", "268,800", "0/3"):
        assert whole in text


def test_labels_are_shown_as_they_are(sweep_file: SweepFile, absent: Store) -> None:
    """Brackets in a label are part of it, not instructions to the display."""
    labels = ["[red]digits[/red]", "[/closed]", "lr [local]"]
    benchmarks = "".join(f"\n  '{label}': {{preset: r-digits, num_tasks: {i + 1}}}" for i, label in enumerate(labels))
    sweep = load_sweep(sweep_file(PAPER.replace(" [r-mnist]", benchmarks)))
    assert [row[3] for row in cells_of(printed(sweep, absent))[:3]] == labels


def test_the_json_has_every_trial(paper: Sweep, store: Store, record: Record) -> None:
    """Identity, names, whether it is finished, counts and the resolved spec: enough to run it elsewhere."""
    done = paper.trials[1].trial_id
    store.write_record(done, record(done))
    plan = json.loads(as_json(paper, store))
    assert (plan["sweep"], plan["store"]) == ("paper", str(store.root))
    assert [entry["trial_id"] for entry in plan["trials"]] == [trial.trial_id for trial in paper.trials]
    assert [entry["trial_id"] for entry in plan["trials"] if entry["finished"]] == [done]
    for entry, trial in zip(plan["trials"], paper.trials, strict=True):
        assert entry["spec"] == json.loads(trial.canonical_json())
        assert (entry["method"], entry["variant"], entry["benchmark"]) == (trial.method.kind, "", "r-mnist")
        assert (entry["scale"], entry["seed"]) == (trial.scale, trial.seed)
        assert entry["params_per_task"] == PARAMETERS[trial.method.kind]
        assert entry["petaflop"] == petaflop(trial)
