"""Commands that read stores: tables, report, diff, verify, accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from orchestrator import papers

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.report.printable import Printable

from orchestrator.cli.arguments import StoreArgument, existing_store


def _known_paper(name: str | None) -> str | None:
    """Refuse an unknown paper before the rest of the command line is parsed."""
    if name is not None:
        papers.file_of(name)
    return name


class NamesPaper(TyperCommand):
    """A command with `--paper NAME`, formerly a flag: if the name is missing, the error lists the papers."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, parsed; see click."""
        if args[-1:] == ["--paper"]:
            papers.file_of("")
        return super().parse_args(ctx, args)


def tables(
    *,
    stores: Annotated[
        list[str],
        typer.Argument(
            help="store: a folder such as runs/quickstart, or s3://bucket/prefix; several with --rows or --paper",
            metavar="STORE",
        ),
    ],
    to: Annotated[str | None, typer.Option(help="output folder; default: the store's report/", metavar="DIR")] = None,
    sweep: Annotated[str | None, typer.Option(help="only this sweep, with its own labels", metavar="NAME")] = None,
    against: Annotated[
        str | None,
        typer.Option(help="compare every row with this one, paired by seed and task, and rank all rows", metavar="ROW"),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="instead of the sweeps' tables, one with a row per value of these; default with --cols or --value: "
            "method,variant,scale",
            metavar="NAMES",
        ),
    ] = None,
    cols: Annotated[
        str | None, typer.Option(help="a column per value of this; default: benchmark", metavar="NAME")
    ] = None,
    value: Annotated[
        str | None, typer.Option(help="the measure shown in its cells; default: accuracy", metavar="VALUE")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="only trials with this value, such as scale=FC256; may be repeated", metavar="NAME=VALUE"),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            help="print this paper's tables instead, from all trials with its settings",
            metavar="NAME",
            callback=_known_paper,
        ),
    ] = None,
) -> None:
    """Write and print a store's tables. They are its sweeps' own; options select a pivot table or a paper's tables."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.report.printable import write  # noqa: PLC0415
    from orchestrator.report.tables import Choice, tables_of  # noqa: PLC0415
    from orchestrator.store.address import open_files  # noqa: PLC0415

    opened = [existing_store(store) for store in stores]
    made = tables_of(
        opened,
        Choice(
            sweep=sweep,
            against=against,
            rows=tuple(name.strip() for name in rows.split(",")) if rows is not None else (),
            columns=cols,
            value=value,
            where=tuple(where or ()),
            paper=paper,
        ),
    )
    files = write(made, open_files(to) if to is not None else opened[0].report)
    console = display.console()
    for table in made:
        print_table(table, console)
    for file in files:
        typer.echo(file)


def report_(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="one or more stores")],
    to: Annotated[
        str | None, typer.Option(help="output folder; default: the first store's report/", metavar="DIR")
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            help="include this paper's tables, figures and claims, from all trials with its settings",
            metavar="NAME",
            callback=_known_paper,
        ),
    ] = None,
) -> None:
    """Write a single HTML page of results. It has tables, figures, and the source of every number."""
    from orchestrator.display import printable  # noqa: PLC0415
    from orchestrator.papers.reading import read_paper  # noqa: PLC0415
    from orchestrator.report.page import write_report  # noqa: PLC0415
    from orchestrator.store.address import open_files  # noqa: PLC0415

    opened = [existing_store(store) for store in stores]
    where = open_files(to) if to is not None else opened[0].report
    asked = None if paper is None else read_paper(paper)
    for file in write_report(opened, where, lambda line: typer.echo(printable(line), err=True), asked):
        typer.echo(file)


def diff(
    *,
    a: Annotated[str, typer.Argument(help="the store before", metavar="A")],
    b: Annotated[str, typer.Argument(help="the store after", metavar="B")],
    where: Annotated[
        list[str] | None,
        typer.Option(help="only trials with this value, such as scale=FC256; may be repeated", metavar="NAME=VALUE"),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="tolerated difference in accuracy, in percentage points", min=0, max=100)
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Compare the trials of two stores. The exit code is 0 if they agree within the noise, 1 if they differ."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.report import diff  # noqa: PLC0415
    from orchestrator.report.tables import differences  # noqa: PLC0415

    found = differences(existing_store(a), existing_store(b), tuple(where or ()), noise / 100)
    if as_json:
        typer.echo(diff.as_json(found))
    else:
        console = display.console()
        for line in diff.lines(found):
            display.print_line(console, line)
    raise typer.Exit(0 if found.is_same else 1)


def verify(store: StoreArgument) -> None:
    """Verify that every file in a store is intact. The exit code is 0 if so, 1 if not."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.store import verifying  # noqa: PLC0415

    if not verifying.show(existing_store(store), display.console()):
        raise typer.Exit(1)


def accept(
    *,
    store: StoreArgument,
    methods: Annotated[list[str], typer.Argument(help="method names, as in a sweep", metavar="METHOD...")],
    code: Annotated[
        list[str] | None,
        typer.Option(help="accept only this code version; may be repeated", metavar="FINGERPRINT"),
    ] = None,
    results_version: Annotated[
        list[int] | None, typer.Option(help="accept only this results version; may be repeated", metavar="NUMBER")
    ] = None,
) -> None:
    """Average a method's trials across code versions. Accepts those in the store as equivalent to the current code."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import accepting  # noqa: PLC0415

    choice = accepting.Choice(
        methods=tuple(dict.fromkeys(methods)),
        codes=tuple(code or ()),
        results_versions=tuple(results_version or ()),
    )
    accepting.accept(existing_store(store), choice, display.console())


def print_table(table: Printable, console: Console) -> None:
    """Print a table with its notes."""
    from orchestrator.display import print_line, print_table  # noqa: PLC0415

    columns = list(table.table.columns)
    text_columns = [name for name in columns if name in table.name_columns]
    print_table(
        console,
        title=table.name,
        text_columns=text_columns,
        number_columns=columns[len(text_columns) :],
        rows=table.table.to_numpy().tolist(),
        caption=table.caption,
    )
    for note in table.notes:
        print_line(console, f"- {note}")
