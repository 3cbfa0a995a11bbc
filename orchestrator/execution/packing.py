"""Packs trials on GPUs by memory: the fraction of a GPU that a trial gets, and how many trials run in parallel.

A trial gets the smallest fraction of a GPU that fits the memory measured for trials that differ only in their seed, or
the predicted memory if none has run. Fractions are powers of 1/2, so that the rest of a GPU fits other trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from crwn.memory import predicted_bytes, tasks_that_fit
from crwn.trial_spec import TrialSpec
from orchestrator.execution.protocol import Capacity, NodeResources
from orchestrator.store.rows import TrialRow
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources

SHARES = (0.125, 0.25, 0.5, 1.0)
HEADROOM = 1.25
"""Factor on the expected memory: allocators keep some, and predictions err."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Measurements of trials that differ from a trial only in their seed.

    Attributes:
        gpu_bytes: the largest peak memory on a GPU; None if none ran on a GPU.
        seconds: the mean time of training and tests.
    """

    gpu_bytes: int | None
    seconds: float


def measured(store: Store, trials: Iterable[TrialSpec]) -> dict[str, Measured]:
    """Measurements for each trial, from finished trials in the store that differ only in their seed."""
    finished = [trial for trial in trials if store.is_finished(trial.trial_id)]
    rows = store.records.rows(trial.trial_id for trial in finished)
    alike: dict[str, list[TrialRow]] = {}
    for trial in finished:
        alike.setdefault(_kind(trial), []).append(rows[trial.trial_id])
    known = {kind: _measured(group) for kind, group in alike.items()}
    return {trial.trial_id: known[_kind(trial)] for trial in trials if _kind(trial) in known}


def _kind(trial: TrialSpec) -> str:
    """The trial's identity without its seed."""
    return dataclasses.replace(trial, seed=0).trial_id


def _measured(rows: Sequence[TrialRow]) -> Measured:
    found = [row.provenance.peak_memory_bytes for row in rows if row.numerics.device == "cuda"]
    peaks = [peak for peak in found if peak is not None]
    return Measured(gpu_bytes=max(peaks, default=None), seconds=sum(row.seconds or 0 for row in rows) / len(rows))


def resources_of(trial: TrialSpec, asked: Resources, capacity: Capacity, known: Measured | None) -> Resources:
    """A trial's resources: as requested; if GPUs are not specified, a fraction of a GPU if there are any."""
    if asked.gpus is not None:
        return asked
    gpus = gpu_share(trial, capacity.gpu_memory, known) if capacity.has_gpus else 0.0
    return Resources(cpus=asked.cpus, gpus=gpus)


def gpu_share(trial: TrialSpec, gpu_memory: int | None, known: Measured | None) -> float:
    """The smallest share of a GPU that is large enough for a trial.

    Args:
        trial: the trial.
        gpu_memory: memory of the smallest GPU, in bytes; None if unknown.
        known: measurements of trials that differ only in their seed.

    Returns:
        One of `SHARES`; 1 if the memory is unknown.
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
    """The number of trials with these resources that run in parallel."""
    gpus = resources.gpus or 0.0
    return sum(
        int(min(node.cpus / resources.cpus, _whole_shares(node.gpus, gpus) if gpus else float("inf"))) for node in nodes
    )


def _whole_shares(have: float, each: float) -> float:
    """The number of shares that fit, each within one GPU: two of 0.4 per GPU."""
    return have // each if each >= 1 else have * (1 // each)
