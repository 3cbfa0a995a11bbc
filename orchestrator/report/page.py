"""An HTML page over any stores: runs, tables, figures, failures and provenance; optionally those of a paper.

The page is a single file: it contains its pictures, its numbers and the short script that sorts its tables, and needs
no network or server.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata, resources
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup

from orchestrator.display import printable, without_middle
from orchestrator.papers.paper import Paper
from orchestrator.report import aggregate, claims, fonts, likeness, series
from orchestrator.report.charts import FORMATS, Chart, charts
from orchestrator.report.claims import Verdict
from orchestrator.report.filenames import distinct
from orchestrator.report.frames import read_trials
from orchestrator.report.likeness_charts import similarity_charts
from orchestrator.report.looks import Look, Names, palette
from orchestrator.report.modular_charts import modular_charts, units
from orchestrator.report.paper_figures import Drawable, paper_figures
from orchestrator.report.paper_tables import PaperSource, paper_tables
from orchestrator.report.plain import csv_text
from orchestrator.report.pointing import inline
from orchestrator.report.printable import FIGURES_FOLDER, Table, markdown, table_files, write_files
from orchestrator.report.sweep_tables import SweepTable, sweep_table, sweep_trials
from orchestrator.report.tables import Choice, manifests_of, tables_of
from orchestrator.store.files import Files
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.store import Store

PAGE_FILE = "report.html"
MAX_NUMBERS = 500_000
"""Maximum size of a figure's CSV embedded in the page, in bytes: a fast page matters more than a second copy."""
VERSIONS = ("torch", "numpy")
"""Packages on whose versions a store's numbers may depend."""
MAX_TRACEBACK, MAX_TRACEBACKS = 10_000, 20
"""Characters of a traceback in the page, and how many tracebacks: many trials fail in the same way."""
MAX_SIGNS = 10
"""Maximum number of missing characters named in a line."""
NUMERIC = ("masked", "forgetting", "params/task", "ratio", "examples kept", "s/task")
"""Right-aligned columns of a table, in addition to the benchmarks'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A trial that did not finish.

    Attributes:
        trial: the trial's id.
        name: the trial's description.
        state: failed or interrupted.
        error: the error of its last attempt, in one line.
        traceback: its traceback, shortened; empty if there is none.
    """

    trial: str
    name: str
    state: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The page's section on one sweep.

    Attributes:
        store: the store's address.
        table: the table of results.
        charts: the figures of results.
        shared: settings that all cells share, by name.
        settings: one row per cell, with the settings in which cells differ; text.
        provenance: one row per trial behind the numbers: the columns of `frames.trials_frame`, and cell.
        versions: the versions of the packages that computed them, as `name version`, all that occur.
        failures: trials that were started and did not finish.
    """

    store: str
    table: SweepTable
    charts: tuple[Chart, ...]
    shared: Mapping[str, str]
    settings: pd.DataFrame
    provenance: pd.DataFrame
    versions: tuple[str, ...]
    failures: tuple[Failure, ...]

    @property
    def figures(self) -> dict[str, list[Chart]]:
        """The figures by benchmark, in the sweep's order."""
        found: dict[str, list[Chart]] = {}
        for chart in self.charts:
            found.setdefault(chart.benchmark, []).append(chart)
        return found

    @property
    def tracebacks(self) -> dict[str, list[str]]:
        """The first `MAX_TRACEBACKS` distinct tracebacks, each with the names of its trials."""
        found: dict[str, list[str]] = {}
        for failure in self.failures:
            if failure.traceback in found or (failure.traceback and len(found) < MAX_TRACEBACKS):
                found.setdefault(failure.traceback, []).append(failure.name)
        return found

    @property
    def num_done(self) -> int:
        """The number of finished trials."""
        return int(self.table.summary["n"].sum())

    @property
    def num_asked(self) -> int:
        """The number of trials that the sweep requests."""
        return int(self.table.summary["asked"].sum())


