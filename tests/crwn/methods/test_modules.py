"""A user's own networks: what is counted, drawn, kept and refused, and that results equal torch's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from crwn import backbone, contexts, contract, seeding
from crwn.benchmarks.sequential import SequentialSpec
from crwn.contract import CHECKS, ContractCase, surroundings_of
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.modules import ModuleNetwork, NetworkError, examined
from crwn.methods.protocol import NETWORKS, NetworkFactory, ScaleError
from crwn.spec import ProblemShape, TrainingSpec
from crwn.testing import tiny_trial
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec, check_network
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("one_thread")

PROBLEM = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=2)
DIGITS = SequentialSpec(base="digits", num_tasks=5)


class Patches(nn.Module):
    """A transformer over patches: attention, layer normalisation, dropout, a parameter of its own and a frozen one."""

    def __init__(self, image: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image
        self.patches = nn.Conv2d(channels, 8, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, height * width // 16, 8))
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.patches(images).flatten(2).mT + self.places
        scores: torch.Tensor = self.head(self.scale * self.encoder(hidden).mean(dim=1))
        return scores


def convolutions(image: tuple[int, int, int], num_classes: int) -> nn.Module:
    """With batch normalisation and dropout."""
    return nn.Sequential(
        nn.Conv2d(image[0], 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, num_classes),
    )


class Choosing(nn.Module):
    """Branches on values, which vmap cannot do; its scores are not the output of a linear layer."""

    def __init__(self, image: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(image[1] * image[2], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layer(images.flatten(1))
        return torch.tanh(scores) if float(scores.detach().sum()) > 0 else scores.sin()


OWN: dict[str, NetworkFactory] = {"patches": Patches, "convolutions": convolutions, "choosing": Choosing}


@pytest.fixture(autouse=True)
def own() -> Iterator[None]:
    """The networks above, as a plug-in adds them."""
    with NETWORKS.adding(OWN):
        yield


def trial(scale: str, method: str = "finetune", *, seed: int = 0, **changes: Any) -> TrialSpec:
    spec = tiny_trial(method, benchmark=DIGITS, scale=scale, **changes)
    training = TrainingSpec(learning_rate=0.01, optimizer="sgd", batch_size=32, updates_per_task=4)
    return dataclasses.replace(spec, seed=seed, training=training)


def network(scale: str, *, dtype: str = "float32", seed: int = 0) -> ModuleNetwork:
    spec = trial(scale, seed=seed)
    training = dataclasses.replace(spec.training, dtype=dtype)  # type: ignore[arg-type]  # checked by the spec
    return ModuleNetwork(surroundings_of(dataclasses.replace(spec, training=training)))


def reference(scale: str, seed: int = 0) -> nn.Module:
    """The module with the initial values that a trial gives it."""
    with seeding.forked(torch.device("cpu"), seed, "network", "start"):
        return NETWORKS[scale]((1, 8, 8), 10)


def digits_of(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up images, as bytes, and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


# What is counted and drawn


def test_its_numbers_are_counted() -> None:
    """Parameters, those that are trained, buffers; products and what is held are as by hand."""
    found = examined("convolutions", PROBLEM)
    weights = 4 * 9 + 4 + 2 * 4 + 16 * 10 + 10
    assert (found.num_parameters, found.num_trained, found.num_stored) == (weights, weights, weights + 2 * 4 + 1)
    assert found.multiply_adds == 3 * (4 * 9 * 64 + 16 * 10)
    assert found.head == "6"
    assert 2 * 4 * 64 <= found.activations <= 10 * 4 * 64
    patches = examined("patches", PROBLEM)
    assert patches.num_parameters == patches.num_trained + 1
    assert patches.head == "head"
    assert patches.multiply_adds > 3 * (8 * 16 * 4 + 4 * 8 * 8 * 4)
    assert examined("choosing", PROBLEM).head is None


def test_a_blueprint_has_these_counts() -> None:
    """So the plan's parameters per task are exact; nothing is drawn in advance."""
    blueprint, found = trial("patches", "ewc").blueprint(), examined("patches", DIGITS.problem())
    assert blueprint.params_per_task == found.num_parameters
    assert blueprint.trained_per_task == found.num_trained
    assert blueprint.stored_memory == 2 * found.num_trained
    assert blueprint.backbone.arrays == ()
    assert blueprint.draws
    assert not tiny_trial("ewc", benchmark=DIGITS).blueprint().draws


