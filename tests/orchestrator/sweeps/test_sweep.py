"""A sweep as values: what is part of a trial, and what the store keeps of a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store.manifests import Manifest
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Resources, Sweep
from tests.orchestrator.sweeps.texts import EXAMPLE

SweepFile = Callable[..., Path]
Load = Callable[..., Sweep]


def test_resources_are_no_part_of_a_trial(load: Load) -> None:
    """The same trial on other resources is the same trial."""
    plain, shared = load(), load(resources="{gpus: 0.5, cpus: 2}")
    assert shared.resources == Resources(gpus=0.5, cpus=2.0)
    assert plain.trials == shared.trials


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 4])
def test_gpus_are_a_share_or_a_whole_number(load: Load, gpus: float) -> None:
    """None at all, a share of one, one, or several."""
    assert load(resources=f"{{gpus: {gpus}}}").resources.gpus == gpus


def test_the_manifest_is_the_same_whenever_it_is_made(sweep_file: SweepFile) -> None:
    """Equal files give equal JSON, which says what the store keeps of a sweep."""
    first, second = (load_sweep(sweep_file(EXAMPLE)) for _ in range(2))
    content = first.manifest().to_json_bytes()
    assert content == second.manifest().to_json_bytes()
    manifest = json.loads(content)
    assert Manifest.from_json(content, name="example", place="example.json") == first.manifest()
    assert set(manifest) == {"format", "name", "reference", "cells", "sha256"}
    assert manifest["reference"] == "supsup"
    assert manifest["cells"][3] == {
        "method": "neuromodnet",
        "variant": "both",
        "scale": "FC256",
        "benchmark": "r-mnist",
        "continual": True,
        "validation": 0,
        "params_per_task": 1299.0,
        "ratio": 1_299 / 268_800,
        "spec": {
            name: value
            for name, value in json.loads(first.cells[3].trials[0].canonical_json()).items()
            if name != "seed"
        },
        "trials": {str(trial.seed): trial.trial_id for trial in first.cells[3].trials},
    }
    assert first.manifest().trial_ids == [trial.trial_id for trial in first.trials]


def test_a_ratio_is_to_the_reference_on_the_same_benchmark(load: Load) -> None:
    """BatchE shares its weights among the tasks: 64 * 16 + 16 * 16 + 16 * 10 of them, and 138 factors of its own."""
    sweep = load(
        benchmarks="{few: {preset: r-digits, num_tasks: 2}, many: {preset: r-digits, num_tasks: 10}}",
        methods="{supsup: {scales: [FC16]}, batche: {scales: [FC16]}}",
        reference="batche",
    )
    weights, factors = 64 * 16 + 16 * 16 + 16 * 10, (64 + 16) + (16 + 16) + (16 + 10)
    few, many = weights / 2 + factors, weights / 10 + factors
    assert [sweep.ratio(cell) for cell in sweep.cells] == [weights / few, weights / many, 1.0, 1.0]
    assert [cell.ratio for cell in sweep.manifest().cells] == [weights / few, weights / many, 1.0, 1.0]


def test_without_a_reference_there_is_no_ratio(load: Load) -> None:
    """Neither in the sweep nor in its manifest."""
    sweep = load()
    assert [sweep.ratio(cell) for cell in sweep.cells] == [None]
    manifest = sweep.manifest()
    assert (manifest.reference, manifest.cells[0].ratio) == (None, None)


def test_the_manifest_says_what_is_no_test_set_and_not_continual(load: Load) -> None:
    """So that a table can say it without the sweep file."""
    sweep = load(
        benchmarks="{r-digits: , held out: {preset: r-digits, validation: 100}}",
        methods="{mtl: {scales: [FC16]}, psp: {scales: [FC16]}}",
    )
    cells = sweep.manifest().cells
    assert [cell.continual for cell in cells] == [False, False, True, True]
    assert [cell.validation for cell in cells] == [0, 100, 0, 100]


def test_how_a_trial_is_run_and_shown_is_no_part_of_it(load: Load) -> None:
    """Groups, kept weights and a reference leave every trial, and so its identity, as it is."""
    plain = load(methods="{neuromodnet: {scales: [FC16]}, supsup: {scales: [FC16]}}")
    other = load(
        methods="{neuromodnet: {scales: [FC16], group_size: 2}, supsup: {scales: [FC16]}}",
        keep_weights="true",
        reference="supsup",
    )
    assert other.keep_weights
    assert not plain.keep_weights
    assert [trial.trial_id for trial in other.trials] == [trial.trial_id for trial in plain.trials]
