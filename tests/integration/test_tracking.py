"""MLflow with real runs: whatever happens to servers and processes, it ends up showing the store's content.

A dump of a database is compared with that of a fresh one which `crwn sync` writes from the same store, so these tests
need not know what is shown (tests/orchestrator/tracking/test_projection.py does).
"""

from __future__ import annotations

import contextlib
import csv
import http.server
import io
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import sqlalchemy
from rich.console import Console

from orchestrator.report import printable, sweep_tables
from orchestrator.store.store import Store
from orchestrator.tracking import following
from tests.integration.conftest import CRWN, Run, clean_environment
from tests.ports import free_port
from tests.said import BEHIND, all_done

Start = Callable[..., Run]

# Six trials of a fraction of a second each, of methods with and without a loss that others can touch.
TINY = """\
name: tiny
seeds: [0, 1]
benchmarks: {r-digits: {num_tasks: 3}}
training: {updates_per_task: 20}
methods:
  supsup: {scales: [FC16]}
  neuromodnet: {scales: [FC16, FC32]}
"""

# Two trials of a few seconds each: time for the process beside the run to start and to show the first.
LONG = """\
name: long
seeds: [0, 1]
benchmarks: {r-digits: {num_tasks: 3}}
methods:
  neuromodnet: {scales: [FC64], training: {updates_per_task: 8000}}
"""


@dataclass(frozen=True, kw_only=True)
class Making:
    """A database that MLflow has made and nothing is in, and what was seen of it meanwhile: how many tables it had."""

    file: Path
    seen: set[int]


