"""MLflow addresses: its server or database, and its artifacts. Does not import MLflow."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from orchestrator.display import hide_password
from orchestrator.errors import UserError

DATABASE_FILE, ARTIFACT_FOLDER = "mlflow.db", "mlartifacts"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"

VIEW = "mlflow.sharedViewState."
"""Begins the tags of an experiment that hold MLflow's shared views; the rest is the view's key in an address."""


class TrackingError(UserError):
    """MLflow cannot be written; the message says why and what to do."""


def tracking_uri(runs: Path, given: str | None) -> str:
    """The tracking URI: the given one, $MLFLOW_TRACKING_URI, or a database in the folder of the stores.

    Args:
        runs: the folder of the stores, which share one database.
        given: the URI on the command line.

    Raises:
        UserError: the text after a question mark is the end of a path, so the database would be created elsewhere.
    """
    uri = given or os.environ.get(TRACKING_VARIABLE) or default_uri(runs)
    kind, mark, path = uri.partition("://")
    if kind.startswith("sqlite") and "/" in path.partition("?")[2]:
        how = "expected settings after ?; in a path, write %3F for it, and %25 for a percent sign."
        raise UserError("question-mark-in-path", f"{hide_password(uri)}: {how}")
    return f"{_DRIVER}{mark}{path}" if kind == "sqlite" and "%" in path.partition("?")[0] else uri


def default_uri(runs: Path) -> str:
    """The address of the database of a folder of stores."""
    return database_uri(runs.absolute() / DATABASE_FILE)


def database_uri(file: Path) -> str:
    """The address of an SQLite database from its full path, with special characters escaped."""
    path = str(file)
    if path.isprintable() and not {"?", "%"} & set(path):
        return f"sqlite:///{path}"
    return f"{_DRIVER}:///{quote(path)}"


_DRIVER = "sqlite+pysqlite"
"""SQLite for addresses with escapes: for addresses with sqlite:///, MLflow creates the folder without unescaping."""


def is_database(uri: str) -> bool:
    """Whether a URI names a database, which is written directly, rather than a server."""
    return re.split("[:+]", uri)[0] in ("sqlite", "postgresql", "mysql", "mssql")


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database; None for any other address, and for an in-memory database."""
    kind, _, rest = uri.partition(":///")
    path, _, settings = rest.partition("?")
    path = unquote(path)
    if path.startswith("file:") and "uri" in dict(parse_qsl(settings)):
        path = "" if "mode=memory" in settings else unquote(urlsplit(path).path)
    if kind.split("+")[0] != "sqlite" or path in ("", ":memory:"):
        return None
    return Path(path).absolute()


def artifact_root(runs: Path, uri: str) -> Path | None:
    """The full path of artifacts: next to the stores with a database; None with a server, which has its own."""
    return runs.absolute() / ARTIFACT_FOLDER if is_database(uri) else None
