"""Tables 1 to 4 in the layout of the paper (Hong & Pavlic, arXiv:2204.04297), from whatever trials there are.

A cell is what the paper's setting asks for, found by its settings, whatever sweep asked for it under whatever name. A
trial of other settings never stands in for it: what is not there is marked as missing, of three seeds. Parameters need
no trial; they are worked out from the settings.

A sweep that runs the paper's rows at other settings, on fewer tasks, say, fills the same layout with `SweepSource`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pandas as pd

from crwn.benchmarks import BENCHMARKS, PRESETS
from crwn.methods import METHODS
from crwn.spec import Blueprint, TrialSpec, canonical_json
from orchestrator.display import show_ratio, shown_method
from orchestrator.report import aggregate, comparison
from orchestrator.report.printable import Table
from orchestrator.report.sweep_tables import show_difference
from orchestrator.store import compatibility
from orchestrator.store.manifests import Manifest

NUM_SEEDS = 3
"""The paper's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a layout, or one for each of several scales.

    Attributes:
        name: as the paper has it; the scale follows where there are several.
        method: of the registry.
        scales: the paper's.
        settings: of the method, where they are not its own defaults.
        only: the benchmarks that the paper has it on; empty for all.
    """

    name: str
    method: str
    scales: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    only: tuple[str, ...] = ()


_FLYNET = Row(name="FlyNet", method="flynet", scales=("10d", "20d", "30d", "40d"))
_NEUROMODNET = Row(name="NeuroModNet", method="neuromodnet", scales=("FC256", "FC512", "FC1024", "FC2048", "FC4096"))
_LOCAL = MappingProxyType({"modulation": "local"})
_PRETRAINED = MappingProxyType({"pretrained": True})


def _baseline(name: str, method: str, scale: str) -> Row:
    return Row(name=name, method=method, scales=(scale,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One of the paper's tables.

    Attributes:
        title: what it shows.
        rows: in order.
        benchmarks: presets, a column each.
        reference: the method that ratios are to; empty for none.
        seconds: whether it gives training seconds a task.
        alternative: names of the rows' own settings and of other ones, and these: a second column of each row, with the
            difference.
        needs: settings of a method without which it is not this table.
    """

    title: str
    rows: tuple[Row, ...]
    benchmarks: tuple[str, ...]
    reference: str = ""
    seconds: bool = False
    alternative: tuple[str, str, Mapping[str, Any]] | None = None
    needs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "table1": Layout(
            title="R-MNIST and P-MNIST (the paper's Table 1)",
            rows=(
                _baseline("MTL", "mtl", "FC256"),
                _baseline("PSP", "psp", "FC256"),
                _baseline("BatchE", "batche", "FC256"),
                _baseline("SupSup", "supsup", "FC256"),
                _FLYNET,
                _NEUROMODNET,
            ),
            benchmarks=("r-mnist", "p-mnist"),
            reference="mtl",
        ),
        "table2": Layout(
            title="Split-CIFAR100 and Split-miniImageNet (the paper's Table 2)",
            rows=(
                _baseline("STL", "stl", "1d"),
                _baseline("PSP", "psp", "1d"),
                _baseline("BatchE", "batche", "1d"),
                _baseline("SupSup", "supsup", "1d"),
                Row(name="NeuroModNet", method="neuromodnet", scales=("1d",)),
                Row(name="NeuroModNet", method="neuromodnet", scales=("2d", "4d", "6d"), only=("split-cifar100",)),
            ),
            benchmarks=("split-cifar100", "split-miniimagenet"),
            reference="stl",
            seconds=True,
        ),
        "table3": Layout(
            title="Local and global modulation against local modulation alone, R-MNIST (the paper's Table 3)",
            rows=(_FLYNET, _NEUROMODNET),
            benchmarks=("r-mnist",),
            alternative=("local+global", "local", _LOCAL),
            needs=_LOCAL,
        ),
        "table4": Layout(
            title="Random weights against pretrained ones, R-MNIST (the paper's Table 4)",
            rows=(
                Row(name="without pretraining", method="neuromodnet", scales=("FC4096",)),
                Row(
                    name="with pretraining",
                    method="neuromodnet",
                    scales=("FC4096",),
                    settings=_PRETRAINED,
                ),
            ),
            benchmarks=("r-mnist",),
            needs=_PRETRAINED,
        ),
    }
)
"""By the names of their files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is for one cell of a layout.

    Attributes:
        rows: finished trials.
        asked: how many there should be.
        blueprint: what such a trial builds.
    """

    rows: Sequence[Mapping[str, Any]]
    asked: int
    blueprint: Blueprint


