"""BatchE against two tasks in a plain loop that forms the weights W * r s^T: the first trains W too, the second not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from crwn import backbone, contexts, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.faults import InvalidError
from crwn.methods.batche import BatchE, BatchESpec
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_UPDATES, BATCH_SIZE, RATE, FIRST_RATE = 6, 32, 0.01, 0.002


def turned(digits: Datasets, part: str, task: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [N, d] after so many quarter turns, and labels [N]."""
    split = getattr(digits.load("digits"), part)
    upright = (torch.from_numpy(split.images[:, 0]).double() / 255 - DIGITS.mean[0]) / DIGITS.std[0]
    return torch.rot90(upright, task, dims=(1, 2)).flatten(1), torch.from_numpy(split.labels)


def signs(task: int, name: str, size: int) -> torch.Tensor:
    """Plus or minus one by the bits of the task's stream."""
    bits = seeding.numpy_generator(1, "state", task, name).integers(0, 2, size=size, dtype=np.int8)
    return torch.where(torch.from_numpy(bits) == 1, 1.0, -1.0).double().requires_grad_()


def test_batche_learns_weights_first_and_then_factors(digits: Datasets) -> None:
    """The first task trains W, r and s at its own rate; the second r and s alone, from signs of its own, at the other.

    Both are tested through the weights W * r s^T, the first again at the end.
    """
    spec = TrialSpec(
        method=BatchESpec(first_task_rate=FIRST_RATE),
        benchmark=RotatedSpec(base="digits", num_tasks=2, step_degrees=90),
        scale="FC12",
        seed=1,
        training=TrainingSpec(learning_rate=RATE, updates_per_task=NUM_UPDATES, batch_size=BATCH_SIZE, dtype="float64"),
    )
    result = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)
    kept = contexts.load(result.contexts).tensors
    assert len(kept) == 9
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    weights = {name: torch.tensor(array, dtype=torch.float64).requires_grad_() for name, array in arrays.items()}

    for task in range(2):
        r = {name: signs(task, f"{name}.r", weight.shape[0]) for name, weight in weights.items()}
        s = {name: signs(task, f"{name}.s", weight.shape[1]) for name, weight in weights.items()}

        def network(
            images: torch.Tensor, r: dict[str, torch.Tensor] = r, s: dict[str, torch.Tensor] = s
        ) -> torch.Tensor:
            first, second, third = (weight * torch.outer(r[name], s[name]) for name, weight in weights.items())
            return functional.relu(functional.relu(images @ first.T) @ second.T) @ third.T

        trained = [*r.values(), *s.values(), *(weights.values() if task == 0 else ())]
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
            torch.testing.assert_close(kept[f"{name}.r"][task], r[name].detach(), rtol=1e-8, atol=1e-12)
            torch.testing.assert_close(kept[f"{name}.s"][task], s[name].detach(), rtol=1e-8, atol=1e-12)
            torch.testing.assert_close(kept[f"shared.{name}.weight"], weight.detach(), rtol=1e-8, atol=1e-12)
    assert [(row.task, row.tasks_learned) for row in result.rows] == [(0, 1), (1, 2), (0, 2)]
    assert result.rows[2].loss == result.rows[0].loss


def test_weights_start_kaiming_normal() -> None:
    """N(0, 2/fan_in) in each layer."""
    problem = ProblemShape(input_shape=(1, 28, 28), num_classes=10, num_tasks=36)
    arrays = BatchESpec().blueprint("FC256", problem, 0).backbone.arrays
    assert [array.parameter for array in arrays] == pytest.approx([(2 / n) ** 0.5 for n in (784, 256, 256)], rel=1e-15)
    assert {array.distribution for array in arrays} == {"normal"}


def test_the_first_task_has_its_own_rate() -> None:
    """1e-4 by the paper, 0.01 for the others."""
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=36)
    for spec, first in ((BatchESpec(), 1e-4), (BatchESpec(first_task_rate=0.5), 0.5)):
        arrays = backbone.draw(spec.blueprint("FC8", problem, 0).backbone).arrays
        method = BatchE(spec, plain_surroundings("FC8", problem, backbone=arrays))
        assert [method.rate(segment, 0.01) for segment in range(3)] == [first, 0.01, 0.01]
    assert BatchESpec().training("FC256").learning_rate == 0.01
    with refused(InvalidError, "too-small", says=["first_task_rate: ", "0.0"]):
        BatchESpec(first_task_rate=0)
