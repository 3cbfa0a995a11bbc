"""Identifies the code that computed a result: fingerprints of source files, and the version of results.

A fingerprint depends on what a source does, not on how it is written: comments, docstrings, layout, quotes and `pass`
do not change it, and every supported Python gives the same one.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

RESULTS_VERSION = 1
"""Increased whenever a trial with equal settings gives different results than before, as the golden traces show."""

NUM_DIGITS = 16
"""Hexadecimal digits of a fingerprint: enough to distinguish any two versions of a file, few enough to read."""

NO_PART_IN_RESULTS = ("testing.py", "contract.py")
"""Files of this package that no trial uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The code that computed a trial.

    Attributes:
        method: fingerprint of the file that defines the trial's method (for one of an installed package, of the package
            in which it lies); None if its source is not available, as in a notebook.
        crwn: fingerprint of all files of this package; None likewise.
        results_version: `RESULTS_VERSION` at that time.
        added: fingerprint of the plug-ins that define its network, benchmark and base set; None if they are built in.
    """

    method: str | None = None
    crwn: str | None = None
    results_version: int | None = None
    added: str | None = None


_NO_SOURCE = (OSError, ValueError, SyntaxError, RecursionError)
"""Errors that mean that a source cannot be read: it is in an archive, only compiled, or being edited."""


def code_of(method: object) -> Code:
    """The code with which this process computes a method's trials.

    Sources are read once per process, when its first trial begins; later changes to the files do not affect what runs.

    Args:
        method: the method's spec, whose module defines the method.
    """
    return Code(method=method_code(method), crwn=crwn_code(), results_version=RESULTS_VERSION)


def method_code(method: object) -> str | None:
    """The fingerprint of what defines a method; None if its source is not available.

    Args:
        method: the method's spec.
    """
    return module_code(type(method).__module__)


@functools.cache
def crwn_code() -> str | None:
    """The fingerprint of all files of this package and their names; None if a source is not available."""
    return _folder_code(Path(__file__).parent, NO_PART_IN_RESULTS)


@functools.cache
def module_code(name: str) -> str | None:
    """The fingerprint of an imported module; None if its source is not available.

    For a module of this package, or of none, that of its file: one file defines a method, and the rest of this package
    has a version of its results. For another package's module, that of all files of the package in which it lies.
    """
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    package = getattr(module, "__package__", None) or ""
    if package and package.partition(".")[0] != __package__:
        return _folder_code(Path(file).parent)
    try:
        return _fingerprint_of_bytes(_content(module, file))
    except _NO_SOURCE:
        return None


def _folder_code(folder: Path, left_out: Iterable[str] = ()) -> str | None:
    """The fingerprint of all files of a package and their names; None if a source is not available."""
    digest = hashlib.sha256()
    try:
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.py")}
        for name in sorted(files.keys() - set(left_out)):
            digest.update(f"{name} {_fingerprint_of_bytes(files[name].read_bytes())}\n".encode())
    except _NO_SOURCE:
        return None
    return digest.hexdigest()[:NUM_DIGITS] if files else None


def _content(module: object, file: str) -> bytes:
    """A module's source, from what loaded it: a plug-in's file may have changed since, or be on another machine."""
    loaded: Callable[[str], bytes] | None = getattr(getattr(module, "__loader__", None), "get_data", None)
    return Path(file).read_bytes() if loaded is None else loaded(file)


def _fingerprint_of_bytes(content: bytes) -> str:
    return fingerprint(importlib.util.decode_source(content))


def fingerprint_of_bytes(content: bytes) -> str | None:
    """The fingerprint of a source as its file's bytes; None if it is no Python source."""
    try:
        return _fingerprint_of_bytes(content)
    except _NO_SOURCE:
        return None


def fingerprint(source: str) -> str:
    """A digest of what a Python source does.

    Args:
        source: the source of a module.

    Returns:
        `NUM_DIGITS` hexadecimal digits.

    Raises:
        SyntaxError, ValueError: it is not Python source.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as invalid escapes, reported when the module is imported
        tree = ast.parse(source)
    return hashlib.sha256("\n".join(_tokens(tree)).encode("ascii")).hexdigest()[:NUM_DIGITS]


def _tokens(tree: ast.AST) -> list[str]:
    """The tree as text, depth first. It avoids recursion, since sums of many terms nest deeply."""
    tokens: list[str] = []
    left: list[str | ast.AST] = [tree]
    while left:
        item = left.pop()
        if isinstance(item, str):
            tokens.append(item)
        else:
            left.extend(reversed(_parts(item)))
    return tokens


def _parts(node: ast.AST) -> list[str | ast.AST]:
    """A node's name and its fields sorted by name, as text and nodes.

    Empty fields are left out: newer Pythons add fields, which are empty for older sources.
    """
    if isinstance(node, ast.Constant):
        return [_value(node.value)]
    if isinstance(node, ast.JoinedStr):
        return _joined(node)
    parts: list[str | ast.AST] = [f"({type(node).__name__}"]
    for name in _in_order(node._fields):
        value = getattr(node, name, None)
        if value is None or value == [] or _is_empty_format(value):
            continue
        parts.append(f"{name}=")
        if isinstance(value, ast.AST):
            parts.append(value)
        elif isinstance(value, list):
            items = [_value(item) if not isinstance(item, ast.AST) else item for item in value]
            parts += ["[", *(item for item in items if not _does_nothing(item)), "]"]
        else:
            parts.append(_value(value))
    parts.append(")")
    return parts


@functools.cache
def _in_order(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The fields sorted by name, whatever Python's order, except contexts and type comments."""
    return tuple(sorted(set(fields) - {"ctx", "type_comment", "type_ignores"}))


def _joined(node: ast.JoinedStr) -> list[str | ast.AST]:
    """The parts of an f-string: its texts, with adjacent ones joined, and its values.

    Python versions differ in how they split the texts, and in whether there is an empty text between values.
    """
    parts: list[str | ast.AST] = []
    text = ""
    for piece in node.values:
        if isinstance(piece, ast.Constant):
            text += str(piece.value)
            continue
        parts += [_value(text), piece] if text else [piece]
        text = ""
    if not parts:
        return [_value(text)]
    return ["(JoinedStr", *parts, *([_value(text)] if text else []), ")"]


def _is_empty_format(value: object) -> bool:
    """Whether it is an empty format spec, as in `{x:}`."""
    return isinstance(value, ast.JoinedStr) and not value.values


def _does_nothing(item: str | ast.AST) -> bool:
    """Whether it is a statement without effect: a bare string, such as a docstring, or `pass`."""
    if isinstance(item, ast.Expr):
        return isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
    return isinstance(item, ast.Pass)


def _value(value: object) -> str:
    """A constant with its type, in ASCII, since Python versions differ in which characters they escape.

    Integers are in hexadecimal, since Python refuses to print very long ones in decimal.
    """
    return f"{type(value).__name__}:{value:x}" if type(value) is int else f"{type(value).__name__}:{value!a}"
