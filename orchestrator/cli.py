"""The command line: parse, call, print. Heavy modules are imported by the command that needs them.

Exit codes: 0 done; 1 something was begun and is not finished, such as failed trials, and running again goes on; 2 the
input is wrong and nothing was started; 130 interrupted, running again goes on.
"""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from crwn.paths import stand_in_for_home
from orchestrator import output, papers
from orchestrator.errors import UnfinishedError, UserError, begun

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.report.printable import Printable
    from orchestrator.store.store import Store
    from orchestrator.sweeps.sweep import Sweep

SweepArgument = Annotated[Path, typer.Argument(help="the sweep's YAML file", metavar="SWEEP")]
StoreArgument = Annotated[
    str, typer.Argument(help="the store: a folder such as runs/quickstart, or s3://bucket/prefix", metavar="STORE")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        help="the store, a folder or s3://bucket/prefix; by default the sweep's own, or runs/<the sweep's name>",
        metavar="STORE",
    ),
]

DataRootOption = Annotated[
    str | None, typer.Option(help="look for data sets here first, then in $CRWN_DATA, then in ~/.cache/crwn")
]
TrackingOption = Annotated[
    str | None,
    typer.Option(help="MLflow's server or database; by default $MLFLOW_TRACKING_URI, or mlflow.db beside the store"),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(help="inline or ray; by default ray where more than a few trials are left, and on a cluster"),
]
GpusOption = Annotated[float | None, typer.Option(help="GPUs a trial: a share, a whole number, or 0")]
CpusOption = Annotated[float | None, typer.Option(help="CPU cores a trial")]
NoTrackingOption = Annotated[bool, typer.Option("--no-tracking", help="show nothing in MLflow")]
AddressOption = Annotated[
    str, typer.Option(help="of the cluster's dashboard, such as http://127.0.0.1:8265", metavar="URL")
]


def _known_paper(name: str | None) -> str | None:
    """Refuses a name that no paper has, before what follows it on the command line is looked at."""
    if name is not None:
        papers.file_of(name)
    return name


class _NamesPaper(TyperCommand):
    """A command with `--paper NAME`, which used to be a flag: where no name follows, the error has one to type."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, parsed; see click."""
        if args[-1:] == ["--paper"]:
            papers.file_of("")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="crwn",
    help="Run sweeps of continual-learning trials, on this machine or on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

