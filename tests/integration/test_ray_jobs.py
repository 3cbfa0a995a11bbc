"""A sweep as a job on a real cluster: a separate head on this machine, with a dashboard and a token."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from crwn.code import code_of, fingerprint
from crwn.methods import METHODS
from orchestrator.store.store import Store
from tests.integration.conftest import CRWN, clean_environment, finished_times
from tests.plugged import METHOD, SWEEP
from tests.ports import free_port
from tests.said import INTERRUPTED, TAKEN_BY_A_JOB, all_done, to_run

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow(reason="a Ray head with its dashboard, and jobs that start a driver and workers each"),
]

TINY = """\
name: tiny
seeds: [0, 1]
benchmarks: {r-digits: {num_tasks: 2}}
training: {updates_per_task: 5}
methods: {neuromodnet: {scales: [FC16]}}
"""

# About a minute: long enough to be found running and stopped.
LONG = """\
name: long
seeds: [0]
benchmarks: {r-digits: {num_tasks: 3}}
training: {updates_per_task: 30000}
methods: {supsup: {scales: [FC64]}}
"""

START_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A Ray head: its dashboard's address, and the environment that has its token."""

    address: str
    environment: dict[str, str]

    def crwn(self, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        """A command, run as a user of this cluster."""
        return subprocess.run(
            [CRWN, *map(str, arguments), "--address", self.address],
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head with two CPU slots, on ports that were free."""
    folder = Path(tempfile.mkdtemp(prefix="crwn-ray-"))  # short: Ray's sockets lie below it
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    environment = clean_environment(
        PATH=f"{CRWN.parent}:{Path('/usr/bin')}:{Path('/bin')}",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_USAGE_STATS_ENABLED="0",
    )
    port, dashboard, client, agent = (free_port() for _ in range(4))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name("ray"),
                *(
                    "start",
                    "--head",
                    "--block",
                    "--disable-usage-stats",
                    "--num-cpus=2",
                    f"--temp-dir={folder / 'ray'}",
                ),
                *("--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client}"),
                *(
                    "--dashboard-host=127.0.0.1",
                    f"--dashboard-port={dashboard}",
                    f"--dashboard-agent-listen-port={agent}",
                ),
            ],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        request = urllib.request.Request(  # noqa: S310 (our own)
            f"{address}/api/version", headers={"Authorization": f"Bearer {token.read_text()}"}
        )
        until = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                assert json.load(answer)["ray_version"]  # no other server
                break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.5)
        yield Head(address=address, environment=environment)
    finally:
        tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for one in [*tree, process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not in {seconds} s"
        time.sleep(0.2)


def test_a_sweep_is_submitted_followed_and_not_run_twice(head: Head, tmp_path: Path) -> None:
    """The job's log and exit code come back; the same command again starts a job that finds nothing to do."""
    sweep, store = tmp_path / "tiny.yaml", Store(tmp_path / "store")
    sweep.write_text(TINY)
    command = ("submit", sweep, "--out", store.root, "--no-tracking", "--follow")
    first = head.crwn(*command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr == ""
    assert f"{to_run('tiny', 2)}; executor ray" in first.stdout
    assert "(n=2)" in first.stdout
    assert len(store.trial_ids()) == 2
    codes = {row.provenance.code for row in store.records.rows(store.trial_ids()).values()}
    assert codes == {code_of(METHODS["neuromodnet"].spec())}  # packed and unpacked, it is the same code
    before = finished_times(store)

    again = head.crwn(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert all_done("tiny", 2) in again.stdout
    assert finished_times(store) == before

    shown = head.crwn("status")
    assert shown.returncode == 0
    assert shown.stdout.count(": done, begun ") == 2
    assert shown.stdout.count(f"tiny, 2 trials, into {store.root}\n") == 2

    refused = head.crwn("status", RAY_AUTH_MODE="disabled")
    assert refused.returncode == 2
    assert "RAY_AUTH_MODE=token" in refused.stderr


def test_a_plug_in_goes_along_with_a_job(head: Head, tmp_path: Path) -> None:
    """Its bytes are sent to the head and the workers, which compute with exactly this code."""
    sweep, store = tmp_path / "sweep.yaml", Store(tmp_path / "store")
    sweep.write_text(SWEEP)
    (tmp_path / "my_method.py").write_text(METHOD)
    plugin = ("--plugin", tmp_path / "my_method.py")
    done = head.crwn("submit", sweep, *plugin, "--out", store.root, "--no-tracking", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = store.records.rows(store.trial_ids()).values()
    assert row.method == "mine"
    assert row.provenance.code is not None
    assert row.provenance.code.method == fingerprint(METHOD)


@pytest.mark.chaos
def test_a_job_that_runs_is_pointed_to_and_can_be_stopped(head: Head, tmp_path: Path) -> None:
    """Stopping is an interruption like Ctrl-C: what was computed is kept, and no trial has failed."""
    sweep, store = tmp_path / "long.yaml", Store(tmp_path / "store")
    sweep.write_text(LONG)
    command = ("submit", sweep, "--out", store.root, "--no-tracking")
    submitted = head.crwn(*command)
    assert submitted.returncode == 0, submitted.stderr
    (job,) = [line.split()[1] for line in submitted.stdout.splitlines() if line.startswith("job ")]
    trials = store.root / "trials"
    wait_until(lambda: bool(list(trials.glob("*/resume.safetensors"))))

    again = head.crwn(*command)
    assert again.returncode == 0
    assert again.stdout.startswith(f"long: already submitted to {store.root}; nothing was started\n")
    assert job in again.stdout

    sweep.write_text(LONG.replace("[0]", "[0, 1]"))
    changed = head.crwn(*command)
    assert changed.returncode == 2
    assert all(fact in changed.stderr for fact in (TAKEN_BY_A_JOB, job, "'long'"))

    assert f"{job}: running, begun" in head.crwn("status").stdout
    stopped = head.crwn("stop", job)
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.startswith(f"{job}: stopped, begun")
    details = head.crwn("status", "-v").stdout
    assert INTERRUPTED in details
    (trial,) = [path.name for path in trials.iterdir()]
    assert store.state(trial, driven=store.is_driven) == "interrupted"
