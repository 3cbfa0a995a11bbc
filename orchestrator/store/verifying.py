"""The command verify: checks that everything in a store is intact and consistent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from rich.console import Console

from crwn.faults import Fault, InvalidError, codes_of
from crwn.lazy import LazyModule
from orchestrator.display import counted, print_line
from orchestrator.errors import StorageError, UserError
from orchestrator.store import integrity, parquet_files
from orchestrator.store.schemas import (
    CONTEXTS_FILE,
    RESUME_FILE,
    SYSTEM_FILE,
    SYSTEM_SCHEMA,
    TASKS_FILE,
    TASKS_SCHEMA,
    TRIAL_FILE,
)
from orchestrator.store.store import Store

context_files = LazyModule("crwn.context_files")  # imports torch, which a store without contexts does not need
tensorfile = LazyModule("crwn.tensorfile")


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was checked, and the faults found.

    Attributes:
        finished: number of finished trials.
        unfinished: number of unfinished trials that have files.
        unsealed: number of finished trials whose records have no checksums, so only their form could be checked.
        manifests: number of sweeps' manifests.
        faults: one line per fault.
    """

    finished: int = 0
    unfinished: int = 0
    unsealed: int = 0
    manifests: int = 0
    faults: list[Fault] = field(default_factory=list)


def verify(store: Store, on_trial: Callable[[int, int], None] = lambda done, all_: None) -> Findings:
    """Read everything that a store holds; nothing is written.

    Args:
        store: the store.
        on_trial: called with the number of trials read so far and the total.
    """
    found = Findings()
    for name in store.manifest_names():
        found.manifests += 1
        try:
            store.manifest(name)
        except UserError as error:
            found.faults.append(Fault(error.codes, str(error)))
    try:
        store.accepted()
    except StorageError:  # it does not answer, or refuses
        raise
    except UserError as error:
        found.faults.append(Fault(error.codes, str(error)))
    folders = store.trial_folders()
    for number, trial_id in enumerate(folders, start=1):
        is_finished = store.is_finished(trial_id)
        found.finished += is_finished
        found.unfinished += not is_finished
        try:
            faults = list((finished_faults if is_finished else unfinished_faults)(store, trial_id))
            found.unsealed += is_finished and not faults and not store.records.is_sealed(trial_id)
        except OSError as error:
            if not store.is_folder:  # if object storage does not answer, it will not answer for the next trial either
                raise
            message = f"{store.folder(trial_id)}: expected readable files: {error}"
            faults = [Fault(codes_of(error, "file-unreadable"), message)]
        found.faults += faults
        on_trial(number, len(folders))
    return found


def finished_faults(store: Store, trial_id: str) -> Iterator[Fault]:
    """What is wrong with a finished trial's files, all of which are read completely; one line per fault."""
    (result,) = store.records.results([trial_id])
    if isinstance(result, UserError):
        yield Fault(result.codes, str(result))
    if store.read(trial_id, TRIAL_FILE) is None:
        return
    for file, schema in ((TASKS_FILE, TASKS_SCHEMA), (SYSTEM_FILE, SYSTEM_SCHEMA)):
        content = store.read(trial_id, file)
        if content is None or (isinstance(result, UserError) and file == TASKS_FILE):
            continue  # reported above; a store of version 1.0 has no system samples
        yield from _rows_faults(content, schema, store, trial_id, file)
    try:
        content = store.records.contexts(trial_id)
    except UserError as error:
        if str(error) != str(result):  # if equal, the trial's record itself cannot be read
            yield Fault(error.codes, str(error))
        return
    yield from _contexts_faults(content, store, trial_id)


def unfinished_faults(store: Store, trial_id: str) -> Iterator[Fault]:
    """What is wrong with an unfinished trial's rows, attempts and resume point; one line per fault."""
    for file, schema in ((TASKS_FILE, TASKS_SCHEMA), (SYSTEM_FILE, SYSTEM_SCHEMA)):
        content = store.read(trial_id, file)
        if content is not None:
            yield from _rows_faults(content, schema, store, trial_id, file)
    notes = store.unfinished.attempts_fault(trial_id)
    if notes is not None:
        yield notes
    point = store.unfinished.read_resume(trial_id)
    if point is None:
        return
    try:
        _, header = tensorfile.parse(point)
        owner = header["identity"][0]
        if owner != trial_id:
            raise InvalidError("of-another-trial", f"it belongs to another trial, {owner!r}")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        place = store.locate(trial_id, RESUME_FILE)
        message = f"{place}: expected a readable resume point: {error}. The next run starts the trial over."
        yield Fault(codes_of(error, "resume-point-unreadable"), message)


def _rows_faults(content: bytes, schema: pa.Schema, store: Store, trial_id: str, file: str) -> Iterator[Fault]:
    place = store.locate(trial_id, file)
    try:
        table = parquet_files.load(content, schema, place).table
        integrity.check_owner(table, trial_id)
    except UserError as error:
        yield Fault(error.codes, str(error))
    except parquet_files.DamagedError as error:
        yield Fault(error.codes, str(parquet_files.refusal(place, error)))


def _contexts_faults(content: bytes, store: Store, trial_id: str) -> Iterator[Fault]:
    try:
        owners = set(context_files.parse(content).specs)
        if owners != {trial_id}:
            raise InvalidError("of-another-trial", f"they are of another trial, {sorted(owners - {trial_id})[0]!r}")
    except (ValueError, KeyError, TypeError) as error:
        refusal = parquet_files.refusal(store.locate(trial_id, CONTEXTS_FILE), error)
        yield Fault(refusal.codes, str(refusal))


def show(store: Store, console: Console) -> bool:
    """Verify a store and print its faults.

    Returns:
        Whether everything is intact.
    """

    def progress(done: int, all_: int) -> None:
        if done % _TOLD == 0 and done < all_:
            print_line(console, f"  {done:,} of {all_:,} trials read")

    found = verify(store, progress)
    for fault in found.faults:
        print_line(console, fault)
    what = [
        counted(found.finished, "finished trial"),
        counted(found.unfinished, "unfinished trial"),
        counted(found.manifests, "sweep"),
    ]
    print_line(console, f"{store.address}: {', '.join(what)}: {counted(len(found.faults), 'fault')}")
    if found.unsealed:
        print_line(
            console,
            f"{counted(found.unsealed, 'finished trial')} without checksums, from an older crwn: well-formed and "
            "consistent, but not verifiable",
        )
    if found.faults:
        print_line(console, "crwn run SWEEP --repair recomputes damaged trials; intact ones are not changed")
    return not found.faults


_TOLD = 1000
"""Number of trials between two progress lines."""
