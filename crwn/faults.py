"""Errors that say by a code which kind of fault they report: for programs and tests, whatever the words.

The message is for people and may change; the code stays. It names what is wrong in a few words of kebab case, such as
`unknown-name` or `buffer-larger-than-data`, the same wherever the same is wrong. `error.codes` has those of all faults
that an error reports. What an error adds to another one, such as a file's name, does not change them (`codes_of`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self, TypeAlias

Codes: TypeAlias = str | tuple[str, ...]
"""A fault's code, or those of several faults."""


class Fault(str):
    """One thing that is wrong, as text, with its code: collected with others, since all are reported at once."""

    __slots__ = ("codes",)

    codes: tuple[str, ...]

    def __new__(cls, codes: Codes, message: str) -> Self:
        """A fault of this kind; of several if another error is the fault."""
        fault = super().__new__(cls, message)
        fault.codes = (codes,) if isinstance(codes, str) else codes
        return fault

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...], str]]:
        return type(self), (self.codes, str(self))


class FaultError(Exception):
    """Something is wrong that the reader of the message can mend.

    Args:
        codes: what kind of fault it is; several if the message reports several.
        message: what was expected, what was given, where, and what to do.

    Attributes:
        codes: each kind of fault that the message reports, once.
    """

    codes: tuple[str, ...]

    def __init__(self, codes: Codes, message: str) -> None:
        super().__init__(message)
        self.codes = (codes,) if isinstance(codes, str) else tuple(dict.fromkeys(codes))
        self.args = (self.codes, message)  # what a copy in another process is made from

    def __str__(self) -> str:
        return str(self.args[-1])

    @classmethod
    def of(cls, faults: Iterable[Fault | FaultError], message: str | None = None) -> Self:
        """An error that reports several faults or errors at once, joined by semicolons where no message is given."""
        faults = tuple(faults)
        codes = tuple(code for fault in faults for code in fault.codes)
        return cls(codes, "; ".join(map(str, faults)) if message is None else message)


class InvalidError(FaultError, ValueError):
    """A value is wrong that was given: a setting, an argument, a part of a file."""


def codes_of(error: BaseException, otherwise: str) -> tuple[str, ...]:
    """The codes of an error that another one reports: its own, or `otherwise` if it has none, as a library's."""
    return error.codes if isinstance(error, FaultError) else (otherwise,)
