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
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import annotated_types

from crwn.backbone import BackboneSpec

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemShape:
    """The sizes of a benchmark, known without its data.

    Attributes:
        input_shape: channels, height, width of an image.
        num_classes: classes of one task.
        num_tasks: tasks of the benchmark.
        labels_are_shared: whether a label means the same in every task.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    num_tasks: int
    labels_are_shared: bool = True

    @property
    def input_size(self) -> int:
        """The numbers in one image, the `d` of the equations."""
        return math.prod(self.input_shape)


SharedTraining = Literal["never", "first task", "always"]
"""When the weights that all tasks share are trained: never, they are frozen; with the first task; with every task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What a method builds for one scale and problem, known without building it.

    Attributes:
        grouping: how many tasks can be learned at once.
        params_per_task: parameters a task in the paper's convention (shared weights divided by the number of tasks).
        trained_per_task: numbers the optimiser changes for one task.
        stored_per_task: numbers kept of one task after it was learned (an entry of a binary mask counts as one).
        stored_shared: learned numbers that all tasks share, kept once.
        multiply_adds: multiply-add operations of one training step on one example, forward and backward, as the
            plain computation does them. An estimate for planning.
        activations: numbers held of one example during a training step. An estimate, for choosing group sizes.
        backbone: the drawn arrays the method reads: frozen weights, or the start of those that tasks share.
        shared_training: when the shared weights are trained. With the first task: it is then learned alone.
        first_task_rate: the learning rate of the first task where it is another one.
        keeps_weights: whether what is kept of a task are weights, which are written out only on request.
        statistics_per_task: running means and variances of batch normalisation kept of one task, besides.
        tests_by_batch: whether tests depend on the batch: they are then of the training's batches, in a fixed order.
    """

    grouping: Grouping
    params_per_task: float
    trained_per_task: int
    stored_per_task: int
    multiply_adds: int
    activations: int
    backbone: BackboneSpec
    stored_shared: int = 0
    shared_training: SharedTraining = "never"
    first_task_rate: float | None = None
    keeps_weights: bool = False
    statistics_per_task: int = 0
    tests_by_batch: bool = False

    @property
    def is_continual(self) -> bool:
        """Whether tasks are learned one after another, not all at once."""
        return self.grouping != "all"

    @property
    def is_independent(self) -> bool:
        """Whether learning a task leaves those learned before as they are, so that none is ever forgotten."""
        return self.grouping == "any"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How every task is trained.

    Attributes:
        learning_rate: the step size, of the first epoch where it decays.
        optimizer: torch's optimiser of that name with torch's defaults, a new one for each task.
        weight_decay: of Adam; it is added to the gradient, as torch's Adam does (L2, not AdamW).
        schedule: `constant`, or `cosine`: the rate falls to 0 along half a cosine, a step after each epoch.
        updates_per_task: optimiser steps a task.
        batch_size: examples a batch; the short last batch of an epoch is kept.
        dtype: of weights, activations and optimiser state. With bfloat16, activations and products are in it, summed
            in float32; what is learned and the optimiser's state are in float32.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    learning_rate: PositiveFloat
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    updates_per_task: Count = 1000
    batch_size: Count = 128
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    weight_decay: NotNegative = later_field(0.0)
    schedule: Literal["constant", "cosine"] = later_field("constant")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.weight_decay and self.optimizer != "adam":
            raise ValueError(f"weight_decay: expected 0 for {self.optimizer}, given {self.weight_decay}; adam has it")


@runtime_checkable
class MethodSpec(Protocol):
    """What a method's frozen spec offers besides its own fields."""

    @property
    def kind(self) -> str:
        """The method's name in the registry."""
        ...

    def training(self, scale: str) -> TrainingSpec:
        """The paper's training settings for this method at `scale`."""
        ...

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """What this method builds at `scale` for `problem`.

        Raises:
            ValueError: the scale is not one of this method's, or the method does not exist for this problem.
        """
        ...


@runtime_checkable
class BenchmarkSpec(Protocol):
    """What a benchmark's frozen spec offers besides its own fields."""

    @property
    def kind(self) -> str:
        """The benchmark's name in the registry."""
        ...

    @property
    def base(self) -> str:
        """The base data set that the tasks are made from."""
        ...

    @property
    def validation(self) -> int:
        """Training images held out, which then stand for the test images; 0 for the real test."""
        ...

    def problem(self) -> ProblemShape:
        """The benchmark's sizes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial, all settings resolved. Equal specs are the same trial, whatever sweep asks for it.

    Raises:
        ValueError: a part is of the wrong kind, or the method cannot be built at this scale for this benchmark.
    """

    method: MethodSpec
    benchmark: BenchmarkSpec
    scale: str
    seed: Index
    training: TrainingSpec

    def __post_init__(self) -> None:
        check_fields(self)
        self.blueprint()

    def blueprint(self) -> Blueprint:
        """What this trial builds."""
        return self.method.blueprint(self.scale, self.benchmark.problem(), self.seed)

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
        default = type(self.method)()
        changed = {name: value for name, value in _as_dict(self.method).items() if value != getattr(default, name)}
        return ",".join(f"{name}={value}" for name, value in sorted(changed.items()))


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


_BOUNDS: Mapping[type, tuple[str, str]] = types.MappingProxyType(
    {
        annotated_types.Ge: ("ge", "at least"),
        annotated_types.Gt: ("gt", "more than"),
        annotated_types.Le: ("le", "at most"),
        annotated_types.Lt: ("lt", "less than"),
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
        attribute, words = _BOUNDS[type(bound)]
        limit = getattr(bound, attribute)
        holds = {"ge": value >= limit, "gt": value > limit, "le": value <= limit, "lt": value < limit}
        if not holds[attribute]:
            return f"{words} {limit}"
    return None


def _as_dict(spec: Any) -> dict[str, Any]:
    return {item.name: getattr(spec, item.name) for item in dataclasses.fields(spec)}


def kind_field(kind: str) -> Any:
    """The `kind` field of a method's or benchmark's spec: fixed, and part of the canonical JSON."""
    return field(default=kind, init=False)
