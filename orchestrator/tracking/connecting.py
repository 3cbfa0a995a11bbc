"""MLflow's client for an address, whose database is created if missing, and explanations of its errors.

The only file that imports mlflow, so that its settings are made first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

# Set before importing mlflow: no telemetry, no printing, and outages are noticed within seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else it prints two lines for every run
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")

import filelock
import sqlalchemy
from mlflow import MlflowClient, entities
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from crwn.faults import Fault
from orchestrator.display import hide_password
from orchestrator.errors import UserError, shortened
from orchestrator.tracking.address import TrackingError, database_uri, sqlite_file

__all__ = ["connect", "entities", "explained"]

MAX_DETAIL = 300
"""Number of characters shown of the original error."""


def connect(uri: str, artifacts: Path | None) -> MlflowClient:
    """A client that has reached its database, if there is a folder of artifacts, or else its server."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they log every step of creating a database
    if artifacts is None:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        return client
    file = sqlite_file(uri)
    if file is not None:
        make_database(file, artifacts)
    sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect().close()  # MLflow would retry for minutes
    if file is None:
        _make_tables(uri, artifacts)
    return MlflowClient(uri)


def make_database(file: Path, artifacts: Path) -> None:
    """Create an SQLite database if it is missing, atomically and by one process at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = file.with_name(f".{file.name}.making")
    with filelock.FileLock(file.with_name(f".{file.name}.lock")):
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process: an incomplete database cannot be repaired
        if file.exists() and file.stat().st_size:
            return
        folder.mkdir()
        try:
            _make_tables(database_uri(folder / file.name), artifacts)
            (folder / file.name).replace(file)
        finally:
            shutil.rmtree(folder)


def _make_tables(uri: str, artifacts: Path) -> None:
    """Create MLflow's tables if they are missing.

    A client would do so too, but with its working folder in a statement that some folder names break.
    """
    made = SqlAlchemyStore(uri, artifacts.as_uri())  # type: ignore[no-untyped-call]  # MLflow leaves it untyped
    made.engine.dispose()


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn whatever MLflow and its libraries raise into a TrackingError with advice."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy, requests, drivers, the file system
        raise TrackingError.of([explain(error, uri)]) from error


def explain(error: Exception, uri: str) -> Fault:
    """What went wrong with MLflow at `uri`, and what to do, without the address's password."""
    shown = hide_password(uri)
    host = uri.partition("://")[2].partition("/")[0].rpartition("@")[2]  # urlsplit raises for invalid addresses
    text = hide_password(f"{type(error).__name__}: {error}").strip()
    detail = shortened(text.splitlines()[0], MAX_DETAIL)
    for code, (pattern, advice) in _ADVICE.items():
        if re.search(pattern, f"{getattr(error, 'error_code', '')} {text}"):
            return Fault(code, f"{advice.format(uri=shown, host=host)} ({detail})")
    return Fault("tracking-failed", f"MLflow at {shown} cannot be written: {detail}")


_ADVICE: Mapping[str, tuple[str, str]] = {
    "host-refused": (
        "Invalid Host header",
        "{uri} refuses requests under this host name; start the server with --allowed-hosts '{host},localhost:*'",
    ),
    "access-denied": (
        "PERMISSION_DENIED|UNAUTHENTICATED|error code 40[13]",
        "{uri} refuses access; set $MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN",
    ),
    "database-of-another-version": (
        "out-of-date database schema|Can't locate revision|file is not a database",
        "{uri} is not a database of this MLflow version; `mlflow db upgrade` a copy, or move it away and crwn sync",
    ),
    "driver-missing": (
        "No module named",
        "the driver for {uri} is not installed; for PostgreSQL: pip install 'psycopg[binary]'",
    ),
    "tracking-address-invalid": (
        "maintenance mode|RegistryStoreURI|unsupported URI|Could not parse|load plugin|InvalidUrl|IPv6|ArgumentError",
        "{uri} is not an address of MLflow; give a server (http://HOST:5000) or a database (sqlite:///mlflow.db)",
    ),
    "not-an-mlflow-server": (
        "ENDPOINT_NOT|JSON format|code 404",
        "the server at {uri} is not MLflow; check host, port and path",
    ),
    "folder-not-writable": (
        "PermissionError|NotADirectory|FileNotFound|Read-only file|FileExistsError|unable to open database|readonly",
        "{uri}: the database's or the artifacts' folder cannot be written; name another with --tracking-uri",
    ),
    "server-failed": ("too many 500|error code 500", "the MLflow server at {uri} fails; see its log"),
    "tracking-unreachable": (
        "Max retries exceeded|[Cc]onnection refused|ConnectionError|timed out|Timeout|OperationalError",
        "MLflow at {uri} does not answer; check that it runs and can be reached from this machine",
    ),
}
"""Patterns of errors, and advice, by code; the first match counts."""
