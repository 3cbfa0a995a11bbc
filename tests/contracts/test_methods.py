"""What every method promises, whatever it computes. A new method is added to `CASES`, and all of this holds for it.

The trials are small: 4 tasks of rotated digits, a few updates, networks of a few units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional

import crwn.trial
from crwn import backbone, contexts
from crwn.benchmarks import BENCHMARKS, BenchmarkEntry
from crwn.benchmarks.protocol import Benchmark, Split
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.base import ImageSet
from crwn.data.digits import DIGITS
from crwn.engine import Numerics, TaskRow
from crwn.methods import METHODS
from crwn.methods.protocol import Method, Surroundings, Tensors
from crwn.spec import MethodSpec, TrainingSpec, TrialSpec
from crwn.trial import Finished, run_trial

CASES = {"neuromodnet": "FC16", "flynet": "2d", "supsup": "FC16"}
"""A small scale of each method."""

NUM_TASKS = 4

pytestmark = [pytest.mark.parametrize("name", CASES), pytest.mark.usefixtures("one_thread")]


def trial(name: str, *, seed: int = 0, dtype: str = "float64", learning_rate: float = 0.01) -> TrialSpec:
    return TrialSpec(
        method=METHODS[name].spec(),
        benchmark=RotatedSpec(base="digits", num_tasks=NUM_TASKS, step_degrees=30.0),
        scale=CASES[name],
        seed=seed,
        training=TrainingSpec(learning_rate=learning_rate, updates_per_task=30, batch_size=64, dtype=dtype),
    )


def surroundings_of(spec: TrialSpec) -> Surroundings:
    dtype = getattr(torch, spec.training.dtype)
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    return Surroundings(
        scale=spec.scale,
        problem=spec.benchmark.problem(),
        seed=spec.seed,
        backbone={key: torch.tensor(array, dtype=dtype) for key, array in arrays.items()},
        device=torch.device("cpu"),
        dtype=dtype,
    )


def build(spec: TrialSpec) -> Method:
    return METHODS[spec.method.kind].build(spec.method, surroundings_of(spec))


def inputs(num_tasks: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, 10, 64, dtype=torch.float64, generator=generator)


def gradients(method: Method, tasks: Sequence[int], input_GBd: torch.Tensor, labels_GB: torch.Tensor) -> Tensors:
    """Those of the sum of the tasks' mean losses, as the engine forms it."""
    state = method.start(tasks)
    losses = functional.cross_entropy(
        method.logits(state, input_GBd).flatten(0, 1), labels_GB.flatten(), reduction="none"
    )
    losses.view(labels_GB.shape).mean(dim=1).sum().backward()
    return {key: tensor.grad for key, tensor in state.items() if tensor.requires_grad}


def run(spec: TrialSpec, data: Datasets, group_size: int = 1) -> Finished:
    numerics = Numerics(device="cpu", group_size=group_size, kernel="eager", threads=1)
    return run_trial(spec, data=data, backbones=backbone.draw, numerics=numerics)


def results(finished: Finished) -> list[TaskRow]:
    """All rows without their times; points of curves are compared without theirs."""
    return [dataclasses.replace(row, train_seconds=None, eval_seconds=0.0, tested=0.0) for row in finished.rows]


def test_every_method_is_under_contract(name: str) -> None:
    """The registry and the cases of this file are the same methods, each under its own kind and with its own spec."""
    assert set(CASES) == set(METHODS)
    spec = METHODS[name].spec()
    assert spec.kind == name
    assert isinstance(spec, MethodSpec)
    assert isinstance(spec.training(), TrainingSpec)


def test_a_start_depends_on_seed_and_task_alone(name: str) -> None:
    """Task 3 starts alike at every time, alone or beside others, in any order; other tasks and seeds elsewhere."""
    method = build(trial(name))
    alone, again = method.start([3]), build(trial(name)).start([3])
    beside = method.start([1, 3])
    turned = method.start([3, 2, 1])
    other_seed = build(trial(name, seed=1)).start([3])
    for key, tensor in alone.items():
        assert torch.equal(tensor, again[key])
        assert torch.equal(tensor, beside[key][1:])
        assert torch.equal(tensor, turned[key][:1])
        assert torch.equal(beside[key][:1], turned[key][2:])
    assert any(not torch.equal(beside[key][0], beside[key][1]) for key in alone)
    assert any(not torch.equal(tensor, other_seed[key]) for key, tensor in alone.items())


def test_a_start_has_the_task_axis_and_the_dtype(name: str) -> None:
    """Every tensor has the tasks first and the trial's dtype, and shares its memory with no other."""
    for dtype in ("float32", "float64"):
        state = build(trial(name, dtype=dtype)).start([2, 0, 1])
        assert all(tensor.shape[0] == 3 for tensor in state.values())
        assert all(tensor.dtype == getattr(torch, dtype) for tensor in state.values())
        assert all(tensor.is_leaf for tensor in state.values())
        assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == len(state)


