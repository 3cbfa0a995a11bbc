"""Errors that are the user's to mend: shown as a few lines, never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The input is wrong and nothing was started: exit code 2. Says what was expected, given, where, what to do."""


class StorageError(UserError, OSError):
    """A store's storage refused something, did not answer for longer than anybody waits, or leads elsewhere."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names, and the one that `name` was probably meant to be, for the end of an error."""
    names = sorted(known)
    if not names:
        return f"expected none here; given {name!r}"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected one of {', '.join(names)}; given {name!r}{hint}"
