"""What every method promises, whatever it computes: all of this holds for each of `tests.methods.CASES`.

What is promised of tasks depends on how they are learned, which the blueprint says:

- `any`: tasks do not touch each other, but for a first task that may prepare what the others share;
- `one`: learned in turn, later tasks disturb earlier ones;
- `all`: one network learns a mixture of all tasks.

The trials are small: 4 tasks of rotated digits, a few updates, networks of a few units.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

import crwn.trial
from crwn import backbone, contexts, seeding
from crwn.benchmarks import BENCHMARKS, BenchmarkEntry
from crwn.benchmarks.permuted import PermutedSpec, permutation_map
from crwn.benchmarks.protocol import Benchmark, Curriculum, Mixture, Split
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.base import ImageSet
from crwn.events import Numerics, TaskRow
from crwn.methods import METHODS
from crwn.methods.protocol import Method, Surroundings, Tensors
from crwn.spec import BenchmarkSpec, Blueprint, MethodSpec, TrainingSpec, TrialSpec
from crwn.trial import Finished, run_trial
from tests import methods
from tests.crwn.methods.building import plain_surroundings

CASES = {name: case.under_contract for name, case in methods.CASES.items()}

NUM_TASKS, NUM_TRAIN, BATCH_SIZE, NUM_UPDATES = 4, 1437, 64, 30

GROUPINGS = {name: case.blueprint().grouping for name, case in CASES.items()}

every_method = pytest.mark.parametrize("name", CASES)


def methods_learned(grouping: str) -> pytest.MarkDecorator:
    """The cases whose tasks are learned so."""
    return pytest.mark.parametrize("name", [name for name in CASES if GROUPINGS[name] == grouping])


pytestmark = pytest.mark.usefixtures("one_thread")


def trial(
    name: str,
    *,
    seed: int = 0,
    dtype: str = "float64",
    learning_rate: float | None = None,
    benchmark: BenchmarkSpec | None = None,
) -> TrialSpec:
    case = CASES[name]
    return case.trial(
        benchmark=benchmark or case.learns(NUM_TASKS, step_degrees=30.0),
        seed=seed,
        training=TrainingSpec(
            learning_rate=learning_rate or case.learning_rate,
            updates_per_task=NUM_UPDATES,
            batch_size=BATCH_SIZE,
            dtype=dtype,
        ),
    )


def surroundings_of(spec: TrialSpec) -> Surroundings:
    dtype = getattr(torch, spec.training.dtype)
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    return plain_surroundings(
        spec.scale,
        spec.benchmark.problem(),
        backbone=arrays,
        seed=spec.seed,
        dtype=dtype,
    )


def build(spec: TrialSpec) -> Method:
    return METHODS[spec.method.kind].build(spec.method, surroundings_of(spec))


def begin(method: Method, tasks: Sequence[int]) -> Tensors:
    """The whole state that tasks start from: their own and what all share."""
    return {**method.start_shared(), **method.start(tasks)}


def inputs(method: Method, tasks: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Ten made-up images a task, prepared."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (NUM_TASKS, 10, 64), dtype=torch.uint8, generator=generator)
    return torch.stack([method.prepare(task, images[task]) for task in tasks])


def gradients(method: Method, tasks: Sequence[int], input_GBd: torch.Tensor, labels_GB: torch.Tensor) -> Tensors:
    """Those of the sum of the tasks' mean losses with respect to their own state, as the engine forms it."""
    state = begin(method, tasks)
    losses = functional.cross_entropy(
        method.logits(state, input_GBd).flatten(0, 1), labels_GB.flatten(), reduction="none"
    )
    losses.view(labels_GB.shape).mean(dim=1).sum().backward()
    return {key: tensor.grad for key, tensor in state.items() if tensor.requires_grad}


def run(spec: TrialSpec, data: Datasets, group_size: int | None = None) -> Finished:
    """With weights; in groups as small as the method allows where nothing is said."""
    smallest = NUM_TASKS if spec.blueprint().grouping == "all" else 1
    numerics = Numerics(device="cpu", group_size=group_size or smallest, kernel="plain", threads=1)
    return run_trial(spec, data=data, backbones=backbone.draw, numerics=numerics, keep_weights=True)


