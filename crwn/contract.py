"""The promises of every method, as checks: `crwn.testing.check_method` runs them on plug-ins, tests/contracts on all.

Each check is a function of a case; its name and docstring state the promise, and it raises an AssertionError.

Shapes: G tasks learned at once, B examples per task, d values per image, m classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from unittest import mock

import numpy as np
import torch

import crwn.engine
from crwn import backbone, replay
from crwn.batches import Lanes, Table
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.protocol import Benchmark, Curriculum
from crwn.data import Datasets
from crwn.events import Numerics, ResumePoint, TaskRow
from crwn.methods import METHODS
from crwn.methods.protocol import Method, Surroundings, Tensors
from crwn.nn.kernels import PLAIN
from crwn.schedule import Schedule
from crwn.spec import SCENARIOS
from crwn.trial import Event, Finished, run_trial
from crwn.trial_spec import TrialSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractCase:
    """A method under test.

    Attributes:
        spec: a small trial of at least 4 tasks, in float32.
        data: reads its base set.
    """

    spec: TrialSpec
    data: Datasets

    def trial(self, *, seed: int | None = None, dtype: str = "float64") -> TrialSpec:
        """The trial in this dtype, at its own or another seed."""
        training = dataclasses.replace(self.spec.training, dtype=dtype)  # type: ignore[arg-type]  # checked by the spec
        return dataclasses.replace(self.spec, seed=self.spec.seed if seed is None else seed, training=training)


def num_tasks_of(spec: TrialSpec) -> int:
    """Number of tasks of a trial."""
    return spec.benchmark.problem().num_tasks


def tells_tasks(spec: TrialSpec) -> bool:
    """Whether a trial's scenario tells the task."""
    return "tasks" in SCENARIOS[spec.benchmark.problem().scenario]


def surroundings_of(spec: TrialSpec) -> Surroundings:
    """What a trial's method is built from: PyTorch's own products, in the trial's dtype, on the CPU."""
    dtype: torch.dtype = getattr(torch, spec.training.dtype)
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    return Surroundings(
        scale=spec.scale,
        problem=spec.benchmark.problem(),
        seed=spec.seed,
        backbone={name: torch.tensor(np.asarray(array), dtype=dtype) for name, array in arrays.items()},
        normalisation=spec.benchmark.normalisation(),
        device=torch.device("cpu"),
        dtype=dtype,
        product_dtype=dtype,
        kernel=PLAIN,
    )


def build(spec: TrialSpec) -> Method:
    """A trial's learner."""
    learner: Method = METHODS[spec.method.kind].build(spec.method, surroundings_of(spec))
    return learner


def built(spec: TrialSpec, data: Datasets) -> Benchmark:
    """A trial's tasks."""
    images = data.load(spec.benchmark.base)
    return BENCHMARKS[spec.benchmark.kind].build(spec.benchmark, images, spec.seed, torch.device("cpu"))


def begin(method: Method, tasks: Sequence[int]) -> Tensors:
    """The whole initial state of tasks: shared tensors, memory, and their own."""
    return {**method.start_shared(), **method.start_memory(), **method.start(tasks)}


def told(spec: TrialSpec, tasks: Sequence[int]) -> Sequence[int | None]:
    """What a method is told about tasks."""
    return tasks if tells_tasks(spec) else [None] * len(tasks)