def test_initial_values_are_those_of_the_seed() -> None:
    """The same whenever it is built; others at another seed; torch's global generator stays as it is."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = (network("patches", seed=seed).start() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert contract.same(first, again) == set(first)
    assert "network.places" not in contract.same(first, other)
    for name, tensor in reference("patches").named_parameters():
        assert torch.equal(first[f"network.{name}"], tensor)
        assert first[f"network.{name}"].requires_grad == tensor.requires_grad


# What is computed


def test_it_learns_as_torch_does(digits: Datasets) -> None:
    """A task of fine-tuning is torch's own loop over the module: weights and running statistics, dropout included."""
    spec = trial("convolutions")
    finished = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)
    kept = contexts.load(finished.contexts).tensors

    module = reference("convolutions").train()
    benchmark = contract.built(spec, digits)
    normalisation = spec.benchmark.normalisation()
    update = 0
    for task in range(5):
        split = benchmark.train_split(task)
        order = seeding.numpy_generator(0, "batches", task, 0).permutation(len(split.labels))
        for step in range(4):
            chosen = torch.from_numpy(order[32 * step : 32 * (step + 1)])
            pixels = normalisation(split.images[chosen], torch.float32).view(-1, 1, 8, 8)
            with seeding.forked(torch.device("cpu"), 0, "network", "update", update):
                loss = functional.cross_entropy(module(pixels), split.labels[chosen])
            slopes = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for parameter, slope in zip(module.parameters(), slopes, strict=True):
                    parameter.sub_(slope, alpha=0.01)
            update += 1
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(kept[f"shared.network.{name}"], tensor, rtol=1e-4, atol=1e-6)


def test_modes_are_honoured() -> None:
    """Training takes the batch's statistics and moves the running ones; a test takes these and moves nothing."""
    net = network("convolutions")
    state, (images, _) = net.start(), digits_of(6)
    before = {name: tensor.detach().clone() for name, tensor in state.items()}
    moved: dict[str, torch.Tensor] = {}
    net.logits(state, images[None], training=True, moved=moved)
    assert set(moved) == {f"network.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert contract.same(before, state) == set(state)
    assert not contract.same(moved, state)
    tested = net.logits(state, images[None])
    module = reference("convolutions").eval()
    pixels = surroundings_of(trial("convolutions")).normalised(images).view(-1, 1, 8, 8)
    assert torch.equal(tested[0], module(pixels))
    assert contract.same(before, state) == set(state)


@pytest.mark.parametrize("scale", OWN)
def test_squared_gradients_are_those_of_each_example(scale: str) -> None:
    """In evaluation mode, against a backward pass per example: with operations that vmap cannot compute, too."""
    net = network(scale, dtype="float64")
    state, (images, labels) = net.start(), digits_of(5)
    found = net.squared_gradients(state, images, labels)
    module = reference(scale).double().eval()
    pixels = surroundings_of(trial(scale)).normalised(images).double().view(-1, 1, 8, 8)
    parameters = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
    expected = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    for image, label in zip(pixels, labels, strict=True):
        log_p = functional.log_softmax(module(image[None]), dim=1)[0, label]
        for name, slope in zip(parameters, torch.autograd.grad(log_p, list(parameters.values())), strict=True):
            expected[name] += log_p.detach().exp() * slope**2
    assert found.keys() == {f"network.{name}" for name in parameters}
    for name, tensor in expected.items():
        torch.testing.assert_close(found[f"network.{name}"], tensor, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("scale", ["patches", "convolutions"])
def test_features_enter_the_head(scale: str) -> None:
    """The last layer turns them into the scores."""
    net = network(scale)
    state, (images, _) = net.start(), digits_of(4)
    features = net.features(state, images)
    head = [state[name] for name in net.head_names]
    torch.testing.assert_close(functional.linear(features, *head), net.logits(state, images[None])[0])


def test_products_may_be_narrow() -> None:
    """In bfloat16 torch chooses which operations are; what is learned stays in single precision."""
    spec = trial("convolutions")
    surroundings = dataclasses.replace(surroundings_of(spec), product_dtype=torch.bfloat16)
    net = ModuleNetwork(surroundings)
    state, moved = net.start(), dict[str, torch.Tensor]()
    logits = net.logits(state, digits_of(4)[0][None], training=True, moved=moved)
    assert logits.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in (*state.values(), *moved.values())} == {torch.float32, torch.int64}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("scale", "method"), [("convolutions", "lwf"), ("patches", "derpp")])
