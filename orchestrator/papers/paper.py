"""What a paper says, as values: rows at its settings, tables of them, and claims as comparisons between them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from crwn.benchmarks import PRESETS
from crwn.spec import MethodSpec, TrainingSpec, TrialSpec
from orchestrator.measures import MEASURES
from orchestrator.store import compatibility

SPREAD = "spread_over_tasks"
"""The sample standard deviation over tasks of the accuracy after the last one."""

QUANTITIES = (*MEASURES, SPREAD)
"""What rows are compared by: every measure, and the spread over tasks."""

Direction: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the trials of a row have in common at any scale, on any benchmark.

    Attributes:
        label: as the paper's file has it.
        method: with the settings that are not the method's own defaults.
        training: what is not the method's own training.
    """

    label: str
    method: MethodSpec
    training: Mapping[str, Any]

    def at(self, scale: str, benchmark: str) -> Row:
        """The row at a scale, on a benchmark.

        Raises:
            ValueError: the method has no such scale, or does not go with the benchmark.
        """
        own: TrainingSpec = self.method.training(scale)
        spec = TrialSpec(
            method=self.method,
            benchmark=PRESETS[benchmark],
            scale=scale,
            seed=0,
            training=dataclasses.replace(own, **self.training),
        )
        spec.blueprint()
        settings = compatibility.settings_of(json.loads(spec.canonical_json()))
        return Row(label=self.label, scale=scale, benchmark=benchmark, spec=spec, settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Trials of a paper that differ by their seed alone.

    Attributes:
        label: of the entry.
        scale: of the network.
        benchmark: a preset's name.
        spec: of the trial at seed 0.
        settings: what its trials' column of this name says; see `compatibility.describe`.
    """

    label: str
    scale: str
    benchmark: str
    spec: TrialSpec
    settings: str

    def __str__(self) -> str:
        return f"{self.label} {self.scale} on {self.benchmark}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a table, or one for each of several scales.

    Attributes:
        name: as the paper has it; the scale follows it.
        entry: what it shows.
        scales: the paper's.
        only: the benchmarks that the paper has it on; empty for all.
        beside: what a second column shows, with the difference; None where there is none.
    """

    name: str
    entry: Entry
    scales: tuple[str, ...]
    only: tuple[str, ...]
    beside: Entry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One of a paper's tables.

    Attributes:
        title: what it shows.
        lines: in order.
        benchmarks: presets, a column each.
        reference: the line that ratios of parameters are to; None for no ratios.
        seconds: whether it gives training seconds per task.
        columns: what the entry of a line and that beside it are called; empty where nothing stands beside.
        needs: settings of a method without which a sweep is not this table.
    """

    title: str
    lines: tuple[Line, ...]
    benchmarks: tuple[str, ...]
    reference: Line | None
    seconds: bool
    columns: tuple[str, ...]
    needs: Mapping[str, Any]


Shows: TypeAlias = Literal["tasks", "seen", "parameters", "seconds"]
"""Of a figure: accuracy of every task; mean accuracy of the tasks seen so far; accuracy against either cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One of a paper's figures.

    Attributes:
        title: what it shows.
        shows: its kind.
        table: the name of the table whose rows it draws.
        benchmark: one of that table's.
    """

    title: str
    shows: Shows
    table: str
    benchmark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A quantity of one row is higher, or lower, than that of another.

    Attributes:
        row: a row.
        than: another.
        quantity: one of `QUANTITIES`.
        direction: in which the first differs from the second.
        by: by at least so much.
        times: where it is given, the first is at least, or at most, so many times the second.
    """

    row: Row
    than: Row
    quantity: str
    direction: Direction
    by: float
    times: float | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those that must have run."""
        return self.row, self.than


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """The accuracy on each of some tasks, after the last one, is higher, or lower, than another row's.

    Attributes:
        row: a row.
        than: another.
        direction: in which the first differs from the second.
        tasks: counted from 1, or from -1 backwards.
    """

    row: Row
    than: Row
    direction: Direction
    tasks: tuple[int, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those that must have run."""
        return self.row, self.than


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A quantity of a row is a number, or on one side of it.

    Attributes:
        row: the row.
        quantity: one of `QUANTITIES`.
        relation: equal, at every seed; or higher or lower, in the mean over seeds, the number itself included.
        to: the number.
    """

    row: Row
    quantity: str
    relation: Literal["higher", "lower", "equal"]
    to: float

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those that must have run."""
        return (self.row,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What rows gain over others becomes smaller, or greater, from pair to pair.

    Attributes:
        gains: pairs of a row and the one that it is compared with, in order.
        quantity: one of `QUANTITIES`.
        direction: of the gains.
    """

    gains: tuple[tuple[Row, Row], ...]
    quantity: str
    direction: Literal["rising", "falling"]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those that must have run."""
        return tuple(row for pair in self.gains for row in pair)


Check: TypeAlias = Comparison | TaskComparison | Bound | Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of a paper.

    Attributes:
        says: in words.
        checks: it holds where all of these do.
    """

    says: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A paper.

    Attributes:
        name: of its file.
        title: authors, title, where it is.
        trials: which trials its tables show, for captions.
        seeds: how many it has of each row.
        tables: by their names.
        figures: likewise.
        claims: in its order.
    """

    name: str
    title: str
    trials: str
    seeds: int
    tables: Mapping[str, Layout]
    figures: Mapping[str, Figure]
    claims: tuple[Claim, ...]
