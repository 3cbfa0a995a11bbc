"""Metaplasticity against plain references."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from crwn import backbone, contexts, seeding
from crwn.batches import Examples
from crwn.benchmarks.items import ItemsSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.contract import results, run
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.metaplastic import Metaplastic, MetaplasticSpec
from crwn.methods.protocol import Tensors
from crwn.nn.flexibility import plasticity
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial_spec import TrialSpec
from tests.crwn.methods import plainly
from tests.crwn.methods.building import lanes_of, plain_surroundings
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("one_thread")

TWO_INPUTS = ProblemShape(input_shape=(1, 1, 2), num_classes=2, num_tasks=3, scenario="domain")


def method_of(
    spec: MetaplasticSpec, problem: ProblemShape = TWO_INPUTS, scale: str = "FC1", seed: int = 0
) -> Metaplastic:
    blueprint = spec.blueprint(scale, problem, seed)
    arrays = backbone.draw(blueprint.backbone).arrays
    return Metaplastic(spec, plain_surroundings(scale, problem, backbone=arrays, seed=seed, dtype=torch.float64))


def examples(segment: int) -> Examples:
    return lanes_of(torch.zeros(4, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), segment=segment).whole()


# The rule


def test_two_weights_through_three_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked out by hand: f = 1/2 and 1, s = 2, a gradient of 1 twice per item, rate 1/4.

    The flexible weight moves by 1/2 per item. The other one by 1/2, by which it has reached alpha = 1 - tanh^2(1), so
    by 0.2099872 in the second item, and by half of 1 - tanh^2(1.4199743) in the third.
    """
    method = method_of(MetaplasticSpec(steepness=2.0))
    drawn = {"layer1": torch.tensor([[0.5, 1.0]], dtype=torch.float64)}
    monkeypatch.setattr(method, "_flexibility", lambda layer: drawn.get(layer, torch.ones(1, dtype=torch.float64)))
    state: Tensors = {**method.start_shared(), **method.start_memory()}
    started = state["layer1.weight"].detach().clone()
    moved = []
    for item in range(3):
        state |= method.begin(state, examples(item), 0.25)
        for step in range(2):
            batch = dataclasses.replace(lanes_of(*four(), segment=item).batch(0, rate=0.25), step=step)
            gradients = {"layer1.weight": torch.ones(1, 2, dtype=torch.float64), "layer1.bias": torch.ones(1)}
            adjusted, remembered = method.adjust(state, batch, gradients)
            assert not remembered
            assert torch.equal(adjusted["layer1.bias"], torch.ones(1))
            state["layer1.weight"] = state["layer1.weight"].detach() - 0.25 * adjusted["layer1.weight"]
        moved.append((started - state["layer1.weight"]).flatten().tolist())
    assert np.array(moved) == pytest.approx(
        np.array([[0.5, 0.5], [0.7099872, 1.0], [0.7099872 + 0.1043116, 1.5]]), abs=1e-6
    )


def four() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(4, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)


def test_a_network_learns_as_a_plain_loop_does(digits: Datasets) -> None:
    """Three tasks in torch's own modules, alpha by its formula at each task's first update, flexibilities by name."""
    spec = MetaplasticSpec(steepness=50.0)
    started: list[torch.Tensor] = []
    alphas: list[torch.Tensor] = []

    def update(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int, number: int) -> None:
        parameters = list(network.parameters())
        weights = parameters[::2]
        if number == 0:
            started[:] = [weight.detach().clone() for weight in weights]
        if number % plainly.NUM_UPDATES == 0:
            alphas.clear()
            for layer, (weight, start) in enumerate(zip(weights, started, strict=True), start=1):
                stream = seeding.numpy_generator(plainly.SEED, "state", 0, f"layer{layer}.flexibility")
                f = torch.from_numpy(stream.random(tuple(weight.shape), dtype=np.float32)).double()
                alphas.append(1 - torch.tanh(50 * (weight.detach() - start) * (1 - f) / f) ** 2)
        gradients = torch.autograd.grad(plainly.cross_entropy(network, images, labels), parameters)
        factors = [factor for alpha in alphas for factor in (alpha, torch.ones((), dtype=torch.float64))]
        plainly.move(parameters, [-plainly.RATE * a * g for a, g in zip(factors, gradients, strict=True)])

    plainly.assert_same(plainly.run(spec, digits), plainly.learn(spec, digits, update))
    assert any(bool((alpha < 0.5).any()) for alpha in alphas)


