"""Finished trials computed by other code: runs and status report them, and they are recomputed on request.

Code differs if it prevents averaging (`store.compatibility`): the method's file, the plug-ins of the benchmark and
the base set, or the results version. Unknown code does not count as different, nor does code that a user has accepted
as equivalent.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from crwn.benchmarks import BENCHMARKS
from crwn.code import RESULTS_VERSION, Code, method_code
from crwn.data import BASE_SETS
from crwn.methods import METHODS
from crwn.methods.protocol import NETWORKS
from crwn.plugins import PluginError, added_code, find, find_network
from crwn.registry import Registry
from crwn.spec import TRIAL_ID
from crwn.trial_spec import TrialSpec, code_of_trial
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
    """The code with which this process computes a method's trials, as far as it prevents averaging.

    Args:
        method: its name in the registry; the code of an unknown method is unknown.
    """
    if not _is_known(METHODS, method):
        return Code()
    return Code(method=method_code(METHODS[method].spec()), results_version=RESULTS_VERSION)


def _is_known(registry: Registry[Any], name: str) -> bool:
    """Whether a registry has a name, possibly from an installed plug-in; a broken plug-in does not count."""
    try:
        return find(registry, name)
    except PluginError:
        return False


def _present_added(benchmark: str, base: str, scale: str) -> str | None:
    """The fingerprint of the plug-ins that define a benchmark, a base set and a network; None if unknown or none do."""
    known = _is_known(BENCHMARKS, benchmark) and _is_known(BASE_SETS, base)
    try:
        find_network(scale)
    except PluginError:
        return None
    return added_code(benchmark, base, scale) if known else None


def of_other_code(computed: Mapping[str, Computed], accepted: Accepted) -> dict[str, list[str]]:
    """The trials computed by other code, by method.

    Args:
        computed: the code that computed each trial, by trial.
        accepted: the code accepted as equivalent.
    """
    differs = {each: bool(_differences(each, accepted)) for each in set(computed.values())}
    found: dict[str, list[str]] = {}
    for trial_id, each in computed.items():
        if differs[each]:
            found.setdefault(each.method, []).append(trial_id)
    return found


def _differences(each: Computed, accepted: Accepted) -> dict[str, bool]:
    """How a trial's code differs from the current code, and whether `crwn accept` can declare it equivalent."""
    code, now = each.code, present(each.method)
    found = {}
    if (
        code.method is not None
        and now.method is not None
        and now.method not in accepted.codes(each.method, code.method)
    ):
        found["other code of the method"] = True
    if code.added is not None and _present_added(each.benchmark, each.base, each.scale) not in (None, code.added):
        network = f"{each.scale}, " if each.scale in NETWORKS else ""
        found[f"other code of the plug-ins of {network}{each.benchmark} on {each.base}"] = False
    version, current = code.results_version, now.results_version
    if version is not None and current is not None and current not in accepted.results_versions(each.method, version):
        found[f"results version {version}, now {current}"] = True
    return found


def show_other_code(computed: Mapping[str, Computed], accepted: Accepted, store: Store, console: Console) -> None:
    """Print the number of trials computed by other code, by method, and what to do; nothing if there are none.

    Args:
        computed: what trials were computed with, by trial.
        accepted: which codes are accepted as equivalent.
        store: the store of the trials.
        console: where to print.
    """
    found = of_other_code(computed, accepted)
    if not found:
        return
    parts, can_accept = [], False
    for method, trial_ids in found.items():
        kinds: dict[str, bool] = {}
        for each in {computed[trial_id]: None for trial_id in trial_ids}:
            kinds |= _differences(each, accepted)
        can_accept |= any(kinds.values())
        parts.append(f"{counted(len(trial_ids), 'trial')} of {method} ({', '.join(kinds)})")
    print_line(console, f"computed by different code: {', '.join(parts)}")
    what_to_do = "Recompute them: crwn run SWEEP --recompute METHOD|TRIAL."
    if can_accept:
        what_to_do += f" Or declare the codes of a method equivalent: crwn accept {store.address} METHOD"
    print_line(console, f"  They are not averaged with new ones. {what_to_do}")


def check_names(sweep: Sweep, names: Sequence[str]) -> None:
    """Check that `--recompute` names methods and trials of a sweep.

    Raises:
        UserError: a name is neither.
    """
    for name in names:
        if not _named(sweep, name):
            is_id = TRIAL_ID.fullmatch(name) is not None
            known = {trial.trial_id for trial in sweep.trials} if is_id else _methods(sweep)
            what = "a trial" if is_id else "a method, or a trial's id"
            raise UserError(
                "unknown-name", f"--recompute: expected {what} of the sweep {sweep.name}: {nearest(name, known)}"
            )


def _methods(sweep: Sweep) -> set[str]:
    return {name for cell in sweep.cells for name in (cell.method, cell.trials[0].method.kind)}


def _named(sweep: Sweep, name: str) -> list[TrialSpec]:
    """The trials of a method, named as in the registry or the sweep, or the trial with an id."""
    return [
        trial
        for cell in sweep.chosen
        for trial in cell.trials
        if name in (cell.method, trial.method.kind, trial.trial_id)
    ]


def chosen(sweep: Sweep, store: Store, names: Sequence[str]) -> tuple[TrialSpec, ...]:
    """The trials that `--recompute` selects: those not computed entirely by the current code.

    For a method, the code of its file and the results version are compared; for a trial named by its id, all of crwn's
    code as well. Unknown code counts as different. So an interrupted command can be repeated to continue.

    Args:
        sweep: the sweep.
        store: the store of its trials.
        names: methods and trials.

    Returns:
        The trials in the sweep's order: finished and started ones, including damaged ones.
    """
    found: dict[TrialSpec, None] = {}
    for name in names:
        for trial in _named(sweep, name):
            now = code_of_trial(trial)
            if name != trial.trial_id:
                now = replace(now, crwn=None)
            if not is_of(store, trial, now):
                found[trial] = None
    return tuple(trial for trial in sweep.trials if trial in found)


def is_of(store: Store, trial: TrialSpec, code: Code) -> bool:
    """Whether all of a trial's data in a store is known to be computed by this code; True if there is none.

    Args:
        store: the store.
        trial: the trial.
        code: the code; `crwn` is not compared if it is None.
    """
    try:
        row = store.records.row(trial.trial_id)
        attempts = store.unfinished.attempts(trial.trial_id) if row is None else row.provenance.attempts
    except UserError:
        return False
    return all(_is_same(each, code) for each in _codes(row, attempts))


def _codes(row: TrialRow | None, attempts: Iterable[Attempt]) -> list[Code | None]:
    """The code of all work on a trial; for a finished one, including the code that finished it."""
    codes = [attempt.code for attempt in contributing(tuple(attempts))]
    return codes if row is None else [*codes, row.provenance.code]


def _is_same(code: Code | None, now: Code) -> bool:
    if code is None or code.method is None or code.results_version is None:
        return False
    wanted = now if now.crwn is not None else replace(now, crwn=code.crwn)
    return code == wanted


def begin_anew(trials: Iterable[TrialSpec], store: Store) -> None:
    """Remove other code's partial work on trials to be computed; the current code's work is kept."""
    for trial in trials:
        if not is_of(store, trial, code_of_trial(trial)):
            store.forget(trial.trial_id)
