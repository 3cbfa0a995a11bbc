"""Child processes that end with the block that runs them, whatever they do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.children import child

STUBBORN = """
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen(["sleep", "60"])
print(os.getpid(), worker.pid, os.getsid(0), flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    """Whether it runs; a zombie that its foster parent has not collected yet does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["at the end", "interrupted"])
def test_what_ignores_a_polite_end_is_killed_with_what_it_started(error: BaseException | None) -> None:
    """Neither process is left; Ctrl-C did not reach them, since they have a session of their own."""
    try:
        with child([sys.executable, "-c", STUBBORN], patience=0.1, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            own, worker, session = map(int, process.stdout.readline().split())
            assert own == process.pid == session != os.getsid(0)
            if error is not None:
                raise error
    except KeyboardInterrupt:
        pass
    process.stdout.close()
    assert not is_running(own)
    deadline = time.monotonic() + 20
    while is_running(worker):  # it was told to end; on a busy machine it takes a moment
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_ends_when_asked_may_finish_its_work(tmp_path: Path) -> None:
    """It has as long as the patience lasts, and no longer is waited for than it takes."""
    done = tmp_path / "done"
    program = f"trap 'sleep 0.1; touch {done}; exit 0' TERM; echo; while true; do sleep 0.01; done"
    with child(["sh", "-c", program], patience=30, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
    process.stdout.close()
    assert done.exists()
    assert time.monotonic() - began < 20


def test_one_that_ended_by_itself_is_no_error() -> None:
    """Its code is kept."""
    with child(["sh", "-c", "exit 3"], patience=1) as process:
        process.wait()
    assert process.returncode == 3


def test_one_that_cannot_be_started_is_the_callers_to_report() -> None:
    """As `subprocess` reports it."""
    with pytest.raises(FileNotFoundError), child(["/no/such/program"], patience=1):
        pass
