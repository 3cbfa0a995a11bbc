"""`crwn ui`: what is served, what is refused, and that nothing is left behind."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import local_server
from orchestrator.store.store import Store
from orchestrator.tracking import ui
from orchestrator.tracking.address import VIEW
from tests.ports import free_port

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err


@pytest.fixture
def runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `runs` with a store and an empty database, which MLflow fills when it first sees it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Store(workplace / "runs" / "tiny").create()
    (workplace / "runs" / "mlflow.db").touch()
    return workplace / "runs"


@pytest.fixture
def port() -> int:
    """A port that is free."""
    return free_port()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of MLflow's server, in Python; `serve()` answers all that is asked, with 200."""
    python = sys.executable

    def write(text: str) -> None:
        file = tmp_path / "python"
        file.write_text(
            f"#!{python} -IS\n"
            "import http.server, json, os, signal, subprocess, sys, threading, time\n"
            "argument = lambda name: sys.argv[sys.argv.index(name) + 1]\n"
            "class Handler(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self): self.send_response(200); self.end_headers()\n"
            "def serve(times=10**9):\n"
            "    address = (argument('--host'), int(argument('--port')))\n"
            "    server = http.server.HTTPServer(address, Handler)\n"
            "    for _ in range(times): server.handle_request()\n" + text
        )
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return write


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a process, not even a zombie."""
    me = psutil.Process()
    before = me.children(recursive=True)
    yield
    assert [child for child in me.children(recursive=True) if child not in before] == []


@pytest.fixture
def stop_when_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as soon as the address is printed."""
    print_line = ui.print_line

    def stop(*arguments: Any) -> None:
        print_line(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ui, "print_line", stop)


def test_without_a_database_there_is_nothing_to_show(crwn: Crwn, workplace: Path) -> None:
    """Code 2: what was expected where, and the two commands that make one."""
    for folder in ("runs", "elsewhere"):
        (workplace / "elsewhere").mkdir(exist_ok=True)
        ended = crwn("ui", *([] if folder == "runs" else [folder]))
        assert (ended.code, ended.out, ended.codes) == (2, "", ("database-missing",))
        for fact in (f"error: {folder}: ", "mlflow.db", "crwn run", "crwn sync STORE"):
            assert fact in ended.err
    assert [path.name for path in workplace.iterdir()] == ["elsewhere"]


def test_a_port_that_is_taken_is_refused(crwn: Crwn, runs: Path) -> None:
    """By whatever listens there; nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ended = crwn("ui", runs, "--port", taken)
    assert (ended.code, ended.out) == (2, "")
    assert (
        ended.err
        == f"error: --port: expected a free port, given {taken}. Stop the program that uses it, or name another.\n"
    )


def answering(content: bytes) -> type[http.server.BaseHTTPRequestHandler]:
    """A handler of requests that gives this to all."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

    return Handler


def test_views_that_show_something_are_named(port: int) -> None:
    """Of experiments that have them; where no server answers, none."""
    answer = {"experiments": [{"experiment_id": "7", "name": "mine", "tags": [{"key": f"{VIEW}crwn-means"}]}]}
    answer["experiments"].append({"experiment_id": "0", "name": "Default"})
    with http.server.HTTPServer(("127.0.0.1", port), answering(json.dumps(answer).encode())) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        lines = list(ui._views(port))
        thread.join()
    address = f"http://127.0.0.1:{port}/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey="
    assert lines[0] == "mine:"
    assert [line.split()[-1] for line in lines[1:]] == [
        f"{address}{key}" for key in ("crwn-means", "crwn-trials", "crwn-cells", "crwn-cells&compareRunsMode=CHART")
    ]
    assert list(ui._views(port)) == []


@pytest.mark.parametrize("given", [0, 65536, "http"])
def test_what_is_no_port_is_refused(crwn: Crwn, runs: Path, given: object) -> None:
    """With code 2 and the usage."""
    ended = crwn("ui", runs, "--port", given)
    assert ended.code == 2
    assert "'--port'" in ended.err


