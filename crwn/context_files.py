"""Files of contexts: what a trial stores and what a bank saves, to bytes and back.

Both are safetensors files with a JSON header (`tensorfile.py`). Format 1 is a trial's record, with all of its tasks in
order, written by `dump`. Format 2 is a bank's, whose tasks may come from several trials: every task names its origin.

Nothing here depends on methods; `contexts.py` checks that tensors fit the trials that they name.

Shapes: T tasks, m classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch

from crwn import tensorfile
from crwn.backbone import BackboneSpec
from crwn.benchmarks import MOST_TASKS
from crwn.faults import Fault, InvalidError
from crwn.methods.networks import RUNNING_MEAN, RUNNING_VARIANCE
from crwn.methods.protocol import Tensors
from crwn.spec import TRIAL_ID, trial_id_of
from crwn.trial_spec import TrialSpec

CONTENT = "contexts"
TRIAL_FORMAT, BANK_FORMAT = 1, 2

SHARED = "shared."
"""The prefix of the names of weights that tasks share."""

ACTIVITY = "activity."
"""The prefix of the names of units' mean activities by class."""

BACKBONE = "backbone."
"""The prefix of the names of frozen arrays that a bank carries."""

MEAN_IMAGES = "mean_images"
"""The name of the tasks' mean images."""

SCALE = ".scale"
"""The suffix that names the scales of a tensor stored as 8-bit integers."""

Precision: TypeAlias = Literal["float32", "float16", "int8"]

FEWEST_ROUNDED = 16
"""Tensors with at least this many numbers per row are stored as 8-bit integers; shorter rows would save nothing."""

LARGEST_INT8 = 127

NOTE = "This file holds each task's mean training image, which says something of the training data."
"""Added to the card of a bank that is saved with mean images."""