@pytest.fixture(scope="module")
def making(tmp_path_factory: pytest.TempPathFactory) -> Making:
    """Makes a database as the first run in a folder does, and looks at it again and again."""
    folder = tmp_path_factory.mktemp("template")
    Store(folder / "store").create()
    file, seen = folder / "mlflow.db", set()
    process = subprocess.Popen([CRWN, "sync", folder / "store"], stdout=subprocess.PIPE, env=clean_environment())
    while process.poll() is None:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database,
        ):
            seen |= {count for (count,) in database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")}
        time.sleep(0.02)
    assert process.communicate() == (b"mlflow    crwn ui " + bytes(folder) + b"\n", None)
    return Making(file=file, seen=seen)


@pytest.fixture
def runs(tmp_path: Path, making: Making) -> Path:
    """A folder for stores, with an empty database, and another database next to it."""
    (tmp_path / "runs").mkdir()
    for name in ("mlflow.db", "fresh.db"):
        shutil.copyfile(making.file, tmp_path / "runs" / name)
    return tmp_path / "runs"


def sync(store: Path, uri: str | None = None) -> str:
    """What `crwn sync` prints."""
    done = subprocess.run(
        [CRWN, "sync", store, *([] if uri is None else ["--tracking-uri", uri])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=clean_environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def expected_dump(store: Path) -> dict[str, Any]:
    """What a fresh database shows once all of the store was written into it, in this process, which is quicker."""
    fresh = f"sqlite:///{store.parent / 'fresh.db'}"
    following.sync(Store(store), fresh, Console(file=io.StringIO()))
    return dump(fresh)


def dump(uri: str, artifacts: Path | None = None) -> dict[str, Any]:
    """All that a database shows of runs that are not deleted, by name; ids aside, and who wrote them.

    Args:
        uri: the database's.
        artifacts: where those are kept that went through a server.
    """
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]

        def by_run(table: str, columns: str) -> dict[str, list[tuple[Any, ...]]]:
            found = defaultdict(list)
            for run, *values in rows(f"SELECT run_uuid, {columns} FROM {table}"):  # noqa: S608 (this file's own words)
                found[run].append(tuple(values))
            return {run: sorted(values) for run, values in found.items()}

        runs = rows(
            "SELECT run_uuid, r.name, e.name, status, start_time, end_time, artifact_uri FROM runs r "
            "JOIN experiments e ON e.experiment_id = r.experiment_id WHERE r.lifecycle_stage = 'active'"
        )
        params, tags = by_run("params", "key, value"), by_run("tags", "key, value")
        metrics = by_run("metrics", "key, step, timestamp, value, is_nan")
        latest = by_run("latest_metrics", "key, step, timestamp, value, is_nan")
        inputs = defaultdict(list)
        for run, *values in rows(
            "SELECT i.destination_id, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_profile, "
            "t.name, t.value FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id "
            "JOIN input_tags t ON t.input_uuid = i.input_uuid"
        ):
            inputs[run].append(tuple(values))
    engine.dispose()
    names = {run: name for run, name, *_ in runs}
    assert len(set(names.values())) == len(names), "a run is there twice"
    shown = {}
    for run, name, experiment, *state, place in runs:
        tagged = dict(tags[run])
        tagged["mlflow.parentRunId"] = names.get(tagged.get("mlflow.parentRunId"))
        parts = urlsplit(place)
        folder = Path(parts.path) if parts.scheme == "file" else artifacts / parts.path.lstrip("/")
        shown[name] = {
            "experiment": experiment,
            "state": state,
            "params": params.get(run),
            "tags": tagged,
            "metrics": metrics.get(run),
            "latest": latest.get(run),
            "inputs": inputs[run],
            "artifacts": {
                str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
            },
        }
    return shown


def statuses(database: Path) -> list[str]:
    """Of all runs, parent and children, as MLflow's database has them now."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM runs WHERE lifecycle_stage = 'active'")]


def a_trial_is_shown(database: Path) -> Callable[[], bool]:
    """A condition: parent and child are there, and both run."""
    return lambda: statuses(database).count("RUNNING") >= 2


@dataclass
class Server:
    """An MLflow server with workers of its own, in one process group."""

    database: str
    artifacts: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.database, "--artifacts-destination", self.artifacts]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self.artifacts.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=clean_environment(**quiet)
            )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), opener.open(f"{self.uri}/health", timeout=5):
                return
            assert self.process.poll() is None, self.artifacts.with_suffix(".log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill -9 its process group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(runs: Path) -> Iterator[Server]:
    """A server on a database of its own, not started yet."""
    shutil.copyfile(runs / "fresh.db", runs / "served.db")
    made = Server(database=f"sqlite:///{runs / 'served.db'}", artifacts=runs / "served")
    yield made
    made.kill()


# Servers that come and go


@pytest.mark.slow(reason="two starts of MLflow's server, and a sweep that is longer than the second")
@pytest.mark.chaos
def test_a_server_that_is_killed_and_comes_back(start: Start, server: Server, runs: Path) -> None:
    """Kill -9 of the server in mid-sweep: the sweep continues, and in the end nothing is missing or duplicated."""
    server.start()
    options = ("--executor", "inline", "--tracking-uri", server.uri)
    run = start(runs / "store", *options, text=LONG.replace("2000", "3500"), tracking=True)
    assert run.wait_until(a_trial_is_shown(runs / "served.db"))
    server.kill()
    server.start()
    code, output = run.wait()
    assert code == 0, output
    assert output.count("note: ") <= 1, output  # none if no word was lost: the server was back before the next look
    if run.store.is_behind("long"):
        assert BEHIND in output
        sync(runs / "store", server.uri)
    assert dump(server.database, server.artifacts) == expected_dump(runs / "store")


@pytest.mark.slow(reason="Python starts four times, MLflow's server once")
@pytest.mark.chaos
def test_a_sweep_without_its_server_is_shown_afterwards(start: Start, server: Server, runs: Path) -> None:
    """No server for the whole sweep: it exits with 0 and says once what to do, which then shows everything."""
    options = ("--executor", "inline", "--tracking-uri", server.uri)
    code, output = start(runs / "store", *options, text=TINY, tracking=True).wait()
    assert code == 0, output
    notes = [line for line in output.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith(f"note: MLflow at {server.uri} does not answer")
    assert output.count(f"mlflow: not up to date; to catch up: crwn sync {runs / 'store'}\n") == 1
    assert "│ supsup" in output
    assert output.splitlines()[-1] == f"mlflow    {server.uri}"
    server.start()
    written = "tiny: 6 of 6 trials written; the others were already up to date"
    assert sync(runs / "store", server.uri).splitlines() == [written, f"mlflow    {server.uri}"]
    shown = dump(server.database, server.artifacts)
    assert len(shown) == 1 + 6 + 3  # the sweep, its trials, the cells of its table
    assert shown == expected_dump(runs / "store")


def follower_of(run: Run) -> psutil.Process:
    """The process that writes to MLflow, once it was started."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for process in run.tree():
            with contextlib.suppress(psutil.NoSuchProcess):  # git, for example, ends at once
                if "orchestrator.tracking.following" in process.cmdline():
                    found.append(process)
        return bool(found)

    assert run.wait_until(look)
    return found[0]


class Broken(http.server.BaseHTTPRequestHandler):
    """Answers every request with an error."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def broken(kind: str) -> Iterator[str]:
    """The address of a server that accepts requests and never answers, or answers with errors."""
    if kind == "silent":
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as answering:
        thread = threading.Thread(target=answering.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()
        thread.join()


@pytest.mark.slow(reason="Python, torch and MLflow start twice")
def test_a_server_that_is_no_help_does_no_harm(start: Start, runs: Path) -> None:
    """Whether it never answers or always fails: code 0, the table, one note, and no process is left."""
    with broken("silent") as silent, broken("failing") as failing:
        started = {
            uri: start(
                runs / f"store{number}",
                *("--executor", "inline", "--tracking-uri", uri),
                text=TINY,
                tracking=True,
                MLFLOW_HTTP_REQUEST_TIMEOUT="1",
            )
            for number, uri in enumerate((silent, failing))
        }
        followers = {uri: follower_of(run) for uri, run in started.items()}
        outcomes = {uri: run.wait() for uri, run in started.items()}
    for uri, (code, output) in outcomes.items():
        assert code == 0, output
        assert [uri in line for line in output.splitlines() if line.startswith("note: ")] == [True], output
        assert output.count(BEHIND) == 1
        assert "│ supsup" in output
        assert not followers[uri].is_running()


# Killed drivers


@pytest.mark.slow(reason="Python, torch and MLflow start")
def test_a_killed_driver_leaves_no_run_running(start: Start, runs: Path) -> None:
    """Kill -9 of the driver alone: the follower notices, writes everything there is, and exits."""
    run = start(runs / "store", "--executor", "inline", text=LONG, tracking=True)
    assert run.wait_until(a_trial_is_shown(runs / "mlflow.db"))
    follower = follower_of(run)
    run.process.kill()
    run.wait()
    psutil.wait_procs([follower], timeout=60)
    assert not follower.is_running()
    assert set(statuses(runs / "mlflow.db")) - {"FINISHED"} == {"KILLED"}
    assert not run.store.is_behind("long")
    assert dump(f"sqlite:///{runs / 'mlflow.db'}") == expected_dump(runs / "store")


@pytest.mark.slow(reason="Python, torch and MLflow start three times")
@pytest.mark.chaos
def test_what_a_power_failure_leaves_is_mended(start: Start, runs: Path) -> None:
    """Kill -9 of everything: runs stay running in MLflow until `crwn sync`, or until the sweep is run again.

    Each has a copy of the database to mend. In the end each run is there once, with all that a sweep without a failure
    would show.
    """
    options = ("--executor", "inline")
    run = start(runs / "store", *options, text=LONG, tracking=True)
    assert run.wait_until(a_trial_is_shown(runs / "mlflow.db"))
    run.kill_tree()
    assert set(statuses(runs / "mlflow.db")) - {"FINISHED"} == {"RUNNING"}
    assert run.store.is_behind("long")
    shutil.copyfile(runs / "mlflow.db", runs / "copy.db")
    sync(runs / "store", f"sqlite:///{runs / 'copy.db'}")
    assert set(statuses(runs / "copy.db")) - {"FINISHED"} == {"KILLED"}
    assert not run.store.is_behind("long")

    code, output = start(runs / "store", *options, text=LONG, tracking=True).wait()
    assert code == 0, output
    assert statuses(runs / "mlflow.db") == ["FINISHED"] * 4  # the sweep, two trials, their cell
    assert not run.store.is_behind("long")
    assert dump(f"sqlite:///{runs / 'mlflow.db'}") == expected_dump(runs / "store")


@pytest.mark.slow(reason="MLflow makes its database")
def test_a_database_is_there_whole_or_not_at_all(making: Making) -> None:
    """MLflow cannot use a partly created database, which Ctrl-C in the first seconds of a first run could leave."""
    assert len(making.seen - {0}) == 1


# What is shown


@pytest.mark.slow(reason="Python, torch and MLflow start")
def test_the_numbers_are_those_of_the_table(start: Start, runs: Path) -> None:
    """Undisturbed: code 0, no warning; table and final accuracies are the store's, bit for bit.

    Run again, it starts nothing and writes nothing.
    """
    code, output = start(runs / "store", "--executor", "inline", text=TINY, tracking=True).wait()
    assert code == 0, output
    assert "note: " not in output
    assert BEHIND not in output
    assert output.splitlines()[-1] == f"mlflow    crwn ui {runs}"
    store = Store(runs / "store")
    shown = dump(f"sqlite:///{runs / 'mlflow.db'}")
    assert {run["state"][0] for run in shown.values()} == {"FINISHED"}
    table = shown["tiny"]["artifacts"]["table.csv"]
    assert table == (store.root / "report" / "tiny.csv").read_bytes()
    accuracies = {row["trial_id"]: row["accuracy"] for row in store.records.trials(store.trial_ids()).to_pylist()}
    last = {
        run["tags"]["crwn.trial"]: value
        for run in shown.values()
        if "crwn.trial" in run["tags"]
        for key, step, _, value, _ in run["latest"]
        if key == "accuracy" and step == 3
    }
    assert last == accuracies
    assert len(last) == 6
    means = defaultdict(list)
    for run in shown.values():
        if "crwn.trial" in run["tags"]:
            means[run["tags"]["cell"]].append(last[run["tags"]["crwn.trial"]])
    for row in csv.DictReader(io.StringIO(table.decode())):
        cell = " ".join(row[name] for name in ("method", "variant", "scale", "benchmark") if row[name])
        assert float(row["accuracy"]) == sum(means[cell]) / len(means[cell])
        latest = {key: value for key, _, _, value, _ in shown[f"{cell}, n=2"]["latest"]}
        assert (latest["cell/accuracy"], latest["cell/accuracy_sd"]) == (float(row["accuracy"]), float(row["sd"]))
    (manifest,) = store.manifests()
    assert shown["tiny"]["artifacts"]["table.md"].decode() == printable.markdown(
        sweep_tables.sweep_table(store, manifest)
    )

    written = (runs / "mlflow.db").stat().st_mtime_ns
    code, output = start(runs / "store", "--executor", "inline", text=TINY, tracking=True).wait()
    assert code == 0
    assert all_done("tiny", 6) in output
    assert (runs / "mlflow.db").stat().st_mtime_ns == written


# PostgreSQL


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of the test's own, without a database's name."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if not found:
        pytest.skip("needs PostgreSQL: no /usr/lib/postgresql/*/bin/postgres")
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
        account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="crwn-postgres-"))  # not pytest's, which is closed to others
    try:
        if account:
            shutil.chown(folder, account["user"], account["group"])
        quiet: dict[str, Any] = {
            "cwd": folder,
            "env": {**os.environ, "HOME": str(folder), "LC_ALL": "C"},
            "stdin": subprocess.DEVNULL,
            **account,
        }
        make = [found[-1].with_name("initdb"), "-D", folder / "data", "-U", "crwn", "-A", "trust", "-N", "-E", "UTF8"]
        done = subprocess.run(make, capture_output=True, text=True, check=False, **quiet)
        assert done.returncode == 0, done.stderr
        port = free_port()
        command = [found[-1], "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder]
        command += [part for setting in ("fsync", "full_page_writes") for part in ("-c", f"{setting}=off")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **quiet)
        try:
            uri = f"postgresql://crwn:secret@127.0.0.1:{port}"
            wait_for_database(f"{uri}/postgres", process)
            yield uri
        finally:
            process.send_signal(signal.SIGINT)  # what it calls a fast shutdown: it ends its processes
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder)


def wait_for_database(uri: str, process: subprocess.Popen[bytes]) -> None:
    engine = sqlalchemy.create_engine(uri)
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(sqlalchemy.exc.OperationalError), engine.connect():
            break
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    engine.dispose()


def create_database(uri: str, name: str) -> str:
    engine = sqlalchemy.create_engine(f"{uri}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{uri}/{name}"


@pytest.mark.slow(reason="PostgreSQL is set up, MLflow makes two databases in it")
def test_postgresql(start: Start, postgres: str, runs: Path) -> None:
    """Written directly while a sweep runs, and through a server by `crwn sync`: as in SQLite; no password is shown."""
    direct = create_database(postgres, "direct")
    options = ("--executor", "inline", "--tracking-uri", direct)
    run = start(runs / "store", *options, text=TINY, tracking=True)
    code, output = run.wait()
    assert code == 0, output
    assert "note: " not in output
    assert output.splitlines()[-1] == f"mlflow    {direct.replace('secret', '***')}"
    assert "secret" not in output
    if run.store.is_behind("tiny"):  # making the database took longer than the end of a run waits
        sync(runs / "store", direct)
    expected = expected_dump(runs / "store")
    assert dump(direct) == expected

    server = Server(database=create_database(postgres, "served"), artifacts=runs / "served")
    try:
        server.start()
        sync(runs / "store", server.uri)
        assert dump(server.database, server.artifacts) == expected
    finally:
        server.kill()
