"""Hooks of methods that tell no task read no value of a tensor, so that a GPU never waits for the host."""

from __future__ import annotations

import pytest
import torch

from crwn import backbone
from crwn.methods import METHODS
from crwn.methods.protocol import Tensors
from crwn.spec import ProblemShape
from tests.crwn.methods.building import lanes_of, plain_surroundings
from tests.methods import CASES

PROBLEM = ProblemShape(input_shape=(1, 8, 8), num_classes=4, num_tasks=2)


def is_plain(name: str) -> bool:
    """Whether it learns in turn without a task, on a plain network."""
    blueprint = CASES[name].blueprint()
    return blueprint.is_continual and "tasks" not in blueprint.needs


@pytest.mark.parametrize("scale", ["FC8", "nf2"])
@pytest.mark.parametrize("name", [name for name in CASES if is_plain(name)])
def test_every_hook_runs_on_tensors_without_values(name: str, scale: str) -> None:
    """On torch's meta tensors, which have shapes and types alone: two segments of two updates, end to end."""
    spec = CASES[name].method
    drawn = backbone.draw(spec.blueprint(scale, PROBLEM, 0).backbone).arrays
    method = METHODS[spec.kind].build(spec, plain_surroundings(scale, PROBLEM, backbone=drawn, device="meta"))
    state: Tensors = {**method.start_shared(), **method.start_memory()}
    trained = [key for key, tensor in state.items() if tensor.requires_grad]
    images = torch.empty(25, 1, 8, 8, dtype=torch.uint8, device="meta")
    labels = torch.empty(25, dtype=torch.int64, device="meta")
    for segment in range(2):
        lanes = lanes_of(images, labels, segment=segment)
        begun = method.begin(state, lanes.whole(), 0.1)
        state |= {key: tensor.requires_grad_(key in trained) for key, tensor in begun.items()}
        for step in range(2):
            batch = lanes.batch(step, rate=0.1, update=2 * segment + step)
            made = method.learn(state, batch)
            found = torch.autograd.grad(made.loss_G.sum(), [state[key] for key in trained])
            with torch.no_grad():
                gradients, adjusted = method.adjust(state, batch, dict(zip(trained, found, strict=True)))
            assert gradients.keys() == set(trained)
            state |= {**made.moved, **adjusted}
        state |= method.end(state, lanes.whole())
    assert {tensor.device.type for tensor in state.values()} == {"meta"}
    assert method.logits(state, images[None]).shape == (1, 25, 4)
