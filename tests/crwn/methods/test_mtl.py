"""MTL against a plain network of torch's, trained on two tasks in one loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from crwn import backbone, contexts, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.methods.mtl import MTLSpec
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_UPDATES, BATCH_SIZE, RATE = 6, 32, 0.003


def turned(digits: Datasets, part: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Of two tasks the normalised images [N, d], upright and after a quarter turn; the labels [N] of both."""
    split = getattr(digits.load("digits"), part)
    upright = (torch.from_numpy(split.images[:, 0]).double() / 255 - DIGITS.mean[0]) / DIGITS.std[0]
    return [torch.rot90(upright, task, dims=(1, 2)).flatten(1) for task in range(2)], torch.from_numpy(split.labels)


def test_mtl_is_one_network_on_a_mixture(digits: Datasets) -> None:
    """Twice 6 updates of RMSProp on batches of both tasks concatenated, without task identity."""
    spec = TrialSpec(
        method=MTLSpec(),
        benchmark=RotatedSpec(base="digits", num_tasks=2, step_degrees=90),
        scale="FC12",
        seed=1,
        training=TrainingSpec(learning_rate=RATE, updates_per_task=NUM_UPDATES, batch_size=BATCH_SIZE, dtype="float64"),
    )
    result = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)

    layers = [nn.Linear(64, 12, bias=False), nn.Linear(12, 12, bias=False), nn.Linear(12, 10, bias=False)]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).double()
    drawn = backbone.draw(spec.blueprint().backbone).arrays
    with torch.no_grad():
        for number, layer in enumerate(layers, start=1):
            layer.weight.copy_(torch.tensor(drawn[f"layer{number}"]))
    optimizer = torch.optim.RMSprop(network.parameters(), lr=RATE)
    images, labels = turned(digits, "train")
    both_images, both_labels = torch.cat(images), torch.cat([labels, labels])
    order = seeding.numpy_generator(1, "batches", "mixed", 0).permutation(len(both_labels))
    losses, accuracies = [], []
    for step in range(2 * NUM_UPDATES):
        chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        assert {place // len(labels) for place in chosen} == {0, 1}
        logits = network(both_images[chosen])
        loss = functional.cross_entropy(logits, both_labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        accuracies.append((logits.argmax(dim=1) == both_labels[chosen]).double().mean().item())

    (point,) = result.rows[0].curve
    assert point.loss == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    assert point.accuracy == pytest.approx(sum(accuracies) / len(accuracies), abs=1e-12)
    kept = contexts.load(result.contexts).tensors
    assert len(kept) == 3
    for number, layer in enumerate(layers, start=1):
        torch.testing.assert_close(kept[f"shared.layer{number}.weight"], layer.weight.detach(), rtol=1e-8, atol=1e-12)
    images, labels = turned(digits, "test")
    for row, task_images in zip(result.rows, images, strict=True):
        with torch.no_grad():
            logits = network(task_images)
        assert row.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-8)
        assert row.accuracy == (logits.argmax(dim=1) == labels).double().mean().item()


@pytest.mark.parametrize(("gain", "variance"), [(2.0, 2 / 784), (0.5, 0.5 / 784)])
def test_weights_start_as_the_gain_says(gain: float, variance: float) -> None:
    """N(0, gain/fan_in) in each layer."""
    problem = ProblemShape(input_shape=(1, 28, 28), num_classes=10, num_tasks=36)
    first, second, third = MTLSpec(weight_gain=gain).blueprint("FC256", problem, 0).backbone.arrays
    assert first.parameter == pytest.approx(variance**0.5, rel=1e-15)
    assert second.parameter == third.parameter == pytest.approx((gain / 256) ** 0.5, rel=1e-15)
    assert {array.distribution for array in (first, second, third)} == {"normal"}
