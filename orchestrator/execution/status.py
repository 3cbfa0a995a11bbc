"""The command status: the states of a store's sweeps and trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from rich.console import Console

from crwn.faults import Fault
from orchestrator.display import counted, print_line
from orchestrator.errors import UserError
from orchestrator.execution.other_code import show_other_code
from orchestrator.store import index
from orchestrator.store.attempts import code_changes
from orchestrator.store.manifests import ManifestCell
from orchestrator.store.provenance import Provenance
from orchestrator.store.schemas import ATTEMPTS_FILE
from orchestrator.store.store import Store, TrialState
from orchestrator.sweeps.changes import OPTION

STATES = get_args(TrialState)

TRACEBACK_LINES = 60
"""Maximum number of lines shown of a traceback; the last ones say what went wrong."""


def show(store: Store, console: Console, *, verbose: bool) -> None:
    """Print the state of every sweep; with `verbose`, one line per trial."""
    drivers = store.drivers()
    driven = any(driver.is_live for driver in drivers)
    print_line(console, f"{store.address}: {'a run is working on it' if driven else 'no run is working on it'}")
    for driver in drivers:
        if driver.text:
            print_line(console, f"  {'running' if driver.is_live else 'was cut off'}: {driver.text}")
    manifests = store.manifests()
    finished: list[str] = []
    for manifest in manifests:
        trials = list(manifest.trials())
        states = store.states((trial_id for _, _, trial_id in trials), driven=driven)
        finished += [trial_id for trial_id, state in states.items() if state == "done"]
        counts = Counter(states.values())
        shown = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name] or name in ("done", "left"))
        changed = f" ({' '.join(f'{OPTION} {change}' for change in manifest.changes)})" if manifest.changes else ""
        print_line(console, f"{manifest.name}{changed}: {len(trials)} trials: {shown}")
        changes = _code_changes(store, states, console) if verbose else {}
        for cell, seed, trial_id in trials if verbose else ():
            detail = changes.get(trial_id) or _detail(store, trial_id)
            print_line(console, f"  {states[trial_id]:11} {trial_id} {_label(cell, seed)}{detail}")
            for line in _traceback(store, trial_id) if states[trial_id] == "failed" else ():
                print_line(console, f"    {line}")
        for cell, seed, trial_id in trials:
            if states[trial_id] == "failed" and not verbose:
                print_line(console, f"  failed {trial_id} {_label(cell, seed)}{_detail(store, trial_id)}")
        for fault in _faults(store, states):
            print_line(console, f"  {fault}")
    _show_doubts(store, finished, console)
    older = [manifest.name for manifest in manifests if not manifest.has_sum]
    if older:
        print_line(console, f"manifests without a checksum, from an older crwn: {', '.join(older)}; crwn run adds it")


def _show_doubts(store: Store, finished: Iterable[str], console: Console) -> None:
    """Print the numbers of finished trials with damaged records, without checksums, or computed by other code."""
    found = index.doubts(store, list(dict.fromkeys(finished)))
    try:
        show_other_code(found.computed, store.accepted(), store, console)
    except UserError as error:  # the accepted code cannot be read
        print_line(console, str(error))
    if found.damaged:
        print_line(console, f"{counted(found.damaged, 'finished trial')} cannot be read; crwn verify says why")
    if found.unsealed:
        print_line(console, f"{counted(found.unsealed, 'finished trial')} without checksums, written by an older crwn")


def _faults(store: Store, states: Mapping[str, TrialState]) -> list[Fault]:
    """What is wrong with the attempts files of started trials, which determine their states."""
    begun = [trial_id for trial_id, state in states.items() if state not in ("done", "left")]
    return [fault for fault in map(store.unfinished.attempts_fault, begun) if fault is not None]


def _label(cell: ManifestCell, seed: int) -> str:
    return f"{cell.row_name} {cell.benchmark} seed {seed}"


def _code_changes(store: Store, states: Mapping[str, TrialState], console: Console) -> dict[str, str]:
    """Notes on finished trials that were computed by more than one code version, by trial."""
    try:
        table = index.results(store, [trial_id for trial_id, state in states.items() if state == "done"])
    except UserError as error:  # the states of trials are known anyway
        print_line(console, f"  {error}")
        return {}
    rows = zip(table["trial_id"].to_pylist(), table["provenance"].to_pylist(), strict=True)
    said = {trial_id: Provenance.from_json(text, with_attempts=False).code_changes for trial_id, text in rows}
    return {
        trial_id: f": computed by several code versions: {changes}" for trial_id, changes in said.items() if changes
    }


def _traceback(store: Store, trial_id: str) -> Sequence[str]:
    """The end of the traceback with which the last attempt at a trial failed, as lines."""
    attempts = store.unfinished.attempts(trial_id)
    error = attempts[-1].error if attempts else None
    lines = error.traceback.rstrip().splitlines() if error is not None and error.traceback else []
    hidden = len(lines) - TRACEBACK_LINES
    return lines if hidden <= 0 else [f"({hidden} earlier lines are in {ATTEMPTS_FILE})", *lines[hidden:]]


def _detail(store: Store, trial_id: str) -> str:
    """Details of an unfinished trial: its progress, or what went wrong."""
    attempts = store.unfinished.attempts(trial_id)
    if not attempts:
        return ""
    error, reached = attempts[-1].error, attempts[-1].reached
    changes = code_changes(attempts)
    under = f"; by several code versions: {changes}" if changes else ""
    if error is not None:
        return f": {error.line}{under}"
    return (
        "" if reached is None else f": {reached.tasks_learned} tasks learned, update {reached.step} of the next{under}"
    )
