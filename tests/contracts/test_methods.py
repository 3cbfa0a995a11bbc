"""What every method promises, whatever it computes: all of this holds for each of `tests.methods.CASES`.

What a method could break where classes arrive in groups or in a stream is held there too: `tests.methods.ELSEWHERE`.

What is promised of tasks depends on how they are learned, which the blueprint says:

- `any`: tasks do not touch each other, but for a first task that may prepare what the others share;
- `one`: learned in turn, later tasks disturb earlier ones or, where tasks are independent, only start from them;
- `all`: one network learns a mixture of all tasks.

The trials are small: 4 tasks of rotated digits, or the benchmark of the case, a few updates, networks of a few units.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

import crwn.engine
import crwn.learner
import crwn.trial
from crwn import contexts, contract, seeding, tensorfile
from crwn.batches import Batch
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.permuted import PermutedSpec, permutation_map
from crwn.benchmarks.protocol import Benchmark, Curriculum, Mixture, Segment, Split
from crwn.benchmarks.rotated import RotatedSpec
from crwn.contract import (
    begin,
    build,
    built,
    inputs,
    num_tasks_of,
    opened,
    results,
    run,
    same,
    smallest_group,
    tells_tasks,
    told,
)
from crwn.data import Datasets
from crwn.events import ResumePoint
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import BenchmarkSpec, Blueprint, MethodSpec, TrainingSpec
from crwn.trial import Event, Finished
from crwn.trial_spec import TrialSpec
from tests import methods
from tests.refusals import refused

CASES = {name: case.under_contract for name, case in methods.CASES.items()}
SETTINGS = {**CASES, **{name: case.under_contract for name, case in methods.ELSEWHERE.items()}}

BATCH_SIZE, NUM_UPDATES = 64, 30

BLUEPRINTS = {name: case.blueprint() for name, case in SETTINGS.items()}
GROUPINGS = {name: BLUEPRINTS[name].grouping for name in CASES}

every_method = pytest.mark.parametrize("name", CASES)
in_every_setting = pytest.mark.parametrize("name", SETTINGS)


def methods_learned(grouping: str) -> pytest.MarkDecorator:
    """The cases whose tasks are learned so."""
    return pytest.mark.parametrize("name", [name for name in CASES if GROUPINGS[name] == grouping])


def methods_whose_tasks(*, interfere: bool) -> pytest.MarkDecorator:
    """The cases that learn tasks in turn, of which later ones change earlier ones or leave them as they are."""
    in_turn = {name: blueprint for name, blueprint in BLUEPRINTS.items() if GROUPINGS.get(name, "all") != "all"}
    return pytest.mark.parametrize("name", [name for name in in_turn if in_turn[name].is_independent != interfere])


pytestmark = pytest.mark.usefixtures("one_thread")


def trial(
    name: str,
    *,
    seed: int = 0,
    dtype: str = "float64",
    learning_rate: float | None = None,
    benchmark: BenchmarkSpec | None = None,
) -> TrialSpec:
    case = SETTINGS[name]
    benchmark = benchmark or case.learns(num_tasks=4, step_degrees=30.0)
    training = TrainingSpec(learning_rate=learning_rate or case.learning_rate, batch_size=BATCH_SIZE, dtype=dtype)
    if not benchmark.problem().is_stream:
        training = dataclasses.replace(training, updates_per_task=NUM_UPDATES)
    return case.trial(benchmark=benchmark, seed=seed, training=training)


def case_of(name: str, data: Datasets) -> contract.ContractCase:
    return contract.ContractCase(spec=trial(name, dtype="float32"), data=data)


def batch_of(method: Method, tasks: Sequence[int], images: torch.Tensor, labels_GB: torch.Tensor) -> Batch:
    return Batch(
        images=images,
        labels=labels_GB,
        tasks=tuple(tasks),
        segment=tasks[0],
        step=0,
        update=0,
        seen=0,
        rate=0.01,
        _seed=0,
        _bytes=lambda: images,
        _prepare=method.prepare,
        _augmentation=None,
    )


def gradients(method: Method, tasks: Sequence[int], images: torch.Tensor, labels_GB: torch.Tensor) -> Tensors:
    """Those of the sum of what the tasks learn from a batch with respect to their own state, as the engine forms it."""
    own = method.start(tasks)
    state = {**method.start_shared(), **method.start_memory(), **own}
    method.learn(state, batch_of(method, tasks, images, labels_GB)).loss_G.sum().backward()
    return {key: tensor.grad for key, tensor in own.items() if tensor.requires_grad and tensor.grad is not None}


Learned = Callable[..., Finished]
"""What a trial, perhaps in groups of a size, ends with."""


@pytest.fixture(scope="module")
def learned(digits: Datasets) -> Learned:
    """Runs a trial as `run` does, each once for all tests."""
    once = functools.cache(lambda spec, group_size: run(spec, digits, group_size))
    return lambda spec, group_size=None: once(spec, group_size or smallest_group(spec))


def kept_of(finished: Finished) -> tuple[Tensors, Tensors]:
    """The tasks' own tensors, each with a task axis, and the shared ones; not what units showed in tests."""
    tensors = contexts.load(finished.contexts).tensors
    shared = {key: tensor for key, tensor in tensors.items() if key.startswith("shared.")}
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith(("shared.", contexts.ACTIVITY))}
    return own, shared


