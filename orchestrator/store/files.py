"""The files of a store, in a folder or on object storage, by one narrow interface that only the store uses.

Names are relative, with slashes: `trials/ID/trial.parquet`. Whoever reads a file finds it whole, as one `write` left
it, or does not find it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from orchestrator.store.locks import Claim

TEMPORARY = ".part"
"""How the name of a file ends that is being written beside its place; a kill may leave it."""

Purpose = Literal["run", "tracking"]
"""What one process at a time should do with a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a folder is known by, whatever its name: one of its files, and what that holds."""

    name: str
    content: bytes


class Files(Protocol):
    """A folder of files, wherever it is."""

    @property
    def address(self) -> str:
        """What opens the same folder, also in another process and on another machine."""
        ...

    @property
    def beside(self) -> Path:
        """The folder on this machine for what several stores share: MLflow's database, its artifacts."""
        ...

    def locate(self, name: str) -> str:
        """A file's full name, to be shown."""
        ...

    def below(self, folder: str) -> Files:
        """The files of a folder in this one."""
        ...

    def marked(self, mark: Mark) -> Files:
        """The same files, of which each write and removal first sees that the folder still has its mark."""
        ...

    def check(self) -> None:
        """See that the folder has its mark, if it was given one.

        Raises:
            LostError: it was renamed or removed, or another is in its place; the message says where it is, if known.
            OSError: that cannot be found out.
        """
        ...

    def kind(self) -> Literal["absent", "file", "folder"]:
        """What is at the address."""
        ...

    def make(self) -> None:
        """Make the folder if it is not there, and see that it can be written.

        Raises:
            OSError: it cannot.
        """
        ...

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        ...

    def existing(self, names: Sequence[str]) -> set[str]:
        """Those of many files that are there."""
        ...

    def names(self, folder: str) -> list[str]:
        """What is directly in a folder, files and folders, in order; nothing where it does not exist."""
        ...

    def walk(self, folder: str) -> list[str]:
        """All files below a folder by their names, in order; nothing where it does not exist."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be read.
        """
        ...

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of many files in order; None for one that is not there."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Make a file, or replace it, atomically, in a folder that is there; folders below it are made.

        Raises:
            LostError: as `check` does.
            OSError: it cannot be written; what was there is as it was.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there; raises as `write` does."""
        ...

    def signature(self, name: str) -> tuple[int, int] | None:
        """When a file was written and how long it is, which changes with it; None where it is not there."""
        ...

    def signatures(self, folder: str, files: Collection[str]) -> dict[str, tuple[int, int]]:
        """The signatures of files in the folders of a folder, see `signature`.

        Args:
            folder: the folder, which need not be there.
            files: the names that are looked for in each of its folders.

        Returns:
            By name, those that are there.
        """
        ...

    def claim(self, purpose: Purpose) -> Claim:
        """What a process holds that works on the store for this purpose."""
        ...


def read_each(files: Files, names: Iterable[str]) -> Iterator[bytes | None]:
    """`Files.read_all`, one file after another."""
    for name in names:
        try:
            content: bytes | None = files.read(name)
        except FileNotFoundError:
            content = None
        yield content
