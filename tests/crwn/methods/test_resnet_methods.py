"""Every method's ResNet against plain modules whose weights are written out by the method's formula, one task.

Two training steps and a test: scores, gradients to all that is trained, running statistics; and an update of Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from crwn import backbone
from crwn.data.base import Normalisation
from crwn.methods import METHODS
from crwn.methods.networks import Layer, resnet18
from crwn.methods.protocol import Method, Tensors
from crwn.optimizers import OPTIMIZERS
from crwn.spec import ProblemShape
from tests.crwn.methods.building import plain_surroundings
from tests.crwn.methods.test_networks import PlainResNet18

PROBLEM = ProblemShape(input_shape=(3, 9, 8), num_classes=3, num_tasks=2, labels_are_shared=False)
MAPS = 2
NORMALISATION = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
MEAN_C11, STD_C11 = (
    torch.tensor(numbers, dtype=torch.float64)[:, None, None] for numbers in (NORMALISATION.mean, NORMALISATION.std)
)
NETWORK = resnet18(PROBLEM, MAPS)

Weights = Callable[[Tensors, Tensors, str, Layer], torch.Tensor]


def modulated(state: Tensors, drawn: Tensors, name: str, layer: Layer) -> torch.Tensor:
    """a (R * c), c the same for every output."""
    return state[f"{name}.strength"][0] * drawn[name] * state[f"{name}.context"][0]


def masked(state: Tensors, drawn: Tensors, name: str, layer: Layer) -> torch.Tensor:
    """W times 1 for the largest scores by magnitude; the gradient to a magnitude is that to its 0 or 1."""
    share = min(0.5, 32 * (layer.shape[0] + layer.shape[1]) / math.prod(layer.shape))
    magnitudes = state[f"{name}.scores"][0].abs()
    least = magnitudes.flatten().sort(descending=True).values[math.ceil(share * magnitudes.numel()) - 1]
    mask = (magnitudes >= least).double()
    return drawn[name] * (mask + magnitudes - magnitudes.detach())


def rank_one(state: Tensors, drawn: Tensors, name: str, layer: Layer) -> torch.Tensor:
    """W * r s^T at every place of the kernel."""
    factors = torch.outer(state[f"{name}.r"][0], state[f"{name}.s"][0])
    return state[f"{name}.weight"] * factors.reshape(*factors.shape, *[1] * (len(layer.shape) - 2))


def signed(state: Tensors, drawn: Tensors, name: str, layer: Layer) -> torch.Tensor:
    """W * c, but the stem's W as it is."""
    return state[f"{name}.weight"] * (1 if name == "stem" else state[f"{name}.signs"][0])


def own(state: Tensors, drawn: Tensors, name: str, layer: Layer) -> torch.Tensor:
    """The task's own."""
    return state[f"{name}.weight"][0]


FORMULAS: dict[str, Weights] = {
    "neuromodnet": modulated,
    "supsup": masked,
    "batche": rank_one,
    "psp": signed,
    "stl": own,
}


def build(name: str) -> tuple[Method, Tensors]:
    """The method in double precision, and its drawn arrays."""
    spec = METHODS[name].spec()
    drawn = backbone.draw(spec.blueprint(f"nf{MAPS}", PROBLEM, 0).backbone).arrays
    arrays = {array: torch.from_numpy(values.copy()).double() for array, values in drawn.items()}
    surroundings = plain_surroundings(
        f"nf{MAPS}", PROBLEM, backbone=arrays, dtype=torch.float64, normalisation=NORMALISATION
    )
    return METHODS[name].build(spec, surroundings), arrays


@pytest.mark.parametrize("name", FORMULAS)
def test_a_resnet_computes_its_formula(name: str) -> None:
    """With what learning starts from, and again after Adam has moved it."""
    method, drawn = build(name)
    # BatchE's shared weights are trained with the first task, PSP's with every one.
    shared = {part: tensor.detach().clone().requires_grad_() for part, tensor in method.start_shared().items()}
    state = {**shared, **method.start([0])}
    trained = {part: tensor for part, tensor in state.items() if tensor.requires_grad}
    plain = PlainResNet18(MAPS, PROBLEM.num_classes, standard=False).double()
    modules = plain.by_layer()
    parameters = {id(parameter): key for key, parameter in plain.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        images = torch.randint(0, 256, (1, 6, *PROBLEM.input_shape), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, PROBLEM.num_classes, (6,), generator=generator)
        pixels = (images[0].double() / 255 - MEAN_C11) / STD_C11
        seen: dict[str, Any] = {}
        for layer_name, layer in NETWORK.layers.items():
            module, norm = modules[layer_name]
            seen[parameters[id(module.weight)]] = FORMULAS[name](state, drawn, layer_name, layer)
            if norm is not None and name == "stl":
                seen[parameters[id(norm.weight)]] = state[f"{layer_name}.gain"][0]
                seen[parameters[id(norm.bias)]] = state[f"{layer_name}.shift"][0]
        plain.train()
        expected = functional_call(plain, seen, (pixels,))
        expected_gradients = torch.autograd.grad(
            functional.cross_entropy(expected, labels), list(trained.values()), retain_graph=True
        )
        moved: dict[str, torch.Tensor] = {}
        scores = method.logits(state, images, training=True, moved=moved)
        state |= moved
        torch.testing.assert_close(scores[0], expected, rtol=1e-9, atol=1e-9)
        gradients = torch.autograd.grad(functional.cross_entropy(scores[0], labels), list(trained.values()))
        for part, found, wanted in zip(trained, gradients, expected_gradients, strict=True):
            torch.testing.assert_close(
                found, wanted, rtol=1e-7, atol=1e-9, msg=lambda text, part=part: f"{part}: {text}"
            )

        if name != "psp":
            for layer_name, (_, norm) in modules.items():
                if norm is not None:
                    torch.testing.assert_close(state[f"{layer_name}.running_mean"][0], norm.running_mean)
                    torch.testing.assert_close(state[f"{layer_name}.running_var"][0], norm.running_var)
            plain.eval()
        tested = functional_call(plain, seen, (pixels,))
        torch.testing.assert_close(method.logits(state, images)[0], tested, rtol=1e-9, atol=1e-9)

        with torch.no_grad():
            for tensor, gradient in zip(trained.values(), gradients, strict=True):
                OPTIMIZERS["adam"]({"tensor": tensor}, 1e-4, 0.0).step({"tensor": gradient}, 0.01)


@pytest.mark.parametrize("name", FORMULAS)
def test_what_is_kept_gives_the_same_scores(name: str) -> None:
    """Packed and unpacked, a learned task is tested as it was: masks, statistics and all."""
    method, _ = build(name)
    tasks = [0] if name == "psp" else [0, 1]  # PSP learns one at a time
    shared, state = method.start_shared(), method.start(tasks)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(tasks), 6, *PROBLEM.input_shape), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        moved: dict[str, torch.Tensor] = {}
        method.logits(shared | state, images, training=True, moved=moved)
        learned = {part: tensor.detach().clone() for part, tensor in (state | moved).items()}
        before = method.logits(shared | learned, images)
        kept = method.pack(learned)
        assert torch.equal(method.logits(shared | method.unpack(kept, tasks), images), before)
        last = {part: tensor[-1:] for part, tensor in kept.items()}
        alone = method.logits(shared | method.unpack(last, tasks[-1:]), images[-1:])
    torch.testing.assert_close(alone[0], before[-1], rtol=1e-9, atol=1e-9)
