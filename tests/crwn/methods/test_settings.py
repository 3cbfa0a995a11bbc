"""The methods' settings: the paper's by default, validated, and each with its stated effect."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from crwn import backbone
from crwn.backbone import ArraySpec
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.batche import BatchESpec
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.mtl import MTLSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.protocol import Method
from crwn.methods.psp import PSPSpec
from crwn.methods.stl import STLSpec
from crwn.methods.supsup import SupSupSpec
from crwn.spec import ProblemShape, TrainingSpec
from tests.crwn.methods.building import plain_surroundings
from tests.refusals import refused

MNIST = ProblemShape(input_shape=(1, 28, 28), num_classes=10, num_tasks=36)
DIGITS = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=36)


def build(method: Any, scale: str) -> Method:
    arrays = backbone.draw(method.blueprint(scale, DIGITS, 0).backbone).arrays
    surroundings = plain_surroundings(
        scale,
        DIGITS,
        backbone=arrays,
        dtype=torch.float64,
    )
    return METHODS[method.kind].build(method, surroundings)


def array_of(method: Any, scale: str, name: str, problem: ProblemShape = MNIST) -> ArraySpec:
    (array,) = [array for array in method.blueprint(scale, problem, 0).backbone.arrays if array.name == name]
    return array


@pytest.mark.parametrize(
    ("method", "learning_rate"),
    [
        (NeuroModNetSpec(), 0.01),
        (NeuroModNetSpec(pretrained=True), 0.01),
        (FlyNetSpec(), 0.01),
        (SupSupSpec(), 1e-4),
        (BatchESpec(), 0.01),
        (PSPSpec(), 1e-4),
        (MTLSpec(), 1e-4),
        (STLSpec(), 1e-4),
    ],
)
def test_training_is_the_papers(method: Any, learning_rate: float) -> None:
    """1000 updates of batch 128 with RMSProp, at the method's own rate."""
    assert method.training("FC256") == TrainingSpec(
        learning_rate=learning_rate,
        optimizer="rmsprop",
        updates_per_task=1000,
        batch_size=128,
        dtype="float32",
    )


@pytest.mark.parametrize(
    ("method", "scale", "name", "distribution", "parameter"),
    [
        (NeuroModNetSpec(), "FC256", "layer1", "normal", (2 / 784) ** 0.5),
        (NeuroModNetSpec(), "FC256", "layer3", "normal", (2 / 256) ** 0.5),
        (NeuroModNetSpec(weight_gain=1), "FC256", "layer2", "normal", 1 / 16),
        (SupSupSpec(), "FC256", "layer1", "signed-constant", (2 / 784) ** 0.5),
        (SupSupSpec(), "FC512", "layer2", "signed-constant", 1 / 16),
        (FlyNetSpec(), "10d", "encoder", "subset", 78),
        (FlyNetSpec(connectivity=0.25), "10d", "encoder", "subset", 196),
        (FlyNetSpec(connectivity=1), "10d", "encoder", "subset", 784),
        (FlyNetSpec(), "10d", "decoder", "normal", 10 / 7840),
        (FlyNetSpec(decoder_scale=5), "40d", "decoder", "normal", 5 / 31_360),
    ],
)
def test_frozen_weights_are_the_papers(method: Any, scale: str, name: str, distribution: str, parameter: float) -> None:
    """N(0, 2/fan_in); +- sqrt(2/fan_in); floor(0.1 784) = 78 ones a unit and a deviation of 10/N; gains scale them."""
    array = array_of(method, scale, name)
    assert array.distribution == distribution
    assert array.parameter == pytest.approx(parameter, rel=1e-15)


@pytest.mark.parametrize(("spec", "scale"), [(NeuroModNetSpec, "FC512"), (FlyNetSpec, "4d")])
def test_contexts_start_uniform_and_strengths_at_one(spec: Any, scale: str) -> None:
    """By default in (-1, 1): within the bounds, mean 0 and variance 1/3 to five sampling deviations; a = 1."""
    state = build(spec(), scale).start(range(20))
    for name, tensor in state.items():
        if name.endswith(".strength"):
            assert (tensor == 1).all()
        else:
            assert tensor.abs().max() <= 1
            assert abs(tensor.mean()) < 5 * (1 / 3 / tensor.numel()) ** 0.5
            # the variance of x^2 is 1/5 - 1/9
            assert abs((tensor**2).mean() - 1 / 3) < 5 * ((1 / 5 - 1 / 9) / tensor.numel()) ** 0.5


