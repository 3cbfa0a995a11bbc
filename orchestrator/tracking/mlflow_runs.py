"""Reads and writes runs in MLflow. The only file that imports mlflow.

The content of a run comes from the caller (`tracker.py`); what MLflow already has is not sent again.
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

# Set before importing mlflow: no telemetry, no printing, and outages are noticed within seconds.
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
"""MLflow's limit."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Makes the interface show what belongs to training, not to prompts."""


@dataclass(slots=True, kw_only=True)
class ShownRun:
    """The known state of a run in MLflow.

    Attributes:
        run_id: MLflow's run id.
        status: MLflow's status.
        tags, params: as stored in MLflow.
        start, end: milliseconds since 1970; end is None while it runs.
        points: (metric, step) of the values in MLflow; None if not looked up.
        is_deleted: whether it was deleted, which can be undone.
        seen: the state of the store that it shows; None if unknown.
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
    """The runs of one store at one tracking URI. All methods raise whatever MLflow and its libraries raise.

    Args:
        uri: MLflow's tracking URI; a missing database is created.
        identity: the store's identity, which distinguishes its runs from other stores'.
        beside: the folder whose `mlartifacts` holds artifacts, unless a server keeps them.
    """

    def __init__(self, uri: str, identity: str, beside: Path) -> None:
        self._artifacts = artifact_root(beside, uri)
        self.client = _connect(uri, self._artifacts)
        self._identity = identity

    # What is there

    def experiment_id(self, name: str) -> str:
        """The id of the experiment with this name, which is created if missing, or restored if deleted."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            # A name may contain characters unfit for paths; artifacts are found through MLflow, never by this name.
            folder = re.sub(r"[^\w.-]", "_", name)
            location = None if self._artifacts is None else (self._artifacts / folder).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self.client.get_experiment_by_name(name)  # another store's driver was first
            assert found is not None
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def search(self, experiment_id: str, sweep: str) -> Iterator[ShownRun]:
        """The store's runs of a sweep, including deleted ones."""
        # MLflow's conditions cannot express quotes, which a path may contain.
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
        """The (metric, step) of all values in MLflow."""
        if shown.points is None:
            names = self.client.get_run(shown.run_id).data.metrics
            shown.points = {
                (name, point.step) for name in names for point in self.client.get_metric_history(shown.run_id, name)
            }
        return shown.points

    # Writing

    def create(self, experiment_id: str, sweep: str, start: int, tags: Mapping[str, str]) -> ShownRun:
        """Create a run that begins at `start`; its name is the tag `mlflow.runName`."""
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
        """Delete a run, which can be undone."""
        self.client.delete_run(shown.run_id)
        shown.is_deleted = True

    def restore(self, shown: ShownRun) -> ShownRun:
        """Restore a deleted run."""
        self.client.restore_run(shown.run_id)
        shown.is_deleted = False
        return shown

    def write_params(self, shown: ShownRun, params: Mapping[str, str]) -> None:
        """Write the params that a run lacks, and the data set that they name, if any.

        Existing params keep their value, which MLflow never changes, even if an older crwn wrote it differently.
        """
        missing = {name: value for name, value in params.items() if name not in shown.params}
        if "benchmark.base" in missing:
            # The data set first, so that it exists if the params do.
            fields = Dataset(**projection.dataset(params["benchmark.base"]))
            self.client.log_inputs(shown.run_id, [DatasetInput(fields, [InputTag("mlflow.data.context", "training")])])
        if missing:
            self.client.log_batch(shown.run_id, params=[Param(name, value) for name, value in missing.items()])
            shown.params |= missing

    def write_points(self, shown: ShownRun, points: Sequence[Point]) -> None:
        """Write the metric values that a run lacks."""
        known = self.points(shown)
        missing = [point for point in points if (point.name, point.step) not in known]
        for start in range(0, len(missing), METRICS_PER_CALL):
            chunk = missing[start : start + METRICS_PER_CALL]
            metrics = [Metric(point.name, point.value, point.time, point.step) for point in chunk]
            self.client.log_batch(shown.run_id, metrics=metrics)
            known |= {(point.name, point.step) for point in chunk}

    def write_tags(self, shown: ShownRun, tags: Mapping[str, str]) -> None:
        """Write the tags that a run lacks or that differ."""
        changed = {name: value for name, value in tags.items() if shown.tags.get(name, "") != value}
        if changed:
            self.client.log_batch(shown.run_id, tags=[RunTag(name, value) for name, value in changed.items()])
            shown.tags |= changed

    def write_status(self, shown: ShownRun, status: str, end: int) -> None:
        """Write a run's status, and its end if it has ended."""
        if status == "RUNNING" and shown.status != status:
            self.client.update_run(shown.run_id, status=status)
            shown.status, shown.end = status, None
        elif status != "RUNNING" and (shown.status, shown.end) != (status, end):
            self.client.set_terminated(shown.run_id, status, end_time=end)
            shown.status, shown.end = status, end

    def write_files(self, shown: ShownRun, files: Mapping[str, bytes]) -> None:
        """Write a run's artifacts by path, overwriting existing ones."""
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
    except (KeyError, OSError):  # in a container, a user may have only a number
        return str(os.getuid())


def _connect(uri: str, artifacts: Path | None) -> MlflowClient:
    """A client that has reached its server or database; a missing database is created.

    Args:
        uri: the tracking URI.
        artifacts: the folder of artifacts; None for a server.
    """
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they log every step of creating a database
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
    engine.connect().close()  # MLflow itself would retry for minutes
    engine.dispose()
    if file is None:
        _make_tables(uri, artifacts)
    return MlflowClient(uri)


def _check_read(uri: str, file: Path) -> None:
    """Check that SQLAlchemy unescapes addresses, which releases before 2.1 do not."""
    if "%" in uri and "uri=" not in uri and sqlalchemy.make_url(uri).database != unquote(uri.partition(":///")[2]):
        raise TrackingError(
            f"{file}: expected SQLAlchemy 2.1 for a path with a question mark or a percent sign, found "
            f"{sqlalchemy.__version__}; upgrade it, or name another database with --tracking-uri"
        )


def _make_tables(uri: str, artifacts: Path) -> None:
    """Create MLflow's tables if they are missing.

    A client would do so too, but with its working folder in a statement that some folder names break.
    """
    made = SqlAlchemyStore(uri, artifacts.as_uri())  # type: ignore[no-untyped-call]  # MLflow leaves it untyped
    made.engine.dispose()
