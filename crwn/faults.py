"""Errors with codes that identify the kind of fault, for programs and tests, independent of the wording.

The message is for people and may change; the code does not. It names the fault in kebab case, such as
`unknown-name` or `buffer-larger-than-data`, and is the same wherever the same thing is wrong. `error.codes` lists the
codes of all reported faults. An error that wraps another, say to add a file's name, keeps its codes (`codes_of`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self, TypeAlias

Codes: TypeAlias = str | tuple[str, ...]
"""A fault's code, or those of several faults."""


class Fault(str):
    """One fault as text, with its code; faults are collected and reported together."""

    __slots__ = ("codes",)

    codes: tuple[str, ...]

    def __new__(cls, codes: Codes, message: str) -> Self:
        """A fault of this kind, or of several kinds if it comes from another error."""
        fault = super().__new__(cls, message)
        fault.codes = (codes,) if isinstance(codes, str) else codes
        return fault

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...], str]]:
        return type(self), (self.codes, str(self))


class FaultError(Exception):
    """A fault that the reader of the message can fix.

    Args:
        codes: the kind of fault; several if the message reports several.
        message: what was expected, what was given, where, and what to do.

    Attributes:
        codes: each kind of fault that the message reports, once.
    """

    codes: tuple[str, ...]

    def __init__(self, codes: Codes, message: str) -> None:
        super().__init__(message)
        self.codes = (codes,) if isinstance(codes, str) else tuple(dict.fromkeys(codes))
        self.args = (self.codes, message)  # for pickling

    def __str__(self) -> str:
        return str(self.args[-1])

    @classmethod
    def of(cls, faults: Iterable[Fault | FaultError], message: str | None = None) -> Self:
        """An error that reports several faults or errors, joined by semicolons unless a message is given."""
        faults = tuple(faults)
        codes = tuple(code for fault in faults for code in fault.codes)
        return cls(codes, "; ".join(map(str, faults)) if message is None else message)


class InvalidError(FaultError, ValueError):
    """A given value is wrong: a setting, an argument, a part of a file."""


def codes_of(error: BaseException, otherwise: str) -> tuple[str, ...]:
    """The codes of an error that another wraps: its own, or `otherwise` if it has none, such as a library's error."""
    return error.codes if isinstance(error, FaultError) else (otherwise,)
