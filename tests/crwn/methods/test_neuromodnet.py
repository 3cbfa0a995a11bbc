"""NeuroModNet's pretrained mode against two tasks in a plain loop that forms the weights a (R * c).

The mode without pretraining is in test_references.py, with its gradients by hand.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from crwn import backbone, contexts, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.methods.neuromodnet import NeuroModNet, NeuroModNetSpec
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_UPDATES, BATCH_SIZE, RATE, FIRST_RATE = 6, 32, 0.01, 0.002


def trial(method: NeuroModNetSpec) -> TrialSpec:
    return TrialSpec(
        method=method,
        benchmark=RotatedSpec(base="digits", num_tasks=2, step_degrees=90),
        scale="FC12",
        seed=1,
        training=TrainingSpec(learning_rate=RATE, updates_per_task=NUM_UPDATES, batch_size=BATCH_SIZE, dtype="float64"),
    )


def turned(digits: Datasets, part: str, task: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [N, d] after so many quarter turns, and labels [N]."""
    split = getattr(digits.load("digits"), part)
    upright = (torch.from_numpy(split.images[:, 0]).double() / 255 - DIGITS.mean[0]) / DIGITS.std[0]
    return torch.rot90(upright, task, dims=(1, 2)).flatten(1), torch.from_numpy(split.labels)


def context(task: int, name: str, size: int) -> torch.Tensor:
    """U(-1, 1) from the task's stream, in single precision."""
    unit = seeding.numpy_generator(1, "state", task, f"{name}.context").random(size, dtype=np.float32)
    return torch.from_numpy(2 * unit - 1).double().requires_grad_()


def test_pretraining_learns_the_weights_first_and_then_contexts(digits: Datasets) -> None:
    """The first task trains R, c and a at its own rate; the second a fresh c and a over the R that it left."""
    spec = trial(NeuroModNetSpec(pretrained=True, first_task_rate=FIRST_RATE))
    result = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)
    kept = contexts.load(result.contexts).tensors
    assert len(kept) == 9
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    weights = {name: torch.tensor(array, dtype=torch.float64).requires_grad_() for name, array in arrays.items()}

    for task in range(2):
        c = {name: context(task, name, weight.shape[1]) for name, weight in weights.items()}
        a = {name: torch.ones((), dtype=torch.float64, requires_grad=True) for name in weights}

        def network(
            images: torch.Tensor, c: dict[str, torch.Tensor] = c, a: dict[str, torch.Tensor] = a
        ) -> torch.Tensor:
            first, second, third = (a[name] * (weight * c[name]) for name, weight in weights.items())
            return functional.relu(functional.relu(images @ first.T) @ second.T) @ third.T

        trained = [*c.values(), *a.values(), *(weights.values() if task == 0 else ())]
        optimizer = torch.optim.RMSprop(trained, lr=FIRST_RATE if task == 0 else RATE)
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
        images, labels = turned(digits, "test", task)
        with torch.no_grad():
            logits = network(images)
        assert row.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-8)
        assert row.accuracy == (logits.argmax(dim=1) == labels).double().mean().item()
        for name, weight in weights.items():
            torch.testing.assert_close(kept[f"{name}.context"][task], c[name].detach(), rtol=1e-8, atol=1e-12)
            torch.testing.assert_close(kept[f"{name}.strength"][task], a[name].detach(), rtol=1e-8, atol=1e-12)
            torch.testing.assert_close(kept[f"shared.{name}.weight"], weight.detach(), rtol=1e-8, atol=1e-12)
    assert result.rows[2].loss == result.rows[0].loss


@pytest.mark.parametrize(("modulation", "constant"), [("local", "strength"), ("global", "context")])
def test_pretraining_goes_with_every_modulation(digits: Datasets, modulation: str, constant: str) -> None:
    """What is not modulated stays at its start, in the first task too; the weights are learned."""
    pretrained = trial(NeuroModNetSpec(pretrained=True, first_task_rate=FIRST_RATE, modulation=modulation))
    result = run_trial(pretrained, data=digits, backbones=backbone.draw, keep_weights=True)
    kept = contexts.load(result.contexts).tensors
    arrays = backbone.draw(pretrained.blueprint().backbone).arrays
    for name, array in arrays.items():
        assert not torch.equal(kept[f"shared.{name}.weight"], torch.tensor(array, dtype=torch.float64))
        if constant == "strength":
            assert (kept[f"{name}.strength"] == 1).all()
        else:
            starts = torch.stack([context(task, name, array.shape[1]).detach() for task in range(2)])
            assert torch.equal(kept[f"{name}.context"], starts)


def test_pretraining_starts_where_no_pretraining_does() -> None:
    """Both modes draw the same weights from the same distribution: the ablation compares learning alone."""
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=36)
    plain, pretrained = (NeuroModNetSpec(pretrained=choice) for choice in (False, True))
    drawn = plain.blueprint("FC8", problem, 5).backbone
    assert drawn == pretrained.blueprint("FC8", problem, 5).backbone
    for spec, first in ((plain, 0.01), (pretrained, 1e-4)):
        method = NeuroModNet(spec, plain_surroundings("FC8", problem, backbone=backbone.draw(drawn).arrays))
        assert [method.rate(segment, 0.01) for segment in range(2)] == [first, 0.01]


def test_pretraining_needs_a_second_task() -> None:
    """With one task, there would be nothing to prepare for; without pretraining, one task is enough."""
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=1)
    with pytest.raises(ValueError, match=r"^pretrained: .*2.*1"):
        NeuroModNetSpec(pretrained=True).blueprint("FC8", problem, 0)
    assert NeuroModNetSpec().blueprint("FC8", problem, 0).params_per_task == 64 + 8 + 8 + 3
