"""Commands on what stores hold: tables, report, diff, verify, accept."""

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
    """A command with `--paper NAME`, which used to be a flag: if no name follows, the error suggests one."""

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
            help="the store: a folder such as runs/quickstart, or s3://bucket/prefix; several with --rows or --paper",
            metavar="STORE",
        ),
    ],
    to: Annotated[
        str | None, typer.Option(help="where to write; by default the store's report/", metavar="DIR")
    ] = None,
    sweep: Annotated[str | None, typer.Option(help="only this sweep, under its own labels", metavar="NAME")] = None,
    against: Annotated[
        str | None,
        typer.Option(help="compare every row with this one, paired by seed and task, and rank all rows", metavar="ROW"),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="instead of the sweeps' tables, one row for each value of these; by default of method, variant, "
            "scale, if --cols or --value asks for such a table",
            metavar="NAMES",
        ),
    ] = None,
    cols: Annotated[
        str | None, typer.Option(help="its columns: one for each value of this; benchmark by default", metavar="NAME")
    ] = None,
    value: Annotated[
        str | None, typer.Option(help="what its cells show: a measure; accuracy by default", metavar="VALUE")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="only trials with this value, such as scale=FC256; may be repeated", metavar="NAME=VALUE"),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            help="instead, the tables of this paper, from all trials with its settings",
            metavar="NAME",
            callback=_known_paper,
        ),
    ] = None,
) -> None:
    """Write and print the tables of a store's sweeps, a table of any rows and columns, or a paper's tables."""
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
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="any number of stores")],
    to: Annotated[
        str | None, typer.Option(help="where to write; by default the first store's report/", metavar="DIR")
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
    """Write one HTML page about stores: tables, figures, and the source of every number."""
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
    a: Annotated[str, typer.Argument(help="a store, as it was", metavar="A")],
    b: Annotated[str, typer.Argument(help="a store, as it is", metavar="B")],
    where: Annotated[
        list[str] | None,
        typer.Option(help="only trials with this value, such as scale=FC256; may be repeated", metavar="NAME=VALUE"),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="points of accuracy by which equal trials may differ", min=0, max=100)
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Compare two stores' trials; exit code 0 if they agree within the noise, 1 if they differ."""
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
    """Check that everything in a store is as it was written; exit code 0 if it is, 1 if not."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.store import verifying  # noqa: PLC0415

    if not verifying.show(existing_store(store), display.console()):
        raise typer.Exit(1)


def accept(
    *,
    store: StoreArgument,
    methods: Annotated[list[str], typer.Argument(help="names of methods, as in a sweep", metavar="METHOD...")],
    code: Annotated[
        list[str] | None,
        typer.Option(help="accept only this version of the code; may be repeated", metavar="FINGERPRINT"),
    ] = None,
    results_version: Annotated[
        list[int] | None, typer.Option(help="accept only this version of results; may be repeated", metavar="NUMBER")
    ] = None,
) -> None:
    """Average a method's trials although its code changed: accept all versions in a store and the present one."""
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
