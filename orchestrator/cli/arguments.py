"""Arguments shared by several commands (a sweep, a store, options), and opening the stores that they name."""

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
    """The sweep's file; given the name of a bundled sweep, print and return that sweep's file."""
    from orchestrator.sweeps.bundled import named  # noqa: PLC0415

    bundled = named(given)
    if bundled is None:
        return given
    typer.echo(f"{given}: using the bundled sweep {bundled}", err=True)
    return bundled


SweepArgument = Annotated[
    Path,
    typer.Argument(
        help="a sweep file (YAML), or the name of a bundled sweep", metavar="SWEEP", callback=_named_or_file
    ),
]
StoreArgument = Annotated[
    str, typer.Argument(help="the store: a folder such as runs/quickstart, or s3://bucket/prefix", metavar="STORE")
]
TrialArgument = Annotated[
    str, typer.Argument(help="a finished trial: its id, or an unambiguous beginning of it", metavar="TRIAL")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        help="store: a folder or s3://bucket/prefix; default: the sweep's own, else runs/<sweep name>",
        metavar="STORE",
    ),
]

DataRootOption = Annotated[
    str | None, typer.Option(help="search this folder for data sets first, then $CRWN_DATA, then ~/.cache/crwn")
]
TrackingOption = Annotated[
    str | None,
    typer.Option(help="MLflow server or database; default: $MLFLOW_TRACKING_URI, else mlflow.db next to the store"),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(help="inline or ray; default: ray on a cluster or if more than a few trials are pending"),
]
GpusOption = Annotated[float | None, typer.Option(help="GPUs per trial: a fraction, a whole number, or 0")]
CpusOption = Annotated[float | None, typer.Option(help="CPU cores per trial")]
NoTrackingOption = Annotated[bool, typer.Option("--no-tracking", help="do not log to MLflow")]
RecomputeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="recompute results of older code, for this method or trial id; may be repeated",
        metavar="METHOD|TRIAL",
    ),
]
SeedsOption = Annotated[
    str | None, typer.Option(help="run only these of the sweep's seeds, such as 0,1", metavar="SEEDS")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="override a setting, such as methods.supsup.training.learning_rate=0.001; may be repeated",
        metavar="KEY=VALUE",
    ),
]
PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        help="allow the code of this plug-in to run; the sweep must list it, in its own folder; may be repeated",
        metavar="FILE",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(help="Ray dashboard of the cluster, such as http://127.0.0.1:8265", metavar="URL"),
]


def chosen_sweep(file: Path, seeds: str | None, changes: list[str] | None, plugins: list[str] | None) -> Sweep:
    """Load a sweep with the command line's overrides, seeds and plug-ins.

    Raises:
        UserError: the sweep has faults, or lacks some of the seeds.
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
    """The store of a run: the command line's, else the sweep's, else runs/<name>."""
    from orchestrator.store.store import Store  # noqa: PLC0415

    try:
        return Store(sweep.address(out))
    except UserError as error:
        raise UserError(error.codes, f"{error} Use --out to name another store.") from error


def existing_store(address: str) -> Store:
    """The store at an address; if none exists, the error says how to create one."""
    from orchestrator.store.store import Store  # noqa: PLC0415

    return Store.existing(address)
