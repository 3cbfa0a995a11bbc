"""Runs the command line as users do, and kills it as machines do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

from orchestrator.store.address import open_files
from orchestrator.store.parquet_files import stable_columns
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.address import TRACKING_VARIABLE

CRWN = Path(sys.executable).with_name("crwn")

# A trial takes about four seconds, longer than the two between resume points: something can be interrupted inside it.
# There are three, so that with two at once one has ended while another still runs.
SWEEP = """\
# crwn run sweep.yaml
name: interrupted
seeds: [0]
benchmarks:
  r-digits: {num_tasks: 3}
methods:
  supsup: {scales: [FC64], training: {updates_per_task: 2000}}
  neuromodnet: {scales: [FC64], training: {updates_per_task: 3500}}
  batche: {scales: [FC64], training: {updates_per_task: 1750}}
"""


Undisturbed: TypeAlias = "Callable[[Callable[..., Run]], dict[str, Any]]"


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what points to a cluster or to a server of its user."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", TRACKING_VARIABLE)}
    return {**kept, **more}


@dataclass
class Run:
    """A `crwn run` in a process group of its own."""

    process: subprocess.Popen[str]
    store: Store
    sweep: Sweep
    ended: set[int] = field(default_factory=set)

    def wait(self, seconds: float = 300) -> tuple[int, str]:
        """The exit code and everything it printed."""
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120, *, may_end: bool = False) -> bool:
        """Wait for a condition; False if the run succeeded before, which is an error unless it may."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            if self.process.poll() is not None:
                code, output = self.wait()
                assert code == 0, output
                assert may_end, f"ended too early: {output}"
                return False
            time.sleep(0.02)
        raise AssertionError(f"not in {seconds} s; printed: {self.kill_tree()}")

    def tree(self) -> list[psutil.Process]:
        """The process and all that it started, including Ray's."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def kill_tree(self) -> str:
        """Kill -9 everything at once, as a power failure would; what it had printed."""
        tree = self.tree()
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(tree, timeout=10)
        return self.process.communicate(timeout=30)[0]

    def interrupt(self) -> None:
        """Press Ctrl-C: a terminal sends SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def share_done(self) -> float:
        """How much of the sweep's training is done as far as the store knows, in [0, 1]."""
        return sum(trial_share(self.store, trial) for trial in self.sweep.trials) / len(self.sweep.trials)


def trial_share(store: Store, trial: Any) -> float:
    if store.is_finished(trial.trial_id):
        return 1.0
    attempts = store.unfinished.attempts(trial.trial_id)
    reached = attempts[-1].reached if attempts else None
    if reached is None:
        return 0.0
    step = reached.step / trial.training.updates_per_task
    return (reached.tasks_learned + step) / trial.benchmark.problem().num_tasks


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start `crwn run` on a sweep's text; whatever still runs at the end of the test is killed."""
    runs: list[Run] = []
    # Shells have what they run in the background ignore Ctrl-C, and the runs would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start_run(
        store: Path | str, *options: str, text: str = SWEEP, tracking: bool = False, **environment: str
    ) -> Run:
        file = tmp_path / "sweep.yaml"
        file.write_text(text)
        quiet = [] if tracking else ["--no-tracking"]  # the process that writes to MLflow costs seconds
        process = subprocess.Popen(
            [CRWN, "run", str(file), "--out", str(store), *options, *quiet],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=clean_environment(**environment),
        )
        runs.append(Run(process=process, store=Store(store), sweep=load_sweep(file)))
        return runs[-1]

    yield start_run
    for run in runs:
        if run.process.poll() is None:
            run.kill_tree()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The content of the store after an undisturbed run, computed once per process."""
    root = tmp_path_factory.mktemp("undisturbed") / "store"

    def run(start: Callable[..., Run]) -> dict[str, Any]:
        if not root.exists():
            code, output = start(root, "--executor", "inline").wait()
            assert code == 0, output
        return contents(root)

    return run


def contents(address: Path | str) -> dict[str, Any]:
    """A store's whole content without its id and volatile fields; contexts and manifests byte for byte."""
    store, files = Store(address), open_files(address)
    mark = {key: value for key, value in json.loads(files.read("store.json")).items() if key != "id"}
    said: dict[str, Any] = {"manifests": store.manifests(), "mark": mark}
    for trial_id in store.trial_ids():
        said[trial_id] = {
            "files": files.names(f"trials/{trial_id}"),
            "trial": stable_columns(store.records.trials([trial_id])).to_pylist(),
            "tasks": stable_columns(store.records.tasks([trial_id])).to_pylist(),
            "contexts": hashlib.sha256(files.read(f"trials/{trial_id}/contexts.safetensors")).hexdigest(),
        }
    return said


def finished_times(store: Store) -> dict[str, int]:
    """When the files of finished trials were written, in nanoseconds."""
    return {
        str(path): path.stat().st_mtime_ns
        for trial_id in store.trial_ids()
        for path in store.folder(trial_id).iterdir()
    }
