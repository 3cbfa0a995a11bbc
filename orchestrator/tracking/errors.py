"""Errors of MLflow, explained with advice. Does not import MLflow."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.tracking.address import hide_password

MAX_DETAIL = 300
"""Number of characters shown of the original error."""


class TrackingError(Exception):
    """MLflow cannot be written; the message says why and what to do."""


def explain(error: Exception, uri: str) -> str:
    """What went wrong with MLflow at `uri`, and what to do; without the address's password."""
    shown = hide_password(uri)
    host = uri.partition("://")[2].partition("/")[0].rpartition("@")[2]  # urlsplit raises for invalid addresses
    text = hide_password(f"{type(error).__name__}: {error}")
    code = getattr(error, "error_code", "")
    for pattern, advice in _ADVICE:
        if re.search(pattern, f"{code} {text}"):
            return f"{advice.format(uri=shown, host=host)} ({_first_line(text)})"
    return f"MLflow at {shown} cannot be written: {_first_line(text)}"


_ADVICE: Sequence[tuple[str, str]] = (
    (
        "Invalid Host header",
        "the MLflow server at {uri} refuses its own name; start it with --allowed-hosts '{host},localhost:*'",
    ),
    (
        "PERMISSION_DENIED|UNAUTHENTICATED|error code 40[13]",
        "the MLflow server at {uri} refuses access; set $MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN",
    ),
    (
        "out-of-date database schema|Can't locate revision",
        "{uri} is of another MLflow version; run `mlflow db upgrade` on a copy, or move it away and crwn sync again",
    ),
    (
        "file is not a database",
        "{uri} is not a database; name another with --tracking-uri, or move it away and crwn sync a new one",
    ),
    (
        "maintenance mode",
        "MLflow no longer writes folders such as {uri}; give a database (sqlite:///mlflow.db) or a server",
    ),
    (
        "No module named",
        "the driver for {uri} is not installed; for PostgreSQL: pip install 'psycopg[binary]'",
    ),
    (
        "ModelRegistryStoreURI|unsupported URI|Could not parse|Can't load plugin|InvalidUrl|Invalid IPv6|ArgumentError",
        "{uri} is no address of MLflow's; give a server (http://HOST:5000) or a database (sqlite:///mlflow.db)",
    ),
    (
        "ENDPOINT_NOT_FOUND|not in a valid JSON format|error code 404",
        "what answers at {uri} is no MLflow server; check host, port and path",
    ),
    (
        "PermissionError|NotADirectory|FileNotFound|Read-only file|FileExistsError|unable to open database|readonly",
        "MLflow at {uri}: the database's or the artifacts' folder cannot be written; name another with --tracking-uri",
    ),
    (
        "too many 500|error code 500",
        "the MLflow server at {uri} fails; see what its log says",
    ),
    (
        "Max retries exceeded|[Cc]onnection refused|ConnectionError|timed out|Timeout|OperationalError",
        "MLflow at {uri} does not answer; see that it runs there and can be reached from this machine",
    ),
)
"""Patterns of errors and advice; the first match counts."""


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "unknown error"
    return line if len(line) <= MAX_DETAIL else line[:MAX_DETAIL] + "..."
