"""A trial's spec, read from JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crwn.faults import InvalidError
from crwn.testing import tiny_trial
from crwn.trial_spec import TrialSpec
from tests.methods import CASES
from tests.refusals import refused

TRIAL: dict[str, Any] = {
    "method": {"kind": "neuromodnet"},
    "benchmark": {"kind": "rotated", "base": "digits", "num_tasks": 3},
    "scale": "FC64",
    "seed": 0,
    "training": {"learning_rate": 0.01},
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_is_read(name: str) -> None:
    """Reading a trial's canonical JSON gives the same trial, for every method and benchmark."""
    spec = CASES[name].trial()
    found = TrialSpec.from_json(spec.canonical_json())
    assert found == spec
    assert found.trial_id == spec.trial_id


def test_settings_may_be_left_out() -> None:
    """They have their spec's defaults; whole numbers may stand for floats, and spaces do not matter."""
    text = json.dumps({**TRIAL, "training": {"learning_rate": 1, "updates_per_task": 5}}, indent=2)
    expected = tiny_trial(scale="FC64", num_tasks=3, learning_rate=1.0)
    assert TrialSpec.from_json(text) == expected


def test_all_faults_are_said_at_once() -> None:
    """Each with its place, and the nearest name where one is unknown."""
    text = json.dumps(
        {
            "method": {"kind": "neuromodnet", "modulaton": "local"},
            "benchmark": {"kind": "rotate"},
            "scale": "FC64",
            "sead": 0,
            "training": {"optimizer": "adam", "batch_size": 0},
        }
    )
    places = ("sead: ", "; seed: ", "method.modulaton: ", "benchmark.kind: ", "training.learning_rate: ")
    nearest = ("did you mean 'seed'?", "did you mean 'modulation'?", "did you mean 'rotated'?")
    with refused(InvalidError, "unknown-key", "missing-key", "unknown-name", says=[*places, *nearest]):
        TrialSpec.from_json(text)


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"training": {"learning_rate": 0.1, "batch_size": 0}}, "too-small", ["training: batch_size: ", "given 0"]),
        ({"training": {"learning_rate": "0.1"}}, "wrong-type", ["training: learning_rate: ", "given '0.1'"]),
        ({"training": [0.1]}, "wrong-type", ["training: ", "given [0.1]"]),
        ({"method": "neuromodnet"}, "wrong-type", ["method: ", "one of neuromodnet, ", "given 'neuromodnet'"]),
        ({"method": {"kind": 1}}, "wrong-type", ["method: ", "given {'kind': 1}"]),
        ({"method": None}, "wrong-type", ["method: ", "given None"]),
        ({"seed": -1}, "too-small", ["seed: ", "given -1"]),
        ({"seed": True}, "wrong-type", ["seed: ", "given True"]),
        ({"scale": "FC0"}, "unknown-scale", ["scale: ", "FC256", "given 'FC0'"]),
        ({"x" * 1000: 1}, "unknown-key", ["x...: "]),
    ],
)
def test_a_wrong_value_is_refused(changes: dict[str, Any], code: str, says: list[str]) -> None:
    """As where a spec is made in Python, with its place."""
    with refused(InvalidError, code, says=says) as caught:
        TrialSpec.from_json(json.dumps({**TRIAL, **changes}))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "not-json"),
        ("no JSON", "not-json"),
        ("[]", "wrong-type"),
        ('"FC64"', "wrong-type"),
        (json.dumps(TRIAL)[:-1], "not-json"),
        (json.dumps(TRIAL).replace('"seed": 0', '"seed": 0, "seed": 1'), "repeated-key"),
        (json.dumps(TRIAL).replace("0.01", "NaN"), "not-finite"),
        (json.dumps(TRIAL).replace("0.01", "Infinity"), "not-finite"),
        (json.dumps(TRIAL).replace("0.01", "9" * 5000), "not-json"),
        ("[" * 100_000, "not-json"),
        (None, "wrong-type"),
        (b"{}", "wrong-type"),
        (TRIAL, "wrong-type"),
    ],
)
def test_what_is_no_spec_is_refused(text: Any, code: str) -> None:
    """Text that is not JSON or has another structure; NaN and infinity; values that are not text."""
    with refused(InvalidError, code) as caught:
        TrialSpec.from_json(text)
    assert len(str(caught.value)) < 1000
