"""Reads YAML strictly, with the line of every value: duplicate keys, tags and ambiguous numbers are reported as faults.

The parser is PyYAML's, whose own loader keeps the last of two equal keys and reads numbers as in YAML 1.1: 010 is
eight, 1:40 a hundred, 1e-4 text. Here, numbers are those of YAML 1.2, and whatever readers disagree on is refused with
a suggestion. The result has only plain values: objects with text keys, lists, text, numbers, booleans, null.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from crwn.faults import Codes
from orchestrator.errors import UserError, nearest, shortened
from orchestrator.sweeps.ambiguous import explain_number
from orchestrator.sweeps.places import Fault, FileFaultsError, KeyPath, show_path

MAX_BYTES = 1_000_000
"""Limit of a file's size, several times that of a sweep of 20,000 trials; parsing that takes seconds and 200 MB."""

MAX_NODES = 100_000
"""Limit of the number of values, more than any sweep has; aliases of aliases could otherwise exhaust memory."""

MAX_DEPTH = 50
"""Limit of the nesting of lists and mappings, more than any sweep has."""

MAX_BITS = 1024
"""Limit of an integer; a longer one can neither be printed nor converted to a float."""

MAX_FAULTS = 50
"""Number of faults shown; the rest are only counted."""

PIPE_SECONDS = 10.0
"""Seconds without data after which a pipe is assumed to have no writer."""