@pytest.mark.parametrize(("spec", "scale"), [(NeuroModNetSpec, "FC64"), (FlyNetSpec, "2d")])
def test_starts_can_be_set(spec: Any, scale: str) -> None:
    """Other bounds, one number for all (the paper's claims are also checked with c = 1), another strength."""
    state = build(spec(context_low=2, context_high=3, initial_strength=-0.5), scale).start([0, 1])
    ones = build(spec(context_low=1, context_high=1), scale).start([0, 1])
    for name in state:
        if name.endswith(".strength"):
            assert (state[name] == -0.5).all()
        else:
            assert state[name].min() >= 2
            assert state[name].max() <= 3
            assert state[name].std() > 0.2
            assert (ones[name] == 1).all()


def test_scores_start_kaiming_uniform() -> None:
    """Uniform in +-1/sqrt(fan_in), which is kaiming-uniform with a = sqrt 5, in every layer.

    A bound of gain sqrt(3/fan_in) with gain^2 = 2/(1 + 5) is 1/sqrt(fan_in). Mean and second moment b^2/3 of n numbers
    within five of their deviations, b/sqrt(3 n) and b^2 sqrt((1/5 - 1/9)/n).
    """
    state = build(SupSupSpec(), "FC32").start(range(5))
    for name, fan_in in (("layer1", 64), ("layer2", 32), ("layer3", 32)):
        scores, bound = state[f"{name}.scores"], fan_in**-0.5
        num = scores.numel()
        assert scores.abs().max() <= bound
        assert abs(scores.mean()) < 5 * bound / (3 * num) ** 0.5
        assert abs((scores**2).mean() - bound**2 / 3) < 5 * bound**2 * ((1 / 5 - 1 / 9) / num) ** 0.5


def test_inhibition_reaches_the_encoder() -> None:
    """Without inhibition, or with twice as much, FlyNet's scores differ from those at the paper's setting."""
    images = torch.randint(0, 256, (1, 5, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits = []
    for inhibition in (0, 1, 2):
        method = build(FlyNetSpec(inhibition=inhibition), "2d")
        logits.append(method.logits(method.start([0]), images))
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[1], logits[2])


@pytest.mark.parametrize("spec", [NeuroModNetSpec, FlyNetSpec])
def test_contexts_cannot_start_upside_down(spec: Any) -> None:
    """Bounds in the wrong order are refused; equal bounds are one number."""
    with refused(InvalidError, "range-inverted", says=["context_low: ", "context_high", "1.0", "2.0"]):
        spec(context_low=2)
    assert spec(context_low=1.0).context_low == 1.0


@pytest.mark.parametrize(
    ("spec", "settings", "code", "fact"),
    [
        (NeuroModNetSpec, {"modulation": "both"}, "unknown-name", "'local+global', 'local', 'global'"),
        (NeuroModNetSpec, {"weight_gain": 0}, "too-small", "given 0.0"),
        (FlyNetSpec, {"connectivity": 0}, "too-small", "given 0.0"),
        (FlyNetSpec, {"connectivity": 1.5}, "too-large", "given 1.5"),
        (FlyNetSpec, {"inhibition": -1}, "too-small", "given -1.0"),
        (FlyNetSpec, {"decoder_scale": 0}, "too-small", "given 0.0"),
        (NeuroModNetSpec, {"first_task_rate": 0}, "too-small", "given 0.0"),
        (NeuroModNetSpec, {"pretrained": 1}, "wrong-type", "bool, given 1"),
        (BatchESpec, {"first_task_rate": -1}, "too-small", "given -1.0"),
        (MTLSpec, {"weight_gain": 0}, "too-small", "given 0.0"),
        (STLSpec, {"weight_gain": 0}, "too-small", "given 0.0"),
    ],
)
def test_settings_are_checked(spec: Any, settings: dict[str, Any], code: str, fact: str) -> None:
    """A value out of its range is named with the range."""
    with refused(InvalidError, code, says=[f"{name}: " for name in settings] + [fact]):
        spec(**settings)


def test_flynet_is_for_grey_images() -> None:
    """Three channels are refused, and the error says what to do."""
    colour = ProblemShape(input_shape=(3, 32, 32), num_classes=5, num_tasks=20)
    with pytest.raises(ValueError, match=r"FlyNet .* given 3"):
        FlyNetSpec().blueprint("10d", colour, 0)


def test_a_unit_sums_at_least_one_input() -> None:
    """A connectivity that rounds down to no input at all is refused at this problem."""
    with pytest.raises(ValueError, match=r"connectivity: .* 1/64, .* 0\.01"):
        FlyNetSpec(connectivity=0.01).blueprint("10d", DIGITS, 0)
    assert array_of(FlyNetSpec(connectivity=0.016), "10d", "encoder", DIGITS).parameter == 1


@pytest.mark.parametrize("num_inputs", [1, 2, 27, 64])
def test_a_share_of_k_inputs_is_k_inputs(num_inputs: int) -> None:
    """p = k/784 sums k inputs, though k/784 is not exactly a binary number."""
    assert array_of(FlyNetSpec(connectivity=num_inputs / 784), "10d", "encoder").parameter == num_inputs
