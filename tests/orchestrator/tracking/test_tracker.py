"""Writing MLflow's databases from the store: everything once, whatever goes wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import operator
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from crwn.benchmarks.rotated import RotatedSpec
from crwn.testing import Conditions, finished_record, tiny_trial
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.report import figures, page, printable, sweep_tables
from orchestrator.store.attempts import Attempt, AttemptError
from orchestrator.store.json_fields import Fields
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.provenance import Provenance
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.schemas import ATTEMPTS_FILE
from orchestrator.store.store import Store, TrialState
from orchestrator.tracking import projection
from orchestrator.tracking import tracker as tracking
from orchestrator.tracking.address import TrackingError, default_uri
from orchestrator.tracking.tracker import MAX_FAULTS, Tracker

Build = Callable[..., None]

START = 1_750_000_000
RARER = pytest.mark.slow(reason="several passes over a database, for what happens more rarely than in the quick tests")
BEGINNING = {"tasks_learned": 0, "step": 0}
ERROR = AttemptError(type="ValueError", message="no such thing", traceback="Traceback ...")


# Stores


NAMES = ("a", "b", "c", "done", "failed", "begun", "left", "missing", "continued", "anew", "no longer")
"""What tests call trials: each is a seed of one cell."""

OTHERWISE = tiny_trial(seed=1, learning_rate=0.5, benchmark=RotatedSpec(base="mnist", num_tasks=2))
"""The trial `otherwise`: none of those seeds."""


def spec_of(name: str) -> TrialSpec:
    """A trial that tests call by a name."""
    return OTHERWISE if name == "otherwise" else tiny_trial(seed=NAMES.index(name))


def id_of(name: str) -> str:
    """Its id; names that are none of a trial stand for trials that no store has."""
    return spec_of(name).trial_id if name in (*NAMES, "otherwise") else name


NAME_OF = {id_of(name): name for name in (*NAMES, "otherwise")}


def sweep(*names: str, name: str = "small", **changes: str) -> Manifest:
    """A sweep of one cell; its trials are its seeds."""
    labels = {"method": "own name", "variant": "", "scale": "FC16", "benchmark": "r-digits", **changes}
    trials = {seed: id_of(trial) for seed, trial in enumerate(names)}
    return Manifest(name=name, cells=(ManifestCell(**labels, trials=trials),))


def attempt(pid: int = 1, **changes: Any) -> dict[str, Any]:
    return {"started": "2025-06-15T15:06:30+00:00", "host": "here", "pid": pid, "from": BEGINNING, **changes}


@pytest.fixture
def write() -> Build:
    """Puts a trial into a store as it is in the state asked for; later calls put it where it is next.

    An unfinished one has so many of the finished one's rows, and the next one's curve.
    """

    def do(
        store: Store,
        name: str,
        state: TrialState,
        *,
        rows: int = 1,
        attempts: Sequence[Mapping[str, Any]] = ({},),
        accuracy: float = 0.5,
    ) -> None:
        spec = spec_of(name)
        made = finished_record(spec, accuracy)
        tried = [Attempt.read(Fields(attempt(**one))) for one in attempts]
        if state == "done":
            provenance = Provenance(
                attempts=tuple(tried),
                finished="2025-06-15T15:07:00+00:00",
                train_seconds_per_task=1.0,
                host="here",
                commit="abc",
            )
            trial = dataclasses.replace(made.trial, provenance=provenance)
            store.records.write(spec.trial_id, dataclasses.replace(made, trial=trial))
            return
        next_one = [
            dataclasses.replace(row, tasks_learned=None, accuracy=None, loss=None, num_test=None, tested=None)
            for row in made.tasks[rows : rows + 1]
            if row.curve
        ]
        tried = [dataclasses.replace(one, spec=made.trial.spec, grouping="any") for one in tried]
        if state == "failed":
            tried[-1] = dataclasses.replace(tried[-1], error=ERROR)
        store.unfinished.write_resume(
            spec.trial_id, b"a resume point", [*made.tasks[:rows], *next_one], made.system[:rows]
        )
        store.unfinished.write_attempts(spec.trial_id, tried)

    return do


@pytest.fixture
def write_mix(write: Build) -> Build:
    """Writes a trial in each state to a store, the last of them not begun."""

    def do(store: Store) -> None:
        write(store, "done", "done", accuracy=0.75)
        write(store, "failed", "failed", attempts=({}, {"pid": 2, "from": {"tasks_learned": 1, "step": 0}}))
        write(store, "begun", "running")

    return do


MIX = ("done", "failed", "begun", "left")

REPORT = "report/report.html"


# Databases


@pytest.fixture(autouse=True)
def hasty_databases() -> Iterator[None]:
    """Spares SQLite waiting for the disk: no test takes the power away."""

    def hurry(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of MLflow's, which takes it seconds to make."""
    folder = tmp_path_factory.mktemp("template")
    store = Store(folder / "store")
    store.create()
    Tracker(store, default_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture
def new_uri(tmp_path: Path, template: Path) -> Callable[[str], str]:
    """Makes empty databases next to the store."""

    def make(name: str = "mlflow") -> str:
        path = tmp_path / f"{name}.db"
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    return make


@pytest.fixture
def uri(new_uri: Callable[..., str]) -> str:
    """A database that is empty."""
    return new_uri()


@pytest.fixture(autouse=True)
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares tests a second of drawing for each pass; one test undoes it."""
    monkeypatch.setattr(page, "report_files", lambda *_: {"report.html": b"a page"})
    monkeypatch.setattr(page, "tables_of", lambda *_: [])


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares tests of many passes the drawing."""
    monkeypatch.setattr(figures, "draw_accuracy_matrix", lambda matrix, title: f"{title}: {matrix}".encode())


def rows_of(uri: str, query: str, *values: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(urlsplit(uri).path[1:] if "?" in uri else uri.removeprefix("sqlite:///"))
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values)]
    finally:
        connection.close()


