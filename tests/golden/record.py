"""Records the golden traces anew, each into its method's JSON file beside this one:

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
from crwn.spec import TrialSpec
from crwn.trial import run_trial

FOLDER = Path(__file__).resolve().parent

SCALES = {"neuromodnet": "FC32", "flynet": "4d", "supsup": "FC32"}
"""A small scale of each method."""


def spec_of(name: str) -> TrialSpec:
    """Three tasks of digits, 40 updates of the paper's training each, in float64."""
    method = METHODS[name].spec()
    return TrialSpec(
        method=method,
        benchmark=RotatedSpec(base="digits", num_tasks=3, step_degrees=30.0),
        scale=SCALES[name],
        seed=0,
        training=dataclasses.replace(method.training(), updates_per_task=40, dtype="float64"),
    )


def trace(name: str) -> dict[str, Any]:
    """What a trial of the method gives: its spec, and of each task the training's and the test's loss and accuracy."""
    spec = spec_of(name)
    finished = run_trial(spec, data=Datasets(BASE_SETS, roots=()), backbones=backbone.draw)
    return {
        "spec": json.loads(spec.canonical_json()),
        "fingerprint": finished.fingerprint,
        "tasks": [
            {
                "train_loss": row.curve[-1].loss,
                "train_accuracy": row.curve[-1].accuracy,
                "test_loss": row.loss,
                "test_accuracy": row.accuracy,
            }
            for row in finished.rows[:3]
        ],
    }


def main() -> None:
    """Write a file for each method."""
    for name in METHODS:
        text = json.dumps(trace(name), indent=2) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
