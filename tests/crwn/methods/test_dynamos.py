"""Dynamos against ordinary PyTorch modules and a plain loop, and the effects of its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import crwn.engine
from crwn import backbone, contexts, seeding
from crwn.benchmarks.sequential import SequentialSpec
from crwn.data import Datasets
from crwn.data.base import AS_THEY_ARE
from crwn.events import ResumePoint
from crwn.faults import InvalidError
from crwn.methods.dynamos import Dynamos, DynamosSpec
from crwn.methods.finetune import Finetune, FinetuneSpec
from crwn.methods.gated import GatedNetwork
from crwn.methods.plain import PlainNetwork
from crwn.methods.protocol import ScaleError, Tensors
from crwn.spec import MethodSpec, ProblemShape, TrainingSpec
from crwn.trial import Event, Finished, run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings
from tests.crwn.methods.test_dynamos_backbone import MNIST, PlainBackbone
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ProblemShape(input_shape=(3, 8, 8), num_classes=10, num_tasks=5, scenario="class")
SCALE, SEED, RATE, BATCH_SIZE, WARM_UP = "dynamos-nf2", 3, 0.07, 8, 2
LAYERS = [f"stage2.block{block}.conv{number}" for block in (1, 2) for number in (1, 2)]
SPEC = DynamosSpec(buffer=12, replay_batch=6, warm_up=WARM_UP, keep_ratio=0.6)


class PlainAgent(nn.Module):
    """An agent as an ordinary module."""

    def __init__(self, inputs: int, gates: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, gates, 1, bias=False)
        self.bn = nn.BatchNorm2d(gates)
        self.down, self.up = nn.Linear(gates, max(1, gates // 16)), nn.Linear(max(1, gates // 16), gates)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = functional.adaptive_avg_pool2d(self.bn(self.conv(x)), 1).flatten(1)
        return z * torch.sigmoid(self.up(functional.relu(self.down(z))))


class PlainDynamos(PlainBackbone):
    """The gated network: `draw` gives the numbers below which a gate is open."""

    def __init__(self, maps: int, num_classes: int) -> None:
        super().__init__(maps, num_classes)
        sizes = [(maps, 2 * maps), *[(2 * maps, 2 * maps)] * 3]
        self.agents = nn.ModuleList([PlainAgent(inputs, gates) for inputs, gates in sizes])

    def passed(
        self, x: torch.Tensor, gate: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and policy logits, given the gates by layer and policy logits."""
        policies = []

        def gated(number: int, seen: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            policies.append(self.agents[number](seen))
            return y * gate(number, policies[-1])[:, :, None, None]

        x = functional.relu(self.bn(self.stem(x)))
        x = self.blocks[1](self.blocks[0](x))
        for number in (0, 1):
            block = self.blocks[2 + number]
            h = functional.relu(gated(2 * number, x, block.bn1(block.conv1(x))))
            y = block.bn2(block.conv2(h))
            x = functional.relu(gated(2 * number + 1, h, y + block.shortcut(x)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1)), torch.cat(policies, dim=1)

    def by_name(self) -> dict[str, torch.Tensor]:
        """Its own tensors by our names, agents included."""
        state: Tensors = {}
        for name, (module, norm) in self.by_layer().items():
            state[f"{name}.weight"] = module.weight
            if norm is None:
                state[f"{name}.bias"] = module.bias
            else:
                state |= {f"{name}.gain": norm.weight, f"{name}.shift": norm.bias}
                state |= {f"{name}.running_mean": norm.running_mean, f"{name}.running_var": norm.running_var}
        for layer, agent in zip(LAYERS, self.agents, strict=True):
            assert isinstance(agent, PlainAgent)
            name = f"{layer}.agent"
            state |= {f"{name}.weight": agent.conv.weight, f"{name}.gain": agent.bn.weight}
            state |= {f"{name}.shift": agent.bn.bias, f"{name}.running_mean": agent.bn.running_mean}
            state |= {f"{name}.running_var": agent.bn.running_var}
            for part, linear in (("down", agent.down), ("up", agent.up)):
                state |= {f"{name}.{part}.weight": linear.weight, f"{name}.{part}.bias": linear.bias}
        return state


def trial(method: MethodSpec = SPEC, **changes: Any) -> TrialSpec:
    """Two tasks of two digits in three channels, eight updates each."""
    training = TrainingSpec(learning_rate=RATE, optimizer="sgd", batch_size=BATCH_SIZE, updates_per_task=8)
    settings: dict[str, Any] = {
        "benchmark": SequentialSpec(base="digits", channels=3, first=2),
        "scale": SCALE,
        "seed": SEED,
        "training": training,
    }
    spec = TrialSpec(**{**settings, **changes, "method": method})
    return spec


def run(spec: TrialSpec, digits: Datasets, **how: Any) -> Finished:
    return run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True, **how)