@every_method
def test_a_spec_is_the_registrys(name: str) -> None:
    """A method's spec is of the registry's class, under the registry's name, and says how it is trained."""
    method = CASES[name].method
    assert type(method) is METHODS[method.kind].spec
    assert isinstance(method, MethodSpec)
    assert isinstance(method.training(CASES[name].table_scale), TrainingSpec)


@pytest.mark.parametrize("place", methods.BENCHMARKS)
@every_method
def test_a_method_is_tried_wherever_it_can_learn(name: str, place: str) -> None:
    """Every method that is not refused there has a case, and no other does."""
    benchmark, method = methods.BENCHMARKS[place], CASES[name].method
    try:
        dataclasses.replace(CASES[name], benchmark=benchmark).trial()
    except ValueError:
        can_learn = False
    else:
        can_learn = True
    found = [
        case
        for case in SETTINGS.values()
        if case.method.kind == method.kind and case.learns(2, 30.0).kind == benchmark.kind
    ]
    assert bool(found) == can_learn


@every_method
def test_a_start_depends_on_seed_and_task_alone(name: str, digits: Datasets) -> None:
    """Task 3 always starts alike, alone or in a group, in any order; other tasks and seeds start differently."""
    contract.a_start_depends_on_seed_and_task_alone(case_of(name, digits))


@every_method
def test_a_start_has_the_task_axis_and_the_dtype(name: str, digits: Datasets) -> None:
    """Own tensors have the tasks first, and numbers that are learned the trial's dtype; none shares its memory."""
    contract.a_start_has_the_task_axis_and_the_dtype(case_of(name, digits))


@every_method
def test_shared_weights_are_trained_when_the_blueprint_says(name: str, digits: Datasets) -> None:
    """A method that trains shared weights says when, and a method that says so has some."""
    contract.shared_weights_are_trained_when_the_blueprint_says(case_of(name, digits))


@every_method
def test_both_dtypes_start_from_the_same_numbers(name: str, digits: Datasets) -> None:
    """A trial in float64 is the same trial computed more exactly; its constants may be more exact too."""
    contract.both_dtypes_start_from_the_same_numbers(case_of(name, digits))


@every_method
def test_the_blueprint_counts_what_is_trained_and_kept(name: str, digits: Datasets) -> None:
    """Numbers that training a task changes, that are kept, a packed bit counting as one, and that are remembered."""
    contract.the_blueprint_counts_what_is_trained_and_kept(case_of(name, digits))


@every_method
def test_the_blueprint_draws_exactly_what_is_read(name: str, digits: Datasets) -> None:
    """The method gives class scores from these arrays, and changing any of them changes the scores."""
    contract.the_blueprint_draws_exactly_what_is_read(case_of(name, digits))


@every_method
def test_what_is_kept_gives_the_same_logits(name: str, digits: Datasets) -> None:
    """Packing and unpacking changes no bit of the class scores, for a group and for one task cut out of it."""
    contract.what_is_kept_gives_the_same_logits(case_of(name, digits))


