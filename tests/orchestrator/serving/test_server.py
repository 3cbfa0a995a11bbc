"""`crwn serve`: a trial that predicts over HTTP on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from orchestrator.report.results import Results
from orchestrator.serving import server
from orchestrator.store.store import Store
from tests.orchestrator.serving.conftest import NUM_TASKS, TRIAL, UNFINISHED
from tests.ports import free_port

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err


def ask(address: str, **inputs: Any) -> tuple[int, dict[str, Any]]:
    """The status and the answer of a server to a request."""
    request = urllib.request.Request(  # noqa: S310 (our own)
        address, json.dumps({"inputs": inputs}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.slow(reason="two processes import torch and MLflow, one after the other")
def test_four_tasks_are_answered_in_one_request(served_store: Store) -> None:
    """By the installed command, at 127.0.0.1 alone; a mistake is a 400 that says which; SIGINT ends all with 0."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/invocations"
    process = subprocess.Popen(
        [Path(sys.executable).with_name("crwn"), "serve", served_store.root, TRIAL.trial_id, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PATH": os.defpath},
    )
    try:
        assert process.stdout is not None
        printed = process.stdout.readline()
        while printed.startswith("waiting for"):  # on a slow machine
            printed = process.stdout.readline()
        assert address in printed
        images = np.random.default_rng(0).integers(0, 256, (NUM_TASKS, 64), np.uint8)
        task = np.arange(NUM_TASKS)
        expected = Results(served_store).contexts(TRIAL).predict(images, task).numpy()
        status, answer = ask(address, images=images.tolist(), task=task.tolist())
        assert status == 200
        assert answer["predictions"]["label"] == expected.argmax(axis=1).tolist()
        np.testing.assert_allclose(answer["predictions"]["logits"], expected, rtol=1e-5, atol=1e-5)
        for wrong, reason in (
            ({"images": images.tolist(), "task": [0, 1, 2, 9]}, "from 0 to 3, given 9"),
            ({"images": images[:, :5].tolist(), "task": task.tolist()}, "(-1, 64)"),
            ({"images": images.tolist(), "task": [0]}, "one for each of the 4 images, given 1"),
            ({"images": images.tolist()}, "task"),
            ({"images": [[300] * 64], "task": [0]}, "300"),
        ):
            status, answer = ask(address, **wrong)
            assert status == 400
            assert reason in answer["message"]
        _, answer = ask(address, images=images.tolist(), task=[0, 1, 2, 9])
        assert answer["message"].startswith("task: expected")  # not with the images
        tree = psutil.Process(process.pid).children(recursive=True)
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for member in tree
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", port)}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert psutil.wait_procs(tree, timeout=5)[1] == []
        assert [*served_store.beside.iterdir()] == [Path(served_store.root)]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_port_that_is_taken_is_refused(crwn: Crwn, served_store: Store) -> None:
    """By whatever listens there; nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = crwn("serve", served_store.root, TRIAL.trial_id, "--port", other.getsockname()[1])
    assert (ended.code, ended.out, ended.codes) == (2, "", ("port-taken",))


@pytest.mark.parametrize(
    ("trial", "code"), [(UNFINISHED.trial_id, "trial-not-finished"), ("0123456789abcdef", "unknown-trial")]
)
def test_what_cannot_predict_is_not_served(crwn: Crwn, served_store: Store, trial: str, code: str) -> None:
    """Code 2."""
    ended = crwn("serve", served_store.root, trial, "--port", free_port())
    assert (ended.code, ended.out, ended.codes) == (2, "", (code,))


def test_a_server_that_fails_says_why(crwn: Crwn, served_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the end of its output; it runs in the model's folder, with this environment's programs."""
    told = served_store.beside / "told"
    python = served_store.beside / "python"
    python.write_text(
        f"#!{sys.executable} -IS\nimport os, sys\n"
        f"open({str(told)!r}, 'w').write('\\n'.join([os.environ['PATH'], *os.listdir(), *sys.argv[1:]]))\n"
        "sys.exit('no memory')\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(server.sys, "executable", str(python))
    port = free_port()
    ended = crwn("serve", served_store.root, TRIAL.trial_id, "--port", port)
    assert (ended.code, ended.codes) == (2, ("server-failed",))
    assert "no memory" in ended.err
    path, folder, *arguments = told.read_text().split("\n")
    assert path.startswith(f"{served_store.beside}{os.pathsep}")
    assert folder == server.MODEL_FOLDER
    assert arguments == [
        *("-m", "mlflow", "models", "serve", "--model-uri", "model"),
        *("--host", "127.0.0.1", "--port", str(port), "--env-manager", "local"),
    ]


def test_ctrl_c_before_it_is_served_ends_it(crwn: Crwn, served_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model is written, as later: code 0, and no folder is left."""
    folders: list[Path] = []

    def press(_: object, folder: Path) -> None:
        folders.append(folder.parent)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(server.ServedTrial, "save", press)
    ended = crwn("serve", served_store.root, TRIAL.trial_id, "--port", free_port())
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert not folders[0].exists()
