"""Commands for sweeps: sweeps, plan, run, doctor."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import output
from orchestrator.cli.interruptions import INTERRUPTIONS, take_signals_for_interruptions
from orchestrator.cli.results import print_table
from orchestrator.cli.shown import how_to_open
from orchestrator.errors import UserError, begun

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.store.store import Store
    from orchestrator.sweeps.sweep import Sweep

from orchestrator.cli.arguments import (
    CpusOption,
    DataRootOption,
    ExecutorOption,
    GpusOption,
    NoTrackingOption,
    OutOption,
    PluginOption,
    RecomputeOption,
    SeedsOption,
    SetOption,
    SweepArgument,
    TrackingOption,
    chosen_sweep,
    store_of_run,
)


def sweeps_(
    *,
    name: Annotated[str | None, typer.Argument(help="bundled sweep to copy", metavar="[NAME]")] = None,
    to: Annotated[Path, typer.Argument(help="destination: a new file, or a folder", metavar="[TO]")] = Path(),
) -> None:
    """List the bundled sweeps, or copy one to edit."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import planning  # noqa: PLC0415
    from orchestrator.sweeps import bundled  # noqa: PLC0415

    if name is None:
        planning.show_bundled(display.console())
    else:
        copy = bundled.copy(name, to)
        typer.echo(f"{copy}\nrun it with: {shlex.join(['crwn', 'run', str(copy)])}")


def plan(
    *,
    sweep: SweepArgument,
    out: OutOption = None,
    plugin: PluginOption = None,
    seeds: SeedsOption = None,
    changes: SetOption = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="show how many trials run in parallel on the available machines, and how long they take"
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print every trial with its full spec as JSON")] = False,
) -> None:
    """Show what a sweep would run. Starts no trials and reads no data sets."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import planning  # noqa: PLC0415

    if cluster and as_json:
        raise UserError("options-conflict", "--cluster and --json: expected one of them, given both")
    loaded = chosen_sweep(sweep, seeds, changes, plugin)
    store = store_of_run(loaded, out)
    if cluster:
        from orchestrator.execution.ray_tune import RayTuneExecutor  # noqa: PLC0415

        planning.show_capacity(loaded, store, RayTuneExecutor().capacity(), display.console())
    elif as_json:
        typer.echo(planning.as_json(loaded, store))
    else:
        planning.show(loaded, store, display.console())


def run(
    *,
    sweep: SweepArgument,
    out: OutOption = None,
    plugin: PluginOption = None,
    seeds: SeedsOption = None,
    changes: SetOption = None,
    data_root: DataRootOption = None,
    executor: ExecutorOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
    no_tracking: NoTrackingOption = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="check all finished trials and recompute the damaged ones")
    ] = False,
    recompute: RecomputeOption = None,
) -> None:
    """Run or resume a sweep. Computes the trials that the store lacks, then prints the table."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415

    take_signals_for_interruptions()
    loaded = chosen_sweep(sweep, seeds, changes, plugin)
    store = store_of_run(loaded, out)
    output.go_on_without(f"The run continues; check it with: {shlex.join(['crwn', 'status', store.address])}")
    options = running.Options(
        data_root=data_root,
        executor=executor,
        gpus=gpus,
        cpus=cpus,
        tracking_uri=tracking_uri,
        tracking=not no_tracking,
        repair=repair,
        recompute=tuple(recompute or ()),
    )
    console = display.console()
    try:
        failed = running.run(loaded, store, options, console)
        with begun(running.REMEDY):
            _show_results(loaded, store, console)
        if not no_tracking:
            typer.echo(f"mlflow    {how_to_open(store.beside, tracking_uri)}")
    except KeyboardInterrupt:
        for sign in INTERRUPTIONS:
            signal.signal(sign, signal.SIG_IGN)  # the rest is quick and must not be interrupted
        command = shlex.join(["crwn", *map(display.hide_password, sys.argv[1:])])
        said = "Interrupted. Everything up to the last resume point is kept; continue with:"
        typer.echo(f"\n{said}\n  {command}", err=True)
        raise typer.Exit(130) from None
    raise typer.Exit(1 if failed else 0)


def doctor(
    *,
    sweep: SweepArgument,
    out: OutOption = None,
    plugin: PluginOption = None,
    data_root: DataRootOption = None,
    executor: ExecutorOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
    no_tracking: NoTrackingOption = False,
) -> None:
    """Check that a sweep can run here. Covers machines, versions, store, data, disk and MLflow."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.cluster import doctor as examination  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415
    from orchestrator.sweeps.reading import load_sweep  # noqa: PLC0415

    loaded = load_sweep(sweep, plugins=plugin or ())
    options = running.Options(
        data_root=data_root,
        executor=executor,
        gpus=gpus,
        cpus=cpus,
        tracking_uri=tracking_uri,
        tracking=not no_tracking,
    )
    if not examination.show(loaded, store_of_run(loaded, out), options, display.console()):
        raise typer.Exit(1)


def _show_results(sweep: Sweep, store: Store, console: Console) -> None:
    from orchestrator.report.sweep_tables import sweep_table  # noqa: PLC0415
    from orchestrator.report.tables import write_tables  # noqa: PLC0415
    from orchestrator.store.schemas import CONTEXTS_FILE  # noqa: PLC0415

    table = sweep_table(store, sweep.manifest())
    print_table(table, console)
    write_tables(store, store.report)
    typer.echo(f"results   {store.address}")
    typer.echo(f"tables    {store.report.locate(table.file_name)}.md and .csv")
    typer.echo(f"contexts  {store.locate('*', CONTEXTS_FILE)}")
