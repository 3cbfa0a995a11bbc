"""A small trial of each method gives the numbers that it gave when its trace was recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.golden import record
from tests.methods import CASES

FOLDER = Path(__file__).resolve().parent


def advice(name: str) -> str:
    return (
        "If results are meant to change, record the trace anew with\n"
        f"    .venv/bin/python -m tests.golden.record {name}\n"
        'and say so under "Changed results" in the change log; otherwise the last change broke something.'
    )


def test_no_trace_is_left_of_a_method_that_is_gone() -> None:
    """A file for each case, and no other."""
    assert {file.stem for file in FOLDER.glob("*.json")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_recorded(name: str) -> None:
    """Frozen weights bit for bit, accuracies to the image and losses to six digits, but where the case says why not.

    The trial's JSON is the recorded one to the letter, so that no trial of the method has lost its identity.
    """
    file = FOLDER / f"{name}.json"
    assert file.exists(), f"there is no trace. {advice(name)}"
    recorded = json.loads(file.read_text(encoding="utf-8"))
    canonical = json.dumps(recorded["spec"], sort_keys=True, separators=(",", ":"))
    assert record.spec_of(name).canonical_json() == canonical, f"the trace is of another trial. {advice(name)}"
    found = record.trace(name)
    assert found["fingerprint"] == recorded["fingerprint"], f"the frozen weights changed. {advice(name)}"
    assert set(found) == set(recorded), advice(name)
    tolerances = {"loss": CASES[name].tolerances.loss, "accuracy": CASES[name].tolerances.accuracy}
    for part in set(recorded) - {"spec", "fingerprint"}:
        for task, (values, expected) in enumerate(zip(found[part], recorded[part], strict=True)):
            assert set(values) == set(expected), f"{part}, task {task}. {advice(name)}"
            for key, number in expected.items():
                tolerance = tolerances[key.rpartition("_")[2]]
                assert values[key] == pytest.approx(number, rel=0, abs=tolerance), (
                    f"{part}, task {task}, {key}. {advice(name)}"
                )


def test_the_trace_of_one_method_is_recorded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the others nothing is written, and what is written is what the test above reads."""
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["record", "flynet"])
    record.main()
    (written,) = tmp_path.iterdir()
    assert written.name == "flynet.json"
    assert json.loads(written.read_text())["spec"] == json.loads((FOLDER / "flynet.json").read_text())["spec"]


@pytest.mark.parametrize("arguments", [[], ["flynet", "--all"], ["flynett"]])
def test_a_recording_of_nothing_known_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Whoever names no case is told which there are, and nothing is recorded by accident."""
    monkeypatch.setattr(sys, "argv", ["record", *arguments])
    with pytest.raises(SystemExit):
        record.main()
    assert "flynet, supsup" in capsys.readouterr().err
