"""YAML read strictly, with the line of every value: repeated keys and tags are faults, not silence.

PyYAML's own loader keeps the last of two equal keys and reads 1e-4 as text. Here the parser is PyYAML's, and only plain
values come out: objects with text keys, lists, text, numbers, truth values, null.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from orchestrator.errors import UserError

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_NODES = 100_000
"""More than any sweep has; aliases of aliases could otherwise fill the memory from a few lines."""

MAX_DEPTH = 50
"""Levels of lists and mappings, more than any sweep has."""

MAX_BITS = 1024
"""Of an integer; a longer one can neither be shown nor be made a float."""

MAX_SHOWN = 100
"""Characters of a faulty value that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong in a file, and where."""

    path: KeyPath
    message: str


@dataclass(slots=True)
class Source:
    """A parsed file: its value, the line of every key path, and the faults found so far."""

    file: Path
    text: str
    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: KeyPath, message: str) -> None:
        """Note a fault, once."""
        fault = Fault(path=path, message=message)
        if fault not in self.faults:
            self.faults.append(fault)

    def raise_faults(self) -> None:
        """Raise everything that was noted.

        Raises:
            UserError: with file, line, key path and message of each fault.
        """
        if not self.faults:
            return
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        in_order = sorted(self.faults, key=lambda fault: self._line(fault.path))
        lines = [f"  line {self._line(fault.path)}, {show_path(fault.path)}: {fault.message}" for fault in in_order]
        raise UserError("\n".join([f"{self.file}: {count}; nothing was started", *lines]))

    def _line(self, path: KeyPath) -> int:
        """The line of the value at `path`, or of the nearest one that holds its place."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def show_path(path: KeyPath) -> str:
    """A key path as text, such as `methods.flynet.scales[1]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in path)
    return text.removeprefix(".") or "the file"


def _shown(key: str) -> str:
    return key if key.isprintable() else repr(key)


def read(file: Path) -> Source:
    """Parse a YAML file.

    Returns:
        Its value, with repeated keys and tags noted as faults.

    Raises:
        UserError: the file cannot be read, is no YAML, or holds more than one document.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: expected a YAML file that can be read: {error}") from error
    source = Source(file=file, text=text)
    try:
        loader = _Loader(text)
        loader.name = str(file)  # instead of "<unicode string>" in PyYAML's errors
        node = loader.get_single_node()
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file}: expected YAML, but it does not parse: {error}") from error
    if node is not None:
        try:
            source.value = _Builder(source, loader).build(node, ())
        except RecursionError as error:
            raise UserError(f"{file}: {_TOO_DEEP}") from error
    return source


_TOO_DEEP = "expected plain values, given some that contain themselves or nest too deep"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, reading numbers such as 1e-4 and 1E5 as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)

_SCALARS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null")}


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8, which half a pair of surrogates cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Builder:
    """Turns the nodes of one document into plain values."""

    def __init__(self, source: Source, loader: _Loader) -> None:
        self._source = source
        self._loader = loader
        self._num_nodes = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """The value of a node; what is wrong in it is noted and left out."""
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:  # a node that contains itself ends here too
            raise UserError(f"{self._source.file}: expected at most {MAX_NODES} values, given more; look for aliases")
        if len(path) > MAX_DEPTH:
            raise UserError(f"{self._source.file}: {_TOO_DEEP}")
        self._source.lines.setdefault(path, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, path)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
            case yaml.ScalarNode() if node.tag in _SCALARS:
                return self._scalar(node, path)
            case yaml.ScalarNode(tag="tag:yaml.org,2002:timestamp"):
                return node.value
        self._source.fault(path, f"expected plain values, given the YAML tag {node.tag!r}; remove the tag")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = self._loader.construct_object(node)
            if (isinstance(value, str) and not _is_text(value)) or (
                isinstance(value, int) and value.bit_length() > MAX_BITS
            ):
                raise ValueError
        except (yaml.YAMLError, ValueError, KeyError, IndexError):
            given = node.value if len(node.value) <= MAX_SHOWN else node.value[:MAX_SHOWN] + "..."
            self._source.fault(path, f"expected {_SCALARS[node.tag]}, given {given!r}")
            return None
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                self._source.fault(
                    path, f"expected plain keys, given the merge key << in line {line}; write its keys out"
                )
            elif not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _SCALARS or not _is_text(key):
                self._source.fault(path, f"expected keys that are text, given another kind of key in line {line}")
            elif key in values:
                first = self._source.lines[(*path, key)]
                self._source.fault((*path, key), f"given twice, in line {first} and in line {line}; keep one of them")
            else:
                self._source.lines[(*path, key)] = line
                values[key] = self.build(value_node, (*path, key))
        return values
