"""MLflow's address, and how it is shown."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
import sqlalchemy

from orchestrator.cli.shown import how_to_open
from orchestrator.display import hide_password
from orchestrator.errors import UserError
from orchestrator.tracking.address import (
    artifact_root,
    default_uri,
    is_database,
    sqlite_file,
    tracking_uri,
)
from tests.refusals import refused


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests may name a server."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_address_is_the_one_given_or_the_environments_or_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order; an empty one is none."""
    runs = Path("/data/runs")
    assert tracking_uri(runs, None) == "sqlite:////data/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri(runs, "") == "sqlite:////data/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri(runs, None) == "http://server:5000"
    assert tracking_uri(runs, "http://given:5000") == "http://given:5000"


def test_the_default_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a full path, however the folder was named."""
    monkeypatch.chdir(tmp_path)
    assert default_uri(Path("runs")) == default_uri(tmp_path / "runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_a_folders_own_database_is_opened_with_crwn_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command can be pasted: short where the folder is below this one, and quoted where it has to be."""
    monkeypatch.chdir(tmp_path)
    assert how_to_open(tmp_path / "runs", None) == "crwn ui runs"
    assert how_to_open(Path("runs"), None) == "crwn ui runs"
    assert how_to_open(tmp_path, None) == "crwn ui ."
    assert how_to_open(Path("/data/runs"), None) == "crwn ui /data/runs"
    assert how_to_open(tmp_path / "my runs", default_uri(tmp_path / "my runs")) == "crwn ui 'my runs'"
    assert shlex.split(how_to_open(tmp_path / "it's", None)) == ["crwn", "ui", "it's"]


def test_any_other_address_is_shown_without_its_password(tmp_path: Path) -> None:
    """A server has an interface of its own."""
    assert how_to_open(tmp_path, "http://server:5000") == "http://server:5000"
    assert how_to_open(tmp_path, "http://user:secret@server:5000") == "http://user:***@server:5000"


NASTY = [
    "a?b", "a%20b", "a%3Fb", "a%25b", "100%", "a#b", "a&b", "a;b", "a=b", "a+b", "a b", " a", "a:b", "a@b",
    "it's", 'say "a"', """q'uote"s""", "a\\b", "a\nb", "a\tb", "a\u00a0b", "ä",
    "中文", "🙂", "a*b", "[a]", "{a}", "$a", "~", "!a", "me:pw@host",
    "a?x=1&timeout=5", "a?uri=true", "file:a", ":memory:", "sqlite:", "a//b", "-a", "%", "?", "a|b", "`a`", "<a>",
]  # fmt: skip
"""Names of folders with signs that addresses, SQL or shells give a meaning."""


@pytest.mark.parametrize("name", NASTY)
def test_a_database_is_where_its_folder_is(name: str) -> None:
    """Whatever the folder is called: as this project reads the address, and as SQLAlchemy does, which opens it."""
    for runs in (Path("/data", name, "runs"), Path("/data", name)):
        uri = default_uri(runs)
        assert uri.isprintable()
        assert is_database(uri)
        assert sqlite_file(uri) == runs / "mlflow.db"
        assert sqlalchemy.make_url(uri).database == str(runs / "mlflow.db")
        assert sqlalchemy.make_url(uri).query == {}
        assert tracking_uri(runs, None) == uri
        assert tracking_uri(runs, uri) == uri
        assert shlex.split(how_to_open(runs, None)) == ["crwn", "ui", str(runs)]


@pytest.mark.parametrize("name", NASTY)
def test_mlflow_does_not_take_an_escaped_path_for_a_path(name: str) -> None:
    """It makes the parent of what follows sqlite:///, as it is written there."""
    folder = Path("/data", name)
    uri = default_uri(folder)
    assert not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).parent == folder


@pytest.mark.parametrize("name", NASTY)
def test_artifacts_are_where_their_folder_is(name: str) -> None:
    """The two standard functions are MLflow's way back from an address to a path."""
    uri = (Path("/data", name) / "mlartifacts").as_uri()
    assert url2pathname(urlparse(uri).path) == str(Path("/data", name) / "mlartifacts")
    assert not {"'", '"', "\\", "?", "#", " "} & set(uri)