data_app = typer.Typer(
    name="data", help="Base data sets: what is known, there, and whole.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app)


def main() -> None:
    """Run the command line and exit with its code."""
    stand_in_for_home()
    standard_output = output.take_over()
    code = _called()
    if standard_output is not None:
        sys.stdout.flush()
        if standard_output.is_lost and code == 0:
            code = 1
    sys.exit(code)


def _called() -> int:
    """Run the command; its exit code."""
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except UnfinishedError as error:
        _print_error(error)
        return 1
    except (UserError, OSError) as error:
        _print_error(error)
        return 2
    return 0


@app.command()
def plan(
    *,
    sweep: SweepArgument,
    out: OutOption = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="how many trials run at once on the machines there are, and how long it takes"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print every trial with its resolved spec as JSON")] = False,
) -> None:
    """Show what a sweep would run; start nothing and need no data."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import planning  # noqa: PLC0415
    from orchestrator.sweeps.reading import load_sweep  # noqa: PLC0415

    if cluster and as_json:
        raise UserError("--cluster and --json: expected one of them, given both")
    loaded = load_sweep(sweep)
    store = _store(loaded, out)
    if cluster:
        from orchestrator.execution.ray_tune import RayTuneExecutor  # noqa: PLC0415

        planning.show_capacity(loaded, store, RayTuneExecutor().capacity(), display.console())
    elif as_json:
        typer.echo(planning.as_json(loaded, store))
    else:
        planning.show(loaded, store, display.console())


@app.command()
def run(
    *,
    sweep: SweepArgument,
    out: OutOption = None,
    data_root: DataRootOption = None,
    executor: ExecutorOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
    no_tracking: NoTrackingOption = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="read all that is done, and compute again what is not as it was written")
    ] = False,
) -> None:
    """Run what a sweep lacks, or go on with it, and end with its table."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415
    from orchestrator.sweeps.reading import load_sweep  # noqa: PLC0415
    from orchestrator.tracking import address  # noqa: PLC0415

    _take_signals_for_interruptions()
    loaded = load_sweep(sweep)
    store = _store(loaded, out)
    output.go_on_without(f"The run goes on; look at it with: {shlex.join(['crwn', 'status', store.address])}")
    options = running.Options(
        data_root=data_root,
        executor=executor,
        gpus=gpus,
        cpus=cpus,
        tracking_uri=tracking_uri,
        tracking=not no_tracking,
        repair=repair,
    )
    console = display.console()
    try:
        failed = running.run(loaded, store, options, console)
        with begun(running.REMEDY):
            _show_results(loaded, store, console)
        if not no_tracking:
            typer.echo(f"mlflow    {address.how_to_open(store.beside, tracking_uri)}")
    except KeyboardInterrupt:
        for sign in INTERRUPTIONS:
            signal.signal(sign, signal.SIG_IGN)  # what follows takes no time and must not be cut off
        command = shlex.join(["crwn", *map(address.hide_password, sys.argv[1:])])
        typer.echo(f"\nInterrupted. Everything up to the last seconds is kept; go on with:\n  {command}", err=True)
        raise typer.Exit(130) from None
    raise typer.Exit(1 if failed else 0)


@app.command()
def doctor(
    *,
    sweep: SweepArgument,
    out: OutOption = None,
    data_root: DataRootOption = None,
    executor: ExecutorOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
    no_tracking: NoTrackingOption = False,
) -> None:
    """Find out whether a sweep would run here: machines, versions, store, data, disk, MLflow; start no trial."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.cluster import doctor as examination  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415
    from orchestrator.sweeps.reading import load_sweep  # noqa: PLC0415

    loaded = load_sweep(sweep)
    options = running.Options(
        data_root=data_root,
        executor=executor,
        gpus=gpus,
        cpus=cpus,
        tracking_uri=tracking_uri,
        tracking=not no_tracking,
    )
    if not examination.show(loaded, _store(loaded, out), options, display.console()):
        raise typer.Exit(1)


@app.command()
def submit(
    *,
    sweep: SweepArgument,
    address: AddressOption,
    out: Annotated[
        str | None,
        typer.Option(help="the store, where all of the cluster sees it; by default the sweep's own", metavar="STORE"),
    ] = None,
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
    follow: Annotated[bool, typer.Option("--follow", help="print the job's log and end with its exit code")] = False,
) -> None:
    """Have a Ray cluster run what a sweep lacks, as a job; or follow the job that is at it."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.cluster import jobs, submitting  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415
    from orchestrator.cluster.request import request  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415
    from orchestrator.sweeps.reading import load_sweep  # noqa: PLC0415

    options = running.Options(
        data_root=data_root, gpus=gpus, cpus=cpus, tracking_uri=tracking_uri, tracking=not no_tracking
    )
    address = address.rstrip("/")
    wanted = request(load_sweep(sweep), sweep, out, options)
    client = connect(address)
    console = display.console()
    job = submitting.submit(client, address, wanted, console)
    if follow:
        raise typer.Exit(jobs.follow(client, address, job, console))


@app.command()
def stop(
    job: Annotated[str, typer.Argument(help="the job's id, as submit and status show it", metavar="JOB")],
    address: AddressOption,
) -> None:
    """Stop a job on a Ray cluster; what it computed is kept."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.cluster import jobs  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415

    jobs.stop(connect(address), address, job, display.console())


@app.command()
def status(
    store: Annotated[
        str | None, typer.Argument(help="the store, such as runs/quickstart or s3://bucket/prefix", metavar="[STORE]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="show the jobs of the cluster whose dashboard is here instead", metavar="URL")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="a line for every trial; of jobs, the end of the log")
    ] = False,
) -> None:
    """Show what of a store's sweeps is done, running, failed and left, or how a cluster's jobs stand."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import status as standing  # noqa: PLC0415

    if (store is None) == (address is None):
        given = "neither" if store is None else "both"
        raise UserError(f"status: expected a store, or a cluster with --address; given {given}")
    if store is not None:
        standing.show(_existing_store(store), display.console(), verbose=verbose)
        return
    assert address is not None
    from orchestrator.cluster import jobs  # noqa: PLC0415
    from orchestrator.cluster.dashboard import connect  # noqa: PLC0415

    jobs.show(connect(address), address, display.console(), verbose=verbose)


@app.command(cls=_NamesPaper)
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
    sweep: Annotated[
        str | None, typer.Option(help="of this sweep alone, by the names that it gives", metavar="NAME")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="compare every row with this one, paired by seed and task; rank all", metavar="ROW"),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="instead of the sweeps' tables: a row for each value of these", metavar="NAMES")
    ] = None,
    cols: Annotated[
        str, typer.Option(help="with --rows: a column for each value of this", metavar="NAME")
    ] = "benchmark",
    value: Annotated[str, typer.Option(help="with --rows: what the cells show", metavar="VALUE")] = "accuracy",
    where: Annotated[
        list[str] | None,
        typer.Option(help="only trials with this value, such as scale=FC256; may be repeated", metavar="NAME=VALUE"),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            help="instead: the tables of this paper, from all trials at its settings",
            metavar="NAME",
            callback=_known_paper,
        ),
    ] = None,
) -> None:
    """Write and print the tables of a store's sweeps, any others over its trials, or a paper's."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.report.printable import write  # noqa: PLC0415
    from orchestrator.report.tables import Choice, tables_of  # noqa: PLC0415
    from orchestrator.store.address import open_files  # noqa: PLC0415

    opened = [_existing_store(store) for store in stores]
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
        _print_table(table, console)
    for file in files:
        typer.echo(file)


@app.command("report", cls=_NamesPaper)
def report_(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="any number of stores")],
    to: Annotated[
        str | None, typer.Option(help="where to write; by default the first store's report/", metavar="DIR")
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            help="with the claims of this paper, and what all trials at its settings say of them",
            metavar="NAME",
            callback=_known_paper,
        ),
    ] = None,
) -> None:
    """Write one HTML page over stores: tables, figures, where every number is from; a paper's claims if asked for."""
    from orchestrator.display import printable  # noqa: PLC0415
    from orchestrator.papers.reading import read_paper  # noqa: PLC0415
    from orchestrator.report.page import write_report  # noqa: PLC0415
    from orchestrator.store.address import open_files  # noqa: PLC0415

    opened = [_existing_store(store) for store in stores]
    where = open_files(to) if to is not None else opened[0].report
    asked = None if paper is None else read_paper(paper)
    for file in write_report(opened, where, lambda line: typer.echo(printable(line), err=True), asked):
        typer.echo(file)


