"""Commands on base data sets: data list, fetch, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.arguments import DataRootOption


def list_(data_root: DataRootOption = None) -> None:
    """List the data sets and where each was found. Also lists the folders searched."""
    from orchestrator import data_sets, display  # noqa: PLC0415

    data_sets.show(data_root, display.console())


def fetch(
    name: Annotated[str, typer.Argument(help="name of the data set", metavar="NAME")], data_root: DataRootOption = None
) -> None:
    """Download a data set to ~/.cache/crwn, or explain how to obtain it."""
    from orchestrator import data_sets, display  # noqa: PLC0415

    data_sets.fetch(name, data_root, display.console())


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="names of data sets; default: all", metavar="[NAME]...")
    ] = None,
    data_root: DataRootOption = None,
) -> None:
    """Verify data sets by checksum and count. The exit code is 1 if one is damaged, or named but missing."""
    from orchestrator import data_sets, display  # noqa: PLC0415

    if not data_sets.verify(names or [], data_root, display.console()):
        raise typer.Exit(1)
