"""Errors that are the user's to mend."""

from __future__ import annotations

from orchestrator.errors import nearest


def test_a_misspelt_name_is_recognised() -> None:
    """All known names are listed, and the one that was probably meant is named."""
    assert nearest("flynett", ["supsup", "flynet"]) == (
        "expected one of flynet, supsup; given 'flynett'; did you mean 'flynet'?"
    )


def test_a_name_like_no_other_gets_no_guess() -> None:
    """A wild guess would send the reader the wrong way."""
    assert nearest("xyz", ["supsup", "flynet"]) == "expected one of flynet, supsup; given 'xyz'"


def test_long_names_and_lists_are_shortened() -> None:
    """What a file may hold without end is neither printed nor compared whole."""
    told = nearest("x" * 10**6, (f"label{number}" for number in range(10**5)))
    assert "label0, label1, " in told
    assert " or 99900 more; given 'xxx" in told
    assert len(told) < 2000
