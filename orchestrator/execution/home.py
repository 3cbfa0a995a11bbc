"""Results come home: the files of a store in a folder that only the driver's machine sees, for trials elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias, cast

from orchestrator.store.files import Files, Mark, Purpose, read_each
from orchestrator.store.folder import LocalFiles
from orchestrator.store.locks import Claim

Ask: TypeAlias = "Callable[..., Any]"
"""Has `Home.answer` done on the driver's machine: the name of a `Files` method, then its arguments."""


class Home:
    """Does to a folder on this machine what trials on other machines ask for.

    Args:
        root: the store's folder.
        mark: what the driver knows it by.
    """

    def __init__(self, root: str, mark: Mark | None = None) -> None:
        self._files = LocalFiles(Path(root), mark=mark)

    def answer(self, what: str, *arguments: Any) -> Any:
        """What a method of the folder's files returns.

        Args:
            what: the method.
            arguments: its own.

        Raises:
            OSError: as the method does.
        """
        return getattr(self._files, what)(*arguments)


class SentFiles:
    """The files of a folder on the driver's machine, which `ask` reaches. Each call is one message there and back.

    Args:
        address: the folder, on that machine.
        ask: has a method called there.
    """

    def __init__(self, address: str, ask: Ask) -> None:
        self._address = address
        self._ask = ask

    @property
    def address(self) -> str:
        """See `Files`; it opens the folder on the driver's machine alone."""
        return self._address

    @property
    def beside(self) -> Path:
        """What stores share is the driver's."""
        self._refuse("has no folder beside it")

    def locate(self, name: str) -> str:
        """See `Files`."""
        return f"{self._address}/{name}"

    def below(self, folder: str) -> Files:
        """Reports are written where the driver is."""
        self._refuse(f"has no folder to write to ({folder})")

    def marked(self, mark: Mark) -> Files:
        """`Home` sees to that."""
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
        """The driver holds the store, and no trial elsewhere."""
        self._refuse(f"cannot be claimed ({purpose})")

    def _refuse(self, why: str) -> NoReturn:
        raise TypeError(f"{self._address}: a store on the driver's machine {why} here")
