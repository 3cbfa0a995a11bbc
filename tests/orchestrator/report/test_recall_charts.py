"""Recall of the tasks learned so far: numbers from a trial's tests, and the figure."""

from __future__ import annotations

import dataclasses

import pytest

from crwn.benchmarks import PRESETS
from crwn.benchmarks.items import ItemsSpec
from crwn.methods.finetune import FinetuneSpec
from crwn.spec import TrainingSpec
from crwn.testing import write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.report import recall_charts, series
from orchestrator.report.frames import read_trials
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.store import Store

ITEMS = dataclasses.replace(PRESETS["items-digits"], num_tasks=3)  # type: ignore[type-var]  # a frozen spec


def trial(seed: int, benchmark: ItemsSpec) -> TrialSpec:
    training = TrainingSpec(learning_rate=0.1, optimizer="sgd", epochs_per_task=1, batch_size=50)
    return TrialSpec(method=FinetuneSpec(), benchmark=benchmark, scale="FC16", seed=seed, training=training)


@pytest.mark.parametrize("what", ["gross", "memorised"])
def test_the_sum_and_the_number_of_recalled_tasks(store: Store, what: str) -> None:
    """Of two seeds: sums of accuracies; made-up answers are spread evenly, so that nothing beats chance but by hits."""
    for seed, accuracy in ((0, 0.5), (1, 0.7)):
        write_finished(store, trial(seed, ITEMS), accuracy)
        write_finished(store, trial(seed, dataclasses.replace(ITEMS, rounds=2)), accuracy)
    trials = read_trials(store)
    in_turn = trials[~trials["stream"]]
    assert len(in_turn) == 2
    ids = dict(zip(in_turn["seed"], in_turn["trial_id"], strict=True))
    cell = ManifestCell(method="plain", variant="", scale="FC16", benchmark="items", trials=ids, params_per_task=1.0)
    manifest = Manifest(name="small", cells=(cell,))
    values = series.recalled_so_far(manifest, trials)
    assert values["tasks_learned"].tolist() == [1, 2, 3]
    assert values["gross"].tolist() == pytest.approx([0.6, 1.2, 1.8])
    assert values["n"].tolist() == [2, 2, 2]
    assert values["memorised"].iloc[0] == 0  # one task alone is told from nothing
    chart = recall_charts.recall_so_far("small", "items", values, {"plain": "finetune"}, what=what)
    axes = chart.draw().axes[0]
    assert axes.get_ylabel() == recall_charts.RECALLED[what]
    assert axes.lines[1].get_ydata() == pytest.approx(values[what].to_numpy())


def test_what_is_not_in_turn_has_no_curve(store: Store) -> None:
    """Where items are trained again, tests are by update; the end is known."""
    write_finished(store, trial(0, dataclasses.replace(ITEMS, rounds=2)), 0.5)
    trials = read_trials(store)
    cell = ManifestCell(method="plain", variant="", scale="FC16", benchmark="items", trials={0: trials["trial_id"][0]})
    assert series.recalled_so_far(Manifest(name="small", cells=(cell,)), trials).empty
    assert trials["worst_task"].tolist() == [0.5]
    assert trials["gross_memory"].tolist() == pytest.approx([1.5])


def test_before_and_after_are_in_one_figure(store: Store) -> None:
    """One look per method, the line before without markers; both benchmarks are in the figure's numbers."""
    cells = []
    for name, benchmark, accuracy in (("once", ITEMS, 0.8), ("twice", dataclasses.replace(ITEMS, rounds=2), 0.4)):
        spec = trial(0, benchmark)
        write_finished(store, spec, accuracy)
        cells.append(ManifestCell(method="plain", variant="", scale="FC16", benchmark=name, trials={0: spec.trial_id}))
    manifest = Manifest(name="small", cells=tuple(cells))
    values = series.final_accuracies(manifest, read_trials(store))
    chart = recall_charts.before_and_after("small", "twice", values, {"plain": "finetune"})
    before, after = chart.draw().axes[0].lines
    assert before.get_ydata() == pytest.approx([80] * 3)
    assert after.get_ydata() == pytest.approx([40] * 3)
    assert before.get_color() == after.get_color()
    assert (before.get_marker(), after.get_marker()) == ("", "<")
    assert set(chart.values["benchmark"]) == {"once", "twice"}