def sections(store: Store, sweep: str | None = None, looks: Mapping[Names, Look] | None = None) -> Iterator[Section]:
    """One section per sweep of a store, or only that of one sweep.

    Args:
        store: the store.
        sweep: the sweep's name.
        looks: the result of `looks.palette` over the whole page; by default over each chart's cells.

    Raises:
        UserError: the store has no sweep, or a record cannot be read.
    """
    for manifest in manifests_of(store, sweep):
        trials = sweep_trials(store, manifest)
        table = sweep_table(store, manifest, trials)
        drawn = series.drawn(manifest, table.summary)
        tasks = store.records.tasks(drawn.trial_ids).to_pandas()
        frames = {
            "summary": table.summary,
            "final": series.final_accuracies(drawn, trials),
            "seen": series.seen_accuracies(drawn, trials),
            "curves": series.learning_curves(drawn, tasks),
            "matrices": series.accuracy_matrices(drawn, trials, tasks),
        }
        provenance = _provenance(manifest, trials)
        shared, settings = _settings(provenance)
        yield Section(
            store=store.address,
            table=table,
            charts=(
                *charts(manifest.name, frames, series.kinds(manifest), looks),
                *similarity_charts(likeness.of_sweep(store, drawn, set(trials["trial_id"])), manifest.name),
                *modular_charts(manifest.name, *units(drawn, store), series.kinds(manifest), looks),
            ),
            shared=shared,
            settings=settings,
            provenance=provenance,
            versions=tuple(
                f"{package} {version}"
                for package in VERSIONS
                for version in sorted(provenance[f"versions.{package}"].dropna().unique())
            ),
            failures=tuple(_failures(store, manifest)),
        )


def _provenance(manifest: Manifest, trials: pd.DataFrame) -> pd.DataFrame:
    owners = pd.DataFrame(
        [
            {"trial_id": trial_id, "cell": _cell_name(cell), "order": order}
            for order, cell in enumerate(manifest.cells)
            for trial_id in cell.trials.values()
        ],
        columns=["trial_id", "cell", "order"],
    )
    rows = owners.merge(trials, on="trial_id").sort_values(["order", "seed"], kind="stable")
    return rows.fillna(dict.fromkeys(("commit", "host", "device", "code.method", "code.crwn"), "")).reset_index(
        drop=True
    )


def _cell_name(cell: ManifestCell) -> str:
    return f"{cell.row_name}, {cell.benchmark}"


def _settings(provenance: pd.DataFrame) -> tuple[dict[str, str], pd.DataFrame]:
    """The settings that all cells share, and one row per cell with those that differ, except the seed."""
    first = provenance.drop_duplicates("cell")
    flat = pd.json_normalize([json.loads(text) for text in first["settings"]])
    texts = flat.map(lambda value: "" if value is None or value != value else str(value))  # noqa: PLR0124 (NaN)
    differing = [name for name in texts if texts[name].nunique() > 1]
    shared = {str(name): texts[name].iloc[0] for name in sorted(texts, key=str) if name not in differing}
    settings = texts[differing]
    settings.insert(0, "cell", first["cell"].to_numpy())
    return shared, settings