def test_ordinary_databases_keep_their_addresses() -> None:
    """With signs that mean nothing there, too."""
    for path in ("/data/runs", "/data/my runs", "/data/it's", "/data/a#b", "/data/ä"):
        assert default_uri(Path(path)) == f"sqlite:///{path}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:///runs/my%20runs.db", "runs/my runs.db"),
        ("sqlite+pysqlite:////data/a%3Fb.db?timeout=60", "/data/a?b.db"),
        ("sqlite:///file:/data/a%253Fb.db?uri=true&mode=rw", "/data/a?b.db"),
        ("sqlite:///file:x?mode=memory&uri=true", None),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("postgresql:///name", None),
        ("http://server/a", None),
    ],
)
def test_the_file_of_an_address_is_known(
    uri: str, file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path begins in the working folder; a database in memory or on a server has none."""
    monkeypatch.chdir(tmp_path)
    assert sqlite_file(uri) == (None if file is None else tmp_path / file)


@pytest.mark.parametrize("uri", ["sqlite:////data/a?b/mlflow.db", "sqlite:///a?b=c/mlflow.db"])
def test_an_address_that_ends_in_the_middle_of_a_path_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy would write the file before the question mark; the refusal says how to write one."""
    for given in (uri, None):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with refused(UserError, "question-mark-in-path", says="%3F"):
            tracking_uri(Path("/data/runs"), given)


def test_escapes_are_told_from_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """An escaped address is passed to MLflow so that it creates no folder named after the escapes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////data/a%20b/mlflow.db?timeout=5")
    assert tracking_uri(Path("/data"), None) == "sqlite+pysqlite:////data/a%20b/mlflow.db?timeout=5"
    assert tracking_uri(Path("/data"), "sqlite:////data/a b.db?timeout=5") == "sqlite:////data/a b.db?timeout=5"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:secret@server:5000/mlflow", "http://user:***@server:5000/mlflow"),
        ("postgresql+psycopg://user:secret@server/name", "postgresql+psycopg://user:***@server/name"),
        ("postgresql://user:sec/ret@server/name", "postgresql://user:***@server/name"),
        ("http://user:sec@ret@server", "http://user:***@server"),
        ("http://:secret@server", "http://:***@server"),
        ("postgresql://server/name?user=me&password=secret&sslmode=require",
         "postgresql://server/name?user=me&password=***&sslmode=require"),
        ("at http://user:secret@server/a failed; at http://user:secret@server/b too",
         "at http://user:***@server/a failed; at http://user:***@server/b too"),
        ("http://user@server:5000", "http://user@server:5000"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////data/runs/mlflow.db", "sqlite:////data/runs/mlflow.db"),
        ("no address at all: a@b", "no address at all: a@b"),
    ],
)  # fmt: skip
def test_a_password_is_never_shown(uri: str, shown: str) -> None:
    """Also where it holds signs that should have been escaped, and in the middle of a message."""
    assert hide_password(uri) == shown


@pytest.mark.parametrize(
    ("uri", "is_one"),
    [
        ("sqlite:////data/mlflow.db", True),
        ("postgresql://server/name", True),
        ("postgresql+psycopg://server/name", True),
        ("mysql+pymysql://server/name", True),
        ("mssql://server/name", True),
        ("http://server:5000", False),
        ("https://server", False),
        ("databricks", False),
        ("./mlruns", False),
        ("http://[broken", False),
        ("", False),
    ],
)
def test_a_database_is_known_by_its_scheme(uri: str, *, is_one: bool) -> None:
    """It is written directly; whatever else there is, MLflow's client may know. None raises."""
    assert is_database(uri) == is_one


def test_artifacts_lie_beside_the_stores_unless_there_is_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full path, since MLflow's own default depends on the folder that it is started in; a server keeps them."""
    monkeypatch.chdir(tmp_path)
    for uri in ("sqlite:///elsewhere.db", "postgresql://server/name"):
        assert artifact_root(Path("runs"), uri) == tmp_path / "runs" / "mlartifacts"
    assert artifact_root(Path("runs"), "http://server:5000") is None
