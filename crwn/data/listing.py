"""Lists the files of a set below a folder, in order, and shortens lists of them for messages."""

from __future__ import annotations

import csv
import fnmatch
import io
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from crwn.data.base import DataError
from crwn.faults import Fault

PARTS = ("train", "val", "test")
"""The parts of a set, in order; a file belongs to the part that a word of its name begins with."""
NO_CONTENT = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that operating systems and storage devices create for copies and thumbnails."""
MAX_NAMED = 10
"""Number of faults that an error names; it only counts the rest."""
UTF_16_AND_32 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
"""The byte order marks of these encodings."""
SAVE_AS_UTF_8 = "Save the list as UTF-8 (in a spreadsheet: CSV UTF-8)"
MAX_REASON = 200
"""Number of characters that we pass on of a library's own error message."""


def is_hidden(path: PurePath) -> bool:
    """Whether any part of a path below a set's folder begins with a dot or is in `NO_CONTENT`."""
    return any(part.startswith(".") or part in NO_CONTENT for part in path.parts)


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """All files at any depth with one of these suffixes (lower case) that are not hidden, in no particular order.

    Links to files are followed, links to folders are not.

    Raises:
        OSError: a folder cannot be read.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(PurePath(entry.name)):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(Path(entry.path), suffixes)
            elif os.path.splitext(entry.name)[1].lower() in suffixes and _may_be_read(entry):  # noqa: PTH122 (60,000)
                yield Path(entry.path)


def _may_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a broken link, which fails when it is read; reading a pipe would block forever."""
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """The files in a folder that match one of these patterns, ignoring case, and are not hidden.

    Args:
        folder: may not exist.
        patterns: in lower case.
    """
    there = list(folder.iterdir()) if folder.is_dir() else []
    found = (path for pattern in patterns for path in there if fnmatch.fnmatchcase(path.name.lower(), pattern))
    return [path for path in found if path.is_file() and not is_hidden(PurePath(path.name))]


def in_parts(files: Iterator[Path] | Sequence[Path]) -> list[Path]:
    """The files in the order of `PARTS`, then by name; those that belong to no part come last."""

    def key(file: Path) -> tuple[int, str]:
        words = file.stem.lower().replace("-", " ").replace("_", " ").split()
        places = [place for place, part in enumerate(PARTS) if any(word.startswith(part) for word in words)]
        return (places[0] if places else len(PARTS), file.name)

    return sorted(files, key=key)


def named(things: Sequence[str], separator: str = ", ") -> str:
    """The first `MAX_NAMED` things as text, and how many more there are."""
    more = f" and {len(things) - MAX_NAMED} more" if len(things) > MAX_NAMED else ""
    return separator.join(things[:MAX_NAMED]) + more


def reason(error: BaseException) -> str:
    """A library's error message on one line, cut to `MAX_REASON` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """One row of a list.

    Attributes:
        place: the list and the row, for messages; row 1 holds the column names.
        name: the name of the file.
        label: the name of its class.
    """

    place: str
    name: str
    label: str


def read_list(file: Path) -> tuple[list[ListedImage], list[Fault]]:
    """The rows of a CSV list with the columns filename and label, and the faults of its malformed rows.

    Raises:
        DataError: the file is not such a list at all.
    """
    rows = csv.reader(io.StringIO(_text_of(file), newline=""), strict=True, skipinitialspace=True)
    found: list[ListedImage] = []
    faults: list[Fault] = []
    number = 0
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if header.count("filename") != 1 or header.count("label") != 1:
            separate = any(sign in cell for cell in header for sign in ";\t|")
            raise DataError(
                "columns-missing",
                f"{file}: expected the columns filename and label, found {header} in its first row"
                + (". Separate the columns by commas." if separate else ""),
            )
        for number, row in enumerate(rows, start=2):
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            given = dict(zip(header, cells, strict=False))
            name, label = given.get("filename"), given.get("label")
            if len(cells) == len(header) and name and label:
                found.append(ListedImage(place=f"{file}, row {number}", name=name, label=label))
            else:
                message = f"{file}, row {number}: expected {','.join(header)}, found {','.join(cells)!r}"
                faults.append(Fault("row-incomplete", message))
    except csv.Error as error:
        raise DataError("not-csv", f"{file} is no CSV after row {max(number, 1)}: {error}") from error
    return found, faults


def _text_of(file: Path) -> str:
    content = file.read_bytes()
    if content.startswith(UTF_16_AND_32):
        raise DataError("text-not-utf-8", f"{file} is text in UTF-16 or UTF-32, expected UTF-8. {SAVE_AS_UTF_8}.")
    if b"\0" in content:
        raise DataError("text-not-utf-8", f"{file} holds zero bytes, as no text in UTF-8 does. {SAVE_AS_UTF_8}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise DataError(
            "text-not-utf-8",
            f"{file}, row {row}: expected UTF-8, found the byte 0x{content[error.start]:02x}. {SAVE_AS_UTF_8}.",
        ) from error