def test_a_server_of_somebody_else_is_named(crwn: Crwn, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where $MLFLOW_TRACKING_URI names one, it has an interface of its own; its password is not printed."""
    del workplace
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example:8443/mlflow")
    ended = crwn("ui")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "$MLFLOW_TRACKING_URI names a server, which serves the UI itself: https://me:***@tracking.example:8443/mlflow\n"
    )


@pytest.mark.usefixtures("stop_when_served")
@pytest.mark.parametrize("folder", ["runs", "runs/tiny"])
def test_the_folder_of_stores_or_one_of_them(
    *, crwn: Crwn, runs: Path, server: Callable[[str], None], port: int, folder: str
) -> None:
    """Both mean the same database and the same artifacts; the address is of this machine alone."""
    server(
        "open('told', 'w').write(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in "
        "('MLFLOW_BACKEND_STORE_URI', 'MLFLOW_DISABLE_TELEMETRY', 'MLFLOW_SERVER_ENABLE_JOB_EXECUTION')}]))\nserve()"
    )
    ended = crwn("ui", folder, "--port", port)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        f"MLflow shows sqlite:///{runs}/mlflow.db at http://127.0.0.1:{port}"
        "/#/experiments?workflowType=machine_learning\nCtrl-C stops it.\n"
    )
    arguments, environment = json.loads(Path("told").read_text())
    assert arguments == [
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--artifacts-destination", (runs / "mlartifacts").as_uri()),
    ]
    assert environment == {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{runs}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


@pytest.mark.usefixtures("stop_when_served")
def test_a_database_of_somebody_else_is_served(
    crwn: Crwn, workplace: Path, server: Callable[[str], None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$MLFLOW_TRACKING_URI may name one; its password is neither printed nor among the arguments, which ps shows."""
    del workplace
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/mlflow")
    server("open('told', 'w').write(' '.join(sys.argv))\nserve()")
    ended = crwn("ui", "--port", port)
    assert ended.code == 0
    assert ended.out.startswith("MLflow shows postgresql://me:***@host/mlflow at http://127.0.0.1:")
    assert "secret" not in Path("told").read_text()


@pytest.mark.usefixtures("runs")
def test_a_server_that_dies_at_its_start_shows_why(crwn: Crwn, server: Callable[[str], None], port: int) -> None:
    """The end of what it printed, at once."""
    server("print('x' * 5000); sys.exit('the database is of another version')")
    ended = crwn("ui", "--port", port)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: the MLflow server did not start within 180 s:\nxxx")
    assert ended.err.endswith("the database is of another version\n\n")
    assert len(ended.err) < 2200


@pytest.mark.usefixtures("runs")
def test_a_server_that_does_not_answer_is_given_up(
    crwn: Crwn, server: Callable[[str], None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it printed is shown."""
    monkeypatch.setattr(local_server, "START_SECONDS", 1.5)
    server("print('at work', flush=True); time.sleep(60)")
    ended = crwn("ui", "--port", port)
    assert ended.code == 2
    assert ended.err.startswith("error: the MLflow server did not start within 1.5 s:\nat work")


@pytest.mark.usefixtures("runs")
def test_a_server_that_ends_by_itself_is_told(crwn: Crwn, server: Callable[[str], None], port: int) -> None:
    """After it was up, with the end of what it printed."""
    server("serve(1); sys.exit('out of memory')")
    ended = crwn("ui", "--port", port)
    assert ended.code == 2
    assert ended.out.startswith("MLflow shows ")
    assert ended.err.startswith("error: the MLflow server exited by itself:\n")
    assert ended.err.endswith("out of memory\n\n")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_it_starts_ends_it(
    *, crwn: Crwn, server: Callable[[str], None], port: int, monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    """Like Ctrl-C later: code 0, nothing is left, also where an impatient user presses it once more."""
    wait, left = time.sleep, iter(range(presses))

    def press(seconds: float) -> None:
        if next(left, None) is not None:
            signal.raise_signal(signal.SIGINT)
        wait(seconds)

    server("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    monkeypatch.setattr(local_server, "STOP_SECONDS", 1.0)
    monkeypatch.setattr(time, "sleep", press)
    ended = crwn("ui", "--port", port)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert next(left, None) is None


@pytest.mark.usefixtures("runs", "stop_when_served")
def test_one_that_does_not_listen_is_killed_with_its_workers(
    crwn: Crwn, server: Callable[[str], None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ignores a polite end, and a worker that outlives it."""
    monkeypatch.setattr(local_server, "STOP_SECONDS", 0.3)
    server(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "worker = subprocess.Popen(['sleep', '60'])\nopen('workers', 'w').write(f'{os.getpid()} {worker.pid}')\nserve()"
    )
    assert crwn("ui", "--port", port).code == 0
    for pid in map(int, Path("workers").read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def get(address: str | urllib.request.Request) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=30) as answer:
        content: bytes = answer.read()
    return content


@pytest.mark.slow(reason="MLflow makes a new database, and its server takes seconds to start")
def test_mlflow_is_served_on_this_machine_until_ctrl_c(runs: Path, port: int) -> None:
    """The installed command prints the address; page and API answer there and nowhere else; SIGINT ends all with 0."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("crwn"), "ui", runs, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        printed = process.stdout.readline()
        while printed.startswith("waiting for"):  # on a slow machine
            printed = process.stdout.readline()
        address = f"http://127.0.0.1:{port}"
        assert printed == f"MLflow shows sqlite:///{runs}/mlflow.db at {address}/#/experiments?{ui.FOR_TRAINING}\n"
        assert get(f"{address}/health") == b"OK"
        assert b"MLflow" in get(address)
        query = f"{address}/ajax-api/2.0/mlflow/experiments/search?max_results=5"
        assert [entry["name"] for entry in json.loads(get(query))["experiments"]] == ["Default"]
        request = urllib.request.Request(  # noqa: S310 (our own)
            f"{address}/api/2.0/mlflow/runs/search",
            data=json.dumps({"experiment_ids": ["0"]}).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert json.loads(get(request)) == {}
        tree = psutil.Process(process.pid).children(recursive=True)
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for member in tree
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", port)}
        assert not any("mlflow.db" in argument for member in tree for argument in member.cmdline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "Ctrl-C stops it.\n"
        assert process.wait(timeout=30) == 0
        assert psutil.wait_procs(tree, timeout=5)[1] == []
    finally:
        process.terminate()
        process.communicate(timeout=30)
