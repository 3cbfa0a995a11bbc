"""A store's mark, `store.json`: it makes a folder a store, and holds its version and its identity."""

from __future__ import annotations

import hashlib
import json
import reprlib
import uuid

from crwn.faults import InvalidError, codes_of
from crwn.strict_json import parse
from orchestrator.errors import UserError
from orchestrator.store.files import TEMPORARY, Files
from orchestrator.store.folder import LOCKS
from orchestrator.store.parquet_files import SEALED_SINCE, STORE_VERSION
from orchestrator.store.schemas import MARK_FILE


def check_folder(files: Files) -> None:
    """Check that a folder is a store, or may become one because it is absent or empty.

    Raises:
        UserError: it holds something other than a store, or a newer store, or cannot be reached.
    """
    try:
        kind = files.kind()
    except UserError:
        raise
    except OSError as error:  # no permission, or a name that is too long
        raise UserError(
            "folder-unreadable", f"{files.address}: expected a store's folder, but it cannot be examined: {error}."
        ) from error
    if kind == "absent":
        return
    if kind == "file":
        raise UserError(
            "not-a-folder", f"{files.address}: expected a store's folder, such as runs/quickstart, given a file."
        )
    try:
        if not files.exists(MARK_FILE):
            # An empty folder may become a store, and so may one in which creating a store was interrupted.
            if not all(_is_left_over(name) for name in files.names("")):
                raise UserError(
                    "folder-in-use",
                    f"{files.address}: expected a store or an empty folder; it holds other files and no store.json. "
                    "Nothing was changed.",
                )
            return
        version, _ = read_mark(files.read(MARK_FILE))
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        place = files.locate(MARK_FILE)
        raise UserError(
            codes_of(error, "json-unreadable"),
            f"{place}: expected a readable store.json: {error}. Restore it from a copy; the rest is intact.",
        ) from error
    if version[0] > STORE_VERSION[0]:
        raise UserError(
            "newer-version",
            f"{files.address}: expected a store of version {STORE_VERSION[0]} or older, given version {version[0]}. "
            "It was written by a newer crwn: upgrade crwn.",
        )


def new_mark() -> bytes:
    """The content of a new store's mark; its id ends in a checksum over the mark."""
    mark = {"format": "crwn-store", "version": list(STORE_VERSION)}
    token = uuid.uuid4().hex[:24]
    said = {**mark, "id": f"{token}-{_mark_sum(STORE_VERSION, token)}"}
    return (json.dumps(said, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _mark_sum(version: tuple[int, int], token: str) -> str:
    return hashlib.sha256(f"crwn-store {version[0]}.{version[1]} {token}".encode()).hexdigest()[:8]


def read_mark(content: bytes) -> tuple[tuple[int, int], str | None]:
    """The version and the id in a store's mark; version 1.0 has no id, and versions before 1.2 have no checksum.

    Raises:
        ValueError, RecursionError: the mark is damaged.
    """
    said = parse(content)
    if not isinstance(said, dict):
        raise InvalidError("wrong-type", "expected an object")
    version, id_ = said.get("version"), said.get("id")
    if not isinstance(version, list) or len(version) < _MARK_NUMBERS or not all(type(part) is int for part in version):
        raise InvalidError("not-a-version", f"version: expected two whole numbers, given {reprlib.repr(version)}")
    if id_ is not None and not (isinstance(id_, str) and id_.isprintable()):
        raise InvalidError("text-not-printable", f"expected an id in text, given {reprlib.repr(id_)}")
    token, dash, checksum = (id_ or "").partition("-")
    if dash and (checksum != _mark_sum((version[0], version[1]), token) or said.get("format") != "crwn-store"):
        raise InvalidError("content-changed", "its version, format or id has changed: the id's checksum differs")
    is_older = id_ is None or (version[0], version[1]) < SEALED_SINCE
    if not dash and (not is_older or len(id_ or "") > _OLDER_ID or set(said) - {"format", "version", "id"}):
        raise InvalidError(
            "mark-incomplete", f"expected format, version and an id with its checksum, given {reprlib.repr(said)}"
        )
    return (version[0], version[1]), id_


_MARK_NUMBERS, _OLDER_ID = 2, 32


def _is_left_over(name: str) -> bool:
    return name == LOCKS["run"] or name.endswith(TEMPORARY)
