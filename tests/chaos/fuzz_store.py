"""Damages the files of a small store thousands of times, and checks what every reader makes of them.

    .venv/bin/python -m tests.chaos.fuzz_store --flips 2000 --seed 0

Of every ten faults, seven flip one bit of a file, one truncates it, one removes some bytes, one zeroes some. Each
time, all readers of the store report what they show: tables, status, verify, run before it starts anything, diff, and
what MLflow would get. The outcome is one of these:

- refused: a reader names the file, in a few lines, and none shows anything different from before.
- verified: only verify reads the damaged part, and names it.
- equal: everything is shown as before, since nothing was lost, as with an index, which is rebuilt.
- another: another valid sweep, from a YAML file that could be intentional.
- silent: something is shown differently, without a message.
- flood: an error with more lines than anyone reads.
- traceback: any other error.
- abort, hang: the process ended, or took a minute.

From `silent` on, they are bugs, and the exit code is 1. In records of a version without checksums (`older`), a
changed number cannot be detected, and Arrow may crash the process, so only a traceback or a flood counts there.
"""

from __future__ import annotations

import functools
import io
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from unittest import mock

from rich.console import Console

from crwn import resume as resuming
from crwn.testing import write_finished, write_unfinished
from orchestrator.errors import UserError
from orchestrator.execution import repairing, running
from orchestrator.execution import status as standing
from orchestrator.store import index, parquet_files, verifying
from orchestrator.store.accepted import NOTHING
from orchestrator.store.folder import LocalFiles
from orchestrator.store.leases import Lease
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking import projection
from tests.chaos import fuzzing
from tests.older_records import make_older

OUTCOMES = ("refused", "verified", "equal", "another", "silent", "flood", "traceback", "abort", "hang")
FAULTS = OUTCOMES[OUTCOMES.index("silent") :]
UNSEEN_IN_OLDER = ("silent", "abort")

MOST_LINES = 3
"""Of an error about one damaged file of a store."""

MOST_FAULTS = 30
"""Of an error about a sweep's file: all its faults are told at once, and one damaged line can make many."""

UNREADABLE = "cannot be read"
"""How what is shown says that a file is damaged which it does not name."""

CLOCK = 1_750_000_000.0
"""The time of the lease, in seconds since 1970."""

YAML = """\
name: small
seeds: [0]
benchmarks:
  r-digits: {preset: r-digits, num_tasks: 2}
methods:
  supsup: {scales: [FC16, FC32]}
  own:
    method: neuromodnet
    scales: [FC16]
    settings: {initial_strength: 1.0, modulation: local}
    training: {learning_rate: 0.01}
    group_size: 2
training: {updates_per_task: 5}
reference: own
resources: {gpus: 0.25, cpus: 1}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is damaged and read.

    Attributes:
        root: a folder with a store, a copy of it, a lease and the sweep's file.
        sweep: whose first trial was interrupted, whose second one failed, whose third one is finished.
        driven: the store as a run knows it that works on it.
    """

    root: Path
    sweep: Sweep
    driven: Store

    @property
    def store(self) -> Store:
        """The store, opened again."""
        return _store(self.root / "store")

    @property
    def ids(self) -> list[str]:
        """The trials."""
        return [trial.trial_id for trial in self.sweep.trials]


def lay_out(root: Path) -> Place:
    """Fill a folder."""
    (root / "sweep.yaml").write_text(YAML)
    sweep = load_sweep(root / "sweep.yaml")
    interrupted, failed, *finished = sweep.trials
    for name in ("copy", "store"):
        store = _store(root / name)
        store.create()
        for number, trial in enumerate(finished):
            write_finished(store, trial, accuracy=[0.5 + number / 16, 0.75])
        write_unfinished(store, interrupted)
        write_unfinished(store, failed, error=RuntimeError("no room for 16 bytes"))
        store.write_manifest(sweep.manifest())
        store.write_accepted(NOTHING.adding("psp", codes=["2" * 16, "3" * 16], results_versions=[1, 2]))
        driven = store.driven()
    (root / "leases").mkdir()
    lease = _lease(root)
    lease.acquire(timeout=0)
    (held,) = (root / "leases").iterdir()
    content = held.read_bytes()
    lease.release()
    (root / "leases/other.json").write_bytes(content)
    past = time.time() - 3600  # what was written just now is never taken from the index
    for path in root.rglob("*"):
        os.utime(path, (past, past))
    return Place(root=root, sweep=sweep, driven=driven)