@in_every_setting
def test_what_is_needed_to_predict_is_enough(name: str, digits: Datasets, learned: Learned) -> None:
    """Class scores after training, from the kept tensors and the written-out shared weights alone: no memory."""
    spec = trial(name)
    finished = learned(spec)
    own, shared = kept_of(finished)
    assert set(shared) <= {f"shared.{key}" for key in build(spec).start_shared()}
    method, last = build(spec), num_tasks_of(spec) - 1
    state = {key.removeprefix("shared."): tensor for key, tensor in shared.items()}
    if tells_tasks(spec):
        state |= method.unpack({key: tensor[last:] for key, tensor in own.items()}, [last])
    test = built(spec, digits).test_split(last)
    images = method.prepare(told(spec, [last])[0], test.images)[None]
    loss = functional.cross_entropy(method.logits(state, images)[0], test.labels)
    *_, row = [row for row in finished.rows if row.task == last]
    assert row.loss == pytest.approx(loss.item(), rel=1e-9)


@every_method
def test_a_test_changes_nothing(name: str, digits: Datasets) -> None:
    """Computing class scores or preparing images changes no tensor, including memory."""
    contract.a_test_changes_nothing(case_of(name, digits))


@pytest.mark.parametrize("name", [name for name, case in SETTINGS.items() if hasattr(case.method, "biases")])
def test_gradients_by_hand_are_those_of_autograd(name: str, digits: Datasets) -> None:
    """A plain FC_H's, bit for bit, in replay and later segments too; of what is made of a loss autograd finds them."""
    spec = trial(name)
    method = build(spec)
    with opened(spec, method, digits) as lanes:
        state = begin(method, [0])
        trained = {key: tensor for key, tensor in state.items() if tensor.requires_grad}
        for update in range(2):
            batch = dataclasses.replace(lanes.batch(update, rate=0.01), segment=update)
            step = method.learn(state, batch)
            by_hand = step.gradients(trained)
            found = torch.autograd.grad(step.loss_G.sum(), list(trained.values()), retain_graph=True)
            assert list(by_hand) == list(trained)
            assert same(by_hand, dict(zip(trained, found, strict=True))) == set(trained)
            doubled = dataclasses.replace(step, loss_G=2 * step.loss_G).gradients(trained)
            assert same(doubled, {key: 2 * tensor for key, tensor in by_hand.items()}) == set(trained)


@in_every_setting
def test_what_learns_by_hand_needs_no_autograd(name: str, digits: Datasets) -> None:
    """Without it every gradient is as with it; a loss that was changed has none, and the error says what to do."""
    spec = trial(name)
    if not build(spec).learns_by_hand:
        assert not hasattr(SETTINGS[name].method, "biases") or name.startswith("lwf")
        return
    steps = []
    for with_autograd in (True, False):
        method = build(spec)
        with opened(spec, method, digits) as lanes, torch.set_grad_enabled(with_autograd):
            state = begin(method, [0])
            trained = {key: tensor for key, tensor in state.items() if tensor.requires_grad}
            for update in range(2):
                batch = dataclasses.replace(lanes.batch(update, rate=0.01), segment=update)
                step = method.learn(state, batch)
                steps.append(step.gradients(trained))
    for by_hand, without in zip(steps[:2], steps[2:], strict=True):
        assert same(by_hand, without) == set(by_hand) == set(without)
    with pytest.raises(ValueError, match="learns_by_hand"):
        dataclasses.replace(step, loss_G=2 * step.loss_G).gradients(trained)


@in_every_setting
def test_learning_gives_values(name: str, digits: Datasets) -> None:
    """What a segment moves is returned by name, in the same shape and dtype, without a graph."""
    contract.learning_gives_values(case_of(name, digits))


