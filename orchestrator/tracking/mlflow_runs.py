"""Runs in MLflow, as they are there and as they are written. The only file that imports mlflow.

What a run is to show comes from outside (`tracker.py`); what of it is there already is not sent again.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# Before mlflow is imported: nothing is reported to anybody, nothing printed, an outage is noticed within seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else it prints two lines for every run
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from orchestrator.tracking import projection
from orchestrator.tracking.address import artifact_root, database_uri, sqlite_file
from orchestrator.tracking.database import making
from orchestrator.tracking.errors import TrackingError
from orchestrator.tracking.projection import Point

METRICS_PER_CALL = 1000
"""MLflow takes no more."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Has the interface show what belongs to training and not what belongs to prompts."""


@dataclass(slots=True, kw_only=True)
class ShownRun:
    """What is known of a run in MLflow.

    Attributes:
        run_id: MLflow's.
        status: MLflow's.
        tags, params: as they are there.
        start, end: milliseconds since 1970; end is None while it runs.
        points: (metric, step) that are there; None where that was not looked up.
        is_deleted: whether it was deleted, which can be undone.
        seen: what of the store it shows; None where that is not known.
    """

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    start: int
    end: int | None
    points: set[tuple[str, int]] | None
    is_deleted: bool = False
    seen: Any = None


class MlflowRuns:
    """The runs of one store behind one tracking URI. All of it raises what MLflow and what is below it raise.

    Args:
        uri: MLflow's tracking URI; a database that is not there is made.
        identity: the store's, by which its runs are known among others'.
        beside: the folder in which artifacts go into `mlartifacts` where no server keeps them.
    """

    def __init__(self, uri: str, identity: str, beside: Path) -> None:
        self._artifacts = artifact_root(beside, uri)
        self.client = _connect(uri, self._artifacts)
        self._identity = identity

    # What is there

    def experiment_id(self, name: str) -> str:
        """Of the experiment of a name; it is made where it is missing, restored where it was deleted."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            # A name may hold what a path should not; artifacts are found through MLflow, never by this name.
            folder = re.sub(r"[^\w.-]", "_", name)
            location = None if self._artifacts is None else (self._artifacts / folder).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self.client.get_experiment_by_name(name)  # another store's driver was quicker
            assert found is not None
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def search(self, experiment_id: str, sweep: str) -> Iterator[ShownRun]:
        """The store's runs of a sweep, deleted ones too."""
        # MLflow's conditions have no way to write a quote, which a path may hold.
        is_quotable = not {"'", '"'} & set(self._identity)
        condition = f"tags.`crwn.store` = '{self._identity}'" if is_quotable else ""
        token = None
        while True:
            page = self.client.search_runs(
                [experiment_id], condition, run_view_type=ViewType.ALL, max_results=1000, page_token=token
            )
            for run in page:
                if (run.data.tags.get("crwn.store"), run.data.tags.get("crwn.sweep")) == (self._identity, sweep):
                    yield _shown(run)
            token = page.token
            if not token:
                return

    def points(self, shown: ShownRun) -> set[tuple[str, int]]:
        """The (metric, step) that are in MLflow."""
        if shown.points is None:
            names = self.client.get_run(shown.run_id).data.metrics
            shown.points = {
                (name, point.step) for name in names for point in self.client.get_metric_history(shown.run_id, name)
            }
        return shown.points

    # Writing

    def create(self, experiment_id: str, sweep: str, start: int, tags: Mapping[str, str]) -> ShownRun:
        """A new run, which begins at `start`; `mlflow.runName` among its tags is its name."""
        tags = {
            "crwn.store": self._identity,
            "crwn.sweep": sweep,
            "mlflow.user": _user(),
            "mlflow.source.name": "crwn run",
            "mlflow.source.type": "LOCAL",
            **{name: value for name, value in tags.items() if value},
        }
        run = self.client.create_run(experiment_id, start_time=start, tags=tags, run_name=tags["mlflow.runName"])
        return ShownRun(
            run_id=run.info.run_id, status="RUNNING", tags=tags, params={}, start=start, end=None, points=set()
        )

    def delete(self, shown: ShownRun) -> None:
        """Take a run from sight."""
        self.client.delete_run(shown.run_id)
        shown.is_deleted = True

    def restore(self, shown: ShownRun) -> ShownRun:
        """Bring a deleted run back."""
        self.client.restore_run(shown.run_id)
        shown.is_deleted = False
        return shown

    def write_params(self, shown: ShownRun, params: Mapping[str, str]) -> None:
        """Give a run the params that it lacks, and the data set that they name, if they name one.

        One that it has keeps its value, which MLflow never changes: an older crwn may have named it otherwise.
        """
        missing = {name: value for name, value in params.items() if name not in shown.params}
        if "benchmark.base" in missing:
            # The data set first: where the params are there, so is it.
            fields = Dataset(**projection.dataset(params["benchmark.base"]))
            self.client.log_inputs(shown.run_id, [DatasetInput(fields, [InputTag("mlflow.data.context", "training")])])
        if missing:
            self.client.log_batch(shown.run_id, params=[Param(name, value) for name, value in missing.items()])
            shown.params |= missing

    def write_points(self, shown: ShownRun, points: Sequence[Point]) -> None:
        """Give a run the values of metrics that it lacks."""
        known = self.points(shown)
        missing = [point for point in points if (point.name, point.step) not in known]
        for start in range(0, len(missing), METRICS_PER_CALL):
            chunk = missing[start : start + METRICS_PER_CALL]
            metrics = [Metric(point.name, point.value, point.time, point.step) for point in chunk]
            self.client.log_batch(shown.run_id, metrics=metrics)
            known |= {(point.name, point.step) for point in chunk}

    def write_tags(self, shown: ShownRun, tags: Mapping[str, str]) -> None:
        """Give a run the tags that it lacks or has otherwise."""
        changed = {name: value for name, value in tags.items() if shown.tags.get(name, "") != value}
        if changed:
            self.client.log_batch(shown.run_id, tags=[RunTag(name, value) for name, value in changed.items()])
            shown.tags |= changed

    def write_status(self, shown: ShownRun, status: str, end: int) -> None:
        """Say how a run stands, and when it ended where it has."""
        if status == "RUNNING" and shown.status != status:
            self.client.update_run(shown.run_id, status=status)
            shown.status, shown.end = status, None
        elif status != "RUNNING" and (shown.status, shown.end) != (status, end):
            self.client.set_terminated(shown.run_id, status, end_time=end)
            shown.status, shown.end = status, end

    def write_files(self, shown: ShownRun, files: Mapping[str, bytes]) -> None:
        """Write a run's artifacts by their paths, over those that are there."""
        with tempfile.TemporaryDirectory(prefix="crwn-artifacts-") as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.client.log_artifacts(shown.run_id, folder)