def in_double(spec: TrialSpec) -> TrialSpec:
    return dataclasses.replace(spec, training=dataclasses.replace(spec.training, dtype="float64"))


def weights_of(finished: Finished) -> Tensors:
    tensors = contexts.load(finished.contexts).tensors
    return {name.removeprefix("shared."): tensor for name, tensor in tensors.items() if name.startswith("shared.")}


def method_of(
    spec: DynamosSpec = SPEC, problem: ProblemShape = SMALL, *, dtype: torch.dtype = torch.float64
) -> Dynamos:
    arrays = backbone.draw(spec.blueprint(SCALE, problem, SEED).backbone).arrays
    surroundings = plain_surroundings(
        SCALE, problem, backbone=arrays, dtype=dtype, normalisation=AS_THEY_ARE, seed=SEED
    )
    return Dynamos(spec, surroundings)


# Counts


def test_it_has_the_authors_numbers() -> None:
    """187,578 trained ones on three channels, 17,168 of them the agents', and 256 gates."""
    modules = PlainDynamos(32, 10)
    blueprint = DynamosSpec().blueprint("dynamos", MNIST, 0)
    arrays = backbone.draw(blueprint.backbone).arrays
    network = GatedNetwork(plain_surroundings("dynamos", MNIST, backbone=arrays), temperature=0.15)
    trained = {name: tensor for name, tensor in network.start().items() if tensor.requires_grad}
    counts = [sum(tensor.numel() for tensor in modules.parameters()), sum(t.numel() for t in trained.values())]
    assert [*counts, blueprint.params_per_task, blueprint.trained_per_task] == [187_578] * 4
    assert sum(t.numel() for name, t in trained.items() if "agent" in name) == 17_168
    assert network.num_gates == 256
    assert {name: t.shape for name, t in network.start().items()} == {
        name: t.shape for name, t in modules.by_name().items()
    }


def test_its_backbone_is_that_of_the_plain_methods() -> None:
    """So all of them start from the same weights, which Ray's object store holds once."""
    ours, theirs = (spec.blueprint("dynamos", MNIST, 4).backbone for spec in (DynamosSpec(), FinetuneSpec()))
    assert ours == theirs


@pytest.mark.parametrize("scale", ["FC32", "nf8", "1d", "dynamos-nf0", "dynamos8"])
def test_other_scales_are_refused(scale: str) -> None:
    """It gates only its own network."""
    with refused(ScaleError, "unknown-scale", says=["dynamos", repr(scale)]):
        DynamosSpec().blueprint(scale, MNIST, 0)


# The network


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)


