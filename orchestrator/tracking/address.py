"""Where MLflow is: the address of its server or database, and where artifacts go. No MLflow here."""

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
"""Kinds of databases that MLflow writes without a server."""

_SQLITE_SETTINGS = {"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}
"""What may follow the question mark in the address of an SQLite database; all of SQLite's own, where `uri` is on."""


def tracking_uri(runs: Path, given: str | None) -> str:
    """The tracking URI: the one given, $MLFLOW_TRACKING_URI, or a database in the folder that holds the stores.

    Args:
        runs: the folder that holds the stores; all of them share one database.
        given: on the command line.

    Raises:
        UserError: it is the address of an SQLite database and names another file than whoever wrote it meant.
    """
    uri = given or os.environ.get(TRACKING_VARIABLE) or default_uri(runs)
    _check(uri)
    kind, mark, path = uri.partition("://")
    return f"{_DRIVER}{mark}{path}" if kind == "sqlite" and "%" in path.partition("?")[0] else uri


def default_uri(runs: Path) -> str:
    """The database of a folder of stores."""
    return database_uri(runs.absolute() / DATABASE_FILE)


def database_uri(file: Path) -> str:
    """The address of an SQLite database by its full path, escaped where it has what would mean something else."""
    path = str(file)
    if path.isprintable() and not {"?", "%"} & set(path):
        return f"sqlite:///{path}"
    return f"{_DRIVER}:///{quote(path)}"


_DRIVER = "sqlite+pysqlite"
"""SQLite, for addresses with escapes: of those that begin with sqlite:/// MLflow makes the folder, unescaped."""


def _check(uri: str) -> None:
    """See that no path with a question mark, which ends a path, is the address of an SQLite database."""
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
    """What to do to see it: the command for a folder's own database, else the address."""
    uri = tracking_uri(runs, given)
    return shlex.join(["crwn", "ui", _relative(runs)]) if uri == default_uri(runs) else hide_password(uri)


def _relative(path: Path) -> str:
    """A path as short as it can be typed, and not like an option."""
    shown = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    return f"./{shown}" if shown.startswith("-") else shown


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
    kind, _, rest = uri.partition(":///")
    path, _, settings = rest.partition("?")
    path = unquote(path)
    if path.startswith("file:") and "uri" in dict(parse_qsl(settings)):
        path = "" if "mode=memory" in settings else unquote(urlsplit(path).path)
    if kind.split("+")[0] != "sqlite" or path in ("", ":memory:"):
        return None
    return Path(path).absolute()


def artifact_root(runs: Path, uri: str) -> Path | None:
    """Where artifacts go: beside the stores with a database; None with a server, which has a place of its own.

    Absolute: MLflow's default depends on the folder that it is started in, and artifacts get lost.
    """
    return runs.absolute() / ARTIFACT_FOLDER if is_database(uri) else None