def _store(folder: Path) -> Store:
    return Store(LocalFiles(folder, is_synchronised=False))


def _lease(root: Path) -> Lease:
    return Lease(LocalFiles(root, is_synchronised=False), "leases", clock=lambda: CLOCK)


# What is shown

Reader: TypeAlias = "Callable[[Place], str]"


def tables(place: Place) -> str:
    """What all tables, figures and pages are made of, by pure functions: manifests, and rows of finished trials."""
    store = place.store
    return f"{store.manifests()} {store.accepted()} {index.results(store).to_pylist()}"


def status(place: Place) -> str:
    """`crwn status --verbose`."""
    sink = io.StringIO()
    standing.show(place.store, Console(file=sink, width=1000), verbose=True)
    return f"{sink.getvalue()}{place.store.identity} {place.store.version}"


def verify(place: Place) -> str:
    """`crwn verify`."""
    return "\n".join(verifying.verify(place.store).faults)


def run(place: Place) -> str:
    """`crwn run` before it starts anything."""
    store = place.store
    store.manifests()
    store.accepted()
    damaged = repairing.look_at(place.sweep, store, thoroughly=False).damaged
    left = [trial.trial_id for trial in running.trials_left(place.sweep, store)]
    return "\n".join([str(left), *(line for lines in damaged.values() for line in lines)])


def resume(place: Place) -> str:
    """How an unfinished trial resumes."""
    content = place.store.unfinished.read_resume(place.ids[0])
    try:
        return str(resuming.read_numerics(content or b""))
    except resuming.ResumeError as error:  # with this note the trial begins anew
        return f"resume.safetensors: {error}"


def diff(place: Place) -> str:
    """What `crwn diff` reads where accuracies are equal."""
    return place.store.records.contexts(place.ids[2]).hex()


def mlflow(place: Place) -> str:
    """What `crwn sync` sends of an interrupted, a failed and a finished trial; files are read as diff reads them."""
    store, ids = place.store, place.ids[:3]
    asked = {trial_id: (cell, seed) for cell, seed, trial_id in store.manifest(place.sweep.name).trials()}
    states = store.states(ids, driven=False)
    return "\n".join(str(projection.trial_content(store, each, states[each], *asked[each])) for each in ids)


def mark(place: Place) -> str:
    """What a run looks at before each write."""
    place.driven.check()
    return "there"


def lease(place: Place) -> str:
    """Who else works on a store without locks."""
    return str(_lease(place.root).holders())


def sweep(place: Place) -> str:
    """The trials that a sweep requests."""
    found = load_sweep(place.root / "sweep.yaml")
    return f"{found.manifest()} {found.resources} {found.group_sizes} {found.keep_weights} {found.store}"