def results(finished: Finished) -> list[TaskRow]:
    """All rows without their times; points of curves are compared without theirs."""
    return [
        dataclasses.replace(row, train_seconds=row.train_seconds and 0.0, eval_seconds=0.0, tested=0.0)
        for row in finished.rows
    ]


def kept_of(finished: Finished) -> tuple[Tensors, Tensors]:
    """The tasks' own tensors, each with a task axis, and the shared ones."""
    tensors = contexts.load(finished.contexts).tensors
    shared = {key: tensor for key, tensor in tensors.items() if key.startswith("shared.")}
    return {key: tensor for key, tensor in tensors.items() if key not in shared}, shared


@every_method
def test_a_spec_is_the_registrys(name: str) -> None:
    """A method's spec is of the registry's class, under the registry's name, and says how it is trained."""
    method = CASES[name].method
    assert type(method) is METHODS[method.kind].spec
    assert isinstance(method, MethodSpec)
    assert isinstance(method.training(CASES[name].table_scale), TrainingSpec)


@every_method
def test_a_start_depends_on_seed_and_task_alone(name: str) -> None:
    """Task 3 starts alike at every time, alone or beside others, in any order; other tasks and seeds elsewhere.

    So do the shared weights, which know no task. A method that is not told the task has nothing of a task's own.
    """
    method, again, other_seed = build(trial(name)), build(trial(name)), build(trial(name, seed=1))
    alone, alone_again = method.start([3]), again.start([3])
    beside = method.start([1, 3])
    turned = method.start([3, 2, 1])
    for key, tensor in alone.items():
        assert torch.equal(tensor, alone_again[key])
        assert torch.equal(tensor, beside[key][1:])
        assert torch.equal(tensor, turned[key][:1])
        assert torch.equal(beside[key][:1], turned[key][2:])
    shared = method.start_shared()
    for key, tensor in shared.items():
        assert torch.equal(tensor, again.start_shared()[key])
        assert not torch.equal(tensor, other_seed.start_shared()[key])

    assert bool(alone) == (GROUPINGS[name] != "all")
    if alone:
        assert any(not torch.equal(beside[key][0], beside[key][1]) for key in alone)
        assert any(not torch.equal(tensor, other_seed.start([3])[key]) for key, tensor in alone.items())
    assert alone or shared


@every_method
def test_a_start_has_the_task_axis_and_the_dtype(name: str) -> None:
    """Every own tensor has the tasks first and the trial's dtype, and shares its memory with no other.

    Shared weights have no task axis; names are of one or the other.
    """
    for dtype in ("float32", "float64"):
        method = build(trial(name, dtype=dtype))
        state = method.start([2, 0, 1])
        assert all(tensor.shape[0] == 3 for tensor in state.values())
        assert all(tensor.is_leaf for tensor in state.values())
        shared = method.start_shared()
        assert not set(shared) & set(state)
        assert all(tensor.ndim == 2 and not tensor.requires_grad for tensor in shared.values())
        everything = [*state.values(), *shared.values()]
        assert all(tensor.dtype == getattr(torch, dtype) for tensor in everything)
        assert len({tensor.untyped_storage().data_ptr() for tensor in everything}) == len(everything)


@every_method
def test_both_dtypes_start_from_the_same_numbers(name: str) -> None:
    """A trial in float64 is the same trial computed more exactly; its constants may be more exact too."""
    single, double = (build(trial(name, dtype=dtype)) for dtype in ("float32", "float64"))
    begun, begun_double = begin(single, [0, 1]), begin(double, [0, 1])
    trained = {key for key, tensor in begun.items() if tensor.requires_grad} | set(single.start_shared())
    for key, tensor in begun.items():
        assert torch.equal(tensor, begun_double[key].float())
        if key in trained:
            assert torch.equal(tensor.double(), begun_double[key])


