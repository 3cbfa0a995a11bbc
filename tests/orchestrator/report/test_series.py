"""The data of figures, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.report import series
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.recorded_spec import RecordedSpec

CELL = {"method": "mine", "variant": "", "scale": "FC16", "benchmark": "b"}


def sweep(*cells: dict[str, Any]) -> Manifest:
    """A sweep of cells that differ from `CELL` in what is given."""
    return Manifest(name="s", cells=tuple(ManifestCell(**{**CELL, "trials": {}, **cell}) for cell in cells))


MANIFEST = sweep(
    {"trials": {0: "a0", 1: "a1"}},
    {"scale": "FC32", "trials": {0: "b0"}},
    {"scale": "FC64", "trials": {0: "not there"}},
)


def row(trial: str, seed: int, test: tuple[int, int], accuracy: float, losses: tuple[float, ...] = ()) -> Any:
    """A test of a task, with its curve where it was just learned."""
    curve = [{"step": 50 * (i + 1), "loss": loss, "accuracy": 0.5} for i, loss in enumerate(losses)]
    task, learned = test
    names = {"trial_id": trial, "method": "kind", "variant": "v", "scale": "s", "benchmark": "kind-base", "seed": seed}
    return {**names, "task": task, "tasks_learned": learned, "update": None, "accuracy": accuracy, "curve": curve}


TASKS = pd.DataFrame(
    [
        row("b0", 0, (0, 1), 0.3),
        row("a1", 1, (1, 2), 0.8, (1.0, 0.2)),
        row("a1", 1, (0, 1), 0.9, (3.0, 0.4)),
        row("a1", 1, (0, 2), 0.6),
        row("a0", 0, (0, 1), 0.7, (1.0, 0.0)),
        row("a0", 0, (1, 2), 0.5, (1.0, 0.2)),
        row("a0", 0, (0, 2), 0.4),
        row("another sweep's", 0, (0, 1), 0.1),
    ]
)


TRIALS = pd.DataFrame(
    [
        {"trial_id": "b0", "final": np.array([0.3]), "seen": np.array([0.3]), "grouping": "any"},
        {"trial_id": "a1", "final": np.array([0.6, 0.8]), "seen": np.array([0.9, 0.7]), "grouping": "one"},
        {"trial_id": "a0", "final": np.array([0.4, 0.5]), "seen": np.array([0.7, 0.45]), "grouping": "one"},
        {"trial_id": "another sweep's", "final": np.array([0.1]), "seen": np.array([0.1]), "grouping": "any"},
    ]
).assign(seed=[0, 1, 0, 0], independent=[True, False, False, True])


def test_final_accuracies_are_those_after_the_last_task() -> None:
    """By task, in the sweep's order and under its names; mean, deviation and interval over seeds."""
    found = series.final_accuracies(MANIFEST, TRIALS)
    assert found[["scale", "task", "accuracy", "n"]].to_numpy().tolist() == [
        ["FC16", 1, 0.5, 2],
        ["FC16", 2, 0.65, 2],
        ["FC32", 1, 0.3, 1],
    ]
    sd = np.std([0.4, 0.6], ddof=1)
    assert found["sd"].tolist()[:2] == pytest.approx([sd, np.std([0.5, 0.8], ddof=1)])
    low, high = stats.t.interval(0.95, 1, loc=0.5, scale=stats.sem([0.4, 0.6]))
    assert found["ci95"][0] == pytest.approx((high - low) / 2)
    assert np.isnan(found["sd"][2])
    assert np.isnan(found["ci95"][2])
    assert set(found["method"]) == {"mine"}


def test_the_accuracy_of_the_tasks_seen_so_far_is_over_seeds() -> None:
    """A point for each number of tasks after which all were tested; none of a cell that learns all at once."""
    found = series.seen_accuracies(MANIFEST, TRIALS)
    assert found[["scale", "tasks_learned", "n"]].to_numpy().tolist() == [
        ["FC16", 1, 2],
        ["FC16", 2, 2],
        ["FC32", 1, 1],
    ]
    assert found["accuracy"].tolist() == pytest.approx([0.8, 0.575, 0.3])
    assert found["sd"].tolist()[0] == pytest.approx(np.std([0.9, 0.7], ddof=1))
    gaps = TRIALS.assign(seen=[np.array([0.3]), np.array([np.nan, 0.7]), np.array([np.nan, 0.5]), np.array([0.1])])
    assert series.seen_accuracies(MANIFEST, gaps)["tasks_learned"].tolist() == [2, 1]
    together = series.seen_accuracies(MANIFEST, TRIALS.assign(grouping=["all", "one", "one", "any"]))
    assert set(together["scale"]) == {"FC16"}
    assert series.seen_accuracies(MANIFEST, TRIALS[:0]).empty


