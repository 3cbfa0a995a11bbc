"""The narrow interface to a store's files, in a folder or on object storage; only the store uses it.

Names are relative, with slashes: `trials/ID/trial.parquet`. Writes are atomic: a reader finds a file complete, as one
`write` left it, or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from orchestrator.store.locks import Claim

TEMPORARY = ".part"
"""The suffix of temporary files, which a killed process may leave behind."""

Purpose = Literal["run", "tracking"]
"""What only one process at a time should do with a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Identifies a folder whatever its name: one of its files, and that file's content."""

    name: str
    content: bytes


class Files(Protocol):
    """A folder of files, on a path or on object storage."""

    @property
    def address(self) -> str:
        """The address that opens the same folder, also in another process and on another machine."""
        ...

    @property
    def beside(self) -> Path:
        """The folder on this machine for what several stores share: MLflow's database and artifacts."""
        ...

    def locate(self, name: str) -> str:
        """A file's full name, for display."""
        ...

    def below(self, folder: str) -> Files:
        """The files of a folder in this one."""
        ...

    def marked(self, mark: Mark) -> Files:
        """The same files, where each write and removal first checks that the folder still has its mark."""
        ...

    def check(self) -> None:
        """Check that the folder has its mark, if there is one.

        Raises:
            LostError: the folder was renamed, removed or replaced; the message says where it is, if known.
            OSError: the check failed.
        """
        ...

    def kind(self) -> Literal["absent", "file", "folder"]:
        """What the address holds."""
        ...

    def make(self) -> None:
        """Create the folder if it does not exist, and check that it can be written.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def exists(self, name: str) -> bool:
        """Whether a file exists."""
        ...

    def existing(self, names: Sequence[str]) -> set[str]:
        """The existing ones among many files."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names directly in a folder, of files and folders, sorted; empty if it does not exist."""
        ...

    def walk(self, folder: str) -> list[str]:
        """The names of all files below a folder, sorted; empty if it does not exist."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: the file does not exist.
            OSError: the file cannot be read.
        """
        ...

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of many files, in order; None for a file that does not exist."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file atomically, in an existing folder; subfolders are created.

        Raises:
            LostError: see `check`.
            OSError: the file cannot be written; the old content is unchanged.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file if it exists; raises like `write`."""
        ...

    def signature(self, name: str) -> tuple[int, int] | None:
        """A file's modification time and size, which change with it; None if it does not exist."""
        ...

    def signatures(self, folder: str, files: Collection[str]) -> dict[str, tuple[int, int]]:
        """The signatures of files in a folder's subfolders, see `signature`.

        Args:
            folder: the folder, which need not exist.
            files: the file names to look for in each subfolder.

        Returns:
            The signatures of existing files, by name.
        """
        ...

    def claim(self, purpose: Purpose) -> Claim:
        """The claim for a process that works on the store for this purpose."""
        ...


def read_each(files: Files, names: Iterable[str]) -> Iterator[bytes | None]:
    """`Files.read_all`, one file after another."""
    for name in names:
        try:
            content: bytes | None = files.read(name)
        except FileNotFoundError:
            content = None
        yield content
