"""Which trials may be averaged as seeds of one cell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.store.accepted import NOTHING
from orchestrator.store.compatibility import (
    APART,
    code_changes,
    describe,
    flat,
    major,
    mixture,
    noted,
    settings_of,
    show_code_changes,
    show_mixture,
)

SPEC = {"method": {"kind": "psp"}, "scale": "FC16", "seed": 3, "training": {"dtype": "float32", "learning_rate": 0.1}}


OLD, NEW, NEWER = ("0" * 15 + digit for digit in "abc")
"""Fingerprints of a method's file."""


def row(seed: int = 0, *, fingerprint: str = "f" * 64, **said: Any) -> dict[str, Any]:
    """What a trial's record says."""
    spec = {**SPEC, "seed": seed, **said.get("spec", {})}
    numerics = {"device": "cpu", "kernel": "torch", "threads": 1, "group_size": 4, **said.get("numerics", {})}
    code = {"method": OLD, "crwn": "0b", "results_version": 1}
    origin = {"host": "here", "versions": {"crwn": "1.2.3", "torch": "2.15.0"}, "code": code}
    origin |= said.get("provenance", {})
    texts = (json.dumps(spec), json.dumps(numerics), json.dumps(origin), fingerprint)
    return {"seed": seed, **describe(*texts, accepted=said.get("accepted", NOTHING))}


def of_code(seed: int, code: str | None, version: int | None = 1, **said: Any) -> dict[str, Any]:
    """Likewise, computed with this code of the method and this version of results."""
    told = {"method": code, "results_version": version}
    known = {name: value for name, value in told.items() if value is not None}
    return row(seed, provenance={"code": known}, **said)


def test_trials_that_differ_by_seed_alone_agree() -> None:
    """Whatever the order of the keys in their JSON."""
    assert settings_of({"b": 1, "seed": 2, "a": {"y": 1, "x": 2}}) == settings_of({"a": {"x": 2, "y": 1}, "b": 1})
    assert mixture([row(0), row(1), row(2)]) == {}


@pytest.mark.parametrize(
    ("other", "name", "values"),
    [
        ({"spec": {"scale": "FC32"}}, "scale", ("FC16", "FC32")),
        (
            {"spec": {"training": {"dtype": "bfloat16", "learning_rate": 0.1}}},
            "training.dtype",
            ("float32", "bfloat16"),
        ),
        ({"spec": {"method": {"kind": "psp", "later": 7}}}, "method.later", ("as before", "7")),
        ({"numerics": {"device": "cuda"}}, "numerics.device", ("cpu", "cuda")),
        ({"provenance": {"versions": {"crwn": "2.0.0"}}}, "crwn", ("1", "2")),
        ({"fingerprint": "second:" + "f" * 64}, "backbones", ("first", "second")),
        ({"provenance": {"code": {"method": NEW, "results_version": 1}}}, "code.method", (OLD, NEW)),
        ({"provenance": {"code": {"method": OLD, "results_version": 2}}}, "code.results_version", ("1", "2")),
    ],
)
def test_what_keeps_trials_apart(other: dict[str, Any], name: str, values: tuple[str, str]) -> None:
    """Settings, the kind of processor, the version that changes meaning, the scheme of frozen weights; by seed."""
    found = mixture([row(0), row(1), row(2, **other)])
    assert found == {name: {values[0]: [0, 1], values[1]: [2]}}
    assert show_mixture(found) == f"{name} is {values[0]} (seeds 0, 1), {values[1]} (seed 2)"


@pytest.mark.parametrize(
    "other",
    [
        {"numerics": {"kernel": "onednn"}},
        {"numerics": {"group_size": 8}},
        {"numerics": {"threads": 2}},
        {"provenance": {"host": "there", "versions": {"crwn": "1.9.0", "torch": "2.15.0"}}},
        {"provenance": {"versions": {"crwn": "1.2.3", "torch": "2.15.1"}}},
        {"provenance": {"code": {"method": OLD, "crwn": "1b", "results_version": 1}}},
        {"provenance": {"code": {"crwn": "0b", "results_version": 1}}},
        {"provenance": {"code": {"method": OLD, "crwn": "0b"}}},
    ],
)
def test_what_is_only_noted(other: dict[str, Any]) -> None:
    """Results agree over most of these within a tested tolerance; a table says that they differ."""
    rows = [row(0), row(1, **other)]
    assert mixture(rows) == {}
    assert len(noted(rows)) == 1