def test_a_stream_has_no_matrix() -> None:
    """Its tests are by update; those of other trials stay."""
    found = series.accuracy_matrices(MANIFEST, TRIALS, TASKS.assign(update=[7, *[None] * (len(TASKS) - 1)]))
    assert set(found["scale"]) == {"FC16"}


def test_curves_are_means_over_tasks_and_then_seeds() -> None:
    """A cell without curves has none."""
    found = series.learning_curves(MANIFEST, TASKS)
    assert found[["scale", "step", "n"]].to_numpy().tolist() == [["FC16", 50, 2], ["FC16", 100, 2]]
    assert found["loss"].tolist() == pytest.approx([(1.0 + 2.0) / 2, (0.1 + 0.3) / 2])
    assert series.learning_curves(MANIFEST, TASKS[:1]).empty


def test_matrices_are_of_all_that_is_known() -> None:
    """Where tasks interfere, what was tested and no more, also with two tasks; else what a test stands for."""
    found = series.accuracy_matrices(MANIFEST, TRIALS, TASKS)
    own = found[found["scale"] == "FC16"].set_index(["tasks_learned", "task"])["accuracy"]
    assert own.to_dict() == pytest.approx({(1, 1): 0.8, (2, 1): 0.5, (2, 2): 0.65})
    tests = pd.DataFrame([row("c", 0, (0, 1), 0.9), row("c", 0, (1, 2), 0.8), row("c", 0, (2, 3), 0.7)])
    trial = pd.DataFrame([{"trial_id": "c", "seed": 0, "final": np.array([0.9, 0.8, 0.7]), "independent": True}])
    manifest = sweep({"trials": {0: "c"}})
    implied = series.accuracy_matrices(manifest, trial, tests).set_index(["tasks_learned", "task"])["accuracy"]
    assert implied.to_dict() == {(1, 1): 0.9, (2, 1): 0.9, (2, 2): 0.8, (3, 1): 0.9, (3, 2): 0.8, (3, 3): 0.7}


def test_a_cell_without_a_mean_is_not_drawn() -> None:
    """As where its trials are of several kinds."""
    summary = pd.DataFrame({"benchmark": "b", "accuracy": [0.5, np.nan, 0.3]})
    assert [cell.scale for cell in series.drawn(MANIFEST, summary).cells] == ["FC16", "FC64"]


def test_of_many_cells_the_best_of_each_benchmark_are_drawn_in_the_sweeps_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More lines than colours and markers distinguish would be unreadable."""
    monkeypatch.setattr(series, "MAX_DRAWN", 2)
    accuracies = {"a": (0.5, 0.9, 0.7), "b": (0.1, 0.2, np.nan)}
    rows = [(benchmark, value) for benchmark, values in accuracies.items() for value in values]
    manifest = sweep(*({"benchmark": benchmark, "scale": str(value)} for benchmark, value in rows))
    found = series.drawn(manifest, pd.DataFrame(rows, columns=["benchmark", "accuracy"]))
    assert [cell.scale for cell in found.cells] == ["0.9", "0.7", "0.1", "0.2"]


def test_methods_are_known_by_their_kind() -> None:
    """From the spec that a manifest has of a cell; an older one has none."""
    spec = RecordedSpec({"method": {"kind": "supsup"}})
    manifest = sweep({"spec": spec}, {"method": "older"})
    assert series.kinds(manifest) == {"mine": "supsup", "older": "older"}


def test_a_sweep_without_results_has_empty_series() -> None:
    """No point, and no error."""
    assert series.final_accuracies(MANIFEST, TRIALS[:0]).empty
    assert series.learning_curves(MANIFEST, TASKS[:0]).empty
    assert series.accuracy_matrices(MANIFEST, TRIALS[:0], TASKS[:0]).empty
