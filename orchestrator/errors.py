"""Errors that are the user's to mend: shown as a few lines, never as a traceback."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

MAX_SHOWN = 100
"""Characters of a faulty value that are shown, and names in a list of those that are known."""


class UserError(Exception):
    """The input is wrong and nothing was started: exit code 2. Says what was expected, given, where, what to do."""


class UnavailableError(UserError):
    """Where trials are to run cannot be started or does not answer, so that nothing more can be asked there."""


class UnfinishedError(UserError):
    """Something was started or written, and what comes after it failed: exit code 1. Says how to go on."""


class StorageError(UserError, OSError):
    """A store's storage refused something, did not answer for longer than anybody waits, or leads elsewhere."""


class LostError(StorageError, UnfinishedError):
    """The store that a run works on is no longer where it was: renamed, removed, or another is in its place."""


@contextlib.contextmanager
def begun(remedy: str) -> Iterator[None]:
    """Around what follows the first thing that a command starts or writes: its failures leave something unfinished.

    Args:
        remedy: how to go on, a sentence.

    Raises:
        UnfinishedError: in the place of an error of the user's, of a storage's or of the operating system's.
    """
    try:
        yield
    except UnfinishedError:
        raise
    except (UserError, OSError) as error:
        raise UnfinishedError(f"{str(error).rstrip('.')}. {remedy}") from error


def shortened(text: str, length: int = MAX_SHOWN) -> str:
    """A text of which only the beginning is shown where it is long."""
    return text if len(text) <= length else f"{text[:length]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names, and the one that `name` was probably meant to be, for the end of an error."""
    names = sorted(known)
    if not names:
        return f"expected none here; given {shortened(name)!r}"
    # Comparing takes time with the length of both; nobody misspells what is longer.
    close = difflib.get_close_matches(name, names, n=1) if len(name) <= MAX_SHOWN else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(map(shortened, names[:MAX_SHOWN]))
    more = f" or {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return f"expected one of {listed}{more}; given {shortened(name)!r}{hint}"