@in_every_setting
def test_what_is_remembered_is_in_every_resume_point(
    name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the memory, and nothing else, under its initial names."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    monkeypatch.setattr(crwn.engine, "RESUME_COST_FACTOR", 0.0)
    events: list[Event] = []
    spec = SETTINGS[name].trial()
    run(spec, digits, on_event=events.append)
    points = [tensorfile.parse(event.content)[0] for event in events if isinstance(event, ResumePoint)]
    expected = {f"memory.{key}" for key in build(spec).start_memory()}
    assert points
    assert all({key for key in tensors if key.startswith("memory.")} == expected for tensors in points)


@methods_learned("any")
def test_gradients_do_not_depend_on_the_other_tasks(name: str) -> None:
    """Other images and labels of task 1 change its own gradients, and no bit of other tasks' gradients."""
    spec = trial(name)
    method = build(spec)
    labels = torch.arange(30).view(3, 10) % 10
    before = gradients(method, [0, 1, 2], inputs(spec, method, [0, 1, 2]), labels)
    other_inputs, other_labels = inputs(spec, method, [0, 1, 2]), labels.clone()
    other_inputs[1] = inputs(spec, method, [0, 1, 2], seed=1)[1]
    other_labels[1] = 9 - labels[1]
    after = gradients(method, [0, 1, 2], other_inputs, other_labels)
    assert before
    for key, gradient in before.items():
        assert torch.equal(after[key][[0, 2]], gradient[[0, 2]])
        assert not torch.equal(after[key][1], gradient[1])


@methods_learned("any")
def test_a_group_has_the_gradients_of_its_tasks_alone(name: str) -> None:
    """The gradients of three tasks learned together are those of each learned alone, to rounding."""
    spec = trial(name)
    method = build(spec)
    labels = torch.arange(30).view(3, 10) % 10
    together = gradients(method, [0, 1, 2], inputs(spec, method, [0, 1, 2]), labels)
    for task in range(3):
        alone = gradients(method, [task], inputs(spec, method, [task]), labels[task : task + 1])
        for key, gradient in alone.items():
            torch.testing.assert_close(together[key][task : task + 1], gradient, rtol=1e-10, atol=1e-13)


@methods_learned("any")
def test_group_sizes_agree_in_float64(name: str, learned: Learned) -> None:
    """Tasks learned one at a time and in groups of 3: equal accuracies, losses equal to rounding."""
    alone, together = (learned(trial(name), group_size) for group_size in (1, 3))
    assert alone.fingerprint == together.fingerprint
    for one, other in zip(results(alone), results(together), strict=True):
        assert one.accuracy == other.accuracy
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
        for point, other_point in zip(one.curve, other.curve, strict=True):
            assert point.accuracy == other_point.accuracy
            assert point.loss == pytest.approx(other_point.loss, rel=1e-9)


@methods_learned("any")
def test_group_sizes_agree_in_float32(name: str, learned: Learned) -> None:
    """In single precision, at the method's own rate, accuracies agree within 4 of 360 images and losses within 1%.

    Sums in another order differ in the last of 24 bits. Contexts and strengths pass that on as it is; in SupSup it can
    turn a mask's bit whose score is next to 0, and one bit of these small networks can move a loss by half a percent.
    """
    learning_rate = CASES[name].method.training(CASES[name].table_scale).learning_rate
    spec = trial(name, dtype="float32", learning_rate=learning_rate)
    alone, together = (learned(spec, group_size) for group_size in (1, 3))
    for one, other in zip(results(alone), results(together), strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=4 / 360)
        assert one.loss == pytest.approx(other.loss, rel=1e-2)


@methods_learned("one")
@pytest.mark.parametrize("group_size", [2, 4])
def test_tasks_learned_in_turn_are_learned_one_at_a_time(name: str, digits: Datasets, group_size: int) -> None:
    """A larger group is refused with the reason; the rule never requests one."""
    with refused(InvalidError, "group-not-one", says=["group_size: ", f"given {group_size}"]):
        run(trial(name), digits, group_size)


@methods_learned("all")
@pytest.mark.parametrize("group_size", [1, 3, 99])
def test_tasks_learned_together_are_learned_all_at_once(name: str, digits: Datasets, group_size: int) -> None:
    """A smaller or larger group is refused with the reason."""
    spec = trial(name)
    with refused(InvalidError, "group-not-all", says=["group_size: ", f"{num_tasks_of(spec)}, given {group_size}"]):
        run(spec, digits, group_size)


@methods_whose_tasks(interfere=False)
@pytest.mark.parametrize("group_size", [1, 3])
def test_nothing_is_forgotten(name: str, learned: Learned, group_size: int) -> None:
    """The test after the last task repeats the test after the task itself: every accuracy and loss, bit for bit."""
    spec = trial(name, dtype="float32")
    rows, num_tasks = learned(spec, group_size if GROUPINGS[name] == "any" else 1).rows, num_tasks_of(spec)
    diagonal, final = rows[:num_tasks], (*rows[num_tasks:], rows[num_tasks - 1])
    assert [row.task for row in diagonal] == [row.task for row in final] == list(range(num_tasks))
    assert [row.tasks_learned for row in final] == [num_tasks] * num_tasks
    assert [row.accuracy for row in diagonal] == [row.accuracy for row in final]
    assert [row.loss for row in diagonal] == [row.loss for row in final]


@methods_whose_tasks(interfere=True)
def test_what_is_forgotten_is_measured(name: str, learned: Learned) -> None:
    """After each task that one and all before it are tested: the whole lower triangle; and results do change."""
    spec = trial(name, dtype="float32")
    rows, num_tasks = learned(spec).rows, num_tasks_of(spec)
    places = {(row.task, row.tasks_learned) for row in rows}
    assert places == {(task, learned) for learned in range(1, num_tasks + 1) for task in range(learned)}
    assert len(rows) == len(places)
    for task in range(num_tasks):
        losses = [row.loss for row in rows if row.task == task]
        assert len(set(losses)) == len(losses)


@methods_learned("all")
def test_tasks_learned_together_have_a_row_each(name: str, learned: Learned) -> None:
    """Each is tested once, after all are learned; of the T times as many updates, the first task has the curve."""
    spec = trial(name)
    rows, num_tasks = learned(spec).rows, num_tasks_of(spec)
    assert [(row.task, row.tasks_learned) for row in rows] == [(task, num_tasks) for task in range(num_tasks)]
    num_updates = num_tasks * NUM_UPDATES
    steps = [*range(50, num_updates, 50), num_updates]
    assert [[point.step for point in row.curve] for row in rows] == [steps, *([] for _ in range(num_tasks - 1))]
    assert all(row.train_seconds == rows[0].train_seconds > 0 for row in rows)


@every_method
def test_tasks_are_learned(name: str, digits: Datasets, learned: Learned) -> None:
    """After 30 updates the loss on the test images of the first task is at least a tenth below that at its start."""
    spec = trial(name)
    test, method = built(spec, digits).test_split(0), build(spec)
    with torch.no_grad():
        images = method.prepare(told(spec, [0])[0], test.images)[None]
        loss = functional.cross_entropy(method.logits(begin(method, [0]), images)[0], test.labels)
    assert learned(spec).rows[0].loss < 0.9 * loss.item()


class Relayed:
    """A benchmark behind another, which changes or notes what is read of it."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark

    def __getattr__(self, name: str) -> Any:
        return getattr(self._benchmark, name)


class Together:
    """Splits as one set, laid end to end."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self._images = torch.cat([split.images for split in splits])
        self._labels = torch.cat([split.labels for split in splits])
        self.num_examples, self.device = len(self._labels), self._labels.device

    def take(self, index_B: torch.Tensor) -> Split:
        return Split(images=self._images[index_B], labels=self._labels[index_B])


class Altered(Relayed):
    """A benchmark in which the training images of one task are negatives, and its labels in reverse order."""

    def __init__(self, benchmark: Benchmark, task: int) -> None:
        super().__init__(benchmark)
        self._task = task

    def train_split(self, task: int) -> Split:
        split = self._benchmark.train_split(task)
        if task != self._task:
            return split
        labels = torch.tensor(self._benchmark.classes(task))
        places = torch.searchsorted(labels, split.labels)
        return Split(images=255 - split.images, labels=labels.flip(0)[places])

    def mixture(self, tasks: Sequence[int]) -> Mixture:
        return Together([self.train_split(task) for task in tasks])


def may_change(blueprint: Blueprint, altered: int, task: int, tasks_learned: int) -> set[bool]:
    """Whether other training data of the task `altered` change this test: yes, no, or either.

    A later task that starts from the best of the earlier ones may start from another one.
    """
    if blueprint.grouping == "one" and blueprint.is_independent and altered < task:
        return {True} if altered == 0 and blueprint.moves_shared == "first segment" else {True, False}
    match "any" if blueprint.is_independent else blueprint.grouping:
        case "all":
            return {True}
        case "one":
            return {tasks_learned > altered}  # whatever is measured after it was learned, and nothing before
        case "any":
            return {task == altered or (altered == 0 and blueprint.moves_shared == "first segment")}


@pytest.mark.parametrize(
    ("name", "group_size", "altered"),
    [
        (name, group_size, altered)
        for name, grouping in GROUPINGS.items()
        for group_size in {"one": (1,), "any": (1, 3), "all": (num_tasks_of(trial(name)),)}[grouping]
        for altered in (0, 1)
    ],
)
def test_a_tasks_data_change_what_they_may(
    name: str, digits: Datasets, learned: Learned, group_size: int, altered: int
) -> None:
    """Other training data of a task change its own results, and bit for bit nothing else of tasks that are independent.

    A first task that prepares what all share changes every later one, and no later one anything but itself, or what
    may start from it. Of tasks learned in turn that interfere everything measured later is changed, and nothing
    measured before; of a mixture everything. In groups of 3 the task is learned together with others.
    """
    spec = trial(name, dtype="float32")
    before = learned(spec, group_size)

    entry = BENCHMARKS[spec.benchmark.kind]
    altered_entry = dataclasses.replace(entry, build=lambda *settings: Altered(entry.build(*settings), altered))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crwn.trial, "BENCHMARKS", {spec.benchmark.kind: altered_entry})
        after = run(spec, digits, group_size)
    blueprint = spec.blueprint()
    for one, other in zip(results(before), results(after), strict=True):
        assert (one != other) in may_change(blueprint, altered, one.task, one.tasks_learned), one

    (own, shared), (own_after, shared_after) = kept_of(before), kept_of(after)
    num_tasks = num_tasks_of(spec)
    for task in range(num_tasks if own else 0):
        is_same = all(torch.equal(tensor[task], own_after[key][task]) for key, tensor in own.items())
        assert (not is_same) in may_change(blueprint, altered, task, num_tasks)
    is_trained_then = blueprint.moves_shared == "always" or altered == 0
    assert (
        not shared
        or any(not torch.equal(tensor, shared_after[key]) for key, tensor in shared.items()) == is_trained_then
    )


