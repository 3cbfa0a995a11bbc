"""Joint training against a plain loop."""

from __future__ import annotations

import pytest
import torch

from crwn import seeding
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.methods.joint import JointSpec
from tests.crwn.methods import plainly

pytestmark = pytest.mark.usefixtures("one_thread")


def test_joint_is_one_network_on_a_mixture(digits: Datasets) -> None:
    """It makes as many updates as all tasks together, on batches of their pooled images, without task identity."""
    split, network = digits.load("digits").train, plainly.network_of(plainly.trial(JointSpec()))
    upright = (torch.from_numpy(split.images[:, 0]).double() / 255 - DIGITS.mean[0]) / DIGITS.std[0]
    images = torch.cat([torch.rot90(upright, task, dims=(1, 2)).flatten(1) for task in range(plainly.NUM_TASKS)])
    labels = torch.from_numpy(split.labels).repeat(plainly.NUM_TASKS)
    order = seeding.numpy_generator(plainly.SEED, "batches", "mixed", 0).permutation(len(labels))
    for chosen in torch.from_numpy(order).split(plainly.BATCH_SIZE)[: plainly.NUM_TASKS * plainly.NUM_UPDATES]:
        plainly.descend(network, plainly.cross_entropy(network, images[chosen], labels[chosen]))
    plainly.assert_same(plainly.run(JointSpec(), digits), network)
