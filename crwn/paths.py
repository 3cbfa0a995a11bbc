"""Paths as users write them: `~` and `~user` mean the same wherever a path is taken."""

from __future__ import annotations

import logging
import os
from pathlib import Path

NO_HOME = Path("/dev/null")
"""A home in which nothing can be written, for libraries that fail without one while they are imported."""


def stand_in_for_home() -> None:
    """Give the libraries of this process and its children a home where the user has none, as in some containers."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(NO_HOME)
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # else it says at each start that it has no home


def expanded(path: str | Path) -> Path:
    """A path, with `~` or `~user` at its beginning replaced by the home folder; `./~` is a folder of that name.

    Raises:
        ValueError: no such home is known; the message says what to set or to write.
    """
    if not str(path).startswith("~"):
        return Path(path)  # which forgets a "./" before a "~"
    name = Path(path).parts[0]
    try:
        found = Path(path).expanduser()
        is_known = name != "~" or not found.is_relative_to(NO_HOME)
    except RuntimeError:
        is_known = False
    if is_known:
        return found
    remedy = "set HOME, or write the path out" if name == "~" else "no such user is known here; write the path out"
    raise ValueError(f"expected a path, given {str(path)!r}, but {name} has no home folder: {remedy}")
