"""Measure what users wait for: start-up of the commands, and seconds a task. Run by hand on an idle machine.

    CRWN_DATA=... .venv/bin/python perf/measure.py [METHOD...]

Given methods, only their seconds a task. Prints the tables of perf/README.md. Training seconds are the engine's own,
medians over tasks, the first group (which warms up) left out; reading data and evaluation are not in them.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from crwn import backbone
from crwn.benchmarks import PRESETS
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import datasets
from crwn.engine import Progress
from crwn.methods import METHODS
from crwn.spec import TrialSpec
from crwn.trial import decide_numerics, run_trial

CRWN = Path(sys.executable).with_name("crwn")
REPEATS = 5
NUM_TASKS = 4
ROWS = [
    ("neuromodnet", "FC256"),
    ("neuromodnet", "FC1024"),
    ("flynet", "10d"),
    ("supsup", "FC256"),
    ("batche", "FC256"),
    ("psp", "FC256"),
    ("stl", "FC256"),
    ("mtl", "FC256"),
]

PLAN_300 = """
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
benchmarks: [r-mnist, p-mnist, r-digits]
methods:
  supsup: {scales: [FC256]}
  flynet: {scales: [10d, 20d, 30d, 40d]}
  neuromodnet: {scales: [FC256, FC512, FC1024, FC2048, FC4096]}
"""

TINY = """
seeds: [0]
benchmarks: {r-digits: {num_tasks: 1}}
methods: {neuromodnet: {scales: [FC16], training: {updates_per_task: 1}}}
"""


def main() -> None:
    """Print both tables."""
    num_cores = len(os.sched_getaffinity(0))
    print(f"{_processor()}, {num_cores} cores; Python {platform.python_version()}, torch {torch.__version__}")
    chosen = sys.argv[1:]
    if not chosen:
        _print_command_seconds()
    print("\n| method | scale | group size | train s/task | test s/task |\n| --- | --- | --- | --- | --- |")
    for method, scale in ROWS:
        if not chosen or method in chosen:
            _print_task_seconds(method, scale, group_size=1)
            _print_task_seconds(method, scale, group_size=NUM_TASKS)


def _print_command_seconds() -> None:
    print("\n| command | seconds, median of 5 |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        plan, tiny, store = Path(folder) / "plan.yaml", Path(folder) / "tiny.yaml", str(Path(folder) / "store")
        plan.write_text(PLAN_300)
        tiny.write_text(TINY)
        subprocess.run([CRWN, "run", tiny, "--out", store], check=True, capture_output=True)
        print(f"| `crwn --help` | {_seconds('--help')} |")
        print(f"| `crwn plan`, 300 trials | {_seconds('plan', str(plan))} |")
        print(f"| `crwn run`, nothing left to do | {_seconds('run', str(tiny), '--out', store)} |")


def _seconds(*arguments: str) -> str:
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run([CRWN, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return f"{statistics.median(taken):.2f}"


def _print_task_seconds(method: str, scale: str, group_size: int) -> None:
    preset = PRESETS["r-mnist"]
    assert isinstance(preset, RotatedSpec)
    num_tasks = NUM_TASKS + 1 if group_size == 1 else 2 * NUM_TASKS
    settings = METHODS[method].spec()
    spec = TrialSpec(
        method=settings,
        benchmark=dataclasses.replace(preset, num_tasks=num_tasks),
        scale=scale,
        seed=0,
        training=settings.training(),
    )
    grouping = spec.blueprint().grouping
    if (grouping == "one" and group_size > 1) or (grouping == "all" and group_size == 1):
        return
    numerics = decide_numerics(spec, "cpu")
    if grouping == "any":
        numerics = dataclasses.replace(numerics, group_size=group_size)

    def show(event: object) -> None:
        if isinstance(event, Progress):
            print(f"{method} {scale} {event.tasks_learned}/{num_tasks}", end="\r", file=sys.stderr)

    finished = run_trial(spec, data=datasets(), backbones=backbone.draw, numerics=numerics, on_event=show)
    learned = [row.train_seconds for row in finished.rows if row.train_seconds is not None]
    train = statistics.median(learned[group_size:] if grouping != "all" else learned)
    test = statistics.median(row.eval_seconds for row in finished.rows)
    print(f"| {method} | {scale} | {numerics.group_size} | {train:.2f} | {test:.2f} |")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
