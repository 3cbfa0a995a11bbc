"""Exact parameter counts per task, in the blueprint and in the networks built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from crwn.benchmarks.permuted import PermutedSpec
from crwn.methods import METHODS
from crwn.methods.agem import AGEMSpec
from crwn.methods.batche import BatchESpec
from crwn.methods.derpp import DERPPSpec
from crwn.methods.er import ERSpec
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.mtl import MTLSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.protocol import Tensors
from crwn.methods.psp import PSPSpec
from crwn.methods.stl import STLSpec
from crwn.methods.supsup import SupSupSpec
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings

MNIST = ProblemShape(input_shape=(1, 28, 28), num_classes=10, num_tasks=36)


FC256 = 784 * 256 + 256 * 256 + 256 * 10
"""Weights; 268,800."""


@dataclass(frozen=True)
class Case:
    """A network and its exact counts: numbers trained a task, numbers kept of it, and numbers learned for all."""

    method: Any
    scale: str
    trained: int
    kept: int
    shared: int = 0

    def __str__(self) -> str:
        modes = [getattr(self.method, "modulation", ""), "pretrained" if getattr(self.method, "pretrained", "") else ""]
        return "-".join(filter(None, [self.method.kind, self.scale, *modes]))


def cases() -> Iterator[Case]:
    """FC_H has contexts of 784 + H + H and three strengths; FlyNet one of N = s 784 and one; SupSup a bit a weight.

    BatchE has a number for each input and each output of a layer; PSP, MTL and STL train all weights with every task.
    """
    for hidden, params in ((256, 1299), (512, 1811), (1024, 2835), (2048, 4883), (4096, 8979)):
        yield Case(NeuroModNetSpec(), f"FC{hidden}", params, params)
        yield Case(NeuroModNetSpec(modulation="local"), f"FC{hidden}", params - 3, params)
        yield Case(NeuroModNetSpec(modulation="global"), f"FC{hidden}", 3, params)
        num_weights = (784 + hidden + 10) * hidden
        yield Case(NeuroModNetSpec(pretrained=True), f"FC{hidden}", params, params, num_weights)
    for expansion, params in ((10, 7841), (20, 15_681), (30, 23_521), (40, 31_361)):
        yield Case(FlyNetSpec(), f"{expansion}d", params, params)
        yield Case(FlyNetSpec(modulation="local"), f"{expansion}d", params - 1, params)
        yield Case(FlyNetSpec(modulation="global"), f"{expansion}d", 1, params)
    yield Case(SupSupSpec(), "FC256", FC256, FC256)
    factors = (784 + 256) + (256 + 256) + (256 + 10)
    yield Case(BatchESpec(), "FC256", factors, factors, FC256)
    yield Case(PSPSpec(), "FC256", FC256, 0, FC256)
    yield Case(MTLSpec(), "FC256", FC256, 0, FC256)
    yield Case(STLSpec(), "FC256", FC256, FC256)


def build(case: Case | Row, problem: ProblemShape = MNIST) -> Any:
    """The network over weights of zero: what is counted are shapes, and drawing a hundred megabytes takes seconds."""
    arrays = case.method.blueprint(case.scale, problem, 0).backbone.arrays
    surroundings = plain_surroundings(
        case.scale, problem, backbone={array.name: torch.zeros(array.shape) for array in arrays}
    )
    return METHODS[case.method.kind].build(case.method, surroundings)


def num_kept(kept: Tensors) -> int:
    """A byte of a packed mask holds eight entries; all layers here have a multiple of eight."""
    return sum(tensor.numel() * (8 if tensor.dtype == torch.uint8 else 1) for tensor in kept.values())


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_counts_are_exact(case: Case) -> None:
    """What the blueprint says before anything is built is what the built network trains, keeps and shares."""
    blueprint = case.method.blueprint(case.scale, MNIST, 0)
    assert blueprint.trained_per_task == case.trained
    assert blueprint.stored_per_task == case.kept
    assert blueprint.stored_shared == case.shared

    method = build(case)
    state, shared = method.start([0]), method.start_shared()
    num_shared = sum(tensor.numel() for tensor in shared.values())
    assert num_shared == case.shared
    num_own = sum(tensor.numel() for tensor in state.values() if tensor.requires_grad)
    assert num_own + (num_shared if blueprint.moves_shared == "always" else 0) == case.trained
    assert num_kept(method.pack({name: tensor.detach() for name, tensor in state.items()})) == case.kept


@dataclass(frozen=True)
class Row:
    """A row of the table of parameters a task, in the paper's convention, as printed."""

    method: Any
    scale: str
    num_tasks: int
    printed: str

    def __str__(self) -> str:
        mode = "-pretrained" if getattr(self.method, "pretrained", False) else ""
        return f"{self.method.kind}{mode}-{self.scale}-{self.num_tasks}"


