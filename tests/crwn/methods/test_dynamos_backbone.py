"""Dynamos's backbone as the network of plain methods, against ordinary PyTorch modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from crwn import backbone, contexts
from crwn.backbone import Backbone
from crwn.benchmarks.sequential import SequentialSpec
from crwn.data import Datasets
from crwn.data.base import AS_THEY_ARE
from crwn.methods import METHODS
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.networks import parse_network
from crwn.methods.plain import PlainNetwork
from crwn.methods.protocol import Tensors
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings
from tests.crwn.methods.test_networks import PlainBlock

pytestmark = pytest.mark.usefixtures("one_thread")

MNIST = ProblemShape(input_shape=(3, 28, 28), num_classes=10, num_tasks=5, scenario="class")
SMALL = ProblemShape(input_shape=(3, 7, 6), num_classes=5, num_tasks=2, scenario="class")
PLAIN_METHODS = ("finetune", "joint", "er", "derpp", "ewc", "si", "lwf", "agem")


class PlainBackbone(nn.Module):
    """Two stages of two blocks, with torch's own initial values."""

    def __init__(self, maps: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, maps, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(maps)
        self.blocks = nn.Sequential(
            PlainBlock(maps, maps, 1),
            PlainBlock(maps, maps, 1),
            PlainBlock(maps, 2 * maps, 2),
            PlainBlock(2 * maps, 2 * maps, 1),
        )
        self.head = nn.Linear(2 * maps, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu(self.bn(self.stem(x))))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))

    def by_layer(self) -> dict[str, tuple[nn.Module, nn.BatchNorm2d | None]]:
        """Each module with weights by our name for it, with the normalisation after it."""
        found: dict[str, tuple[nn.Module, nn.BatchNorm2d | None]] = {"stem": (self.stem, self.bn)}
        for number, block in enumerate(self.blocks):
            assert isinstance(block, PlainBlock)
            name = f"stage{number // 2 + 1}.block{number % 2 + 1}"
            found |= {f"{name}.conv1": (block.conv1, block.bn1), f"{name}.conv2": (block.conv2, block.bn2)}
            if isinstance(block.shortcut, nn.Sequential):
                found[f"{name}.shortcut"] = (block.shortcut[0], block.shortcut[1])
        return {**found, "head": (self.head, None)}

    def state(self) -> Tensors:
        """Its parameters and statistics by our names, on their own."""
        state: Tensors = {}
        for name, (module, norm) in self.by_layer().items():
            state[f"{name}.weight"] = module.weight
            if norm is None:
                state[f"{name}.bias"] = module.bias
                continue
            state |= {f"{name}.gain": norm.weight, f"{name}.shift": norm.bias}
            state |= {f"{name}.running_mean": norm.running_mean, f"{name}.running_var": norm.running_var}
        return {name: tensor.detach().clone() for name, tensor in state.items()}


def network_of(problem: ProblemShape, scale: str) -> tuple[PlainNetwork, Backbone]:
    drawn = backbone.draw(FinetuneSpec().blueprint(scale, problem, 0).backbone)
    return PlainNetwork(plain_surroundings(scale, problem, backbone=drawn.arrays), biases=False), drawn


def test_it_has_the_authors_numbers() -> None:
    """170,410 trained ones on three channels: counted on the modules, on the blueprint, and on the state."""
    modules = PlainBackbone(32, 10)
    blueprint = FinetuneSpec().blueprint("dynamos", MNIST, 0)
    network, _ = network_of(MNIST, "dynamos")
    trained = {name: tensor for name, tensor in network.start().items() if tensor.requires_grad}
    counts = [sum(tensor.numel() for tensor in modules.parameters()), sum(t.numel() for t in trained.values())]
    assert [*counts, blueprint.params_per_task, blueprint.trained_per_task] == [170_410] * 4
    assert {name: tuple(t.shape) for name, t in network.start().items()} == {
        name: tuple(t.shape) for name, t in modules.state().items()
    }


