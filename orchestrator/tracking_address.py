"""Where MLflow is: the address of its server or database, and where artifacts go. No MLflow here."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

DATABASE_FILE, ARTIFACT_FOLDER = "mlflow.db", "mlartifacts"

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Kinds of databases that MLflow writes without a server."""


def tracking_uri(runs: Path, given: str | None) -> str:
    """The tracking URI: the one given, $MLFLOW_TRACKING_URI, or a database in the folder that holds the stores.

    Args:
        runs: the folder that holds the stores; all of them share one database.
        given: on the command line.
    """
    return given or os.environ.get(TRACKING_VARIABLE) or default_uri(runs)


def default_uri(runs: Path) -> str:
    """The database of a folder of stores."""
    return f"sqlite:///{runs.absolute() / DATABASE_FILE}"


def how_to_open(runs: Path, given: str | None) -> str:
    """What to do to see it: the command for a folder's own database, else the address."""
    uri = tracking_uri(runs, given)
    return shlex.join(["crwn", "ui", _relative(runs)]) if uri == default_uri(runs) else hide_password(uri)


def _relative(path: Path) -> str:
    """A path as short as it can be typed."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def hide_password(uri: str) -> str:
    """A URI as it may be shown, or a text with URIs in it."""
    return _PASSWORD.sub(_without_password, uri)


_PASSWORD = re.compile(
    r"(://[^:/@\s]*):\S*@|([?&][^=&\s]*(?:passw|pwd|secret|token|key|credential|signature|odbc_connect)[^=&\s]*=)[^&\s]*",
    re.IGNORECASE,
)


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}:***@" if found[1] else f"{found[2]}***"


def is_database(uri: str) -> bool:
    """Whether a URI names a database, which is written directly, and not a server."""
    return re.split("[:+]", uri)[0] in DATABASES


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database; None for any other address, and for a database in memory."""
    kind, _, path = uri.partition(":///")
    if kind.split("+")[0] != "sqlite" or not path or path.startswith(":memory:"):
        return None
    return Path(path.partition("?")[0]).absolute()


def artifact_root(runs: Path, uri: str) -> Path | None:
    """Where artifacts go: beside the stores with a database; None with a server, which has a place of its own.

    Absolute: MLflow's default depends on the folder that it is started in, and artifacts get lost.
    """
    return runs.absolute() / ARTIFACT_FOLDER if is_database(uri) else None
