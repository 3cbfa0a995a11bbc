"""The files of a store in a folder on a path."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from orchestrator.errors import LostError, StorageError
from orchestrator.store.files import TEMPORARY, Mark, Purpose, read_each
from orchestrator.store.locks import Claim, Lock

LOCKS: dict[Purpose, str] = {"run": ".lock", "tracking": ".tracking.lock"}


def _at_once(path: str, flags: int) -> int:
    """Open a file; opening a pipe does not wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _has(folder: Path, mark: Mark) -> bool:
    """Whether a folder has the mark.

    Raises:
        OSError: the check failed.
    """
    try:
        return (folder / mark.name).read_bytes() == mark.content
    except (FileNotFoundError, NotADirectoryError):
        return False


def _beside(folder: Path) -> Iterator[Path]:
    """Places where a folder may be if it, or its parent, was renamed."""
    for parent, names in ((folder.parent, ()), (folder.parent.parent, (folder.name,))):
        with contextlib.suppress(OSError):
            yield from (other.joinpath(*names) for other in sorted(parent.iterdir()))


class LocalFiles:
    """The files of a folder on a path, on this machine's disk or on one that machines share.

    Files are written atomically: to a temporary file, which is synchronised and renamed. The folder itself may be a
    symbolic link, but nothing below it may: a store from elsewhere could otherwise lead reads and writes out of itself.

    Only `make` creates the folder: if it is renamed or removed, the next write does not recreate it.

    Args:
        root: the folder, which need not exist.
        is_synchronised: whether to fsync a file before renaming it; False for tests and benchmarks, whose files may be
            lost with the machine: waiting for the disk takes most of the time of a small write.
        within: the folder that it belongs to, which has the mark; by default itself.
        mark: the mark of that folder.

    Raises:
        StorageError: from any call, if a path contains a symbolic link.
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
            "store-moved",
            f"{self._whole}: expected the store of this run, found {found}. {self._whereabouts()}",
        )

    def _whereabouts(self) -> str:
        """The current location of the folder with the mark, as far as known, and what to do."""
        assert self._mark is not None
        for place in (self._origin, *_beside(self._whole)):
            with contextlib.suppress(OSError):
                if _has(place, self._mark):
                    return (
                        f"It is now {place}, with everything up to the last resume points; nothing was written "
                        f"elsewhere. Continue with --out {shlex.quote(str(place))}"
                    )
        return (
            "It was moved or removed; nothing was written elsewhere. If it was moved, it has everything up to the last "
            "resume points: continue with --out and its new path"
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
        """See `Files`; a pipe or a device, which could block a reader forever, is refused."""
        path = self._place(name)
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StorageError(
                    "not-a-file", f"{path}: expected a file, given a pipe or a device. Nothing was read; remove it."
                )
            return file.read()

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """See `Files`."""
        return read_each(self, names)

    def write(self, name: str, content: bytes) -> None:
        """See `Files`; the content is on the disk before the file gets its name."""
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
                self.check()  # again: the temporary file is in this same folder, so it cannot end up in another
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
                    status = os.stat(f"{self.root}/{name}")  # noqa: PTH116 (of many files; a Path takes twice as long)
                    found[name] = (status.st_mtime_ns, status.st_size)
        return found

    def claim(self, purpose: Purpose) -> Claim:
        """See `Files`."""
        return Lock(self._place(LOCKS[purpose]))

    def _place(self, name: str) -> Path:
        """The path of a file or folder, which must not contain a symbolic link."""
        path = self.root
        for part in PurePosixPath(name).parts:
            path /= part
            if part in ("..", "/") or path.is_symlink():
                raise StorageError(
                    "link-leads-out",
                    f"{path}: expected a file or a folder of the store itself, given a link out of it. It was neither "
                    "read nor written; remove it, or ask who made the store.",
                )
        return path

    def _to_replace(self, name: str) -> Path:
        """The path of a file to create, replace or remove; if it is a link, of the link itself, not its target."""
        folder, _, file = name.rpartition("/")
        return self._place(folder) / file

    @contextlib.contextmanager
    def _there(self) -> Iterator[None]:
        """For a block that writes: check that the folder exists, and report it if it is lost meanwhile."""
        self.check()
        try:
            yield
        except FileNotFoundError as error:
            self.check()
            if not self._whole.exists():
                raise StorageError(
                    "store-moved",
                    f"{self._whole}: expected a folder to write to, found none; it was moved or removed.",
                ) from error
            raise

    def _make_folders(self, folder: Path) -> None:
        """Create a folder and its parents, except the folder of the whole store."""
        if folder == self._whole:
            return
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            if folder.parent == self._whole:
                raise
            self._make_folders(folder.parent)
            folder.mkdir(exist_ok=True)
