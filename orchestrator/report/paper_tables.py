"""A paper's tables in the paper's layout, from the available trials.

The trials of a cell are found by the paper's settings, whichever sweep ran them under whichever name. A trial with
other settings is never substituted: missing seeds, out of the paper's number of seeds, are marked. Parameters need no
trial; they are computed from the settings.

A sweep that runs the paper's rows with other settings, such as fewer tasks, fills the same layout with `SweepSource`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from crwn.benchmarks import BENCHMARKS
from crwn.methods import METHODS
from crwn.spec import Blueprint, canonical_json
from orchestrator.display import show_ratio, shown_method
from orchestrator.measures import MEASURES
from orchestrator.papers.paper import Entry, Layout, Line, Paper
from orchestrator.report import aggregate, comparison
from orchestrator.report.printable import Table
from orchestrator.report.sweep_tables import show_difference
from orchestrator.store.manifests import Manifest
from orchestrator.store.recorded_spec import RecordedSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The trials found for one cell of a layout.

    Attributes:
        rows: the finished trials.
        asked: the number of trials requested.
        blueprint: what such a trial builds.
    """

    rows: Sequence[Mapping[str, Any]]
    asked: int
    blueprint: Blueprint


class Source(Protocol):
    """The source of a layout's cells."""

    @property
    def origin(self) -> str:
        """The settings of its trials, for a caption."""
        ...

    def benchmarks(self, layout: Layout) -> Sequence[str]:
        """The columns of accuracies; empty if there is nothing for this layout."""
        ...

    def scales(self, line: Line) -> Sequence[str]:
        """The scales of a row."""
        ...

    def find(self, line: Line, entry: Entry, scale: str, benchmark: str) -> Found | None:
        """The trials of a cell of a row, for its own entry or the one next to it; None if the layout has none."""
        ...


class PaperSource:
    """Trials with exactly the paper's settings.

    Args:
        paper: the paper.
        trials: finished trials, as returned by `frames.trials_frame`.
    """

    def __init__(self, paper: Paper, trials: pd.DataFrame) -> None:
        self.origin = paper.trials
        self._seeds = paper.seeds
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for row in aggregate.records(trials):
            self._rows.setdefault(row["settings"], []).append(row)

    def benchmarks(self, layout: Layout) -> Sequence[str]:
        """See `Source`."""
        return tuple(layout.benchmarks)

    def scales(self, line: Line) -> Sequence[str]:
        """See `Source`."""
        return line.scales

    def find(self, line: Line, entry: Entry, scale: str, benchmark: str) -> Found | None:
        """See `Source`."""
        if line.only and benchmark not in line.only:
            return None
        row = entry.at(scale, benchmark)
        found = self._rows.get(row.settings, [])
        asked = max(self._seeds, len({trial["seed"] for trial in found}))
        return Found(rows=found, asked=asked, blueprint=row.spec.blueprint())