class Recorded(Relayed):
    """A benchmark that notes in `events` what is read of it."""

    def __init__(self, benchmark: Benchmark, events: list[str]) -> None:
        super().__init__(benchmark)
        self._events = events

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
    """What was read of the benchmark in a trial, and what the method was told and shown, in order.

    Attributes:
        events: reads, when the gate opens and closes, and when the method shows its units' activity.
        shown: the prepared images of each update.
        tasks: every task that the method was told of.
    """

    events: list[str]
    shown: list[NDArray[Any]]
    tasks: list[int]


def record(spec: TrialSpec, data: Datasets) -> Record:
    """Run a trial, and write down what happens in it."""
    events: list[str] = []
    shown: list[NDArray[Any]] = []
    tasks: list[int] = []

    class Gate(Curriculum):
        @contextmanager
        def learning(self, segment: Segment) -> Iterator[Iterator[Mixture]]:
            with super().learning(segment) as lanes:
                events.append(f"open {list(segment.tasks)}")
                yield lanes
                events.append(f"close {list(segment.tasks)}")

    def watched(method_spec: MethodSpec, surroundings: Surroundings) -> Method:
        method = METHODS[method_spec.kind].build(method_spec, surroundings)
        learn, prepare, start, unpack = method.learn, method.prepare, method.start, method.unpack
        activity = method.activity

        def learning(state: Tensors, batch: Batch) -> Step:
            shown.append(batch.images.numpy().copy())
            tasks.extend(batch.tasks or ())
            return learn(state, batch)

        def preparing(task: int | None, images: torch.Tensor) -> torch.Tensor:
            tasks.extend([task] if task is not None else [])
            return prepare(task, images)

        def starting(given: Sequence[int]) -> Tensors:
            tasks.extend(given)
            return start(given)

        def unpacking(kept: Tensors, given: Sequence[int]) -> Tensors:
            tasks.extend(given)
            return unpack(kept, given)

        def showing(state: Tensors, images: torch.Tensor) -> Tensors:
            events.append("activity")
            return activity(state, images)

        hooks = {"learn": learning, "prepare": preparing, "start": starting, "unpack": unpacking, "activity": showing}
        for name, hook in hooks.items():
            setattr(method, name, hook)
        return method

    entry, method_entry = BENCHMARKS[spec.benchmark.kind], METHODS[spec.method.kind]
    recorded = dataclasses.replace(entry, build=lambda *settings: Recorded(entry.build(*settings), events))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crwn.trial, "BENCHMARKS", {spec.benchmark.kind: recorded})
        patch.setattr(crwn.learner, "METHODS", {spec.method.kind: dataclasses.replace(method_entry, build=watched)})
        patch.setattr(crwn.trial, "Curriculum", Gate)
        run(spec, data)
    return Record(events, shown, tasks)


