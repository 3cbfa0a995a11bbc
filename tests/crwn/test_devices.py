"""Without a GPU: no method mixes devices, or waits for one between two points of a curve.

Whole trials run on tensors without numbers (`devices.py`): on `meta`, forward and backward, and on torch's made-up
`cuda`, where gradients are zeros, since autograd asks a real GPU for its streams.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import crwn.engine
import crwn.learner
import crwn.trial
from crwn import backbone, replay
from crwn.batches import Batch, Lanes
from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.data import Datasets
from crwn.data.base import Normalisation
from crwn.engine import Engine
from crwn.events import EngineEvent, Learned, Numerics, ResumePoint
from crwn.groups import Group
from crwn.methods import METHODS
from crwn.methods.finetune import Finetune
from crwn.methods.metaplastic import MetaplasticSpec
from crwn.methods.protocol import NETWORKS, Step, Tensors
from crwn.optimizers import OPTIMIZERS
from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from tests.crwn.devices import DeviceError, DeviceWatch
from tests.methods import CASES
from tests.methods.case import Case

Device = Literal["meta", "cuda"]
on_both = pytest.mark.parametrize("device", ["meta", "cuda"])
pytestmark = pytest.mark.usefixtures("one_thread")


def trial(name: str, *, num_tasks: int = 2, **changes: Any) -> TrialSpec:
    case = CASES[name].under_contract
    if case.benchmark is not None:
        changes = {"benchmark": case.shortened(num_tasks), **changes}
    training = TrainingSpec(learning_rate=case.learning_rate, updates_per_task=3, batch_size=16)
    return case.trial(**{"num_tasks": num_tasks, "training": training, **changes})


def learns_a_resnet(case: Case) -> bool:
    """One task of it, alone."""
    try:
        case.trial(scale="nf2", num_tasks=1)
    except ValueError:
        return False
    return True


@contextmanager
def made_up(device: Device) -> Iterator[DeviceWatch]:
    """Tensors on this device have no values."""
    with ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))

            def zeros(loss: torch.Tensor, inputs: Any, **how: Any) -> tuple[torch.Tensor, ...]:
                del loss, how
                return tuple(torch.zeros_like(tensor) for tensor in inputs)

            stack.enter_context(mock.patch("torch.autograd.grad", zeros))
        yield stack.enter_context(DeviceWatch())


@contextmanager
def no_waits_in_updates(watch: DeviceWatch) -> Iterator[None]:
    """Updates and batches wait for nothing, except at points of a curve."""

    def updated(engine: Engine, group: Group, batch: Batch) -> None:
        before = len(watch.waits)
        update(engine, group, batch)
        if group.block_examples:  # else a point was made
            check("an update", watch.waits[before:])

    def taken(lanes: Lanes, *args: Any, **how: Any) -> Batch:
        before = len(watch.waits)
        batch = take(lanes, *args, **how)
        check("making a batch", watch.waits[before:])
        return batch

    def check(what: str, waits: list[str]) -> None:
        if waits:
            raise DeviceError(f"{what}: expected not to wait for the device, given {waits}")

    update, take = Engine._update, Lanes.batch
    with mock.patch.object(Engine, "_update", updated), mock.patch.object(Lanes, "batch", taken):
        yield


def engine_of(spec: TrialSpec, data: Datasets, device: Device) -> Engine:
    num_tasks = spec.benchmark.problem().num_tasks
    group_size = {"one": 1, "any": min(2, num_tasks), "all": num_tasks}[spec.blueprint().grouping]
    numerics = Numerics(device=device, group_size=group_size, kernel="plain", threads=1)  # type: ignore[arg-type]
    return crwn.trial._build_engine(spec, data, backbone.draw(spec.blueprint().backbone), numerics)


def run(
    spec: TrialSpec, data: Datasets, device: Device, resume_from: bytes | None = None, *, points: bool = False
) -> list[EngineEvent]:
    """A whole trial, perhaps with a resume point after each update."""
    wait = 0.0 if points else math.inf
    with (
        mock.patch("crwn.groups.CURVE_EVERY", 2),
        mock.patch.object(crwn.engine, "MIN_RESUME_SECONDS", wait),
        mock.patch.object(crwn.engine, "MAX_RESUME_SECONDS", wait),
        made_up(device) as watch,
        no_waits_in_updates(watch),
    ):
        return list(engine_of(spec, data, device).run(resume_from))


@on_both
@pytest.mark.parametrize("name", CASES)
def test_a_method_stays_on_its_device(name: str, digits: Datasets, device: Device) -> None:
    """Every hook in a whole trial, and its tests: no operation on two devices, no wait within an update.

    On `meta` the trial goes on once more from a resume point, whose tensors come from the CPU. (What a made-up GPU
    gives back cannot be written down.)
    """
    *events, last = run(trial(name), digits, device, points=device == "meta")
    assert isinstance(last, Learned)
    if device == "meta":
        points = [event for event in events if isinstance(event, ResumePoint)]
        point = next(point for point in reversed(points) if point.progress.step)
        assert isinstance(run(trial(name), digits, device, resume_from=point.content)[-1], Learned)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if learns_a_resnet(case)])
def test_a_resnet_stays_on_its_device(name: str, digits: Datasets) -> None:
    """Convolutions, batch normalisation and its statistics, forward and backward: an update of one task.

    Where something is remembered of it, an update of a second one, too.
    """
    blueprint = CASES[name].blueprint()
    num_tasks = 2 if blueprint.stored_memory or blueprint.examples_kept else 1
    training = TrainingSpec(learning_rate=0.01, updates_per_task=1, batch_size=128)
    spec = trial(name, num_tasks=num_tasks, scale="nf2", training=training)
    assert isinstance(run(spec, digits, "meta")[-1], Learned)


@pytest.mark.parametrize("name", ["er", "ewc", "lwf"])
def test_a_network_of_ones_own_stays_on_its_device(name: str, digits: Datasets) -> None:
    """Its initial values come from the CPU; then updates, importances, features and tests are on the device.

    (On `meta`: torch moves no module of made-up tensors.)
    """

    def own(image: tuple[int, int, int], num_classes: int) -> nn.Module:
        layers = (nn.Conv2d(image[0], 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.1), nn.Flatten())
        return nn.Sequential(*layers, nn.Linear(2 * 36, num_classes))

    with NETWORKS.adding({"own": own}):
        spec = trial(name, scale="own")
        assert isinstance(run(spec, digits, "meta")[-1], Learned)


@on_both
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimisers_stay_on_their_device(digits: Datasets, device: Device, optimizer: Any) -> None:
    """With every kind of optimiser state."""
    momentum, weight_decay = 0.9 if optimizer == "sgd" else 0.0, 0.0 if optimizer == "rmsprop" else 0.1
    training = TrainingSpec(
        learning_rate=0.01,
        optimizer=optimizer,
        updates_per_task=3,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    assert isinstance(run(trial("finetune", training=training), digits, device)[-1], Learned)


@on_both
@pytest.mark.parametrize(
    "benchmark",
    [
        SequentialSpec(base="digits", num_tasks=2, crop_padding=1, flip=True, channels=3),
        TurningSpec(base="digits", test_every=8),
    ],
    ids=["augmented", "stream"],
)
def test_batches_and_tests_stay_on_their_device(digits: Datasets, device: Device, benchmark: Any) -> None:
    """Random crops and flips; tests among a task's classes; a stream with tests in its middle."""
    is_stream = benchmark.problem().is_stream
    training = TrainingSpec(learning_rate=0.01, batch_size=64, **({} if is_stream else {"updates_per_task": 3}))
    assert isinstance(run(trial("finetune", benchmark=benchmark, training=training), digits, device)[-1], Learned)


