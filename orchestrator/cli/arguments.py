"""Arguments that several commands share: a sweep, a store, options; and how they open the stores named by them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.store.store import Store
    from orchestrator.sweeps.sweep import Sweep


def _named_or_file(given: Path) -> Path:
    """The sweep's file; a bundled sweep may be named instead, which is reported."""
    from orchestrator.sweeps.bundled import named  # noqa: PLC0415

    bundled = named(given)
    if bundled is None:
        return given
    typer.echo(f"{given}: the sweep that comes with crwn, {bundled}", err=True)
    return bundled


SweepArgument = Annotated[
    Path,
    typer.Argument(
        help="the sweep's YAML file, or the name of one that comes with crwn", metavar="SWEEP", callback=_named_or_file
    ),
]
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
    typer.Option(help="inline or ray; by default ray on a cluster or if more than a few trials are left"),
]
GpusOption = Annotated[float | None, typer.Option(help="GPUs per trial: a share, a whole number, or 0")]
CpusOption = Annotated[float | None, typer.Option(help="CPU cores per trial")]
NoTrackingOption = Annotated[bool, typer.Option("--no-tracking", help="show nothing in MLflow")]
RecomputeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="recompute what other code computed, of this method or of the trial with this id; may be repeated",
        metavar="METHOD|TRIAL",
    ),
]
SeedsOption = Annotated[
    str | None, typer.Option(help="only the trials with these of the sweep's seeds, such as 0,1", metavar="SEEDS")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="change the sweep, such as methods.supsup.training.learning_rate=0.001; may be repeated",
        metavar="KEY=VALUE",
    ),
]
PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        help="run the code of this plug-in, which the sweep lists and which lies beside it; may be repeated",
        metavar="FILE",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(help="address of a Ray cluster's dashboard, such as http://127.0.0.1:8265", metavar="URL"),
]


def chosen_sweep(file: Path, seeds: str | None, changes: list[str] | None, plugins: list[str] | None) -> Sweep:
    """The sweep of a file with the changes, the seeds and the plug-ins that the command line names.

    Raises:
        UserError: it has faults, or the seeds are not seeds of the sweep.
    """
    from orchestrator.sweeps.reading import load_sweep  # noqa: PLC0415

    return load_sweep(
        file,
        changes=changes or (),
        seeds=None if seeds is None else _numbers(seeds),
        plugins=plugins or (),
    )


def _numbers(seeds: str) -> tuple[int, ...]:
    texts = [text.strip() for text in seeds.split(",")]
    if len(set(texts)) < len(texts) or not all(re.fullmatch("0|[1-9][0-9]{0,18}", text) for text in texts):
        raise UserError(
            "not-seeds", f"--seeds: expected distinct whole numbers separated by commas, such as 0,1; given {seeds!r}"
        )
    return tuple(map(int, texts))


def store_of_run(sweep: Sweep, out: str | None) -> Store:
    """The store of a run: the one named on the command line, the sweep's, or runs/<name>."""
    from orchestrator.store.store import Store  # noqa: PLC0415

    try:
        return Store(sweep.address(out))
    except UserError as error:
        raise UserError(error.codes, f"{error} Use --out to name another store.") from error


def existing_store(address: str) -> Store:
    """The store at an address; if there is none, the error says how to create one."""
    from orchestrator.store.store import Store  # noqa: PLC0415

    return Store.existing(address)