def _failures(store: Store, manifest: Manifest) -> Iterator[Failure]:
    names = {trial_id: f"{_cell_name(cell)}, seed {seed}" for cell, seed, trial_id in manifest.trials()}
    states = store.states(names, driven=store.is_driven)
    begun = [trial_id for trial_id, state in states.items() if state in ("failed", "interrupted")]
    errors, tracebacks = store.unfinished.errors(begun), store.unfinished.tracebacks(begun)
    for trial_id in begun:
        yield Failure(
            trial=trial_id,
            name=names[trial_id],
            state=states[trial_id],
            error=errors.get(trial_id, ""),
            traceback=without_middle(tracebacks.get(trial_id, ""), MAX_TRACEBACK),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSection:
    """The page's section on a paper.

    Attributes:
        title: the paper's title.
        tables: its tables, from the finished trials.
        charts: its figures that have data.
        verdicts: the verdicts on its claims.
    """

    title: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    verdicts: tuple[Verdict, ...]


def write_report(
    stores: Sequence[Store], to: Files, say: Callable[[str], None] = lambda line: None, paper: Paper | None = None
) -> list[str]:
    """Write the page and every figure of some stores.

    Args:
        stores: any number of stores.
        to: the folder to write to.
        say: called with one line on the characters of labels that no font has; see `fonts`.
        paper: a paper whose tables, figures and claims the page also shows.

    Returns:
        The full paths of the page and, if there are figures, of their folder.

    Raises:
        UserError: a store has no sweep or cannot be read, or the folder cannot be written.
    """
    files = report_files(stores, paper=paper)
    write_files(files, to)
    names = {
        part for store in stores for manifest in store.manifests() for row in series.names(manifest) for part in row
    }
    signs = fonts.lacking("".join(sorted(names)))
    if signs:
        shown = " ".join(signs[:MAX_SIGNS]) + (f" and {len(signs) - MAX_SIGNS} more" if len(signs) > MAX_SIGNS else "")
        code = fonts.drawable(signs[0])
        say(f"figures: no font on this machine has {shown}; drawn as codes, such as {code}. Install a font for them.")
    return [to.locate(PAGE_FILE)] + ([to.locate(FIGURES_FOLDER)] if len(files) > 1 else [])


def report_files(
    stores: Sequence[Store],
    sweep: str | None = None,
    formats: Collection[str] = tuple(FORMATS),
    paper: Paper | None = None,
) -> dict[str, bytes]:
    """The page and every figure of some stores, by file name.

    Args:
        stores: any number of stores.
        sweep: only the sweep of this name, which each store must have.
        formats: the figures' formats, some of `charts.FORMATS`, including svg, which the page shows.
        paper: a paper whose tables, figures and claims the page also shows.

    Raises:
        UserError: a store has no such sweep or cannot be read.
    """
    manifests = [manifest for store in stores for manifest in manifests_of(store, sweep)]
    trials = pd.DataFrame()
    drawable: list[Drawable] = []
    if paper is not None:
        read = [
            read_trials(store) if sweep is None else sweep_trials(store, manifests_of(store, sweep)[0])
            for store in stores
        ]
        trials = pd.concat(read, ignore_index=True)
        drawable = list(paper_figures(paper, trials))
    looks = palette(
        names for manifest in (*manifests, *(one.manifest for one in drawable)) for names in series.names(manifest)
    )
    found = _with_own_files([section for store in stores for section in sections(store, sweep, looks)])
    files: dict[str, bytes] = {}
    own: PaperSection | None = None
    if paper is not None:
        own = PaperSection(
            title=paper.title,
            tables=tuple(paper_tables(paper, PaperSource(paper, trials))),
            charts=tuple(one.chart(looks) for one in drawable),
            verdicts=tuple(claims.verdicts(paper, trials)),
        )
        files[f"{FIGURES_FOLDER}/claims.csv"] = csv_text(claims.as_frame(own.verdicts)).encode()
    pictures = {}
    for chart in (*(chart for section in found for chart in section.charts), *(own.charts if own else ())):
        drawn = dict(chart.files(formats))
        pictures[chart.name] = drawn[f"{chart.name}.svg"]
        files |= {f"{FIGURES_FOLDER}/{name}": content for name, content in drawn.items()}
    return {**files, PAGE_FILE: page(found, pictures, own).encode()}


def _with_own_files(found: Sequence[Section]) -> list[Section]:
    """Sections with distinct names of figures, even if sweeps of several stores have the same name."""
    made = [
        (chart.name, f"{section.store} {chart.title}: {chart.benchmark}")
        for section in found
        for chart in section.charts
    ]
    names = iter(distinct(made))
    return [
        replace(section, charts=tuple(replace(chart, name=next(names)) for chart in section.charts))
        for section in found
    ]


def page(found: Sequence[Section], pictures: Mapping[str, bytes], paper: PaperSection | None = None) -> str:
    """The page as HTML.

    Args:
        found: its sections, in order.
        pictures: every chart as SVG, by name.
        paper: the section on a paper, which comes last.
    """
    return _template().render(
        sections=found,
        paper=paper,
        pictures={name: Markup(inline(content.decode())) for name, content in pictures.items()},  # noqa: S704 (ours)
        title=", ".join(dict.fromkeys(section.table.name for section in found)),
        version=metadata.version("crwn"),
        numeric=NUMERIC,
        names=(*aggregate.CELL[:3], "network"),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_shown
    )
    environment.globals["zip"] = zip
    environment.filters["numbers"] = _numbers
    return environment.from_string(resources.files("orchestrator.report").joinpath("page.html").read_text())


def _shown(value: object) -> object:
    """Text of a store without control characters; see `printable`."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _numbers(chart: Chart) -> str:
    """The link to a figure's numbers: in the page or, if they are many, next to it."""
    content = csv_text(chart.values).encode()
    if len(content) > MAX_NUMBERS:
        return quote(f"{FIGURES_FOLDER}/{chart.name}.csv")
    return _embedded("text/csv", content)


def _embedded(kind: str, content: bytes) -> str:
    """A data URL, which contains the whole content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


BROWSER_FORMATS = ("svg", "png")
"""Formats of figures that a browser shows. Type for print takes as long as both of them."""


def sweep_files(store: Store, manifest: Manifest, table: SweepTable) -> dict[str, bytes]:
    """All of a sweep as files by path: its requested trials, its table, and `report/` as written by two commands.

    Args:
        store: which has the sweep.
        manifest: the sweep's.
        table: the sweep's.

    Raises:
        UserError: a record is damaged.
    """
    made = table_files(tables_of([store], Choice(sweep=manifest.name)))
    made |= report_files([store], manifest.name, BROWSER_FORMATS)
    return {
        "sweep.json": manifest.to_json_bytes(),
        "table.csv": csv_text(table.summary).encode(),
        "table.md": markdown(table).encode(),
        **{f"report/{name}": content for name, content in made.items()},
    }