def test_gates_that_are_open_change_no_bit() -> None:
    """In training with draws of 0, scores and gradients are those of the ungated backbone; so they are in tests.

    Tests gate by threshold: policy logits of +1 keep all.
    """
    method = method_of(dtype=torch.float32)
    state = {name: tensor.detach().clone() for name, tensor in method.start_shared().items()}
    trained = [name for name, tensor in method.start_shared().items() if tensor.requires_grad and "agent" not in name]
    for name in trained:
        state[name].requires_grad_()
    images, labels = random_images(6), torch.arange(6)
    network, plain = method._network, method._network.ungated
    zeros = torch.zeros(6, network.num_gates, dtype=torch.float64)
    moved: Tensors = {}
    expected_moved: Tensors = {}
    (passed,) = network.passed(state, [images], [zeros], [moved])
    expected = plain.logits(state, images[None], training=True, moved=expected_moved)[0]
    assert bool((passed.shares_BL == 1).all())
    assert torch.equal(passed.logits_Bm, expected)
    losses = [functional.cross_entropy(scores, labels) for scores in (passed.logits_Bm, expected)]
    gradients = [torch.autograd.grad(loss, [state[name] for name in trained]) for loss in losses]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert all(torch.equal(moved[name], tensor) for name, tensor in expected_moved.items())

    for layer in LAYERS:
        state[f"{layer}.agent.shift"].fill_(100.0)
        state[f"{layer}.agent.running_mean"].fill_(0.1)
    assert torch.equal(method.logits(state, images[None]), plain.logits(state, images[None]))
    for layer in LAYERS:
        state[f"{layer}.agent.shift"].fill_(-100.0)
    assert not torch.equal(method.logits(state, images[None]), plain.logits(state, images[None]))


def trained_a_little(digits: Datasets) -> tuple[Dynamos, Tensors]:
    return method_of(), weights_of(run(in_double(trial()), digits))


def test_a_test_depends_on_no_other_image(digits: Datasets) -> None:
    """An image's gates and scores are the same alone and in any batch."""
    method, state = trained_a_little(digits)
    images = random_images(32)
    with torch.no_grad():
        together = method.logits(state, images[None])[0]
        alone = torch.cat([method.logits(state, image[None, None])[0] for image in images])
        gates = method._network.gates(state, images)
        gates_alone = [method._network.gates(state, image[None]) for image in images]
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)
    assert list(gates) == LAYERS
    for layer, gates_BO in gates.items():
        assert torch.equal(gates_BO, torch.cat([one[layer] for one in gates_alone]))
        assert set(gates_BO.unique().tolist()) <= {0.0, 1.0}
    share = torch.cat(list(gates.values()), dim=1).mean()
    assert 0 < share < 1


def test_the_share_of_open_gates_is_kept_by_class(digits: Datasets) -> None:
    """Means over all test images of a class, in the record without any weights; classes that never came have zeros."""
    spec = in_double(trial())
    bank = contexts.load(run_trial(spec, data=digits, backbones=backbone.draw).contexts)
    method, state, test = method_of(), weights_of(run(spec, digits)), digits.load("digits").test
    assert list(bank.activity) == LAYERS
    assert bank.tensors.keys() == {f"activity.{layer}" for layer in LAYERS}
    with torch.no_grad():
        for label in range(4):
            images = torch.from_numpy(test.images[test.labels == label]).expand(-1, 3, -1, -1)
            for layer, gates_BO in method._network.gates(state, images).items():
                expected = gates_BO.mean(dim=0).float()
                torch.testing.assert_close(bank.activity[layer][label], expected)
    assert all(len(tensor) == 4 for tensor in bank.activity.values())


def test_tests_gate_by_threshold(digits: Datasets) -> None:
    """As modules do with running statistics, where a keep-probability of at least 1/2 opens a gate."""
    method, state = trained_a_little(digits)
    modules = modules_of(state).eval()
    images = random_images(16)
    with torch.no_grad():
        expected, _ = modules.passed(images.double() / 255, lambda _, policy: (policy.sigmoid() >= 0.5).double())
        torch.testing.assert_close(method.logits(state, images[None])[0], expected, rtol=1e-9, atol=1e-9)


def modules_of(state: Tensors) -> PlainDynamos:
    modules = PlainDynamos(2, 10).double()
    with torch.no_grad():
        for name, tensor in modules.by_name().items():
            tensor.copy_(state[name])
    return modules