@app.command()
def diff(
    *,
    a: Annotated[str, typer.Argument(help="a store, as it was", metavar="A")],
    b: Annotated[str, typer.Argument(help="a store, as it is", metavar="B")],
    where: Annotated[
        list[str] | None,
        typer.Option(help="only trials with this value, such as scale=FC256; may be repeated", metavar="NAME=VALUE"),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="points of accuracy by which a trial may differ and be the same", min=0, max=100)
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Show what changed between two stores' trials; exit code 0 the same within the noise, 1 different."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.report import diff  # noqa: PLC0415
    from orchestrator.report.tables import differences  # noqa: PLC0415

    found = differences(_existing_store(a), _existing_store(b), tuple(where or ()), noise / 100)
    if as_json:
        typer.echo(diff.as_json(found))
    else:
        console = display.console()
        for line in diff.lines(found):
            display.print_line(console, line)
    raise typer.Exit(0 if found.is_same else 1)


@app.command()
def verify(store: StoreArgument) -> None:
    """Read everything in a store and see that it is as it was written; exit code 0 if it is, 1 if not."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.store import verifying  # noqa: PLC0415

    if not verifying.show(_existing_store(store), display.console()):
        raise typer.Exit(1)


@app.command()
def sync(store: StoreArgument, tracking_uri: TrackingOption = None) -> None:
    """Show all of a store in MLflow: rebuild what is lost there, catch up with what is missing."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.tracking import address, following  # noqa: PLC0415

    opened = _existing_store(store)
    runs = opened.beside
    following.sync(opened, address.tracking_uri(runs, tracking_uri), display.console())
    typer.echo(f"mlflow    {address.how_to_open(runs, tracking_uri)}")


@app.command()
def ui(
    runs: Annotated[str, typer.Argument(help="the folder that holds the stores", metavar="RUNS")] = "runs",
    port: Annotated[int, typer.Option(help="on 127.0.0.1", min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's interface on a folder of stores, on this machine, until Ctrl-C."""
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.tracking.ui import serve  # noqa: PLC0415

    _take_signals_for_interruptions()
    serve(_folder_of_stores(runs), port, display.console())


@data_app.command("list")
def data_list(data_root: DataRootOption = None) -> None:
    """Show what is known, where it is looked for, and what is there."""
    from orchestrator import data_sets, display  # noqa: PLC0415

    data_sets.show(data_root, display.console())


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="of the data set", metavar="NAME")], data_root: DataRootOption = None
) -> None:
    """Download a data set to ~/.cache/crwn, or say why that cannot be done."""
    from orchestrator import data_sets, display  # noqa: PLC0415

    data_sets.fetch(name, data_root, display.console())


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(help="of data sets; all by default", metavar="[NAME]...")] = None,
    data_root: DataRootOption = None,
) -> None:
    """Check data sets against their checksums and counts; exit code 1 if one is damaged, or named and absent."""
    from orchestrator import data_sets, display  # noqa: PLC0415

    if not data_sets.verify(names or [], data_root, display.console()):
        raise typer.Exit(1)


INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command in order: Ctrl-C, a scheduler's polite end, a terminal or connection that is gone."""


def _take_signals_for_interruptions() -> None:
    """Have each of them raise KeyboardInterrupt, in the background too, where a shell has Ctrl-C ignored.

    Whoever sends a signal to this very process means it. A hang-up is sent to all, and stays ignored under nohup.
    """
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # the kernel and the shell both send one, which must not cut off the end
    raise KeyboardInterrupt


def _print_error(error: Exception) -> None:
    from orchestrator.display import printable  # noqa: PLC0415

    typer.echo(f"error: {printable(str(error))}", err=True)


def _folder_of_stores(runs: str) -> Path:
    from crwn.paths import expanded  # noqa: PLC0415
    from orchestrator.store.address import open_files  # noqa: PLC0415
    from orchestrator.store.folder import LocalFiles  # noqa: PLC0415

    if not isinstance(open_files(runs), LocalFiles):  # which also finds what is wrong with a path
        raise UserError(
            f"{runs}: expected a folder on this machine, where MLflow's database is. For a store on object storage it "
            "is in runs/ of the folder where crwn run was typed; crwn sync STORE makes it anew, then type: crwn ui"
        )
    return expanded(runs)


def _store(sweep: Sweep, out: str | None) -> Store:
    """The store of a run: the one named on the command line, the sweep's, or runs/<name>."""
    try:
        return _open(out or sweep.store or f"runs/{sweep.name}")
    except UserError as error:
        raise UserError(f"{error} Another store is named with --out.") from error


def _existing_store(address: str) -> Store:
    store = _open(address)
    if not store.exists:
        raise UserError(f"{address}: expected a store, found none there; crwn run makes one")
    return store


def _open(address: str) -> Store:
    from orchestrator.store.store import Store  # noqa: PLC0415

    return Store(address)


def _show_results(sweep: Sweep, store: Store, console: Console) -> None:
    from orchestrator.report.sweep_tables import sweep_table  # noqa: PLC0415
    from orchestrator.report.tables import write_tables  # noqa: PLC0415
    from orchestrator.store.schemas import CONTEXTS_FILE  # noqa: PLC0415

    table = sweep_table(store, sweep.manifest())
    _print_table(table, console)
    write_tables(store, store.report)
    typer.echo(f"results   {store.address}")
    typer.echo(f"tables    {store.report.locate(table.file_name)}.md and .csv")
    typer.echo(f"contexts  {store.locate('*', CONTEXTS_FILE)}")


def _print_table(table: Printable, console: Console) -> None:
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
