"""Connecting to MLflow: its database is created completely, by one process at a time; errors say what to do."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest

from crwn.testing import tiny_trial, write_finished, write_sweep
from orchestrator.store.store import Store
from orchestrator.tracking import connecting
from orchestrator.tracking.address import TrackingError
from orchestrator.tracking.connecting import MAX_DETAIL, explain, make_database
from orchestrator.tracking.tracker import Tracker

Complain = Callable[[str], str]


@pytest.fixture
def complain(store: Store) -> Complain:
    """What is said when a store is to be shown at an address; never with the password."""

    def ask(uri: str) -> str:
        with pytest.raises(TrackingError) as raised:
            Tracker(store, uri)
        said = str(raised.value)
        assert "secret" not in said
        assert len(said.splitlines()) == 1
        assert len(said) < 3 * MAX_DETAIL
        return said

    return ask


@pytest.fixture(scope="module")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's own version."""
    folder = tmp_path_factory.mktemp("database")
    made = Store(folder / "store")
    made.create()
    Tracker(made, f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts servers that answer everything alike; gives their address, with a user and a password."""
    servers = []

    def start(status: int, body: str, kind: str = "text/plain") -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://user:secret@127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def shown(uri: str) -> str:
    return uri.replace("secret", "***")


# Servers


def test_a_server_that_refuses_its_own_name(serve: Callable[..., str], complain: Complain) -> None:
    """MLflow answers only to the names it knows, to which ports belong; the advice has the name that was used."""
    uri = serve(403, "Invalid Host header - possible DNS rebinding attack detected")
    host = uri.rpartition("@")[2]
    assert complain(uri).startswith(
        f"{shown(uri)} refuses requests under this host name; start the server with "
        f"--allowed-hosts '{host},localhost:*' ("
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, "You are not authenticated. Please see the documentation"),
        (403, "Permission denied"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}'),
        (401, '{"error_code": "UNAUTHENTICATED", "message": "who?"}'),
    ],
)
def test_a_server_that_refuses_access(serve: Callable[..., str], complain: Complain, status: int, body: str) -> None:
    """MLflow's own and a proxy's, which does not speak JSON."""
    uri = serve(status, body)
    assert complain(uri).startswith(
        f"{shown(uri)} refuses access; set $MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN ("
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "<html>nothing here</html>"),
        (404, '{"error_code": "ENDPOINT_NOT_FOUND", "message": "no"}'),
        (200, "<html>a start page</html>"),
    ],
)
def test_what_is_no_mlflow_server(serve: Callable[..., str], complain: Complain, status: int, body: str) -> None:
    """Some other server at that port, or a path too much."""
    uri = serve(status, body, "text/html")
    assert complain(uri).startswith(f"the server at {shown(uri)} is not MLflow; check host, port and path (")


@pytest.mark.parametrize("body", ["an error", '{"error_code": "INTERNAL_ERROR", "message": "the disk is full"}'])
def test_a_server_that_fails(serve: Callable[..., str], complain: Complain, body: str) -> None:
    """It responds, so the error does not claim otherwise."""
    uri = serve(500, body)
    assert complain(uri).startswith(f"the MLflow server at {shown(uri)} fails; see its log (")


def test_a_server_that_is_not_there(complain: Complain) -> None:
    """Nothing listens at the port."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{held.getsockname()[1]}"
        assert complain(uri).startswith(
            f"MLflow at {shown(uri)} does not answer; check that it runs and can be reached from this machine ("
        )


def test_a_host_that_does_not_exist(complain: Complain) -> None:
    """A name reserved for having no address."""
    assert complain("http://user:secret@nowhere.invalid:5000").startswith(
        "MLflow at http://user:***@nowhere.invalid:5000 does not answer; check that it runs"
    )


# Databases


def test_a_database_server_that_is_not_there(complain: Complain) -> None:
    """PostgreSQL's driver is asked before MLflow, which tries for minutes."""
    pytest.importorskip("psycopg")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        assert complain(f"postgresql+psycopg://user:secret@127.0.0.1:{port}/name").startswith(
            f"MLflow at postgresql+psycopg://user:***@127.0.0.1:{port}/name does not answer; check that it runs"
        )


@pytest.mark.parametrize("version", ["451aebb31d03", "fffffffffff0"])
def test_a_database_of_another_version(tmp_path: Path, mlflow_database: Path, complain: Complain, version: str) -> None:
    """An older MLflow's, and one that this MLflow does not know; it is left as it is."""
    path = tmp_path / "other.db"
    shutil.copy(mlflow_database, path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = ?", [version])
    connection.commit()
    connection.close()
    before = path.read_bytes()
    said = complain(f"sqlite:///{path}")
    assert said.startswith(
        f"sqlite:///{path} is not a database of this MLflow version; `mlflow db upgrade` a copy, or move it"
    )
    assert version in said
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path, complain: Complain) -> None:
    """It belongs to somebody, and is left unchanged."""
    path = tmp_path / "thesis.db"
    path.write_bytes(b"chapter one " * 1000)
    assert complain(f"sqlite:///{path}").startswith(
        f"sqlite:///{path} is not a database of this MLflow version; `mlflow db"
    )
    assert path.read_bytes() == b"chapter one " * 1000


@pytest.mark.parametrize("place", ["file/mlflow.db", "folder"])
def test_a_database_that_cannot_be_made(tmp_path: Path, complain: Complain, place: str) -> None:
    """Below a file, in the place of a folder."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    uri = f"sqlite:///{tmp_path}/{place}"
    assert complain(uri).startswith(f"{uri}: the database's or the artifacts' folder cannot be written; name another")


def test_artifacts_that_cannot_be_written(store: Store, mlflow_database: Path, tmp_path: Path) -> None:
    """A file where their folder should be."""
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    (tmp_path / "mlartifacts").touch()
    write_finished(store, tiny_trial())
    write_sweep(store, [tiny_trial()])
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(store, uri)
    with pytest.raises(TrackingError) as raised:
        tracker.sync(store.manifest("small"), driven=False)
    said = str(raised.value)
    assert said.startswith(f"{uri}: the database's or the artifacts' folder cannot be written; name another")
    assert "mlartifacts" in said


# Addresses


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_no_longer_written(complain: Complain, uri: str) -> None:
    """MLflow's oldest way of keeping runs."""
    assert complain(uri).startswith(
        f"{uri} is not an address of MLflow; give a server (http://HOST:5000) or a database"
    )
    assert not Path("/tmp/mlruns").exists()  # noqa: S108 (named, not used)


@pytest.mark.parametrize(
    "uri", ["foo://user:secret@bar", "mysql+foo://user:secret@bar/name", "http://[bar", "sqlite://user:secret@bar/name"]
)
def test_what_is_no_address(complain: Complain, uri: str) -> None:
    """A scheme nobody knows, a driver nobody knows, and slips of the pen."""
    assert complain(uri).startswith(
        f"{shown(uri)} is not an address of MLflow; give a server (http://HOST:5000) or a database (sqlite:///mlflow.db)"
    )


@pytest.mark.parametrize("scheme", ["mysql", "mssql"])
def test_a_driver_that_is_not_installed(complain: Complain, scheme: str) -> None:
    """The error names the module that is missing."""
    said = complain(f"{scheme}://user:secret@server/name")
    assert said.startswith(f"the driver for {scheme}://user:***@server/name is not installed; for PostgreSQL: pip ")
    assert "ModuleNotFoundError: " in said


# Making a database

LOCK = ".mlflow.db.lock"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a database is to be."""
    return tmp_path / "runs" / "mlflow.db"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses at which databases were made, without MLflow, which takes seconds."""
    uris: list[str] = []

    def make(uri: str, _: Path) -> None:
        uris.append(uri)
        path = Path(uri.removeprefix("sqlite:///"))
        path.write_text("a database")
        path.with_name("mlflow.db-journal").touch()

    monkeypatch.setattr(connecting, "_make_tables", make)
    return uris


def names(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir())


def test_a_database_gets_its_place_when_it_is_made(file: Path, made: list[str]) -> None:
    """The temporary folder is then gone, and it is not created again; an empty file does not count as a database."""
    file.parent.mkdir()
    file.touch()
    for _ in range(2):
        make_database(file, file.parent)
        assert file.read_text() == "a database"
        assert names(file) == [LOCK, "mlflow.db"]
    assert len(made) == 1
    assert made != [f"sqlite:///{file}"]


def test_one_that_cannot_be_made_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one tries again."""

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(connecting, "_make_tables", fail)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            make_database(file, file.parent)
        assert names(file) == [LOCK]


def test_what_a_killed_process_left_is_cleared(file: Path, made: list[str]) -> None:
    """By the next that makes it; folders of anybody else stay."""
    left = file.parent / ".mlflow.db.making"
    left.mkdir(parents=True)
    (left / "mlflow.db").write_text("half of one")
    (file.parent / "mine").mkdir()
    make_database(file, file.parent)
    assert file.read_text() == "a database"
    assert names(file) == [LOCK, "mine", "mlflow.db"]
    assert len(made) == 1


def test_two_that_make_one_database_wait_for_each_other(file: Path, made: list[str]) -> None:
    """The second finds it made."""
    file.parent.mkdir()
    with filelock.FileLock(file.with_name(LOCK)):
        second = threading.Thread(target=make_database, args=[file, file.parent])
        second.start()
        file.write_text("another's")
    second.join()
    assert made == []
    assert file.read_text() == "another's"


# Words


def test_an_error_nobody_thought_of_is_said_as_it_is() -> None:
    """Its first line, without the rest of a page and without the password, whatever it is."""
    uri = "http://user:secret@server"
    said = explain(RuntimeError(f"odd, at {uri}\nand much more"), uri)
    assert said == "MLflow at http://user:***@server cannot be written: RuntimeError: odd, at http://user:***@server"
    assert explain(RuntimeError(), uri) == "MLflow at http://user:***@server cannot be written: RuntimeError:"


def test_a_long_error_is_cut() -> None:
    """A server may answer with a page."""
    said = explain(RuntimeError("x" * 5000), "http://server")
    assert said == f"MLflow at http://server cannot be written: RuntimeError: {'x' * (MAX_DETAIL - 14)}..."


def test_an_address_with_braces_is_no_template() -> None:
    """Addresses are shown as typed."""
    assert "foo://{host}{}" in explain(RuntimeError("unsupported URI"), "foo://{host}{}")


def test_nothing_is_reported_to_anybody() -> None:
    """MLflow's telemetry is off, and an outage is noticed within seconds, from the first import on."""
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 1
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 15