def items_trial(method: Any, **changes: Any) -> TrialSpec:
    benchmark = ItemsSpec(base="digits", num_tasks=3, rounds=2, poisoned_rounds=1, images=40, test_images=20, pool=1)
    training = TrainingSpec(learning_rate=0.1, optimizer="sgd", batch_size=20, epochs_per_task=2)
    return TrialSpec(
        **{"method": method, "benchmark": benchmark, "scale": "FC16", "seed": 0, "training": training, **changes}
    )


def test_full_flexibility_is_plain_sgd(digits: Datasets) -> None:
    """f = 1: every test, curve and weight of fine-tuning, bit for bit; s does not matter."""
    plain = run(items_trial(FinetuneSpec()), digits)
    flexible = run(items_trial(MetaplasticSpec(low=1.0, steepness=4e5)), digits)
    assert results(flexible) == results(plain)
    weights, expected = (contexts.load(one.contexts).tensors for one in (flexible, plain))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    less = run(items_trial(MetaplasticSpec(low=0.9, steepness=100.0)), digits)
    assert results(less) != results(plain)


# How weights start


def test_weights_may_start_glorot_normal() -> None:
    """N(0, 2 / (inputs + outputs)) by Kolmogorov and Smirnov, in each layer; without it, the same bounds as ever."""
    problem = dataclasses.replace(TWO_INPUTS, input_shape=(1, 10, 10), num_classes=50)
    for layer, (num_outputs, num_inputs) in {"layer1": (80, 100), "layer2": (80, 80), "layer3": (50, 80)}.items():
        normal, uniform = (
            method_of(MetaplasticSpec(initial=initial), problem, "FC80").start_shared()[f"{layer}.weight"].detach()
            for initial in ("glorot-normal", "network")
        )
        assert normal.shape == (num_outputs, num_inputs)
        std = (2 / (num_inputs + num_outputs)) ** 0.5
        assert stats.kstest(normal.flatten().numpy(), stats.norm(scale=std).cdf).pvalue > 0.01
        assert float(uniform.abs().max()) <= 3**0.5 * std
        assert stats.kstest(uniform.flatten().numpy(), stats.norm(scale=std).cdf).pvalue < 1e-6


def test_full_flexibility_is_plain_sgd_wherever_weights_start(digits: Datasets) -> None:
    """f = 1 from Glorot-normal weights: a plain loop's weights, and others than from the default's."""
    spec = MetaplasticSpec(low=1.0, initial="glorot-normal")

    def update(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int, number: int) -> None:
        plainly.descend(network, plainly.cross_entropy(network, images, labels))

    plainly.assert_same(plainly.run(spec, digits), plainly.learn(spec, digits, update))
    by_default = plainly.weights_of(plainly.run(MetaplasticSpec(low=1.0), digits))
    assert not torch.equal(plainly.weights_of(plainly.run(spec, digits))["layer1.weight"], by_default["layer1.weight"])


# Flexibilities


@pytest.mark.parametrize(
    ("spec", "cdf"),
    [
        (MetaplasticSpec(), lambda x: x),
        (MetaplasticSpec(low=0.5), lambda x: 2 * (x - 0.5)),
        (MetaplasticSpec(density="rising"), lambda x: 0.5 * x + 0.5 * x**2),
        (MetaplasticSpec(density="falling"), lambda x: 1.5 * x - 0.5 * x**2),
    ],
    ids=["uniform", "from a half", "rising", "falling"],
)
def test_flexibilities_have_their_density(spec: MetaplasticSpec, cdf: Any) -> None:
    """By a Kolmogorov-Smirnov test over 12,000 weights; draws depend on layer and seed, and can be repeated."""
    problem = dataclasses.replace(TWO_INPUTS, input_shape=(1, 10, 10))
    drawn = method_of(spec, problem, "FC80")._flexibility
    values = torch.cat([drawn(layer).flatten() for layer in ("layer1", "layer2")]).numpy()
    assert stats.kstest(values, lambda x: np.clip(cdf(x), 0, 1)).pvalue > 0.01
    assert torch.equal(drawn("layer1"), method_of(spec, problem, "FC80")._flexibility("layer1"))
    assert not torch.equal(drawn("layer1"), method_of(spec, problem, "FC80", seed=1)._flexibility("layer1"))
    assert abs(np.corrcoef(drawn("layer1").flatten()[:6400], drawn("layer2").flatten()[:8000][:8000])[0, 1]) < 0.05


