"""Serves a finished trial on this machine, with MLflow's own server."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from rich.console import Console

from orchestrator import local_server, scratch
from orchestrator.display import print_line
from orchestrator.local_server import HOST, check_port
from orchestrator.serving.models import ServedTrial
from orchestrator.store.store import Store
from orchestrator.waiting import waiting

MODEL_FOLDER = "model"
SCRATCH = "crwn-serve-"


def serve(store: Store, trial: str, port: int, console: Console) -> None:
    """Serve a finished trial until Ctrl-C.

    Args:
        store: the store; it is only read.
        trial: the trial's id, or the unambiguous beginning of one.
        port: the port on 127.0.0.1.
        console: where the address is printed.

    Raises:
        UserError: the trial cannot predict, the port is taken, or the server does not start.
    """
    check_port(port)
    with contextlib.suppress(KeyboardInterrupt), scratch.folder(SCRATCH) as folder:
        served = ServedTrial(store, trial)
        with waiting("the model to be written", console):
            served.save(folder / MODEL_FOLDER)

        def announce() -> None:
            print_line(console, f"{served.title}: served at http://{HOST}:{port}/invocations\nCtrl-C stops it.")

        # MLflow starts programs by name, so PATH begins with this environment's. The working folder takes precedence,
        # so it holds nothing but the model.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ, "PATH": path}
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", MODEL_FOLDER]
        command += ["--host", HOST, "--port", str(port), "--env-manager", "local"]
        local_server.serve(
            command,
            port,
            console,
            name="the model's server",
            announce=announce,
            environment=environment,
            folder=folder,
        )
