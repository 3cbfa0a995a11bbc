"""Local, global, and both: each variant trains its own tensors and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from crwn import backbone, contexts
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.methods import METHODS
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.protocol import Method, Tensors
from crwn.methods.starts import modulated_counts
from crwn.spec import TrainingSpec
from crwn.trial import Finished, run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings

VARIANTS = {"local+global": {"context", "strength"}, "local": {"context"}, "global": {"strength"}}
"""What each trains."""

both_methods = pytest.mark.parametrize(("spec", "scale"), [(NeuroModNetSpec, "FC16"), (FlyNetSpec, "2d")])


def trial(method: Any, scale: str, learning_rate: float = 0.01) -> TrialSpec:
    return TrialSpec(
        method=method,
        benchmark=RotatedSpec(base="digits", num_tasks=2, step_degrees=90),
        scale=scale,
        seed=0,
        training=TrainingSpec(learning_rate=learning_rate, updates_per_task=20, batch_size=64, dtype="float64"),
    )


def build(spec: TrialSpec) -> Method:
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    surroundings = plain_surroundings(
        spec.scale,
        spec.benchmark.problem(),
        backbone=arrays,
        seed=spec.seed,
        dtype=torch.float64,
    )
    return METHODS[spec.method.kind].build(spec.method, surroundings)


def learn(spec: TrialSpec, data: Datasets) -> tuple[Finished, Tensors]:
    finished = run_trial(spec, data=data, backbones=backbone.draw)
    return finished, contexts.load(finished.contexts).tensors


@both_methods
@pytest.mark.parametrize("modulation", VARIANTS)
def test_a_variant_trains_what_it_says(digits: Datasets, spec: Any, scale: str, modulation: str) -> None:
    """Local leaves every strength at its start and moves every context, global the reverse; both move both."""
    trial_spec = trial(spec(modulation=modulation), scale)
    start = build(trial_spec).start([0, 1])
    _, learned = learn(trial_spec, digits)
    assert set(learned) == set(start)
    for name, tensor in learned.items():
        is_trained = name.rpartition(".")[2] in VARIANTS[modulation]
        assert start[name].requires_grad == is_trained, name
        assert torch.equal(tensor, start[name].detach()) != is_trained, name


@both_methods
def test_all_variants_start_alike(spec: Any, scale: str) -> None:
    """The ablation compares what is trained, not the starting points."""
    starts = [build(trial(spec(modulation=modulation), scale)).start([0, 1]) for modulation in VARIANTS]
    for name, tensor in starts[0].items():
        assert all(torch.equal(tensor, start[name]) for start in starts[1:])


@both_methods
def test_global_modulation_only_scales_the_logits(digits: Datasets, spec: Any, scale: str) -> None:
    """With positive strengths a network of ReLU without biases keeps its classes: accuracy stays the untrained one's.

    relu(a x) = a relu(x) for a > 0, so the strengths multiply all logits of an image by one positive number.
    """
    trial_spec = trial(spec(modulation="global"), scale, learning_rate=1e-3)
    finished, learned = learn(trial_spec, digits)
    strengths = [tensor for name, tensor in learned.items() if name.endswith(".strength")]
    assert all((tensor > 0).all() and (tensor != 1).all() for tensor in strengths)

    method, images = build(trial_spec), digits.load("digits").test
    pixels = torch.from_numpy(images.images).flatten(1)[None]
    with torch.no_grad():
        logits = method.logits(method.start([0]), pixels)[0]
    labels = torch.from_numpy(images.labels)
    untrained = (logits.argmax(dim=1) == labels).double().mean().item()
    assert finished.rows[0].accuracy == pytest.approx(untrained, abs=1 / 360 + 1e-9)
    assert finished.rows[0].loss < functional.cross_entropy(logits, labels).item()  # it did train


def test_counts_follow_the_variant() -> None:
    """Ten inputs in three layers: contexts and strengths trained, 13 numbers kept in any case."""
    assert modulated_counts(10, 3, "local+global") == (13, 13)
    assert modulated_counts(10, 3, "local") == (10, 13)
    assert modulated_counts(10, 3, "global") == (3, 13)