@every_method
def test_the_blueprint_counts_what_is_trained_and_kept(name: str) -> None:
    """Numbers that training a task changes, and numbers in what is kept, a packed bit counting as one."""
    spec = trial(name)
    method, blueprint = build(spec), spec.blueprint()
    state, shared = method.start([0]), method.start_shared()
    num_shared = sum(tensor.numel() for tensor in shared.values())
    assert num_shared == blueprint.stored_shared
    num_own = sum(tensor.numel() for tensor in state.values() if tensor.requires_grad)
    assert num_own + (num_shared if blueprint.shared_training == "always" else 0) == blueprint.trained_per_task
    kept = method.pack({key: tensor.detach() for key, tensor in state.items()})
    num_kept = sum(tensor.numel() * (8 if tensor.dtype == torch.uint8 else 1) for tensor in kept.values())
    assert num_kept == blueprint.stored_per_task


@every_method
def test_the_blueprint_draws_exactly_what_is_read(name: str) -> None:
    """With its arrays the method gives class scores, and there is none that could be changed without changing them."""
    spec = trial(name)
    surroundings, array_specs = surroundings_of(spec), spec.blueprint().backbone.arrays
    entry = METHODS[spec.method.kind]
    method = entry.build(spec.method, surroundings)
    logits = method.logits(begin(method, [0, 1]), inputs(method, [0, 1]))
    assert logits.shape == (2, 10, 10)
    assert spec.blueprint().backbone.seed == spec.seed
    assert {array.name for array in array_specs} == set(surroundings.backbone)
    for array in array_specs:
        drawn = surroundings.backbone[array.name]
        assert tuple(drawn.shape) == array.shape
        changed = dataclasses.replace(surroundings, backbone={**surroundings.backbone, array.name: drawn.flip(0)})
        other = entry.build(spec.method, changed)
        assert not torch.equal(other.logits(begin(other, [0, 1]), inputs(other, [0, 1])), logits), array.name


@every_method
def test_what_is_kept_gives_the_same_logits(name: str) -> None:
    """Packing and unpacking changes no bit of the class scores, for a group and for one task cut out of it."""
    method = build(trial(name))
    begun = method.start([0, 1, 2])
    constants = {key for key, tensor in begun.items() if not tensor.requires_grad}
    state = {key: tensor.detach() for key, tensor in begun.items()}
    shared = {key: tensor.clone() for key, tensor in method.start_shared().items()}
    generator = torch.Generator().manual_seed(0)
    for key, tensor in [*state.items(), *shared.items()]:  # anywhere, not only where tasks start
        if key not in constants:
            tensor.add_(torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator) / 10)
    kept = method.pack(state)
    assert all(len(tensor) == 3 for tensor in kept.values())
    unpacked = method.unpack(kept, [0, 1, 2])
    images = inputs(method, [0, 1, 2])
    assert torch.equal(method.logits(unpacked | shared, images), method.logits(state | shared, images))

    one = {key: tensor[1:2] for key, tensor in kept.items()}
    own = {key: tensor[1:2] for key, tensor in state.items()}
    assert torch.equal(
        method.logits(method.unpack(one, [1]) | shared, images[1:2]), method.logits(own | shared, images[1:2])
    )


@methods_learned("any")
def test_gradients_do_not_depend_on_the_other_tasks(name: str) -> None:
    """Other images and labels of task 1 change its own gradients, and no bit of those of the tasks beside it."""
    method = build(trial(name))
    labels = torch.arange(30).view(3, 10) % 10
    before = gradients(method, [0, 1, 2], inputs(method, [0, 1, 2]), labels)
    other_inputs, other_labels = inputs(method, [0, 1, 2]), labels.clone()
    other_inputs[1] = inputs(method, [0, 1, 2], seed=1)[1]
    other_labels[1] = 9 - labels[1]
    after = gradients(method, [0, 1, 2], other_inputs, other_labels)
    assert before
    for key, gradient in before.items():
        assert torch.equal(after[key][[0, 2]], gradient[[0, 2]])
        assert not torch.equal(after[key][1], gradient[1])


@methods_learned("any")
def test_a_group_has_the_gradients_of_its_tasks_alone(name: str) -> None:
    """The gradients of three tasks learned together are those of each learned alone, to rounding."""
    method = build(trial(name))
    labels = torch.arange(30).view(3, 10) % 10
    together = gradients(method, [0, 1, 2], inputs(method, [0, 1, 2]), labels)
    for task in range(3):
        alone = gradients(method, [task], inputs(method, [task]), labels[task : task + 1])
        for key, gradient in alone.items():
            torch.testing.assert_close(together[key][task : task + 1], gradient, rtol=1e-10, atol=1e-13)


