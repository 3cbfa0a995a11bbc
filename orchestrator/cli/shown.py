"""Commands for MLflow: sync, ui, register, serve."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import StoreArgument, TrackingOption, TrialArgument, existing_store
from orchestrator.cli.interruptions import take_signals_for_interruptions
from orchestrator.errors import UserError


def sync(store: StoreArgument, tracking_uri: TrackingOption = None) -> None:
    """Update MLflow from a store. Rebuilds whatever is missing there."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.tracking import address, following  # noqa: PLC0415

    opened = existing_store(store)
    runs = opened.beside
    following.sync(opened, address.tracking_uri(runs, tracking_uri), display.console())
    typer.echo(f"mlflow    {how_to_open(runs, tracking_uri)}")


def how_to_open(runs: Path, given: str | None) -> str:
    """How to view MLflow: the command for the folder's own database, else the address."""
    from orchestrator.display import hide_password  # noqa: PLC0415
    from orchestrator.tracking.address import default_uri, tracking_uri  # noqa: PLC0415

    uri = tracking_uri(runs, given)
    if uri != default_uri(runs):
        return hide_password(uri)
    folder = str(runs.relative_to(Path.cwd()) if runs.is_relative_to(Path.cwd()) else runs)
    return shlex.join(["crwn", "ui", f"./{folder}" if folder.startswith("-") else folder])  # not an option


def ui(
    runs: Annotated[str, typer.Argument(help="the folder that holds the stores", metavar="RUNS")] = "runs",
    port: Annotated[int, typer.Option(help="port on 127.0.0.1", min=1, max=65535)] = 5000,
) -> None:
    """Serve the MLflow UI for a folder of stores. Runs on this machine until Ctrl-C."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.tracking.ui import serve  # noqa: PLC0415

    take_signals_for_interruptions()
    serve(_folder_of_stores(runs), port, display.console())


def register(
    store: StoreArgument,
    trial: TrialArgument,
    name: Annotated[
        str | None, typer.Option(help="the model's name in MLflow; default: crwn-<trial id>", metavar="NAME")
    ] = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Register a finished trial as a model in MLflow. The model loads without crwn."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.serving import registering  # noqa: PLC0415
    from orchestrator.tracking import address  # noqa: PLC0415

    opened = existing_store(store)
    registering.register(opened, trial, name, address.tracking_uri(opened.beside, tracking_uri), display.console())


def serve(
    store: StoreArgument,
    trial: TrialArgument,
    port: Annotated[int, typer.Option(help="port on 127.0.0.1", min=1, max=65535)] = 5001,
) -> None:
    """Serve a finished trial's predictions over HTTP. Runs on this machine until Ctrl-C."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.serving import server  # noqa: PLC0415

    take_signals_for_interruptions()
    server.serve(existing_store(store), trial, port, display.console())


def _folder_of_stores(runs: str) -> Path:
    from crwn.paths import expanded  # noqa: PLC0415
    from orchestrator.store.address import open_files  # noqa: PLC0415
    from orchestrator.store.folder import LocalFiles  # noqa: PLC0415

    if not isinstance(open_files(runs), LocalFiles):  # which also finds what is wrong with a path
        raise UserError(
            "not-a-folder",
            f"{runs}: expected a folder on this machine that holds the MLflow database. For a store on object storage, "
            "the database is in runs/, where crwn run was called. Rebuild it with crwn sync STORE, then: crwn ui",
        )
    return expanded(runs)
