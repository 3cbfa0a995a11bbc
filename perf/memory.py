"""Compare predicted with measured peak memory of trials, each in a separate process on the CPU.

    CRWN_DATA=... .venv/bin/python -m perf.memory

Writes the table in README.md between its marks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator

from crwn.benchmarks import PRESETS
from crwn.memory import predicted_bytes
from crwn.methods import METHODS
from crwn.trial_spec import TrialSpec
from perf.engine import machine, replace_between

ROWS = [
    ("neuromodnet", "r-mnist", "FC256"),
    ("neuromodnet", "r-mnist", "FC4096"),
    ("flynet", "r-mnist", "10d"),
    ("supsup", "p-mnist", "FC256"),
    ("neuromodnet", "split-cifar100", "1d"),
    ("neuromodnet", "split-cifar100", "6d"),
    ("supsup", "split-cifar100", "1d"),
    ("stl", "split-cifar100", "1d"),
    ("neuromodnet", "split-tinyimagenet", "nf10"),
    ("stl", "split-tinyimagenet", "1d"),
]
MEBIBYTE = 2**20


def main() -> None:
    """Measure every row in a new process, write, print."""
    parser = argparse.ArgumentParser(description="Compare predicted with measured peak memory.")
    parser.add_argument("--one", type=int, help="measure one row here and print it as JSON")
    one = parser.parse_args().one
    if one is not None:
        print(json.dumps(measured(trial(*ROWS[one]))))
        return
    replace_between("memory.py", [f"{machine()}.", "", *table()])


def trial(method: str, benchmark: str, scale: str) -> TrialSpec:
    """As in the paper, but with few updates, and with one task more than the largest group."""
    settings = METHODS[method].spec()
    training = dataclasses.replace(settings.training(scale), updates_per_task=3)
    return TrialSpec(method=settings, benchmark=PRESETS[benchmark], scale=scale, seed=0, training=training)


def measured(spec: TrialSpec) -> tuple[int, int]:
    """The group's size and the peak of this process in bytes, once the first group was learned."""
    from crwn import backbone
    from crwn.data import datasets
    from crwn.trial import decide_numerics, iterate_trial, peak_memory
    from perf.engine import one_thread

    one_thread()
    numerics = decide_numerics(spec)
    for event in iterate_trial(spec, data=datasets(), backbones=backbone.draw, numerics=numerics):
        if getattr(event, "tasks_learned", 0) >= numerics.group_size:
            break
    return numerics.group_size, peak_memory("cpu")


def table() -> Iterator[str]:
    """The lines between the marks."""
    yield "| method | benchmark | scale | tasks at once | predicted, MiB | measured, MiB | off by |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for number, row in enumerate(ROWS):
        command = [sys.executable, "-m", "perf.memory", "--one", str(number)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        size, peak = json.loads(found.splitlines()[-1])
        predicted = predicted_bytes(trial(*row), size)
        method, benchmark, scale = row
        yield (
            f"| {method} | {benchmark} | {scale} | {size} | {predicted / MEBIBYTE:.0f} | {peak / MEBIBYTE:.0f} | "
            f"{predicted / peak - 1:+.0%} |"
        )


if __name__ == "__main__":
    main()
