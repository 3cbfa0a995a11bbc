"""Records the golden traces anew, each into a JSON file of its name beside this one:

    .venv/bin/python tests/golden/record.py

Record them only when results are meant to change, and say so under "Changed results" in the change log. What a trace
holds does not depend on the processor beyond the last digits: a tiny trial in float64.
"""  # noqa: D415 (the first line ends in a command)

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from crwn import backbone
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import BASE_SETS, Datasets
from crwn.methods import METHODS
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import TrialSpec
from crwn.trial import run_trial

FOLDER = Path(__file__).resolve().parent

CASES = {name: entry.spec() for name, entry in METHODS.items()} | {
    "neuromodnet-pretrained": NeuroModNetSpec(pretrained=True)
}
"""The methods, and their modes that compute otherwise, by the names of their traces."""


def spec_of(name: str) -> TrialSpec:
    """Three tasks of digits, 40 updates of the paper's training each, in float64, at a small scale."""
    method = CASES[name]
    return TrialSpec(
        method=method,
        benchmark=RotatedSpec(base="digits", num_tasks=3, step_degrees=30.0),
        scale="4d" if method.kind == "flynet" else "FC32",
        seed=0,
        training=dataclasses.replace(method.training("FC256"), updates_per_task=40, dtype="float64"),
    )


def trace(name: str) -> dict[str, Any]:
    """What a trial of the method gives: its spec, and of each task the training's and the test's loss and accuracy.

    Mixed tasks have one training, which stands with the first. Where later tasks change the results of earlier ones,
    the tests after the last task follow.
    """
    spec = spec_of(name)
    finished = run_trial(spec, data=Datasets(BASE_SETS, roots=()), backbones=backbone.draw)
    tasks = []
    for row in finished.rows:
        if row.train_seconds is not None:  # the test just after the task was learned
            training = {"train_loss": row.curve[-1].loss, "train_accuracy": row.curve[-1].accuracy} if row.curve else {}
            tasks.append({**training, "test_loss": row.loss, "test_accuracy": row.accuracy})
    found = {"spec": json.loads(spec.canonical_json()), "fingerprint": finished.fingerprint, "tasks": tasks}
    if spec.blueprint().grouping == "one":
        last = [row for row in finished.rows if row.tasks_learned == len(tasks)]
        found["tasks_at_the_end"] = [
            {"test_loss": row.loss, "test_accuracy": row.accuracy} for row in sorted(last, key=lambda row: row.task)
        ]
    return found


def main() -> None:
    """Write a file for each trace."""
    for name in CASES:
        text = json.dumps(trace(name), indent=2) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
