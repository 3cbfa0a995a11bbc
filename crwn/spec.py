"""What the specs of methods, benchmarks and trials share: interfaces, training settings, checks, identity.

Everything here is frozen and free of torch. Parts that belong to one method or benchmark are defined in its own file;
`crwn.trial_spec` puts them together. A spec becomes canonical JSON, and the hash of a trial's is its identity.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import annotated_types

from crwn.backbone import BackboneSpec
from crwn.faults import Fault, InvalidError

if TYPE_CHECKING:
    from crwn.data.base import Normalisation

Count = Annotated[int, annotated_types.Ge(1), annotated_types.Le(2**63 - 1)]
Index = Annotated[int, annotated_types.Ge(0), annotated_types.Le(2**63 - 1)]
PositiveFloat = Annotated[float, annotated_types.Gt(0)]
NotNegative = Annotated[float, annotated_types.Ge(0)]


@dataclass(frozen=True, slots=True)
class OneOf:
    """An annotation of a text field: the allowed names, including those added by plug-ins so far.

    Attributes:
        names: returns them.
    """

    names: Callable[[], Sequence[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """The pydantic schema of a `Literal` of these names."""
        del source, handler
        return {"type": "literal", "expected": list(self.names())}


READ_STRICTLY: Mapping[str, Any] = types.MappingProxyType({"extra": "forbid", "strict": True, "allow_inf_nan": False})
"""Pydantic's configuration for reading specs from files; every spec carries it, but none imports pydantic."""

HASH_PREFIX = b"crwn-trial-1\n"
"""Hashed before the canonical JSON; it changes only when equal specs no longer mean equal trials."""

TRIAL_ID = re.compile("[0-9a-f]{16}")
"""The form of a trial's identity, which also names its folder."""

Grouping = Literal["one", "any", "all"]
"""How many tasks a method can learn at once: only one, any number, or only all of them."""

Scenario = Literal["task", "domain", "class", "general"]
"""What labels mean and what the learner is told, after van de Ven et al. 2022, "Three types of incremental learning"
(Nature Machine Intelligence 4), and Buzzega et al. 2020, arXiv:2004.07211:

- `task`: the learner is told which task an image is from, in training and in testing;
- `domain`: it is not told the task; every task has the same classes;
- `class`: it is not told the task; every task adds new classes, and the learner distinguishes all classes so far;
- `general`: it is told nothing, not even when a task ends: a stream.
"""

Need = Literal["tasks", "ends", "classes"]
"""What a method may need to be told: the task, when a task begins and ends, or that each task adds new classes."""

SCENARIOS: Mapping[Scenario, frozenset[Need]] = types.MappingProxyType(
    {
        "task": frozenset({"tasks", "ends"}),
        "domain": frozenset({"ends"}),
        "class": frozenset({"ends", "classes"}),
        "general": frozenset(),
    }
)
"""What each scenario tells the learner."""

