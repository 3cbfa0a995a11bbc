"""Typed attempts: reading returns what was written, and wrong types are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crwn.code import Code
from crwn.faults import InvalidError
from crwn.testing import Conditions, finished_record, tiny_trial
from orchestrator.store.attempts import (
    Attempt,
    AttemptError,
    OutOfMemory,
    Position,
    attempts_bytes,
    code_changes,
    contributing,
    read_attempts,
)
from orchestrator.store.json_fields import Fields, sealed
from tests.refusals import refused

RECORD = finished_record(tiny_trial(), conditions=Conditions(device="cuda"))

WHOLE = Attempt(
    started="2026-01-31T12:00:00+00:00",
    host="here",
    pid=7,
    spec=RECORD.trial.spec,
    grouping="any",
    gpus=0.25,
    began_at=Position(),
    reached=Position(tasks_learned=1, step=2),
    out_of_memory=(OutOfMemory(group_size=1, step=0, error="2 GiB"),),
    discarded_resume_point="it is damaged",
    error=AttemptError(type="OSError", message="no\nspace", traceback="Traceback ..."),
    versions={"torch": "2.11.0", "python": "3.11.0"},
    code=Code(method="0a", crwn="0b", results_version=1),
)


def test_attempts_come_back_from_their_file() -> None:
    """Whole ones, and one that says nothing."""
    assert read_attempts(attempts_bytes([WHOLE, Attempt()])) == (WHOLE, Attempt())
    assert json.loads(attempts_bytes([Attempt()])) == sealed({"attempts": [{"gpus": None}]})
    assert set(WHOLE.content()) == {
        *("started", "host", "pid", "spec", "grouping", "gpus", "from", "reached", "out_of_memory"),
        *("discarded_resume_point", "error", "versions", "code"),
    }


def _tried(*place: int, **said: Any) -> Attempt:
    """An attempt that began at a place, and what it says of its code."""
    began = Position(tasks_learned=place[0], step=place[1]) if place else None
    code = Code(method=said.pop("method", None), crwn=said.pop("crwn", None))
    return Attempt(began_at=began, versions=said or None, code=code)


@pytest.mark.parametrize(
    ("attempts", "places"),
    [
        ([], []),
        ([_tried()], []),
        ([_tried(0, 0)], [(0, 0)]),
        ([_tried(0, 0), _tried(), _tried(0, 5), _tried(2, 0)], [(0, 0), (0, 5), (2, 0)]),
        ([_tried(0, 0), _tried(0, 5), _tried(0, 0), _tried(1, 1)], [(0, 0), (1, 1)]),
        ([_tried(0, 0), _tried(0, 5), _tried(0, 5)], [(0, 0), (0, 5)]),
        ([_tried(0, 0), _tried(3, 2), _tried(3, 1)], [(0, 0), (3, 1)]),
        ([_tried(1, 4)], [(1, 4)]),
    ],
)
def test_who_contributed(attempts: list[Attempt], places: list[tuple[int, int]]) -> None:
    """Not attempts that never began, that made no later resume point, or that came before a fresh start."""
    found = [made.began_at for made in contributing(attempts)]
    assert [(place.tasks_learned, place.step) for place in found if place] == places


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([_tried(0, 0, torch="1"), _tried(0, 1, torch="1")], ""),
        ([_tried(0, 0, torch="1"), _tried(0, 1, torch="2"), _tried(0, 2, torch="1")], "torch 1 -> 2 -> 1"),
        ([_tried(0, 0, torch="1"), _tried(0, 1), _tried(0, 2, torch="2")], "torch 1 -> 2"),
        ([_tried(0, 0, torch="1"), _tried(0, 1, torch="2"), _tried(0, 1, torch="1")], ""),
        ([_tried(0, 0, ray="1", torchvision="1"), _tried(0, 1, ray="2", torchvision="2")], ""),
        ([_tried(0, 0, python="3.11.7"), _tried(0, 1, python="3.12.1")], "Python 3.11 -> 3.12"),
        ([_tried(0, 0, numpy="1"), _tried(0, 1, numpy="2")], "numpy 1 -> 2"),
        ([_tried(0, 0, method="a", crwn="b"), _tried(0, 1, method="c", crwn="b")], "other code of the method"),
        ([_tried(0, 0, method="a", crwn="b"), _tried(0, 1, crwn="c")], "other code of crwn"),
        ([Attempt(began_at=Position()), _tried(0, 1, method="a", torch="2")], ""),
    ],
)
def test_what_the_attempts_code_differs_in(attempts: list[Attempt], expected: str) -> None:
    """As far as numbers depend on it; what an older crwn did not record agrees with anything."""
    assert code_changes(attempts) == expected


def test_an_older_attempt_says_less() -> None:
    """What it does not say is None, and no fault; nor is a key that a newer one has."""
    assert Attempt.read(Fields({"of a newer crwn": 1})) == Attempt()


def test_an_error_is_told_in_a_line() -> None:
    """Its kind and its words, as far as they are known."""
    assert WHOLE.error is not None
    assert (WHOLE.error.text, WHOLE.error.line) == ("OSError: no\nspace", "OSError: no")
    assert AttemptError(type="KeyboardInterrupt").line == "KeyboardInterrupt"
    assert AttemptError().line == ""


@pytest.mark.parametrize(
    ("said", "place", "code"),
    [
        ({"started": "yesterday"}, "started: ", "not-a-time"),
        ({"started": 7}, "started: ", "wrong-type"),
        ({"pid": -1}, "pid: ", "not-a-count"),
        ({"pid": 10**30}, "pid: ", "not-a-count"),
        ({"pid": True}, "pid: ", "not-a-count"),
        ({"gpus": "all"}, "gpus: ", "not-a-quantity"),
        ({"from": []}, "from: ", "wrong-type"),
        ({"from": {"step": 1}}, "from.tasks_learned: ", "missing-key"),
        ({"reached": {"tasks_learned": 1, "step": "x"}}, "reached.step: ", "not-a-count"),
        ({"out_of_memory": {}}, "out_of_memory: ", "wrong-type"),
        ({"out_of_memory": [{"group_size": 1}]}, "out_of_memory[0].step: ", "missing-key"),
        ({"error": {"type": 5}}, "error.type: ", "wrong-type"),
        ({"host": "x" * 10_001}, "host: ", "text-too-long"),
        ({"versions": {"torch": "2" * 10_001}}, "versions.torch: ", "text-too-long"),
        ({"versions": 5}, "versions: ", "wrong-type"),
        ({"versions": {"torch": 2}}, "versions.torch: ", "wrong-type"),
        ({"code": "0a"}, "code: ", "wrong-type"),
        ({"code": {"method": 1}}, "code.method: ", "wrong-type"),
        ({"code": {"results_version": -1}}, "code.results_version: ", "not-a-count"),
        ({"spec": {}}, "spec.method: ", "missing-key"),
        ({"spec": {**RECORD.trial.spec.values, "training": {}}}, "spec.training.updates_per_task: ", "missing-key"),
        ({"spec": {**RECORD.trial.spec.values, "seed": None}}, "spec.seed: ", "not-a-count"),
    ],
)
def test_an_attempt_of_another_kind_is_refused(said: dict[str, Any], place: str, code: str) -> None:
    """By the name of the field."""
    with refused(InvalidError, code, says=place):
        Attempt.read(Fields(said))


def test_half_a_surrogate_pair_is_spelled_out() -> None:
    """No encoding has it, so that it could not be shown; messages that name a file in another encoding do."""
    content = attempts_bytes([Attempt(error=AttemptError(type="OSError", message="a\udc80b"))])
    (attempt,) = read_attempts(content)
    assert attempt.error is not None
    assert attempt.error.line == r"OSError: a\udc80b"