@methods_learned("any")
def test_group_sizes_agree_in_float64(name: str, digits: Datasets) -> None:
    """Tasks learned one at a time and in groups of 3: equal accuracies, losses equal to rounding."""
    alone, together = (run(trial(name), digits, group_size) for group_size in (1, 3))
    assert alone.fingerprint == together.fingerprint
    for one, other in zip(results(alone), results(together), strict=True):
        assert one.accuracy == other.accuracy
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
        for point, other_point in zip(one.curve, other.curve, strict=True):
            assert point.accuracy == other_point.accuracy
            assert point.loss == pytest.approx(other_point.loss, rel=1e-9)


@methods_learned("any")
def test_group_sizes_agree_in_float32(name: str, digits: Datasets) -> None:
    """In single precision, at the method's own rate, accuracies agree within 4 of 360 images and losses within 1%.

    Sums in another order differ in the last of 24 bits. Contexts and strengths pass that on as it is; in SupSup it can
    turn a mask's bit whose score is next to 0, and one bit of these small networks can move a loss by half a percent.
    """
    learning_rate = CASES[name].method.training(CASES[name].table_scale).learning_rate
    spec = trial(name, dtype="float32", learning_rate=learning_rate)
    alone, together = (run(spec, digits, group_size) for group_size in (1, 3))
    for one, other in zip(results(alone), results(together), strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=4 / 360)
        assert one.loss == pytest.approx(other.loss, rel=1e-2)


@methods_learned("one")
@pytest.mark.parametrize("group_size", [2, NUM_TASKS])
def test_tasks_learned_in_turn_are_learned_one_at_a_time(name: str, digits: Datasets, group_size: int) -> None:
    """A larger group is refused with the reason; the rule never asks for one."""
    expected = f"^group_size: expected 1, given {group_size}; this method learns one task at a time$"
    with pytest.raises(ValueError, match=expected):
        run(trial(name), digits, group_size)


@methods_learned("all")
@pytest.mark.parametrize("group_size", [1, 3, 5])
def test_tasks_learned_together_are_learned_all_at_once(name: str, digits: Datasets, group_size: int) -> None:
    """A smaller or larger group is refused with the reason."""
    expected = f"^group_size: expected {NUM_TASKS}, given {group_size}; this method learns all tasks at once$"
    with pytest.raises(ValueError, match=expected):
        run(trial(name), digits, group_size)


@methods_learned("any")
@pytest.mark.parametrize("group_size", [1, 3])
def test_nothing_is_forgotten(name: str, digits: Datasets, group_size: int) -> None:
    """The test after the last task repeats the test after the task itself: every accuracy and loss, bit for bit."""
    rows = run(trial(name, dtype="float32"), digits, group_size).rows
    diagonal, final = rows[:NUM_TASKS], (*rows[NUM_TASKS:], rows[NUM_TASKS - 1])
    assert [row.task for row in diagonal] == [row.task for row in final] == list(range(NUM_TASKS))
    assert [row.tasks_learned for row in final] == [NUM_TASKS] * NUM_TASKS
    assert [row.accuracy for row in diagonal] == [row.accuracy for row in final]
    assert [row.loss for row in diagonal] == [row.loss for row in final]


@methods_learned("one")
def test_what_is_forgotten_is_measured(name: str, digits: Datasets) -> None:
    """After each task that one and all before it are tested: the whole lower triangle; and results do change."""
    rows = run(trial(name, dtype="float32"), digits).rows
    places = {(row.task, row.tasks_learned) for row in rows}
    assert places == {(task, learned) for learned in range(1, NUM_TASKS + 1) for task in range(learned)}
    assert len(rows) == len(places)
    for task in range(NUM_TASKS):
        losses = [row.loss for row in rows if row.task == task]
        assert len(set(losses)) == len(losses)


