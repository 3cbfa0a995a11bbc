"""MLflow's own web interface on a folder of stores."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from orchestrator.display import print_line
from orchestrator.errors import UserError
from orchestrator.tracking.address import (
    ARTIFACT_FOLDER,
    DATABASE_FILE,
    default_uri,
    hide_password,
    is_database,
    tracking_uri,
)

HOST = "127.0.0.1"
START_PAGE = "/#/experiments?workflowType=machine_learning"
"""Opens the interface for training; MLflow's default is the one for prompts."""
START_SECONDS = 90.0
ANSWER_SECONDS = 5.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.2

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # send no telemetry
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # avoid several processes for jobs that we do not use
}


def serve(runs: Path, port: int, console: Console) -> None:
    """Serve MLflow's interface until Ctrl-C.

    Args:
        runs: the folder of the stores, or one of its stores.
        port: the port on 127.0.0.1.
        console: where the address is printed.

    Raises:
        UserError: there is no database, the port is taken, or the server does not start.
    """
    if (runs / "store.json").exists():
        runs = runs.parent
    uri = tracking_uri(runs, None)
    if not is_database(uri):
        print_line(console, f"$MLFLOW_TRACKING_URI names a server, which has its own interface: {hide_password(uri)}")
        return
    if uri == default_uri(runs) and not (runs / DATABASE_FILE).exists():
        raise UserError(
            f"{runs}: expected a folder of stores with {DATABASE_FILE}, found none; crwn run makes one, "
            "and crwn sync STORE one for a store that has none."
        )
    _check_port(port)
    address = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", (runs.absolute() / ARTIFACT_FOLDER).as_uri()]
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryFile("w+") as log,
        _running(command, uri, log.fileno()) as server,
    ):
        _wait_until_up(server, address, log.fileno())
        print_line(console, f"MLflow shows {hide_password(uri)} at {address}{START_PAGE}\nCtrl-C stops it.")
        server.wait()
        raise UserError(f"the MLflow server ended by itself:\n{_tail(log.fileno())}")


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--port: expected a free port, given {port}: {error}. Stop what uses it, or name another."
            ) from error


@contextlib.contextmanager
def _running(command: list[str], uri: str, log: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server and its workers on the database `uri`, and end them with the block."""
    server = subprocess.Popen(  # noqa: S603 (this Python's own MLflow)
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**ENVIRONMENT, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri},  # ps must not show its password
        start_new_session=True,  # one process group, to end its workers with it
    )
    try:
        yield server
    finally:
        try:
            _tell(server, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP_SECONDS)
        finally:  # even if the user presses Ctrl-C again
            _tell(server, signal.SIGKILL)
            server.wait()


def _tell(server: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, sign)


def _wait_until_up(server: subprocess.Popen[bytes], address: str, log: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # $http_proxy cannot reach this machine
    while True:
        if server.poll() is not None:
            raise UserError(f"the MLflow server did not start:\n{_tail(log)}")
        with contextlib.suppress(OSError), opener.open(f"{address}/health", timeout=ANSWER_SECONDS):
            return
        if time.monotonic() > deadline:
            raise UserError(f"the MLflow server did not answer within {START_SECONDS:g} s:\n{_tail(log)}")
        time.sleep(POLL_SECONDS)


def _tail(log: int) -> str:
    size = os.fstat(log).st_size
    return hide_password(os.pread(log, 2000, max(0, size - 2000)).decode(errors="replace"))