def test_methods_keep_their_promises_with_it(scale: str, method: str, check: str, digits: Datasets) -> None:
    """All promises hold, as with a built-in network: a killed trial resumes to the same bytes."""
    CHECKS[check](ContractCase(spec=trial(scale, method), data=digits))


@pytest.mark.parametrize("method", ["joint", "er", "ewc", "si", "agem"])
def test_every_method_with_a_plain_network_resumes(method: str, digits: Datasets) -> None:
    """To equal bytes, with dropout and running statistics."""
    case = ContractCase(spec=trial("convolutions", method), data=digits)
    CHECKS["a_resumed_trial_computes_the_same"](case)


# What is refused


def lazily(image: tuple[int, int, int], num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def failing(image: tuple[int, int, int], num_classes: int) -> nn.Module:
    raise TypeError("no such argument\nand more")


def small(*layers: nn.Module) -> Callable[..., nn.Module]:
    return lambda image, num_classes: nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes), *layers)


def of_integers(image: tuple[int, int, int], num_classes: int) -> nn.Module:
    module = small()(image, num_classes)
    module.register_parameter("counts", nn.Parameter(torch.zeros(3, dtype=torch.int32), requires_grad=False))
    module.requires_grad_(False)
    return module


class Noisy(nn.Module):
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return functional.dropout(scores)


class Pair(nn.Module):
    def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return scores, scores


def unseeded() -> Callable[..., nn.Module]:
    generator = torch.Generator()

    def build(image: tuple[int, int, int], num_classes: int) -> nn.Module:
        module = small()(image, num_classes)
        nn.init.normal_(module[1].weight, generator=generator)  # type: ignore[index,arg-type]  # a Sequential
        return module

    return build


@pytest.mark.parametrize(
    ("factory", "codes", "says"),
    [
        (failing, ("network-not-built",), "TypeError: no such argument"),
        (lambda image: nn.Linear(1, 1), ("network-not-built",), "TypeError"),
        (lambda image, num_classes: 3, ("network-not-built",), "int"),
        (lazily, ("network-is-lazy",), "1.weight"),
        (of_integers, ("network-not-float", "network-trains-nothing"), "counts (torch.int32)"),
        (unseeded(), ("network-not-repeatable",), "1.weight"),
        (small(nn.Linear(10, 7)), ("network-scores-unfit",), "[2, 7]"),
        (small(Pair()), ("network-scores-unfit",), "tuple"),
        (small(nn.Linear(3, 3)), ("network-fails",), "RuntimeError"),
        (small(Noisy()), ("network-random-in-tests",), "self.training"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(factory: Any, codes: tuple[str, ...], says: str) -> None:
    """When the trial is created; the error has the network's name, the images' shape and the fault."""
    with (
        NETWORKS.adding({"faulty": factory}),
        refused(NetworkError, *codes, says=["'faulty'", "[1, 8, 8]", "10 classes", says]),
    ):
        trial("faulty")


def test_a_method_that_reads_features_needs_a_head() -> None:
    """Other methods train such a network."""
    check_network(trial("choosing", "ewc"))
    with refused(NetworkError, "network-without-head", says="'choosing'"):
        check_network(trial("choosing", "lwf"))


def test_other_methods_refuse_it() -> None:
    """Methods that modify a built-in network's layers; a path is refused too, and nothing is imported."""
    problem = DIGITS.problem()
    for name in ("neuromodnet", "flynet", "supsup", "psp", "batche", "stl", "mtl", "metaplastic"):
        with refused(ScaleError, "scale-of-other-methods", says=["'patches'", "finetune"]):
            METHODS[name].spec().blueprint("patches", problem, 0)
    with refused(ScaleError, "network-is-a-path", says=["'antigravity.fly'", "--plugin", "crwn.networks"]):
        trial("antigravity.fly")
    with refused(ScaleError, "unknown-scale", says=["'patch'", "patches"]):
        trial("patch")
    with refused(InvalidError, "biases-of-own-network", says="'patches'"):
        trial("patches", "er", biases=False)


def test_global_generators_are_left_alone(digits: Datasets) -> None:
    """By a whole trial."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run_trial(trial("patches", "er"), data=digits, backbones=backbone.draw)
    assert torch.equal(torch.get_rng_state(), before)
