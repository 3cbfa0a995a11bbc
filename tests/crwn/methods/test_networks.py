"""The networks that scales stand for: their layers, exact counts, and what they compute."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from crwn.methods import METHODS
from crwn.methods.networks import (
    FullyConnected,
    Layer,
    ResNet,
    drawn_normal,
    frozen_multiply_adds,
    fully_connected,
    in_a_row,
    normalise,
    num_statistics,
    num_weights,
    paper_training,
    parse_network,
    plain_multiply_adds,
    resnet18,
)
from crwn.methods.protocol import ScaleError
from crwn.nn.dense import DenseLayer
from crwn.nn.kernels import PLAIN
from crwn.nn.weights import SharedWeight
from crwn.spec import ProblemShape, TrainingSpec
from tests.refusals import refused

PROBLEM = ProblemShape(input_shape=(3, 4, 5), num_classes=7, num_tasks=2)
CIFAR = ProblemShape(input_shape=(3, 32, 32), num_classes=5, num_tasks=20, labels_are_shared=False)
MINI = ProblemShape(input_shape=(3, 84, 84), num_classes=5, num_tasks=20, labels_are_shared=False)


# Fully connected


def test_the_layers_of_a_fully_connected_network() -> None:
    """d -> H -> H -> m for the channels, height and width of the problem, in the order in which they compute."""
    layers = fully_connected(PROBLEM, 8).layers
    assert [(name, layer.shape) for name, layer in layers.items()] == [
        ("layer1", (8, 60)),
        ("layer2", (8, 8)),
        ("layer3", (7, 8)),
    ]


def test_the_layers_are_applied_in_order_with_rectifiers_between() -> None:
    """Worked out by hand: what is below zero is lost after the first and the second."""
    by_name = {
        "layer1": torch.tensor([[-2.0, 1.0], [1.0, 1.0]]),
        "layer2": torch.tensor([[9.0, 2.0], [1.0, -1.0]]),
        "layer3": torch.tensor([[-1.0, 7.0], [2.0, 7.0]]),
    }

    def layer(name: str) -> DenseLayer:
        return DenseLayer(weight=SharedWeight(by_name[name], PLAIN))

    network = fully_connected(PROBLEM, 2)
    output = network.forward(torch.tensor([[[1.0, 1.0]]]), linears=in_a_row(layer, PLAIN))
    # (1, 1) -> (-1, 2) -> relu (0, 2) -> (4, -2) -> relu (4, 0) -> (-4, 8)
    assert output.tolist() == [[[-4.0, 8.0]]]


def test_images_may_keep_their_shape() -> None:
    """The first layer sees their numbers in a row, channel by channel."""
    seen: list[torch.Tensor] = []

    def linears(names: Sequence[str], hidden: torch.Tensor) -> torch.Tensor:
        assert list(names) == ["layer1", "layer2", "layer3"]
        seen.append(hidden)
        return hidden

    images = torch.arange(2 * 3 * 60.0).view(2, 3, 3, 4, 5)
    fully_connected(PROBLEM, 8).forward(images, linears=linears)
    assert torch.equal(seen[0], images.view(2, 3, 60))


def test_weights_are_drawn_layer_by_layer() -> None:
    """Zero-mean Gaussians whose deviation may follow from a layer's sizes."""
    spec = drawn_normal(fully_connected(PROBLEM, 8), 3, lambda layer: 100 * layer.num_outputs + layer.fan_in)
    assert spec.seed == 3
    assert [(array.name, array.shape, array.distribution, array.parameter) for array in spec.arrays] == [
        ("layer1", (8, 60), "normal", 860),
        ("layer2", (8, 8), "normal", 808),
        ("layer3", (7, 8), "normal", 708),
    ]


# Scales


@pytest.mark.parametrize(
    ("scale", "problem", "maps"),
    [
        ("1d", CIFAR, 10),
        ("6d", CIFAR, 60),
        ("nf16", CIFAR, 16),
        ("1d", MINI, 64),
        ("2d", MINI, 128),
        ("nf10", MINI, 10),
    ],
)
def test_a_scale_multiplies_the_feature_maps(scale: str, problem: ProblemShape, maps: int) -> None:
    """Of 10 maps for small images and 64 for large ones; `nf` sets the number itself."""
    network = parse_network(scale, problem)
    assert isinstance(network, ResNet)
    assert network.layers["stem"].num_outputs == maps
    assert network.layers["head"].shape == (5, 8 * maps)


@pytest.mark.parametrize("scale", ["", "FC", "0d", "d", "nf0", "nf", "1D", "FC256d", "10d"])
def test_other_scales_are_refused(scale: str) -> None:
    """The error has examples of each family."""
    with refused(ScaleError, "unknown-scale", says=["FC256", "1d", "nf10", repr(scale)]):
        parse_network(scale, CIFAR)