class SweepSource:
    """The cells of a sweep, whatever its benchmarks, widths and training.

    Args:
        manifest: the sweep's manifest.
        trials: its finished trials, as returned by `frames.trials_frame`.
    """

    def __init__(self, manifest: Manifest, trials: pd.DataFrame) -> None:
        self.origin = f"The settings of the sweep {manifest.name}, which are not the paper's in all"
        known = {row["trial_id"]: row for row in aggregate.records(trials)}
        self._cells: dict[tuple[str, str, str], Found] = {}
        self._methods: list[Mapping[str, Any]] = []
        self._scales: dict[str, dict[str, None]] = {}
        self._kinds: dict[str, str] = {}
        for cell in manifest.cells:
            rows = [{**known[id_], "seed": seed} for seed, id_ in cell.trials.items() if id_ in known]
            spec = cell.spec or (RecordedSpec.from_index(rows[0]["settings"]) if rows else None)
            if spec is None:
                continue  # an older manifest without finished trials: the cell's settings are unknown
            try:
                blueprint = _blueprint(spec)
            except (KeyError, TypeError, ValueError, ArithmeticError):
                continue  # cannot be built here, for example an unknown method, so not in a paper
            found = Found(rows=rows, asked=len(cell.trials), blueprint=blueprint)
            self._methods.append(spec.method)
            self._cells[canonical_json(spec.method), spec.scale, cell.benchmark] = found
            self._scales.setdefault(spec.method_kind, {})[spec.scale] = None
            self._kinds[cell.benchmark] = spec.benchmark_kind

    def benchmarks(self, layout: Layout) -> Sequence[str]:
        """See `Source`: benchmarks of the kinds in the paper's table, if the sweep has the methods that it needs."""
        has_needs = any(layout.needs.items() <= method.items() for method in self._methods)
        if not has_needs or (layout.reference and layout.reference.entry.method.kind not in self._scales):
            return ()
        kinds = {benchmark.kind for benchmark in layout.benchmarks.values()}
        return [label for label, kind in self._kinds.items() if kind in kinds]

    def scales(self, line: Line) -> Sequence[str]:
        """See `Source`: the sweep's own; further rows of a method in the layout have no scales of their own."""
        return () if line.only else tuple(self._scales.get(line.entry.method.kind, ()))

    def find(self, line: Line, entry: Entry, scale: str, benchmark: str) -> Found | None:
        """See `Source`."""
        del line
        return self._cells.get((canonical_json(entry.method), scale, benchmark))


def _blueprint(spec: RecordedSpec) -> Blueprint:
    problem = BENCHMARKS[spec.benchmark_kind].spec(**spec.benchmark_settings).problem()
    blueprint: Blueprint = METHODS[spec.method_kind].spec(**spec.method_settings).blueprint(spec.scale, problem, 0)
    return blueprint


def paper_tables(paper: Paper, source: Source, prefix: str = "") -> list[Table]:
    """A paper's tables for which a source has benchmarks.

    Args:
        paper: the paper.
        source: the source of trials.
        prefix: the prefix of the tables' names.

    Returns:
        Tables whose summary has one row per cell: network, setting (of two columns), benchmark, and the columns of
        `aggregate.seed_statistics`; with a second column next to it, also those of `comparison.difference`, prefixed
        with `difference_`, of the row's own entry minus the other.
    """
    return [
        _table(f"{prefix}{name}", layout, source) for name, layout in paper.tables.items() if source.benchmarks(layout)
    ]


def _table(name: str, layout: Layout, source: Source) -> Table:
    cells: list[dict[str, Any]] = []
    rows: list[dict[str, str]] = []
    for line in layout.lines:
        for scale in source.scales(line):
            own = _cells_of(layout, line, scale, source)
            if own:
                cells += own
                rows.append(_shown(layout, own))
    summary = pd.DataFrame(cells)
    named = summary.assign(method=summary["network"], variant=summary["setting"], scale="")
    caption = (
        f"{layout.title}. {source.origin}. Test accuracy in %, averaged over tasks after the last one: mean ± sample "
        "standard deviation over seeds (n seeds, or finished/asked where some are missing)."
    )
    if layout.reference:
        caption += f" params/task in the paper's convention; ratio: to those of {layout.reference.name}."
    for measure in (MEASURES[value] for value in layout.values):
        caption += f" {measure.in_words}: {measure.says}, likewise."
    if layout.seconds:
        caption += " s/task: training seconds of a task."
    return Table(
        name=name,
        summary=summary,
        table=pd.DataFrame(rows).fillna(""),
        caption=caption,
        notes=aggregate.notes(named),
        name_columns=("network",),
    )