class Source(Protocol):
    """Where a layout's cells come from."""

    @property
    def origin(self) -> str:
        """Which settings its trials have, for a caption."""
        ...

    def benchmarks(self, layout: Layout) -> Sequence[str]:
        """The columns of accuracies; none where there is nothing for this layout."""
        ...

    def scales(self, row: Row) -> Sequence[str]:
        """The scales of a row."""
        ...

    def find(self, row: Row, settings: Mapping[str, Any], scale: str, benchmark: str) -> Found | None:
        """What there is for a cell; None where the layout has none there."""
        ...


class PaperSource:
    """Trials of exactly the paper's settings.

    Args:
        trials: finished ones, as `frames.trials_frame` gives them.
    """

    origin = "The paper's settings, three seeds"

    def __init__(self, trials: pd.DataFrame) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for row in aggregate.records(trials):
            self._rows.setdefault(row["settings"], []).append(row)

    def benchmarks(self, layout: Layout) -> Sequence[str]:
        """See `Source`."""
        return layout.benchmarks

    def scales(self, row: Row) -> Sequence[str]:
        """See `Source`."""
        return row.scales

    def find(self, row: Row, settings: Mapping[str, Any], scale: str, benchmark: str) -> Found | None:
        """See `Source`."""
        if row.only and benchmark not in row.only:
            return None
        spec = paper_spec(row.method, settings, scale, benchmark)
        rows = self._rows.get(settings_text(spec), [])
        return Found(rows=rows, asked=max(NUM_SEEDS, len({row["seed"] for row in rows})), blueprint=spec.blueprint())


def paper_spec(method: str, settings: Mapping[str, Any], scale: str, benchmark: str) -> TrialSpec:
    """The trial of the paper's settings, at seed 0.

    Args:
        method: its kind.
        settings: of the method, where they are not its own defaults.
        scale: of the network.
        benchmark: a preset's name.
    """
    chosen = METHODS[method].spec(**settings)
    return TrialSpec(method=chosen, benchmark=PRESETS[benchmark], scale=scale, seed=0, training=chosen.training(scale))


def settings_text(spec: TrialSpec) -> str:
    """What a trial's `settings` column says; see `compatibility.describe`."""
    return compatibility.settings_of(json.loads(spec.canonical_json()))


class SweepSource:
    """The cells of a sweep, whatever its benchmarks, widths and training.

    Args:
        manifest: the sweep's.
        trials: its finished ones, as `frames.trials_frame` gives them.
    """

    def __init__(self, manifest: Manifest, trials: pd.DataFrame) -> None:
        self.origin = f"The settings of the sweep {manifest.name}, which are not the paper's in all"
        known = {row["trial_id"]: row for row in aggregate.records(trials)}
        self._cells: dict[tuple[str, str, str], Found] = {}
        self._scales: dict[str, dict[str, None]] = {}
        self._kinds: dict[str, str] = {}
        for cell in manifest.cells:
            rows = [{**known[id_], "seed": seed} for seed, id_ in cell.trials.items() if id_ in known]
            spec = cell.spec or (json.loads(rows[0]["settings"]) if rows else None)
            if spec is None:
                continue  # an older manifest, and nothing is finished: nothing is known of the cell
            try:
                blueprint = _blueprint(spec)
            except (KeyError, TypeError, ValueError, ArithmeticError):
                continue  # what cannot be built here, such as a method that is not known, is none of the paper's
            found = Found(rows=rows, asked=len(cell.trials), blueprint=blueprint)
            self._cells[json.dumps(spec["method"], sort_keys=True), spec["scale"], cell.benchmark] = found
            self._scales.setdefault(spec["method"]["kind"], {})[spec["scale"]] = None
            self._kinds[cell.benchmark] = spec["benchmark"]["kind"]

    def benchmarks(self, layout: Layout) -> Sequence[str]:
        """See `Source`: those of the kinds that the paper's table has, if the sweep has what makes it this table."""
        methods = [json.loads(method) for method, _, _ in self._cells]
        has_needs = any(layout.needs.items() <= method.items() for method in methods)
        if not has_needs or (layout.reference and layout.reference not in self._scales):
            return ()
        kinds = {PRESETS[name].kind for name in layout.benchmarks}
        return [label for label, kind in self._kinds.items() if kind in kinds]

    def scales(self, row: Row) -> Sequence[str]:
        """See `Source`: the sweep's own; a method's further rows in the layout have none of their own."""
        return () if row.only else tuple(self._scales.get(row.method, ()))

    def find(self, row: Row, settings: Mapping[str, Any], scale: str, benchmark: str) -> Found | None:
        """See `Source`."""
        method = json.loads(canonical_json(METHODS[row.method].spec(**settings)))
        return self._cells.get((json.dumps(method, sort_keys=True), scale, benchmark))


