"""A trial as a value: what is learned, on what, at which scale, from which seed, with which training settings.

Everything here is frozen and free of torch. The parts that belong to one method or one benchmark are defined in that
method's or benchmark's own file; this file says what they must offer and turns the whole into canonical JSON, whose
hash is the trial's identity.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import annotated_types

from crwn.backbone import BackboneSpec

if TYPE_CHECKING:
    from crwn.data.base import Normalisation

Count = Annotated[int, annotated_types.Ge(1), annotated_types.Le(2**63 - 1)]
Index = Annotated[int, annotated_types.Ge(0), annotated_types.Le(2**63 - 1)]
PositiveFloat = Annotated[float, annotated_types.Gt(0)]
NotNegative = Annotated[float, annotated_types.Ge(0)]

READ_STRICTLY: Mapping[str, Any] = types.MappingProxyType({"extra": "forbid", "strict": True, "allow_inf_nan": False})
"""Pydantic's configuration for reading specs from files; every spec carries it, none needs pydantic."""

HASH_PREFIX = b"crwn-trial-1\n"
"""Hashed before the canonical JSON; changes only when equal specs no longer mean equal trials."""

TRIAL_ID = re.compile("[0-9a-f]{16}")
"""A trial's identity: folders are named by it."""

Grouping = Literal["one", "any", "all"]
"""How many tasks a method can learn at once: one at a time, any number, or only all together."""

Scenario = Literal["task", "domain", "class", "general"]
"""What a label means and what a learner is told, after van de Ven et al. 2022, "Three types of incremental learning"
(Nature Machine Intelligence 4), and Buzzega et al. 2020, arXiv:2004.07211:

- `task`: which task an image is from is told, in training and in testing;
- `domain`: it is not told; every task has the same classes;
- `class`: it is not told; every task brings classes of its own, and the learner tells all of them apart;
- `general`: nothing is told, not even when a task ends: a stream.
"""

Need = Literal["tasks", "ends", "classes"]
"""What a method may need to be told: the task, when a task begins and ends, and that each task brings new classes."""

SCENARIOS: Mapping[Scenario, frozenset[Need]] = types.MappingProxyType(
    {
        "task": frozenset({"tasks", "ends"}),
        "domain": frozenset({"ends"}),
        "class": frozenset({"ends", "classes"}),
        "general": frozenset(),
    }
)
"""What each scenario tells."""