def inputs(spec: TrialSpec, method: Method, tasks: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Ten random images per task, prepared."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_tasks_of(spec), 10, spec.benchmark.problem().input_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    pairs = zip(tasks, told(spec, tasks), strict=True)
    return torch.stack([method.prepare(name, images[task]) for task, name in pairs])


@contextmanager
def opened(spec: TrialSpec, method: Method, data: Datasets) -> Iterator[Lanes]:
    """The training examples of the first segment, as the engine opens them."""
    curriculum = Curriculum(built(spec, data), spec.benchmark.problem().scenario)
    schedule = Schedule(curriculum, spec.blueprint(), spec.training)
    segment = schedule.next_segment(0, 1)
    with curriculum.learning(segment) as mixtures:
        yield Table().lay(
            segment,
            mixtures,
            curriculum=curriculum,
            prepare=method.prepare,
            seed=spec.seed,
            batch_size=spec.training.batch_size,
            before=schedule.before(segment),
            timed=nullcontext,
        )


def smallest_group(spec: TrialSpec) -> int:
    """The smallest number of tasks that a method learns at once."""
    return num_tasks_of(spec) if spec.blueprint().grouping == "all" else 1


def ignore(event: Event) -> None:
    """Do nothing with an event."""
    del event


def run(
    spec: TrialSpec,
    data: Datasets,
    group_size: int | None = None,
    on_event: Callable[[Event], None] = ignore,
    resume_from: bytes | None = None,
) -> Finished:
    """Run a trial, keeping weights, in groups as small as the method allows unless said otherwise."""
    numerics = Numerics(device="cpu", group_size=group_size or smallest_group(spec), kernel="plain", threads=1)
    return run_trial(
        spec,
        data=data,
        backbones=backbone.draw,
        numerics=numerics,
        keep_weights=True,
        on_event=on_event,
        resume_from=resume_from,
    )


def results(finished: Finished) -> list[TaskRow]:
    """All rows without their times; points of curves are compared without theirs."""
    return [
        dataclasses.replace(row, train_seconds=row.train_seconds and 0.0, eval_seconds=0.0, tested=0.0)
        for row in finished.rows
    ]


def same(before: Tensors, after: Tensors) -> set[str]:
    """The names under which the same numbers are stored."""
    return {key for key, tensor in before.items() if torch.equal(tensor, after[key].detach())}


# The checks


def a_start_depends_on_seed_and_task_alone(case: ContractCase) -> None:
    """Task 3 always starts from the same values, alone or with others, in any order; other tasks and seeds from others.

    So do the shared weights. A method that is not told the task has no per-task tensors.
    """
    method, again = build(case.trial()), build(case.trial())
    other_seed = build(case.trial(seed=case.spec.seed + 1))
    alone, alone_again = method.start([3]), again.start([3])
    beside = method.start([1, 3])
    turned = method.start([3, 2, 1])
    for key, tensor in alone.items():
        assert torch.equal(tensor, alone_again[key]), key
        assert torch.equal(tensor, beside[key][1:]), key
        assert torch.equal(tensor, turned[key][:1]), key
        assert torch.equal(beside[key][:1], turned[key][2:]), key
    shared, shared_again, shared_elsewhere = (one.start_shared() for one in (method, again, other_seed))
    assert all(torch.equal(tensor, shared_again[key]) for key, tensor in shared.items())
    assert not shared or any(not torch.equal(tensor, shared_elsewhere[key]) for key, tensor in shared.items())

    assert bool(alone) == ("tasks" in case.spec.blueprint().needs), (
        "a task's own tensors are those of one told the task"
    )
    if alone:
        assert any(not torch.equal(beside[key][0], beside[key][1]) for key in alone)
        assert any(not torch.equal(tensor, other_seed.start([3])[key]) for key, tensor in alone.items())
    assert alone or shared


def a_start_has_the_task_axis_and_the_dtype(case: ContractCase) -> None:
    """Per-task tensors have a leading task axis; learned numbers have the trial's dtype; no tensors share memory.

    Every name has one role: per task, shared, or memory, which has no gradient.
    """
    for dtype in ("float32", "float64"):
        method = build(case.trial(dtype=dtype))
        own, shared, memory = method.start([2, 0, 1]), method.start_shared(), method.start_memory()
        assert all(tensor.shape[0] == 3 for tensor in own.values())
        roles = [own, shared, memory]
        assert len({key for role in roles for key in role}) == sum(map(len, roles)), "a name is of one role"
        assert not any(tensor.requires_grad for tensor in memory.values())
        everything = [tensor for role in roles for tensor in role.values()]
        assert all(tensor.is_leaf for tensor in everything)
        numbers = [tensor for tensor in (*own.values(), *shared.values()) if tensor.is_floating_point()]
        assert all(tensor.dtype == getattr(torch, dtype) for tensor in numbers)
        assert not any(tensor.requires_grad for tensor in shared.values() if not tensor.is_floating_point())
        places = [tensor.untyped_storage().data_ptr() for tensor in everything if tensor.numel()]
        assert len(set(places)) == len(places), "two tensors share their memory"


def shared_weights_are_trained_when_the_blueprint_says(case: ContractCase) -> None:
    """A method with trained shared weights says when they are trained, and a method that says so has some."""
    shared = build(case.trial()).start_shared()
    moves = case.spec.blueprint().moves_shared
    assert any(tensor.requires_grad for tensor in shared.values()) == (moves != "never"), moves


def both_dtypes_start_from_the_same_numbers(case: ContractCase) -> None:
    """A float64 trial is the same trial computed more precisely; its constants may be more precise too."""
    single, double = (build(case.trial(dtype=dtype)) for dtype in ("float32", "float64"))
    begun, begun_double = begin(single, [0, 1]), begin(double, [0, 1])
    trained = {key for key, tensor in begun.items() if tensor.requires_grad}
    assert set(begun) == set(begun_double)
    for key, tensor in begun.items():
        assert torch.equal(tensor, begun_double[key].to(tensor.dtype)), key
        if key in trained:
            assert torch.equal(tensor.double(), begun_double[key]), key


def the_blueprint_counts_what_is_trained_and_kept(case: ContractCase) -> None:
    """The blueprint counts the numbers trained per task, stored per task (a packed bit counts as one) and remembered.

    For a replay buffer, images are counted as such, and everything else as numbers, except labels and
    the count of examples offered.
    """
    method, blueprint = build(case.trial()), case.spec.blueprint()
    state, shared = method.start([0]), method.start_shared()
    num_shared = sum(tensor.numel() for tensor in shared.values())
    assert num_shared == blueprint.stored_shared, "stored_shared"
    num_own = sum(tensor.numel() for tensor in state.values() if tensor.requires_grad)
    num_trained = sum(tensor.numel() for tensor in shared.values() if tensor.requires_grad)
    num_trained = num_own + (num_trained if blueprint.moves_shared == "always" else 0)
    assert num_trained == blueprint.trained_per_task, "trained_per_task"
    kept = method.pack({key: tensor.detach() for key, tensor in state.items()})
    num_kept = sum(tensor.numel() * (8 if tensor.dtype == torch.uint8 else 1) for tensor in kept.values())
    assert num_kept == blueprint.stored_per_task, "stored_per_task"

    memory = method.start_memory()
    assert len(memory.get(replay.IMAGES, ())) == blueprint.examples_kept, "examples_kept"
    counted = memory.keys() - {replay.IMAGES, replay.LABELS, replay.SEEN}
    num_remembered = sum(memory[key].numel() for key in counted)
    assert num_remembered == blueprint.stored_memory, "stored_memory"


def the_blueprint_draws_exactly_what_is_read(case: ContractCase) -> None:
    """The method's class scores depend on every array of its backbone."""
    spec = case.trial()
    surroundings, array_specs = surroundings_of(spec), spec.blueprint().backbone.arrays
    entry = METHODS[spec.method.kind]
    method = entry.build(spec.method, surroundings)
    logits = method.logits(begin(method, [0, 1]), inputs(spec, method, [0, 1]))
    assert logits.shape == (2, 10, spec.benchmark.problem().num_classes)
    assert spec.blueprint().backbone.seed == spec.seed
    assert {array.name for array in array_specs} == set(surroundings.backbone)
    for array in array_specs:
        drawn = surroundings.backbone[array.name]
        assert tuple(drawn.shape) == array.shape
        changed = dataclasses.replace(surroundings, backbone={**surroundings.backbone, array.name: drawn.flip(0)})
        other = entry.build(spec.method, changed)
        assert not torch.equal(other.logits(begin(other, [0, 1]), inputs(spec, other, [0, 1])), logits), array.name


def what_is_kept_gives_the_same_logits(case: ContractCase) -> None:
    """Packing and unpacking changes no bit of the class scores, for a group and for one task cut out of it."""
    spec = case.trial()
    method = build(spec)
    begun = method.start([0, 1, 2])
    constants = {key for key, tensor in begun.items() if not tensor.requires_grad}
    state = {key: tensor.detach() for key, tensor in begun.items()}
    shared = {key: tensor.detach().clone() for key, tensor in method.start_shared().items()}
    generator = torch.Generator().manual_seed(0)
    for key, tensor in [*state.items(), *shared.items()]:  # anywhere, not only where tasks start
        if key not in constants and tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, dtype=tensor.dtype, generator=generator) / 10)
    remembered = shared | method.start_memory()
    kept = method.pack(state)
    assert all(len(tensor) == 3 for tensor in kept.values())
    unpacked = method.unpack(kept, [0, 1, 2])
    images = inputs(spec, method, [0, 1, 2])
    assert torch.equal(method.logits(unpacked | remembered, images), method.logits(state | remembered, images))

    one = {key: tensor[1:2] for key, tensor in kept.items()}
    own = {key: tensor[1:2] for key, tensor in state.items()}
    assert torch.equal(
        method.logits(method.unpack(one, [1]) | remembered, images[1:2]), method.logits(own | remembered, images[1:2])
    )


