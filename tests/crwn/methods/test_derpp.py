"""DER++ against a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from crwn import replay
from crwn.data import Datasets
from crwn.methods import derpp
from crwn.methods.derpp import DERPPSpec
from crwn.methods.protocol import Tensors
from tests.crwn.methods import plainly

pytestmark = pytest.mark.usefixtures("one_thread")

CAPACITY, REPLAYED = 50, 40


@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.3), (0.7, 0.0), (0.0, 0.3)])
def test_derpp_replays_scores_and_labels(alpha: float, beta: float, digits: Datasets) -> None:
    """Stored scores are from before the update that saw the image; the two draws are independent."""
    spec = DERPPSpec(buffer=CAPACITY, replay_batch=REPLAYED, alpha=alpha, beta=beta)
    buffer = plainly.Reservoir(CAPACITY)

    def update(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int, number: int) -> None:
        scores = network(images)
        loss = functional.cross_entropy(scores, labels)
        if buffer.kept:
            old_images, _, old_scores = buffer.draw("scores", number, REPLAYED)
            loss = loss + alpha * functional.mse_loss(network(old_images), old_scores)
            old_images, old_labels, _ = buffer.draw("labels", number, REPLAYED)
            loss = loss + beta * plainly.cross_entropy(network, old_images, old_labels)
        plainly.descend(network, loss)
        buffer.offer(number, images, labels, scores.detach())

    plainly.assert_same(plainly.run(spec, digits), plainly.learn(spec, digits, update))


def test_the_two_draws_differ(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every update but the first, before which nothing is stored."""
    draws: list[list[int]] = []
    draw = replay.draw

    def noting(state: Tensors, count: int, keys_K: torch.Tensor) -> replay.Drawn:
        drawn = draw(state, count, keys_K)
        draws.append(sorted(drawn.slots_R.tolist()))
        return drawn

    monkeypatch.setattr(derpp.replay, "draw", noting)
    plainly.run(DERPPSpec(buffer=CAPACITY, replay_batch=10), digits)
    assert len(draws) == 2 * 17
    assert all(one != other for one, other in zip(draws[::2], draws[1::2], strict=True))
