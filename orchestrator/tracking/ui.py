"""MLflow's web UI for a folder of stores."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from orchestrator import local_server
from orchestrator.display import hide_password, print_line
from orchestrator.errors import UserError
from orchestrator.local_server import HOST, check_port
from orchestrator.tracking.address import ARTIFACT_FOLDER, DATABASE_FILE, VIEW, default_uri, is_database, tracking_uri

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
MAX_EXPERIMENTS, ANSWER_SECONDS = 5, 90.0

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
    check_port(port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", (runs.absolute() / ARTIFACT_FOLDER).as_uri()]

    def announce() -> None:
        where = f"http://{HOST}:{port}/#/experiments?{FOR_TRAINING}"
        print_line(console, f"MLflow shows {hide_password(uri)} at {where}\nCtrl-C stops it.")
        for line in _views(port):
            print_line(console, line)

    environment = {**ENVIRONMENT, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}  # ps must not show its password
    local_server.serve(command, port, console, name="the MLflow server", announce=announce, environment=environment)


def _views(port: int) -> Iterator[str]:
    """The addresses of views, of the experiments that changed last; nothing if the server does not answer."""
    asked = json.dumps({"max_results": MAX_EXPERIMENTS, "order_by": ["last_update_time DESC"]}).encode()
    address = f"http://{HOST}:{port}"
    request = urllib.request.Request(f"{address}{SEARCH}", asked, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 (http, of this machine)
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