@on_both
def test_flexibilities_used_within_updates_stay_on_their_device(digits: Datasets, device: Device) -> None:
    """They are kept, not drawn again, which would make an update wait."""
    training = TrainingSpec(learning_rate=0.01, batch_size=64)
    benchmark = TurningSpec(base="digits", test_every=8)
    method = MetaplasticSpec(steepness=50.0, every=2)
    assert isinstance(
        run(trial("finetune", method=method, benchmark=benchmark, training=training), digits, device)[-1], Learned
    )


@on_both
def test_images_in_colour_are_normalised_on_their_device(device: Device) -> None:
    """With three factors, which come from the CPU."""
    with made_up(device) as watch:
        images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device=device)
        normalisation = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
        assert normalisation(images, torch.float32).device.type == device
        assert watch.waits == []


@on_both
def test_a_buffer_stays_on_its_device(device: Device) -> None:
    """Filled, overfilled, with rejected examples, drawn from: nothing is read, not even how full it is."""
    with made_up(device) as watch:
        on_device: Any = {"device": torch.device(device)}
        buffer = replay.empty(4, 64, {"logits": (10,)}, **on_device)
        images = torch.zeros(3, 64, dtype=torch.uint8, **on_device)
        examples = {"images": images, "labels": torch.zeros(3, dtype=torch.int64, **on_device)}
        examples["logits"] = torch.zeros(3, 10, **on_device)
        replay.offer_(buffer, examples, np.zeros(3), 0)
        some_B = torch.zeros(3, dtype=torch.bool, **on_device)
        uniforms_B = torch.zeros(3, dtype=torch.float64, **on_device)
        replay.offer_those_(buffer, examples, uniforms_B, counted_B=some_B, stored_B=some_B)
        buffer |= replay.put(buffer, examples)
        drawn = replay.draw(buffer, 3, torch.zeros(4, dtype=torch.float64, **on_device))
        assert drawn.take(buffer, "images").device.type == device
        assert drawn.mean(torch.zeros(3, dtype=torch.float64, **on_device)).device.type == device
        assert watch.waits == []