@dataclass(slots=True)
class Source:
    """A parsed file: its value, where and how it is written, and the faults found so far.

    Attributes:
        file: the file's path.
        value: the file's value.
        lines: the line of every key path.
        written: the text in the file of plain scalars that are not text, if Python would print them differently.
        faults: the faults, in order of discovery.
        unread: places whose value could not be determined; no further faults are reported for them.
        options: what the command line sets, by key path, as it was typed.
        labels: what the file calls its own base sets, by the name that trials use.
    """

    file: Path
    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    faults: dict[Fault, None] = field(default_factory=dict)
    unread: set[KeyPath] = field(default_factory=set)
    options: dict[KeyPath, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether there are as many faults as are shown, so that further messages need not be computed."""
        return len(self.faults) >= MAX_FAULTS

    def fault(self, path: KeyPath, codes: Codes, message: str) -> None:
        """Add a fault, once; its message shows base sets by the file's labels."""
        if path not in self.unread:
            for name, label in self.labels.items():
                message = message.replace(name, label)
            codes = (codes,) if isinstance(codes, str) else codes
            self.faults[Fault(path=path, codes=codes, message=message)] = None

    def unknown(self, path: KeyPath, name: str, known: Iterable[str], more: str = "") -> None:
        """Add the fault that a name is unknown, with the nearest known name."""
        message = f"unknown name {name!r}" if self.is_full else nearest(name, known) + more
        self.fault(path, "unknown-name", message)

    def given(self, path: KeyPath, value: Any) -> str:
        """A value for the end of a message: as Python prints it, and as written in the file if that differs."""
        if value is None:
            return "nothing"
        shown, written = repr(value), self.written.get(path, "")
        is_another = isinstance(value, int) and written.lower() not in ("", shown.lower())
        return shortened(shown) + (f", as YAML reads {shortened(written)}" if is_another else "")

    def in_quotes(self, path: KeyPath, value: Any) -> str:
        """The advice to quote text that YAML reads as something else."""
        return f"write it in quotes: '{shortened(self.written.get(path, str(value)))}'"

    def raise_faults(self) -> None:
        """Raise all faults found.

        Raises:
            FileFaultsError: with file, line, key path and message of up to `MAX_FAULTS` faults.
        """
        if not self.faults:
            return
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        found = list(self.faults)
        in_order = sorted(found[:MAX_FAULTS], key=lambda fault: self._line(fault.path))
        lines = [f"  {self._place(fault.path)}: {shortened(fault.message, MAX_MESSAGE)}" for fault in in_order]
        num_more = len(self.faults) - len(lines)
        if num_more:
            lines.append(f"  and {num_more} more")
        raise FileFaultsError(
            [*in_order, *found[MAX_FAULTS:]], "\n".join([f"{self.file}: {count}; nothing was started", *lines])
        )

    def _place(self, path: KeyPath) -> str:
        """Where the value at `path` comes from: its line, or the option of the command line that sets it."""
        near = self._near(path)
        if near in self.options:
            option = shortened(self.options[near])
            return option if near == path else f"{option}, {show_path(path)}"
        within = next(
            (f" with {shortened(text)}" for key, text in self.options.items() if path == key[: len(path)]), ""
        )
        return f"line {self.lines.get(near, 1)}, {show_path(path)}{within if path else ''}"

    def _line(self, path: KeyPath) -> int:
        """The line of the value at `path`; what the command line sets comes after the file."""
        near = self._near(path)
        return MAX_BYTES if near in self.options else self.lines.get(near, 1)

    def _near(self, path: KeyPath) -> KeyPath:
        """The nearest place at or around `path` that is in the file or was set."""
        while path and path not in self.lines and path not in self.options:
            path = path[:-1]
        return path


MAX_MESSAGE = 2000
"""Limit of a message's length, longer than any list of names; quoted values are shortened first."""


def read(file: Path) -> Source:
    """Parse a YAML file.

    Returns:
        Its value, with duplicate keys, tags and ambiguous numbers collected as faults.

    Raises:
        UserError: the file cannot be read, is too large, is not YAML, or holds more than one document.
    """
    try:
        content = _content(file)
        text = content.decode()
    except OSError as error:
        raise UserError("file-unreadable", f"{file}: expected a readable YAML file: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            "file-not-utf-8", f"{file}: expected a readable YAML file: {error}; save it as UTF-8 text"
        ) from error
    source = Source(file=file)
    try:
        source.value = parse(source, text, ())
    except yaml.YAMLError as error:
        raise UserError("file-not-yaml", f"{file}: expected YAML, but it does not parse: {error}") from error
    return source


def parse(source: Source, text: str, path: KeyPath) -> Any:
    """The value of one YAML document, read as the value at `path` of a source, which collects faults.

    Raises:
        yaml.YAMLError: it is not YAML, or more than one document.
        UserError: it is too large.
    """
    node = _Loader(text, source.file).get_single_node()
    return None if node is None else _Builder(source).build(node, path)


def _content(file: Path) -> bytes:
    """The bytes of a file, or of a pipe with a writer, such as a shell's `<(...)`.

    Raises:
        OSError: it cannot be read.
        UserError: it is larger than a sweep can be, or a pipe without data.
    """
    content = b""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # else opening a pipe waits for a writer
    try:
        while len(content) <= MAX_BYTES:
            if not select.select([descriptor], [], [], PIPE_SECONDS)[0]:
                raise UserError(
                    "pipe-silent", f"{file}: expected a YAML file, but read nothing from it within {PIPE_SECONDS:g} s"
                )
            chunk = os.read(descriptor, MAX_BYTES + 1 - len(content))
            if not chunk:
                return content
            content += chunk
    finally:
        os.close(descriptor)
    raise UserError(
        "file-too-large",
        f"{file}: expected a sweep of at most {MAX_BYTES:,} bytes, given more; is it another kind of file?",
    )


_TOO_DEEP = "expected plain values, given some that contain themselves or nest too deep"
_TOO_MANY = f"expected at most {MAX_NODES} values, given more; look for aliases"
_TOO_LONG = f"expected at most {MAX_BYTES:,} characters, given more; look for aliases"

_STANDARD = "tag:yaml.org,2002:"
_STR, _INT, _FLOAT, _BOOL, _NULL = (f"{_STANDARD}{name}" for name in ("str", "int", "float", "bool", "null"))
_TIMESTAMP = f"{_STANDARD}timestamp"
_AMBIGUOUS = "ambiguous"

_INT_TEXT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT_TEXT = re.compile(
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_AMBIGUOUS_TEXT = re.compile(
    r"""[-+]?(?:
        0b_*[01][01_]*                                  # base 2
      | 0x_*[0-9a-fA-F][0-9a-fA-F_]*                    # base 16 with a sign or underscores
      | [0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?     # base 60
      | [0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?  # leading zeros, underscores
      | \.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    )$""",
    re.VERBOSE,
)
"""Matches text that is neither, but a number in YAML 1.1 or to a human reader."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the numbers above and dates as text; it stops at the first value beyond the limits."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own interface)
        sign: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT, _TIMESTAMP)]
        for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, file: Path) -> None:
        super().__init__(text)
        self.name = str(file)  # instead of "<unicode string>" in PyYAML's errors
        self._file = file
        self._num_nodes = 0
        self._num_levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next value or key of the file."""
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise UserError("too-many-values", f"{self._file}: {_TOO_MANY}")
        if self._num_levels > MAX_DEPTH:
            raise yaml.YAMLError(f"values nest too deep, beyond {MAX_DEPTH} levels")
        self._num_levels += 1
        node = super().compose_node(parent, index)
        self._num_levels -= 1
        return node


for _tag, _pattern in ((_INT, _INT_TEXT), (_FLOAT, _FLOAT_TEXT), (_AMBIGUOUS, _AMBIGUOUS_TEXT)):
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))  # the first match decides


