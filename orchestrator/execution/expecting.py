"""Estimates how long trials take on this machine, and says what the estimate is based on.

Each trial uses the best available basis: finished trials that differ from it only in their seed; finished trials
of its method, scaled by work; or a count of its operations, at a speed measured here.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crwn.faults import InvalidError
from crwn.trial_spec import TrialSpec
from orchestrator.display import counted
from orchestrator.errors import UserError
from orchestrator.execution.executors import default_executor
from orchestrator.execution.packing import num_slots
from orchestrator.execution.progress import estimated_work
from orchestrator.execution.protocol import NodeResources
from orchestrator.store import index
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources

MAX_STORES = 50
"""Number of stores that are consulted, besides the sweep's own."""

MEASURED_SECONDS = 0.1
"""Seconds of process time for which matrix products are timed."""

SHARE = 0.5
"""Share of the speed of large products that trials reach: quickstart, cifar100-10-epochs and r-mnist-wider took 0.4 to
0.8 of it on the machine of docs/results.md."""


WITHIN = 10
"""Factor within which the operations of trials must lie for their times to be in proportion: short trials take most of
their time for what does not grow with their training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What an expected time is based on.

    Attributes:
        text: its description in a sentence.
        factor: the time is expected within this factor of the estimate.
    """

    text: str
    factor: float


