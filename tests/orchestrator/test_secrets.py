"""Passwords, keys and tokens are in nothing that a command prints or writes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.cluster import dashboard
from orchestrator.display import hide_password
from orchestrator.execution import running
from tests.orchestrator.cluster.made_up import STORE, URL, Cluster
from tests.orchestrator.conftest import TINY
from tests.ports import free_port

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err
SweepFile = Callable[..., Path]

SECRET = "xyzzy-never-seen"  # noqa: S105 (planted, to be looked for)

VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
    "RAY_AUTH_TOKEN",
)

ONE = TINY.replace("[0, 1]", "[0]")


@pytest.fixture
def planted(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, in an environment full of secrets."""
    for name in VARIABLES:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return workplace


def assert_hidden(folder: Path, *outcomes: Any) -> None:
    """No secret was printed, nor is one in any byte of any file, or in a file's name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert SECRET not in str(path)
        assert SECRET.encode() not in path.read_bytes(), path
    for outcome in outcomes:
        assert SECRET not in outcome.out + outcome.err


def failing(*_: object, **__: object) -> Any:
    raise RuntimeError("no luck")


@pytest.mark.slow(reason="MLflow is imported and makes a new database")
def test_a_run_and_its_database_hold_none(
    crwn: Crwn, sweep_file: SweepFile, planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a trial that is done nor one that failed, with its traceback: params, tags, artifacts, records, notes."""
    options = ("--executor", "inline", "--no-tracking")
    ended = [crwn("run", sweep_file(ONE), *options)]
    monkeypatch.setattr("orchestrator.execution.attempt.iterate_trial", failing)
    ended.append(crwn("run", sweep_file(), *options))
    assert [outcome.code for outcome in ended] == [0, 1]
    ended += [crwn("sync", "runs/tiny"), crwn("status", "-v", "runs/tiny"), crwn("tables", "runs/tiny")]
    assert [outcome.code for outcome in ended[2:]] == [0, 0, 0]
    assert list(planted.rglob("attempts.json"))
    assert len(list((planted / "runs" / "mlartifacts").rglob("*.*"))) > 5
    assert_hidden(planted, *ended)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:{secret}@127.0.0.1:{port}",
        "http://user:a/{secret}@127.0.0.1:{port}",
        "http://user:{secret}/b@127.0.0.1:{port}",
        "postgresql+psycopg://user:{secret}@127.0.0.1:{port}/name",
        "postgresql+psycopg://127.0.0.1:{port}/name?user=me&password={secret}",
        "postgresql+psycopg://127.0.0.1:{port}/name?sslpassword={secret}",
        "nothing://user:{secret}@127.0.0.1:{port}",
        "http://[user:{secret}@127.0.0.1:{port}",
    ],
)
def test_an_address_of_mlflow_is_shown_without_its_password(
    crwn: Crwn, sweep_file: SweepFile, planted: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """If nothing answers there, or it is not an address; many libraries report this in their own words."""
    crwn("run", sweep_file(ONE), "--executor", "inline", "--no-tracking")
    uri = address.format(secret=SECRET, port=free_port())
    ended = [
        crwn("sync", "runs/tiny", "--tracking-uri", uri),
        crwn("doctor", sweep_file(ONE), "--executor", "inline", "--tracking-uri", uri),
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    ended.append(crwn("sync", "runs/tiny"))
    assert [outcome.code for outcome in ended] == [2, 1, 2]
    assert_hidden(planted, *ended)


@pytest.mark.parametrize("form", [["--tracking-uri", "{}"], ["--tracking-uri={}"]])
def test_an_interrupted_run_says_how_to_go_on_without_the_password(
    sweep_file: SweepFile,
    planted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: list[str],
) -> None:
    """The command that it repeats may have had one; the log of a job would keep it."""

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    uri = f"postgresql://user:{SECRET}@host/name"
    monkeypatch.setattr(running, "run", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["crwn", "run", str(sweep_file()), *(word.format(uri) for word in form)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "postgresql://user:***@host/name" in (said := capsys.readouterr().err)
    assert SECRET not in said


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_ray_is_given_no_command_with_a_password(
    crwn: Crwn, sweep_file: SweepFile, planted: Path, command: str
) -> None:
    """Ray stores and shows the command of every driver; use the environment variable."""
    uri = f"postgresql://user:{SECRET}@host/name"
    ended = crwn(command, sweep_file(), "--executor", "ray", "--tracking-uri", uri)
    assert ended.code == 2
    assert SECRET not in ended.out
    assert ended.err == (
        "error: --tracking-uri: expected an address without a password, given postgresql://user:***@host/name: "
        "Ray's list of jobs shows the command. Set it in $MLFLOW_TRACKING_URI\n"
    )
    assert not list(planted.iterdir())


@pytest.mark.parametrize("given", ["option", "variable"])
def test_a_job_has_the_address_as_a_variable_alone(
    *, crwn: Crwn, sweep_file: SweepFile, planted: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Neither its command nor its notes nor its id nor what is printed; and no other secret."""
    cluster = Cluster()
    monkeypatch.setattr(dashboard, "JobSubmissionClient", cluster)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    uri = f"https://user:{SECRET}@host"
    options = ["--tracking-uri", uri] if given == "option" else []
    if given == "variable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    ended = crwn("submit", sweep_file(), "--address", URL, "--out", STORE, *options)
    assert ended.code == 0
    (asked,) = cluster.asked
    assert asked["runtime_env"]["env_vars"].pop("MLFLOW_TRACKING_URI") == uri
    assert SECRET not in repr(asked) + ended.out + ended.err
    assert SECRET not in crwn("status", "--address", URL, "-v").out


@pytest.mark.parametrize(
    "arguments", [["status"], ["stop", "job"], ["submit", "SWEEP", "--out", STORE]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("address", [f"http://user:{SECRET}@head:8265", f"http://{SECRET}@head:8265"])
def test_an_address_of_a_cluster_with_a_password_is_refused(
    crwn: Crwn, sweep_file: SweepFile, planted: Path, arguments: list[str], address: str
) -> None:
    """It would be in every printed command."""
    words = [sweep_file() if word == "SWEEP" else word for word in arguments]
    ended = crwn(*words, "--address", address)
    assert ended.code == 2
    assert ended.codes == ("password-shown",)
    assert SECRET not in ended.out + ended.err


@pytest.mark.parametrize(
    "address",
    [
        "s3://KEY:{}@bucket/runs",
        "s3://{}@bucket/runs",
        "s3://bucket/runs?access_key=a&secret_key={}",
        "s3://bucket/runs?session_token={}",
        "S3://KEY:{}@bucket/runs",
        "gs://bucket/runs?credentials={}",
        "http://KEY:{}@host/runs",
        "s3://[KEY:{}@bucket/runs",
    ],
)
def test_an_address_of_a_store_with_credentials_is_refused(
    crwn: Crwn, sweep_file: SweepFile, planted: Path, address: str
) -> None:
    """On the command line of every command, and in a sweep; nothing is written, and the message repeats none of it."""
    store = address.format(SECRET)
    plain, named = sweep_file(), sweep_file(f"{TINY}store: {store}\n", name="named.yaml")
    for words in (
        *[[command, plain, "--out", store] for command in ("plan", "run", "doctor")],
        *[[command, store] for command in ("status", "tables", "sync")],
        ["tables", "runs", "--to", store],
        ["submit", plain, "--address", URL, "--out", store],
        *[[command, named] for command in ("plan", "run", "doctor")],
        ["submit", named, "--address", URL],
    ):
        ended = crwn(*words)
        assert ended.code == 2
        assert SECRET not in ended.out + ended.err
    assert not list(planted.iterdir())


def test_the_log_of_a_server_is_shown_without_passwords(
    crwn: Crwn, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What MLflow's server says before it ends may repeat the address of its database."""
    server = workplace / "python"
    server.write_text(f"#!/bin/sh\necho cannot connect to postgresql://user:{SECRET}@host/name\n")
    server.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(server))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://user:{SECRET}@host/name")
    ended = crwn("ui", "--port", free_port())
    assert ended.code == 2
    assert ended.err.endswith("cannot connect to postgresql://user:***@host/name\n\n")
    assert SECRET not in ended.out + ended.err


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://host/name?sslpassword=x&sslmode=require", "postgresql://host/name?sslpassword=***&sslmode=require"),
        ("mysql://host/name?user=me&PASSWD=x", "mysql://host/name?user=me&PASSWD=***"),
        ("http://host/?token=x", "http://host/?token=***"),
        ("mssql+pyodbc://?odbc_connect=DRIVER%3Dx%3BPWD%3Dy", "mssql+pyodbc://?odbc_connect=***"),
    ],
)  # fmt: skip
def test_a_password_among_an_addresss_settings_is_hidden(uri: str, shown: str) -> None:
    """Whatever the database's driver calls it."""
    assert hide_password(uri) == shown