# The method


def uniform(name: str, update: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(seeding.numpy_generator(SEED, "update", name, update).random(shape))


def plain_losses(
    spec: DynamosSpec, scores: torch.Tensor, policies: torch.Tensor, gates: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy + w_r R, and w_p P, in loops over examples, layers and pairs."""
    correct = [int(score.argmax()) == int(label) for score, label in zip(scores, labels, strict=True)]
    policy, num_gates = torch.zeros((), dtype=torch.float64), policies.shape[1] // 4
    for example in range(len(scores)):
        for layer in range(4):
            part = slice(layer * num_gates, (layer + 1) * num_gates)
            reward = -((spec.keep_ratio - float(gates[example, part].mean())) ** 2)
            reward *= 1 if correct[example] else spec.wrong_factor
            chances = torch.distributions.Bernoulli(logits=policies[example, part] / spec.temperature)
            policy = policy - reward * chances.log_prob(gates[example, part]).sum() / (4 * len(scores))
    within = between = torch.zeros((), dtype=torch.float64)
    chosen = [example for example in range(len(scores)) if correct[example]]
    for place, one in enumerate(chosen):
        for other in chosen[place + 1 :]:
            distance = (policies[one] - policies[other]).square().sum() / policies.shape[1]
            if labels[one] == labels[other]:
                within = within + distance
            else:
                between = between + distance
    prototype = (1 + within) / (1 + between) if len(chosen) > 2 else 0.0 * within
    return functional.cross_entropy(scores, labels) + spec.reward_weight * policy, spec.prototype_weight * prototype


class PlainBuffer:
    """Slots of image, label, scores and policy logits, or None where nothing was stored yet.

    Args:
        spec: the method's settings.
    """

    def __init__(self, spec: DynamosSpec) -> None:
        self.spec = spec
        self.slots: dict[int, tuple[torch.Tensor, ...]] = {}
        self.seen = 0

    def offer(self, update: int, correct: list[bool], *fields: torch.Tensor) -> None:
        stores = self.spec.stores
        for number, draw in enumerate(uniform("reservoir", update, len(correct)).tolist()):
            if stores == "correct" and not correct[number]:
                continue
            self.seen += 1
            slot = self.seen - 1 if self.seen <= self.spec.buffer else int(draw * self.seen)
            if slot < self.spec.buffer and (stores == "all" or correct[number]):
                self.slots[slot] = tuple(field[number] for field in fields)

    def draw(self, update: int, num_gates: int) -> list[torch.Tensor] | None:
        filled = min(self.seen, self.spec.buffer)
        if not filled:
            return None
        keys = uniform("replay", update, self.spec.buffer).tolist()
        drawn = sorted(range(filled), key=keys.__getitem__)[: self.spec.replay_batch]
        blank = (
            torch.zeros(3, 8, 8, dtype=torch.uint8),
            torch.tensor(0),
            torch.zeros(10).double(),
            torch.zeros(num_gates).double(),
        )
        # While fewer are stored than replayed, they fill up the batch that is normalised.
        drawn += [drawn[place % filled] for place in range(filled, self.spec.replay_batch)]
        return [torch.stack(field) for field in zip(*(self.slots.get(slot, blank) for slot in drawn), strict=True)]


def plain_run(spec: DynamosSpec, digits: Datasets) -> PlainDynamos:
    """The trial as a loop over batches with torch's modules."""
    method = method_of(spec)
    modules = modules_of(method.start_shared()).train()
    num_gates, buffer, split = 16, PlainBuffer(spec), digits.load("digits").train
    update = 0
    for task in range(2):
        chosen = np.flatnonzero(np.isin(split.labels, (2 * task, 2 * task + 1)))
        order = seeding.numpy_generator(SEED, "batches", task, 0).permutation(len(chosen))
        for step in range(8):
            batch = chosen[order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]]
            images = torch.from_numpy(split.images[batch]).expand(-1, 3, -1, -1)
            labels = torch.from_numpy(split.labels[batch])
            pixels = images.double() / 255
            if update < spec.warm_up:
                loss = functional.cross_entropy(modules(pixels), labels)
                descend(modules, loss)
                update += 1
                continue

            def gated(
                pixels: torch.Tensor, name: str, update: int = update
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                draws = uniform(name, update, len(pixels), num_gates).split(num_gates // 4, dim=1)
                gates: list[torch.Tensor] = []

                def gate(number: int, policy: torch.Tensor) -> torch.Tensor:
                    gates.append((draws[number] < torch.sigmoid(policy / spec.temperature)).double().detach())
                    return gates[-1]

                scores, policies = modules.passed(pixels, gate)
                return scores, policies, torch.cat(gates, dim=1)

            scores, policies, gates = gated(pixels, "gates")
            main, prototype = plain_losses(spec, scores, policies, gates, labels)
            loss = main + prototype
            drawn = buffer.draw(update, num_gates)
            if drawn is not None:
                old_images, old_labels, old_scores, old_policies = drawn
                count = min(buffer.seen, spec.buffer, spec.replay_batch)
                again = [field[:count] for field in gated(old_images.double() / 255, "gates replayed")]
                main, prototype = plain_losses(spec, *again, old_labels[:count])
                loss = loss + spec.alpha * functional.mse_loss(again[0], old_scores[:count])
                loss = loss + spec.policy_alpha * functional.mse_loss(again[1], old_policies[:count])
                loss = loss + spec.beta * main + prototype
            correct = (scores.argmax(dim=1) == labels).tolist()
            buffer.offer(update, correct, images, labels, scores.detach(), policies.detach())
            descend(modules, loss)
            update += 1
    return modules


def descend(modules: nn.Module, loss: torch.Tensor) -> None:
    parameters = list(modules.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(RATE * gradient)


@pytest.mark.parametrize("stores", ["correct", "all", "authors"])
def test_it_learns_what_a_plain_loop_learns(stores: Any, digits: Datasets) -> None:
    """All losses, the buffer by each rule, warm-up, gates and statistics: every number after sixteen updates."""
    spec = dataclasses.replace(SPEC, stores=stores)
    found, modules = weights_of(run(in_double(trial(spec)), digits)), plain_run(spec, digits)
    expected = modules.by_name()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name].detach(), rtol=1e-7, atol=1e-9, msg=name)


def test_the_rules_store_different_examples(digits: Datasets) -> None:
    """Each rule ends with different examples in the buffer."""
    kept = [
        weights_of(run(trial(dataclasses.replace(SPEC, stores=rule)), digits)) for rule in ("correct", "all", "authors")
    ]
    assert len({tensors["head.weight"].numpy().tobytes() for tensors in kept}) == 3


def test_nothing_is_moved_by_an_empty_buffer() -> None:
    """Drawing from it gives no loss and no gradient, and leaves the statistics as the batch moved them."""
    method = method_of(dataclasses.replace(SPEC, stores="correct"))
    state = {**method.start_shared(), **method.start_memory()}
    uniforms = {name: torch.rand(size, 16, dtype=torch.float64) for name, size in (("gates", 8), ("gates replayed", 6))}
    images, labels = random_images(8), torch.full((8,), 9)
    expected: Tensors = {}
    (alone,) = method._network.passed(state, [images], [uniforms["gates"]], [expected])
    loss = method._losses.learned(alone, labels, torch.full((8,), 1 / 8, dtype=torch.float64))
    batch = mock.Mock(images=images[None], originals=images[None], labels=labels[None], update=WARM_UP + 1)
    batch.uniform = lambda name, *shape: uniforms.get(name, torch.rand(*shape, dtype=torch.float64))
    batch.view = lambda images, name: images
    with mock.patch.object(method, "_store"):
        step = method.learn(state, batch)
    torch.testing.assert_close(step.loss_G[0], loss, rtol=1e-12, atol=1e-12)
    assert step.moved.keys() == expected.keys()
    for name, tensor in step.moved.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=1e-14)
    trained = [tensor for tensor in state.values() if tensor.requires_grad]
    ours, theirs = (torch.autograd.grad(value, trained, allow_unused=True) for value in (step.loss_G[0], loss))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, rtol=1e-9, atol=1e-12)


