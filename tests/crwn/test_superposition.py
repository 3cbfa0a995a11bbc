"""Finding a task's mask in a superposition of all masks."""

from __future__ import annotations

import pytest
import torch

from crwn import backbone, contexts
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.permuted import PermutedSpec
from crwn.contexts import ContextBank
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods.supsup import SupSupSpec
from crwn.spec import TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.test_contexts import run
from tests.refusals import refused


@pytest.fixture(scope="module")
def masks(digits: Datasets) -> ContextBank:
    """Five permutations of digits, learned."""
    spec = TrialSpec(
        method=SupSupSpec(),
        benchmark=PermutedSpec(base="digits", num_tasks=5),
        scale="FC256",
        seed=0,
        training=TrainingSpec(learning_rate=3e-3, updates_per_task=150),
    )
    return contexts.load(run_trial(spec, data=digits, backbones=backbone.draw).contexts)


def images_of(bank: ContextBank, digits: Datasets, task: int, number: int) -> torch.Tensor:
    spec = bank.trial.benchmark
    tasks = BENCHMARKS[spec.kind].build(spec, digits.load(spec.base), 0, torch.device("cpu"))
    return tasks.test_split(task).images[:number]


def test_the_slope_is_that_of_the_entropy(masks: ContextBank, digits: Datasets) -> None:
    """Against finite differences, in float64, of a network written out here."""
    images = images_of(masks, digits, 1, 16)
    arrays = {
        name: torch.tensor(array).double()
        for name, array in backbone.draw(masks.trial.blueprint().backbone).arrays.items()
    }
    own = {
        name: torch.tensor([[byte >> bit & 1 for byte in row for bit in range(8)] for row in packed.tolist()])
        for name, packed in masks.tensors.items()
    }

    def entropy(alpha: torch.Tensor) -> float:
        normalisation = masks.trial.benchmark.normalisation()
        hidden = normalisation(images[None], torch.float64)[0]
        for number, (name, weight) in enumerate(arrays.items()):
            mixed = (alpha[:, None] * own[f"{name}.mask"][:, : weight.numel()]).sum(dim=0).view_as(weight)
            hidden = hidden @ (weight * mixed).T
            hidden = hidden.relu() if number < 2 else hidden
        shares = hidden.softmax(dim=1)
        return float(-(shares * shares.log()).sum(dim=1).mean())

    middle, step = torch.full((5,), 0.2, dtype=torch.float64), 1e-6
    expected = [
        -(entropy(middle + step * torch.eye(5)[task]) - entropy(middle - step * torch.eye(5)[task])) / (2 * step)
        for task in range(5)
    ]
    found = masks.infer_task(images, by="one-shot")
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("by", ["one-shot", "binary"])
def test_the_mask_of_a_batch_is_found(masks: ContextBank, digits: Datasets, by: str) -> None:
    """At least four of five permutations of a small data set are identified; chance gives one."""
    found = [
        int(masks.infer_task(images_of(masks, digits, task, 128), by=by).argmax())  # type: ignore[arg-type]
        for task in range(5)
    ]
    assert sum(answer == task for task, answer in enumerate(found)) >= 4


def test_a_binary_search_ends_with_one(masks: ContextBank, digits: Datasets) -> None:
    """Of five tasks, two are dropped, then one, then one; scores are distinct, and higher for later rounds."""
    scores = masks.infer_task(images_of(masks, digits, 2, 32), by="binary").sort().values.tolist()
    assert [int(score) for score in scores] == [0, 0, 1, 2, 3]
    assert len(set(scores)) == 5


def test_contexts_are_not_found_so(digits: Datasets) -> None:
    """A superposition of contexts resembles no task's network: the message says what to use."""
    bank = contexts.load(run("neuromodnet", digits)[0].contexts)
    with refused(InvalidError, "no-masks", says=["neuromodnet", "entropy"]):
        bank.infer_task(torch.zeros(4, 64, dtype=torch.uint8), by="one-shot")


def test_a_normalised_network_has_a_superposition_too(digits: Datasets) -> None:
    """A ResNet's masks, with the batch's own statistics."""
    spec = TrialSpec(
        method=SupSupSpec(),
        benchmark=PermutedSpec(base="digits", num_tasks=2),
        scale="nf2",
        seed=0,
        training=TrainingSpec(learning_rate=1e-3, updates_per_task=2),
    )
    bank = contexts.load(run_trial(spec, data=digits, backbones=backbone.draw).contexts)
    scores = bank.infer_task(images_of(bank, digits, 0, 8), by="one-shot")
    assert bool(scores.isfinite().all())
    assert scores[0] != scores[1]
