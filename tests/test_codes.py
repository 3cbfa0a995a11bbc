"""Every user-facing error has a code: checked in the source."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+){0,5}")

WITHOUT = {
    "crwn/methods/agem.py": "the fingerprint of a method's file is kept with its results; `setting-refused` in a sweep",
    "crwn/methods/flynet.py": "likewise",
    "crwn/methods/neuromodnet.py": "likewise",
    "crwn/data/photographs.py": "caught in the same file, as what a damaged file raises",
}
"""Files that raise a ValueError without a code, with the reason."""


@functools.cache
def sources() -> dict[str, ast.Module]:
    """The files of both packages."""
    files = (file for package in ("crwn", "orchestrator") for file in sorted((ROOT / package).rglob("*.py")))
    names = {file: file.relative_to(ROOT).as_posix() for file in files}
    return {name: ast.parse(file.read_text(encoding="utf-8")) for file, name in names.items()}


def name_of(node: ast.expr) -> str:
    """The last name of what is called or inherited from."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@functools.cache
def takes_codes() -> frozenset[str]:
    """The names of what takes codes first: a fault, and all errors that descend from FaultError."""
    bases = {
        node.name: {name_of(base) for base in node.bases}
        for tree in sources().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    found = {"FaultError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return frozenset(found - {"FileFaultsError"}) | {"Fault", "_fault"}


def codes_given() -> Iterator[tuple[str, ast.expr]]:
    """The codes of every fault and error in the source, each with its place."""
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if name_of(node.func) in takes_codes() and node.args:
                yield f"{file}:{node.lineno}", node.args[0]
            elif name_of(node.func) == "fault" and len(node.args) == 3:
                yield f"{file}:{node.lineno}", node.args[1]


def test_codes_are_spelled_in_one_style() -> None:
    """A few lower-case words joined by hyphens: a message in their place would be no code that lasts."""
    codes = [(place, node) for place, node in codes_given() if isinstance(node, ast.Constant | ast.JoinedStr)]
    assert len(codes) > 100
    for place, node in codes:
        assert isinstance(node, ast.Constant), place
        assert CODE.fullmatch(str(node.value)), f"{place}: {node.value}"


def test_what_a_user_gets_wrong_has_a_code() -> None:
    """A ValueError with a message tells a program nothing; without one, it only ends a function for its caller."""
    plain = {
        file
        for file, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and name_of(node.exc.func) == "ValueError"
    }
    assert plain == set(WITHOUT)
