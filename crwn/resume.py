"""Resume points: everything that the rest of a trial depends on, as bytes.

Random streams are not included: they follow from the seed and the position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crwn import tensorfile
from crwn.events import CurvePoint, Numerics, TaskRow
from crwn.faults import InvalidError, codes_of
from crwn.methods.protocol import Tensors

FORMAT = 7
READABLE = (6, FORMAT)
"""Formats that can be read. Format 6 has neither memory nor streams, nor the number of segments learned."""


class ResumeError(InvalidError):
    """A resume point cannot be used: it is damaged, or it belongs to another trial or version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedGroup:
    """A segment in progress.

    Attributes:
        tasks: its tasks.
        step: number of updates done.
        block_examples: number of examples since the last point of the curves.
        train_seconds: training time so far.
        curves: the curve of each lane.
        state: the tensors that learning changes, by name.
        optimizer: the optimiser state.
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
    """The position of a trial.

    Attributes:
        learned: number of segments learned.
        rows: the tests so far.
        kept: the tensors kept for each task learned.
        shared: the shared state that learning changes, after the last segment.
        memory: the method's memory, such as a replay buffer.
        groups: segments in progress: the first is being learned, others are pending because memory ran out.
    """

    learned: int
    rows: Sequence[TaskRow]
    kept: Sequence[Tensors]
    shared: Tensors
    memory: Tensors
    groups: Sequence[SavedGroup]


def dump(position: Position, *, identity: tuple[str, str], numerics: Numerics) -> bytes:
    """Serialise a position.

    Args:
        position: the position of the trial.
        identity: the trial's id and its backbone's fingerprint.
        numerics: the trial's numerics.
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
    """The position that `dump` was given, with tensors on the CPU.

    Raises:
        ResumeError: the content is damaged, or belongs to another trial or version.
    """
    tensors, header = _parse(content)
    try:
        if tuple(header["identity"]) != identity:
            raise ResumeError(
                "resume-point-of-another", f"it was made by {header['identity']}, expected {list(identity)}"
            )
        rows = [_row(values) for values in header["rows"]]
        # A task counts as learned once it has a row; later rows are the final tests.
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
        raise ResumeError(
            codes_of(error, "resume-point-unusable"), f"the resume point cannot be used: {error}"
        ) from error


def read_numerics(content: bytes) -> Numerics:
    """The numerics that a resume point was computed with.

    Raises:
        ResumeError: the point is damaged, or belongs to another version.
    """
    _, header = _parse(content)
    try:
        return Numerics(**header["numerics"])
    except (KeyError, TypeError) as error:
        raise ResumeError("resume-point-unreadable", f"the resume point cannot be read: {error}") from error


def _parse(content: bytes) -> tuple[Tensors, dict[str, Any]]:
    try:
        tensors, header = tensorfile.parse(content)
        if header["format"] not in READABLE:
            raise ResumeError(
                "resume-point-format",
                f"expected a resume point of format {' or '.join(map(str, READABLE))}, given {header['format']!r}",
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ResumeError(
            codes_of(error, "resume-point-unreadable"), f"the resume point cannot be read: {error}"
        ) from error
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
