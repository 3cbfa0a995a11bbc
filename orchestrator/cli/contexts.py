"""The command contexts: what trials keep of their tasks, and measurements on it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.arguments import DataRootOption, StoreArgument, existing_store
from orchestrator.cli.results import print_table


def contexts(
    *,
    store: StoreArgument,
    infer: Annotated[
        bool, typer.Option("--infer", help="measure how often the task of test images is inferred correctly")
    ] = False,
    similarity: Annotated[
        bool, typer.Option("--similarity", help="measure how similar tasks are; writes a table and figures")
    ] = False,
    images: Annotated[int, typer.Option(help="with --infer: test images per task", min=1)] = 2560,
    where: Annotated[
        list[str] | None,
        typer.Option(help="only trials with this value, such as scale=FC256; may be repeated", metavar="NAME=VALUE"),
    ] = None,
    to: Annotated[str | None, typer.Option(help="output folder; default: the store's report/", metavar="DIR")] = None,
    data_root: DataRootOption = None,
) -> None:
    """List what finished trials keep of their tasks. With options, measures task inference or task similarity."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.report.banks import banks_table  # noqa: PLC0415
    from orchestrator.report.inference import inference_table  # noqa: PLC0415
    from orchestrator.report.likeness import compare, table_of  # noqa: PLC0415
    from orchestrator.report.likeness_charts import similarity_charts, write_charts  # noqa: PLC0415
    from orchestrator.report.printable import write  # noqa: PLC0415
    from orchestrator.store.address import open_files  # noqa: PLC0415

    opened, console, chosen = existing_store(store), display.console(), tuple(where or ())
    tables = [banks_table(opened, chosen)]

    def tell(line: str) -> None:
        typer.echo(display.printable(line), err=True)

    if infer:
        tables.append(inference_table(opened, where=chosen, images=images, data_root=data_root, tell=tell))
    found = compare(opened, where=chosen, data_root=data_root, tell=tell) if similarity else []
    tables += [table_of(found)] if found else []
    target = open_files(to) if to is not None else opened.report
    files = write(tables, target) + write_charts(list(similarity_charts(found, "similarity")), target)
    for table in tables:
        print_table(table, console)
    for file in files:
        typer.echo(file)
