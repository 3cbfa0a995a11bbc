"""Measure how long the projection into MLflow takes. Run by hand on an idle machine.

    .venv/bin/python perf/tracking.py [TRIALS] [TASKS]

Writes a store of finished trials with made-up numbers and the records of real ones (1000 trials of 100 tasks by
default; 20 points of a learning curve a task), syncs it into a fresh SQLite database beside it, syncs again, then
serves the database and asks for what the run list shows first.
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
from typing import Any

from crwn.spec import TrialSpec
from orchestrator.store import Store, TrialRecord
from orchestrator.sweep import load_sweep

CRWN = Path(sys.executable).with_name("crwn")
PORT = 5317
CURVE_POINTS, TASK_SECONDS = 20, 2.0
CONTEXT_BYTES = 200_000

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
    store = Store(folder / "many")
    store.create()
    store.write_manifest(sweep.manifest())
    chance = random.Random(0)  # noqa: S311 (made-up numbers)
    for spec in sweep.trials:
        store.write_record(spec.trial_id, _record(spec, chance, time.time()))
    return store


def _record(spec: TrialSpec, chance: random.Random, began: float) -> TrialRecord:
    num_tasks = spec.benchmark.problem().num_tasks
    blueprint = spec.blueprint()
    identity = {
        "trial_id": spec.trial_id,
        "method": spec.method.kind,
        "variant": spec.variant,
        "benchmark": f"{spec.benchmark.kind}-{spec.benchmark.base}",
        "scale": spec.scale,
        "seed": spec.seed,
    }
    accuracies = [chance.random() for _ in range(num_tasks)]
    tests: list[dict[str, Any]] = []
    for task, accuracy in enumerate(accuracies):
        tested = began + TASK_SECONDS * (task + 1)
        row = {**identity, "task": task, "accuracy": accuracy, "loss": 1.0, "num_test": 10_000, "eval_seconds": 0.1}
        curve = [{"step": 50 * (k + 1), "loss": chance.random(), "accuracy": accuracy} for k in range(CURVE_POINTS)]
        times = [tested - TASK_SECONDS * (1 - k / CURVE_POINTS) for k in range(CURVE_POINTS)]
        tests.append({**row, "tasks_learned": task + 1, "tested": tested, "curve": curve, "curve_times": times})
        if task + 1 < num_tasks:
            tests.append({**row, "tasks_learned": num_tasks, "tested": began + TASK_SECONDS * num_tasks, "curve": []})
    samples = [
        {"trial_id": spec.trial_id, "time": began + 10.0 * k, "process_cpu_percent": 99.0, "process_memory_bytes": 1e9}
        for k in range(int(TASK_SECONDS * num_tasks / 10) + 1)
    ]
    start = {"started": "2026-01-01T00:00:00+00:00", "host": "host", "pid": 1, "from": {"tasks_learned": 0, "step": 0}}
    provenance = {"attempts": [start], "finished": "2026-01-01T00:03:20+00:00", "train_seconds": 200.0}
    trial = {
        **identity,
        "accuracy": sum(accuracies) / num_tasks,
        "params_per_task": blueprint.params_per_task,
        "trained_per_task": blueprint.trained_per_task,
        "stored_per_task": blueprint.stored_per_task,
        "grouping": blueprint.grouping,
        "fingerprint": "0" * 64,
        "spec": spec.canonical_json(),
        "numerics": "{}",
        "seconds": 210.0,
        "provenance": json.dumps(provenance),
    }
    return TrialRecord(trial=trial, tasks=tests, system=samples, contexts=bytes(CONTEXT_BYTES))


def _seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([CRWN, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _list_seconds(runs: Path) -> float:
    """What the run list asks for when it opens."""
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
