"""A model that went to an MLflow server over HTTP, and is loaded from it where crwn is not installed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from orchestrator.report.results import Results
from orchestrator.serving.registering import register
from orchestrator.store.store import Store
from tests.orchestrator.serving.conftest import NUM_TASKS, TRIAL
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]

# Loads the model by its name where neither crwn nor the orchestrator can be imported but from the model itself.
ELSEWHERE = """
import json, sys
name, root, images, task = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
sys.path = [path for path in sys.path if path not in ("", root)]
for package in ("crwn", "orchestrator"):
    try:
        __import__(package)
    except ImportError:
        continue
    raise SystemExit(f"{package} is installed")
import numpy as np
from mlflow import pyfunc
model = pyfunc.load_model(name)
answer = model.predict({"images": np.array(images, np.uint8), "task": np.array(task)})
print(json.dumps([answer["logits"].tolist(), model.metadata.metadata["tasks"]]))
"""

ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server on 127.0.0.1, with artifacts of its own."""
    uri = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'served.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **ENVIRONMENT}
        )
    opener, deadline = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + 120
    try:
        while True:
            with contextlib.suppress(OSError), opener.open(f"{uri}/health", timeout=5):
                break
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow(reason="starts MLflow's server, and a new process that imports torch and MLflow")
def test_a_model_is_loaded_from_a_server_without_crwn(served_store: Store, server: str, tmp_path: Path) -> None:
    """Registered over HTTP, downloaded over HTTP by its name; the model's own copy of crwn answers as the bank does."""
    register(served_store, TRIAL.trial_id, "turned", server, Console(quiet=True))
    images, task = np.random.default_rng(0).integers(0, 256, (4, 64), np.uint8), np.arange(4) % NUM_TASKS
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "models:/turned/1", ROOT, *map(json.dumps, (images.tolist(), task.tolist()))],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logits, tasks = json.loads(done.stdout.splitlines()[-1])
    expected = Results(served_store).contexts(TRIAL).predict(images, task).numpy()
    np.testing.assert_allclose(np.array(logits, np.float32), expected, rtol=1e-5, atol=1e-5)
    assert tasks == [f"rotated {task}" for task in range(NUM_TASKS)]
