"""STL against plain networks of torch's, one for each of two tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from crwn import backbone, contexts, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.methods.stl import STL, STLSpec
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_UPDATES, BATCH_SIZE, RATE = 6, 32, 0.003


def turned(digits: Datasets, part: str, task: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [N, d] after so many quarter turns, and labels [N]."""
    split = getattr(digits.load("digits"), part)
    upright = (torch.from_numpy(split.images[:, 0]).double() / 255 - DIGITS.mean[0]) / DIGITS.std[0]
    return torch.rot90(upright, task, dims=(1, 2)).flatten(1), torch.from_numpy(split.labels)


def test_stl_is_a_network_for_each_task(digits: Datasets) -> None:
    """Six updates of RMSProp each, from weights N(0, 2/fan_in) drawn from the task's own streams."""
    spec = TrialSpec(
        method=STLSpec(),
        benchmark=RotatedSpec(base="digits", num_tasks=2, step_degrees=90),
        scale="FC12",
        seed=1,
        training=TrainingSpec(learning_rate=RATE, updates_per_task=NUM_UPDATES, batch_size=BATCH_SIZE, dtype="float64"),
    )
    result = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)
    kept = contexts.load(result.contexts).tensors
    for task in range(2):
        layers = [nn.Linear(64, 12, bias=False), nn.Linear(12, 12, bias=False), nn.Linear(12, 10, bias=False)]
        network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).double()
        with torch.no_grad():
            for number, layer in enumerate(layers, start=1):
                stream = seeding.numpy_generator(1, "state", task, f"layer{number}.weight")
                unit = stream.standard_normal(tuple(layer.weight.shape), dtype=np.float32)
                layer.weight.copy_(torch.from_numpy(unit * np.float32((2 / layer.in_features) ** 0.5)))
        optimizer = torch.optim.RMSprop(network.parameters(), lr=RATE)
        images, labels = turned(digits, "train", task)
        order = seeding.numpy_generator(1, "batches", task, 0).permutation(len(labels))
        losses = []
        for step in range(NUM_UPDATES):
            chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            loss = functional.cross_entropy(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

        row = result.rows[task]
        assert row.curve[0].loss == pytest.approx(sum(losses) / NUM_UPDATES, rel=1e-9)
        for number, layer in enumerate(layers, start=1):
            weight = kept[f"layer{number}.weight"][task]
            torch.testing.assert_close(weight, layer.weight.detach(), rtol=1e-8, atol=1e-12)
        images, labels = turned(digits, "test", task)
        with torch.no_grad():
            logits = network(images)
        assert row.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-8)
        assert row.accuracy == (logits.argmax(dim=1) == labels).double().mean().item()


@pytest.mark.parametrize("gain", [2.0, 0.5])
def test_weights_start_as_the_gain_says(gain: float) -> None:
    """N(0, gain/fan_in): mean 0 and that deviation s to five sampling deviations, s/sqrt(n) and s/sqrt(2n)."""
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=5)
    surroundings = plain_surroundings("FC32", problem, dtype=torch.float64)
    state = STL(STLSpec(weight_gain=gain), surroundings).start(range(5))
    for name, fan_in in (("layer1", 64), ("layer2", 32), ("layer3", 32)):
        weight, deviation = state[f"{name}.weight"].detach(), (gain / fan_in) ** 0.5
        assert abs(weight.mean()) < 5 * deviation / weight.numel() ** 0.5
        assert abs(weight.std() - deviation) < 5 * deviation / (2 * weight.numel()) ** 0.5


def test_nothing_is_drawn_for_all_tasks() -> None:
    """A network of each task's own has no backbone, and the trial's fingerprint says so."""
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=5)
    drawn = backbone.draw(STLSpec().blueprint("FC32", problem, 0).backbone)
    assert dict(drawn.arrays) == {}
    assert drawn.fingerprint == "none"
    assert drawn.checked() is drawn
