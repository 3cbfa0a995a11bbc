"""A paper's figures over its own rows, drawn like the figures of a sweep, from the available trials."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import pandas as pd

from orchestrator.papers.paper import Figure, Paper
from orchestrator.report import aggregate, charts, recall_charts, series
from orchestrator.report.charts import Chart
from orchestrator.report.looks import Look, Names
from orchestrator.report.paper_tables import PaperSource
from orchestrator.store import compatibility
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.recorded_spec import RecordedSpec

_Draw: TypeAlias = Callable[[Manifest, pd.DataFrame, str, Mapping[Names, Look] | None], Chart]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawable:
    """The data of a paper's figure.

    Attributes:
        name: the figure's name.
        figure: what it shows.
        manifest: its rows as the cells of a sweep, with the trials that were found.
        trials: these trials, as returned by `frames.trials_frame`.
    """

    name: str
    figure: Figure
    manifest: Manifest
    trials: pd.DataFrame

    def chart(self, looks: Mapping[Names, Look] | None = None) -> Chart:
        """The figure.

        Args:
            looks: the result of `looks.palette` over the whole page; by default over the figure's own rows.
        """
        made = _DRAWN[self.figure.shows](self.manifest, self.trials, self.figure.benchmark, looks)
        return dataclasses.replace(made, name=self.name, title=self.figure.title)


def paper_figures(paper: Paper, trials: pd.DataFrame) -> Iterator[Drawable]:
    """The figures of a paper with at least one row that has a mean.

    Args:
        paper: the paper.
        trials: trials of any stores, as returned by `frames.trials_frame`.
    """
    source = PaperSource(paper, trials)
    for name, figure in paper.figures.items():
        cells, found = [], []
        drawn = (figure.benchmark,) if figure.before is None else (figure.before, figure.benchmark)
        for line, benchmark in itertools.product(paper.tables[figure.table].lines, drawn):
            for scale in source.scales(line):
                cell = source.find(line, line.entry, scale, benchmark)
                if cell is None or not _has_mean(cell.rows):
                    continue
                rows = compatibility.once(cell.rows)
                found += rows
                cells.append(
                    ManifestCell(
                        method=line.name,
                        variant="",
                        scale=scale,
                        benchmark=benchmark,
                        trials={row["seed"]: row["trial_id"] for row in rows},
                        params_per_task=float(cell.blueprint.params_per_task),
                        spec=RecordedSpec.from_index(rows[0]["settings"]),
                    )
                )
        if cells:
            manifest = Manifest(name=paper.name, cells=tuple(cells))
            yield Drawable(
                name=f"paper-{paper.name}-{name}", figure=figure, manifest=manifest, trials=pd.DataFrame(found)
            )


def _has_mean(rows: Any) -> bool:
    """Whether trials are compatible and have valid accuracies; see `aggregate.seed_statistics`."""
    return bool(rows) and bool(pd.notna(aggregate.seed_statistics(rows)["accuracy"]))


def _tasks(manifest: Manifest, trials: pd.DataFrame, benchmark: str, looks: Mapping[Names, Look] | None) -> Chart:
    values = series.final_accuracies(manifest, trials)
    drawn = charts.accuracy_by_task if values["benchmark"].nunique() == 1 else recall_charts.before_and_after
    return drawn(manifest.name, benchmark, values, series.kinds(manifest), looks)


def _seen(manifest: Manifest, trials: pd.DataFrame, benchmark: str, looks: Mapping[Names, Look] | None) -> Chart:
    values = series.seen_accuracies(manifest, trials)
    return charts.accuracy_so_far(manifest.name, benchmark, values, series.kinds(manifest), looks)


def _recalled(what: str) -> _Draw:
    def draw(manifest: Manifest, trials: pd.DataFrame, benchmark: str, looks: Mapping[Names, Look] | None) -> Chart:
        values = series.recalled_so_far(manifest, trials)
        return recall_charts.recall_so_far(manifest.name, benchmark, values, series.kinds(manifest), looks, what=what)

    return draw


def _against(cost: str) -> _Draw:
    def draw(manifest: Manifest, trials: pd.DataFrame, benchmark: str, looks: Mapping[Names, Look] | None) -> Chart:
        summary, kinds = aggregate.summarise(manifest, trials), series.kinds(manifest)
        return charts.accuracy_against(manifest.name, benchmark, summary, kinds, looks, cost=cost)

    return draw


_DRAWN: Mapping[str, _Draw] = MappingProxyType(
    {
        "tasks": _tasks,
        "seen": _seen,
        "gross": _recalled("gross"),
        "memorised": _recalled("memorised"),
        "parameters": _against("params_per_task"),
        "seconds": _against("train_seconds_per_task"),
    }
)
"""What a figure may show (`papers.paper.Shows`), and what draws it."""
