"""Where MLflow is, and how its address is shown."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from orchestrator.tracking_address import (
    artifact_root,
    default_uri,
    hide_password,
    how_to_open,
    is_database,
    tracking_uri,
)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a server of their own."""
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
