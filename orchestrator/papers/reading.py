"""Reads a paper's file into a `Paper`: strict YAML, all faults at once, each with its line. See `grammar.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from crwn.benchmarks import PRESETS
from crwn.faults import codes_of
from crwn.methods import METHODS
from crwn.spec import BenchmarkSpec, MethodSpec, TrainingSpec
from orchestrator.measures import MEASURES
from orchestrator.papers import file_of
from orchestrator.papers.grammar import (
    CheckPart,
    ChecksPart,
    ClaimPart,
    EntryPart,
    FigurePart,
    FilePart,
    LinePart,
    TablePart,
)
from orchestrator.papers.paper import (
    QUANTITIES,
    Bound,
    Check,
    Claim,
    Comparison,
    Direction,
    Entry,
    Figure,
    Layout,
    Line,
    Paper,
    Row,
    Selectivity,
    TaskComparison,
    Trend,
)
from orchestrator.sweeps import typed, yaml_source
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.reading import benchmark_at
from orchestrator.sweeps.yaml_source import Source


def read_paper(name: str) -> Paper:
    """Read a paper by name.

    Raises:
        UserError: there is no such paper, or its file has faults; the message lists all of them.
    """
    return read_file(file_of(name))


def read_file(file: Path) -> Paper:
    """Read a paper from its file; raises like `read_paper`."""
    return _Reader(yaml_source.read(file)).paper()


class _Reader:
    """Turns a parsed file into a paper and collects every fault on the way."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._entries: dict[str, Entry] = {}
        self._labels: tuple[str, ...] = ()
        self._benchmarks: dict[str, BenchmarkSpec] = dict(PRESETS)

    def paper(self) -> Paper:
        value = self._source.value
        if not isinstance(value, dict):
            self._source.fault((), "not-a-paper", "expected a paper: keys such as title, rows, tables and claims")
            self._source.raise_faults()
        top = typed.read(self._source, FilePart, value, ())
        # Parts are read from the raw values, so that faults at the top do not hide those below.
        for label, given in _of_kind(value.get("benchmarks"), dict).items():
            if (own := benchmark_at(self._source, label, given, ("benchmarks", label), {})) is not None:
                self._benchmarks[label] = own
        rows = _of_kind(value.get("rows"), dict)
        self._labels = tuple(rows)
        self._entries = {label: entry for label, given in rows.items() if (entry := self._entry(label, given))}
        tables = {
            label: table
            for label, given in _of_kind(value.get("tables"), dict).items()
            if (table := self._table(label, given))
        }
        figures = {
            label: figure
            for label, given in _of_kind(value.get("figures"), dict).items()
            if (figure := self._figure(label, given, tables))
        }
        claims = [self._claim(index, given) for index, given in enumerate(_of_kind(value.get("claims"), list))]
        self._source.raise_faults()
        assert top is not None
        return Paper(
            name=self._source.file.stem,
            title=top.title,
            trials=top.trials,
            seeds=top.seeds,
            tables=tables,
            figures=figures,
            claims=tuple(claim for claim in claims if claim is not None),
        )

    def _part(self, cls: type[Any], value: Any, place: KeyPath) -> Any:
        """A nested part as a dataclass; None after noting its faults."""
        if not isinstance(value, dict):
            message = f"expected keys with values; given {self._source.given(place, value)}"
            self._source.fault(place, "wrong-type", message)
            return None
        return typed.read(self._source, cls, value, place)

    def _entry(self, label: str, value: Any) -> Entry | None:
        place: KeyPath = ("rows", label)
        part: EntryPart | None = self._part(EntryPart, value, place)
        if part is None:
            return None
        if part.method not in METHODS:
            self._source.unknown((*place, "method"), part.method, METHODS)
            return None
        method: MethodSpec = METHODS[part.method].spec()
        changed = typed.override(self._source, method, part.settings, (*place, "settings"))
        num_faults = len(self._source.faults)
        typed.override(self._source, TrainingSpec(learning_rate=1.0), part.training, (*place, "training"))
        is_sound = len(self._source.faults) == num_faults
        training = {**typed.other_length(part.training), **part.training} if is_sound else {}
        if " on " in label or not label.strip():
            message = f"expected a label without ' on ', which a benchmark follows; given {label!r}"
            self._source.fault(place, "label-names-a-benchmark", message)
        return Entry(label=label, method=changed, training=training, benchmarks=self._benchmarks)

    def _table(self, label: str, value: Any) -> Layout | None:
        place: KeyPath = ("tables", label)
        self._numbered(label, "table", place)
        part: TablePart | None = self._part(TablePart, value, place)
        if part is None:
            return None
        self._presets(part.benchmarks, (*place, "benchmarks"))
        lines = [
            line
            for index, given in enumerate(part.rows)
            if (line := self._line(given, part.benchmarks, (*place, "rows", index)))
        ]
        if part.columns and len(part.columns) != 2:
            message = "expected two names: of a row's own column and of the one next to it"
            self._source.fault((*place, "columns"), "columns-not-two", message)
        if not part.columns and any(line.beside for line in lines):
            message = "expected columns: the names of a row's column and of the one next to it"
            self._source.fault(place, "columns-missing", message)
        by_label = {line.entry.label: line for line in reversed(lines)}
        named = [str(given.get("row")) for given in part.rows if isinstance(given, dict)]
        if part.reference is not None and part.reference not in named:
            self._source.unknown((*place, "reference"), part.reference, named)
        for index, name in enumerate(part.values):
            if name not in MEASURES:
                self._source.unknown((*place, "values", index), name, MEASURES)
        return Layout(
            title=part.title,
            lines=tuple(lines),
            benchmarks={name: self._benchmarks[name] for name in part.benchmarks if name in self._benchmarks},
            values=part.values,
            reference=by_label.get(part.reference) if part.reference is not None else None,
            seconds=part.seconds,
            columns=part.columns,
            needs=part.needs,
        )

    def _figure(self, label: str, value: Any, tables: Mapping[str, Layout]) -> Figure | None:
        place: KeyPath = ("figures", label)
        self._numbered(label, "figure", place)
        part: FigurePart | None = self._part(FigurePart, value, place)
        if part is None:
            return None
        known = _of_kind(self._source.value.get("tables"), dict)
        if part.table not in known:
            self._source.unknown((*place, "table"), part.table, known)
        elif part.table in tables:
            drawn = {"benchmark": part.benchmark} | ({} if part.before is None else {"before": part.before})
            for name, benchmark in drawn.items():
                if benchmark not in tables[part.table].benchmarks:
                    self._source.unknown((*place, name), benchmark, tuple(tables[part.table].benchmarks))
        if part.before is not None and (part.shows != "tasks" or part.before == part.benchmark):
            message = f"expected another benchmark than {part.benchmark!r}, with shows: tasks; given {part.before!r}"
            self._source.fault((*place, "before"), "before-of-nothing", message)
        return Figure(
            title=part.title, shows=part.shows, table=part.table, benchmark=part.benchmark, before=part.before
        )

    def _numbered(self, label: str, what: str, place: KeyPath) -> None:
        if not (label.removeprefix(what).isdecimal() and label.startswith(what)):
            message = f"expected {what}1, {what}2 and so on, since files are named by it"
            self._source.fault(place, "label-not-numbered", message)

    def _line(self, value: Any, benchmarks: Sequence[str], place: KeyPath) -> Line | None:
        part: LinePart | None = self._part(LinePart, value, place)
        if part is None:
            return None
        for index, benchmark in enumerate(part.only):
            if benchmark not in benchmarks:
                self._source.unknown((*place, "only", index), benchmark, benchmarks)
        entry = self._known(part.row, (*place, "row"))
        beside = None if part.beside is None else self._known(part.beside, (*place, "beside"))
        for index, scale in enumerate(part.scales):
            for one in filter(None, (entry, beside)):
                for benchmark in part.only or benchmarks:
                    self._row(one, scale, benchmark, (*place, "scales", index))
        if entry is None:
            return None
        return Line(name=part.name, entry=entry, scales=part.scales, only=part.only, beside=beside)

    def _claim(self, index: int, value: Any) -> Claim | None:
        place: KeyPath = ("claims", index)
        part: ClaimPart | None = self._part(ClaimPart, value, place)
        if part is None:
            return None
        found = [self._checks(given, (*place, "checks", number)) for number, given in enumerate(part.checks)]
        checks = tuple(check for group in found for check in group)
        if not part.checks:
            message = "expected at least one; a claim without checks would always hold"
            self._source.fault((*place, "checks"), "empty", message)
        return Claim(says=part.says, checks=checks)

    def _checks(self, value: Any, place: KeyPath) -> list[Check]:
        """A group of checks: every comparison on every benchmark."""
        part: ChecksPart | None = self._part(ChecksPart, value, place)
        if part is None:
            return []
        self._presets(part.on, (*place, "on"))
        if not part.compare:
            self._source.fault((*place, "compare"), "empty", "expected at least one comparison")
        read = [
            (given, (*place, "compare", index))
            for index, value in enumerate(part.compare)
            if (given := self._part(CheckPart, value, (*place, "compare", index)))
        ]
        for given, here in read:
            if given.quantity not in QUANTITIES:
                self._source.unknown((*here, given.relation), given.quantity, QUANTITIES)
        return [check for on in part.on for given, here in read for check in self._made(given, on, here)]

    def _made(self, given: CheckPart, on: str, place: KeyPath) -> Iterator[Check]:
        """The checks that one comparison expands to on a benchmark."""
        if given.gains is not None:
            pairs = [
                tuple(self._named(text, on, (*place, "gains", index, side)) for side, text in enumerate(pair))
                for index, pair in enumerate(given.gains)
            ]
            whole = [(left, right) for left, right in pairs if left is not None and right is not None]
            direction = cast(Literal["rising", "falling"], given.relation)
            yield Trend(gains=tuple(whole), quantity=given.quantity, direction=direction)
            return
        assert given.row is not None
        row = self._named(given.row, on, (*place, "row"))
        if given.to is not None and row is not None:
            relation = cast(Literal["higher", "lower", "equal"], given.relation)
            yield Bound(row=row, quantity=given.quantity, relation=relation, to=given.to)
        if given.others is not None and given.tasks is not None and row is not None:
            self._within(given.tasks, row, (*place, "tasks"))
            self._within(given.others, row, (*place, "others"))
            yield Selectivity(
                row=row,
                tasks=given.tasks,
                others=given.others,
                direction=cast(Direction, given.relation),
                by=given.by or 0.0,
                surely=bool(given.surely),
            )
        for index, text in enumerate(given.than or ()):
            than = self._named(text, on, (*place, "than", index))
            direction_ = cast(Direction, given.relation)
            if row is None or than is None:
                continue
            if given.tasks is not None:
                shorter = min(row, than, key=lambda one: one.spec.benchmark.problem().num_tasks)
                self._within(given.tasks, shorter, (*place, "tasks"))
                yield TaskComparison(row=row, than=than, direction=direction_, tasks=given.tasks)
                continue
            yield Comparison(
                row=row,
                than=than,
                quantity=given.quantity,
                direction=direction_,
                by=given.by or 0.0,
                times=given.times,
                surely=bool(given.surely),
            )

    def _within(self, tasks: Sequence[int], row: Row, place: KeyPath) -> None:
        """Note a fault if a row's benchmark does not have all these tasks."""
        num_tasks = row.spec.benchmark.problem().num_tasks
        if max(map(abs, tasks)) > num_tasks:
            message = f"expected tasks up to {num_tasks}; given {tasks}"
            self._source.fault(place, "tasks-beyond-benchmark", message)

    def _named(self, text: str, on: str, place: KeyPath) -> Row | None:
        """The row that a claim names: a label and a scale, optionally followed by `on` and a benchmark."""
        name, _, other = text.partition(" on ")
        label, _, scale = name.rpartition(" ")
        if not label:
            message = f"expected a row and a scale, such as {self._example()!r}; given {text!r}"
            self._source.fault(place, "row-without-scale", message)
            return None
        entry = self._known(label, place)
        if other:
            self._presets((other,), place)
        return None if entry is None else self._row(entry, scale, other or on, place)

    def _example(self) -> str:
        return f"{self._labels[0] if self._labels else 'row'} SCALE"

    def _known(self, label: str, place: KeyPath) -> Entry | None:
        """An entry of `rows`; None if it is unknown or has faults, which have been noted."""
        if label not in self._labels:
            self._source.unknown(place, label, self._labels)
        return self._entries.get(label)

    def _row(self, entry: Entry, scale: str, benchmark: str, place: KeyPath) -> Row | None:
        if benchmark not in self._benchmarks:
            return None  # which is noted where it is used
        try:
            return entry.at(scale, benchmark)
        except ValueError as error:
            self._source.fault(place, codes_of(error, "setting-refused"), str(error))
            return None

    def _presets(self, names: Sequence[str], place: KeyPath) -> None:
        if not names:
            self._source.fault(place, "no-benchmark", "expected at least one benchmark")
        for index, name in enumerate(names):
            if name not in self._benchmarks:
                self._source.unknown((*place, index), name, self._benchmarks)


def _of_kind(value: Any, kind: type[Any]) -> Any:
    """A part of the file, or an empty one if it is absent or of the wrong kind, which is noted elsewhere."""
    return value if isinstance(value, kind) else kind()
