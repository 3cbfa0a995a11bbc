"""Commands on a cluster: submit, stop; and status, of a store or of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    AddressOption,
    CpusOption,
    GpusOption,
    NoTrackingOption,
    PluginOption,
    RecomputeOption,
    SeedsOption,
    SetOption,
    SweepArgument,
    chosen_sweep,
    existing_store,
)
from orchestrator.errors import UserError


def submit(
    *,
    sweep: SweepArgument,
    address: AddressOption,
    out: Annotated[
        str | None,
        typer.Option(
            help="the store, at a path or URI that the whole cluster sees; by default the sweep's own", metavar="STORE"
        ),
    ] = None,
    plugin: PluginOption = None,
    seeds: SeedsOption = None,
    changes: SetOption = None,
    data_root: Annotated[
        str | None, typer.Option(help="on the cluster, look for data sets here first; then in its $CRWN_DATA")
    ] = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow's server or database; by default $MLFLOW_TRACKING_URI here, else the head's own"),
    ] = None,
    no_tracking: NoTrackingOption = False,
    recompute: RecomputeOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="print the job's log and end with its exit code")] = False,
) -> None:
    """Submit a sweep to a Ray cluster as a job, or follow the job that already runs it."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.cluster import jobs, submitting  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415
    from orchestrator.cluster.request import request  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415

    options = running.Options(
        data_root=data_root,
        gpus=gpus,
        cpus=cpus,
        tracking_uri=tracking_uri,
        tracking=not no_tracking,
        recompute=tuple(recompute or ()),
    )
    address = address.rstrip("/")
    wanted = request(chosen_sweep(sweep, seeds, changes, plugin), sweep, out, options)
    client = connect(address)
    console = display.console()
    job = submitting.submit(client, address, wanted, console)
    if follow:
        raise typer.Exit(jobs.follow(client, address, job, console))


def stop(
    job: Annotated[str, typer.Argument(help="the job's id, as submit and status show it", metavar="JOB")],
    address: AddressOption,
) -> None:
    """Stop a job on a Ray cluster and keep what it computed."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.cluster import jobs  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415

    jobs.stop(connect(address), address, job, display.console())


def status(
    store: Annotated[
        str | None, typer.Argument(help="the store, such as runs/quickstart or s3://bucket/prefix", metavar="[STORE]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="instead show the jobs of the cluster with this dashboard", metavar="URL")
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="print a line for every trial, and the tracebacks of failed ones; for jobs, the end of the log",
        ),
    ] = False,
) -> None:
    """Show how many trials of a store are done, running, failed or left, or the state of a cluster's jobs."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import status as standing  # noqa: PLC0415

    if (store is None) == (address is None):
        given = "neither" if store is None else "both"
        raise UserError("options-conflict", f"status: expected a store, or a cluster with --address; given {given}")
    if store is not None:
        standing.show(existing_store(store), display.console(), verbose=verbose)
        return
    assert address is not None
    from orchestrator.cluster import jobs  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415

    jobs.show(connect(address), address, display.console(), verbose=verbose)