def _blueprint(spec: Mapping[str, Any]) -> Blueprint:
    method, benchmark = ({k: v for k, v in spec[part].items() if k != "kind"} for part in ("method", "benchmark"))
    problem = BENCHMARKS[spec["benchmark"]["kind"]].spec(**benchmark).problem()
    blueprint: Blueprint = METHODS[spec["method"]["kind"]].spec(**method).blueprint(spec["scale"], problem, 0)
    return blueprint


def paper_tables(source: Source, prefix: str = "") -> list[Table]:
    """The paper's tables, as far as a source has benchmarks for them.

    Args:
        source: where the trials are.
        prefix: of the tables' names.

    Returns:
        Each with a summary of a row a cell: network, setting (of an alternative), benchmark, and the columns of
        `aggregate.seed_statistics`; where there is an alternative also those of `comparison.difference` after
        `difference_`, of the row's own setting less the other.
    """
    return [_table(f"{prefix}{name}", layout, source) for name, layout in LAYOUTS.items() if source.benchmarks(layout)]


def _table(name: str, layout: Layout, source: Source) -> Table:
    cells: list[dict[str, Any]] = []
    lines: list[dict[str, str]] = []
    for row in layout.rows:
        for scale in source.scales(row):
            own = _cells_of(layout, row, scale, source)
            if own:
                cells += own
                lines.append(_line(layout, own))
    summary = pd.DataFrame(cells)
    named = summary.assign(method=summary["network"], variant=summary["setting"], scale="")
    caption = (
        f"{layout.title}. {source.origin}. Test accuracy in %, averaged over tasks after the last one: mean ± sample "
        "standard deviation over seeds (n seeds, or finished/asked where some are missing)."
    )
    if layout.reference:
        caption += f" params/task in the paper's convention; ratio: to those of {layout.reference.upper()}."
    if layout.seconds:
        caption += " s/task: training seconds of a task."
    return Table(
        name=name,
        summary=summary,
        table=pd.DataFrame(lines).fillna(""),
        caption=caption,
        notes=aggregate.notes(named),
        name_columns=("network",),
    )


def _cells_of(layout: Layout, row: Row, scale: str, source: Source) -> list[dict[str, Any]]:
    """The cells of one row: a benchmark after the other, and each with its alternative."""
    cells = []
    own_name, other_name, other_settings = layout.alternative or ("", "", None)
    for benchmark in source.benchmarks(layout):
        found = source.find(row, row.settings, scale, benchmark)
        if found is None:
            continue
        cell = _cell(f"{row.name} {scale}", own_name, benchmark, found)
        cell["ratio"] = _ratio(layout, found, source, benchmark)
        cells.append(cell)
        other = None if other_settings is None else source.find(row, other_settings, scale, benchmark)
        if other is not None:
            cells.append(_cell(f"{row.name} {scale}", other_name, benchmark, other))
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
    """Parameters a task over those of the layout's reference."""
    for row in layout.rows:
        if row.method == layout.reference:
            base = source.find(row, row.settings, source.scales(row)[0], benchmark)
            return np.nan if base is None else found.blueprint.params_per_task / base.blueprint.params_per_task
    return np.nan


def _difference(own: Found, other: Found) -> dict[str, Any]:
    """A cell less its alternative, paired by seed and task."""
    asked = min(own.asked, other.asked)
    return comparison.difference(own.rows, other.rows, asked)


def _line(layout: Layout, cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row of the table as text."""
    first = cells[0]
    line = {"network": shown_method(first["network"], continual=first["continual"])}
    benchmarks = dict.fromkeys(cell["benchmark"] for cell in cells)
    for cell in cells:
        setting = cell["setting"]
        column = cell["benchmark"] if not setting or len(benchmarks) > 1 else ""
        line[", ".join(filter(None, (column, setting)))] = aggregate.show_accuracy(cell)
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
