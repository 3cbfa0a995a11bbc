"""What several commands take: a sweep, a store, options; and the stores that are named by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import UserError

if TYPE_CHECKING:
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
AddressOption = Annotated[
    str, typer.Option(help="address of the cluster's dashboard, such as http://127.0.0.1:8265", metavar="URL")
]


def store_of_run(sweep: Sweep, out: str | None) -> Store:
    """The store of a run: the one named on the command line, the sweep's, or runs/<name>."""
    try:
        return _open(out or sweep.store or f"runs/{sweep.name}")
    except UserError as error:
        raise UserError(f"{error} Another store is named with --out.") from error


def existing_store(address: str) -> Store:
    """A store that is there; where none is, the user is told what makes one."""
    store = _open(address)
    if not store.exists:
        raise UserError(f"{address}: expected a store, found none there; crwn run makes one")
    return store


def _open(address: str) -> Store:
    from orchestrator.store.store import Store  # noqa: PLC0415

    return Store(address)
