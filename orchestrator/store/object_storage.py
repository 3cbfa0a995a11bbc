"""The files of a store on object storage, through pyarrow. Imported only when used.

Three things differ from a folder. Leases (`leases.py`) replace locks. An object exists as soon as its
stream is closed, whatever closes it; so content is serialised in advance and written by one call, in a thread that
Ctrl-C does not interrupt. And the storage may be unavailable; every call is retried for a minute and a half.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from orchestrator.errors import LostError, StorageError, UserError
from orchestrator.store.files import Mark, Purpose
from orchestrator.store.leases import Lease
from orchestrator.store.locks import Claim

PATIENCE = 90.0
"""Seconds for which a failed call is retried: outages of a minute are survived with a margin."""

FIRST_PAUSE, MAX_PAUSE = 0.5, 5.0
"""First and longest pause between two attempts, in seconds."""

NUM_THREADS = 16
"""Number of parallel requests when reading many objects."""

FEW = 32
"""Number of objects up to which each is queried; more are looked up in a listing."""

LEASES_FOLDER = "leases"

_PERMANENT = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE|"
    r"SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|EXPIRED_TOKEN|INVALID_BUCKET|"
    r"status (30\d|40[0-7])|Permission ?denied|PERMISSION_DENIED|UNAUTHENTICATED",
    re.IGNORECASE,
)
"""Errors that retrying does not fix."""

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")


class ObjectFiles:
    """The objects below a prefix.

    Args:
        address: such as s3://bucket/prefix, with pyarrow's options after a question mark; no credentials.
        sleep: waits for a number of seconds.
    """

    def __init__(self, address: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._address = address.rstrip("/")
        self._sleep = sleep
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="crwn-objects")
        self._is_away = False
        self._mark: Mark | None = None

    @functools.cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system and the folder's path in it; may query the region of the bucket."""
        # Write small objects by one request, without one for the parent
        settings = "&allow_delayed_open=true" if urlsplit(self._address).scheme == "s3" else ""
        mark = "" if not settings or "?" in self._address else "?"
        try:
            filesystem, path = fs.FileSystem.from_uri(self._address + mark + settings)
        except (pa.ArrowInvalid, ValueError) as error:
            raise UserError(
                "address-unknown", f"{self._address}: expected an address that pyarrow can open: {error}."
            ) from error
        return filesystem, path.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._place[1]}/{name}" if name else self._place[1]

    @property
    def address(self) -> str:
        """See `Files`."""
        return self._address

    @property
    def beside(self) -> Path:
        """See `Files`; runs/ in the working folder, the default place of stores."""
        return Path("runs").absolute()

    def locate(self, name: str) -> str:
        """See `Files`; without pyarrow's options."""
        return f"{self._address.partition('?')[0].rstrip('/')}/{name}"

    def below(self, folder: str) -> ObjectFiles:
        """See `Files`."""
        path, mark, settings = self._address.partition("?")
        return ObjectFiles(f"{path.rstrip('/')}/{folder}{mark}{settings}", sleep=self._sleep)

    def marked(self, mark: Mark) -> ObjectFiles:
        """See `Files`."""
        marked = copy.copy(self)
        marked._mark = mark
        return marked

    def check(self) -> None:
        """See `Files`; where objects were moved is not known."""
        if self._mark is None:
            return
        try:
            content = self.read(self._mark.name)
        except FileNotFoundError:
            content = None
        if content != self._mark.content:
            found, why = "no store", "It was moved or removed"
            if content is not None:
                found = "another store, or another run on it"
                why = "It was replaced, or another run took it over after this one was cut off (see crwn status)"
            raise LostError(
                "store-moved",
                f"{self.locate('')}: expected the store of this run, found {found}. {why}; nothing was "
                "written elsewhere. If the store was moved, it has everything up to the last resume points: continue "
                "with --out and its new address",
            )

    def kind(self) -> Literal["absent", "file", "folder"]:
        """See `Files`."""
        found = self._info("").type
        if found == fs.FileType.NotFound:
            return "absent"
        return "file" if found == fs.FileType.File else "folder"

    def make(self) -> None:
        """See `Files`; the bucket is not created."""
        probe = "probe.part"
        self.write(probe, b"")
        self.remove(probe)

    def exists(self, name: str) -> bool:
        """See `Files`."""
        return bool(self._info(name).type == fs.FileType.File)

    def existing(self, names: Sequence[str]) -> set[str]:
        """See `Files`; many names must be below one folder."""
        if len(names) > FEW:
            return set(names) & set(self.walk(names[0].partition("/")[0]))
        found = self._patiently("", lambda: self._place[0].get_file_info([self._path(name) for name in names]))
        return {name for name, info in zip(names, found, strict=True) if info.type == fs.FileType.File}

    def names(self, folder: str) -> list[str]:
        """See `Files`."""
        return sorted(info.base_name for info in self._select(folder, recursive=False))

    def walk(self, folder: str) -> list[str]:
        """See `Files`."""
        found = self._select(folder, recursive=True)
        start = len(self._path("")) + 1
        return sorted(info.path[start:] for info in found if info.type == fs.FileType.File)

    def read(self, name: str) -> bytes:
        """See `Files`."""

        def read() -> bytes:
            with self._place[0].open_input_file(self._path(name)) as stream:
                content: bytes = stream.read()
            return content

        return self._patiently(name, read)

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """See `Files`; several files in parallel."""

        def read(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        return self._pool.map(read, names)

    def write(self, name: str, content: bytes) -> None:
        """See `Files`."""

        def write() -> None:
            stream = self._place[0].open_output_stream(self._path(name))
            stream.write(content)
            stream.close()

        self.check()
        self._patiently(name, lambda: self._pool.submit(write).result())

    def remove(self, name: str) -> None:
        """See `Files`."""

        def remove() -> None:
            try:
                self._place[0].delete_file(self._path(name))
            except FileNotFoundError:
                return

        self.check()
        self._patiently(name, remove)

    def signature(self, name: str) -> tuple[int, int] | None:
        """See `Files`; times are whole seconds on some object storage."""
        info = self._info(name)
        return None if info.type != fs.FileType.File else (info.mtime_ns, info.size)

    def signatures(self, folder: str, files: Collection[str]) -> dict[str, tuple[int, int]]:
        """See `Files`; from one listing."""
        found = self._select(folder, recursive=True)
        start = len(self._path("")) + 1
        depth = len(folder.split("/")) + 2
        return {
            info.path[start:]: (info.mtime_ns, info.size)
            for info in found
            if info.type == fs.FileType.File and info.base_name in files and len(info.path[start:].split("/")) == depth
        }

    def claim(self, purpose: Purpose) -> Claim:
        """See `Files`."""
        return Lease(self, f"{LEASES_FOLDER}/{purpose}")

    def _info(self, name: str) -> Any:
        return self._patiently(name, lambda: self._place[0].get_file_info(self._path(name)))

    def _select(self, folder: str, *, recursive: bool) -> list[Any]:
        def select() -> list[Any]:
            selector = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=recursive)
            found: list[Any] = self._place[0].get_file_info(selector)
            return found

        return self._patiently(folder, select)

    def _patiently(self, name: str, call: Callable[[], T]) -> T:
        """The result of a call, retried while the storage is unavailable.

        Args:
            name: the object's name, for errors.
            call: raises FileNotFoundError if there is no such object, another OSError if something went wrong.

        Raises:
            StorageError: the storage refused the call, or was unavailable for too long.
        """
        deadline, pause = None, FIRST_PAUSE
        while True:
            try:
                result = call()
            except FileNotFoundError:
                raise
            except OSError as error:
                reason = str(error).splitlines()[0]
                if _PERMANENT.search(reason):
                    raise StorageError(
                        "bucket-refused",
                        f"{self.locate(name)}: expected a bucket that this machine may access: {reason}. Check the "
                        "bucket's name and region, the credentials here (for S3 AWS_ACCESS_KEY_ID and "
                        "AWS_SECRET_ACCESS_KEY, or a profile) and what they allow.",
                    ) from error
                now = time.monotonic()
                deadline = now + PATIENCE if deadline is None else deadline
                if now >= deadline:
                    raise StorageError(
                        "storage-away",
                        f"{self.locate(name)}: expected an answer within {PATIENCE:g} s, but the storage is "
                        f"unavailable: {reason}. Its content is safe; run the same command again when it is back.",
                    ) from error
                if not self._is_away:
                    self._is_away = True
                    _LOGGER.warning("%s: %s; retrying for up to %g s", self.locate(name), reason, PATIENCE)
                self._sleep(min(pause, deadline - now))
                pause = min(2 * pause, MAX_PAUSE)
            else:
                if self._is_away:
                    self._is_away = False
                    _LOGGER.warning("%s: the storage responds again", self.locate(name))
                return result
