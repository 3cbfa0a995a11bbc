"""Finished trials that other code computed than this: named by runs and status, computed again when asked for.

Which code is another is said of what keeps trials apart (`store.compatibility`): the method's file and the version of
results. What is not known of a trial, or not of this code, is no difference; what a user counts as one is none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from crwn.code import RESULTS_VERSION, Code, code_of, method_code
from crwn.methods import METHODS
from crwn.spec import TRIAL_ID, TrialSpec
from orchestrator.display import counted, print_line
from orchestrator.errors import UserError, nearest
from orchestrator.store.accepted import Accepted
from orchestrator.store.attempts import Attempt, contributing
from orchestrator.store.index import Computed
from orchestrator.store.rows import TrialRow
from orchestrator.store.store import Store

if TYPE_CHECKING:
    from orchestrator.sweeps.sweep import Sweep


@functools.cache
def present(method: str) -> Code:
    """The code that this process computes a method's trials with, as far as it keeps trials apart.

    Args:
        method: its name in the registry; of one that is not there nothing is known.
    """
    entry = METHODS.get(method)
    return Code() if entry is None else Code(method=method_code(entry.spec()), results_version=RESULTS_VERSION)


def of_other_code(computed: Mapping[str, Computed], accepted: Accepted) -> dict[str, list[str]]:
    """The trials that other code computed, by their method.

    Args:
        computed: what trials were computed with, by trial.
        accepted: which codes count as one.
    """
    differs = {each: bool(_differences(each, accepted)) for each in set(computed.values())}
    found: dict[str, list[str]] = {}
    for trial_id, each in computed.items():
        if differs[each]:
            found.setdefault(each.method, []).append(trial_id)
    return found


def _differences(each: Computed, accepted: Accepted) -> list[str]:
    """In what a trial's code is another than this."""
    code, now = each.code, present(each.method)
    found = []
    if (
        code.method is not None
        and now.method is not None
        and now.method not in accepted.codes(each.method, code.method)
    ):
        found.append("other code of the method")
    version, current = code.results_version, now.results_version
    if version is not None and current is not None and current not in accepted.results_versions(each.method, version):
        found.append(f"results version {version}, now {current}")
    return found


def show_other_code(computed: Mapping[str, Computed], accepted: Accepted, store: Store, console: Console) -> None:
    """Name the trials that other code computed, counted by method, and say what to do; nothing where there are none.

    Args:
        computed: what trials were computed with, by trial.
        accepted: which codes count as one.
        store: where the trials are.
        console: where it is said.
    """
    found = of_other_code(computed, accepted)
    if not found:
        return
    parts = []
    for method, trial_ids in found.items():
        kinds = dict.fromkeys(text for id_ in trial_ids for text in _differences(computed[id_], accepted))
        parts.append(f"{counted(len(trial_ids), 'trial')} of {method} ({', '.join(kinds)})")
    print_line(console, f"computed by other code than this: {', '.join(parts)}")
    print_line(
        console,
        "  no mean is taken over both: crwn run SWEEP --recompute METHOD|TRIAL computes them again, crwn accept "
        f"{store.address} METHOD counts both codes as one",
    )


def check_names(sweep: Sweep, names: Sequence[str]) -> None:
    """See that `--recompute` names methods and trials of a sweep.

    Raises:
        UserError: one is none.
    """
    for name in names:
        if not _named(sweep, name):
            is_id = TRIAL_ID.fullmatch(name) is not None
            known = {trial.trial_id for trial in sweep.trials} if is_id else _methods(sweep)
            what = "a trial" if is_id else "a method, or a trial's id"
            raise UserError(f"--recompute: expected {what} of the sweep {sweep.name}: {nearest(name, known)}")


def _methods(sweep: Sweep) -> set[str]:
    return {name for cell in sweep.cells for name in (cell.method, cell.trials[0].method.kind)}


def _named(sweep: Sweep, name: str) -> list[TrialSpec]:
    """The trials of a method, by the registry's name or the sweep's, or the one of an id."""
    return [
        trial
        for cell in sweep.cells
        for trial in cell.trials
        if name in (cell.method, trial.method.kind, trial.trial_id)
    ]


def chosen(sweep: Sweep, store: Store, names: Sequence[str]) -> tuple[TrialSpec, ...]:
    """The trials that `--recompute` asks for: those that this code has not computed wholly.

    Of a method those that the code of its file and the version of results are not known to be this process's; a trial
    that is named itself also where other code of crwn is another. So the same command goes on where it was cut off.

    Args:
        sweep: the sweep.
        store: where its trials are.
        names: methods and trials.

    Returns:
        In the sweep's order; finished ones and others that were begun, damaged ones too.
    """
    found: dict[TrialSpec, None] = {}
    for name in names:
        for trial in _named(sweep, name):
            now = code_of(trial.method)
            if name != trial.trial_id:
                now = replace(now, crwn=None)
            if not is_of(store, trial, now):
                found[trial] = None
    return tuple(trial for trial in sweep.trials if trial in found)


def is_of(store: Store, trial: TrialSpec, code: Code) -> bool:
    """Whether all that a store has of a trial is known to be of this code; also where it has nothing.

    Args:
        store: the store.
        trial: the trial.
        code: its `crwn` is not compared where it is None.
    """
    try:
        row = store.records.row(trial.trial_id)
        attempts = store.unfinished.attempts(trial.trial_id) if row is None else row.provenance.attempts
    except UserError:
        return False
    return all(_is_same(each, code) for each in _codes(row, attempts))


def _codes(row: TrialRow | None, attempts: Iterable[Attempt]) -> list[Code | None]:
    """What the work in a trial was done with: of a finished one that of its end as well."""
    codes = [attempt.code for attempt in contributing(tuple(attempts))]
    return codes if row is None else [*codes, row.provenance.code]


def _is_same(code: Code | None, now: Code) -> bool:
    if code is None or code.method is None or code.results_version is None:
        return False
    wanted = now if now.crwn is not None else replace(now, crwn=code.crwn)
    return code == wanted


def begin_anew(trials: Iterable[TrialSpec], store: Store) -> None:
    """Forget what other code left of trials that are to be computed in a store; of this code all is kept."""
    for trial in trials:
        if not is_of(store, trial, code_of(trial.method)):
            store.forget(trial.trial_id)