def test_one_flexibility_for_all_weights() -> None:
    """`stable` is 0.3 everywhere."""
    assert (method_of(MetaplasticSpec(low=0.3, high=0.3))._flexibility("layer1") == 0.3).all()


# Without being told of items


def test_alpha_may_be_computed_every_so_many_updates() -> None:
    """At updates 0, 3 and 6, from the current weights; in between, it stays fixed and nothing is drawn."""
    stream = dataclasses.replace(TWO_INPUTS, scenario="general")
    method = method_of(MetaplasticSpec(steepness=2.0, every=3), stream)
    state: Tensors = {**method.start_shared(), **method.start_memory()}
    assert not method.begin(state, examples(0), 0.1)
    flexibility, started = state["flexibility.layer1"], state["layer1.weight"].detach().clone()
    assert torch.equal(flexibility, method._flexibility("layer1"))
    for number in range(7):
        batch = dataclasses.replace(lanes_of(*four()).batch(0, rate=0.1), update=number)
        state["layer1.weight"] = started + 0.1 * number
        adjusted, remembered = method.adjust(state, batch, {"layer1.weight": torch.ones(1, 2, dtype=torch.float64)})
        assert bool(remembered) == (number % 3 == 0)
        state |= remembered
        expected = plasticity(torch.full((1, 2), 0.1 * (number - number % 3), dtype=torch.float64), flexibility, 2.0)
        torch.testing.assert_close(adjusted["layer1.weight"], expected, rtol=1e-9, atol=1e-12)


def test_a_stream_is_learned_without_boundaries(digits: Datasets) -> None:
    """A trial resumed from the middle computes the same; what is kept is counted."""
    training = TrainingSpec(learning_rate=0.05, optimizer="sgd", batch_size=64)
    benchmark = TurningSpec(base="digits", test_every=8)
    spec = items_trial(MetaplasticSpec(steepness=50.0, every=4), benchmark=benchmark, training=training)
    method_numbers = 64 * 16 + 16 * 16 + 16 * 9
    assert spec.blueprint().stored_memory == 2 * method_numbers
    assert results(run(spec, digits)) != results(
        run(items_trial(FinetuneSpec(), benchmark=benchmark, training=training), digits)
    )


# What is refused


def test_wrong_settings_are_refused() -> None:
    """Shares outside [0, 1], inverted bounds, a density of one value; all faults of fields at once."""
    with refused(InvalidError, "too-small", "too-large", says=["low: ", "high: ", "-0.1", "1.5"]):
        MetaplasticSpec(low=-0.1, high=1.5)
    with refused(InvalidError, "range-inverted", says=["low: ", "0.8", "0.5"]):
        MetaplasticSpec(low=0.8, high=0.5)
    with refused(InvalidError, "density-of-one-value", says=["density: ", "'rising'"]):
        MetaplasticSpec(low=0.3, high=0.3, density="rising")
    with refused(InvalidError, "unknown-name", says=["initial: ", "'he'"]):
        MetaplasticSpec(initial="he")  # type: ignore[arg-type]  # it is what is refused


def test_boundaries_are_used_where_they_are_told_and_only_there() -> None:
    """`every` is refused for items, whose beginning is told; 0 is refused for a stream, which tells none."""
    with refused(InvalidError, "boundaries-told", says=["every: ", "given 5", "'domain'"]):
        items_trial(MetaplasticSpec(every=5))
    training = TrainingSpec(learning_rate=0.1, batch_size=64)
    with refused(InvalidError, "scenario-tells-too-little", says=["metaplastic", "'general'"]):
        items_trial(MetaplasticSpec(), benchmark=TurningSpec(base="digits"), training=training)
