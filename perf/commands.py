"""Measure the start-up time of commands. Run by hand on an idle machine; prints the table of README.md.

.venv/bin/python perf/commands.py
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CRWN = Path(sys.executable).with_name("crwn")
REPEATS = 5
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
    """Print the table."""
    num_cores = len(os.sched_getaffinity(0))
    print(f"{_processor()}, {num_cores} cores; Python {platform.python_version()}")
    print("\n| command | seconds, median of 5 |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        plan, tiny, store = Path(folder) / "plan.yaml", Path(folder) / "tiny.yaml", str(Path(folder) / "store")
        plan.write_text(PLAN_300)
        tiny.write_text(TINY)
        subprocess.run([CRWN, "run", tiny, "--out", store], check=True, capture_output=True)
        print(f"| `import crwn` | {_seconds_of(sys.executable, '-c', 'import crwn')} |")
        print(f"| `crwn --help` | {_seconds('--help')} |")
        print(f"| `crwn plan`, 300 trials | {_seconds('plan', str(plan))} |")
        print(f"| `crwn run`, nothing left to do | {_seconds('run', str(tiny), '--out', store)} |")


def _seconds(*arguments: str) -> str:
    return _seconds_of(str(CRWN), *arguments)


def _seconds_of(*command: str) -> str:
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return f"{statistics.median(taken):.2f}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
