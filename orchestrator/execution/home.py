"""Remote access to a store's files in a folder on the driver's machine, for trials on other machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias, cast

from orchestrator.store.files import Files, Mark, Purpose, read_each
from orchestrator.store.folder import LocalFiles
from orchestrator.store.locks import Claim

Ask: TypeAlias = "Callable[..., Any]"
"""Calls `Home.answer` on the driver's machine, with the name of a `Files` method and its arguments."""


class Home:
    """Executes requests of trials on other machines for a folder on this machine.

    Args:
        root: the store's folder.
        mark: the mark by which the driver identifies it.
    """

    def __init__(self, root: str, mark: Mark | None = None) -> None:
        self._files = LocalFiles(Path(root), mark=mark)

    def answer(self, what: str, *arguments: Any) -> Any:
        """Call a method of the folder's files, and return its result.

        Args:
            what: the method.
            arguments: its arguments.

        Raises:
            OSError: raised by the method.
        """
        return getattr(self._files, what)(*arguments)


class SentFiles:
    """The files of a folder on the driver's machine, reached through `ask`. Each call is one round trip.

    Args:
        address: the folder on that machine.
        ask: calls a method there.
    """

    def __init__(self, address: str, ask: Ask) -> None:
        self._address = address
        self._ask = ask

    @property
    def address(self) -> str:
        """See `Files`; it opens the folder only on the driver's machine."""
        return self._address

    @property
    def beside(self) -> Path:
        """Refused: what stores share belongs to the driver."""
        self._refuse("has no neighbouring folder")

    def locate(self, name: str) -> str:
        """See `Files`."""
        return f"{self._address}/{name}"

    def below(self, folder: str) -> Files:
        """Refused: reports are written by the driver."""
        self._refuse(f"has no folder to write to ({folder})")

    def marked(self, mark: Mark) -> Files:
        """Refused: `Home` checks the mark."""
        self._refuse(f"is known by what its driver gave it ({mark.name})")

    def check(self) -> None:
        """See `Files`."""
        self._ask("check")

    def kind(self) -> Literal["absent", "file", "folder"]:
        """See `Files`."""
        return cast(Literal["absent", "file", "folder"], self._ask("kind"))

    def make(self) -> None:
        """See `Files`."""
        self._ask("make")

    def exists(self, name: str) -> bool:
        """See `Files`."""
        return bool(self._ask("exists", name))

    def existing(self, names: Sequence[str]) -> set[str]:
        """See `Files`."""
        return cast(set[str], self._ask("existing", names))

    def names(self, folder: str) -> list[str]:
        """See `Files`."""
        return cast(list[str], self._ask("names", folder))

    def walk(self, folder: str) -> list[str]:
        """See `Files`."""
        return cast(list[str], self._ask("walk", folder))

    def read(self, name: str) -> bytes:
        """See `Files`."""
        return cast(bytes, self._ask("read", name))

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """See `Files`."""
        return read_each(self, names)

    def write(self, name: str, content: bytes) -> None:
        """See `Files`."""
        self._ask("write", name, content)

    def remove(self, name: str) -> None:
        """See `Files`."""
        self._ask("remove", name)

    def signature(self, name: str) -> tuple[int, int] | None:
        """See `Files`."""
        return cast("tuple[int, int] | None", self._ask("signature", name))

    def signatures(self, folder: str, files: Collection[str]) -> dict[str, tuple[int, int]]:
        """See `Files`."""
        return cast("dict[str, tuple[int, int]]", self._ask("signatures", folder, files))

    def claim(self, purpose: Purpose) -> Claim:
        """Refused: only the driver claims the store."""
        self._refuse(f"cannot be claimed ({purpose})")

    def _refuse(self, why: str) -> NoReturn:
        raise TypeError(f"{self._address}: a store on the driver's machine {why} here")
