"""Recomputes finished trials, such as damaged ones; old records stay until the new ones are complete."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from crwn.faults import Fault
from crwn.trial_spec import TrialSpec
from orchestrator.display import counted, print_line
from orchestrator.errors import UnfinishedError, UserError
from orchestrator.store import index, verifying
from orchestrator.store.index import Computed
from orchestrator.store.schemas import CONTEXTS_FILE
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The state of a sweep's finished trials.

    Attributes:
        damaged: trials with damaged files, with one line per fault.
        computed: the code that computed the other trials, by trial.
    """

    damaged: Mapping[str, Sequence[str]]
    computed: Mapping[str, Computed]


def look_at(sweep: Sweep, store: Store, *, thoroughly: bool) -> Standing:
    """Check a sweep's finished trials.

    Args:
        sweep: the sweep.
        store: the store of its trials.
        thoroughly: whether to read every file of every trial. Else, records that were intact before and have not
            changed are not read again, and contexts are only checked for existence.
    """
    finished = store.finished(trial.trial_id for trial in sweep.trials)
    asked = [trial.trial_id for trial in sweep.trials if trial.trial_id in finished]
    looked = index.look(store, asked)
    if thoroughly:
        found = {trial_id: list(verifying.finished_faults(store, trial_id)) for trial_id in asked}
        damaged = {trial_id: faults for trial_id, faults in found.items() if faults}
    else:
        damaged = {trial_id: [Fault(error.codes, str(error))] for trial_id, error in looked.faults.items()}
        for trial_id in store.without_contexts(asked):
            place = store.locate(trial_id, CONTEXTS_FILE)
            gone = f"{place}: expected the contexts of a finished trial, found none."
            damaged.setdefault(trial_id, []).append(Fault("file-missing", gone))
    return Standing(damaged=damaged, computed=looked.computed)


def show_damaged(damaged: Mapping[str, Sequence[str]], store: Store, console: Console) -> None:
    """Print finished trials with damaged files, and what to do.

    Raises:
        UnfinishedError: a record cannot be read, so no table can be made.
    """
    lines = [line for faults in damaged.values() for line in faults]
    for line in lines[:_SHOWN]:
        print_line(console, line)
    if len(lines) > _SHOWN:
        print_line(console, f"and {len(lines) - _SHOWN} more; crwn verify lists all")
    if not damaged:
        return
    said = f"{counted(len(damaged), 'finished trial')} damaged; run the same command with --repair to recompute"
    if any(isinstance(result, UserError) for result in store.records.results(list(damaged))):
        raise UnfinishedError("records-damaged", f"no table can be made: {said}.")
    print_line(console, said)


_SHOWN = 10
"""Number of damaged files that a run lists individually."""


def take_repairs(repaired: Sequence[TrialSpec], damaged: Container[str], store: Store, console: Console) -> list[str]:
    """Replace the records of recomputed trials, and print whether accuracies changed.

    Args:
        repaired: the trials.
        damaged: those among them that were damaged.
        store: the store.
        console: where to print.

    Returns:
        The trials that were not recomputed, whose old records stay.
    """
    source = store.repairs()
    finished = source.finished(trial.trial_id for trial in repaired)
    for trial_id in (trial.trial_id for trial in repaired if trial.trial_id in finished):
        before, after = (_shown_accuracy(each, trial_id) for each in (store, source))
        store.replace_record(trial_id, source)
        change = f"its accuracy is {after}, as it was" if before == after else f"its accuracy was {before}, is {after}"
        print_line(console, f"{'repaired' if trial_id in damaged else 'recomputed'} {trial_id}: {change}")
    return [trial.trial_id for trial in repaired if trial.trial_id not in finished]


def _shown_accuracy(store: Store, trial_id: str) -> str:
    (result,) = store.records.results([trial_id])
    return "unreadable" if isinstance(result, UserError) else repr(100 * float(result.outcome.final.mean()))
