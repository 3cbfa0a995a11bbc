"""Resume points: all that the rest of a trial depends on, as bytes.

The random streams are not in them: they follow from the seed and the position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crwn import tensorfile
from crwn.events import CurvePoint, Numerics, TaskRow
from crwn.methods.protocol import Tensors

FORMAT = 7
READABLE = (6, FORMAT)
"""Format 6 knows neither memory nor streams, and does not say how many segments were learned."""


class ResumeError(ValueError):
    """A resume point cannot be used: it is damaged, of another trial, or of another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedGroup:
    """A segment that was begun.

    Attributes:
        tasks: its tasks.
        step: updates done.
        block_examples: examples since the last point of the curves.
        train_seconds: that learning took.
        curves: of each lane.
        state: what learning changes, by name.
        optimizer: its state.
        block_loss: [G], over the examples since the last point of the curves.
        block_correct: [G], likewise.
    """

    tasks: tuple[int, ...]
    step: int
    block_examples: int
    train_seconds: float
    curves: Sequence[Sequence[CurvePoint]]
    state: Tensors
    optimizer: Tensors
    block_loss: torch.Tensor
    block_correct: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a trial is.

    Attributes:
        learned: segments that are done.
        rows: the tests so far.
        kept: the own tensors of each task that is done.
        shared: the shared state that learning changes, as the last segment left it.
        memory: what the method remembers.
        groups: begun: the first is being learned, others wait since memory ran out.
    """

    learned: int
    rows: Sequence[TaskRow]
    kept: Sequence[Tensors]
    shared: Tensors
    memory: Tensors
    groups: Sequence[SavedGroup]


def dump(position: Position, *, identity: tuple[str, str], numerics: Numerics) -> bytes:
    """A position as bytes.

    Args:
        position: where the trial is.
        identity: the trial's id and its backbone's fingerprint.
        numerics: that the trial computes with.
    """
    tensors = {f"kept.{task}.{name}": t for task, kept in enumerate(position.kept) for name, t in kept.items()}
    tensors |= _named("shared.", position.shared) | _named("memory.", position.memory)
    groups = []
    for number, group in enumerate(position.groups):
        tensors |= _named(f"{number}.state.", group.state) | _named(f"{number}.optimizer.", group.optimizer)
        tensors |= {f"{number}.block.loss": group.block_loss, f"{number}.block.correct": group.block_correct}
        groups.append(
            {
                "tasks": group.tasks,
                "step": group.step,
                "block_examples": group.block_examples,
                "train_seconds": group.train_seconds,
                "curves": [[dataclasses.asdict(point) for point in curve] for curve in group.curves],
                "state": sorted(group.state),
            }
        )
    header = {
        "content": "resume point",
        "format": FORMAT,
        "identity": identity,
        "numerics": dataclasses.asdict(numerics),
        "learned": position.learned,
        "rows": [dataclasses.asdict(row) for row in position.rows],
        "groups": groups,
    }
    return tensorfile.dump(tensors, header)


def load(content: bytes, *, identity: tuple[str, str]) -> Position:
    """What `dump` was given, on the CPU.

    Raises:
        ResumeError: the content is damaged, of another trial, or of another version.
    """
    tensors, header = _parse(content)
    try:
        if tuple(header["identity"]) != identity:
            raise ResumeError(f"it was made by {header['identity']}, expected {list(identity)}")
        rows = [_row(values) for values in header["rows"]]
        # A task is learned from the moment its row is there; later rows are the final tests.
        learned = header["learned"] if header["format"] > 6 else len({row.task for row in rows})
        return Position(
            learned=learned,
            rows=rows,
            kept=[_below(tensors, f"kept.{task}.") for task in range(learned)],
            shared=_below(tensors, "shared."),
            memory=_below(tensors, "memory."),
            groups=[_group(_below(tensors, f"{number}."), values) for number, values in enumerate(header["groups"])],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ResumeError(f"the resume point cannot be used: {error}") from error


def read_numerics(content: bytes) -> Numerics:
    """The numerics that a resume point was computed with.

    Raises:
        ResumeError: the point is damaged or of another version.
    """
    _, header = _parse(content)
    try:
        return Numerics(**header["numerics"])
    except (KeyError, TypeError) as error:
        raise ResumeError(f"the resume point cannot be read: {error}") from error


def _parse(content: bytes) -> tuple[Tensors, dict[str, Any]]:
    try:
        tensors, header = tensorfile.parse(content)
        if header["format"] not in READABLE:
            raise ResumeError(
                f"expected a resume point of format {' or '.join(map(str, READABLE))}, given {header['format']!r}"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ResumeError(f"the resume point cannot be read: {error}") from error
    return tensors, header


def _group(tensors: Tensors, header: dict[str, Any]) -> SavedGroup:
    state = _below(tensors, "state.")
    return SavedGroup(
        tasks=tuple(header["tasks"]),
        step=header["step"],
        block_examples=header["block_examples"],
        train_seconds=header["train_seconds"],
        curves=[[CurvePoint(**point) for point in curve] for curve in header["curves"]],
        state={name: state[name] for name in header.get("state", state)},
        optimizer=_below(tensors, "optimizer."),
        block_loss=tensors["block.loss"],
        block_correct=tensors["block.correct"],
    )


def _row(values: dict[str, Any]) -> TaskRow:
    curve = tuple(CurvePoint(**point) for point in values["curve"])
    answered = values.get("answered")
    return TaskRow(**{**values, "curve": curve, "answered": None if answered is None else tuple(answered)})


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
