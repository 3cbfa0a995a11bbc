"""Paths as users write them: `~` and `~user` mean the same wherever we accept a path."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from crwn.faults import InvalidError

NO_HOME = Path("/dev/null")
"""A home folder in which nothing can be written, for libraries that fail to import without one."""


def stand_in_for_home() -> None:
    """Set HOME for this process and its children if the user has no home folder, as in some containers."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(NO_HOME)
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns at each start if the home folder is missing


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced by the home folder; `./~` is a folder of that name.

    Raises:
        ValueError: there is no such home folder; the message says what to set or to write.
    """
    if not str(path).startswith("~"):
        return Path(path)  # Path drops a "./" before a "~"
    name = Path(path).parts[0]
    try:
        found = Path(path).expanduser()
        is_known = name != "~" or not found.is_relative_to(NO_HOME)
    except RuntimeError:
        is_known = False
    if is_known:
        return found
    remedy = "set HOME, or write the path out" if name == "~" else "no such user is known here; write the path out"
    raise InvalidError(
        "no-home-folder", f"expected a path, given {str(path)!r}, but {name} has no home folder: {remedy}"
    )