def _shown(run: Run) -> ShownRun:
    return ShownRun(
        run_id=run.info.run_id,
        status=run.info.status,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        start=run.info.start_time,
        end=run.info.end_time,
        points=None,
        is_deleted=run.info.lifecycle_stage != "active",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have a number alone
        return str(os.getuid())


def _connect(uri: str, artifacts: Path | None) -> MlflowClient:
    """A client that has reached its server or database; the database is made where it is missing.

    Args:
        uri: the tracking URI.
        artifacts: the folder in which artifacts go; None for a server.
    """
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they report every step of making a database
    if artifacts is None:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        return client
    file = sqlite_file(uri)
    if file is not None:
        _check_read(uri, file)
        with making(file) as made:
            if made is not None:
                _make_tables(database_uri(made), artifacts)
    engine = sqlalchemy.create_engine(uri)
    engine.connect().close()  # MLflow itself tries for minutes
    engine.dispose()
    if file is None:
        _make_tables(uri, artifacts)
    return MlflowClient(uri)


def _check_read(uri: str, file: Path) -> None:
    """See that SQLAlchemy reads an address with escapes as is meant here; releases before 2.1 do not."""
    if "%" in uri and "uri=" not in uri and sqlalchemy.make_url(uri).database != unquote(uri.partition(":///")[2]):
        raise TrackingError(
            f"{file}: expected SQLAlchemy 2.1 for a path with a question mark or a percent sign, found "
            f"{sqlalchemy.__version__}; upgrade it, or name another database with --tracking-uri"
        )


def _make_tables(uri: str, artifacts: Path) -> None:
    """Make MLflow's tables where they are missing.

    A client would do that as well, with its working folder in a statement that some names of folders break.
    """
    made = SqlAlchemyStore(uri, artifacts.as_uri())  # type: ignore[no-untyped-call]  # MLflow leaves it untyped
    made.engine.dispose()