def test_fc_is_for_any_image() -> None:
    """Photographs too."""
    network = parse_network("FC256", MINI)
    assert isinstance(network, FullyConnected)
    assert network.layers["layer1"].shape == (256, 3 * 84 * 84)


def test_the_papers_training_depends_on_the_family() -> None:
    """RMSProp for 1000 updates, or Adam with L2 of 1e-4 and a cosine for 250 epochs of 20 batches."""
    rates: dict[str, Any] = {"fully_connected_rate": 0.5, "resnet_rate": 0.25}
    assert paper_training("FC512", **rates) == TrainingSpec(learning_rate=0.5)
    expected = TrainingSpec(
        learning_rate=0.25, optimizer="adam", updates_per_task=250 * 20, weight_decay=1e-4, schedule="cosine"
    )
    assert paper_training("1d", **rates) == paper_training("nf10", **rates) == expected


@pytest.mark.parametrize(
    ("method", "rate"), [("stl", 1e-3), ("psp", 1e-3), ("supsup", 1e-3), ("batche", 0.01), ("neuromodnet", 0.1)]
)
def test_the_papers_rates_of_resnets(method: str, rate: float) -> None:
    """1e-3, but 0.01 for BatchE's factors and 0.1 for NeuroModNet."""
    assert METHODS[method].spec().training("1d").learning_rate == rate


# Counts


@pytest.mark.parametrize(
    ("method", "scale", "problem", "expected"),
    [
        ("supsup", "1d", CIFAR, 273_070),
        ("psp", "1d", CIFAR, 273_070),
        ("stl", "1d", CIFAR, 274_570),
        ("neuromodnet", "1d", CIFAR, 4_968),
        ("neuromodnet", "2d", CIFAR, 9_888),
        ("neuromodnet", "4d", CIFAR, 19_728),
        ("neuromodnet", "6d", CIFAR, 29_568),
        ("batche", "1d", CIFAR, 15_092),
        ("supsup", "1d", MINI, 11_169_472),
        ("psp", "1d", MINI, 11_169_472),
        ("stl", "1d", MINI, 11_179_072),
        ("batche", "1d", MINI, 567_634),
        ("neuromodnet", "1d", MINI, 31_656),
    ],
)
def test_parameters_per_task_are_exact(method: str, scale: str, problem: ProblemShape, expected: int) -> None:
    """As the paper counts, to the last one."""
    blueprint = METHODS[method].spec().blueprint(scale, problem, 0)
    assert math.floor(blueprint.params_per_task + 0.5) == expected


class PlainBlock(nn.Module):
    """A basic block as an ordinary module."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class PlainResNet18(nn.Module):
    """Either form as modules, one task."""

    def __init__(self, maps: int, num_classes: int, *, standard: bool) -> None:
        super().__init__()
        if standard:
            self.stem = nn.Conv2d(3, maps, 7, stride=2, padding=3, bias=False)
        else:
            self.stem = nn.Conv2d(3, maps, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(maps)
        self.pool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1) if standard else nn.Identity()
        widths = [maps, maps, 2 * maps, 4 * maps, 8 * maps]
        blocks = []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            blocks += [PlainBlock(inputs, outputs, 1 if stage == 0 else 2), PlainBlock(outputs, outputs, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(8 * maps, num_classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.pool(functional.relu(self.bn(self.stem(x)))))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))

    def by_layer(self) -> dict[str, tuple[nn.Module, nn.BatchNorm2d | None]]:
        """Each weighted module by our name for it, with the normalisation after it."""
        found: dict[str, tuple[nn.Module, nn.BatchNorm2d | None]] = {"stem": (self.stem, self.bn)}
        for number, block in enumerate(self.blocks):
            assert isinstance(block, PlainBlock)
            name = f"stage{number // 2 + 1}.block{number % 2 + 1}"
            found |= {f"{name}.conv1": (block.conv1, block.bn1), f"{name}.conv2": (block.conv2, block.bn2)}
            if isinstance(block.shortcut, nn.Sequential):
                found[f"{name}.shortcut"] = (block.shortcut[0], block.shortcut[1])
        return {**found, "head": (self.head, None)}


FORMS = pytest.mark.parametrize(
    ("problem", "maps", "standard"),
    [
        (CIFAR, 10, False),
        (MINI, 64, True),
        (ProblemShape(input_shape=(3, 33, 40), num_classes=5, num_tasks=2), 3, True),
        (ProblemShape(input_shape=(3, 9, 8), num_classes=2, num_tasks=2), 2, False),
    ],
)


@FORMS
def test_layers_are_those_of_the_modules(problem: ProblemShape, maps: int, *, standard: bool) -> None:
    """Every weight's shape by name; sizes of inputs and outputs as a forward pass has them."""
    network, plain = resnet18(problem, maps), PlainResNet18(maps, problem.num_classes, standard=standard)
    assert network.is_standard == standard
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            sizes[name] = (inputs[0].numel(), output.numel())

        return hook

    for name, (module, _) in plain.by_layer().items():
        module.register_forward_hook(note(name))
    plain.eval()(torch.zeros(1, *problem.input_shape))
    modules = plain.by_layer()
    assert set(network.layers) == set(modules)
    for name, layer in network.layers.items():
        assert layer.shape == tuple(modules[name][0].weight.shape)
        assert (layer.input_size, layer.output_size) == sizes[name]
    assert num_weights(network) == sum(module.weight.numel() for module, _ in modules.values())
    assert num_statistics(network) == sum(2 * norm.num_features for _, norm in modules.values() if norm is not None)