LONGEST_NAME, LONGEST_CARD = 200, 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BankTask:
    """A task of a bank, and where it comes from.

    Attributes:
        name: unique in the bank.
        trial_id: the trial that learned it.
        index: the task's number in that trial, from 0.
        start: how its context started: `own`, from its own draw; otherwise as the trial says.
        classes: the name of each output's class: m of them.
        accuracy: its test accuracy at the trial's end, from 0 to 1; None: not known.
    """

    name: str
    trial_id: str
    index: int
    start: str = "own"
    classes: tuple[str, ...] = ()
    accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The content of a file.

    Attributes:
        tensors: what tasks keep, shared weights and activities, by name.
        specs: the trials' specs by trial id, as parsed JSON.
        fingerprint: the fingerprint of the frozen weights.
        tasks: the tasks in order; None in a trial's record, for the tasks of that trial.
        starts: in a trial's record, how each task's context started; empty: each from its own draw.
        recipe: how the frozen weights are drawn, as parsed JSON; None: as the trial's spec says.
        arrays: the frozen weights, if they are included.
        mean_images: unsigned bytes [T, d].
        card: the author's description.
    """

    tensors: Tensors
    specs: Mapping[str, dict[str, Any]]
    fingerprint: str
    tasks: tuple[BankTask, ...] | None = None
    starts: tuple[str, ...] = ()
    recipe: Any = None
    arrays: Tensors = field(default_factory=dict)
    mean_images: torch.Tensor | None = None
    card: str = ""


def dump(
    kept: Sequence[Tensors],
    shared: Tensors,
    spec: TrialSpec,
    fingerprint: str,
    *,
    activity: Tensors | None = None,
    starts: Sequence[str] = (),
) -> bytes:
    """The contexts of all tasks of a trial as a safetensors file.

    Args:
        kept: one dictionary per task, each tensor with a task axis of length 1; empty to leave them out.
        shared: weights that all tasks share; empty to leave them out.
        spec: the trial's spec.
        fingerprint: the fingerprint of its backbone.
        activity: the units' activity by class.
        starts: how each task's context started; empty: each from its own draw.
    """
    stacked = {name: torch.cat([task[name].cpu() for task in kept]) for name in (kept[0] if kept else ())}
    stacked |= {f"{SHARED}{name}": tensor.cpu() for name, tensor in shared.items()}
    stacked |= {f"{ACTIVITY}{name}": tensor.cpu() for name, tensor in (activity or {}).items()}
    header = {
        "content": CONTENT,
        "format": TRIAL_FORMAT,
        "trial_id": spec.trial_id,
        "spec": json.loads(spec.canonical_json()),
        "fingerprint": fingerprint,
    }
    return tensorfile.dump(stacked, header | ({"starts": list(starts)} if starts else {}))


def dump_bank(content: Content, recipe: BackboneSpec, precision: Precision) -> bytes:
    """A bank as a safetensors file.

    Args:
        content: the bank; its arrays and mean images are included if there are any.
        recipe: how its frozen weights are drawn.
        precision: how learned tensors are stored. `float32`: unchanged. `int8`: each row of a tensor, such as a task's,
            as integers from -127 to 127 times a scale per row; running statistics and short rows as with `float16`.
            Tensors with numbers outside the range of float16 are stored unchanged.
    """
    if precision not in get_args(Precision):
        message = f"dtype: expected one of {', '.join(get_args(Precision))}, given {precision!r}"
        raise InvalidError("unknown-name", message)
    assert content.tasks is not None
    stored: Tensors = {}
    for name, tensor in content.tensors.items():
        if not name.startswith(ACTIVITY):
            stored |= _rounded(name, tensor, precision)
    stored |= {f"{BACKBONE}{name}": tensor for name, tensor in content.arrays.items()}
    if content.mean_images is not None:
        stored[MEAN_IMAGES] = content.mean_images
    header = {
        "content": CONTENT,
        "format": BANK_FORMAT,
        "specs": content.specs,
        "fingerprint": content.fingerprint,
        "backbone": recipe_of(recipe),
        "tasks": [dataclasses.asdict(task) for task in content.tasks],
        "card": content.card,
    }
    return tensorfile.dump(stored, header)


def with_note(card: str) -> str:
    """The card of a bank that is saved with mean images, with a note that says so."""
    return card if NOTE in card else "\n".join(filter(None, (card, NOTE)))


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see all of it or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def recipe_of(backbone: BackboneSpec) -> Any:
    """How frozen weights are drawn, as parsed JSON."""
    return json.loads(json.dumps(dataclasses.asdict(backbone)))


def _rounded(name: str, tensor: torch.Tensor, precision: Precision) -> Tensors:
    """A tensor as it is stored."""
    is_of_numbers = tensor.is_floating_point() and tensor.numel() > 0
    if not is_of_numbers or precision == "float32":
        return {name: tensor}
    rows = tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None] if tensor.dim() else tensor[None, None]
    is_statistic = name.endswith((RUNNING_MEAN, RUNNING_VARIANCE))
    if precision == "float16" or is_statistic or rows.shape[1] < FEWEST_ROUNDED:
        half = tensor.half()
        return {name: half if bool(half.isfinite().all()) else tensor}
    scale = rows.abs().amax(dim=1).float() / LARGEST_INT8
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    integers = (rows.double() / scale.double()[:, None]).round().clamp(-LARGEST_INT8, LARGEST_INT8).to(torch.int8)
    return {name: integers.view_as(tensor), f"{name}{SCALE}": scale}


def _exact(tensors: Tensors) -> Tensors:
    """The stored tensors, with 8-bit integers converted back."""
    scaled = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and f"{name}{SCALE}" in tensors}
    found: Tensors = {}
    for name, tensor in tensors.items():
        if name in scaled:
            scale = tensors[f"{name}{SCALE}"]
            if scale.dtype != torch.float32 or tensor.dim() < 2 or scale.shape != tensor.shape[:1]:
                raise InvalidError(
                    "tensors-do-not-fit",
                    f"contexts: expected one scale in float32 for each row of {name} {list(tensor.shape)}, given "
                    f"{scale.dtype} {list(scale.shape)}",
                )
            found[name] = tensor.float() * scale.view(-1, *[1] * (tensor.dim() - 1))
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in scaled):
            found[name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return found


def parse(content: bytes) -> Content:
    """Read what `dump` or `dump_bank` wrote; each spec must have the trial id under which it is listed.

    Raises:
        ValueError: it is not such a file, its format is newer, or its header is not as expected.
    """
    tensors, header = tensorfile.parse(content)
    if header.get("content") != CONTENT:
        raise InvalidError("not-contexts", f"expected a file of contexts, given one of {header.get('content')!r}")
    match header.get("format"):
        case 1:
            return _of_trial(tensors, header)
        case 2:
            return _of_bank(tensors, header)
        case other:
            raise InvalidError(
                "newer-format",
                f"contexts: expected format {TRIAL_FORMAT} or {BANK_FORMAT}, given {other!r}; use a newer crwn",
            )


def _of_trial(tensors: Tensors, header: Mapping[str, Any]) -> Content:
    faults = list(_faults_of_keys(header, {"trial_id": str, "spec": dict, "fingerprint": str}))
    starts = header.get("starts", [])
    if not (isinstance(starts, list) and all(map(_is_name, starts))):
        faults.append(Fault("wrong-type", "contexts: starts: expected texts, given others"))
    _refuse(faults)
    specs = {header["trial_id"]: header["spec"]}
    _refuse(list(_faults_of_specs(specs)))
    return Content(tensors=tensors, specs=specs, fingerprint=header["fingerprint"], starts=tuple(starts))


def _of_bank(tensors: Tensors, header: Mapping[str, Any]) -> Content:
    kinds = {"specs": dict, "fingerprint": str, "backbone": dict, "tasks": list, "card": str}
    _refuse(list(_faults_of_keys(header, kinds)))
    faults = list(_faults_of_specs(header["specs"]))
    if len(header["card"]) > LONGEST_CARD + len(NOTE) + 1:
        faults.append(Fault("too-long", f"contexts: card: expected at most {LONGEST_CARD:,} characters, given more"))
    if not 0 < len(header["tasks"]) <= MOST_TASKS:
        given = len(header["tasks"])
        faults.append(Fault("too-many-tasks", f"contexts: expected 1 to {MOST_TASKS:,} tasks, given {given:,}"))
    _refuse(faults)
    tasks = tuple(_task(place, entry, header["specs"]) for place, entry in enumerate(header["tasks"]))
    check_names(tasks)
    named = {task.trial_id for task in tasks}
    if unused := [trial_id for trial_id in header["specs"] if trial_id not in named]:
        raise InvalidError("trial-without-task", f"contexts: expected specs of its tasks' trials, given {unused[0]}'s")
    arrays = {name.removeprefix(BACKBONE): tensors.pop(name) for name in list(tensors) if name.startswith(BACKBONE)}
    mean_images = tensors.pop(MEAN_IMAGES, None)
    return Content(
        tensors=_exact(tensors),
        specs=header["specs"],
        fingerprint=header["fingerprint"],
        tasks=tasks,
        recipe=header["backbone"],
        arrays=arrays,
        mean_images=mean_images,
        card=header["card"],
    )


def _faults_of_keys(header: Mapping[str, Any], kinds: Mapping[str, type]) -> Iterator[Fault]:
    """The keys of a header that are missing or hold something else."""
    for name, kind in kinds.items():
        if name not in header:
            yield Fault("missing-key", f"contexts: expected a header with {name}, given one without")
        elif not isinstance(header[name], kind):
            given = type(header[name]).__name__
            yield Fault("wrong-type", f"contexts: {name}: expected {kind.__name__}, given {given}")


def _faults_of_specs(specs: Mapping[str, Any]) -> Iterator[Fault]:
    """The trials whose specs do not have their ids."""
    for trial_id, spec in specs.items():
        if not TRIAL_ID.fullmatch(trial_id):
            shown = repr(trial_id[:LONGEST_NAME])
            yield Fault("not-a-trial-id", f"contexts: expected a trial id of 16 hexadecimal digits, given {shown}")
        elif not isinstance(spec, dict):
            yield Fault(
                "wrong-type", f"contexts: expected the spec of the trial {trial_id}, given {type(spec).__name__}"
            )
        else:
            found = trial_id_of(json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False))
            if found != trial_id:
                message = f"contexts: expected the spec of the trial {trial_id}, given {found}'s"
                yield Fault("another-trial", message)


def _task(place: int, entry: Any, specs: Mapping[str, Any]) -> BankTask:
    """A task from a bank's header."""
    names = [item.name for item in dataclasses.fields(BankTask)]
    if not isinstance(entry, dict) or sorted(entry) != sorted(names):
        given = sorted(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise InvalidError("wrong-type", f"contexts: task {place}: expected {', '.join(names)}, given {given}")
    share, classes = entry["accuracy"], entry["classes"]
    is_right = {
        "name": _is_name(entry["name"]),
        "trial_id": isinstance(entry["trial_id"], str) and entry["trial_id"] in specs,
        "index": type(entry["index"]) is int and entry["index"] >= 0,
        "start": _is_name(entry["start"]),
        "classes": isinstance(classes, list) and bool(classes) and all(map(_is_name, classes)),
        "accuracy": share is None or (type(share) in (int, float) and math.isfinite(share) and 0 <= share <= 1),
    }
    if wrong := [name for name, right in is_right.items() if not right]:
        shown = repr(entry[wrong[0]])[:LONGEST_NAME]
        raise InvalidError("not-a-task", f"contexts: task {place}: expected another {wrong[0]}, given {shown}")
    return BankTask(**{**entry, "classes": tuple(classes)})


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and text.isprintable() and 0 < len(text) <= LONGEST_NAME


def check_names(tasks: Sequence[BankTask]) -> None:
    """Check that tasks have distinct names of printable characters.

    Raises:
        ValueError: they do not.
    """
    for task in tasks:
        if not _is_name(task.name):
            raise InvalidError(
                "not-a-name",
                f"tasks: expected names of 1 to {LONGEST_NAME} printable characters, given {str(task.name)[:50]!r}",
            )
        if not all(map(_is_name, task.classes)):
            message = f"tasks: expected printable names of classes, given others for {task.name!r}"
            raise InvalidError("not-a-name", message)
    counts = Counter(task.name for task in tasks)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise InvalidError(
            "name-twice",
            f"tasks: expected names of their own, given {twice[0]!r} twice"
            f"{f' and {len(twice) - 1} others' if len(twice) > 1 else ''}; rename them, as with "
            "bank.renamed(lambda name: f'mine {name}')",
        )


def _refuse(faults: Sequence[Fault]) -> None:
    if faults:
        raise InvalidError.of(faults)