# Mistakes, each in a copy of a method that makes none


def _operand(step: Step) -> torch.Tensor:
    return step.loss_G * torch.ones(1)


def _index(step: Step) -> torch.Tensor:
    return step.loss_G.index_select(0, torch.arange(1))


def _listed(step: Step) -> torch.Tensor:
    return step.loss_G[[0]]


def _mask(step: Step) -> torch.Tensor:
    return step.loss_G[step.loss_G > -1]


def _item(step: Step) -> torch.Tensor:
    return step.loss_G * step.loss_G.mean().item()


def _branch(step: Step) -> torch.Tensor:
    return step.loss_G if step.loss_G.sum() < 1e9 else 0 * step.loss_G


def _cpu(step: Step) -> torch.Tensor:
    return step.loss_G * step.loss_G.detach().cpu()[0]


def _blocking(step: Step) -> torch.Tensor:
    return step.loss_G * torch.ones(1).to(step.loss_G.device)


def _constant(step: Step) -> torch.Tensor:
    return step.loss_G * torch.tensor([1.0], device=step.loss_G.device)


def _copied(step: Step) -> torch.Tensor:
    torch.ones(1).copy_(step.loss_G.detach())
    return step.loss_G


MISTAKES = [_operand, _index, _listed, _mask, _item, _branch, _cpu, _blocking, _constant, _copied]


@on_both
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(
    digits: Datasets, monkeypatch: pytest.MonkeyPatch, device: Device, mistake: Callable[[Step], torch.Tensor]
) -> None:
    """An operand or an index from the CPU; a value that is read, branched on or selects; a copy that is waited for."""

    class Mistaken(Finetune):
        learns_by_hand = False  # it changes the loss

        def learn(self, state: Tensors, batch: Batch) -> Step:
            step = super().learn(state, batch)
            return dataclasses.replace(step, loss_G=mistake(step))

    entry = dataclasses.replace(METHODS["finetune"], build=Mistaken)
    monkeypatch.setattr(crwn.learner, "METHODS", {"finetune": entry})
    with pytest.raises(DeviceError):
        run(trial("finetune"), digits, device)


@on_both
def test_a_number_without_dimensions_may_lie_on_the_cpu(device: Device) -> None:
    """As with a GPU's tensors."""
    with made_up(device) as watch:
        assert (torch.zeros(2, device=device) * torch.tensor(2.0)).device.type == device
        assert watch.waits == []