# What is damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of file.

    Attributes:
        file: below the folder; FINISHED, UNFINISHED and FAILED stand for trials.
        readers: all that look at it.
        is_older: whether it has no sum, as those of older versions.
        is_free: whether any content that is valid is as good as the one before.
        few: trials below which no index is kept.
    """

    file: str
    readers: tuple[Reader, ...]
    is_older: bool = False
    is_free: bool = False
    few: int = index.FEW


READERS: tuple[Reader, ...] = (tables, status, verify, run, diff, mlflow)
OLDER_READERS: tuple[Reader, ...] = (tables, verify, run, mlflow)
RECORDS = ("trial.parquet", "tasks.parquet", "system.parquet")

KINDS: Mapping[str, Kind] = {
    **{file: Kind(file=f"store/trials/FINISHED/{file}", readers=READERS) for file in RECORDS},
    "contexts.safetensors": Kind(file="store/trials/FINISHED/contexts.safetensors", readers=READERS),
    **{
        f"unfinished {file}": Kind(file=f"store/trials/UNFINISHED/{file}", readers=(status, verify, mlflow))
        for file in ("tasks.parquet", "system.parquet")
    },
    "resume.safetensors": Kind(file="store/trials/UNFINISHED/resume.safetensors", readers=(verify, resume, mlflow)),
    # sync leaves a trial whose notes cannot be read as it is shown
    "attempts.json": Kind(file="store/trials/FAILED/attempts.json", readers=(status, verify)),
    "manifest": Kind(file="store/sweeps/small.json", readers=READERS),
    "accepted.json": Kind(file="store/accepted.json", readers=(tables, status, verify, run)),
    "store.json": Kind(file="store/store.json", readers=(tables, status, verify, run, mark)),
    "index": Kind(file="store/index/trials.parquet", readers=READERS, few=1),
    ".driver": Kind(file="store/.driver", readers=(status, mark)),
    "lease": Kind(file="leases/other.json", readers=(lease,)),
    "sweep's YAML": Kind(file="sweep.yaml", readers=(sweep,), is_free=True),
    **{
        f"older {file}": Kind(
            file=f"store/trials/FINISHED/{file}", readers=(tables, verify, run, mlflow), is_older=True
        )
        for file in RECORDS
    },
}


def is_fault(name: str, outcome: str) -> bool:
    """Whether the outcome is our fault."""
    return outcome in FAULTS and not (KINDS[name].is_older and outcome in UNSEEN_IN_OLDER)


def outcome_of(kind: Kind, place: Place, file: str, expected: Mapping[Reader, str]) -> str:
    """The readers' outcome for the files as they are now."""
    found: set[Reader] = set()
    for reader in kind.readers:
        is_error = False
        try:
            shown = reader(place)
        except UserError as error:
            shown, is_error = str(error), True
            if len(shown.splitlines()) > (MOST_FAULTS if kind.is_free else MOST_LINES):
                print(shown)
                return "flood"
        except Exception:  # noqa: BLE001 (that is what is looked for)
            traceback.print_exc(limit=-3, chain=False, file=sys.stdout)
            return "traceback"
        if shown == expected[reader]:
            continue
        if kind.is_free and not is_error:
            return "another"
        if not (is_error or file in shown or UNREADABLE in shown):
            print(f"  {reader.__name__}: {shown[:1000]}")
            return "silent"
        found.add(reader)
    if not found:
        return "equal"
    return "verified" if found == {verify} else "refused"


def fuzz(name: str, flips: int, seed: int) -> fuzzing.Counts:
    """Damage one kind of file this many times, one fault at a time."""
    return fuzzing.in_child(functools.partial(outcomes, name, seed), flips)


def outcomes(name: str, seed: int, numbers: Iterable[int]) -> Iterator[str]:
    """The outcomes of these flips; each damages intact files, with its own random numbers."""
    kind = KINDS[name]
    # What a file holds does not change while its bytes do not: those that are whole are read once.
    load = functools.lru_cache(maxsize=64)(parquet_files.load)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(index, "FEW", kind.few),
        mock.patch.object(parquet_files, "load", load),
    ):
        place = lay_out(Path(folder))
        relative = kind.file
        for word, trial_id in zip(("UNFINISHED", "FAILED", "FINISHED"), place.ids, strict=False):
            relative = relative.replace(word, trial_id)
        file = place.root / relative
        if kind.is_older:
            for record in RECORDS:
                make_older(file.parent / record)
        expected = {reader: reader(place) for reader in kind.readers}
        content = file.read_bytes()
        for number in numbers:
            chance = random.Random(f"{seed} {name} {number}")
            damaged = fuzzing.damage(content, chance, (fuzzing.cut, fuzzing.taken_out, fuzzing.zeroed))
            file.write_bytes(damaged)
            outcome = "equal" if damaged == content else outcome_of(kind, place, file.name, expected)
            if is_fault(name, outcome):
                print(f"  {name}: {outcome} by flip {number} of seed {seed}", flush=True)
            file.write_bytes(content)
            yield outcome


def main() -> int:
    """Damage every kind and print one line each; return 0 if nothing is wrong."""
    kinds = {name: "no sum" if kind.is_older or kind.is_free else "sum" for name, kind in KINDS.items()}
    return fuzzing.main(__doc__, kinds, fuzz, OUTCOMES, is_fault)


if __name__ == "__main__":
    warnings.simplefilter("error")  # a warning would reach the user's terminal
    sys.exit(main())
