"""Commands for Ray and Slurm clusters: submit and stop; and status, of a store or a cluster."""

from __future__ import annotations

from pathlib import Path
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
    address: AddressOption = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="submit to Slurm; needs sbatch on this machine")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            help="store, at a path or URI that every machine of the cluster can reach; default: the sweep's own, "
            "else, on Slurm, runs/<sweep name>",
            metavar="STORE",
        ),
    ] = None,
    plugin: PluginOption = None,
    seeds: SeedsOption = None,
    changes: SetOption = None,
    data_root: Annotated[
        str | None, typer.Option(help="search this folder of the cluster for data sets first, then its $CRWN_DATA")
    ] = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow server or database; default: this machine's $MLFLOW_TRACKING_URI, else the head's"),
    ] = None,
    no_tracking: NoTrackingOption = False,
    recompute: RecomputeOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="stream the job's log and exit with its code")] = False,
    nodes: Annotated[int | None, typer.Option(help="Slurm: number of nodes; default: 1")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help="Slurm: GPUs per node")] = None,
    cpus_per_node: Annotated[int | None, typer.Option(help="Slurm: CPUs per node")] = None,
    time: Annotated[
        str | None, typer.Option(help="Slurm: time limit, such as 8:00:00; the job requeues itself when it is reached")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm: partition")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm: account")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help='Slurm: extra sbatch option, such as "--qos=high"; may be repeated', metavar="OPTION"),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Slurm: write the sbatch script here instead of submitting it", metavar="FILE")
    ] = None,
) -> None:
    """Submit a sweep to a Ray cluster or to Slurm. If a job already runs it, finds that job instead."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.cluster import request  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415

    options = running.Options(
        data_root=data_root,
        gpus=gpus,
        cpus=cpus,
        tracking_uri=tracking_uri,
        tracking=not no_tracking,
        recompute=tuple(recompute or ()),
    )
    allocation = {
        "nodes": nodes,
        "gpus_per_node": gpus_per_node,
        "cpus_per_node": cpus_per_node,
        "time": time,
        "partition": partition,
        "account": account,
        "sbatch": tuple(sbatch) if sbatch else None,
        "write": write,
    }
    given = [f"--{name.replace('_', '-')}" for name, value in allocation.items() if value is not None]
    _check_where(address, slurm=slurm, follow=follow, for_slurm=given)
    loaded, console = chosen_sweep(sweep, seeds, changes, plugin), display.console()
    if address is None:
        from orchestrator.cluster import slurm as on_slurm  # noqa: PLC0415
        from orchestrator.cluster.slurm_script import Allocation  # noqa: PLC0415

        wanted = request.request_here(loaded, sweep, out, options)
        on_slurm.submit(
            wanted,
            Allocation(
                nodes=1 if nodes is None else nodes,
                gpus=gpus_per_node,
                cpus=cpus_per_node,
                time=time,
                partition=partition,
                account=account,
                more=tuple(sbatch or ()),
            ),
            console,
            script_file=write,
        )
        return
    from orchestrator.cluster import jobs, submitting  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415

    address = address.rstrip("/")
    wanted = request.request(loaded, sweep, out, options)
    client = connect(address)
    job = submitting.submit(client, address, wanted, console)
    if follow:
        raise typer.Exit(jobs.follow(client, address, job, console))


def _check_where(address: str | None, *, slurm: bool, follow: bool, for_slurm: list[str]) -> None:
    """Check that exactly one cluster is named, and no option of the other kind of cluster is given.

    Raises:
        UserError: otherwise.
    """
    if slurm == (address is not None):
        given = "both" if slurm else "neither"
        raise UserError("options-conflict", f"submit: expected a Ray cluster's --address or --slurm, given {given}")
    if not slurm and for_slurm:
        raise UserError("options-conflict", f"{', '.join(for_slurm)}: expected with --slurm only, given with --address")
    if slurm and follow:
        raise UserError(
            "options-conflict",
            "--follow: expected a Ray cluster's --address with it; for a Slurm job, use tail -F on its log",
        )


def stop(
    job: Annotated[
        str, typer.Argument(help="job id, as printed by submit and status; a number is a Slurm job", metavar="JOB")
    ],
    address: AddressOption = None,
) -> None:
    """Stop a job on a Ray cluster or Slurm. Its results are kept."""
    from orchestrator import display  # noqa: PLC0415

    if is_slurms(job, address):
        from orchestrator.cluster import slurm  # noqa: PLC0415

        slurm.stop(job, display.console())
        return
    if address is None:
        raise UserError(
            "cluster-not-named", f"--address: expected the Ray dashboard of the cluster that runs {job}; given nothing"
        )
    from orchestrator.cluster import jobs  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415

    jobs.stop(connect(address), address, job, display.console())


def is_slurms(name: str, address: str | None) -> bool:
    """Whether a name is a Slurm job number."""
    return address is None and name.isascii() and name.isdigit()


def status(
    store: Annotated[
        str | None,
        typer.Argument(
            help="a store, such as runs/quickstart or s3://bucket/prefix; a number is a Slurm job",
            metavar="[STORE|JOB]",
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="show the jobs of the Ray cluster with this dashboard instead", metavar="URL")
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="show your Slurm jobs instead")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="print one line per trial, and the tracebacks of failed ones; for jobs, the end of the log",
        ),
    ] = False,
) -> None:
    """Show the progress of a store's trials, or a cluster's jobs. Trials are done, running, failed or pending."""
    from orchestrator import display  # noqa: PLC0415

    asked = [store is not None, address is not None, slurm]
    if sum(asked) != 1:
        given = "several" if any(asked) else "none"
        raise UserError(
            "options-conflict", f"status: expected one of a store, a Slurm job, --address and --slurm; given {given}"
        )
    if slurm or (store is not None and is_slurms(store, address)):
        from orchestrator.cluster import slurm as on_slurm  # noqa: PLC0415

        if store is None:
            on_slurm.show_all(display.console(), verbose=verbose)
        else:
            on_slurm.show(store, display.console(), verbose=verbose)
    elif store is not None:
        from orchestrator.execution import status as standing  # noqa: PLC0415

        standing.show(existing_store(store), display.console(), verbose=verbose)
    else:
        assert address is not None
        from orchestrator.cluster import jobs  # noqa: PLC0415
        from orchestrator.cluster.dashboard import connect  # noqa: PLC0415

        jobs.show(connect(address), address, display.console(), verbose=verbose)