def test_the_number_of_maps_is_a_scale() -> None:
    """32 without a number."""
    layers = [parse_network(scale, MNIST).layers for scale in ("dynamos", "dynamos-nf32", "dynamos-nf8")]
    assert layers[0] == layers[1]
    assert layers[2]["head"].shape == (10, 16)


@pytest.mark.parametrize("training", [True, False])
def test_it_computes_what_modules_do(training: bool) -> None:
    """Scores, gradients to all that is trained, and moved statistics, in double precision."""
    torch.manual_seed(0)
    modules = PlainBackbone(4, 5).double().train(training)
    for _, norm in modules.by_layer().values():
        if norm is not None:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    network, _ = network_of(SMALL, "dynamos-nf4")
    trained = {name for name, tensor in network.start().items() if tensor.requires_grad}
    state = {name: tensor.requires_grad_(name in trained) for name, tensor in modules.state().items()}
    images = torch.randint(0, 256, (1, 6, *SMALL.input_shape), dtype=torch.uint8)
    labels = torch.tensor([0, 4, 1, 2, 3, 4])
    moved: Tensors = {}
    surroundings = plain_surroundings("dynamos-nf4", SMALL, dtype=torch.float64, normalisation=AS_THEY_ARE)
    scores = PlainNetwork(surroundings, biases=True).logits(state, images, training=training, moved=moved)
    expected = modules(images[0].double() / 255)
    torch.testing.assert_close(scores[0], expected, rtol=1e-9, atol=1e-9)
    functional.cross_entropy(scores[0], labels).backward()
    functional.cross_entropy(expected, labels).backward()
    names = {id(p): name for name, p in modules.named_parameters()}
    gradients = {names[id(p)]: p.grad for p in modules.parameters()}
    for name, (module, norm) in modules.by_layer().items():
        torch.testing.assert_close(state[f"{name}.weight"].grad, gradients[names[id(module.weight)]])
        if norm is None:
            torch.testing.assert_close(state[f"{name}.bias"].grad, module.bias.grad)
            continue
        torch.testing.assert_close(state[f"{name}.gain"].grad, norm.weight.grad)
        torch.testing.assert_close(state[f"{name}.shift"].grad, norm.bias.grad)
        if training:
            torch.testing.assert_close(moved[f"{name}.running_mean"], norm.running_mean)
            torch.testing.assert_close(moved[f"{name}.running_var"], norm.running_var)
    assert bool(moved) == training


def test_it_starts_as_torchs_layers_do() -> None:
    """From the same uniform distributions: bounds from torch's own code, which the extremes of many numbers reach."""
    _, drawn = network_of(MNIST, "dynamos")
    torch.manual_seed(0)
    for name, (module, _) in PlainBackbone(32, 10).by_layer().items():
        ours, theirs = torch.tensor(drawn.arrays[name]), module.weight.detach()
        assert ours.shape == theirs.shape
        assert float(ours.abs().max() / theirs.abs().max()) == pytest.approx(1, abs=0.02), name
        assert float(ours.std() / theirs.std()) == pytest.approx(1, abs=0.1), name


@pytest.mark.parametrize("name", PLAIN_METHODS)
def test_every_plain_method_learns_it(name: str, digits: Datasets) -> None:
    """Two tasks of digits in three channels; the head's bias, which an FC_H may lack, is learned too."""
    spec = TrialSpec(
        method=METHODS[name].spec(),
        benchmark=SequentialSpec(base="digits", channels=3, first=2),
        scale="dynamos-nf2",
        seed=0,
        training=TrainingSpec(learning_rate=0.05, optimizer="sgd", updates_per_task=3, batch_size=16),
    )
    finished = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)
    assert {row.task for row in finished.rows} == {0, 1}
    assert bool(contexts.load(finished.contexts).tensors["shared.head.bias"].any())
