"""Records the golden traces of the named cases, each to a JSON file of its name next to this one:

    .venv/bin/python -m tests.golden.record NAME...

or of all, with `--all`. Re-record one only if its results are meant to change: raise `RESULTS_VERSION` in
crwn/code.py first, and add a line under "Changed results" in the change log. The trace of a new case needs neither. A
trace is a tiny trial in float64, so it does not depend on the processor beyond the last digits.

`DIGESTS` has a digest of each trace under the version of results whose it is. A version's digests are never written
again, so that a trace that is recorded anew under the same version is found out.
"""  # noqa: D415 (the first line ends in a command)

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from crwn import backbone
from crwn.code import RESULTS_VERSION
from crwn.data import BASE_SETS, Datasets
from crwn.memory import DeviceKind
from crwn.trial import Allowance, run_trial
from crwn.trial_spec import TrialSpec
from tests.methods import CASES

FOLDER = Path(__file__).resolve().parent

DIGESTS = "DIGESTS"
"""The file with the traces' digests; its first line has the version of results."""


def spec_of(name: str) -> TrialSpec:
    """Three tasks of digits, or the case's own: 40 updates of the paper's training each, in float64, small."""
    case = CASES[name]
    training = case.method.training(case.table_scale)
    return case.trial(
        num_tasks=3,
        step_degrees=30.0,
        scale=case.trace_scale,
        training=dataclasses.replace(training, updates_per_task=40, epochs_per_task=0, dtype="float64"),
    )


def trace(name: str, device: DeviceKind = "cpu") -> dict[str, Any]:
    """What a trial of the case gives: its spec, and of each task the training's and the test's loss and accuracy.

    Mixed tasks have one training, which stands with the first. Where later tasks change the results of earlier ones,
    the tests after the last task follow.
    """
    spec = spec_of(name)
    finished = run_trial(
        spec, data=Datasets(BASE_SETS, roots=()), backbones=backbone.draw, allowance=Allowance(device=device)
    )
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


def digest(file: Path) -> str:
    """Of a trace: of what it says, in 16 digits."""
    content = json.dumps(json.loads(file.read_text(encoding="utf-8")), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_digests(folder: Path) -> tuple[int, dict[str, str]]:
    """The version of results that a folder's digests are of, and the digest of each trace by its name."""
    first, *lines = (folder / DIGESTS).read_text(encoding="utf-8").splitlines()
    return int(first.rpartition(" ")[2]), {name: value for value, name in map(str.split, lines)}


def add_digests(folder: Path) -> None:
    """Write the digests of traces that have none under this version of results; under another one, of all."""
    version, known = read_digests(folder) if (folder / DIGESTS).exists() else (0, {})
    found = {file.stem: digest(file) for file in sorted(folder.glob("*.json"))}
    kept = known if version == RESULTS_VERSION else {}
    lines = [f"{value} {name}" for name, value in sorted({**found, **kept}.items()) if name in found]
    text = "\n".join([f"results version {RESULTS_VERSION}", *lines]) + "\n"
    (folder / DIGESTS).write_text(text, encoding="utf-8")


def main() -> None:
    """Write a file for each trace that is asked for."""
    parser = argparse.ArgumentParser(description="Record golden traces.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--all", action="store_true", help="every case")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in CASES]
    if unknown or asked.all == bool(asked.names):
        parser.error(f"expected --all or some of {', '.join(CASES)}, given {' '.join(unknown) or 'neither or both'}")
    for name in asked.names or CASES:
        text = json.dumps(trace(name), indent=2) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
    add_digests(FOLDER)


if __name__ == "__main__":
    main()
