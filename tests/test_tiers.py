"""The tests are in tiers, each a target of make: all of them are run by some target, and none by two."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TIERS = ("test", "test-all", "chaos", "cluster-test")
MARKS = ("slow", "chaos", "cluster")
SETS_OF_MARKS = [marks for size in range(len(MARKS) + 1) for marks in itertools.combinations(MARKS, size)]


def expressions() -> dict[str, str]:
    """Which tests each tier takes: the expression over marks that its target gives pytest."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r'^([a-z-]+):.*\n\t\$\(BIN\)/python -m pytest .*-m "(.+?)"', makefile, flags=re.MULTILINE))


def takes(expression: str, marks: set[str]) -> bool:
    """Whether an expression of the form `a and not b` holds for a test that carries these marks alone."""
    terms = [term.rpartition("not ") for term in expression.split(" and ")]
    assert {mark for *_, mark in terms} <= set(MARKS)
    return all((mark in marks) != bool(negation) for _, negation, mark in terms)


@pytest.mark.parametrize("marks", SETS_OF_MARKS, ids=lambda marks: " and ".join(marks) or "none")
def test_every_test_is_in_one_tier(marks: tuple[str, ...]) -> None:
    """Whatever marks it carries, exactly one target runs it."""
    assert tuple(expressions()) == TIERS
    assert len([tier for tier, expression in expressions().items() if takes(expression, set(marks))]) == 1


def test_quick_tests_start_no_cluster_and_no_whole_run(request: pytest.FixtureRequest) -> None:
    """Of those that were collected with this one: Ray and whole runs that are disturbed are for the other tiers."""
    quick = [item for item in request.session.items if not any(map(item.get_closest_marker, MARKS))]
    slow = [item.nodeid for item in quick if item.get_closest_marker("ray") or "/integration/" in item.nodeid]
    assert slow == []


def test_continuous_integration_runs_the_first_two() -> None:
    """What is quick and what is not; who breaks machines and builds clusters does so by hand."""
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [tier for tier in TIERS if f"make {tier}" in run] == ["test", "test-all"]