@pytest.mark.parametrize("training", [True, False])
@FORMS
def test_tasks_side_by_side_compute_what_modules_do(
    problem: ProblemShape, maps: int, *, standard: bool, training: bool
) -> None:
    """Three tasks with weights, gains, shifts and statistics of their own: scores, gradients and moved statistics.

    In double precision, to rounding. The widest form is tried with few maps.
    """
    maps, num_tasks, batch = min(maps, 4), 3, 3
    torch.manual_seed(0)
    network = resnet18(problem, maps)
    plains = [PlainResNet18(maps, problem.num_classes, standard=standard).double() for _ in range(num_tasks)]
    for plain in plains:
        for _, norm in plain.by_layer().values():
            if norm is not None:
                for tensor in (norm.weight, norm.bias, norm.running_mean):
                    nn.init.normal_(tensor)
                nn.init.uniform_(norm.running_var, 0.5, 2)
        plain.train(training)
    state: dict[str, torch.Tensor] = {}
    for name in network.layers:
        modules = [plain.by_layer()[name] for plain in plains]
        state[f"{name}.weight"] = torch.stack([module.weight.detach() for module, _ in modules]).requires_grad_()
        norms = [norm for _, norm in modules if norm is not None]
        if norms:
            state[f"{name}.gain"] = torch.stack([norm.weight.detach() for norm in norms]).requires_grad_()
            state[f"{name}.shift"] = torch.stack([norm.bias.detach() for norm in norms]).requires_grad_()
            state[f"{name}.running_mean"] = torch.stack([norm.running_mean for norm in norms])
            state[f"{name}.running_var"] = torch.stack([norm.running_var for norm in norms])
    images = torch.randn(num_tasks, batch, *problem.input_shape, dtype=torch.float64)
    moved: dict[str, torch.Tensor] = {}
    before = {name: tensor.clone() for name, tensor in state.items()}
    scores = network.forward(
        images,
        linears=lambda names, hidden: torch.einsum("gbi,goi->gbo", hidden, state[f"{names[0]}.weight"]),
        conv_weight=lambda name: state[f"{name}.weight"],
        norm=normalise(state, training=training, moved=moved),
    )
    expected = torch.stack([plain(image) for plain, image in zip(plains, images, strict=True)])
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)
    up = torch.randn_like(scores)
    scores.backward(up)
    expected.backward(up)
    for name in network.layers:
        for task, plain in enumerate(plains):
            module, norm = plain.by_layer()[name]
            found = state[f"{name}.weight"].grad
            assert found is not None
            torch.testing.assert_close(found[task], module.weight.grad, rtol=1e-7, atol=1e-8)
            if norm is not None:
                statistics = moved if training else state
                torch.testing.assert_close(statistics[f"{name}.running_mean"][task], norm.running_mean)
                torch.testing.assert_close(statistics[f"{name}.running_var"][task], norm.running_var)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


# Work


def test_the_work_of_a_step_is_counted() -> None:
    """Forward, and gradients to weights and inputs; where a matrix is frozen the gradient to its input is enough."""
    layers = {
        "conv": Layer(shape=(2, 3, 3, 3), positions=10, input_size=30, first=True),
        "next": Layer(shape=(2, 2, 3, 3), positions=10, input_size=20),
        "head": Layer(shape=(5, 2), input_size=2),
    }
    network = ResNet(input_shape=(3, 4, 5), layers=layers, is_standard=False)
    assert plain_multiply_adds(network) == 2 * 540 + 3 * 360 + 3 * 10
    assert frozen_multiply_adds(network) == 2 * 540 + 3 * 360 + 2 * 10
    assert frozen_multiply_adds(fully_connected(PROBLEM, 8)) == 2 * (480 + 64 + 56)
    assert plain_multiply_adds(fully_connected(PROBLEM, 8)) == 2 * 480 + 3 * (64 + 56)