def test_code_that_is_not_known_agrees_with_any() -> None:
    """And keeps none together that is known."""
    assert mixture([of_code(0, None), of_code(1, OLD)]) == mixture([of_code(0, OLD), of_code(1, OLD, None)]) == {}
    found = mixture([of_code(0, OLD), of_code(1, None), of_code(2, NEW)])
    assert found == {"code.method": {OLD: [0], NEW: [2]}}
    assert noted([of_code(0, None, None), of_code(1, None, None)]) == {}
    assert noted([of_code(0, OLD), of_code(1, None)]) == {"code.method": {OLD: [0], "unknown": [1]}}


def test_codes_that_a_user_counts_as_one_are_one() -> None:
    """Of that method alone; they are noted. A third code stays another."""
    accepted = NOTHING.adding("psp", codes=[OLD, NEW], results_versions=[1, 2])
    rows = [of_code(0, OLD, accepted=accepted), of_code(1, NEW, 2, accepted=accepted)]
    assert mixture(rows) == {}
    assert noted(rows) == {"code.method": {OLD: [0], NEW: [1]}, "code.results_version": {"1": [0], "2": [1]}}
    third = mixture([*rows, of_code(2, NEWER, 3, accepted=accepted)])
    assert third["code.method"] == {OLD: [0], NEW: [1], NEWER: [2]}
    assert third["code.results_version"] == {"1": [0], "2": [1], "3": [2]}
    others = NOTHING.adding("ewc", codes=[OLD, NEW])
    assert mixture([of_code(0, OLD, accepted=others), of_code(1, NEW, accepted=others)]) != {}


def test_what_one_store_accepts_holds_beside_another_stores_trials() -> None:
    """Whose records are of one of the codes; a method of which nothing was accepted gains nothing by it."""
    here, elsewhere = of_code(0, OLD, accepted=NOTHING.adding("psp", codes=[OLD, NEW])), of_code(1, NEW)
    assert mixture([here, elsewhere]) == {}
    versions = NOTHING.adding("psp", results_versions=[1, 2])
    ewc = {"spec": {"method": {"kind": "ewc"}}}
    rows = [of_code(0, OLD, 1, accepted=versions), of_code(0, OLD, 1, **ewc), of_code(1, OLD, 2, **ewc)]
    assert "code.results_version" in mixture(rows)


def test_unlike_methods_have_unlike_code() -> None:
    """What differs by design keeps no comparison apart; within one of the methods it does."""
    ewc = {"spec": {"method": {"kind": "ewc"}}}
    between = [name for name in APART if name != "settings"]
    rows = [of_code(0, OLD), of_code(0, NEW, **ewc)]
    assert mixture(rows, between) == {}
    assert mixture([*rows, of_code(1, NEWER, **ewc)], between) == {"code.method": {NEW: [0], NEWER: [1]}}
    assert mixture([of_code(0, OLD), of_code(0, NEW, 2, **ewc)], between).keys() == {"code.results_version"}


def test_code_changes_are_told_by_seed() -> None:
    """Of trials that say some; an older record says nothing, and columns may hold nothing at all."""
    marked = row(1, provenance={"code_changes": "torch 1 -> 2, other code of crwn"})
    rows = [row(0), marked, {"seed": 2}, {"seed": 3, "code_changes": float("nan")}]
    assert show_code_changes(rows) == "seed 1: torch 1 -> 2, other code of crwn"
    assert [code_changes(each) for each in rows] == ["", "torch 1 -> 2, other code of crwn", "", ""]


def test_what_an_older_record_does_not_say_is_no_difference() -> None:
    """Numerics without a device, provenance without versions, or no such columns at all."""
    older = {"seed": 1, **describe(json.dumps(SPEC), "{}", "{}", "none")}
    assert mixture([row(0), older]) == {}
    bare = [{"seed": 0, "accuracy": 0.5}, {"seed": 1}]
    assert mixture(bare) == noted(bare) == {}


@pytest.mark.parametrize(("version", "part"), [("2.1.0", "2"), ("0.3.1", "0.3"), ("10.0", "10"), (None, None)])
def test_the_part_of_a_version_that_changes_meaning(version: str | None, part: str | None) -> None:
    """The first number; before 1.0 the second too."""
    assert major(version) == part


def test_settings_have_dotted_names() -> None:
    """There is one for every value."""
    assert flat('{"a":{"b":{"c":1},"d":"x"},"e":null}') == {"a.b.c": 1, "a.d": "x", "e": None}