def test_a_warm_up_for_ever_is_fine_tuning(digits: Datasets) -> None:
    """Every test and weight of `finetune`, byte for byte; the agents stay as they started."""
    ours = run(trial(dataclasses.replace(SPEC, warm_up=16)), digits)
    theirs = run(trial(FinetuneSpec()), digits)
    assert [(row.task, row.accuracy, row.loss) for row in ours.rows] == [
        (row.task, row.accuracy, row.loss) for row in theirs.rows
    ]
    found, expected = weights_of(ours), weights_of(theirs)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    start = method_of(dtype=torch.float32).start_shared()
    agents = found.keys() - expected.keys()
    assert len(agents) == 4 * 9
    assert all(torch.equal(found[name], start[name].detach()) for name in agents)
    assert Finetune.learn is not Dynamos.learn
    assert isinstance(method_of()._network.ungated, PlainNetwork)


@pytest.mark.parametrize("number", [1, WARM_UP, 5, 12])
def test_a_killed_trial_goes_on_to_equal_bytes(number: int, digits: Datasets) -> None:
    """In warm-up, at its end, while the buffer fills and after."""
    points: list[bytes] = []

    def keep(event: Event) -> None:
        if isinstance(event, ResumePoint):
            points.append(event.content)

    with mock.patch.multiple(crwn.engine, MIN_RESUME_SECONDS=0.0, RESUME_COST_FACTOR=0.0):
        whole = run(trial(), digits, on_event=keep)
    resumed = run(trial(), digits, resume_from=points[number])
    assert resumed.contexts == whole.contexts
    assert [(row.accuracy, row.loss) for row in resumed.rows] == [(row.accuracy, row.loss) for row in whole.rows]