@methods_learned("all")
def test_tasks_learned_together_have_a_row_each(name: str, digits: Datasets) -> None:
    """Tested once, after all; T times the updates, whose one curve stands with the first task."""
    rows = run(trial(name), digits).rows
    assert [(row.task, row.tasks_learned) for row in rows] == [(task, NUM_TASKS) for task in range(NUM_TASKS)]
    num_updates = NUM_TASKS * NUM_UPDATES
    steps = [*range(50, num_updates, 50), num_updates]
    assert [[point.step for point in row.curve] for row in rows] == [steps, [], [], []]
    assert all(row.train_seconds == rows[0].train_seconds > 0 for row in rows)


@every_method
def test_tasks_are_learned(name: str, digits: Datasets) -> None:
    """After 30 updates the loss on the test images of the upright task is at least a tenth below that at its start."""
    spec, test = trial(name), digits.load("digits").test
    method = build(spec)
    with torch.no_grad():
        images = method.prepare(0, torch.from_numpy(test.images).flatten(1))[None]
        loss = functional.cross_entropy(method.logits(begin(method, [0]), images)[0], torch.from_numpy(test.labels))
    assert run(spec, digits).rows[0].loss < 0.9 * loss.item()


class Examples:
    """Splits as one set, laid end to end."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self._images = torch.cat([split.images for split in splits])
        self._labels = torch.cat([split.labels for split in splits])
        self.num_examples = len(self._labels)

    def take(self, index_B: torch.Tensor) -> Split:
        return Split(images=self._images[index_B], labels=self._labels[index_B])


class Altered:
    """A benchmark in which the training images of one task are negatives and its labels turned."""

    def __init__(self, benchmark: Benchmark, task: int) -> None:
        self._benchmark = benchmark
        self._task = task
        self.num_tasks = benchmark.num_tasks
        self.augmentation = benchmark.augmentation
        self.test_split = benchmark.test_split

    def train_split(self, task: int) -> Split:
        split = self._benchmark.train_split(task)
        return Split(images=255 - split.images, labels=9 - split.labels) if task == self._task else split

    def mixture(self, tasks: Sequence[int]) -> Mixture:
        return Examples([self.train_split(task) for task in tasks])


def is_changed(blueprint: Blueprint, altered: int, task: int, tasks_learned: int) -> bool:
    """Whether other training data of the task `altered` change this test."""
    match blueprint.grouping:
        case "all":
            return True
        case "one":
            return tasks_learned > altered  # whatever is measured after it was learned, and nothing before
        case "any":
            return task == altered or (altered == 0 and blueprint.shared_training == "first task")


@pytest.mark.parametrize(
    ("name", "group_size", "altered"),
    [
        (name, group_size, altered)
        for name, grouping in GROUPINGS.items()
        for group_size in {"one": (1,), "any": (1, 3), "all": (NUM_TASKS,)}[grouping]
        for altered in (0, 1)
    ],
)
def test_a_tasks_data_change_what_they_may(
    name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch, group_size: int, altered: int
) -> None:
    """Other training data of a task change its own results, and bit for bit nothing else of tasks that are independent.

    A first task that prepares what all share changes every later one, and no later one anything but itself. Of tasks
    learned in turn everything measured later is changed, and nothing measured before; of a mixture everything. In
    groups of 3 the task is learned together with others.
    """
    spec = trial(name, dtype="float32")
    before = run(spec, digits, group_size)

    def build_altered(spec: RotatedSpec, images: ImageSet, seed: int, device: torch.device) -> Altered:
        return Altered(BENCHMARKS["rotated"].build(spec, images, seed, device), altered)

    monkeypatch.setattr(crwn.trial, "BENCHMARKS", {"rotated": BenchmarkEntry(spec=RotatedSpec, build=build_altered)})
    after = run(spec, digits, group_size)
    blueprint = spec.blueprint()
    for one, other in zip(results(before), results(after), strict=True):
        assert (one != other) == is_changed(blueprint, altered, one.task, one.tasks_learned), one

    (own, shared), (own_after, shared_after) = kept_of(before), kept_of(after)
    for task in range(NUM_TASKS if own else 0):
        is_same = all(torch.equal(tensor[task], own_after[key][task]) for key, tensor in own.items())
        assert is_same != is_changed(blueprint, altered, task, NUM_TASKS)
    for key, tensor in shared.items():
        is_trained_then = blueprint.shared_training == "always" or altered == 0
        assert torch.equal(tensor, shared_after[key]) != is_trained_then


class Recorded:
    """A benchmark that notes in `events` what is read of it."""

    def __init__(self, benchmark: Benchmark, events: list[str]) -> None:
        self._benchmark = benchmark
        self._events = events
        self.num_tasks = benchmark.num_tasks
        self.augmentation = benchmark.augmentation

    def train_split(self, task: int) -> Split:
        self._events.append(f"train {task}")
        return self._benchmark.train_split(task)

    def test_split(self, task: int) -> Split:
        self._events.append(f"test {task}")
        return self._benchmark.test_split(task)

    def mixture(self, tasks: Sequence[int]) -> Mixture:
        self._events.append(f"mixture of {list(tasks)}")
        return self._benchmark.mixture(tasks)


@dataclasses.dataclass(frozen=True)
class Record:
    """What was read of the benchmark in a trial, and the prepared images shown to the method, in order."""

    events: list[str]
    shown: list[NDArray[Any]]


def record(spec: TrialSpec, data: Datasets, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Run a trial; its events say too when the gate opens and closes."""
    events: list[str] = []
    shown: list[NDArray[Any]] = []

    class Gate(Curriculum):
        @contextmanager
        def _opened(self, tasks: Sequence[int]) -> Iterator[None]:
            with super()._opened(tasks):
                events.append(f"open {list(tasks)}")
                yield
                events.append(f"close {list(tasks)}")

    def watched(method_spec: MethodSpec, surroundings: Surroundings) -> Method:
        method = METHODS[method_spec.kind].build(method_spec, surroundings)
        logits = method.logits

        def noting(state: Tensors, images_GBd: torch.Tensor, *, training: bool = False) -> torch.Tensor:
            shown.append(images_GBd.numpy().copy())
            return logits(state, images_GBd, training=training)

        monkeypatch.setattr(method, "logits", noting)
        return method

    entry, method_entry = BENCHMARKS[spec.benchmark.kind], METHODS[spec.method.kind]
    recorded = dataclasses.replace(entry, build=lambda *settings: Recorded(entry.build(*settings), events))
    with monkeypatch.context() as patch:
        patch.setattr(crwn.trial, "BENCHMARKS", {spec.benchmark.kind: recorded})
        patch.setattr(crwn.trial, "METHODS", {spec.method.kind: dataclasses.replace(method_entry, build=watched)})
        patch.setattr(crwn.trial, "Curriculum", Gate)
        run(spec, data)
    return Record(events, shown)