SAME = Basis(text="from trials that differ only in their seed", factor=1.25)
ALIKE = Basis(text="scaled from trials of the same methods", factor=2.0)
COUNTED = Basis(text="from a count of operations", factor=3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A finished trial.

    Attributes:
        spec: the trial.
        seconds: of training and tests.
        store: the address of its store.
        is_here: whether this machine computed it.
    """

    spec: TrialSpec
    seconds: float
    store: str
    is_here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The expected time of one trial.

    Attributes:
        seconds: on one of this machine's slots.
        basis: what that is based on.
        past: the finished trials that it is based on.
    """

    seconds: float
    basis: Basis
    past: tuple[Past, ...] = ()

    def as_json(self) -> dict[str, float | str]:
        """The time with its bounds, in seconds, and its basis."""
        least, most = self.seconds / self.basis.factor, self.seconds * self.basis.factor
        return {"seconds": self.seconds, "seconds_least": least, "seconds_most": most, "basis": self.basis.text}


def expected(trials: Iterable[TrialSpec], past: Sequence[Past]) -> list[Expected]:
    """The expected time of each trial, from past ones; those of other machines count only if this one computed none."""
    past = [each for each in past if each.is_here] or past
    alike: dict[tuple[str, ...], list[Past]] = defaultdict(list)
    for each in past:
        for key in _keys(each.spec):
            alike[key].append(each)
    return [_expected(trial, alike) for trial in trials]


def _expected(trial: TrialSpec, alike: Mapping[tuple[str, ...], Sequence[Past]]) -> Expected:
    same, *others = _keys(trial)
    if same in alike:
        mean = statistics.mean(each.seconds for each in alike[same])
        return Expected(seconds=mean, basis=SAME, past=tuple(alike[same]))
    work = estimated_work(trial)
    for key in others:
        near = {
            each: done
            for each in alike.get(key, ())
            if 1 / WITHIN < (done := estimated_work(each.spec)) / work < WITHIN
        }
        if near:
            rate = sum(each.seconds for each in near) / sum(near.values())
            return Expected(seconds=work * rate, basis=ALIKE, past=tuple(near))
    return Expected(seconds=work / (SHARE * measured_speed()), basis=COUNTED)


def _keys(trial: TrialSpec) -> tuple[tuple[str, ...], ...]:
    """What trials have in common that take similar times: all but the seed; method and scale; method."""
    kind = trial.method.kind
    return (replace(trial, seed=0).canonical_json(),), (kind, trial.scale), (kind,)


@functools.cache
def measured_speed() -> float:
    """The multiply-adds per second of one CPU core in typical products, whatever else the machine does."""
    import numpy as np  # noqa: PLC0415 (takes a tenth of a second, only where nothing was measured before)
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    generator = np.random.Generator(np.random.PCG64(0))
    left, right = (generator.random(shape, np.float32) for shape in ((128, 784), (784, 256)))
    with threadpool_limits(1):
        number, began = 0, time.thread_time()
        while time.thread_time() - began < MEASURED_SECONDS:
            left @ right
            number += 1
    return number * 128 * 784 * 256 / (time.thread_time() - began)


def past_trials(store: Store) -> list[Past]:
    """The readable finished trials of a store and of neighbouring stores; nothing is written."""
    found: dict[TrialSpec, Past] = {}
    for each in (store, *_beside(store)):
        with contextlib.suppress(OSError, UserError):
            for past in _past(each):
                found.setdefault(past.spec, past)
    return list(found.values())


def _beside(store: Store) -> Iterator[Store]:
    """The other stores in a store's folder."""
    with contextlib.suppress(OSError):
        folders = sorted(path for path in store.beside.iterdir() if path.is_dir())
        stores = (other for folder in folders if (other := _store_in(folder)) is not None)
        others = (other for other in stores if other.address != store.address)
        yield from itertools.islice(others, MAX_STORES)


def _store_in(folder: Path) -> Store | None:
    """The store in a folder; None if there is none: a folder next to a store may hold anything, such as images."""
    try:
        store = Store(folder)
        return store if store.exists else None
    except (OSError, UserError):
        return None


def _past(store: Store) -> Iterator[Past]:
    if not store.exists:
        return
    here = socket.gethostname()
    for each in index.glance(store):
        try:
            spec = TrialSpec.from_json(each.spec)
        except InvalidError:  # of a plug-in that is not here, or of another version
            continue
        if spec.trial_id == each.trial_id and each.seconds:
            yield Past(spec=spec, seconds=each.seconds, store=store.address, is_here=each.host == here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How long trials may take on this machine, with as many in parallel as it has slots.

    Attributes:
        seconds: the most likely time.
        least, most: bounds.
        slots: number of trials in parallel; 0 if this machine cannot run any.
        cpus: CPU cores of this machine.
        parts: what it is based on, one line each.
    """

    seconds: float
    least: float
    most: float
    slots: int
    cpus: int
    parts: tuple[str, ...]


def duration(trials: Sequence[TrialSpec], resources: Resources, store: Store) -> Duration:
    """The expected time of trials: sequential if few are pending, else as many in parallel as there are slots."""
    times = expected(trials, past_trials(store))
    cpus = len(os.sched_getaffinity(0))
    slots = num_slots(replace(resources, gpus=0.0), [NodeResources(cpus=cpus, gpus=0)])
    slots = min(slots, len(trials), 1 if default_executor(len(trials)) == "inline" else len(trials))
    parts = []
    for basis in (SAME, ALIKE, COUNTED):
        based = [each for each in times if each.basis == basis]
        if based:
            parts.append(f"{counted(len(based), 'trial')} {basis.text}{_where(based)}")

    def together(seconds: Iterable[float]) -> float:
        all_ = list(seconds)
        return max(*all_, sum(all_) / max(1, slots))

    return Duration(
        seconds=together(each.seconds for each in times),
        least=together(each.seconds / each.basis.factor for each in times),
        most=together(each.seconds * each.basis.factor for each in times),
        slots=slots,
        cpus=cpus,
        parts=tuple(parts),
    )


def _where(based: Sequence[Expected]) -> str:
    """Where the trials are on which an estimate is based."""
    past = {each.spec: each for times in based for each in times.past}
    if not past:
        return f", at {SHARE * measured_speed() / 1e9:.0f} billion multiply-adds per second and core, measured now"
    stores = sorted({each.store for each in past.values()})
    more = f" and {len(stores) - 3} more" if len(stores) > 3 else ""
    there = "" if any(each.is_here for each in past.values()) else ", on another machine"
    return f" in {', '.join(stores[:3])}{more}{there}"


def about(seconds: float) -> str:
    """A duration as text with about two digits."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s" if seconds < 10 else f"{5 * round(seconds / 5)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 10 * 3600 else f"{round(seconds / 3600)} h"