def a_test_changes_nothing(case: ContractCase) -> None:
    """Computing class scores and preparing images change no tensor, including memory."""
    spec = case.trial()
    method = build(spec)
    state = begin(method, [0])
    before = {key: tensor.detach().clone() for key, tensor in state.items()}
    images = inputs(spec, method, [0])
    shown = images.clone()
    method.logits(state, images)
    assert same(before, state) == set(state), set(state) - same(before, state)
    assert torch.equal(images, shown), "the images were changed"


def learning_gives_values(case: ContractCase) -> None:
    """Tensors updated by a segment are returned by name, with the same shape and dtype, without a graph.

    The given trained tensors are unchanged; memory may be written in place, as buffers are.
    """
    spec = case.trial()
    method = build(spec)
    with opened(spec, method, case.data) as lanes:
        batch = lanes.batch(0, rate=0.01)
        state = begin(method, batch.tasks or [0])
        trained = {key: tensor for key, tensor in state.items() if tensor.requires_grad}
        memory = method.start_memory()
        before = {key: tensor.detach().clone() for key, tensor in state.items()}
        tells_ends = "ends" in SCENARIOS[spec.benchmark.problem().scenario]
        moved = [method.begin(state, lanes.whole(), 0.01)] if tells_ends else []
        step = method.learn(state, batch)
        assert step.loss_G.shape == (len(batch.labels),)
        assert step.logits_GBm.shape[:2] == batch.labels.shape
        found = torch.autograd.grad(step.loss_G.sum(), list(trained.values()), allow_unused=True)
        given = {key: tensor for key, tensor in zip(trained, found, strict=True) if tensor is not None}  # type: ignore[redundant-expr]  # it may be
        with torch.no_grad():
            adjusted, remembered = method.adjust(state, batch, given)
        moved += [step.moved, remembered]
        if tells_ends:
            moved.append(method.end(state, lanes.whole()))
    assert given, "nothing that is trained has a gradient"
    assert adjusted.keys() <= trained.keys()
    for values in moved:
        for key, tensor in values.items():
            assert tensor.shape == state[key].shape, key
            assert tensor.dtype == state[key].dtype, key
            assert not tensor.requires_grad, key
    assert same(before, state) >= set(state) - set(memory)
    for values in moved[1:]:
        assert not set(values) & set(trained), "what is trained moves by its gradient alone, but where a segment begins"


