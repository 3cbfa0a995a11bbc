"""Checks of an error: its type, the codes of its faults, and facts in its message, independent of the wording."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest

from crwn.faults import FaultError

E = TypeVar("E", bound=FaultError)


@contextlib.contextmanager
def refused(kind: type[E], *codes: str, says: str | Sequence[str] = ()) -> Iterator[pytest.ExceptionInfo[E]]:
    """Check that the block raises an error of this type, with exactly these codes, in the order of its faults.

    Args:
        kind: the error's type.
        codes: of all the faults that it reports.
        says: facts that its message must contain: the name and value given, the nearest name, a file's path. Wording
            is tested in `tests/test_sentences.py`.
    """
    with pytest.raises(kind) as caught:
        yield caught
    check_refusal(caught.value, *codes, says=says)


def check_refusal(error: BaseException, *codes: str, says: str | Sequence[str] = ()) -> None:
    """The same for an error that was returned or stored."""
    assert isinstance(error, FaultError)
    assert error.codes == codes, f"{error.codes}: {error}"
    for fact in [says] if isinstance(says, str) else says:
        assert fact in str(error)