_NEEDS: Mapping[Need, str] = types.MappingProxyType(
    {
        "tasks": "which task an image is from",
        "ends": "when a task begins and ends",
        "classes": "that each task brings classes of its own",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemShape:
    """The sizes of a benchmark, known without its data.

    Attributes:
        input_shape: channels, height, width of an image.
        num_classes: the outputs of a head: classes of one task, or of all where one head tells all of them apart.
        num_tasks: what is tested, each with a figure of its own.
        labels_are_shared: whether a label means the same wherever it occurs.
        scenario: what a learner is told.
        num_segments: what is learned one after another; 0 stands for one segment per task.
        segment_sizes: training images of each segment; expected ones, whose sum is right, where images are held out or
            the seed draws which classes come when. Empty: not known without the data.
        task_classes: the classes of each task where each has its own of one label space; else empty.
        tests_ahead: whether a task is also tested just before it is learned, and all of them before any is.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    num_tasks: int
    labels_are_shared: bool = True
    scenario: Scenario = "task"
    num_segments: int = 0
    segment_sizes: tuple[int, ...] = ()
    task_classes: tuple[tuple[int, ...], ...] = ()
    tests_ahead: bool = False

    def __post_init__(self) -> None:
        if not self.num_segments:
            object.__setattr__(self, "num_segments", self.num_tasks)

    @property
    def input_size(self) -> int:
        """The numbers in one image, the `d` of the equations."""
        return math.prod(self.input_shape)

    @property
    def is_stream(self) -> bool:
        """Whether the training images are one stream, whose parts the learner cannot tell."""
        return self.scenario == "general"

    @property
    def num_train(self) -> int:
        """Training images of all segments; 0 where they are not known without the data."""
        return sum(self.segment_sizes)


MovesShared = Literal["never", "first segment", "always"]
"""When weights that tasks share are trained: never, they are frozen; with the first segment; with every one."""

Presentation = Literal["in turn", "together"]
"""Whether a method learns one segment after another, or all of them as one, in a mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What a method builds for one scale and problem, known without building it.

    Attributes:
        params_per_task: parameters per task in the paper's convention (shared weights divided by the number of tasks).
        trained_per_task: numbers the optimiser changes for one task.
        stored_per_task: numbers kept of one task after it was learned (an entry of a binary mask counts as one).
        multiply_adds: multiply-add operations of one training step on one example, forward and backward, as the
            plain computation does them. An estimate for planning.
        activations: numbers held of one example during a training step. An estimate, for choosing group sizes.
        backbone: the drawn arrays the method reads: frozen weights, or the start of those that tasks share.
        stored_shared: learned numbers that all tasks share, kept once.
        moves_shared: when the shared weights are trained. With the first segment: it is then learned alone.
        needs: what the method needs to be told.
        presentation: in which order it learns.
        examples_kept: training images that a replay buffer holds at most.
        examples_replayed: those that go through the network with each batch, once it holds so many.
        stored_memory: numbers that are kept between tasks to learn the next ones by, beside replayed images.
        statistics_per_task: running means and variances of batch normalisation kept of one task, besides.
        keeps_weights: whether what is kept of a task are weights, which are written out only on request.
        tests_by_batch: whether tests depend on the batch: they are then of the training's batches, in a fixed order.
    """

    params_per_task: float
    trained_per_task: int
    stored_per_task: int
    multiply_adds: int
    activations: int
    backbone: BackboneSpec
    stored_shared: int = 0
    moves_shared: MovesShared = "never"
    needs: frozenset[Need] = frozenset({"tasks"})
    presentation: Presentation = "in turn"
    examples_kept: int = 0
    examples_replayed: int = 0
    stored_memory: int = 0
    statistics_per_task: int = 0
    keeps_weights: bool = False
    tests_by_batch: bool = False

    def examples_per_update(self, batch_size: int) -> int:
        """How many go through the network in a training step: a batch, and what is replayed beside it."""
        return batch_size + self.examples_replayed

    @property
    def grouping(self) -> Grouping:
        """How many tasks can be learned at once: any number where none changes what another is learned from."""
        if not self.is_continual:
            return "all"
        return "one" if self.moves_shared == "always" or self.examples_kept or self.stored_memory else "any"

    @property
    def is_continual(self) -> bool:
        """Whether tasks are learned one after another, not all at once."""
        return self.presentation == "in turn"

    @property
    def is_independent(self) -> bool:
        """Whether learning a task leaves those learned before as they are, so that none is ever forgotten."""
        return self.is_continual and self.moves_shared != "always"


def check_group_size(group_size: int, blueprint: Blueprint, num_tasks: int) -> None:
    """Check that a method can learn so many tasks at once.

    Raises:
        ValueError: it cannot.
    """
    if blueprint.grouping == "one" and group_size != 1:
        raise ValueError(f"group_size: expected 1, given {group_size}; this method learns one task at a time")
    if blueprint.grouping == "all" and group_size != num_tasks:
        raise ValueError(f"group_size: expected {num_tasks}, given {group_size}; this method learns all tasks at once")


def later_field(default: Any) -> Any:
    """A field that a spec got after trials of it were kept; its default means "as before" and changes no identity."""
    return field(default=default, metadata={"later": True})


DEFAULT_UPDATES = 1000
"""Updates per task, of the paper's networks on MNIST."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How every task is trained.

    Attributes:
        learning_rate: the step size, of the first epoch where it decays.
        optimizer: torch's optimiser of that name with torch's defaults, a new one for each segment.
        weight_decay: of Adam and SGD; it is added to the gradient, as torch does (L2, not AdamW).
        schedule: `constant`, or `cosine`: the rate falls to 0 along half a cosine, a step after each epoch.
        updates_per_task: optimiser steps per task.
        batch_size: examples per batch; the short last batch of an epoch is kept.
        dtype: of weights, activations and optimiser state. With bfloat16, activations and products are in it, summed
            in float32; what is learned and the optimiser's state are in float32.
        momentum: of SGD.
        epochs_per_task: passes over a task's images, which then decide how many updates it takes; 0: as many as
            `updates_per_task` says.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    learning_rate: PositiveFloat
    optimizer: Literal["rmsprop", "adam", "sgd"] = "rmsprop"
    updates_per_task: Count = DEFAULT_UPDATES
    batch_size: Count = 128
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    weight_decay: NotNegative = later_field(0.0)
    schedule: Literal["constant", "cosine"] = later_field("constant")
    momentum: Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1)] = later_field(0.0)
    epochs_per_task: Index = later_field(0)

    def __post_init__(self) -> None:
        check_fields(self)
        faults = []
        if self.weight_decay and self.optimizer == "rmsprop":
            faults.append(f"weight_decay: expected 0 for rmsprop, given {self.weight_decay}; adam and sgd have it")
        if self.momentum and self.optimizer != "sgd":
            faults.append(f"momentum: expected 0 for {self.optimizer}, given {self.momentum}; sgd has it")
        if self.epochs_per_task and self.updates_per_task != DEFAULT_UPDATES:
            faults.append(
                f"epochs_per_task: expected alone, given {self.epochs_per_task} beside updates_per_task: "
                f"{self.updates_per_task}; leave out one of them"
            )
        if faults:
            raise ValueError("; ".join(faults))

    def num_updates(self, num_images: int, num_tasks: int = 1) -> int:
        """Optimiser steps of a segment.

        Args:
            num_images: training images of it.
            num_tasks: that are mixed in it.
        """
        if self.epochs_per_task:
            return self.epochs_per_task * math.ceil(num_images / self.batch_size)
        return self.updates_per_task * num_tasks


