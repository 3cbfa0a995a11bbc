"""Files named by labels: different labels have different names, on any file system, whatever other files exist."""

from __future__ import annotations

import itertools
import re

import pytest

from orchestrator.report import filenames

LABELS = [
    *("a", "a/b", "a b", "a?b", "a-b", "a_b", "a.b", "a..b", "A", "A b", "a ", " a", "a--b", "-a", "a-", "_a", "a\\b"),
    *(
        ".",
        "..",
        "/",
        "~",
        "con",
        "NUL",
        "é",
        "e\u0301",
        "网络",
        "网",
        "🚀",
        "ß",
        "SS",
        "ss",
        "İ",
        "i\u0307",
        "a-2",
        "a-1",
    ),
    *("x" * 100, "x" * 101, "x" * 5000, "x" * 4999 + "y", "deadbeef", "a-deadbeef", "r-digits", "tasks", "a-tasks"),
]


def test_plain_labels_are_their_own_names() -> None:
    """Files that are named today keep their names; what a name shows of others is readable."""
    for label in ("r-digits", "p-mnist", "split-cifar100", "own_name", "a-2", "x" * 100):
        assert filenames.part(label) == label
    assert re.fullmatch("rotated-digits-36-[0-9a-f]{8}", filenames.part("rotated digits, 36"))
    assert filenames.figure("small-table1", "r-digits", "tasks") == "small-table1-r-digits-tasks"


def test_unlike_labels_have_unlike_names() -> None:
    """By more than capitals, and so do labels that are called as another label's file is."""
    labels = dict.fromkeys(LABELS)
    for _ in range(3):
        labels |= dict.fromkeys([filenames.part(label) for label in labels])
        labels |= dict.fromkeys([filenames.part(label).upper() for label in labels])
    names = [filenames.part(label).casefold() for label in labels]
    assert len(set(names)) == len(labels)


@pytest.mark.parametrize("label", LABELS)
def test_a_name_is_short_and_leads_nowhere_else(label: str) -> None:
    """ASCII, without dots or slashes; it depends only on the label."""
    name = filenames.part(label)
    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name)
    assert filenames.part(label) == name
    longest = f"{filenames.figure('s' * 100, label, 'parameters')}-deadbeef.csv"
    assert len(longest) + len(".12345678.part") < 255


def test_a_sweeps_table_is_called_as_no_other_tables() -> None:
    """Nor is one sweep's comparison called as another sweep's ranks, whatever the sweeps and rows are called."""
    sweeps = ["a", "a.ranks", "a.ablations", "a.against-b", "a.table1", "a.ranks.ranks", "paper-table1"]
    sweeps += [filenames.table(sweep) for sweep in sweeps] + ["accuracy-method-by-benchmark", "b-by-c"]
    names = []
    for sweep in dict.fromkeys(sweeps):
        names += [filenames.table(sweep), f"{sweep}.ranks", f"{sweep}.ablations"]
        names += [filenames.against(sweep, row) for row in ("b", "b.ranks", "b ranks", "B", "x\\y")]
    names += ["paper-table1", "accuracy-method-by-benchmark"]
    assert len({name.casefold() for name in names}) == len(names)
    assert filenames.table("A.RANKS").casefold() != "a.ranks"
    assert [filenames.table(name) for name in ("a", "b-by-c", "small.table1-x")] == ["a", "b-by-c", "small.table1-x"]


def test_equal_names_are_set_apart_by_what_they_are_of() -> None:
    """The first keeps its own; one that is added behind changes none before it; none is taken twice."""
    wanted = [("a", "first"), ("a", "second"), ("A", "third"), ("b", "fourth"), ("a", "second")]
    names = filenames.distinct(wanted)
    assert [names[0], names[3]] == ["a", "b"]
    assert len({name.casefold() for name in names}) == len(wanted)
    for length in range(len(wanted)):
        assert filenames.distinct(wanted[:length]) == names[:length]
    taken = [("a", "first"), (names[1], "its name"), ("a", "second")]
    assert len({name.casefold() for name in filenames.distinct(taken)}) == 3


def test_settings_keep_their_dots() -> None:
    """A table by settings is named as they are, and leads into no folder."""
    assert filenames.dotted("training.learning_rate") == "training.learning_rate"
    names = [filenames.dotted(name) for name in ("../x", "a/b", "a.b", "a", ".", "..")]
    assert not any("/" in name or ".." in name for name in names)
    assert all(one != other for one, other in itertools.combinations(names, 2))
