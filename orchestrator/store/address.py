"""Addresses of stores: a path, or a URI of object storage."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from crwn.faults import InvalidError
from crwn.paths import expanded
from orchestrator.errors import UserError
from orchestrator.store.files import Files
from orchestrator.store.folder import LocalFiles

SCHEMES = ("s3", "gs")
"""Supported kinds of object storage."""

_SECRET = re.compile(r"key|secret|token|passw|credential|signature", re.IGNORECASE)


def check_address(address: str) -> None:
    """Check that an address is a path, or a URI of object storage without credentials; nothing is accessed.

    It must be printable, since it is displayed.

    Raises:
        InvalidError: it is something else; the message does not repeat credentials.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", address)
    if found is None:
        _check_printable(address)
        return
    scheme, known = found[1], " or ".join(f"{scheme}://bucket/prefix" for scheme in SCHEMES)
    try:
        parts = urlsplit(address)
    except ValueError as error:  # which does not repeat the address
        raise InvalidError("address-unknown", f"expected a path, {known}; given neither: {error}") from error
    settings = parse_qsl(parts.query, keep_blank_values=True)
    # Must come before any error that repeats the address
    if "@" in parts.netloc or any("@" in value or _SECRET.search(name) for name, value in settings):
        raise InvalidError(
            "address-with-credentials",
            "expected an address without credentials, given one that has some: it is displayed, logged and sent to "
            "other machines. Put them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile in ~/.aws",
        )
    _check_printable(address)
    if scheme not in SCHEMES or not parts.netloc:
        raise InvalidError("address-unknown", f"expected a path, {known}; given {address!r}")


def is_shown(address: str) -> bool:
    """Whether an address has no control characters; all kinds of spaces are allowed."""
    return all(sign.isprintable() or unicodedata.category(sign) == "Zs" for sign in address)


def _check_printable(address: str) -> None:
    if not is_shown(address):
        raise InvalidError("address-not-printable", f"expected printable characters, given {address!r}")


def open_files(address: str | Path) -> Files:
    """The files at a path, in which `~` is expanded, or at a URI.

    Raises:
        UserError: the address is invalid.
    """
    try:
        check_address(str(address))
    except InvalidError as error:
        raise UserError(error.codes, f"{error}.") from error
    if urlsplit(str(address)).scheme in SCHEMES:
        from orchestrator.store.object_storage import ObjectFiles  # noqa: PLC0415 (only for those who use it)

        return ObjectFiles(str(address))
    try:
        files = LocalFiles(expanded(address))
    except InvalidError as error:
        raise UserError(error.codes, f"{error}.") from error
    if not is_shown(files.address):  # including the working folder of a relative path
        raise UserError(
            "address-not-printable",
            f"expected a folder with a full path of printable characters, given {files.address!r}.",
        )
    return files