Recorder = Callable[[TrialSpec], Record]


@pytest.fixture(scope="module")
def recorded(digits: Datasets) -> Recorder:
    """Writes down a trial as `record` does, each once for all tests."""
    return functools.cache(lambda spec: record(spec, digits))


UNTOLD = RotatedSpec(base="digits", num_tasks=4, step_degrees=30.0, task_known=False)
WITHOUT_TASKS = [name for name, blueprint in BLUEPRINTS.items() if "tasks" not in blueprint.needs]


def written_down(name: str) -> TrialSpec:
    """The trial that is recorded of a case: tasks are not told where the method needs none."""
    given = UNTOLD if name in WITHOUT_TASKS else PermutedSpec(base="digits", num_tasks=4)
    return trial(name, seed=3, benchmark=SETTINGS[name].benchmark or given)


@every_method
def test_training_data_are_read_behind_the_gate(name: str, recorded: Recorder) -> None:
    """A task's training data are read only while the gate is open for it alone; tests only while it is closed."""
    spec = written_down(name)
    events = [event for event, _ in itertools.groupby(recorded(spec).events)]
    all_tasks = list(range(num_tasks_of(spec)))
    if GROUPINGS[name] == "all":
        expected = [f"open {all_tasks}", f"mixture of {all_tasks}", f"close {all_tasks}"]
        expected += [f"test {task}" for task in all_tasks]
    else:
        expected = []
        for task in all_tasks:
            expected += [f"open [{task}]", f"train {task}", f"close [{task}]", f"test {task}"]
            if not BLUEPRINTS[name].is_independent or task == all_tasks[-1]:
                expected += [f"test {earlier}" for earlier in range(task)]
    if "activity" in events:
        expected += [event for task in all_tasks for event in (f"test {task}", "activity")]
    assert events == expected


