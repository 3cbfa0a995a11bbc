"""Machines that do not see the store's folder: results and resume points are sent to the driver through Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.attempts import Position
from tests.integration.conftest import Run, Undisturbed, clean_environment, contents, trial_share
from tests.said import FOLDER_UNSEEN

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.slow(reason="a cluster is started, and a sweep is run to its end on it"),
]

BLIND = 'mount -t tmpfs -o ro tmpfs "$1" && exec "$2" start --address="$3" --num-cpus=1 --num-gpus=0 --block'
"""A machine on which the folder $1 is another one, empty, which cannot be written."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs for trials."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


@contextmanager
def blind_machine(folder: Path, cluster: Any) -> Iterator[subprocess.Popen[str]]:
    """A machine of the cluster that does not see the folder; its processes are a group."""
    may = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    if may.returncode:
        pytest.skip(f"needs the right to hide a folder from a process: {may.stderr.strip()}")
    ray = Path(sys.executable).parent / "ray"
    command = ["unshare", "--mount", "sh", "-c", BLIND, "sh", folder, ray, cluster.address]
    machine = subprocess.Popen(
        command,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert machine.stdout is not None
    said = []
    try:
        for line in machine.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        assert machine.poll() is None, "".join(said)
        yield machine
    finally:
        with suppress(ProcessLookupError):
            os.killpg(machine.pid, signal.SIGTERM)
        machine.communicate(timeout=60)


def test_results_come_home_from_machines_that_do_not_see_the_store(
    start: Callable[..., Run], undisturbed: Undisturbed, tmp_path: Path, cluster: Any
) -> None:
    """Every file is as if all saw the folder, even if a machine is lost in the middle; the user is told."""
    folder = tmp_path / "home"
    folder.mkdir()
    with blind_machine(folder, cluster) as lost, blind_machine(folder, cluster):
        run = start(folder / "store", "--executor", "ray", RAY_ADDRESS=cluster.address)
        assert run.wait_until(lambda: sum(0 < trial_share(run.store, trial) < 1 for trial in run.sweep.trials) == 2)
        os.killpg(lost.pid, signal.SIGKILL)
        code, output = run.wait(600)
    assert code == 0, output
    assert f"{FOLDER_UNSEEN}{folder / 'store'}" in output
    attempts = [run.store.all_attempts(trial.trial_id) for trial in run.sweep.trials]
    assert max(map(len, attempts)) == 2  # some trial was on the machine that was lost
    assert any(entry.began_at != Position() for _, *later in attempts for entry in later)
    assert contents(folder / "store") == undisturbed(start)