@runtime_checkable
class MethodSpec(Protocol):
    """What a method's frozen spec offers besides its own fields."""

    @property
    def kind(self) -> str:
        """The method's name in the registry."""

    def training(self, scale: str) -> TrainingSpec:
        """The paper's training settings for this method at `scale`."""

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """What this method builds at `scale` for `problem`.

        Raises:
            ValueError: the scale is not one of this method's, or the method does not exist for this problem.
        """


@runtime_checkable
class BenchmarkSpec(Protocol):
    """What a benchmark's frozen spec offers besides its own fields."""

    @property
    def kind(self) -> str:
        """The benchmark's name in the registry."""

    @property
    def base(self) -> str:
        """The base data set that the tasks are made from."""

    @property
    def validation(self) -> int:
        """Training images held out, which then stand for the test images; 0 for the real test."""

    def problem(self) -> ProblemShape:
        """The benchmark's sizes."""

    def normalisation(self) -> Normalisation:
        """How networks see its pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial, all settings resolved. Equal specs are the same trial, whatever sweep asks for it.

    Raises:
        ValueError: a part is of the wrong kind; the method cannot be built at this scale for this benchmark, or needs
            to be told what the benchmark's scenario does not tell; the training does not fit the benchmark.
    """

    method: MethodSpec
    benchmark: BenchmarkSpec
    scale: str
    seed: Index
    training: TrainingSpec

    def __post_init__(self) -> None:
        check_fields(self)
        problem, blueprint = self.benchmark.problem(), self.blueprint()
        if faults := _scenario_faults(self, blueprint, problem):
            raise ValueError("; ".join(faults))

    def blueprint(self) -> Blueprint:
        """What this trial builds."""
        return self.method.blueprint(self.scale, self.benchmark.problem(), self.seed)

    def num_updates(self) -> int:
        """Optimiser steps of the whole trial, worked out from the base set's counts."""
        problem, training = self.benchmark.problem(), self.training
        if problem.is_stream:
            return math.ceil(problem.num_train / training.batch_size)
        if not training.epochs_per_task:
            return training.updates_per_task * problem.num_segments
        if not self.blueprint().is_continual:
            return training.num_updates(problem.num_train)
        return sum(training.num_updates(size) for size in problem.segment_sizes)

    def multiply_adds_per_update(self) -> int:
        """Of one training step, as the plain computation does it."""
        blueprint = self.blueprint()
        return blueprint.multiply_adds * blueprint.examples_per_update(self.training.batch_size)

    def canonical_json(self) -> str:
        """The spec as JSON with sorted keys and no white space: equal specs give equal text."""
        return canonical_json(self)

    @property
    def trial_id(self) -> str:
        """Sixteen hexadecimal digits that identify the trial: a hash of the canonical JSON."""
        return trial_id_of(self.canonical_json())

    @property
    def variant(self) -> str:
        """The method's settings that differ from the paper's, such as `modulation=local`; empty if none does."""
        default: Any = type(self.method)()
        names = sorted(item.name for item in dataclasses.fields(default))
        changed = [name for name in names if getattr(self.method, name) != getattr(default, name)]
        return ",".join(f"{name}={getattr(self.method, name)}" for name in changed)


