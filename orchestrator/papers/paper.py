"""What a paper says, as values: rows with their settings, tables of rows, and claims that compare rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from crwn.benchmarks import PRESETS
from crwn.spec import BenchmarkSpec, MethodSpec, TrainingSpec
from crwn.trial_spec import TrialSpec
from orchestrator.measures import MEASURES
from orchestrator.store import compatibility

SPREAD = "spread_over_tasks"
"""The sample standard deviation, over tasks, of the accuracy after the last task."""

QUANTITIES = (*MEASURES, SPREAD)
"""The quantities that claims compare: every measure, and the spread over tasks."""

Direction: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a row's trials have in common, at every scale and on every benchmark.

    Attributes:
        label: its name in the paper's file.
        method: the method, with settings that differ from its defaults.
        training: training settings that differ from the method's own.
        benchmarks: the benchmarks that it may run on, by name: presets, and the paper's own.
    """

    label: str
    method: MethodSpec
    training: Mapping[str, Any]
    benchmarks: Mapping[str, BenchmarkSpec] = field(default_factory=lambda: PRESETS)

    def at(self, scale: str, benchmark: str) -> Row:
        """The row at a scale, on a benchmark.

        Raises:
            ValueError: the method does not have this scale, or does not support the benchmark.
        """
        own: TrainingSpec = self.method.training(scale)
        spec = TrialSpec(
            method=self.method,
            benchmark=self.benchmarks[benchmark],
            scale=scale,
            seed=0,
            training=dataclasses.replace(own, **self.training),
        )
        spec.blueprint()
        settings = compatibility.settings_of(json.loads(spec.canonical_json()))
        return Row(label=self.label, scale=scale, benchmark=benchmark, spec=spec, settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Trials of a paper that differ only in their seed.

    Attributes:
        label: the label of its entry.
        scale: the scale of the network.
        benchmark: the name of a preset, or of one of the paper's own benchmarks.
        spec: the trial with seed 0.
        settings: the value of its trials' column `settings`; see `compatibility.describe`.
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
        name: its name in the paper; the scale is appended.
        entry: the entry that it shows.
        scales: the scales in the paper.
        only: the benchmarks for which the paper shows it; empty for all.
        beside: the entry that a second column shows, with the difference; None without such a column.
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
        title: its caption.
        lines: its rows, in order.
        benchmarks: presets or the paper's own benchmarks by name, one column each.
        reference: parameters are shown relative to this line; None for no ratios.
        values: further measures to show of each cell.
        seconds: whether it shows training seconds per task.
        columns: the names of a line's column and of the one beside it; empty if there is only one.
        needs: method settings that a sweep needs to be shown in this layout.
    """

    title: str
    lines: tuple[Line, ...]
    benchmarks: Mapping[str, BenchmarkSpec]
    reference: Line | None
    values: tuple[str, ...]
    seconds: bool
    columns: tuple[str, ...]
    needs: Mapping[str, Any]


Shows: TypeAlias = Literal["tasks", "seen", "gross", "memorised", "parameters", "seconds"]
"""What a figure shows: accuracy of each task; mean accuracy of the tasks seen so far, its sum, and how many of them are
recalled better than by chance; accuracy against a cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One of a paper's figures.

    Attributes:
        title: its caption.
        shows: its kind.
        table: the name of the table whose rows it draws.
        benchmark: one of that table's benchmarks.
        before: another one, whose accuracies of tasks are drawn beside; None: none.
    """

    title: str
    shows: Shows
    table: str
    benchmark: str
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A quantity is higher, or lower, in one row than in another.

    Attributes:
        row: the first row.
        than: the second row.
        quantity: one of `QUANTITIES`.
        direction: whether the first is higher or lower.
        by: the smallest difference that counts.
        times: if given, the first is at least (higher) or at most (lower) this multiple of the second.
        surely: whether the whole 95 % interval of the paired difference must lie on the claim's side of `by`.
    """

    row: Row
    than: Row
    quantity: str
    direction: Direction
    by: float
    times: float | None
    surely: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows whose trials are needed."""
        return self.row, self.than


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectivity:
    """Within a row, the mean accuracy at the end is higher, or lower, on some tasks than on others, paired by seed.

    Attributes:
        row: the row.
        tasks: task numbers from 1, or from -1 counted backwards.
        others: the tasks that they are compared with, likewise.
        direction: whether it is higher or lower on `tasks`.
        by: the smallest difference that counts.
        surely: whether the whole 95 % interval of the difference must lie on the claim's side of `by`.
    """

    row: Row
    tasks: tuple[int, ...]
    others: tuple[int, ...]
    direction: Direction
    by: float
    surely: bool

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows whose trials are needed."""
        return (self.row,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """After the last task, the accuracy on each of the given tasks is higher, or lower, in one row than in another.

    Attributes:
        row: the first row.
        than: the second row.
        direction: whether the first is higher or lower.
        tasks: task numbers from 1, or from -1 counted backwards.
    """

    row: Row
    than: Row
    direction: Direction
    tasks: tuple[int, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows whose trials are needed."""
        return self.row, self.than


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A quantity of a row equals a number, or lies on one side of it.

    Attributes:
        row: the row.
        quantity: one of `QUANTITIES`.
        relation: "equal" must hold for every seed; "higher" and "lower" for the mean over seeds, bound included.
        to: the number.
    """

    row: Row
    quantity: str
    relation: Literal["higher", "lower", "equal"]
    to: float

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows whose trials are needed."""
        return (self.row,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The gain of one row over another rises, or falls, from pair to pair.

    Attributes:
        gains: pairs of a row and its baseline, in order.
        quantity: one of `QUANTITIES`.
        direction: whether the gains rise or fall.
    """

    gains: tuple[tuple[Row, Row], ...]
    quantity: str
    direction: Literal["rising", "falling"]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows whose trials are needed."""
        return tuple(row for pair in self.gains for row in pair)


Check: TypeAlias = Comparison | TaskComparison | Selectivity | Bound | Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of a paper.

    Attributes:
        says: the claim in words.
        checks: the claim holds if all of these hold.
    """

    says: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A paper.

    Attributes:
        name: the name of its file.
        title: authors, title, venue.
        trials: which trials its tables show; used in captions.
        seeds: the number of seeds per row.
        tables: its tables by name.
        figures: its figures by name.
        claims: its claims, in the paper's order.
    """

    name: str
    title: str
    trials: str
    seeds: int
    tables: Mapping[str, Layout]
    figures: Mapping[str, Figure]
    claims: tuple[Claim, ...]