def exists_for(name: str, benchmark: BenchmarkSpec) -> bool:
    try:
        trial(name, benchmark=benchmark)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", WITHOUT_TASKS)
def test_a_method_that_needs_no_task_gets_none(name: str, recorded: Recorder) -> None:
    """Where tasks are not told, neither learning nor a test says which task an image is from."""
    spec = written_down(name)
    assert not tells_tasks(spec)
    assert recorded(spec).tasks == []


@pytest.mark.parametrize("name", [name for name in WITHOUT_TASKS if name in CASES and exists_for(name, UNTOLD)])
def test_a_method_that_needs_no_task_learns_the_same_where_it_is_told(name: str, learned: Learned) -> None:
    """The results are the same in both scenarios, bit for bit: being told the task has no effect."""
    told_of = RotatedSpec(base="digits", num_tasks=4, step_degrees=30.0)
    one, other = (learned(trial(name, benchmark=benchmark)) for benchmark in (UNTOLD, told_of))
    assert [(row.loss, row.accuracy) for row in one.rows] == [(row.loss, row.accuracy) for row in other.rows]
    (own, shared), (other_own, other_shared) = kept_of(one), kept_of(other)
    assert own == other_own == {}
    assert same(shared, other_shared) == set(shared)


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITHOUT_TASKS])
def test_a_method_that_needs_the_task_is_refused_where_it_is_not_told(name: str) -> None:
    """Before anything is learned, with the scenarios in which it runs."""
    with refused(InvalidError, "scenario-tells-too-little", says=["'domain'", "'task'"]):
        trial(name, benchmark=UNTOLD)