class _Builder:
    """Converts the nodes of one document to plain values."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._num_nodes = 0
        self._num_characters = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """The value of a node; faulty parts are reported and left out."""
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:  # a node that contains itself ends here too
            raise UserError("too-many-values", f"{self._source.file}: {_TOO_MANY}")
        if len(path) > MAX_DEPTH:
            raise UserError("nested-too-deep", f"{self._source.file}: {_TOO_DEEP}")
        self._source.lines.setdefault(path, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, path)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
            case yaml.ScalarNode():
                return self._scalar(node, path)
        return self._unread(path, "yaml-tag", _explain_tag(node))

    def _unread(self, path: KeyPath, code: str, message: str) -> None:
        self._source.fault(path, code, message)
        self._source.unread.add(path)

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        text = self._counted(node.value)
        if node.tag not in _READERS:
            if node.tag == _AMBIGUOUS:
                return self._unread(path, "ambiguous-number", explain_number(text))
            return self._unread(path, "yaml-tag", _explain_tag(node))
        try:
            value = _READERS[node.tag](text)
        except ValueError:
            kind = node.tag.removeprefix(_STANDARD)
            return self._unread(path, "wrong-type", f"expected {kind}, given {shortened(text)!r}")
        if not isinstance(value, str) and repr(value) != text:
            self._source.written[path] = text
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                message = f"expected plain keys, given the merge key << on line {line}; write out its keys"
                self._source.fault(path, "merge-key", message)
            elif not isinstance(key_node, yaml.ScalarNode) or not _is_key(key_node):
                message = f"expected text keys, given another kind of key on line {line}"
                self._source.fault(path, "key-not-text", message)
            elif key in values:
                first = self._source.lines[(*path, key)]
                message = f"given twice, on line {first} and on line {line}; keep one"
                self._source.fault((*path, key), "repeated-key", message)
            else:
                self._source.lines[(*path, self._counted(key))] = line
                values[key] = self.build(value_node, (*path, key))
        return values

    def _counted(self, text: str) -> str:
        """Count a text of the file, so that aliases cannot exceed the size of a file."""
        self._num_characters += len(text)
        if self._num_characters > MAX_BYTES:
            raise UserError("text-too-long", f"{self._source.file}: {_TOO_LONG}")
        return text


def _read_text(text: str) -> str:
    text.encode()  # raises a ValueError for lone surrogates, which UTF-8 cannot encode
    return text


def _read_int(text: str) -> int:
    if not _INT_TEXT.match(text):
        raise ValueError
    value = int(text, 0)
    if value.bit_length() > MAX_BITS:
        raise ValueError
    return value


def _read_float(text: str) -> float:
    if not _FLOAT_TEXT.match(text):
        raise ValueError
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _read_bool(text: str) -> bool:
    value = yaml.SafeLoader.bool_values.get(text.lower())
    if value is None:
        raise ValueError
    return bool(value)


def _read_null(text: str) -> None:
    del text


_READERS: Mapping[str, Callable[[str], Any]] = {
    _STR: _read_text,
    _INT: _read_int,
    _FLOAT: _read_float,
    _BOOL: _read_bool,
    _NULL: _read_null,
}
"""Convert a scalar by its tag; they raise a ValueError if the two do not fit."""


def _is_key(node: yaml.ScalarNode) -> bool:
    """Whether a key can be read as text, including what would be a number or a boolean as a value."""
    try:
        _read_text(node.value)
    except ValueError:
        return False
    return node.tag in _READERS or node.tag == _AMBIGUOUS


def _explain_tag(node: yaml.Node) -> str:
    if node.value in ("<<", "="):  # YAML 1.1 gives these two implicit tags
        return f"expected plain values, given {node.value}; write it in quotes: '{node.value}'"
    return f"expected plain values, given the YAML tag {node.tag!r}; remove the tag"
