"""Repair: finished trials whose files are not what was written, computed again beside them until they are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from crwn.spec import TrialSpec
from orchestrator.display import counted, print_line
from orchestrator.errors import UnfinishedError, UserError
from orchestrator.store import index, verifying
from orchestrator.store.schemas import CONTEXTS_FILE
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Sweep


def damaged_trials(sweep: Sweep, store: Store, *, thoroughly: bool) -> dict[str, list[str]]:
    """The sweep's finished trials whose files are not what was written, and what is wrong with each, in lines.

    Args:
        sweep: the sweep.
        store: where its trials are.
        thoroughly: read every file of every trial. Else records that were found whole before, and were not written
            since, are not read again, and of contexts only whether they are there is looked at.
    """
    finished = store.finished(trial.trial_id for trial in sweep.trials)
    asked = [trial.trial_id for trial in sweep.trials if trial.trial_id in finished]
    if thoroughly:
        found = {trial_id: list(verifying.finished_faults(store, trial_id)) for trial_id in asked}
        return {trial_id: faults for trial_id, faults in found.items() if faults}
    damaged = {trial_id: [str(error)] for trial_id, error in index.faults(store, asked).items()}
    for trial_id in store.without_contexts(asked):
        place = store.locate(trial_id, CONTEXTS_FILE)
        damaged.setdefault(trial_id, []).append(f"{place}: expected the contexts of a finished trial; they are gone.")
    return damaged


def show_damaged(damaged: Mapping[str, Sequence[str]], store: Store, console: Console) -> None:
    """Name trials that count as done and are not what was written, and say what to do.

    Raises:
        UnfinishedError: the record of one cannot be read, so that there is no table.
    """
    lines = [line for faults in damaged.values() for line in faults]
    for line in lines[:_SHOWN]:
        print_line(console, line)
    if len(lines) > _SHOWN:
        print_line(console, f"and {len(lines) - _SHOWN} more of the kind; crwn verify names them all")
    if not damaged:
        return
    said = f"{counted(len(damaged), 'finished trial')} damaged; the same command with --repair computes them again"
    if any(isinstance(result, UserError) for result in store.records.results(list(damaged))):
        raise UnfinishedError(f"no table is made: {said}.")
    print_line(console, said)


_SHOWN = 10
"""Damaged files that a run names one by one."""


def take_repairs(repaired: Sequence[TrialSpec], store: Store, console: Console) -> None:
    """Put trials that were computed again in the place of the damaged ones, and say whether a number changed."""
    source = store.repairs()
    finished = source.finished(trial.trial_id for trial in repaired)
    for trial_id in (trial.trial_id for trial in repaired if trial.trial_id in finished):
        before, after = (_shown_accuracy(each, trial_id) for each in (store, source))
        store.replace_record(trial_id, source)
        change = f"its accuracy is {after}, as it was" if before == after else f"its accuracy was {before}, is {after}"
        print_line(console, f"repaired {trial_id}: {change}")


def _shown_accuracy(store: Store, trial_id: str) -> str:
    (result,) = store.records.results([trial_id])
    return "not to be read" if isinstance(result, UserError) else repr(100 * float(result.outcome.final.mean()))
