"""Errors that the user can fix: shown in a few lines, never as a traceback."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

from crwn.faults import FaultError, codes_of

MAX_SHOWN = 100
"""Limit on the characters shown of a faulty value, and on the names in a list of known ones."""


class UserError(FaultError):
    """The input is wrong; nothing was started: exit code 2. States what was expected and given, where, and the fix."""


class UnavailableError(UserError):
    """The cluster or local Ray cannot be started or does not answer, so no further checks are possible."""


class UnfinishedError(UserError):
    """Something was started or written, and a later step failed: exit code 1. Says how to continue."""


class StorageError(UserError, OSError):
    """A store's storage refused an operation, did not answer in time, or leads elsewhere."""


class LostError(StorageError, UnfinishedError):
    """The store of a run is gone from its address: renamed, removed, or replaced by another."""


@contextlib.contextmanager
def begun(remedy: str) -> Iterator[None]:
    """Wraps everything after a command first starts or writes something, where a failure leaves work unfinished.

    Args:
        remedy: a sentence that says how to continue.

    Raises:
        UnfinishedError: instead of a user error, a storage error, or an error of the operating system.
    """
    try:
        yield
    except UnfinishedError:
        raise
    except (UserError, OSError) as error:
        codes = codes_of(error, "system-refused")
        raise UnfinishedError(codes, f"{str(error).rstrip('.')}. {remedy}") from error


def shortened(text: str, length: int = MAX_SHOWN) -> str:
    """Text cut to `length` characters."""
    return text if len(text) <= length else f"{text[:length]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the known names, and the one closest to `name`."""
    names = sorted(known)
    if not names:
        return f"expected none here; given {shortened(name)!r}"
    # The time of a comparison grows with both lengths, and longer names are not typing errors.
    close = difflib.get_close_matches(name, names, n=1) if len(name) <= MAX_SHOWN else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(map(shortened, names[:MAX_SHOWN]))
    more = f" or {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return f"expected one of {listed}{more}; given {shortened(name)!r}{hint}"