TABLE = [
    *[
        Row(method(), "FC256", num_tasks, "268,800")
        for method in (MTLSpec, STLSpec, SupSupSpec)
        for num_tasks in (36, 100)
    ],
    Row(PSPSpec(), "FC256", 36, "1,014,528"),
    Row(PSPSpec(), "FC256", 100, "1,014,528"),
    Row(BatchESpec(), "FC256", 36, "9,285"),
    Row(BatchESpec(), "FC256", 100, "4,506"),
    *[
        Row(FlyNetSpec(), f"{expansion}d", 36, printed)
        for expansion, printed in ((10, "7,841"), (20, "15,681"), (30, "23,521"), (40, "31,361"))
    ],
    *[
        Row(NeuroModNetSpec(), f"FC{hidden}", 36, printed)
        for hidden, printed in ((256, "1,299"), (512, "1,811"), (1024, "2,835"), (2048, "4,883"), (4096, "8,979"))
    ],
    Row(NeuroModNetSpec(pretrained=True), "FC4096", 36, "565,352"),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_table_of_parameters_is_exact(row: Row) -> None:
    """Of the blueprint, and of the tensors of the network as it is built.

    These are a task's own, PSP's contexts among them though they are not trained; and the shared ones, which count
    whole where every task trains them and divided by the number of tasks where the first does.
    """
    problem = ProblemShape(input_shape=(1, 28, 28), num_classes=10, num_tasks=row.num_tasks)
    blueprint = row.method.blueprint(row.scale, problem, 0)
    assert f"{blueprint.params_per_task:,.0f}" == row.printed

    method = build(row, problem)
    num_own = sum(tensor[0].numel() for tensor in method.start([0]).values())
    num_shared = sum(tensor.numel() for tensor in method.start_shared().values())
    built = num_own + num_shared / (row.num_tasks if blueprint.moves_shared == "first segment" else 1)
    assert blueprint.params_per_task == pytest.approx(built, rel=1e-15)


@pytest.mark.parametrize(
    ("method", "scale", "params"),
    [
        (NeuroModNetSpec(modulation="local"), "FC256", 1296),
        (NeuroModNetSpec(modulation="global"), "FC256", 3),
        (FlyNetSpec(modulation="local"), "10d", 7840),
        (FlyNetSpec(modulation="global"), "10d", 1),
        (NeuroModNetSpec(modulation="local", pretrained=True), "FC256", FC256 / 36 + 1296),
    ],
)
def test_what_is_not_trained_is_no_parameter(method: Any, scale: str, params: float) -> None:
    """Strengths or contexts that stay at their start do not count, as in the paper's ablation."""
    assert method.blueprint(scale, MNIST, 0).params_per_task == pytest.approx(params, rel=1e-15)


@pytest.mark.parametrize(
    ("method", "scale", "arrays"),
    [
        (NeuroModNetSpec(), "FC256", [("layer1", 256, 784), ("layer2", 256, 256), ("layer3", 10, 256)]),
        (SupSupSpec(), "FC512", [("layer1", 512, 784), ("layer2", 512, 512), ("layer3", 10, 512)]),
        (FlyNetSpec(), "10d", [("encoder", 7840, 784), ("decoder", 10, 7840)]),
        *[
            (method, "FC256", [("layer1", 256, 784), ("layer2", 256, 256), ("layer3", 10, 256)])
            for method in (BatchESpec(), PSPSpec(), MTLSpec())
        ],
        (STLSpec(), "FC256", []),
    ],
)
def test_drawn_weights_have_the_shapes_of_the_layers(method: Any, scale: str, arrays: list[tuple[Any, ...]]) -> None:
    """FC_H is 784 -> H -> H -> 10; FlyNet 784 -> N -> 10; no biases anywhere. STL's are each task's own."""
    specs = method.blueprint(scale, MNIST, 7).backbone
    assert [(array.name, *array.shape) for array in specs.arrays] == arrays
    assert specs.seed == 7


@pytest.mark.parametrize(
    ("method", "scale", "multiply_adds", "activations"),
    [
        # forward and to each layer's input: twice 784 H + H H + 10 H; the input and e * x of each layer, and logits
        (NeuroModNetSpec(), "FC256", 2 * 268_800, 2 * (784 + 256 + 256) + 10),
        # forward, to all scores, and to the inputs of all layers but the first
        (SupSupSpec(), "FC256", 3 * 268_800 - 784 * 256, 784 + 256 + 256 + 10),
        # the 78 pixels that a unit sums, forward only, the decoder twice; the input, z, h and e * h, and logits
        (FlyNetSpec(), "10d", 7840 * (78 + 2 * 10), 784 + 3 * 7840 + 10),
        # forward, to all weights, and to the inputs of all layers but the first; a layer's input, and logits
        (MTLSpec(), "FC256", 3 * FC256 - 784 * 256, 784 + 256 + 256 + 10),
        (STLSpec(), "FC256", 3 * FC256 - 784 * 256, 784 + 256 + 256 + 10),
        # as these, and the rotations forward and back, the first only forward; a layer's input and that rotated
        (
            PSPSpec(),
            "FC256",
            3 * FC256 - 784 * 256 + 2 * (784**2 + 2 * 256**2) - 784**2,
            2 * (784 + 256 + 256) + 10,
        ),
        # forward, and to the inputs of all layers; a layer's input, that times s, its output before r, and logits
        (BatchESpec(), "FC256", 2 * FC256, 2 * (784 + 256 + 256) + (256 + 256 + 10) + 10),
    ],
)
def test_estimates_for_planning(method: Any, scale: str, multiply_adds: int, activations: int) -> None:
    """The work and the memory of a training step on one example, summed by hand for each network."""
    blueprint = method.blueprint(scale, MNIST, 0)
    assert blueprint.multiply_adds == multiply_adds
    assert blueprint.activations == activations


@pytest.mark.parametrize("batch_size", [1, 10, 128])
@pytest.mark.parametrize(
    ("method", "replayed"),
    [
        (FinetuneSpec(), 0),
        (ERSpec(buffer=200, replay_batch=16), 16),
        (ERSpec(buffer=7, replay_batch=16), 7),
        (DERPPSpec(replay_batch=16), 2 * 16),
        (DERPPSpec(replay_batch=16, alpha=0.0), 16),
        (AGEMSpec(buffer=80, replay_batch=128), 72),
    ],
)
def test_what_is_replayed_is_counted_beside_the_trials_own_batch(method: Any, replayed: int, batch_size: int) -> None:
    """Not by the method's default batch."""
    training = TrainingSpec(learning_rate=0.1, batch_size=batch_size)
    benchmark = PermutedSpec(num_tasks=36, task_known=False)
    spec = TrialSpec(method=method, benchmark=benchmark, scale="FC256", seed=0, training=training)
    assert spec.multiply_adds_per_update() == (3 * FC256 - 784 * 256) * (batch_size + replayed)
