"""Printing for people: tables and lines, shown literally and in full, with or without a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WITHOUT_TERMINAL = 10_000
"""Width in columns without a terminal: nothing is cut or wrapped."""

NARROW = 130
"""Width in columns below which a table drops the padding of its cells."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or standard error; lines are plain text, in notebooks too."""
    if (sys.stderr if stderr else sys.stdout).isatty():
        return Console(stderr=stderr)
    return Console(width=WITHOUT_TERMINAL, force_terminal=False, force_jupyter=False, stderr=stderr)


def is_notebook() -> bool:
    """Whether this process is a notebook's kernel, whose outputs can change."""
    return Console().is_jupyter


def shown_method(label: str, *, continual: bool) -> str:
    """A method's name in a table; methods that see all tasks at once are marked as not comparable with the others."""
    return label if continual else f"{label} (not continual)"


def show_examples(count: float) -> str:
    """The number of training examples that a method keeps; a dash for a method without a buffer."""
    return f"{count:,.0f}" if count else "-"


def show_ratio(ratio: float) -> str:
    """A ratio of parameter counts, to three significant digits."""
    return f"{ratio:.3g}"


def counted(number: int, what: str) -> str:
    """A count with its noun: `1 trial`, `2,000 trials`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def printable(text: str) -> str:
    """Text with its control characters escaped as in Python, so that foreign text cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in text)


def hide_password(uri: str) -> str:
    """A URI, or text that contains URIs, with passwords and secrets hidden."""
    return _PASSWORD.sub(_without_password, uri)


_PASSWORD = re.compile(
    r"(://[^:/@\s]*):\S*@|([?&][^=&\s]*(?:passw|pwd|secret|token|key|credential|signature|odbc_connect)[^=&\s]*=)[^&\s]*",
    re.IGNORECASE,
)


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}:***@" if found[1] else f"{found[2]}***"


def without_middle(text: str, length: int) -> str:
    """Text cut to at most `length` characters; a longer text loses its middle."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def print_line(target: Console, line: str) -> None:
    """Print a line literally: no wrapping, no markup, control characters escaped."""
    target.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def print_table(
    target: Console,
    *,
    title: str,
    text_columns: Sequence[str],
    number_columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str = "",
) -> None:
    """Print a table.

    Args:
        target: the console.
        title: the line above the table.
        text_columns: headers of the first columns; long text is folded on a narrow screen.
        number_columns: headers of the remaining columns; numbers are never broken.
        rows: one string for each column.
        caption: the line below the table.
    """
    table = Table(title=_text(title), title_justify="left", padding=(0, 1 if target.width >= NARROW else 0))
    for name in text_columns:
        table.add_column(_text(name), overflow="fold")
    for name in number_columns:
        table.add_column(_text(name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(_text, row))
    target.print(table)
    if caption:
        target.print(_text(caption))


def _text(text: str) -> Text:
    return Text(printable(text))
