"""A small trial of each method gives the numbers that it gave when its trace was recorded."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from crwn.methods import METHODS

FOLDER = Path(__file__).resolve().parent
RECORDER = FOLDER / "record.py"

TOLERANCES = {
    "neuromodnet": {"loss": 1e-6, "accuracy": 1e-9},
    "flynet": {"loss": 1e-6, "accuracy": 1e-9},
    # Its weights have one magnitude and the digits 17 grey levels: now and then a sum cancels exactly, and rounding
    # decides whether that unit is on. A way of summing that rounds otherwise has moved a loss by .001.
    "supsup": {"loss": 5e-3, "accuracy": 4 / 360},
}
"""Of losses and accuracies: sums in another order, on another processor, change the last of 16 digits."""

ADVICE = (
    "If results are meant to change, record the traces anew with\n"
    "    .venv/bin/python tests/golden/record.py\n"
    'and say so under "Changed results" in the change log; otherwise the last change broke something.'
)


@pytest.fixture(scope="module")
def recorder() -> dict[str, Any]:
    """The recorder's functions by name."""
    return runpy.run_path(str(RECORDER))


def test_every_method_has_a_trace(recorder: dict[str, Any]) -> None:
    """A new method is added to the recorder, and no trace is left of one that is gone."""
    assert set(recorder["SCALES"]) == set(METHODS)
    assert {file.stem for file in FOLDER.glob("*.json")} == set(METHODS), ADVICE


@pytest.mark.parametrize("name", METHODS)
def test_results_are_those_recorded(name: str, recorder: dict[str, Any]) -> None:
    """Frozen weights bit for bit, accuracies to the image and losses to six digits, SupSup's as stated above."""
    recorded = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    found = recorder["trace"](name)
    assert found["spec"] == recorded["spec"], f"the trace is of another trial. {ADVICE}"
    assert found["fingerprint"] == recorded["fingerprint"], f"the frozen weights changed. {ADVICE}"
    for task, (values, expected) in enumerate(zip(found["tasks"], recorded["tasks"], strict=True)):
        for key, number in expected.items():
            tolerance = TOLERANCES[name][key.rpartition("_")[2]]
            assert values[key] == pytest.approx(number, rel=0, abs=tolerance), f"task {task}, {key}. {ADVICE}"
