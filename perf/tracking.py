"""Measure the time to project a store into MLflow. Run by hand on an idle machine.

    .venv/bin/python perf/tracking.py [TRIALS] [TASKS]

Writes a store of finished trials with synthetic numbers in the format of real ones (1000 trials of 100 tasks by
default; 20 learning-curve points per task), syncs it into a fresh SQLite database next to it, syncs again, then
serves the database and requests the first page of the run list.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from crwn.testing import Conditions, new_store, write_finished
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep

CRWN = Path(sys.executable).with_name("crwn")
PORT = 5317
CONDITIONS = Conditions(curve_points=20, task_seconds=2.0)

SWEEP = """
seeds: [{seeds}]
benchmarks:
  rotations: {{kind: rotated, base: mnist, num_tasks: {tasks}, step_degrees: 3.0}}
  permutations: {{kind: permuted, base: mnist, num_tasks: {tasks}}}
methods: {{supsup: {{scales: [FC256]}}, neuromodnet: {{scales: [FC256]}}}}
"""


def main() -> None:
    """Print the figures of perf/README.md."""
    num_trials, num_tasks = (int(value) for value in (*sys.argv[1:], "1000", "100")[:2])
    with tempfile.TemporaryDirectory() as folder:
        store = _write_store(Path(folder), num_trials, num_tasks)
        print(f"{num_trials} trials of {num_tasks} tasks")
        print(f"sync into a fresh database: {_seconds('sync', str(store.root)):.1f} s")
        print(f"sync again:                 {_seconds('sync', str(store.root)):.1f} s")
        print(f"run list, first 100 runs:   {_list_seconds(Path(folder)):.2f} s")


def _write_store(folder: Path, num_trials: int, num_tasks: int) -> Store:
    file = folder / "many.yaml"
    seeds = ", ".join(map(str, range(num_trials // 4)))  # two methods, two benchmarks
    file.write_text(SWEEP.format(seeds=seeds, tasks=num_tasks))
    sweep = load_sweep(file)
    store = new_store(folder / "many")
    store.write_manifest(sweep.manifest())
    chance = random.Random(0)  # noqa: S311 (made-up numbers)
    for spec in sweep.trials:
        write_finished(store, spec, chance.random(), CONDITIONS)
    return store


def _seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([CRWN, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _list_seconds(runs: Path) -> float:
    """The requests of the run list when it opens."""
    server = subprocess.Popen([CRWN, "ui", runs, "--port", str(PORT)], stdout=subprocess.DEVNULL)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            time.sleep(0.2)
        query = json.dumps({"experiment_ids": ["1"], "max_results": 100, "order_by": ["attributes.start_time DESC"]})
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/api/2.0/mlflow/runs/search",
            query.encode(),
            {"Content-Type": "application/json"},
        )
        began = time.perf_counter()
        with urllib.request.urlopen(request) as answer:  # noqa: S310 (our own server)
            num_runs = len(json.load(answer)["runs"])
        assert num_runs > 1
        return time.perf_counter() - began
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    main()
