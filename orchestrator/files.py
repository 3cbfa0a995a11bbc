"""The files of a store, in a folder or on object storage, by one narrow interface that only the store uses.

Names are relative, with slashes: `trials/ID/trial.parquet`. Whoever reads a file finds it whole, as one `write` left
it, or does not find it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import unicodedata
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

from crwn.paths import expanded
from orchestrator.claims import Claim, Lock
from orchestrator.errors import LostError, StorageError, UserError

SCHEMES = ("s3", "gs")
"""Kinds of object storage."""

TEMPORARY = ".part"
"""How the name of a file ends that is being written beside its place; a kill may leave it."""

Purpose = Literal["run", "tracking"]
"""What one process at a time should do with a store."""

LOCKS: dict[Purpose, str] = {"run": ".lock", "tracking": ".tracking.lock"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a folder is known by, whatever its name: one of its files, and what that holds."""

    name: str
    content: bytes


_SECRET = re.compile(r"key|secret|token|passw|credential|signature", re.IGNORECASE)


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


def check_address(address: str) -> None:
    """See that an address is a path, or a URI of object storage without credentials; nothing is looked up.

    It is printable, since it is shown.

    Raises:
        ValueError: it is something else; the message repeats no credentials.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", address)
    if found is None:
        _check_printable(address)
        return
    scheme, known = found[1], " or ".join(f"{scheme}://bucket/prefix" for scheme in SCHEMES)
    parts = urlsplit(address)
    settings = parse_qsl(parts.query, keep_blank_values=True)
    # Before anything that repeats the address
    if "@" in parts.netloc or any("@" in value or _SECRET.search(name) for name, value in settings):
        raise ValueError(
            "expected an address without credentials, given one with: it is shown, logged and handed to other "
            "machines. Put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws"
        )
    _check_printable(address)
    if scheme not in SCHEMES or not parts.netloc:
        raise ValueError(f"expected a path, {known}; given {address!r}")


def is_shown(address: str) -> bool:
    """Whether an address is text without control characters; spaces of all kinds are."""
    return all(sign.isprintable() or unicodedata.category(sign) == "Zs" for sign in address)


def _check_printable(address: str) -> None:
    if not is_shown(address):
        raise ValueError(f"expected an address of printable characters, given {address!r}")


def open_files(address: str | Path) -> Files:
    """The files at a path, in which `~` is somebody's home, or at an address.

    Raises:
        UserError: the address is wrong.
    """
    try:
        check_address(str(address))
    except ValueError as error:
        raise UserError(f"{error}.") from error
    if urlsplit(str(address)).scheme in SCHEMES:
        from orchestrator.object_storage import ObjectFiles  # noqa: PLC0415 (for those who use it)

        return ObjectFiles(str(address))
    try:
        files = LocalFiles(expanded(address))
    except ValueError as error:
        raise UserError(f"{error}.") from error
    if not is_shown(files.address):  # also of a folder that the command was typed in
        raise UserError(f"expected a folder with a full path of printable characters, given {files.address!r}.")
    return files


def read_each(files: Files, names: Iterable[str]) -> Iterator[bytes | None]:
    """`Files.read_all`, one file after another."""
    for name in names:
        try:
            content: bytes | None = files.read(name)
        except FileNotFoundError:
            content = None
        yield content


def _at_once(path: str, flags: int) -> int:
    """Open a file, and a pipe without waiting for somebody who writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _has(folder: Path, mark: Mark) -> bool:
    """Whether a folder has a mark.

    Raises:
        OSError: that cannot be found out.
    """
    try:
        return (folder / mark.name).read_bytes() == mark.content
    except (FileNotFoundError, NotADirectoryError):
        return False


def _beside(folder: Path) -> Iterator[Path]:
    """Where a folder may be that was renamed, or whose parent was."""
    for parent, names in ((folder.parent, ()), (folder.parent.parent, (folder.name,))):
        with contextlib.suppress(OSError):
            yield from (other.joinpath(*names) for other in sorted(parent.iterdir()))


