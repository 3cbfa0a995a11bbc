"""Ctrl-C stops a run cleanly, and the same command resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import Run, contents


@pytest.mark.slow(reason="Python and torch start twice, Ray once")
@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.chaos)])
def test_interrupted_and_run_again(executor: str, start: Callable[..., Run], tmp_path: Path) -> None:
    """Ctrl-C exits with code 130 within 20 s, leaves no process and says how to resume; resuming finishes the sweep.

    Any executor goes on with what another one left; the second run takes the one that starts soonest.
    """
    store = tmp_path / "store"
    run = start(store, "--executor", executor)
    assert run.wait_until(lambda: run.share_done() > 0.1)
    tree = run.tree()
    pressed = time.monotonic()
    run.interrupt()
    code, output = run.wait(30)
    assert time.monotonic() - pressed < 20
    assert code == 130
    assert "Interrupted" in output
    assert f"crwn run {tmp_path / 'sweep.yaml'} --out {store} --executor {executor}" in output
    assert "Traceback" not in output
    assert psutil.wait_procs(tree, timeout=10)[1] == []
    done = run.share_done()
    code, output = start(store, "--executor", "inline").wait()
    assert code == 0, output
    assert done > 0.1
    assert len(contents(store)) == len(run.sweep.trials) + 2