def _scenario_faults(trial: TrialSpec, blueprint: Blueprint, problem: ProblemShape) -> list[str]:
    """Why a method cannot learn a benchmark as its scenario is, or with this training; nothing where it can."""
    method, scenario, training = trial.method.kind, problem.scenario, trial.training
    faults = []
    if missing := sorted(blueprint.needs - SCENARIOS[scenario]):
        able = [name for name, told in SCENARIOS.items() if blueprint.needs <= told]
        faults.append(
            f"{method} needs to be told {' and '.join(_NEEDS[need] for need in missing)}, which the scenario "
            f"{scenario!r} of {trial.benchmark.kind!r} does not tell; it runs where the scenario is "
            f"{' or '.join(map(repr, able))}"
        )
    elif "tasks" not in blueprint.needs and not problem.labels_are_shared:
        faults.append(
            f"{method} is one network that is not told the task: expected a benchmark whose labels mean the same in "
            f"every task, given {trial.benchmark.kind!r}, whose tasks number their classes anew; take a benchmark of "
            "the scenario 'class', such as seq-cifar100, or a method with something of each task's own, such as stl"
        )
    if problem.segment_sizes and blueprint.examples_kept > problem.num_train:
        faults.append(
            f"buffer: expected at most the {problem.num_train} training images of the benchmark, given "
            f"{blueprint.examples_kept}"
        )
    # One epoch, which many methods have by default, is what a stream is.
    if problem.is_stream and (training.epochs_per_task > 1 or training.updates_per_task != DEFAULT_UPDATES):
        name = "epochs_per_task" if training.epochs_per_task else "updates_per_task"
        faults.append(
            f"{name}: expected to be left out on {trial.benchmark.kind!r}, a stream whose images are each seen once, "
            f"given {getattr(training, name)}; its number of images and batch_size decide"
        )
    return faults


def trial_id_of(canonical: str) -> str:
    """The identity of the trial whose canonical JSON this is; see `TrialSpec.trial_id`, and `TRIAL_ID` for its form."""
    return hashlib.sha256(HASH_PREFIX + canonical.encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """A frozen dataclass as JSON with sorted keys and no white space.

    A later field (`later_field`) is left out while it has the value that means "as before".

    Raises:
        ValueError: a number in it is infinite or not a number.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return value
    return {
        item.name: _plain(getattr(value, item.name))
        for item in dataclasses.fields(value)
        if not (item.metadata.get("later") and getattr(value, item.name) == item.default)
    }


def check_fields(spec: Any) -> None:
    """Check every field of a dataclass against its annotation; call it from `__post_init__`.

    Understands int, float, str, bool, `Literal`, dataclasses, runtime protocols, and the bounds of `annotated_types`.
    An int given for a float becomes one, and -0.0 becomes 0.0, so that equal settings have equal JSON.

    Raises:
        ValueError: names every field that is wrong, with what was expected and what was given.
    """
    faults = []
    for name, hint in _hints(type(spec)).items():  # type: ignore[arg-type]  # mypy takes no class to be hashable
        value = getattr(spec, name)
        if _plain_type(hint) is float and isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # then it stays an int and is refused below
                value = float(value) + 0.0
                object.__setattr__(spec, name, value)
        fault = _fault(hint, value)
        if fault:
            faults.append(f"{name}: expected {fault}, given {value!r}")
    if faults:
        raise ValueError("; ".join(faults))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The fields of a dataclass by their annotations, which cost more to resolve than to check."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def _plain_type(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


_BOUNDS: Mapping[type, tuple[str, str, Callable[[Any, Any], bool]]] = types.MappingProxyType(
    {
        annotated_types.Ge: ("ge", "at least", operator.ge),
        annotated_types.Gt: ("gt", "more than", operator.gt),
        annotated_types.Le: ("le", "at most", operator.le),
        annotated_types.Lt: ("lt", "less than", operator.lt),
    }
)


def _fault(hint: Any, value: Any) -> str | None:
    """What was expected, if `value` does not fit `hint`."""
    plain = _plain_type(hint)
    if typing.get_origin(plain) is Literal:
        choices = typing.get_args(plain)
        return None if value in choices else "one of " + ", ".join(map(repr, choices))
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        return f"{plain.__name__}"
    if plain is float and not math.isfinite(value):
        return "a finite number"
    for bound in typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ():
        attribute, words, holds = _BOUNDS[type(bound)]
        limit = getattr(bound, attribute)
        if not holds(value, limit):
            return f"{words} {limit}"
    return None


def kind_field(kind: str) -> Any:
    """The `kind` field of a method's or benchmark's spec: fixed, and part of the canonical JSON."""
    return field(default=kind, init=False)
