"""A small trial of each method gives the numbers of its recorded trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from crwn.code import RESULTS_VERSION
from tests.golden import record
from tests.methods import CASES

FOLDER = Path(__file__).resolve().parent


def advice(name: str) -> str:
    return (
        "If results are meant to change, raise RESULTS_VERSION in crwn/code.py, record the trace anew with\n"
        f"    .venv/bin/python -m tests.golden.record {name}\n"
        'and say so under "Changed results" in the change log; otherwise the last change broke something.'
    )


def test_no_trace_is_left_of_a_method_that_is_gone() -> None:
    """There is one file per case, and no other."""
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
    written, digests = sorted(tmp_path.iterdir(), reverse=True)
    assert (written.name, digests.name) == ("flynet.json", record.DIGESTS)
    assert json.loads(written.read_text())["spec"] == json.loads((FOLDER / "flynet.json").read_text())["spec"]


def test_a_trace_that_changed_has_another_version_of_results() -> None:
    """Otherwise, trials with old and new results would be averaged."""
    version, digests = record.read_digests(FOLDER)
    anew = "record any trace anew, which lists it"
    assert version == RESULTS_VERSION, f"{record.DIGESTS} is of another version of results: {anew}"
    found = {file.stem: record.digest(file) for file in FOLDER.glob("*.json")}
    assert set(digests) == set(found), f"{record.DIGESTS} lists other traces than there are: {anew}"
    changed = [name for name in found if found[name] != digests[name]]
    assert changed == [], f"of results version {version} these traces were others. {advice(' '.join(changed))}"


def test_digests_of_a_version_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new trace is added; one that changed keeps its digest until the version is raised."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text('{"tasks": [1]}')
    record.add_digests(tmp_path)
    first = record.read_digests(tmp_path)
    assert first == (RESULTS_VERSION, {"old": record.digest(old)})
    old.write_text('{"tasks": [2]}')
    new.write_text('{"tasks": [3]}')
    record.add_digests(tmp_path)
    assert record.read_digests(tmp_path) == (RESULTS_VERSION, {**first[1], "new": record.digest(new)})
    monkeypatch.setattr(record, "RESULTS_VERSION", RESULTS_VERSION + 1)
    record.add_digests(tmp_path)
    assert record.read_digests(tmp_path)[1]["old"] == record.digest(old) != first[1]["old"]


@pytest.mark.parametrize("arguments", [[], ["flynet", "--all"], ["flynett"]])
def test_a_recording_of_nothing_known_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Without names, the cases are listed, and nothing is recorded by accident."""
    monkeypatch.setattr(sys, "argv", ["record", *arguments])
    with pytest.raises(SystemExit):
        record.main()
    assert "flynet, supsup" in capsys.readouterr().err