class LocalFiles:
    """The files of a folder on a path: this machine's, or one that all machines share.

    Files are written beside their place, synchronised and moved into it. The folder itself may be a link, but nothing
    below it: a store that came from elsewhere could lead out of itself, to be read or written there.

    Only `make` makes the folder: one that was renamed or removed does not come back with the next file.

    Args:
        root: the folder, which need not exist.
        is_synchronised: whether a file is on the disk before it has its name; for tests and benchmarks, whose files may
            be lost with the machine: waiting for the disk is most of what a small file takes.
        within: the folder that it belongs to, with its mark; itself by default.
        mark: what that one is known by.

    Raises:
        StorageError: by any call, where a link is on the way.
    """

    def __init__(
        self, root: Path, *, is_synchronised: bool = True, within: Path | None = None, mark: Mark | None = None
    ) -> None:
        self.root = root.absolute()
        self._is_synchronised = is_synchronised
        self._whole = self.root if within is None else within
        self._mark = mark
        self._origin = self._whole.resolve() if mark is not None else self._whole

    @property
    def address(self) -> str:
        """See `Files`."""
        return str(self.root)

    @property
    def beside(self) -> Path:
        """See `Files`."""
        return self.root.parent

    def locate(self, name: str) -> str:
        """See `Files`."""
        return str(self.root / name)

    def below(self, folder: str) -> LocalFiles:
        """See `Files`."""
        return self._of(self._place(folder), self._mark)

    def _of(self, root: Path, mark: Mark | None) -> LocalFiles:
        return LocalFiles(root, is_synchronised=self._is_synchronised, within=self._whole, mark=mark)

    def marked(self, mark: Mark) -> LocalFiles:
        """See `Files`."""
        return self._of(self.root, mark)

    def check(self) -> None:
        """See `Files`."""
        if self._mark is None or _has(self._whole, self._mark):
            return
        found = {"absent": "nothing", "file": "a file", "folder": "another folder"}[LocalFiles(self._whole).kind()]
        raise LostError(
            f"{self._whole}: expected the store that this run began on, found {found}. {self._whereabouts()}"
        )

    def _whereabouts(self) -> str:
        """What is known of where the folder with the mark is now, and what to do."""
        assert self._mark is not None
        for place in (self._origin, *_beside(self._whole)):
            with contextlib.suppress(OSError):
                if _has(place, self._mark):
                    return (
                        f"It is now {place}, with all up to the last resume points; nothing was written elsewhere. Go "
                        f"on with --out {shlex.quote(str(place))}"
                    )
        return (
            "It was moved or removed; nothing was written elsewhere. Where it still is, it has all up to the last "
            "resume points: go on with --out and its new place"
        )

    def kind(self) -> Literal["absent", "file", "folder"]:
        """See `Files`."""
        if not self.root.exists() and not self.root.is_symlink():
            return "absent"
        return "folder" if self.root.is_dir() else "file"

    def make(self) -> None:
        """See `Files`."""
        if self.root == self._whole:
            self.root.mkdir(parents=True, exist_ok=True)
        else:
            with self._there():
                self._make_folders(self.root)
        probe = self.root / f"{uuid.uuid4().hex}{TEMPORARY}"
        probe.touch()
        probe.unlink()

    def exists(self, name: str) -> bool:
        """See `Files`."""
        return (self.root / name).exists()

    def existing(self, names: Sequence[str]) -> set[str]:
        """See `Files`."""
        return {name for name in names if os.path.exists(f"{self.root}/{name}")}  # noqa: PTH110 (of many, see `signatures`)

    def names(self, folder: str) -> list[str]:
        """See `Files`."""
        try:
            return sorted(path.name for path in self._place(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def walk(self, folder: str) -> list[str]:
        """See `Files`."""
        paths = (
            Path(parent, name).relative_to(self.root).as_posix()
            for parent, _, names in os.walk(self._place(folder))
            for name in names
        )
        return sorted(paths)

    def read(self, name: str) -> bytes:
        """See `Files`; a pipe or a device, which could keep a reader waiting for ever, is refused."""
        path = self._place(name)
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StorageError(f"{path}: expected a file, given a pipe or a device. Nothing was read; remove it.")
            return file.read()

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """See `Files`."""
        return read_each(self, names)

    def write(self, name: str, content: bytes) -> None:
        """See `Files`; on the disk before it has its name."""
        path = self._to_replace(name)
        beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}")
        with self._there():
            self._make_folders(path.parent)
            try:
                with beside.open("wb") as file:
                    file.write(content)
                    file.flush()
                    if self._is_synchronised:
                        os.fsync(file.fileno())
                self.check()  # once more: the file beside is in this very folder, and cannot be moved into another
                beside.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise

    def remove(self, name: str) -> None:
        """See `Files`."""
        path = self._to_replace(name)
        with self._there():
            path.unlink(missing_ok=True)

    def signature(self, name: str) -> tuple[int, int] | None:
        """See `Files`."""
        with contextlib.suppress(FileNotFoundError):
            status = (self.root / name).stat()
            return status.st_mtime_ns, status.st_size
        return None

    def signatures(self, folder: str, files: Collection[str]) -> dict[str, tuple[int, int]]:
        """See `Files`."""
        found: dict[str, tuple[int, int]] = {}
        for inner in self.names(folder):
            for file in files:
                name = f"{folder}/{inner}/{file}"
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    status = os.stat(f"{self.root}/{name}")  # noqa: PTH116 (of many files: a Path takes twice as long)
                    found[name] = (status.st_mtime_ns, status.st_size)
        return found

    def claim(self, purpose: Purpose) -> Claim:
        """See `Files`."""
        return Lock(self._place(LOCKS[purpose]))

    def _place(self, name: str) -> Path:
        """Where a file or a folder is; no link leads there."""
        path = self.root
        for part in PurePosixPath(name).parts:
            path /= part
            if part in ("..", "/") or path.is_symlink():
                raise StorageError(
                    f"{path}: expected a file or a folder of the store itself, given a link out of it. It was neither "
                    "read nor written; remove it, or ask who made the store."
                )
        return path

    def _to_replace(self, name: str) -> Path:
        """Where a file is that is made, replaced or removed; if it is a link, that is, and not what it leads to."""
        folder, _, file = name.rpartition("/")
        return self._place(folder) / file

    @contextlib.contextmanager
    def _there(self) -> Iterator[None]:
        """For a block that writes: the folder is there as the block begins, and its loss on the way is said as such."""
        self.check()
        try:
            yield
        except FileNotFoundError as error:
            self.check()
            if not self._whole.exists():
                raise StorageError(
                    f"{self._whole}: expected a folder to write into, found nothing; it was moved or removed."
                ) from error
            raise

    def _make_folders(self, folder: Path) -> None:
        """Make a folder and those that lead to it, but not the whole."""
        if folder == self._whole:
            return
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            if folder.parent == self._whole:
                raise
            self._make_folders(folder.parent)
            folder.mkdir(exist_ok=True)
