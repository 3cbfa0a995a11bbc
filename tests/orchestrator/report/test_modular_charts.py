"""Which units each class uses: numbers and figures of real trials."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest

import crwn
from crwn import modularity
from crwn.benchmarks.sequential import SequentialSpec
from crwn.methods.dynamos import DynamosSpec
from crwn.methods.finetune import FinetuneSpec
from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.report import modular_charts
from orchestrator.report.results import Results
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.store import Store

BENCHMARK = SequentialSpec(base="digits", channels=3)
TRAINING = TrainingSpec(learning_rate=0.07, optimizer="sgd", batch_size=10, updates_per_task=20)
METHODS = {"gated": DynamosSpec(buffer=20, warm_up=2, stores="all", wrong_factor=1.0), "plain": FinetuneSpec()}
SCALE = "dynamos-nf4"

pytestmark = pytest.mark.slow(reason="learns three trials, and permutes classes ten thousand times for each of two")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Store]:
    """Two seeds of a method that shows its units, one of another that does not."""
    address, cells = tmp_path_factory.mktemp("modular") / "store", []
    for name, method in METHODS.items():
        first = TrialSpec(method=method, benchmark=BENCHMARK, scale=SCALE, seed=0, training=TRAINING)
        trials = [dataclasses.replace(first, seed=seed) for seed in range(2 if name == "gated" else 1)]
        crwn.run(trials, store=address, executor="inline")
        ids = {trial.seed: trial.trial_id for trial in trials}
        cells.append(ManifestCell(method=method.kind, variant=name, scale=SCALE, benchmark="pairs", trials=ids))
    return Manifest(name="small", cells=tuple(cells)), Store.existing(address)


def test_the_share_kept_is_a_mean_over_units_and_seeds(learned: tuple[Manifest, Store]) -> None:
    """Of every layer and class; a method that shows no units has no rows."""
    manifest, store = learned
    kept, _ = modular_charts.units(manifest, store)
    assert set(kept["variant"]) == {"gated"}
    assert len(kept) == 4 * 10
    assert set(kept["n"]) == {2}
    banks = [Results(store).contexts(trial_id) for trial_id in manifest.cells[0].trials.values()]
    layer = "stage2.block1.conv1"
    expected = np.mean([bank.activity[layer].double().mean(dim=1).numpy() for bank in banks], axis=0)
    assert kept.loc[kept["layer"] == layer, "share"].to_numpy() == pytest.approx(expected)


def test_pairs_are_those_of_the_measure(learned: tuple[Manifest, Store]) -> None:
    """Overlap, similarity, Spearman and p of each seed, from the trial's own gates and test images."""
    manifest, store = learned
    _, pairs = modular_charts.units(manifest, store)
    results, trial_id = Results(store), manifest.cells[0].trials[1]
    bank, tests = results.contexts(trial_id), [results.test_set(trial_id, task) for task in range(5)]
    images, labels = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*tests, strict=True))
    means = np.stack([images[labels == label].mean(axis=0).ravel() for label in range(10)])
    gates = np.concatenate([tensor.numpy() for tensor in bank.activity.values()], axis=1)
    measured = modularity.measure(gates, means, BENCHMARK.classes(0))
    own = pairs[pairs["seed"] == 1]
    assert len(own) == 45
    assert own["same_task"].sum() == 5
    assert set(own["p"]) == {measured.p}
    assert own["spearman"].to_numpy() == pytest.approx(measured.spearman)
    assert own["overlap"].to_numpy() == pytest.approx(measured.overlap[own["one"], own["other"]])
    assert own.loc[own["same_task"], "overlap"].mean() == pytest.approx(measured.same_task)


def test_without_the_images_there_is_no_likeness(learned: tuple[Manifest, Store]) -> None:
    """The share of open gates is still shown."""
    with mock.patch.object(Results, "test_set", side_effect=UserError("data-refused", "not here")):
        kept, pairs = modular_charts.units(*learned)
    assert len(kept) == 40
    assert pairs.empty


def test_both_are_drawn(learned: tuple[Manifest, Store]) -> None:
    """A matrix with a number in every place, and a point per pair, those of one task filled."""
    kept, pairs = modular_charts.units(*learned)
    kinds = {"dynamos": "dynamos"}
    shares, overlap = modular_charts.modular_charts("small", kept, pairs, kinds)
    axes = shares.draw().axes[0]
    assert axes.images[0].get_array().shape == (4, 10)
    assert len(axes.texts) == 40
    others, together = overlap.draw().axes[0].lines
    assert (len(others.get_xdata()), len(together.get_xdata())) == (40, 5)
    assert others.get_markerfacecolor() == "none"
    assert "Mantel" in overlap.caption


def test_a_store_without_such_units_has_no_such_charts(learned: tuple[Manifest, Store]) -> None:
    """No file is read, and no figure made."""
    manifest, store = learned
    plain = Manifest(name="plain", cells=manifest.cells[1:])
    with mock.patch.object(Results, "contexts", side_effect=AssertionError):
        kept, pairs = modular_charts.units(plain, store)
    assert list(modular_charts.modular_charts("plain", kept, pairs, {})) == []
