"""A small trial of each method gives the numbers that it gave when its trace was recorded."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from crwn.methods import METHODS

FOLDER = Path(__file__).resolve().parent
RECORDER = FOLDER / "record.py"

FOUND = runpy.run_path(str(RECORDER))
"""The recorder's functions and tables by name."""

EXACT = {"loss": 1e-6, "accuracy": 1e-9}
"""Of losses and accuracies: sums in another order, on another processor, change the last of 16 digits."""

TOLERANCES = {
    # Its weights have one magnitude and the digits 17 grey levels: now and then a sum cancels exactly, and rounding
    # decides whether that unit is on. A way of summing that rounds otherwise has moved a loss by .001.
    "supsup": {"loss": 5e-3, "accuracy": 4 / 360},
}
"""Of methods that pass rounding on."""

ADVICE = (
    "If results are meant to change, record the traces anew with\n"
    "    .venv/bin/python tests/golden/record.py\n"
    'and say so under "Changed results" in the change log; otherwise the last change broke something.'
)


def test_every_method_has_a_trace() -> None:
    """A new method is recorded, and no trace is left of one that is gone."""
    assert set(METHODS) <= set(FOUND["CASES"])
    assert {file.stem for file in FOLDER.glob("*.json")} == set(FOUND["CASES"]), ADVICE


@pytest.mark.parametrize("name", FOUND["CASES"])
def test_results_are_those_recorded(name: str) -> None:
    """Frozen weights bit for bit, accuracies to the image and losses to six digits, SupSup's as stated above."""
    recorded = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    found = FOUND["trace"](name)
    assert found["spec"] == recorded["spec"], f"the trace is of another trial. {ADVICE}"
    assert found["fingerprint"] == recorded["fingerprint"], f"the frozen weights changed. {ADVICE}"
    assert set(found) == set(recorded), ADVICE
    tolerances = TOLERANCES.get(name, EXACT)
    for part in set(recorded) - {"spec", "fingerprint"}:
        for task, (values, expected) in enumerate(zip(found[part], recorded[part], strict=True)):
            assert set(values) == set(expected), f"{part}, task {task}. {ADVICE}"
            for key, number in expected.items():
                tolerance = tolerances[key.rpartition("_")[2]]
                assert values[key] == pytest.approx(number, rel=0, abs=tolerance), (
                    f"{part}, task {task}, {key}. {ADVICE}"
                )
