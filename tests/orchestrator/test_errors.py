"""Errors that the user can fix."""

from __future__ import annotations

import pytest

from crwn.faults import codes_of
from orchestrator.errors import StorageError, UnfinishedError, UserError, begun, nearest
from tests.refusals import refused


def test_a_misspelt_name_is_recognised() -> None:
    """All known names are listed, and the one that was probably meant is named."""
    assert nearest("flynett", ["supsup", "flynet"]) == (
        "expected one of flynet, supsup; given 'flynett'; did you mean 'flynet'?"
    )


def test_a_name_like_no_other_gets_no_guess() -> None:
    """A wild guess would mislead the reader."""
    assert nearest("xyz", ["supsup", "flynet"]) == "expected one of flynet, supsup; given 'xyz'"


def test_long_names_and_lists_are_shortened() -> None:
    """What a file may hold without end is neither printed nor compared whole."""
    told = nearest("x" * 10**6, (f"label{number}" for number in range(10**5)))
    assert "label0, label1, " in told
    for fact in (" 99900 more;", "given 'xxx"):
        assert fact in told
    assert len(told) < 2000


@pytest.mark.parametrize(
    "error",
    [UserError("broken", "a."), StorageError("broken", "a"), OSError("a"), UnfinishedError("broken", "a. Go on.")],
)
def test_what_fails_after_something_was_begun_is_unfinished(error: Exception) -> None:
    """Whatever it is that fails, and told once; other errors are the program's own."""
    with refused(UnfinishedError, *codes_of(error, "system-refused")) as caught, begun("Go on."):
        raise error
    assert str(caught.value) == "a. Go on."
    with pytest.raises(ValueError, match="own"), begun("Go on."):
        raise ValueError("own")
