"""Printing for people: text verbatim and complete, in a terminal and without one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator import display
from orchestrator.display import NARROW, print_line, print_table, show_ratio, shown_method


def printed_table(width: int, *, rows: list[list[str]], caption: str = "") -> str:
    """A table with two columns of text and two of numbers."""
    file = io.StringIO()
    print_table(
        Console(file=file, width=width, force_terminal=False),
        title="a [bold] title",
        text_columns=("method", "[red]label[/red]"),
        number_columns=("tasks", "params/task"),
        rows=rows,
        caption=caption,
    )
    return file.getvalue()


def cells_of(text: str) -> list[list[str]]:
    """The rows of a table with the text of each cell."""
    return [[part.strip() for part in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_a_table_shows_texts_as_they_are() -> None:
    """Title, headers, cells and caption: brackets are no markup, whether they close or not."""
    text = printed_table(200, rows=[["[/closed]", "[red]x[/red]", "6", "1,299"]], caption="the [caption]")
    assert text.startswith("a [bold] title")
    assert "[red]label[/red]" in text
    assert cells_of(text) == [["[/closed]", "[red]x[/red]", "6", "1,299"]]
    assert text.endswith("the [caption]\n")


@pytest.mark.parametrize("width", [60, 80, NARROW - 1])
def test_numbers_are_never_broken(width: int) -> None:
    """On a narrow screen texts are folded, without losing a letter; a number that is broken reads as another."""
    label = "a label that is longer than the screen is wide, " * 3
    rows = cells_of(printed_table(width, rows=[["neuromodnet", label, "100", "1,268,800"]]))
    assert [rows[0][2], rows[0][3]] == ["100", "1,268,800"]
    assert "".join(row[1] for row in rows).replace(" ", "") == label.replace(" ", "")
    assert "".join(row[0] for row in rows) == "neuromodnet"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "1"),
        (1_014_528 / 268_800, "3.77"),
        (1_299 / 268_800, "0.00483"),
        (31_361 / 268_800, "0.117"),
        (0.5, "0.5"),
    ],
)
def test_a_ratio_has_three_digits(ratio: float, text: str) -> None:
    """However small it is; zeros at its end are left out."""
    assert show_ratio(ratio) == text


def test_a_method_that_is_not_continual_is_shown_as_one() -> None:
    """Behind its label; one that is continual keeps its own alone."""
    assert shown_method("my mtl", continual=False) == "my mtl (not continual)"
    assert shown_method("psp", continual=True) == "psp"


def test_a_line_is_whole() -> None:
    """No wrapping at the console's width, no markup, nothing highlighted."""
    file = io.StringIO()
    line = "[red] 'text' 12:34:56 /a/path " * 20
    print_line(Console(file=file, width=40, force_terminal=False), line)
    assert file.getvalue() == f"{line}\n"


def test_a_line_in_a_terminal_has_no_colours_of_its_own() -> None:
    """Numbers and paths are not coloured as if they meant something."""
    file = io.StringIO()
    print_line(Console(file=file, width=40, force_terminal=True, color_system="truecolor"), "seed 3: 12 /a/path")
    assert file.getvalue() == "seed 3: 12 /a/path\n"


def test_without_a_terminal_nothing_is_cut_or_coloured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the environment says of colours and widths."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    console = display.console()
    print_line(console, "[a] 1 " * 100)
    print_table(console, title="t", text_columns=("a",), number_columns=("b",), rows=[["x" * 500, "1"]])
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "x" * 500 in text
    assert text.startswith("[a] 1 " * 100 + "\n")
