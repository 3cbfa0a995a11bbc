"""Bundled sweeps: their names, what their opening comments say, and copies of them.

They are in the project's folder `sweeps`, which a wheel includes in this package. A sweep's name is its path there
without the extension: `quickstart`, `hong2022/table1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crwn.paths import expanded
from orchestrator.errors import UserError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A bundled sweep's description in its first lines.

    Attributes:
        what: what it runs.
        time: how long it takes on two CPU cores.
    """

    what: str
    time: str


def files() -> Mapping[str, Path]:
    """The bundled sweeps by name, those of papers last."""
    here = Path(__file__).parent
    folder = here / "bundled"
    if not folder.is_dir():
        folder = here.parents[1] / "sweeps"  # a checkout
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
    return {name: found[name] for name in sorted(found, key=lambda name: (name.count("/"), name))}


def file_of(name: str) -> Path:
    """The file of a bundled sweep.

    Raises:
        UserError: there is no sweep of this name.
    """
    known = files()
    if name not in known:
        raise UserError("unknown-name", f"{name}: expected the name of a bundled sweep: {nearest(name, known)}")
    return known[name]


def named(given: Path) -> Path | None:
    """The bundled sweep named in place of a sweep's file; None if a file is meant: a path takes precedence.

    Raises:
        UserError: there is no such file, and the name resembles a bundled one's.
    """
    try:
        place = expanded(given)
    except ValueError:
        return None  # the reader of the file reports it
    if place.exists() and not place.is_dir():
        return None
    known, name = files(), given.as_posix()
    if name in known:
        return known[name]
    if not given.suffix and not place.exists():
        raise UserError(
            "unknown-name", f"{given}: expected a sweep's file, or the name of a bundled one: {nearest(name, known)}"
        )
    named = given.with_suffix("").as_posix().removeprefix("sweeps/")
    if named in known and not Path("sweeps").is_dir():
        raise UserError(
            "file-elsewhere",
            f"{given}: expected a file, but there is none; the bundled one is called {named}",
        )
    return None


def opening(file: Path) -> Opening:
    """What a bundled sweep's opening comment says: its first sentence, and the one on two CPU cores."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    text = " ".join(line.removeprefix("# ") for line in lines[1:end])  # the first line is the command
    what = re.match(r"(.+?)(?:: \d+ trials\b.*?)?\.(?: |$)", text)
    time = re.search(r"On 2 CPU cores: (.+?)\.(?: |$)", text)
    assert what is not None
    assert time is not None
    return Opening(what=what[1], time=time[1])


def copy(name: str, to: Path) -> Path:
    """Copy a bundled sweep.

    Args:
        name: its name.
        to: a new file, or a folder, in which the copy keeps the file's name.

    Returns:
        The copy.

    Raises:
        UserError: there is no such sweep, the file already exists, or it cannot be written.
    """
    content = file_of(name).read_bytes()
    target = to / file_of(name).name if to.is_dir() else to
    try:
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise UserError("file-exists", f"{target}: expected a new file, but it exists; name another") from None
    except OSError as error:
        raise UserError("file-not-written", f"{target}: expected a writable destination: {error.strerror}") from error
    return target