def test_both_dtypes_start_from_the_same_numbers(name: str) -> None:
    """A trial in float64 is the same trial computed more exactly."""
    single, double = (build(trial(name, dtype=dtype)).start([0, 1]) for dtype in ("float32", "float64"))
    for key, tensor in single.items():
        assert torch.equal(tensor.double(), double[key])


def test_the_blueprint_counts_what_is_trained_and_kept(name: str) -> None:
    """Numbers that require a gradient, and numbers in what is kept, a packed bit counting as one."""
    spec = trial(name)
    method, blueprint = build(spec), spec.blueprint()
    state = method.start([0])
    assert sum(tensor.numel() for tensor in state.values() if tensor.requires_grad) == blueprint.trained_per_task
    kept = method.pack({key: tensor.detach() for key, tensor in state.items()})
    num_kept = sum(tensor.numel() * (8 if tensor.dtype == torch.uint8 else 1) for tensor in kept.values())
    assert num_kept == blueprint.stored_per_task


def test_the_blueprint_draws_exactly_what_is_read(name: str) -> None:
    """With its arrays the method gives class scores, and there is none that could be changed without changing them."""
    spec = trial(name)
    surroundings, array_specs = surroundings_of(spec), spec.blueprint().backbone.arrays
    method = METHODS[name].build(spec.method, surroundings)
    logits = method.logits(method.start([0, 1]), inputs(2))
    assert logits.shape == (2, 10, 10)
    assert spec.blueprint().backbone.seed == spec.seed
    assert {array.name for array in array_specs} == set(surroundings.backbone)
    for array in array_specs:
        drawn = surroundings.backbone[array.name]
        assert tuple(drawn.shape) == array.shape
        changed = dataclasses.replace(surroundings, backbone={**surroundings.backbone, array.name: drawn.flip(0)})
        other = METHODS[name].build(spec.method, changed)
        assert not torch.equal(other.logits(other.start([0, 1]), inputs(2)), logits), array.name


def test_what_is_kept_gives_the_same_logits(name: str) -> None:
    """Packing and unpacking changes no bit of the class scores, for a group and for one task cut out of it."""
    method = build(trial(name))
    state = {key: tensor.detach() for key, tensor in method.start([0, 1, 2]).items()}
    generator = torch.Generator().manual_seed(0)
    for tensor in state.values():  # anywhere, not only where tasks start
        tensor.add_(torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator) / 10)
    kept = method.pack(state)
    assert torch.equal(method.logits(method.unpack(kept), inputs(3)), method.logits(state, inputs(3)))

    one = {key: tensor[1:2] for key, tensor in kept.items()}
    own = {key: tensor[1:2] for key, tensor in state.items()}
    assert torch.equal(method.logits(method.unpack(one), inputs(1)), method.logits(own, inputs(1)))


def test_gradients_do_not_depend_on_the_other_tasks(name: str) -> None:
    """Other images and labels of task 1 change its own gradients, and no bit of those of the tasks beside it."""
    method = build(trial(name))
    labels = torch.arange(30).view(3, 10) % 10
    before = gradients(method, [0, 1, 2], inputs(3), labels)
    other_inputs, other_labels = inputs(3), labels.clone()
    other_inputs[1] = inputs(3, seed=1)[1]
    other_labels[1] = 9 - labels[1]
    after = gradients(method, [0, 1, 2], other_inputs, other_labels)
    for key, gradient in before.items():
        assert torch.equal(after[key][[0, 2]], gradient[[0, 2]])
        assert not torch.equal(after[key][1], gradient[1])


def test_a_group_has_the_gradients_of_its_tasks_alone(name: str) -> None:
    """The gradients of three tasks learned together are those of each learned alone, to rounding."""
    method = build(trial(name))
    labels = torch.arange(30).view(3, 10) % 10
    together = gradients(method, [0, 1, 2], inputs(3), labels)
    for task in range(3):
        alone = gradients(method, [task], inputs(3)[task : task + 1], labels[task : task + 1])
        for key, gradient in alone.items():
            torch.testing.assert_close(together[key][task : task + 1], gradient, rtol=1e-10, atol=1e-13)


def test_group_sizes_agree_in_float64(name: str, digits: Datasets) -> None:
    """Tasks learned one at a time and in groups of 3 and 1: equal accuracies, losses equal to rounding."""
    alone, together = (run(trial(name), digits, group_size) for group_size in (1, 3))
    assert alone.fingerprint == together.fingerprint
    for one, other in zip(results(alone), results(together), strict=True):
        assert one.accuracy == other.accuracy
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
        for point, other_point in zip(one.curve, other.curve, strict=True):
            assert point.accuracy == other_point.accuracy
            assert point.loss == pytest.approx(other_point.loss, rel=1e-9)


