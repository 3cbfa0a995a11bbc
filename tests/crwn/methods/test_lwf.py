"""LwF against a plain loop."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from crwn import backbone, seeding
from crwn.benchmarks.sequential import SequentialSpec
from crwn.data import Datasets
from crwn.methods.lwf import LwFSpec
from crwn.spec import TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods import plainly
from tests.crwn.methods.plainly import BATCH_SIZE, NUM_UPDATES, RATE, SEED

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_TASKS, TEMPERATURE, WARM_UP, DECAY = 3, 3.0, 100, 0.01


def trial(method: LwFSpec) -> TrialSpec:
    """Three pairs of digits: six updates in float64 each, with weight decay."""
    training = TrainingSpec(
        learning_rate=RATE,
        optimizer="sgd",
        weight_decay=DECAY,
        updates_per_task=NUM_UPDATES,
        batch_size=BATCH_SIZE,
        dtype="float64",
    )
    benchmark = SequentialSpec(base="digits", first=NUM_TASKS)
    return TrialSpec(method=method, benchmark=benchmark, scale="FC12", seed=SEED, training=training)


@pytest.mark.parametrize("alpha", [2.0, 0.0])
def test_lwf_keeps_the_old_scores(alpha: float, digits: Datasets) -> None:
    """The head warms up on the new pair alone; the teacher has that head; its roots of softmaxes are made to sum to 1.

    So mammoth writes it. Weight decay is of the updates, not of the warm-up.
    """
    spec = trial(LwFSpec(alpha=alpha, temperature=TEMPERATURE, warm_up_batch=WARM_UP))
    split, network = digits.load("digits").train, plainly.network_of(spec)
    for task in range(NUM_TASKS):
        chosen = torch.from_numpy(split.labels // 2 == task)
        images = (torch.from_numpy(split.images).double() / 255).flatten(1)[chosen]
        labels = torch.from_numpy(split.labels)[chosen]
        teacher = warmed_up(network, images, labels, task) if task else None
        order = seeding.numpy_generator(SEED, "batches", task, 0).permutation(len(labels))
        for step in range(NUM_UPDATES):
            batch = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            scores = network(images[batch])
            loss = functional.cross_entropy(scores[:, : 2 * task + 2], labels[batch])
            if teacher is not None:
                with torch.no_grad():
                    taught = smooth(teacher(images[batch])[:, : 2 * task])
                loss = loss - alpha * (taught * smooth(scores[:, : 2 * task]).log()).sum(dim=1).mean()
            loss = loss + DECAY / 2 * sum(parameter.square().sum() for parameter in network.parameters())
            plainly.descend(network, loss)
    plainly.assert_same(run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True), network)


def smooth(scores: torch.Tensor) -> torch.Tensor:
    """Softmaxes to the power of 1/T, made to sum to 1 again."""
    roots = scores.softmax(dim=1) ** (1 / TEMPERATURE)
    return roots / roots.sum(dim=1, keepdim=True)


def warmed_up(network: nn.Sequential, images: torch.Tensor, labels: torch.Tensor, task: int) -> nn.Sequential:
    """Train the head for a pass over the task, and copy the network."""
    head = network[4]
    order = seeding.numpy_generator(SEED, "segment", "warm-up", task).permutation(len(labels))
    for batch in torch.from_numpy(order).split(WARM_UP):
        with torch.no_grad():
            features = network[:4](images[batch])
        plainly.descend(head, functional.cross_entropy(head(features)[:, 2 * task :][:, :2], labels[batch] - 2 * task))
    return copy.deepcopy(network)


def test_lwf_learns_with_products_in_bfloat16(digits: Datasets) -> None:
    """The head warms up in the precision that it is stored in, about as in float32."""
    single = trial(LwFSpec())
    kinds = {dtype: dataclasses.replace(single.training, dtype=dtype) for dtype in ("float32", "bfloat16")}
    trials = (dataclasses.replace(single, training=training) for training in kinds.values())
    expected, found = (run_trial(spec, data=digits, backbones=backbone.draw).rows for spec in trials)
    losses = [[row.loss for row in rows] for rows in (expected, found)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