def equal_seeds_give_equal_results(case: ContractCase) -> None:
    """Running a trial again gives the same rows, curves, contexts and weights, byte for byte."""
    spec = case.trial(dtype="float32")
    one, other = run(spec, case.data), run(spec, case.data)
    assert results(one) == results(other)
    assert one.contexts == other.contexts
    assert one.fingerprint == other.fingerprint


def a_resumed_trial_computes_the_same(case: ContractCase) -> None:
    """Resuming from the middle gives the same rows, contexts and weights, byte for byte."""
    spec, points = case.trial(dtype="float32"), list[bytes]()

    def keep(event: Event) -> None:
        if isinstance(event, ResumePoint):
            points.append(event.content)

    with mock.patch.multiple(crwn.engine, MIN_RESUME_SECONDS=0.0, RESUME_COST_FACTOR=0.0):  # after every update
        whole = run(spec, case.data, on_event=keep)
    assert points
    resumed = run(spec, case.data, resume_from=points[len(points) // 2])
    assert results(resumed) == results(whole)
    assert resumed.contexts == whole.contexts


CHECKS: Mapping[str, Callable[[ContractCase], None]] = MappingProxyType(
    {
        check.__name__: check
        for check in (
            a_start_depends_on_seed_and_task_alone,
            a_start_has_the_task_axis_and_the_dtype,
            shared_weights_are_trained_when_the_blueprint_says,
            both_dtypes_start_from_the_same_numbers,
            the_blueprint_counts_what_is_trained_and_kept,
            the_blueprint_draws_exactly_what_is_read,
            what_is_kept_gives_the_same_logits,
            a_test_changes_nothing,
            learning_gives_values,
            equal_seeds_give_equal_results,
            a_resumed_trial_computes_the_same,
        )
    }
)
"""The checks by name, fast ones first."""