def test_group_sizes_agree_in_float32(name: str, digits: Datasets) -> None:
    """In single precision, at the method's own rate, accuracies agree within 4 of 360 images and losses within 1%.

    Sums in another order differ in the last of 24 bits. Contexts and strengths pass that on as it is; in SupSup it can
    turn a mask's bit whose score is next to 0, and one bit of these small networks can move a loss by half a percent.
    """
    learning_rate = METHODS[name].spec().training().learning_rate
    spec = trial(name, dtype="float32", learning_rate=learning_rate)
    alone, together = (run(spec, digits, group_size) for group_size in (1, 3))
    for one, other in zip(results(alone), results(together), strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=4 / 360)
        assert one.loss == pytest.approx(other.loss, rel=1e-2)


@pytest.mark.parametrize("group_size", [1, 3])
def test_nothing_is_forgotten(name: str, digits: Datasets, group_size: int) -> None:
    """The test after the last task repeats the test after the task itself: every accuracy and loss, bit for bit."""
    rows = run(trial(name, dtype="float32"), digits, group_size).rows
    diagonal, final = rows[:NUM_TASKS], (*rows[NUM_TASKS:], rows[NUM_TASKS - 1])
    assert [row.task for row in diagonal] == [row.task for row in final] == list(range(NUM_TASKS))
    assert [row.tasks_learned for row in final] == [NUM_TASKS] * NUM_TASKS
    assert [row.accuracy for row in diagonal] == [row.accuracy for row in final]
    assert [row.loss for row in diagonal] == [row.loss for row in final]


def test_tasks_are_learned(name: str, digits: Datasets) -> None:
    """After 30 updates the loss on the test images of the upright task is at least a tenth below that at its start."""
    spec, test = trial(name), digits.load("digits").test
    method = build(spec)
    pixels = (torch.from_numpy(test.images).double().flatten(1)[None] / 255 - DIGITS.mean) / DIGITS.std
    with torch.no_grad():
        loss = functional.cross_entropy(method.logits(method.start([0]), pixels)[0], torch.from_numpy(test.labels))
    assert run(spec, digits).rows[0].loss < 0.9 * loss.item()


class Altered:
    """A benchmark in which the training images of one task are negatives and its labels turned."""

    def __init__(self, benchmark: Benchmark, task: int) -> None:
        self._benchmark = benchmark
        self._task = task
        self.num_tasks = benchmark.num_tasks

    def train_split(self, task: int) -> Split:
        split = self._benchmark.train_split(task)
        return Split(images=255 - split.images, labels=9 - split.labels) if task == self._task else split

    def test_split(self, task: int) -> Split:
        return self._benchmark.test_split(task)

    def normalise(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self._benchmark.normalise(images, dtype)


@pytest.mark.parametrize("group_size", [1, 3])
def test_other_tasks_data_change_nothing(
    name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch, group_size: int
) -> None:
    """Other training data of task 1 change its own results; those of tasks 0, 2 and 3 stay bit for bit.

    In groups of 3 tasks 0 and 2 are learned together with task 1.
    """
    spec = trial(name, dtype="float32")
    before = run(spec, digits, group_size)

    def build_altered(spec: RotatedSpec, images: ImageSet, seed: int, device: torch.device) -> Altered:
        return Altered(BENCHMARKS["rotated"].build(spec, images, seed, device), task=1)

    monkeypatch.setattr(crwn.trial, "BENCHMARKS", {"rotated": BenchmarkEntry(spec=RotatedSpec, build=build_altered)})
    after = run(spec, digits, group_size)
    for one, other in zip(results(before), results(after), strict=True):
        assert (one == other) == (one.task != 1)
    banks = [contexts.load(finished.contexts).tensors for finished in (before, after)]
    for key, tensor in banks[0].items():
        assert torch.equal(tensor[[0, 2, 3]], banks[1][key][[0, 2, 3]])
    assert any(not torch.equal(tensor[1], banks[1][key][1]) for key, tensor in banks[0].items())


def test_equal_seeds_give_equal_results(name: str, digits: Datasets) -> None:
    """Byte for byte: rows, curves and contexts of a trial that is run again."""
    one, other = run(trial(name, dtype="float32"), digits), run(trial(name, dtype="float32"), digits)
    assert results(one) == results(other)
    assert one.contexts == other.contexts
    assert one.fingerprint == other.fingerprint


def test_every_seed_is_another_trial(name: str, digits: Datasets) -> None:
    """Other weights, other starts, other results."""
    finished = [run(trial(name, seed=seed), digits) for seed in range(3)]
    assert len({result.fingerprint for result in finished}) == 3
    assert len({result.contexts for result in finished}) == 3
    assert len({result.rows[0].loss for result in finished}) == 3