def dump(uri: str, name: str = "small") -> list[dict[str, Any]]:
    """All that MLflow shows of a sweep, run ids aside, in an order that does not depend on them.

    Read from the database's tables, so that nothing is hidden that is there twice.
    """
    runs = rows_of(
        uri,
        "SELECT runs.* FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ? AND "
        "experiments.lifecycle_stage = 'active' AND runs.lifecycle_stage = 'active'",
        name,
    )
    content = []
    for run in runs:
        run_id = run["run_uuid"]
        tags = pairs(rows_of(uri, "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
        metrics = "SELECT key, step, timestamp, value FROM {} WHERE run_uuid = ? ORDER BY key, step, timestamp"
        content.append(
            {
                "name": run["name"],
                "status": run["status"],
                "start": run["start_time"],
                "end": run["end_time"],
                "params": pairs(rows_of(uri, "SELECT key, value FROM params WHERE run_uuid = ?", run_id)),
                "tags": {key: value for key, value in tags.items() if value},
                "metrics": [tuple(row.values()) for row in rows_of(uri, metrics.format("metrics"), run_id)],
                "latest": [tuple(row.values()) for row in rows_of(uri, metrics.format("latest_metrics"), run_id)],
                "artifacts": artifacts_of(run["artifact_uri"]),
            }
        )
    parents = {run["run_uuid"]: "the parent" for run in runs}
    for shown in content:
        if "mlflow.parentRunId" in shown["tags"]:
            shown["tags"]["mlflow.parentRunId"] = parents.get(shown["tags"]["mlflow.parentRunId"], "nobody")
    return sorted(content, key=lambda shown: (shown["tags"]["crwn.store"], shown["name"], str(shown)))


def pairs(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {row["key"]: row["value"] for row in rows}


def artifacts_of(artifact_uri: str) -> dict[str, str]:
    """Checksums of a run's artifacts by path."""
    folder = Path(unquote(urlsplit(artifact_uri).path))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def named(shown: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A dump's runs by trial; the sweep's own as `parent`, and that of its cell as `cell`. None is there twice."""
    by_trial = {known_as(run["tags"]): run for run in shown}
    assert len(by_trial) == len(shown)
    return by_trial


def known_as(tags: Mapping[str, str]) -> str:
    """What tests call a run."""
    trial_id = tags.get("crwn.trial")
    return NAME_OF.get(trial_id, trial_id) if trial_id else {"sweep": "parent", "cell": "cell"}[tags["crwn.level"]]


def run_ids(uri: str, stage: str = "active") -> dict[str, str]:
    """The ids of the runs by trial; the sweeps' own as `parent`, those of cells as `cell`."""
    found = rows_of(uri, "SELECT run_uuid FROM runs WHERE lifecycle_stage = ?", stage)
    by_trial = {}
    for row in found:
        tags = pairs(rows_of(uri, "SELECT key, value FROM tags WHERE run_uuid = ?", row["run_uuid"]))
        by_trial[known_as(tags)] = row["run_uuid"]
    return by_trial


def points(run: Mapping[str, Any], name: str) -> list[tuple[int, float]]:
    return [(step, value) for key, step, _, value in run["metrics"] if key == name]


class Client:
    """MLflow's client, some calls of which fail; it counts them all.

    Args:
        client: the real one.
        fails: whether the call of a number, counted from 1, fails.
        arrives: whether what such a call asks for is done all the same, and only the answer is lost.
    """

    def __init__(self, client: MlflowClient, fails: Callable[[int], bool] = lambda _: False, *, arrives: bool = False):
        self._client = client
        self._fails = fails
        self._arrives = arrives
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named_arguments: Any) -> Any:
            self.calls.append((name, arguments, named_arguments))
            fails = self._fails(len(self.calls))
            if fails and not self._arrives:
                raise MlflowException("injected: it did not arrive")
            result = method(*arguments, **named_arguments)
            if fails:
                raise MlflowException("injected: the answer is lost")
            return result

        return call


def spy(tracker: Tracker, **faults: Any) -> Client:
    """Replaces a tracker's client by one that counts and fails."""
    known = tracker._client
    client = Client(known._client if isinstance(known, Client) else known, **faults)
    tracker._client = client  # type: ignore[assignment]  # it does what a client does
    return client


def writes(client: Client) -> list[str]:
    """The calls that are no questions."""
    return [name for name, *_ in client.calls if not name.startswith(("get_", "search_"))]


# What is shown


def test_a_sweep_is_a_run_with_one_below_it_for_each_trial_that_was_begun(
    store: Store, uri: str, write_mix: Build
) -> None:
    """Names, status, times, params, tags and metrics; nothing of trials that have not begun."""
    write_mix(store)
    assert Tracker(store, uri).sync(sweep(*MIX), driven=True) == 3
    runs = named(dump(uri))
    assert set(runs) == {"parent", "done", "failed", "begun"}
    assert {name: run["status"] for name, run in runs.items()} == {
        "parent": "RUNNING",
        "done": "FINISHED",
        "failed": "FAILED",
        "begun": "RUNNING",
    }
    assert {name: run["name"] for name, run in runs.items()} == {
        "parent": "small",
        "done": "own name FC16 r-digits, seed 0",
        "failed": "own name FC16 r-digits, seed 1",
        "begun": "own name FC16 r-digits, seed 2",
    }
    for trial_id, state in (("done", "done"), ("failed", "failed"), ("begun", "running")):
        run = runs[trial_id]
        content = projection.trial_content(store, id_of(trial_id), state, sweep(*MIX).cells[0], MIX.index(trial_id))
        assert content is not None
        assert run["params"] == content.params
        assert run["params"]["method"] == "neuromodnet"
        assert [(p.name, p.step, p.time, p.value) for p in content.points] == sorted(
            run["metrics"], key=lambda row: [(p.name, p.step) for p in content.points].index(row[:2])
        )
        assert {name: value for name, value in content.tags.items() if value}.items() <= run["tags"].items()
        assert (run["start"], run["end"]) == (content.start, None if state == "running" else content.end)
        assert run["tags"]["mlflow.parentRunId"] == "the parent"
        assert run["tags"]["crwn.level"] == "trial"
    assert points(runs["done"], "accuracy") == [(1, 0.75), (2, 0.75)]
    assert runs["failed"]["tags"]["error"] == "ValueError: no such thing"
    assert runs["parent"]["start"] == runs["done"]["start"]


def test_artifacts_lie_beside_the_store_wherever_the_command_was_given(
    store: Store, uri: str, write_mix: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their address is absolute, nothing is written into the working directory, and their content is the store's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    write_mix(store)
    Tracker(store, uri).sync(sweep(*MIX), driven=False)
    assert list(elsewhere.iterdir()) == []
    client = MlflowClient(uri)
    for trial_id, run_id in run_ids(uri).items():
        address = client.get_run(run_id).info.artifact_uri
        assert address is not None
        assert address.startswith((tmp_path / "mlartifacts" / "small").as_uri())
        assert bool(client.list_artifacts(run_id)) == (trial_id not in ("begun", "cell"))
    runs = named(dump(uri))
    title = projection.run_name(sweep(*MIX).cells[0], 0)
    assert runs["done"]["artifacts"] == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in projection.artifacts(store, id_of("done"), title).items()
    }
    attempts = hashlib.sha256((store.folder(id_of("failed")) / ATTEMPTS_FILE).read_bytes()).hexdigest()
    assert runs["failed"]["artifacts"] == {"attempts.json": attempts}
    assert set(runs["parent"]["artifacts"]) == {"sweep.json", "table.csv", "table.md", REPORT}


def test_numbers_are_those_of_the_store_and_its_table(store: Store, uri: str, write: Build, tmp_path: Path) -> None:
    """To the last digit: trials' accuracies, and the table as a note, as Markdown and as CSV."""
    exact = {"a": 0.1 + 0.2, "b": 1 / 3}
    for trial_id, accuracy in exact.items():
        write(store, trial_id, "done", accuracy=accuracy)
    manifest = sweep("a", "b", "missing")
    Tracker(store, uri).sync(manifest, driven=False)
    client, ids = MlflowClient(uri), run_ids(uri)
    for trial_id, accuracy in exact.items():
        assert client.get_run(ids[trial_id]).data.metrics["accuracy"] == accuracy
    table = sweep_tables.sweep_table(store, manifest)
    parent = client.get_run(ids["parent"])
    note = parent.data.tags["mlflow.note.content"]
    assert "| own name | FC16 | 31.67 ± 2.36 (2/3) | 99 |" in note
    assert table.caption in note
    assert set(printable.markdown(table).splitlines()[4:]) <= set(note.splitlines())
    files = Path(client.download_artifacts(ids["parent"], "", str(tmp_path / "mlartifacts")))
    assert (files / "table.md").read_text() == printable.markdown(table)
    assert (files / "sweep.json").read_bytes() == manifest.to_json_bytes()
    shown = pd.read_csv(io.StringIO((files / "table.csv").read_text()))
    mean = (exact["a"] + exact["b"]) / 2
    assert shown["accuracy"].tolist() == table.summary["accuracy"].tolist() == [pytest.approx(mean, abs=1e-15)]
    assert shown["n"].tolist() == [2]


@pytest.mark.usefixtures("plain_pictures")
def test_a_cell_of_the_table_is_a_run(store: Store, uri: str, write: Build) -> None:
    """Mean, deviation and number of seeds to the last digit, the settings that its trials share, and who is missing."""
    for trial_id, accuracy in (("a", 0.1 + 0.2), ("b", 1 / 3)):
        write(store, trial_id, "done", accuracy=accuracy)
    spec = {name: value for name, value in json.loads(spec_of("a").canonical_json()).items() if name != "seed"}
    manifest = sweep("a", "b", "missing")
    manifest = dataclasses.replace(manifest, cells=(dataclasses.replace(manifest.cells[0], spec=RecordedSpec(spec)),))
    Tracker(store, uri).sync(manifest, driven=False)
    runs = named(dump(uri))
    cell = runs["cell"]
    assert (cell["name"], cell["status"]) == ("own name FC16 r-digits, 2/3", "FINISHED")
    (row,) = sweep_tables.sweep_table(store, manifest).summary.to_dict("records")
    shown = {name: value for name, _, _, value in cell["metrics"]}
    expected = {"n": 2.0, "accuracy": row["accuracy"], "accuracy_sd": row["sd"], "accuracy_ci95": row["ci95"]}
    assert {f"cell/{name}": value for name, value in expected.items()}.items() <= shown.items()
    assert {name.partition("/")[0] for name in shown} == {"cell"}
    assert cell["params"] == {name: value for name, value in runs["a"]["params"].items() if name != "seed"}
    assert (cell["start"], cell["end"]) == (runs["a"]["start"], max(runs[name]["end"] for name in "ab"))
    assert cell["tags"]["missing_seeds"] == "2"
    assert cell["tags"]["mlflow.parentRunId"] == "the parent"
    assert "cell" not in cell["tags"]  # by which people group trials


@pytest.mark.usefixtures("plain_pictures")
def test_cells_are_written_when_the_work_rests_and_replaced_when_they_changed(
    store: Store, uri: str, write: Build
) -> None:
    """While seeds may come their means stay as they are. A run in MLflow keeps every value it had: it is replaced."""
    tracker = Tracker(store, uri)
    write(store, "a", "done", accuracy=0.25)
    write(store, "b", "running")
    tracker.sync(sweep("a", "b"), driven=True)
    assert "cell" not in named(dump(uri))
    tracker.sync(sweep("a", "b"), driven=False)
    assert points(named(dump(uri))["cell"], "cell/accuracy") == [(0, 0.25)]
    write(store, "b", "done", accuracy=0.75)
    tracker.sync(sweep("a", "b"), driven=True)
    assert points(named(dump(uri))["cell"], "cell/accuracy") == [(0, 0.25)]
    tracker.sync(sweep("a", "b"), driven=False)
    assert points(named(dump(uri))["cell"], "cell/accuracy") == [(0, 0.5)]
    assert named(dump(uri))["cell"]["name"].endswith(", n=2")
    ids = run_ids(uri)
    for look in (tracker, Tracker(store, uri)):
        look.sync(sweep("a", "b"), driven=False)
        assert run_ids(uri) == ids


@pytest.mark.usefixtures("plain_pictures")
def test_a_cell_of_incompatible_trials_shows_no_mean(store: Store, uri: str, write: Build) -> None:
    """It says in what they differ instead."""
    write(store, "a", "done")
    write(store, "otherwise", "done")
    Tracker(store, uri).sync(sweep("a", "otherwise"), driven=False)
    cell = named(dump(uri))["cell"]
    assert points(cell, "cell/n") == [(0, 2.0)]
    assert points(cell, "cell/accuracy") == []
    assert "training.learning_rate " in cell["tags"]["mixed"]
    assert cell["params"] == {}


def test_the_report_is_among_the_sweeps_artifacts(
    store: Store, uri: str, write: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page, figures and tables in all formats, once the run ends; redrawn only if something changed."""
    monkeypatch.undo()
    asked = "a"
    write(store, asked, "done")
    store.write_manifest(sweep(asked))
    Tracker(store, uri).sync(sweep(asked), driven=True)
    assert not [name for name in named(dump(uri))["parent"]["artifacts"] if name.startswith("report/")]
    Tracker(store, uri).sync(sweep(asked), driven=False)
    files = named(dump(uri))["parent"]["artifacts"]
    assert {"report/report.html", "report/small.tex", "report/small.parquet"} <= set(files)
    assert "report/figures/claims.csv" not in files  # nobody asked for a paper's
    assert [name for name in files if name.startswith("report/figures/") and name.endswith(".svg")]

    def draw(*_: object) -> dict[str, bytes]:
        raise AssertionError("drawn again")

    monkeypatch.setattr(tracking, "sweep_files", draw)
    Tracker(store, uri).sync(sweep(asked), driven=False)
    write(store, "b", "failed")
    with pytest.raises(TrackingError, match="drawn again"):
        Tracker(store, uri).sync(sweep(asked, "b"), driven=False)


def test_a_sweep_of_which_nothing_was_begun_has_no_run(store: Store, uri: str) -> None:
    """A run of the interface's list says that there is something to see."""
    assert Tracker(store, uri).sync(sweep("a", "b"), driven=True) == 0
    assert dump(uri) == []


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize(
    ("states", "driven", "status", "state", "counts"),
    [
        (("done", "done"), False, "FINISHED", "done", "2 done"),
        (("done", "done"), True, "RUNNING", "running", "2 done"),
        (("done", "failed"), False, "FAILED", "failed", "1 done, 1 failed"),
        (("done", "running"), True, "RUNNING", "running", "1 done, 1 running"),
        (("done", "running"), False, "KILLED", "interrupted", "1 done, 1 interrupted"),
        (("done", "left"), False, "KILLED", "interrupted", "1 done, 1 left"),
        (("failed", "running"), False, "FAILED", "failed", "1 failed, 1 interrupted"),
    ],
)
def test_the_sweeps_own_run_says_where_it_stands(
    store: Store, uri: str, write: Build, *, states: Any, driven: Any, status: Any, state: Any,
    counts: Any,
) -> None:  # fmt: skip
    """Its status follows its trials', it counts them, and it ends with the last of them."""
    for trial_id, its_state in zip("ab", states, strict=True):
        if its_state != "left":
            write(store, trial_id, its_state)
    Tracker(store, uri).sync(sweep("a", "b"), driven=driven)
    runs = named(dump(uri))
    parent = runs.pop("parent")
    assert parent["status"] == status
    assert (parent["tags"]["state"], parent["tags"]["trials"], parent["tags"]["sweep"]) == (state, counts, "small")
    assert parent["end"] == (None if driven else max(run["end"] for run in runs.values()))


def test_progress_is_told(store: Store, uri: str, write_mix: Build) -> None:
    """After each trial, including those that were not begun."""
    write_mix(store)
    told: list[None] = []
    Tracker(store, uri).sync(sweep(*MIX), driven=False, on_trial=partial(told.append, None))
    assert len(told) == len(MIX)


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize(
    "name",
    ['it\'s "quoted" 100%', "a/b:c", *(pytest.param(name, marks=RARER) for name in ("two words", "Größe_ß", "`tick`"))],
)
def test_a_sweep_may_have_any_name(store: Store, uri: str, write: Build, tmp_path: Path, name: str) -> None:
    """It is found again by it, and its artifacts are where MLflow looks for them."""
    write(store, "a", "done")
    manifest = sweep("a", name=name)
    assert Tracker(store, uri).sync(manifest, driven=False) == 1
    before = dump(uri, name)
    assert set(named(before)) == {"parent", "a", "cell"}
    assert Tracker(store, uri).sync(manifest, driven=False) == 0
    assert dump(uri, name) == before
    client, ids = MlflowClient(uri), run_ids(uri)
    fetched = Path(client.download_artifacts(ids["a"], "contexts/contexts.safetensors", str(tmp_path / "mlartifacts")))
    assert fetched.read_bytes() == finished_record(spec_of("a")).contexts
    assert (tmp_path / "mlartifacts").resolve() in fetched.resolve().parents


@pytest.mark.usefixtures("plain_pictures")
def test_a_long_table_is_an_artifact_alone(store: Store, uri: str, write: Build, tmp_path: Path) -> None:
    """MLflow's notes are short; the note then says where the table is."""
    write(store, "a", "done")
    cells = (sweep(f"t{index}" if index else "a", method=f"method {index} " + "x" * 90).cells[0] for index in range(80))
    manifest = Manifest(name="small", cells=tuple(cells))
    Tracker(store, uri).sync(manifest, driven=False)
    parent = MlflowClient(uri).get_run(run_ids(uri)["parent"])
    assert parent.data.tags["mlflow.note.content"] == "80 rows: see the artifacts table.md and table.csv."
    text = Path(MlflowClient(uri).download_artifacts(parent.info.run_id, "table.md")).read_text()
    assert text == printable.markdown(sweep_tables.sweep_table(store, manifest))


# Again


@pytest.mark.parametrize("driven", [True, False])
def test_a_second_look_writes_nothing(store: Store, uri: str, write_mix: Build, *, driven: bool) -> None:
    """Neither the same tracker nor one that knows nothing yet changes a thing in MLflow."""
    write_mix(store)
    tracker = Tracker(store, uri)
    tracker.sync(sweep(*MIX), driven=driven)
    before, ids = dump(uri), run_ids(uri)
    client = spy(tracker)
    assert tracker.sync(sweep(*MIX), driven=driven) == 0
    assert client.calls == []
    for _ in range(2):
        assert Tracker(store, uri).sync(sweep(*MIX), driven=driven) <= 2  # of unfinished ones it is not known
    assert dump(uri) == before
    assert run_ids(uri) == ids
    assert run_ids(uri, "deleted") == {}


def test_a_second_look_at_what_is_finished_costs_a_search(store: Store, uri: str, write: Build) -> None:
    """No run is read or written one by one, however many there are."""
    for trial_id in "abc":
        write(store, trial_id, "done")
    Tracker(store, uri).sync(sweep(*"abc"), driven=False)
    tracker = Tracker(store, uri)
    client = spy(tracker)
    assert tracker.sync(sweep(*"abc"), driven=False) == 0
    assert writes(client) == []
    assert len(client.calls) <= 2


LIVE: tuple[Mapping[str, tuple[TrialState, Mapping[str, Any]]], ...] = (
    {"a": ("running", {"rows": 0})},
    {"a": ("running", {"rows": 1})},
    {"b": ("running", {"rows": 0})},
    {"a": ("running", {"rows": 2}), "b": ("running", {"rows": 1})},
    {"a": ("done", {}), "b": ("failed", {"rows": 1})},
    {"b": ("running", {"rows": 1, "attempts": ({}, {"pid": 2, "from": {"tasks_learned": 1, "step": 0}})})},
    {"c": ("running", {"rows": 0})},
    {"b": ("done", {"attempts": ({}, {"pid": 2, "from": {"tasks_learned": 1, "step": 0}})}), "c": ("done", {})},
)
"""What becomes of three trials between one look and the next; the second fails on its way."""


@pytest.mark.parametrize("has_memory", [True, pytest.param(False, marks=RARER)])
def test_a_database_that_was_lost_is_built_again(
    store: Store, new_uri: Callable[[str], str], write: Build, *, has_memory: bool
) -> None:
    """All at once it shows what one showed that followed the trials step by step, by one tracker or by many."""
    live, rebuilt = new_uri("live"), new_uri("rebuilt")
    tracker = Tracker(store, live)
    clients = [spy(tracker)]
    seen: dict[str, set[Any]] = {}
    for step in LIVE:
        for trial_id, (state, details) in step.items():
            write(store, trial_id, state, **details)
        tracker = tracker if has_memory else Tracker(store, live)
        clients.append(spy(tracker))
        tracker.sync(sweep(*"abc"), driven=True)
        runs = named(dump(live))
        assert {trial_id for step_ in LIVE[: LIVE.index(step) + 1] for trial_id in step_} == set(runs) - {
            "parent",
            "cell",
        }
        for trial_id, run in runs.items():
            assert seen.get(trial_id, set()) <= set(run["metrics"])  # nothing is taken back
            seen[trial_id] = set(run["metrics"])
    tracker.sync(sweep(*"abc"), driven=False)
    Tracker(store, rebuilt).sync(sweep(*"abc"), driven=False)
    followed, at_once = dump(live), dump(rebuilt)
    assert followed == at_once
    assert run_ids(live, "deleted") == {}
    for run in followed:
        assert max(Counter((name, at) for name, at, *_ in run["metrics"]).values(), default=1) == 1
    sent = [
        len(kinds.get("metrics", ())) for client in clients for name, _, kinds in client.calls if name == "log_batch"
    ]
    if has_memory:
        assert sum(sent) == sum(len(run["metrics"]) for run in followed)  # none is sent twice


def test_nothing_stays_running_that_is_not(store: Store, uri: str, write: Build) -> None:
    """A killed driver reports nothing; the next pass does, by any process."""
    write(store, "a", "running")
    write(store, "b", "running")
    tracker = Tracker(store, uri)
    tracker.sync(sweep("a", "b"), driven=True)
    for look in (tracker, Tracker(store, uri)):
        look.sync(sweep("a", "b"), driven=False)
        runs = named(dump(uri))
        assert [runs[name]["status"] for name in ("a", "b", "parent")] == ["KILLED"] * 3
        assert runs["a"]["tags"]["state"] == "interrupted"
        assert all(run["end"] for run in runs.values())


@pytest.mark.parametrize("has_memory", [True, False])
def test_a_trial_whose_files_are_gone_has_no_run(store: Store, uri: str, write: Build, *, has_memory: bool) -> None:
    """The store has nothing to show of it."""
    write(store, "a", "running")
    write(store, "b", "running")
    tracker = Tracker(store, uri)
    tracker.sync(sweep("a", "b"), driven=True)
    shutil.rmtree(store.folder(id_of("b")))
    (tracker if has_memory else Tracker(store, uri)).sync(sweep("a", "b"), driven=False)
    assert set(named(dump(uri))) == {"parent", "a"}


def test_a_trial_that_goes_on_is_the_same_run(store: Store, uri: str, write: Build) -> None:
    """It failed, is tried again and finishes: its status and its tags follow, and its error is gone."""
    resumed = {"pid": 2, "from": {"tasks_learned": 1, "step": 0}}
    tracker = Tracker(store, uri)
    write(store, "a", "failed")
    tracker.sync(sweep("a"), driven=False)
    ids = run_ids(uri)
    assert named(dump(uri))["a"]["tags"]["error"] == "ValueError: no such thing"
    write(store, "a", "running", attempts=({}, resumed))
    tracker.sync(sweep("a"), driven=True)
    runs = named(dump(uri))
    assert (runs["a"]["status"], runs["parent"]["status"]) == ("RUNNING", "RUNNING")
    assert (runs["a"]["tags"].get("error"), runs["a"]["tags"]["attempt"]) == (None, "2")
    write(store, "a", "done", attempts=({}, resumed))
    tracker.sync(sweep("a"), driven=False)
    runs = named(dump(uri))
    assert (runs["a"]["status"], runs["parent"]["status"]) == ("FINISHED", "FINISHED")
    assert (runs["a"]["tags"].get("error"), runs["a"]["tags"]["state"]) == (None, "done")
    assert ids.items() <= run_ids(uri).items()


@pytest.mark.parametrize(
    ("before", "has_memory"),
    [
        ("done", True),
        ("running", False),
        pytest.param("done", False, marks=RARER),
        pytest.param("running", True, marks=RARER),
    ],
)
def test_a_trial_that_was_computed_anew_has_a_new_run(
    store: Store, new_uri: Callable[[str], str], write: Build, *, before: TrialState, has_memory: bool
) -> None:
    """Its metrics are others, and MLflow cannot take the old ones back; the table follows as well."""
    live = new_uri("live")
    tracker = Tracker(store, live)
    write(store, "a", before, accuracy=0.25)
    tracker.sync(sweep("a"), driven=before == "running")
    old = run_ids(live)
    shutil.rmtree(store.folder(id_of("a")))
    write(store, "a", "done", accuracy=0.75, attempts=({}, {"pid": 7}))
    tracker = tracker if has_memory else Tracker(store, live)
    assert tracker.sync(sweep("a"), driven=False) == 1
    assert run_ids(live, "deleted") == {name: old[name] for name in ("a", "cell") if name in old}
    assert run_ids(live)["parent"] == old["parent"]
    runs = named(dump(live))
    assert points(runs["a"], "accuracy") == [(1, 0.75), (2, 0.75)]
    assert "75.00" in runs["parent"]["tags"]["mlflow.note.content"]
    rebuilt = new_uri("rebuilt")
    Tracker(store, rebuilt).sync(sweep("a"), driven=False)
    assert dump(live) == dump(rebuilt)


def test_a_trial_that_is_no_longer_asked_for_has_no_run(store: Store, uri: str, write_mix: Build) -> None:
    """A sweep's runs are those of its manifest; what comes back has a new one, with all the other had."""
    write_mix(store)
    Tracker(store, uri).sync(sweep(*MIX), driven=False)
    before, ids = named(dump(uri)), run_ids(uri)
    Tracker(store, uri).sync(sweep("failed"), driven=False)
    assert set(named(dump(uri))) == {"failed", "parent"}
    assert run_ids(uri, "deleted") == {name: ids[name] for name in ("done", "begun", "cell")}
    Tracker(store, uri).sync(sweep(*MIX), driven=False)
    assert named(dump(uri)) == before


@pytest.mark.parametrize("what", ["trial", "cell", "parent", "experiment"])
def test_what_somebody_deleted_in_mlflow_is_written_anew(store: Store, uri: str, write_mix: Build, what: str) -> None:
    """By the next sync, since the store has it; to remove a trial, remove it from the sweep."""
    write_mix(store)
    tracker = Tracker(store, uri)
    tracker.sync(sweep(*MIX), driven=False)
    before, ids = dump(uri), run_ids(uri)
    client = MlflowClient(uri)
    if what == "experiment":
        client.delete_experiment(client.get_experiment_by_name("small").experiment_id)
        assert dump(uri) == []
    else:
        client.delete_run(ids["done" if what == "trial" else what])
    Tracker(store, uri).sync(sweep(*MIX), driven=False)
    assert dump(uri) == before


def test_a_run_that_is_deleted_while_it_is_followed_is_written_anew(store: Store, uri: str, write: Build) -> None:
    """The pass that finds it gone says so, and the next one continues."""
    write(store, "a", "running", rows=1)
    tracker = Tracker(store, uri)
    tracker.sync(sweep("a"), driven=True)
    ids = run_ids(uri)
    MlflowClient(uri).delete_run(ids["a"])
    write(store, "a", "done")
    with pytest.raises(TrackingError, match="active"):
        tracker.sync(sweep("a"), driven=False)
    tracker.sync(sweep("a"), driven=False)
    assert run_ids(uri)["parent"] == ids["parent"]
    assert named(dump(uri))["a"]["status"] == "FINISHED"


@RARER
def test_an_experiment_that_comes_back_brings_no_old_run_with_it(
    store: Store, new_uri: Callable[[str], str], write: Build
) -> None:
    """MLflow restores all runs with it, also those that were replaced or no longer asked for."""
    live = new_uri("live")
    for accuracy, pid in ((0.25, 1), (0.75, 7)):
        write(store, "a", "done", accuracy=accuracy, attempts=({"pid": pid},))
        write(store, "b", "done")
        Tracker(store, live).sync(sweep(*"ab" if pid == 1 else "a"), driven=False)
    client = MlflowClient(live)
    client.delete_experiment(client.get_experiment_by_name("small").experiment_id)
    Tracker(store, live).sync(sweep("a"), driven=False)
    rebuilt = new_uri("rebuilt")
    Tracker(store, rebuilt).sync(sweep("a"), driven=False)
    assert dump(live) == dump(rebuilt)


@RARER
def test_runs_that_are_there_twice_are_removed(store: Store, uri: str, write_mix: Build) -> None:
    """The answer to a request was lost, and MLflow's own client asked again: for the parent and for a trial.

    Whichever of two is kept, the trials are below it.
    """
    write_mix(store)
    Tracker(store, uri).sync(sweep(*MIX), driven=False)
    before = dump(uri)
    client = MlflowClient(uri)
    for _ in range(4):  # which one is kept depends on its random id
        for run_id in list(run_ids(uri).values()):
            run = client.get_run(run_id)
            tags = {name: value for name, value in run.data.tags.items() if name != "crwn.projected"}  # comes last
            client.create_run(
                run.info.experiment_id, start_time=run.info.start_time, tags=tags, run_name=run.info.run_name
            )
        assert len(dump(uri)) == 10
        Tracker(store, uri).sync(sweep(*MIX), driven=False)
        assert dump(uri) == before


def test_a_renamed_label_renames_the_runs(store: Store, uri: str, write_mix: Build) -> None:
    """The sweep's own names are no part of a trial, which is not computed again."""
    write_mix(store)
    tracker = Tracker(store, uri)
    tracker.sync(sweep(*MIX), driven=False)
    ids = run_ids(uri)
    for method, look in (("renamed", tracker), ("once more", Tracker(store, uri))):
        look.sync(sweep(*MIX, method=method), driven=False)
        runs = named(dump(uri))
        parent = runs.pop("parent")
        assert {run["tags"]["label.method"] for run in runs.values()} == {method}
        assert {run["name"].split(" FC16")[0] for run in runs.values()} == {method}
        assert f"| {method} |" in parent["tags"]["mlflow.note.content"]
    del ids["cell"]  # it is its labels
    assert ids.items() <= run_ids(uri).items()


def test_what_is_shown_since_lately_is_added_to_finished_runs(
    store: Store, uri: str, write: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer crwn goes through all runs once."""
    write(store, "a", "done")
    Tracker(store, uri).sync(sweep("a"), driven=False)
    monkeypatch.setattr(projection, "PROJECTION", projection.PROJECTION + 1)
    assert Tracker(store, uri).sync(sweep("a"), driven=False) == 1
    assert Tracker(store, uri).sync(sweep("a"), driven=False) == 0


@RARER
def test_stores_share_a_sweeps_experiment(store: Store, uri: str, write: Build, tmp_path: Path) -> None:
    """Each has its own run in it with its trials below, and neither touches the other's."""
    other = Store(tmp_path / "other")
    other.create()
    write(store, "a", "done")
    Tracker(store, uri).sync(sweep("a"), driven=False)
    before = dump(uri)
    write(other, "a", "done", accuracy=0.75)
    write(other, "b", "done")
    Tracker(other, uri).sync(sweep("a", "b"), driven=False)
    both = dump(uri)
    assert [run for run in both if run["tags"]["crwn.store"] == store.identity] == before
    assert set(named([run for run in both if run["tags"]["crwn.store"] == other.identity])) == {
        "parent",
        "a",
        "b",
        "cell",
    }
    assert len(MlflowClient(uri).search_experiments()) == 2  # and MLflow's own, which is empty
    views = dict(projection.EXPERIMENT_TAGS)
    assert views.items() <= MlflowClient(uri).get_experiment_by_name("small").tags.items()
    Tracker(store, uri).sync(sweep("a"), driven=False)
    assert dump(uri) == both


@pytest.mark.usefixtures("plain_pictures")
def test_an_older_store_is_known_by_its_path(uri: str, write: Build, tmp_path: Path) -> None:
    """A store of version 1.0 has no identity of its own; a path may hold what a query must not."""
    for name in ("it's", 'a "quoted" one'):
        old = Store(tmp_path / name)
        old.root.mkdir()
        (old.root / "store.json").write_text(json.dumps({"format": "crwn-store", "version": [1, 0]}))
        write(old, "a", "done")
        assert Tracker(old, uri).sync(sweep("a"), driven=False) == 1
        assert Tracker(old, uri).sync(sweep("a"), driven=False) == 0
    assert len(dump(uri)) == 6


# When MLflow fails


def break_one_run(monkeypatch: pytest.MonkeyPatch, broken: Callable[[str], bool]) -> None:
    """Has MLflow refuse whatever is written of some runs."""
    log_batch = MlflowClient.log_batch

    def refuse(self: MlflowClient, run_id: str, *arguments: Any, **named_arguments: Any) -> Any:
        if broken(self.get_run(run_id).data.tags.get("crwn.trial", "")):
            raise MlflowException(f"injected for {run_id}")
        return log_batch(self, run_id, *arguments, **named_arguments)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)


def test_one_trial_that_cannot_be_written_holds_up_no_other(
    store: Store, new_uri: Callable[[str], str], write_mix: Build
) -> None:
    """The error is raised once all others are written, and the next pass completes it."""
    live, reference = new_uri("live"), new_uri("reference")
    write_mix(store)
    Tracker(store, reference).sync(sweep(*MIX), driven=False)
    tracker = Tracker(store, live)
    told: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        break_one_run(patch, lambda trial_id: trial_id == id_of("done"))
        with pytest.raises(TrackingError, match="injected"):
            tracker.sync(sweep(*MIX), driven=False, on_trial=partial(told.append, None))
    assert len(told) == len(MIX)
    written, wanted = named(dump(live)), named(dump(reference))
    assert {name: written[name] for name in ("failed", "begun")} == {name: wanted[name] for name in ("failed", "begun")}
    assert written["done"] != wanted["done"]
    for name in ("status", "artifacts"):
        assert written["parent"][name] == wanted["parent"][name]  # the sweep goes on being shown
    assert tracker.sync(sweep(*MIX), driven=False) >= 1
    assert dump(live) == dump(reference)


def test_an_outage_is_given_up_soon(store: Store, uri: str, write: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few trials that fail the rest is not tried, since each attempt may take long."""
    trial_ids = list(NAMES[:8])
    for trial_id in trial_ids:
        write(store, trial_id, "running")
    tried: set[str] = set()

    def broken(trial_id: str) -> bool:
        tried.add(trial_id)
        return trial_id != ""

    break_one_run(monkeypatch, broken)
    with pytest.raises(TrackingError, match="injected"):
        Tracker(store, uri).sync(sweep(*trial_ids), driven=True)
    assert tried == set(map(id_of, trial_ids[:MAX_FAULTS]))


def test_a_damaged_record_is_the_users_to_mend(store: Store, uri: str, write: Build) -> None:
    """It is no fault of MLflow's, and the message names the file."""
    write(store, "a", "done")
    (store.folder(id_of("a")) / "tasks.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"tasks\.parquet: "):
        Tracker(store, uri).sync(sweep("a"), driven=False)


def answer_is_lost(when: int) -> dict[str, Any]:
    return {"fails": partial(operator.eq, when), "arrives": True}


def call_is_lost(when: int) -> dict[str, Any]:
    """Alone, or with all that come after it."""
    return {"fails": partial(operator.eq if when % 2 else operator.le, when)}


def comparable(shown: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A dump without the sweep's name."""
    runs = named(shown)
    parent = runs["parent"]
    del parent["name"], parent["tags"]["sweep"], parent["tags"]["crwn.sweep"], parent["tags"]["mlflow.runName"]
    assert parent["tags"].pop("crwn.projected")
    assert set(parent.pop("artifacts")) == {"sweep.json", "table.csv", "table.md", REPORT}  # the name is in them
    return runs


class Kept:
    """A snapshot of a database and the artifacts next to it.

    Args:
        uri: the database's.
        folder: where they are kept; there is none yet.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self._live = Path(uri.removeprefix("sqlite:///"))
        self._kept = folder / self._live.name
        shutil.copytree(self._live.parent / "mlartifacts", folder / "mlartifacts")
        self._copy(self._live, self._kept)

    def restore(self) -> None:
        """Have them as they were, for trackers too that have the database open."""
        shutil.rmtree(self._live.parent / "mlartifacts")
        shutil.copytree(self._kept.parent / "mlartifacts", self._live.parent / "mlartifacts")
        self._copy(self._kept, self._live)

    @staticmethod
    def _copy(source: Path, to: Path) -> None:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(to)) as new:
            old.backup(new)


@pytest.mark.slow(reason="one pass after another that fails, at each of its calls")
@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize("fault", [call_is_lost, answer_is_lost])
def test_a_pass_that_failed_anywhere_is_completed_by_the_next(
    store: Store, uri: str, write_mix: Build, fault: Callable[[int], dict[str, Any]]
) -> None:
    """Whichever request or answer is lost, and whether or not the same process continues.

    The sweep's runs then are those of an undisturbed pass, none missing and none twice, and nothing is left to write.
    """
    write_mix(store)
    tracker = Tracker(store, uri)
    client = spy(tracker)
    tracker.sync(sweep(*MIX, name="undisturbed"), driven=False)
    undisturbed = comparable(dump(uri, "undisturbed"))
    num_calls = len(client.calls)
    assert num_calls > 20
    for when in range(1, num_calls + 1):
        name = f"failed at call {when}"
        tracker = Tracker(store, uri)
        spy(tracker, **fault(when))
        with pytest.raises(TrackingError, match="injected"):
            tracker.sync(sweep(*MIX, name=name), driven=False)
        tracker = tracker if when % 4 < 2 else Tracker(store, uri)
        spy(tracker)
        tracker.sync(sweep(*MIX, name=name), driven=False)
        assert comparable(dump(uri, name)) == undisturbed, name
        client = spy(tracker)
        assert tracker.sync(sweep(*MIX, name=name), driven=False) == 0, name
        assert client.calls == [], name


@pytest.mark.slow(reason="one pass after another that fails, at each of its calls")
@pytest.mark.usefixtures("plain_pictures")
def test_a_pass_over_earlier_runs_that_failed_anywhere_is_completed_by_the_next(
    store: Store, uri: str, write: Build, tmp_path: Path
) -> None:
    """The same where runs have to be continued, replaced, renamed, deleted and ended.

    A trial that failed is finished, one was computed anew, and one is no longer asked for.
    """
    write(store, "continued", "failed", rows=1)
    write(store, "anew", "done", accuracy=0.25)
    store.unfinished.write_attempts(id_of("no longer"), [Attempt.read(Fields(attempt()))])
    shutil.copytree(store.root, tmp_path / "later")
    later = Store(tmp_path / "later")
    write(later, "continued", "done", attempts=({}, {"pid": 2, "from": {"tasks_learned": 1, "step": 0}}))
    write(later, "anew", "done", accuracy=0.75, attempts=({"pid": 7},))

    manifest = sweep("continued", "anew", method="renamed")
    Tracker(later, uri).sync(dataclasses.replace(manifest, name="at once"), driven=False)
    at_once = comparable(dump(uri, "at once"))
    Tracker(store, uri).sync(sweep("continued", "anew", "no longer"), driven=True)
    earlier = Kept(uri, tmp_path / "kept")
    tracker = Tracker(later, uri)
    client = spy(tracker)
    tracker.sync(manifest, driven=False)
    assert comparable(dump(uri)) == at_once
    num_calls = len(client.calls)
    assert num_calls > 20
    for when in range(1, num_calls + 1):
        earlier.restore()
        tracker = Tracker(later, uri)
        fault = answer_is_lost if when % 3 else call_is_lost
        spy(tracker, **fault(when))
        with pytest.raises(TrackingError, match="injected"):
            tracker.sync(manifest, driven=False)
        tracker = tracker if when % 4 < 2 else Tracker(later, uri)
        spy(tracker)
        tracker.sync(manifest, driven=False)
        assert comparable(dump(uri)) == at_once, f"failed at call {when}"


@pytest.mark.slow(reason="MLflow takes thousands of points")
def test_no_call_is_larger_than_mlflow_takes(store: Store, uri: str, write: Build) -> None:
    """A thousand metrics, a hundred params or tags a call; a long trial has more, and all of them arrive."""
    write(store, "a", "done")
    made = finished_record(spec_of("a"), conditions=Conditions(device="cuda"))
    system = [dataclasses.replace(made.system[1], time=START + 10.0 * index) for index in range(600)]
    store.records.write(id_of("a"), dataclasses.replace(made, system=system))
    tracker = Tracker(store, uri)
    client = spy(tracker)
    tracker.sync(sweep("a"), driven=False)
    sizes = [
        {kind: len(entries) for kind, entries in named_arguments.items()}
        for name, _, named_arguments in client.calls
        if name == "log_batch"
    ]
    assert all(sum(size.values()) <= 1000 for size in sizes)
    assert all(size.get("params", 0) <= 100 and size.get("tags", 0) <= 100 for size in sizes)
    assert sum(size.get("metrics", 0) for size in sizes) > 7 * 600
    assert len(points(named(dump(uri))["a"], "system/gpu_power_usage_watts")) == 600
