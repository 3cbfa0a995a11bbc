"""Tables as files: Markdown for people, CSV and Parquet for programs, LaTeX for papers."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import pandas as pd

from orchestrator.display import printable
from orchestrator.errors import UserError, begun
from orchestrator.report.filenames import distinct
from orchestrator.report.latex import latex_table
from orchestrator.report.plain import csv_text
from orchestrator.store.files import Files

FIGURES_FOLDER = "figures"
"""The folder of figures, next to the tables."""

NAME_COLUMNS = ("method", "variant", "scale")
"""The columns of a table that name its rows."""


class Printable(Protocol):
    """The interface of every table."""

    @property
    def name(self) -> str:
        """The table's heading."""
        ...

    @property
    def file_name(self) -> str:
        """The name of its files, without extension; see `filenames`."""
        ...

    @property
    def summary(self) -> pd.DataFrame:
        """The table as numbers, one row per cell."""
        ...

    @property
    def table(self) -> pd.DataFrame:
        """The table as text, for print."""
        ...

    @property
    def caption(self) -> str:
        """What the numbers are."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Notes on single cells."""
        ...

    @property
    def name_columns(self) -> Sequence[str]:
        """The columns of `table` that name its rows: text, not numbers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; see `Printable`."""

    name: str
    """Of `filenames`, since its files are called so too."""
    summary: pd.DataFrame
    table: pd.DataFrame
    caption: str
    notes: Sequence[str] = ()
    name_columns: Sequence[str] = field(default=NAME_COLUMNS)

    @property
    def file_name(self) -> str:
        """See `Printable`."""
        return self.name


def markdown(table: Printable) -> str:
    """A table as a Markdown document."""
    notes = "".join(f"\n- {_FIRST.sub(_escaped, markdown_text(note), count=1)}" for note in table.notes)
    return f"# {markdown_text(table.name)}\n\n{markdown_caption(table)}\n\n{markdown_rows(table)}\n" + (
        f"{notes}\n" if notes else ""
    )


def markdown_caption(table: Printable) -> str:
    """What the numbers are, in Markdown."""
    return markdown_text(table.caption)


def markdown_rows(table: Printable) -> str:
    """A table in Markdown, without heading, caption or notes."""
    header = list(table.table.columns)
    lines = [header, ["---"] * len(header), *table.table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(markdown_text(str(cell)) for cell in line) + " |" for line in lines)


def markdown_text(text: str) -> str:
    """A text escaped for Markdown, in one line: no column, HTML, link, emphasis, formula or list."""
    return _SPECIAL.sub(_escaped, printable(" ".join(text.splitlines())))


def _escaped(found: re.Match[str]) -> str:
    return _AS_TEXT.get(found[0], f"\\{found[0]}")


_AS_TEXT = {"<": "&lt;", "&": "&amp;"}
_SPECIAL = re.compile(r"[|<\[`\\*~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
"""Signs that begin something else than text; a `_` does not between letters, nor a `&` without a name and `;`."""
_FIRST = re.compile(r"^[#>+=-]|(?<=\d)[.)](?= )")
"""What begins a heading, a list or a quotation at a line's beginning, or may after digits."""


def _latex(table: Printable) -> bytes:
    return latex_table(table.table, table.file_name, table.caption, table.notes, table.name_columns).encode()


def _parquet(table: Printable) -> bytes:
    content = io.BytesIO()
    table.summary.to_parquet(content, index=False)
    return content.getvalue()


FORMATS: Mapping[str, Callable[[Printable], bytes]] = MappingProxyType(
    {
        "md": lambda table: markdown(table).encode(),
        "csv": lambda table: csv_text(table.summary).encode(),
        "tex": _latex,
        "parquet": _parquet,
    }
)
"""By the ending of the file: `md` and `tex` have the text, `csv` and `parquet` every digit."""


def write(tables: Iterable[Printable], to: Files) -> list[str]:
    """Write tables in every format.

    Args:
        tables: any number of tables.
        to: the folder to write to.

    Returns:
        The full paths of the files written.

    Raises:
        UserError: the folder cannot be written.
    """
    files = table_files(tables)
    write_files(files, to)
    return [to.locate(name) for name in files]


def table_files(tables: Iterable[Printable]) -> dict[str, bytes]:
    """Tables in every format, by file name; the names are distinct."""
    tables = list(tables)
    names = distinct((table.file_name, f"{table.name} {table.caption}") for table in tables)
    return {
        f"{name}.{ending}": make(table)
        for name, table in zip(names, tables, strict=True)
        for ending, make in FORMATS.items()
    }


REMEDY = "Some files are written; the same command writes all of them again."


def write_files(files: Mapping[str, bytes], to: Files) -> None:
    """Write files by name; raises like `write`."""
    try:
        if to.kind() == "absent":
            to.make()
        for position, (name, content) in enumerate(files.items()):
            with begun(REMEDY) if position else contextlib.nullcontext():
                to.write(name, content)
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            "folder-not-writable",
            f"{to.address}: expected a writable folder: {error}. Use --to to name another.",
        ) from error
