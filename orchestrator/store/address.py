"""Where a store may be: a path, or a URI of object storage."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from crwn.paths import expanded
from orchestrator.errors import UserError
from orchestrator.store.files import Files
from orchestrator.store.folder import LocalFiles

SCHEMES = ("s3", "gs")
"""Kinds of object storage."""

_SECRET = re.compile(r"key|secret|token|passw|credential|signature", re.IGNORECASE)


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
        from orchestrator.store.object_storage import ObjectFiles  # noqa: PLC0415 (for those who use it)

        return ObjectFiles(str(address))
    try:
        files = LocalFiles(expanded(address))
    except ValueError as error:
        raise UserError(f"{error}.") from error
    if not is_shown(files.address):  # also of a folder that the command was typed in
        raise UserError(f"expected a folder with a full path of printable characters, given {files.address!r}.")
    return files
