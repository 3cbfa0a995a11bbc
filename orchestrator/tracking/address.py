"""Addresses of MLflow: its server or database, and the place of artifacts. Does not import MLflow."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from orchestrator.errors import UserError

DATABASE_FILE, ARTIFACT_FOLDER = "mlflow.db", "mlartifacts"

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Databases that MLflow can write without a server."""

_SQLITE_SETTINGS = {"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}
"""Options after the question mark in the address of an SQLite database; with `uri`, all of SQLite's own as well."""


def tracking_uri(runs: Path, given: str | None) -> str:
    """The tracking URI: the given one, $MLFLOW_TRACKING_URI, or a database in the folder of the stores.

    Args:
        runs: the folder of the stores, which share one database.
        given: the URI on the command line.

    Raises:
        UserError: it is the address of an SQLite database that probably names a different file than intended.
    """
    uri = given or os.environ.get(TRACKING_VARIABLE) or default_uri(runs)
    _check(uri)
    kind, mark, path = uri.partition("://")
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


def _check(uri: str) -> None:
    """Check that the address of an SQLite database has no question mark in its path, where it would end the path."""
    kind, _, rest = uri.partition(":///")
    settings = dict(parse_qsl(rest.partition("?")[2], keep_blank_values=True))
    if kind not in ("sqlite", _DRIVER) or "uri" in settings or settings.keys() <= _SQLITE_SETTINGS:
        return
    name = min(settings.keys() - _SQLITE_SETTINGS)
    raise UserError(
        f"--tracking-uri or ${TRACKING_VARIABLE}: expected a database's address with settings after its question mark, "
        f"given {hide_password(uri)}, where {name!r} is none. In a path, write %3F for a question mark and %25 for a "
        "percent sign"
    )


def how_to_open(runs: Path, given: str | None) -> str:
    """How to view it: the command for a folder's own database, else the address."""
    uri = tracking_uri(runs, given)
    return shlex.join(["crwn", "ui", _relative(runs)]) if uri == default_uri(runs) else hide_password(uri)


def _relative(path: Path) -> str:
    """A path as short as possible for typing, but not looking like an option."""
    shown = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    return f"./{shown}" if shown.startswith("-") else shown


def hide_password(uri: str) -> str:
    """A URI, or a text with URIs, without passwords."""
    return _PASSWORD.sub(_without_password, uri)


_PASSWORD = re.compile(
    r"(://[^:/@\s]*):\S*@|([?&][^=&\s]*(?:passw|pwd|secret|token|key|credential|signature|odbc_connect)[^=&\s]*=)[^&\s]*",
    re.IGNORECASE,
)


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}:***@" if found[1] else f"{found[2]}***"


def is_database(uri: str) -> bool:
    """Whether a URI names a database, which is written directly, rather than a server."""
    return re.split("[:+]", uri)[0] in DATABASES


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
    """The folder of artifacts: next to the stores with a database; None with a server, which has its own place.

    It is absolute: MLflow's default depends on the folder that it is started in, which loses artifacts.
    """
    return runs.absolute() / ARTIFACT_FOLDER if is_database(uri) else None
