"""A sweep on object storage is killed, run again, and loses its storage for half a minute."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store.attempts import Position
from tests.integration.conftest import CRWN, Run, clean_environment, contents
from tests.object_storage import ENVIRONMENT, ObjectStorage
from tests.said import AWAY, BACK, CUT_OFF

OUTAGE_SECONDS = 30.0
"""Longer than the time between two renewals of a lease, so that every run notices."""
WAIT_SECONDS = 600.0
"""For a run to get somewhere on a busy machine; an idle one takes seconds."""

SWEEP = """\
# crwn run sweep.yaml
name: elsewhere
seeds: [0]
benchmarks:
  r-digits: {num_tasks: 3}
methods:
  neuromodnet: {scales: [FC64], training: {updates_per_task: 9000}}
  supsup: {scales: [FC16], training: {updates_per_task: 100}}
"""


def crwn(*arguments: str) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        [CRWN, *arguments], capture_output=True, text=True, check=False, timeout=120, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.chaos
def test_killed_and_without_its_storage_a_run_leaves_what_a_local_one_does(
    start: Callable[..., Run], storage: ObjectStorage, tmp_path: Path
) -> None:
    """Byte for byte; the trial resumes from its resume point and waits for the storage; no secret is printed."""
    address = storage.new_address()
    first = start(address, "--executor", "inline", text=SWEEP)
    trial = first.sweep.trials[0]
    assert first.wait_until(lambda: first.share_done() >= 0.1, WAIT_SECONDS)
    assert first.store.is_driven
    printed = first.kill_tree()
    assert not first.store.is_finished(trial.trial_id)
    assert "1 interrupted, 1 left" in crwn("status", address)

    second = start(address, "--executor", "inline", text=SWEEP)
    assert second.wait_until(lambda: len(second.store.unfinished.attempts(trial.trial_id)) == 2, WAIT_SECONDS)
    with storage.outage(OUTAGE_SECONDS):
        undisturbed = start(tmp_path / "store", "--executor", "inline", text=SWEEP)
    assert second.process.poll() is None  # at the end of the outage, however long the other run takes
    code, output = undisturbed.wait(WAIT_SECONDS)
    assert code == 0, output
    code, output = second.wait(WAIT_SECONDS)
    assert code == 0, output
    assert CUT_OFF in output
    assert AWAY in output
    assert BACK in output
    assert contents(address) == contents(tmp_path / "store")
    attempts = second.store.all_attempts(trial.trial_id)
    assert len(attempts) == 2
    assert attempts[1].began_at == attempts[0].reached != Position()
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in printed + output
