"""SupSup's masks as they are kept."""

from __future__ import annotations

import torch

from crwn import backbone
from crwn.methods.supsup import SupSup, SupSupSpec
from crwn.spec import ProblemShape
from tests.crwn.methods.building import plain_surroundings

PROBLEM = ProblemShape(input_shape=(1, 2, 2), num_classes=3, num_tasks=2)


def build() -> SupSup:
    arrays = backbone.draw(SupSupSpec().blueprint("FC3", PROBLEM, 0).backbone).arrays
    surroundings = plain_surroundings("FC3", PROBLEM, backbone=arrays)
    return SupSup(SupSupSpec(), surroundings)


def test_masks_are_packed_row_by_row_from_the_lowest_bit() -> None:
    """Worked out by hand for a layer of 3x3: nine bits are two bytes; a score of zero, of either sign, is in the mask.

    The first task keeps entries 0, 2, 5 and 8: 1 + 4 + 32 and 1. The second keeps none.
    """
    method = build()
    state = {name: torch.full_like(scores, -1.0) for name, scores in method.start([0, 1]).items()}
    state["layer2.scores"][0] = torch.tensor([[0.0, -1.0, -0.0], [-1.0, -1.0, 2.0], [-1e-30, -1.0, 1e-30]])
    kept = method.pack(state)
    assert kept["layer2.mask"].tolist() == [[37, 1], [0, 0]]
    assert kept["layer2.mask"].dtype == torch.uint8
    assert {name: tensor.shape[1] for name, tensor in kept.items()} == {
        "layer1.mask": 2,  # 3x4
        "layer2.mask": 2,  # 3x3
        "layer3.mask": 2,  # 3x3
    }


def test_unpacked_masks_are_those_that_were_packed() -> None:
    """Scores of +1 where the bit is set, -1 elsewhere, in the shape of the layer; the padding bits are dropped."""
    method = build()
    state = {name: scores.detach() for name, scores in method.start([0, 1]).items()}
    unpacked = method.unpack(method.pack(state), [0, 1])
    for name, scores in state.items():
        assert unpacked[name].shape == scores.shape
        assert torch.equal(unpacked[name], torch.where(scores >= 0, 1.0, -1.0))