NEEDS: Mapping[Need, str] = types.MappingProxyType(
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
        num_classes: outputs of a head: the classes of one task, or of all tasks if one head distinguishes them all.
        num_tasks: number of tasks, each of which is tested separately.
        labels_are_shared: whether a label means the same in every task.
        scenario: what the learner is told.
        num_segments: number of segments, which are learned one after another; 0: one per task.
        segment_sizes: number of training images per segment; if images are held out or the seed draws the class order,
            these are expected numbers with the correct sum. Empty: not known without the data.
        task_classes: the classes that each task is tested on, if all tasks share one label space and each has its own;
            else empty.
        tests_ahead: whether every task is also tested just before it is learned, and before any task is learned.
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
        """The number of values per image, the `d` of the equations."""
        return math.prod(self.input_shape)

    @property
    def is_stream(self) -> bool:
        """Whether the training images form one stream without task boundaries."""
        return self.scenario == "general"

    @property
    def tests_by_update(self) -> bool:
        """Whether tests are recorded by update: of a stream, or where tasks are trained more than once."""
        return self.is_stream or self.num_segments != self.num_tasks

    @property
    def num_train(self) -> int:
        """Number of training images of all segments; 0 if it is not known without the data."""
        return sum(self.segment_sizes)


MovesShared = Literal["never", "first segment", "always"]
"""When shared weights are trained: never (they are frozen), with the first segment, or with every segment."""

Presentation = Literal["in turn", "together"]
"""Whether a method learns one segment after another, or all of them jointly, as one mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What a method builds for one scale and problem, known without building it.

    Attributes:
        params_per_task: parameters per task in the paper's convention (shared weights divided by the number of tasks).
        trained_per_task: numbers that the optimiser updates for one task.
        stored_per_task: numbers stored per task after it is learned (one per entry of a binary mask).
        multiply_adds: multiply-adds of one training step on one example, forward and backward, in the plain
            computation. An estimate for planning.
        activations: numbers held per example during a training step. An estimate for choosing group sizes.
        backbone: the drawn arrays that the method reads: frozen weights, or the initial values of shared weights.
        stored_shared: learned numbers that all tasks share, stored once.
        moves_shared: when the shared weights are trained. If with the first segment, that one is learned alone.
        needs: what the method needs to be told.
        presentation: whether it learns segments in turn or jointly.
        examples_kept: capacity of the replay buffer, in training images.
        examples_replayed: replayed images per batch, once the buffer holds that many.
        stored_memory: numbers kept between tasks to help learn later ones, besides replayed images.
        statistics_per_task: running means and variances of batch normalisation stored per task, in addition.
        keeps_weights: whether the tensors kept per task are weights, which are written only on request.
        tests_by_batch: whether a test depends on its batches; if so, they have the training's size and a fixed order.
        draws: whether learning may draw from torch's global generators, as dropout does; they are seeded before each
            update and restored after it.
        is_convex: whether the loss is convex in what a task trains, so that where it started matters little.
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
    draws: bool = False
    is_convex: bool = False

    def examples_per_update(self, batch_size: int) -> int:
        """Examples that pass through the network in a training step: a batch, and the replayed images."""
        return batch_size + self.examples_replayed

    @property
    def grouping(self) -> Grouping:
        """How many tasks can be learned at once: any number, unless learning one affects how others are learned."""
        if not self.is_continual:
            return "all"
        return "one" if self.moves_shared == "always" or self.examples_kept or self.stored_memory else "any"

    @property
    def is_continual(self) -> bool:
        """Whether tasks are learned one after another, rather than jointly."""
        return self.presentation == "in turn"

    @property
    def is_independent(self) -> bool:
        """Whether learning a task leaves earlier tasks unchanged, so that nothing is ever forgotten."""
        return self.is_continual and self.moves_shared != "always"


def check_group_size(group_size: int, blueprint: Blueprint, num_tasks: int) -> None:
    """Check that a method can learn `group_size` tasks at once.

    Raises:
        ValueError: it cannot.
    """
    if blueprint.grouping == "one" and group_size != 1:
        raise InvalidError(
            "group-not-one", f"group_size: expected 1, given {group_size}; this method learns one task at a time"
        )
    if blueprint.grouping == "all" and group_size != num_tasks:
        raise InvalidError(
            "group-not-all",
            f"group_size: expected {num_tasks}, given {group_size}; this method learns all tasks at once",
        )


def later_field(default: Any) -> Any:
    """A field added to a spec after trials of it were stored; its default means "as before" and changes no identity."""
    return field(default=default, metadata={"later": True})


DEFAULT_UPDATES = 1000
"""Updates per task, as in the paper for MNIST."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How every task is trained.

    Attributes:
        learning_rate: the learning rate; with a schedule, that of the first epoch.
        optimizer: torch's optimiser of that name with torch's defaults, a new one for each segment.
        weight_decay: for Adam and SGD; added to the gradient, as in torch (L2, not AdamW).
        schedule: `constant`, or `cosine`: the learning rate decays to 0 along half a cosine, one step per epoch.
        updates_per_task: optimiser steps per task.
        batch_size: examples per batch; the short last batch of an epoch is kept.
        dtype: dtype of weights, activations and optimiser state. With bfloat16, activations and products use it, with
            sums in float32; trained tensors and the optimiser state stay in float32.
        momentum: momentum of SGD.
        epochs_per_task: passes over a task's images, which then determine the number of updates; 0: use
            `updates_per_task`.

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
            message = f"weight_decay: expected 0 for rmsprop, given {self.weight_decay}; adam and sgd have it"
            faults.append(Fault("setting-of-another-optimizer", message))
        if self.momentum and self.optimizer != "sgd":
            message = f"momentum: expected 0 for {self.optimizer}, given {self.momentum}; sgd has it"
            faults.append(Fault("setting-of-another-optimizer", message))
        if self.epochs_per_task and self.updates_per_task != DEFAULT_UPDATES:
            message = (
                f"epochs_per_task: expected alone, given {self.epochs_per_task} along with updates_per_task: "
                f"{self.updates_per_task}; leave out one of them"
            )
            faults.append(Fault("epochs-beside-updates", message))
        if faults:
            raise InvalidError.of(faults)

    def num_updates(self, num_images: int, num_tasks: int = 1) -> int:
        """Optimiser steps of a segment.

        Args:
            num_images: its number of training images.
            num_tasks: number of tasks mixed in it.
        """
        if self.epochs_per_task:
            return self.epochs_per_task * math.ceil(num_images / self.batch_size)
        return self.updates_per_task * num_tasks


@runtime_checkable
class MethodSpec(Protocol):
    """The interface of a method's frozen spec, besides its own fields."""

    @property
    def kind(self) -> str:
        """The method's name in the registry."""

    def training(self, scale: str) -> TrainingSpec:
        """The paper's training settings for this method at `scale`."""

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """What this method builds at `scale` for `problem`.

        Raises:
            ValueError: the method does not have this scale, or cannot be built for this problem.
        """


@runtime_checkable
class BenchmarkSpec(Protocol):
    """The interface of a benchmark's frozen spec, besides its own fields."""

    @property
    def kind(self) -> str:
        """The benchmark's name in the registry."""

    @property
    def base(self) -> str:
        """The base data set from which the tasks are made."""

    @property
    def validation(self) -> int:
        """Number of training images held out to replace the test images; 0: test on the real test images."""

    def problem(self) -> ProblemShape:
        """The benchmark's sizes."""

    def normalisation(self) -> Normalisation:
        """The normalisation of its pixels."""


def trial_id_of(canonical: str) -> str:
    """The identity of the trial with this canonical JSON; see `TrialSpec.trial_id`, and `TRIAL_ID` for its form."""
    return hashlib.sha256(HASH_PREFIX + canonical.encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """A frozen dataclass as JSON with sorted keys and no whitespace.

    A later field (`later_field`) is left out if it has its default, which means "as before".

    Raises:
        ValueError: a number in it is infinite or NaN.
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
    """Check every field of a dataclass against its annotation; called from `__post_init__`.

    It supports int, float, str, bool, `Literal`, dataclasses, runtime protocols, and the bounds of `annotated_types`.
    An int given for a float becomes a float, and -0.0 becomes 0.0, so that equal settings have equal JSON.

    Raises:
        ValueError: fields are wrong; the message names each, with what was expected and what was given.
    """
    faults = []
    for name, hint in _hints(type(spec)).items():  # type: ignore[arg-type]  # mypy takes no class to be hashable
        value = getattr(spec, name)
        if _plain_type(hint) is float and isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # it stays an int and is refused below
                value = float(value) + 0.0
                object.__setattr__(spec, name, value)
        fault = _fault(hint, value)
        if fault is not None:
            faults.append(Fault(fault.codes, f"{name}: expected {fault}, given {value!r}"))
    if faults:
        raise InvalidError.of(faults)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields by name, cached because resolving them costs more than checking them."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def _plain_type(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


_BOUNDS: Mapping[type, tuple[str, str, str, Callable[[Any, Any], bool]]] = types.MappingProxyType(
    {
        annotated_types.Ge: ("ge", "too-small", "at least", operator.ge),
        annotated_types.Gt: ("gt", "too-small", "more than", operator.gt),
        annotated_types.Le: ("le", "too-large", "at most", operator.le),
        annotated_types.Lt: ("lt", "too-large", "less than", operator.lt),
    }
)


def _fault(hint: Any, value: Any) -> Fault | None:
    """What was expected, if `value` does not fit `hint`; else None."""
    plain, bounds = _plain_type(hint), typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    choices = typing.get_args(plain) if typing.get_origin(plain) is Literal else None
    for bound in bounds:
        choices = tuple(bound.names()) if isinstance(bound, OneOf) else choices
    if choices is not None:
        return None if value in choices else Fault("unknown-name", "one of " + ", ".join(map(repr, choices)))
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        return Fault("wrong-type", plain.__name__)
    if plain is float and not math.isfinite(value):
        return Fault("not-finite", "a finite number")
    for bound in bounds:
        attribute, code, words, holds = _BOUNDS[type(bound)]
        limit = getattr(bound, attribute)
        if not holds(value, limit):
            return Fault(code, f"{words} {limit}")
    return None


def kind_field(kind: str) -> Any:
    """The `kind` field of a method's or benchmark's spec: constant, and part of the canonical JSON."""
    return field(default=kind, init=False)
