"""Measure the standard baselines on sequential MNIST, and compare with mammoth at the same settings.

    CRWN_DATA=<folder with MNIST/raw> python -m perf.methods [METHOD ...]

A whole trial including tests: five tasks of two digits, one epoch each in batches of 10, 784-100-100-10, on one thread.
Processor seconds, the better of two alternating rounds.
"""

from __future__ import annotations

import sys
import time

import torch

from crwn import backbone
from crwn.benchmarks import PRESETS
from crwn.data import datasets
from crwn.methods import METHODS
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from perf.engine import machine, replace_between

MAMMOTH = {"finetune": 20, "joint": 110, "ewc": 285, "si": 417, "lwf": None, "agem": None, "er": 95, "derpp": 134}
"""Seconds of github.com/aimagelab/mammoth (e75a491), one thread of another machine; None: not measured."""

ROUNDS = 2


def seconds(kind: str) -> tuple[float, float]:
    """Processor seconds of a trial, and its accuracy after the last task."""
    method = METHODS[kind].spec()
    spec = TrialSpec(
        method=method, benchmark=PRESETS["seq-mnist"], scale="FC100", seed=0, training=method.training("FC100")
    )
    started = time.process_time()
    finished = run_trial(spec, data=datasets(), backbones=backbone.draw)
    taken = time.process_time() - started
    last = [row.accuracy for row in finished.rows if row.tasks_learned == PRESETS["seq-mnist"].problem().num_tasks]
    return taken, sum(last) / len(last)


def main() -> None:
    """Measure, print, and write the table to README.md."""
    asked = sys.argv[1:] or list(MAMMOTH)
    seconds(asked[0])  # load modules and images first
    turns = [[seconds(kind) for kind in asked] for _ in range(ROUNDS)]
    lines = [
        f"{machine()}, torch {torch.__version__}, one thread, {time.strftime('%Y-%m-%d')}.",
        "",
        "| method | seconds | mammoth, seconds | ratio | accuracy at seed 0 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for number, kind in enumerate(asked):
        best, (_, accuracy) = min(turn[number][0] for turn in turns), turns[0][number]
        theirs = MAMMOTH[kind]
        faster = "" if theirs is None else f"{theirs / best:.1f}"
        lines.append(f"| {kind} | {best:.1f} | {theirs or ''} | {faster} | {100 * accuracy:.1f} % |")
    known = [number for number, kind in enumerate(asked) if MAMMOTH[kind] is not None]
    ours = sum(min(turn[number][0] for turn in turns) for number in known)
    theirs_all = sum(MAMMOTH[asked[number]] or 0 for number in known)
    together = f"{ours:.1f} s here, {theirs_all} s there, {theirs_all / ours:.1f} times faster"
    lines += ["", f"Methods measured in both, in total: {together}."]
    replace_between("methods.py", lines)


if __name__ == "__main__":
    main()
