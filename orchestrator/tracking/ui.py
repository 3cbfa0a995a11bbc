"""MLflow's web UI for a folder of stores."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from orchestrator.children import child
from orchestrator.display import hide_password, print_line
from orchestrator.errors import UserError
from orchestrator.tracking.address import ARTIFACT_FOLDER, DATABASE_FILE, VIEW, default_uri, is_database, tracking_uri
from orchestrator.waiting import waiting

HOST = "127.0.0.1"
FOR_TRAINING = "workflowType=machine_learning"
"""Part of a URL that opens the UI for training; MLflow's default is the one for prompts."""
SEARCH = "/api/2.0/mlflow/experiments/search"
VIEWS = (
    ("crwn-means", "", "means over seeds"),
    ("crwn-trials", "", "every trial"),
    ("crwn-cells", "", "trials by cell"),
    ("crwn-cells", "&compareRunsMode=CHART", "charts by cell"),
)
"""Of each experiment: the view's key (`projection.EXPERIMENT_TAGS`), what else its address has, and what it shows."""
MAX_EXPERIMENTS = 5
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 90.0, 5.0, 0.2

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # send no telemetry
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # avoid several processes for jobs that we do not use
}


def serve(runs: Path, port: int, console: Console) -> None:
    """Serve the MLflow UI until Ctrl-C.

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
        note = f"$MLFLOW_TRACKING_URI names a server, which serves the UI itself: {hide_password(uri)}"
        print_line(console, note)
        return
    if uri == default_uri(runs) and not (runs / DATABASE_FILE).exists():
        raise UserError(
            "database-missing",
            f"{runs}: expected a folder of stores with {DATABASE_FILE}, found none; crwn run creates "
            "it, and crwn sync STORE adds it for a store without one.",
        )
    if _is_open(port):
        raise UserError(
            "port-taken", f"--port: expected a free port, given {port}. Stop the program that uses it, or name another."
        )
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", (runs.absolute() / ARTIFACT_FOLDER).as_uri()]
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryFile() as log:
        environment = {**ENVIRONMENT, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}  # ps must not show its password
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        with child(command, patience=STOP_SECONDS, env=environment, **streams) as server:
            deadline = time.monotonic() + START_SECONDS
            with waiting("MLflow's server to start", console):
                while not (is_up := _is_open(port)) and server.poll() is None and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)
            if is_up:
                where = f"http://{HOST}:{port}/#/experiments?{FOR_TRAINING}"
                print_line(console, f"MLflow shows {hide_password(uri)} at {where}\nCtrl-C stops it.")
                for line in _views(port):
                    print_line(console, line)
                server.wait()
        size = os.fstat(log.fileno()).st_size
        said = os.pread(log.fileno(), 2000, max(0, size - 2000)).decode(errors="replace")
        how = "exited by itself" if is_up else f"did not start within {START_SECONDS:g} s"
        raise UserError("server-failed", f"the MLflow server {how}:\n{hide_password(said)}")


def _views(port: int) -> Iterator[str]:
    """The addresses of views, of the experiments that changed last; nothing if the server does not answer."""
    asked = json.dumps({"max_results": MAX_EXPERIMENTS, "order_by": ["last_update_time DESC"]}).encode()
    address = f"http://{HOST}:{port}"
    request = urllib.request.Request(f"{address}{SEARCH}", asked, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:  # noqa: S310 (http, of this machine)
            experiments = json.load(answer).get("experiments", [])
    except (OSError, ValueError):
        return
    for experiment in experiments:
        tags = {tag["key"] for tag in experiment.get("tags", [])}
        if f"{VIEW}crwn-means" in tags:
            yield f"{experiment['name']}:"
            for key, more, shown in VIEWS:
                runs = f"{address}/#/experiments/{experiment['experiment_id']}/runs?{FOR_TRAINING}"
                yield f"  {shown:20} {runs}&viewStateShareKey={key}{more}"


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
