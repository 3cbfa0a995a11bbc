"""How much of a GPU a trial gets, and how many trials run at once: from the memory that it will take.

A trial gets the smallest share of a GPU whose memory holds what trials that differ from it by their seed alone took,
or, where none has run, what is predicted. Shares are halves of halves, so that what is left of a GPU fits other trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from crwn.memory import predicted_bytes, tasks_that_fit
from crwn.spec import TrialSpec
from orchestrator.execution.protocol import Capacity, NodeResources
from orchestrator.store.rows import TrialRow
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources

SHARES = (0.125, 0.25, 0.5, 1.0)
HEADROOM = 1.25
"""Times what is expected: allocators keep some, and predictions err."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What trials took that differ from a trial by their seed alone.

    Attributes:
        gpu_bytes: the largest peak of memory on a GPU; None where none ran on one.
        seconds: the mean of training and tests.
    """

    gpu_bytes: int | None
    seconds: float


def measured(store: Store, trials: Iterable[TrialSpec]) -> dict[str, Measured]:
    """By trial, what its like took of which the store has some."""
    finished = [trial for trial in trials if store.is_finished(trial.trial_id)]
    rows = store.records.rows(trial.trial_id for trial in finished)
    alike: dict[str, list[TrialRow]] = {}
    for trial in finished:
        alike.setdefault(_kind(trial), []).append(rows[trial.trial_id])
    known = {kind: _measured(group) for kind, group in alike.items()}
    return {trial.trial_id: known[_kind(trial)] for trial in trials if _kind(trial) in known}


def _kind(trial: TrialSpec) -> str:
    """The trial's identity but for its seed."""
    return dataclasses.replace(trial, seed=0).trial_id


def _measured(rows: Sequence[TrialRow]) -> Measured:
    found = [row.provenance.peak_memory_bytes for row in rows if row.numerics.device == "cuda"]
    peaks = [peak for peak in found if peak is not None]
    return Measured(gpu_bytes=max(peaks, default=None), seconds=sum(row.seconds or 0 for row in rows) / len(rows))


def resources_of(trial: TrialSpec, asked: Resources, capacity: Capacity, known: Measured | None) -> Resources:
    """What a trial gets: as asked for, and where nothing is said of GPUs, a share of one where there is any."""
    if asked.gpus is not None:
        return asked
    gpus = gpu_share(trial, capacity.gpu_memory, known) if capacity.has_gpus else 0.0
    return Resources(cpus=asked.cpus, gpus=gpus)


def gpu_share(trial: TrialSpec, gpu_memory: int | None, known: Measured | None) -> float:
    """The smallest share of a GPU that is large enough for a trial.

    Args:
        trial: the trial.
        gpu_memory: of the smallest GPU, in bytes; None where it cannot be told.
        known: what its like took.

    Returns:
        One of `SHARES`; 1 where the memory cannot be told.
    """
    if gpu_memory is None:
        return SHARES[-1]
    if known is not None and known.gpu_bytes is not None:
        wanted = known.gpu_bytes
    else:
        together = tasks_that_fit(trial, gpu_memory) if trial.blueprint().grouping == "any" else 1
        wanted = predicted_bytes(trial, together, "cuda")
    return next((share for share in SHARES if HEADROOM * wanted <= share * gpu_memory), SHARES[-1])


def num_slots(resources: Resources, nodes: Sequence[NodeResources]) -> int:
    """How many trials with these resources run at once."""
    gpus = resources.gpus or 0.0
    return sum(
        int(min(node.cpus / resources.cpus, _whole_shares(node.gpus, gpus) if gpus else float("inf"))) for node in nodes
    )


def _whole_shares(have: float, each: float) -> float:
    """Shares lie within one GPU: of 0.4 two fit on each."""
    return have // each if each >= 1 else have * (1 // each)