@every_method
def test_training_data_are_read_behind_the_gate(name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's once, while the gate is open for it and nothing else; tests only while it is closed."""
    events = record(trial(name), digits, monkeypatch).events
    if GROUPINGS[name] == "all":
        all_tasks = list(range(NUM_TASKS))
        expected = [f"open {all_tasks}", f"mixture of {all_tasks}", f"close {all_tasks}"]
        expected += [f"test {task}" for task in all_tasks]
    else:
        expected = []
        for task in range(NUM_TASKS):
            expected += [f"open [{task}]", f"train {task}", f"close [{task}]", f"test {task}"]
            if GROUPINGS[name] == "one" or task == NUM_TASKS - 1:
                expected += [f"test {earlier}" for earlier in range(task)]
    assert events == expected


def batches_of(shown: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """The training batches [B, d]: the test images come as 360 at once."""
    assert all(len(images) == 1 for images in shown)
    return [images[0] for images in shown if images.shape[1] <= BATCH_SIZE]


@every_method
@pytest.mark.parametrize("seed", [0, 3])
def test_batches_are_those_of_the_seed(name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Permuted images in the order drawn from (seed, task, epoch): the same for all methods at a seed.

    Mixed tasks, whose batches cannot be the same, have the same permutations, in an order drawn from (seed, epoch).
    """
    spec = trial(name, seed=seed, benchmark=PermutedSpec(base="digits", num_tasks=NUM_TASKS))
    found = batches_of(record(spec, digits, monkeypatch).shown)
    images = digits.load("digits").train.images.reshape(NUM_TRAIN, 64)
    permuted = [images[:, permutation_map(64, seed, task)] for task in range(NUM_TASKS)]
    mixed, method = GROUPINGS[name] == "all", build(spec)
    expected = []
    for stream, examples in [("mixed", np.concatenate(permuted))] if mixed else enumerate(permuted):
        num_updates = NUM_UPDATES * (NUM_TASKS if mixed else 1)
        per_epoch = -(-len(examples) // BATCH_SIZE)
        for step in range(num_updates):
            epoch, batch = divmod(step, per_epoch)
            order = seeding.numpy_generator(seed, "batches", stream, epoch).permutation(len(examples))
            shown = examples[order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]]
            expected.append(shown if mixed else method.prepare(int(stream), torch.from_numpy(shown)).numpy())
    assert len(found) == len(expected)
    # Bytes are equal; what a method prepares of them is to rounding.
    assert all(np.allclose(one, other, rtol=1e-9) for one, other in zip(found, expected, strict=True))


@methods_learned("all")
def test_batches_are_mixed_uniformly(name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 examples each is of any of the 4 tasks with equal chances, as drawn without replacement from 4 x 1437.

    So the count of a task in a batch has the mean 64/4 and the variance v = 64 (1/4)(3/4)(1 - 63/5747). Over the 89
    full batches of an epoch every task's mean is within five of its deviations, the mean of all squared distances
    within five of v sqrt(2/(89 3)), and in the whole epoch every task is seen exactly as often.
    """
    spec = trial(name, benchmark=PermutedSpec(base="digits", num_tasks=NUM_TASKS))
    found = batches_of(record(spec, digits, monkeypatch).shown)
    images = digits.load("digits").train.images.reshape(NUM_TRAIN, 64)
    tasks_with: dict[bytes, set[int]] = {}
    for task in range(NUM_TASKS):
        for row in images[:, permutation_map(64, 0, task)]:
            tasks_with.setdefault(row.tobytes(), set()).add(task)
    assert all(len(tasks) == 1 for tasks in tasks_with.values())  # a picture shows its task
    counts = [Counter(next(iter(tasks_with[row.tobytes()])) for row in batch) for batch in found]
    num_full = NUM_TASKS * NUM_TRAIN // BATCH_SIZE
    assert sum(counts[: num_full + 1], Counter()) == dict.fromkeys(range(NUM_TASKS), NUM_TRAIN)

    distances = np.array([[count[task] for task in range(NUM_TASKS)] for count in counts[:num_full]]) - BATCH_SIZE / 4
    variance = BATCH_SIZE * 3 / 16 * (1 - (BATCH_SIZE - 1) / (NUM_TASKS * NUM_TRAIN - 1))
    assert num_full == 89
    assert np.abs(distances.mean(axis=0)).max() < 5 * (variance / num_full) ** 0.5
    assert abs((distances**2).mean() - variance) < 5 * variance * (2 / (num_full * 3)) ** 0.5


@every_method
def test_equal_seeds_give_equal_results(name: str, digits: Datasets) -> None:
    """Byte for byte: rows, curves, contexts and weights of a trial that is run again."""
    one, other = run(trial(name, dtype="float32"), digits), run(trial(name, dtype="float32"), digits)
    assert results(one) == results(other)
    assert one.contexts == other.contexts
    assert one.fingerprint == other.fingerprint


@every_method
def test_every_seed_is_another_trial(name: str, digits: Datasets) -> None:
    """Other weights, other starts, other results; networks and tasks of the same sizes, and the same tests."""
    specs = [trial(name, seed=seed) for seed in range(3)]
    finished = [run(spec, digits) for spec in specs]
    draws = bool(specs[0].blueprint().backbone.arrays)
    assert {result.fingerprint == "none" for result in finished} == {not draws}
    assert len({result.fingerprint for result in finished}) == (3 if draws else 1)
    assert len({result.rows[0].loss for result in finished}) == 3
    tensors = [contexts.load(result.contexts).tensors for result in finished]
    for key in tensors[0]:
        assert len({kept[key].numpy().tobytes() for kept in tensors}) == 3, key

    same_seed = {dataclasses.replace(spec.blueprint(), backbone=specs[0].blueprint().backbone) for spec in specs}
    assert same_seed == {specs[0].blueprint()}
    assert len({tuple((row.task, row.tasks_learned) for row in result.rows) for result in finished}) == 1