def _cells_of(layout: Layout, line: Line, scale: str, source: Source) -> list[dict[str, Any]]:
    """The cells of one row, benchmark by benchmark, each with the cell next to it."""
    cells = []
    own_name, other_name = layout.columns or ("", "")
    for benchmark in source.benchmarks(layout):
        found = source.find(line, line.entry, scale, benchmark)
        if found is None:
            continue
        cell = _cell(f"{line.name} {scale}", own_name, benchmark, found)
        for name in layout.values:
            values = np.array([aggregate.number(row.get(name)) for row in found.rows])
            mean, sd, ci95 = aggregate.mean_and_spread(values if not cell["mixed"] else values[:0])
            cell |= {name: mean, f"{name}_sd": sd, f"{name}_ci95": ci95}
        cell["ratio"] = _ratio(layout, found, source, benchmark)
        cells.append(cell)
        other = None if line.beside is None else source.find(line, line.beside, scale, benchmark)
        if other is not None:
            cells.append(_cell(f"{line.name} {scale}", other_name, benchmark, other))
            cell |= {f"difference_{name}": value for name, value in _difference(found, other).items()}
    return cells


def _cell(network: str, setting: str, benchmark: str, found: Found) -> dict[str, Any]:
    blueprint = found.blueprint
    return {
        "network": network,
        "setting": setting,
        "benchmark": benchmark,
        **aggregate.seed_statistics(found.rows),
        "asked": found.asked,
        "params_per_task": float(blueprint.params_per_task),
        "continual": blueprint.is_continual,
    }


def _ratio(layout: Layout, found: Found, source: Source, benchmark: str) -> float:
    """Parameters per task divided by those of the layout's reference."""
    if layout.reference is None:
        return np.nan
    base = source.find(layout.reference, layout.reference.entry, source.scales(layout.reference)[0], benchmark)
    return np.nan if base is None else found.blueprint.params_per_task / base.blueprint.params_per_task


def _difference(own: Found, other: Found) -> dict[str, Any]:
    """A cell minus the one next to it, paired by seed and task."""
    asked = min(own.asked, other.asked)
    return comparison.difference(own.rows, other.rows, asked)


def _shown(layout: Layout, cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row of the table as text."""
    first = cells[0]
    line = {"network": shown_method(first["network"], continual=first["continual"])}
    benchmarks = layout.benchmarks if layout.values else dict.fromkeys(cell["benchmark"] for cell in cells)
    for cell in cells:
        setting = cell["setting"]
        column = cell["benchmark"] if not setting or len(benchmarks) > 1 else ""
        line[", ".join(filter(None, (column, setting)))] = aggregate.show_accuracy(cell)
    for cell in cells:
        for name in layout.values:
            if name in cell:
                column = f"{cell['benchmark']}, " if len(benchmarks) > 1 else ""
                line[column + MEASURES[name].in_words] = _spread(name, cell[name], cell[f"{name}_sd"])
    for cell in cells:
        if "difference_n" in cell:
            values = {
                name: cell[f"difference_{name}"] for name in ("n", "asked", "difference", "sd", "apart", "code_changes")
            }
            column = cell["benchmark"] if len(benchmarks) > 1 else ""
            line[", ".join(filter(None, (column, "difference")))] = show_difference(values)
    own = [cell for cell in cells if cell["setting"] == first["setting"]]
    line["params/task"] = " / ".join(dict.fromkeys(aggregate.show_count(cell["params_per_task"]) for cell in own))
    if layout.reference:
        ratios = ("-" if np.isnan(cell["ratio"]) else show_ratio(cell["ratio"]) for cell in own)
        line["ratio"] = " / ".join(dict.fromkeys(ratios))
    if layout.seconds:
        line["s/task"] = " / ".join(map(aggregate.show_seconds, own))
    return line


def _spread(name: str, mean: float, sd: float) -> str:
    """A measure's mean and deviation over seeds; percentages as accuracies are shown."""
    if MEASURES[name].is_in_percent:
        return aggregate.show_spread(mean, sd)
    if np.isnan(mean):
        return "-"
    return f"{mean:.3g}" if np.isnan(sd) else f"{mean:.3g} ± {sd:.2g}"