@every_method
def test_batches_are_those_of_the_seed(name: str, digits: Datasets, recorded: Recorder) -> None:
    """Images come in the order drawn from (seed, task, epoch), which is the same for all methods.

    Mixed tasks, whose batches cannot be the same, have the same images, in an order drawn from (seed, epoch).
    """
    spec = written_down(name)
    found = recorded(spec).shown
    benchmark, num_tasks = built(spec, digits), num_tasks_of(spec)
    images = [benchmark.train_split(task).images.numpy() for task in range(num_tasks)]
    mixed, method = GROUPINGS[name] == "all", build(spec)
    expected = []
    for stream, examples in [("mixed", np.concatenate(images))] if mixed else enumerate(images):
        num_updates = NUM_UPDATES * (num_tasks if mixed else 1)
        per_epoch = -(-len(examples) // BATCH_SIZE)
        for step in range(num_updates):
            epoch, batch = divmod(step, per_epoch)
            order = seeding.numpy_generator(spec.seed, "batches", stream, epoch).permutation(len(examples))
            shown = examples[order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]]
            task = None if mixed else told(spec, [int(stream)])[0]
            expected.append(shown if mixed else method.prepare(task, torch.from_numpy(shown)).numpy())
    assert len(found) == len(expected)
    # Bytes are equal; what a method prepares of them is to rounding.
    assert all(np.allclose(one[0], other, rtol=1e-9) for one, other in zip(found, expected, strict=True))


@methods_learned("all")
def test_batches_are_mixed_uniformly(name: str, digits: Datasets) -> None:
    """Of 64 examples each is of any of the 4 tasks with equal chances, as drawn without replacement from 4 x 1437.

    So the count of a task in a batch has the mean 64/4 and the variance v = 64 (1/4)(3/4)(1 - 63/5747). Over the 89
    full batches of an epoch every task's mean is within five of its deviations, the mean of all squared distances
    within five of v sqrt(2/(89 3)), and in the whole epoch every task is seen exactly as often.
    """
    num_tasks, num_train = 4, 1437
    spec = trial(name, benchmark=PermutedSpec(base="digits", num_tasks=num_tasks))
    found = [images for (images,) in record(spec, digits).shown]
    images = digits.load("digits").train.images.reshape(num_train, 64)
    tasks_with: dict[bytes, set[int]] = {}
    for task in range(num_tasks):
        for row in images[:, permutation_map(64, 0, task)]:
            tasks_with.setdefault(row.tobytes(), set()).add(task)
    assert all(len(tasks) == 1 for tasks in tasks_with.values())  # a picture shows its task
    counts = [Counter(next(iter(tasks_with[row.tobytes()])) for row in batch) for batch in found]
    num_full = num_tasks * num_train // BATCH_SIZE
    assert sum(counts[: num_full + 1], Counter()) == dict.fromkeys(range(num_tasks), num_train)

    distances = np.array([[count[task] for task in range(num_tasks)] for count in counts[:num_full]]) - BATCH_SIZE / 4
    variance = BATCH_SIZE * 3 / 16 * (1 - (BATCH_SIZE - 1) / (num_tasks * num_train - 1))
    assert num_full == 89
    assert np.abs(distances.mean(axis=0)).max() < 5 * (variance / num_full) ** 0.5
    assert abs((distances**2).mean() - variance) < 5 * variance * (2 / (num_full * 3)) ** 0.5


@in_every_setting
def test_equal_seeds_give_equal_results(name: str, digits: Datasets, learned: Learned) -> None:
    """Running a trial again gives the same rows, curves, contexts and weights, byte for byte."""
    one, other = learned(trial(name, dtype="float32")), run(trial(name, dtype="float32"), digits)
    assert results(one) == results(other)
    assert one.contexts == other.contexts
    assert one.fingerprint == other.fingerprint


@every_method
def test_every_seed_is_another_trial(name: str, learned: Learned) -> None:
    """Weights, starts and results differ; the sizes of networks and tasks, and the tests, do not."""
    specs = [trial(name, seed=seed) for seed in range(2)]
    finished = [learned(spec) for spec in specs]
    draws = bool(specs[0].blueprint().backbone.arrays)
    assert {result.fingerprint == "none" for result in finished} == {not draws}
    assert len({result.fingerprint for result in finished}) == (2 if draws else 1)
    assert len({result.rows[0].loss for result in finished}) == 2
    tensors = [contexts.load(result.contexts).tensors for result in finished]
    for key in tensors[0]:
        assert len({kept[key].numpy().tobytes() for kept in tensors}) == 2, key

    same_seed = {dataclasses.replace(spec.blueprint(), backbone=specs[0].blueprint().backbone) for spec in specs}
    assert same_seed == {specs[0].blueprint()}
    assert len({tuple((row.task, row.tasks_learned) for row in result.rows) for result in finished}) == 1
