"""MLflow written from the store. The only file that imports mlflow.

One experiment for each sweep's name, in it one parent run for each sweep and store, and one child for each of the
sweep's trials that was begun. What they show is read from the store (`orchestrator/projection.py`), so all of it can
lag behind, be lost, and be rebuilt: `Tracker.sync` writes what is missing and nothing twice.

Metrics in MLflow can only be added to. A run therefore belongs to one computation of its trial, its `crwn.origin`;
where a trial was computed anew, its run is replaced. The runs of trials that a sweep no longer asks for are deleted,
which MLflow can undo, and so does `sync` when they are asked for again.

One process at a time writes (`Store.tracking_lock`).
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before mlflow is imported: nothing is reported to anybody, nothing printed, an outage is noticed within seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else it prints two lines for every run
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")

import filelock
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from orchestrator import projection, report
from orchestrator.errors import UserError
from orchestrator.projection import Label, Point, TrialContent
from orchestrator.report.plain import csv_text
from orchestrator.store import ATTEMPTS_FILE, Store, TrialState
from orchestrator.tracking_address import artifact_root, is_database, sqlite_file
from orchestrator.tracking_errors import TrackingError, explain

METRICS_PER_CALL = 1000
"""MLflow takes no more."""

MAX_FAULTS = 3
"""Trials that could not be written after which a pass is given up: one may be odd, more are an outage."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Has the interface show what belongs to training and not what belongs to prompts."""

TABLE_COST_FACTOR = 20
"""While a sweep runs, its table is written again after twenty times what that took."""

STATUS: Mapping[TrialState, str] = {
    "done": "FINISHED",
    "failed": "FAILED",
    "running": "RUNNING",
    "interrupted": "KILLED",
    "left": "KILLED",
}


@dataclass(slots=True, kw_only=True)
class _Shown:
    """What is known of a run in MLflow.

    Attributes:
        run_id: MLflow's.
        status: MLflow's.
        tags, params: as they are there.
        start, end: milliseconds since 1970; end is None while it runs.
        points: (metric, step) that are there; None where that was not looked up.
        seen: what of the store it shows; None where that is not known.
    """

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    start: int
    end: int | None
    points: set[tuple[str, int]] | None
    seen: Any = None


@dataclass(slots=True, kw_only=True)
class _Experiment:
    """A sweep's runs: the parent, if there is one yet, and its children by trial."""

    experiment_id: str
    parent: _Shown | None = None
    children: dict[str, _Shown] = field(default_factory=dict)
    table_due: float = 0.0


