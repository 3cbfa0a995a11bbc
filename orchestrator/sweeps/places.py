"""Faults in a file and their places, as paths of keys and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.errors import UserError, shortened

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault in a file, and its place.

    Attributes:
        path: the keys and positions that lead there, from the top of the file.
        codes: what kind of fault it is; several where a part is refused for several reasons.
        message: what was expected, and what was given.
    """

    path: KeyPath
    codes: tuple[str, ...]
    message: str


class FileFaultsError(UserError):
    """A file has faults.

    Args:
        faults: the faults, in the order of the message, which are in `error.faults`.
        message: all of them as text, each with its line.
    """

    def __init__(self, faults: Sequence[Fault], message: str) -> None:
        super().__init__(tuple(code for fault in faults for code in fault.codes), message)
        self.faults = tuple(faults)
        self.args = (self.faults, message)


def show_path(path: KeyPath) -> str:
    """A key path as text, such as `methods.flynet.scales[1]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in path)
    return text.removeprefix(".") or "the file"


def _shown(key: str) -> str:
    return shortened(key if key.isprintable() else repr(key))