# Settings


def test_the_defaults_are_the_authors() -> None:
    """For sequential MNIST and a buffer of 500."""
    spec = DynamosSpec()
    assert (spec.buffer, spec.replay_batch, spec.alpha, spec.beta, spec.policy_alpha) == (500, 10, 0.2, 2.0, 0.2)
    assert (spec.reward_weight, spec.prototype_weight, spec.keep_ratio, spec.wrong_factor) == (0.5, 0.3, 0.7, 500.0)
    assert (spec.temperature, spec.warm_up, spec.stores) == (0.15, 10, "correct")
    expected = TrainingSpec(learning_rate=0.07, optimizer="sgd", batch_size=10, epochs_per_task=1)
    assert spec.training("dynamos") == expected


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"keep_ratio": 0.0}, "too-small", ["keep_ratio", "0.0"]),
        ({"keep_ratio": 1.0}, "too-large", ["keep_ratio", "1.0"]),
        ({"temperature": 0.0}, "too-small", ["temperature"]),
        ({"stores": "wrong"}, "unknown-name", ["stores", "'correct'", "'authors'"]),
        ({"buffer": 0}, "too-small", ["buffer"]),
        ({"buffer": 9, "replay_batch": 10}, "buffer-below-batch", ["buffer", "9", "10"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], code: str, says: list[str]) -> None:
    """With the field, what it may be, and what was given."""
    with refused(InvalidError, code, says=says):
        DynamosSpec(**settings)


def test_all_faults_are_reported_at_once() -> None:
    """Fields out of range, and a buffer that does not hold a batch."""
    with refused(InvalidError, "too-large", "buffer-below-batch", says=["keep_ratio", "buffer"]):
        DynamosSpec(keep_ratio=2.0, buffer=5)