class Tracker:
    """Shows a store's sweeps in MLflow.

    Args:
        store: the store.
        uri: MLflow's tracking URI.

    Raises:
        TrackingError: MLflow cannot be reached, or is not what was expected.
    """

    def __init__(self, store: Store, uri: str) -> None:
        self._store = store
        self._uri = uri
        self._experiments: dict[str, _Experiment] = {}
        with _explained(uri):
            self._client = _connect(store, uri)

    def sync(
        self,
        manifest: Mapping[str, Any],
        *,
        driven: bool,
        on_trial: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Write what MLflow lacks of a sweep.

        Args:
            manifest: the sweep's.
            driven: whether a run is working on it.
            on_trial: called after each trial with the number of those left to look at.

        Returns:
            How many runs of trials were written.

        Raises:
            TrackingError: something could not be written; the next call goes on.
            UserError: a record of the store is damaged.
        """
        labels = projection.labels(manifest)
        states = self._store.states(labels, driven=driven)
        with self._writing(manifest["name"]):
            experiment = self._experiments.get(manifest["name"]) or self._look_up(manifest["name"], labels)
            self._ensure_parent(experiment, manifest["name"], states)
        if experiment.parent is None:
            return 0  # nothing was begun
        num_written = 0
        faults: list[TrackingError] = []
        for index, (trial_id, label) in enumerate(labels.items(), start=1):
            states[trial_id] = self._store.state(trial_id, driven=driven)  # it may have ended since
            try:
                with self._writing(manifest["name"]):
                    self._ensure_child(experiment, trial_id)
                    num_written += self._sync_trial(experiment, trial_id, states[trial_id], label)
            except TrackingError as error:
                faults.append(error)
                if len(faults) == MAX_FAULTS:
                    break
            on_trial(len(labels) - index)
        if len(faults) < MAX_FAULTS:
            with self._writing(manifest["name"]):
                self._sync_parent(experiment, manifest, states, driven=driven)
        if faults:
            raise faults[0]
        return num_written

    @contextlib.contextmanager
    def _writing(self, sweep: str) -> Iterator[None]:
        """Explain what fails; what of it arrived is not known, so the sweep is looked up again by the next pass."""
        try:
            with _explained(self._uri):
                yield
        except TrackingError:
            self._experiments.pop(sweep, None)
            raise

    # What is there

    def _look_up(self, name: str, labels: Mapping[str, Label]) -> _Experiment:
        """The sweep's experiment and those of its runs that are this store's; made where there is none."""
        experiment = _Experiment(experiment_id=self._experiment_id(name))
        deleted = []
        for run in self._search(experiment.experiment_id, name):
            trial_id = run.data.tags.get("crwn.trial", "")
            if run.info.lifecycle_stage != "active":
                deleted.append(run)
            elif not trial_id and experiment.parent is None:
                experiment.parent = _shown(run)
            elif trial_id in labels and trial_id not in experiment.children:
                experiment.children[trial_id] = _shown(run)
            else:  # no longer asked for, or there twice: an answer was lost, and MLflow's client asked again
                self._client.delete_run(run.info.run_id)
        for run in deleted:
            trial_id = run.data.tags.get("crwn.trial", "")
            if not trial_id and experiment.parent is None:
                self._client.restore_run(run.info.run_id)
                experiment.parent = _shown(run)
            elif trial_id in labels and trial_id not in experiment.children and self._is_current(run):
                self._client.restore_run(run.info.run_id)
                experiment.children[trial_id] = _shown(run)
        self._experiments[name] = experiment
        return experiment

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            root = artifact_root(self._store.beside, self._uri)
            # A name may hold what a path should not; artifacts are found through MLflow, never by this name.
            location = None if root is None else (root / re.sub(r"[^\w.-]", "_", name)).as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._client.get_experiment_by_name(name)  # another store's driver was quicker
            assert found is not None
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _search(self, experiment_id: str, name: str) -> Iterator[Run]:
        identity = self._store.identity
        # MLflow's conditions have no way to write a quote, which a path may hold.
        condition = "" if "'" in identity or '"' in identity else f"tags.`crwn.store` = '{identity}'"
        token = None
        while True:
            page = self._client.search_runs(
                [experiment_id], condition, run_view_type=ViewType.ALL, max_results=1000, page_token=token
            )
            for run in page:
                if (run.data.tags.get("crwn.store"), run.data.tags.get("crwn.sweep")) == (identity, name):
                    yield run
            token = page.token
            if not token:
                return

    def _is_current(self, run: Run) -> bool:
        """Whether a run shows the computation of its trial that the store has."""
        attempts = self._store.all_attempts(run.data.tags["crwn.trial"])
        return bool(attempts) and run.data.tags.get("crwn.origin") == projection.origin(attempts)

    # Trials

    def _sync_trial(self, experiment: _Experiment, trial_id: str, state: TrialState, label: Label) -> bool:
        """Bring one trial's run up to date; whether that took writing."""
        shown = experiment.children.get(trial_id)
        if state == "left":
            if shown is not None and shown.status == "RUNNING":
                self._write_status(shown, STATUS[state], shown.start)
                return True
            return False
        seen = (state, label, self._store.signature(trial_id))
        if shown is not None and shown.seen == seen:
            return False
        digest = projection.digest(self._store, trial_id, label) if state == "done" else None
        if shown is not None and digest and (shown.status, shown.tags.get("crwn.projected")) == ("FINISHED", digest):
            shown.seen = seen
            return False
        content = projection.trial_content(self._store, trial_id, state, label)
        if content is None:
            return False  # the next pass sees it finished
        if shown is not None and shown.tags.get("crwn.origin") != content.origin and self._points_of(shown):
            self._client.delete_run(shown.run_id)  # it shows another computation, and metrics cannot be taken back
            shown = None
        if shown is None:
            shown = experiment.children[trial_id] = self._create_trial(experiment, trial_id, content)
        self._write_params(shown, content.params)
        self._write_points(shown, content.points)
        self._write_tags(shown, content.tags)
        self._write_status(shown, STATUS[state], content.end)
        if digest is not None:
            self._write_files(shown, projection.artifacts(self._store, trial_id, label.run_name))
            self._write_tags(shown, {"crwn.projected": digest})  # last: all of it is there
        elif state == "failed":
            self._write_files(shown, {ATTEMPTS_FILE: self._store.read(trial_id, ATTEMPTS_FILE) or b""})
        shown.seen = seen
        return True

    def _ensure_child(self, experiment: _Experiment, trial_id: str) -> None:
        """Keep a trial's run below its sweep's, of which there may have been two, or which was lost."""
        assert experiment.parent is not None
        if trial_id in experiment.children:
            self._write_tags(experiment.children[trial_id], {"mlflow.parentRunId": experiment.parent.run_id})

    def _create_trial(self, experiment: _Experiment, trial_id: str, content: TrialContent) -> _Shown:
        assert experiment.parent is not None
        identity = {"mlflow.parentRunId": experiment.parent.run_id, "crwn.level": "trial", "crwn.trial": trial_id}
        own = {**self._own_tags(experiment.parent.tags["crwn.sweep"]), **identity}
        return self._create_run(experiment, content.start, {**own, **{k: v for k, v in content.tags.items() if v}})

    # The parent

    def _ensure_parent(self, experiment: _Experiment, name: str, states: Mapping[str, TrialState]) -> None:
        begun = [trial_id for trial_id, state in states.items() if state != "left"]
        if experiment.parent is not None or not begun:
            return
        start = min(projection.started(self._store, trial_id) for trial_id in begun)
        tags = {**self._own_tags(name), "crwn.level": "sweep", "mlflow.runName": name}
        experiment.parent = self._create_run(experiment, start, tags)

    def _sync_parent(
        self, experiment: _Experiment, manifest: Mapping[str, Any], states: Mapping[str, TrialState], *, driven: bool
    ) -> None:
        """The sweep's own run: how many trials stand where, the table, and when the work ended."""
        parent = experiment.parent
        if parent is None:
            return
        counts = Counter(states.values())
        if driven:
            state: TrialState = "running"
        elif counts["failed"]:
            state = "failed"
        else:
            state = "done" if counts["done"] == len(states) else "interrupted"
        trials = ", ".join(f"{counts[name]} {name}" for name in STATUS if counts[name])
        self._write_tags(parent, {"state": state, "trials": trials, "sweep": manifest["name"]})
        done = [(trial_id, self._store.signature(trial_id)) for trial_id in states if states[trial_id] == "done"]
        seen = (done, json.dumps(manifest, sort_keys=True))
        if parent.seen != seen and (not driven or time.monotonic() >= experiment.table_due):
            began = time.monotonic()
            table = report.sweep_table(self._store, manifest)
            files = {
                "sweep.json": (json.dumps(manifest, indent=1) + "\n").encode(),
                "table.csv": csv_text(table.summary).encode(),
                "table.md": report.markdown(table).encode(),
            }
            note = f"{report.markdown_rows(table)}\n\n{report.markdown_caption(table)}"
            if len(note) > projection.MAX_TAG:
                note = f"{len(table.table)} rows: see the artifacts table.md and table.csv."
            self._write_tags(parent, {"mlflow.note.content": note})
            self._write_files(parent, files)
            parent.seen = seen
            experiment.table_due = time.monotonic() + TABLE_COST_FACTOR * (time.monotonic() - began)
        ends = [child.end for child in experiment.children.values() if child.end is not None]
        self._write_status(parent, STATUS[state], max(ends, default=parent.start))

    # Writing

    def _own_tags(self, sweep: str) -> dict[str, str]:
        return {
            "crwn.store": self._store.identity,
            "crwn.sweep": sweep,
            "mlflow.user": _user(),
            "mlflow.source.name": "crwn run",
            "mlflow.source.type": "LOCAL",
        }

    def _create_run(self, experiment: _Experiment, start: int, tags: Mapping[str, str]) -> _Shown:
        run = self._client.create_run(
            experiment.experiment_id, start_time=start, tags=dict(tags), run_name=tags["mlflow.runName"]
        )
        return _Shown(
            run_id=run.info.run_id, status="RUNNING", tags=dict(tags), params={}, start=start, end=None, points=set()
        )

    def _write_params(self, shown: _Shown, params: Mapping[str, str]) -> None:
        missing = {name: value for name, value in params.items() if shown.params.get(name) != value}
        if missing:
            # The data set first: where the params are there, so is it.
            fields = Dataset(**projection.dataset(params["benchmark.base"]))
            self._client.log_inputs(shown.run_id, [DatasetInput(fields, [InputTag("mlflow.data.context", "training")])])
            self._client.log_batch(shown.run_id, params=[Param(name, value) for name, value in missing.items()])
            shown.params |= missing

    def _points_of(self, shown: _Shown) -> set[tuple[str, int]]:
        """The (metric, step) that are in MLflow."""
        if shown.points is None:
            names = self._client.get_run(shown.run_id).data.metrics
            shown.points = {
                (name, point.step) for name in names for point in self._client.get_metric_history(shown.run_id, name)
            }
        return shown.points

    def _write_points(self, shown: _Shown, points: Sequence[Point]) -> None:
        known = self._points_of(shown)
        missing = [point for point in points if (point.name, point.step) not in known]
        for start in range(0, len(missing), METRICS_PER_CALL):
            chunk = missing[start : start + METRICS_PER_CALL]
            metrics = [Metric(point.name, point.value, point.time, point.step) for point in chunk]
            self._client.log_batch(shown.run_id, metrics=metrics)
            known |= {(point.name, point.step) for point in chunk}

    def _write_tags(self, shown: _Shown, tags: Mapping[str, str]) -> None:
        changed = {name: value for name, value in tags.items() if shown.tags.get(name, "") != value}
        if changed:
            self._client.log_batch(shown.run_id, tags=[RunTag(name, value) for name, value in changed.items()])
            shown.tags |= changed

    def _write_status(self, shown: _Shown, status: str, end: int) -> None:
        if status == "RUNNING" and shown.status != status:
            self._client.update_run(shown.run_id, status=status)
            shown.status, shown.end = status, None
        elif status != "RUNNING" and (shown.status, shown.end) != (status, end):
            self._client.set_terminated(shown.run_id, status, end_time=end)
            shown.status, shown.end = status, end

    def _write_files(self, shown: _Shown, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory(prefix="crwn-artifacts-") as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(shown.run_id, folder)


def _shown(run: Run) -> _Shown:
    return _Shown(
        run_id=run.info.run_id,
        status=run.info.status,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        start=run.info.start_time,
        end=run.info.end_time,
        points=None,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have a number alone
        return str(os.getuid())


def _connect(store: Store, uri: str) -> MlflowClient:
    """A client that has reached its server or database; the database is made where it is missing."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they report every step of making a database
    if not is_database(uri):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        return client
    file = sqlite_file(uri)
    if file is not None and not (file.exists() and file.stat().st_size):
        _make_database(file)
    engine = sqlalchemy.create_engine(uri)
    engine.connect().close()  # MLflow itself tries for minutes
    engine.dispose()
    return MlflowClient(uri)


def _make_database(file: Path) -> None:
    """Make an SQLite database beside its place and move it there: one that is cut off could not be used or mended.

    One process at a time: two that make one database destroy each other's work.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        filelock.FileLock(file.with_name(f".{file.name}.lock")),
        tempfile.TemporaryDirectory(dir=file.parent) as folder,
    ):
        if not (file.exists() and file.stat().st_size):
            made = Path(folder) / file.name
            MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
            made.replace(file)


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn whatever MLflow and what is below it raise into a TrackingError that says what to do."""
    try:
        yield
    except (TrackingError, UserError):
        raise
    except Exception as error:  # MLflow, SQLAlchemy, requests, drivers, the file system
        raise TrackingError(explain(error, uri)) from error
