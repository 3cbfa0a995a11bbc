"""The command run: finds the trials that the store lacks, and has an executor run them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from crwn.benchmarks.features import weights_files
from crwn.faults import InvalidError
from crwn.trial_spec import TrialSpec
from orchestrator import data_sets
from orchestrator.display import hide_password, print_line
from orchestrator.errors import UserError, begun, nearest
from orchestrator.execution import other_code
from orchestrator.execution.executors import EXECUTORS, default_executor
from orchestrator.execution.progress import RunProgress, show_seconds, shown
from orchestrator.execution.protocol import Assignment, Executor, Job, TrialUpdate
from orchestrator.execution.repairing import Standing, look_at, show_damaged, take_repairs
from orchestrator.store.accepted import NOTHING, Accepted
from orchestrator.store.index import Computed
from orchestrator.store.schemas import ATTEMPTS_FILE
from orchestrator.store.store import Store
from orchestrator.sweeps.changes import OPTION
from orchestrator.sweeps.departures import warnings
from orchestrator.sweeps.sweep import Resources, Sweep
from orchestrator.tracking.address import TRACKING_VARIABLE, tracking_uri
from orchestrator.tracking.following import followed
from orchestrator.waiting import waiting

COMMIT_VARIABLE = "CRWN_COMMIT"

REMEDY = "Completed work is kept; the same command continues."

STARTS = {"inline": "executor inline", "ray": "executor ray, which takes 10 to 20 s to start"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run from the command line; None if not given."""

    data_root: str | None = None
    executor: str | None = None
    gpus: float | None = None
    cpus: float | None = None
    tracking_uri: str | None = None
    tracking: bool = True
    repair: bool = False
    recompute: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The work of a run.

    Attributes:
        left: trials missing from the store.
        again: finished trials to recompute, damaged or computed by other code.
        recomputed: the trials among both that `--recompute` selects.
        standing: the state of the finished trials.
        accepted: which codes are accepted as equivalent.
    """

    left: tuple[TrialSpec, ...]
    again: tuple[TrialSpec, ...]
    recomputed: frozenset[TrialSpec]
    standing: Standing
    accepted: Accepted

    @property
    def others(self) -> dict[str, Computed]:
        """The code that computed the finished trials that are not recomputed."""
        again = {trial.trial_id for trial in self.again}
        return {trial_id: each for trial_id, each in self.standing.computed.items() if trial_id not in again}


def run(sweep: Sweep, store: Store, options: Options, console: Console) -> bool:
    """Run the trials that are missing from the store.

    All checks run before anything is started or written.

    Returns:
        Whether any trial is unfinished or damaged.

    Raises:
        UserError: the options, the data, the store, one of its manifests or the requested resources are wrong.
        UnfinishedError: something failed after the start, such as the store or the system, or a finished trial's record
            cannot be read.
        KeyboardInterrupt: the user stopped the run.
    """
    resources = chosen_resources(sweep, options)
    other_code.check_names(sweep, options.recompute)
    store.manifests()  # else a damaged manifest, even another sweep's, would end the run after everything is computed
    work = _work(sweep, store, options, console)
    name = chosen_executor(options, len(work.left) + len(work.again))
    check_secrets(options, name)
    if options.tracking:
        tracking_uri(store.beside, options.tracking_uri)  # refuse a wrong address before anything starts
    damaged = work.standing.damaged
    if not work.left and not work.again:
        _end_of_all(sweep, store, options, console, num_damaged=len(damaged))
        other_code.show_other_code(work.others, work.accepted, store, console)
        show_damaged(damaged, store, console)
        return bool(damaged)
    benchmarks = [trial.benchmark for trial in (*work.left, *work.again)]
    bases = sorted({benchmark.base for benchmark in benchmarks})
    roots = data_sets.ensure(bases, options.data_root, console, weights_files(benchmarks)).roots
    with waiting(f"the executor {name} to start", console):
        executor = EXECUTORS[name]()
        executor.check(resources)
    store.create()
    with store.lock() as ended, begun(REMEDY):
        for driver in ended:
            note = f"an earlier run on this store was cut off: {driver.text}. This one continues from there"
            print_line(console, f"note: {note}.")
        work = dataclasses.replace(work, left=trials_left(sweep, store))  # another run may have ended meanwhile
        assignments = _assignments(sweep, resources)
        job = Job(
            assignments=tuple(assignments[trial] for trial in work.left),
            store=store.driven(),
            data_roots=roots,
            known_trials=tuple(trial for trial in sweep.requested if trial.trial_id not in damaged),
            plugins=sweep.plugins,
        )
        _begin(sweep, work, job.store, STARTS[name], console)
        again = tuple(assignments[trial] for trial in work.again)
        return _drive(sweep, work, job, again, executor, options=options, console=console)


def _assignments(sweep: Sweep, resources: Resources) -> dict[TrialSpec, Assignment]:
    """The sweep's trials as assignments, with the sweep's settings and the given resources."""
    commit, sizes = code_commit(), sweep.group_sizes
    return {
        trial: Assignment(
            spec=trial,
            resources=resources,
            commit=commit,
            max_group_size=sizes.get(trial.trial_id),
            keep_weights=sweep.keep_weights,
        )
        for trial in sweep.trials
    }


def _work(sweep: Sweep, store: Store, options: Options, console: Console) -> _Work:
    """The work to do; raises like `run`."""
    accepted = store.accepted() if store.exists else NOTHING
    left = trials_left(sweep, store)
    standing = look_at(sweep, store, thoroughly=options.repair)
    recomputed = frozenset(other_code.chosen(sweep, store, options.recompute))
    if options.recompute and not recomputed:
        print_line(console, "--recompute: all of these trials are of the current code; nothing to recompute")
    wanted = recomputed.difference(left)
    again = [
        trial for trial in sweep.trials if trial in wanted or (options.repair and trial.trial_id in standing.damaged)
    ]
    return _Work(left=left, again=tuple(again), recomputed=recomputed, standing=standing, accepted=accepted)


def _begin(sweep: Sweep, work: _Work, store: Store, starts: str, console: Console) -> None:
    """Prepare the store before anything is computed, and print what will be done.

    Args:
        sweep: the sweep.
        work: the work to do.
        store: the store that the run drives.
        starts: a description of the executor.
        console: where to print.
    """
    other_code.begin_anew((trial for trial in work.left if trial in work.recomputed), store)
    other_code.begin_anew((trial for trial in work.again if trial in work.recomputed), store.repairs())
    _clear_leftovers(sweep, store)
    _write_manifest(sweep, store, console)
    store.mark_behind(sweep.name, behind=True)  # MLflow, until it is brought up to date
    num_done = len(sweep.trials) - len(work.left) - len(work.again)
    again = f"{len(work.again)} to recompute, " if work.again else ""
    print_line(
        console, f"{sweep.title}: {len(work.left)} trials to run, {again}{num_done} done; {starts}; {store.address}"
    )
    for line in warnings(sweep.chosen):
        print_line(console, line)
    other_code.show_other_code(work.others, work.accepted, store, console)
    if sweep.keep_weights and num_done:
        print_line(console, f"keep_weights: the {num_done} finished trials are not changed")


def _drive(
    sweep: Sweep,
    work: _Work,
    job: Job,
    again: tuple[Assignment, ...],
    executor: Executor,
    *,
    options: Options,
    console: Console,
) -> bool:
    """Have an executor do the work, and print how it ended; returns and raises like `run`."""
    store, damaged = job.store, work.standing.damaged
    progress = RunProgress((*work.left, *work.again), len(sweep.trials) - len(work.left) - len(work.again))
    try:
        with _followed(sweep, store, options, console):
            _execute(executor, job, again, progress, console)
            old = take_repairs(work.again, damaged, store, console)
    except KeyboardInterrupt:
        print_line(console, progress.summary())
        raise
    print_line(console, f"{progress.summary()}; took {show_seconds(progress.seconds)}")
    beside = {trial.trial_id for trial in work.again}
    for trial_id in progress.failed:
        place = (store.repairs() if trial_id in beside else store).locate(trial_id, ATTEMPTS_FILE)
        print_line(console, f"traceback: {place}")
    unfinished = trials_left(sweep, store)  # the store decides, not the reports
    if unfinished:
        print_line(
            console,
            f"{len(unfinished)} trials did not finish; the same command resumes them",
        )
    if old:
        print_line(
            console, f"{len(old)} trials were not recomputed and keep their old records; the same command tries again"
        )
    if damaged:
        damaged = look_at(sweep, store, thoroughly=options.repair).damaged
    show_damaged(damaged, store, console)
    return bool(unfinished or old or damaged)


def _end_of_all(sweep: Sweep, store: Store, options: Options, console: Console, *, num_damaged: int) -> None:
    """If no trial is pending, complete what an earlier run left unfinished, including MLflow's part."""
    all_ = f"all {len(sweep.trials)}" if not num_damaged else f"{len(sweep.trials) - num_damaged}/{len(sweep.trials)}"
    print_line(console, f"{sweep.title}: {all_} trials are done; nothing to start")
    store.create()
    _clear_leftovers(sweep, store)
    _write_manifest(sweep, store, console)
    if store.is_behind(sweep.name):  # an earlier run was killed, MLflow was down, or another sweep computed the trials
        with _followed(sweep, store, options, console):
            pass


def _write_manifest(sweep: Sweep, store: Store, console: Console) -> None:
    """Write the sweep's manifest to the store, and print the command line's overrides."""
    before = next((manifest.changes for manifest in store.manifests() if manifest.name == sweep.name), sweep.changes)
    for change in sweep.changes:
        print_line(console, f"{OPTION} {change}")
    if before != sweep.changes:
        was = " ".join(f"{OPTION} {change}" for change in before) if before else f"without {OPTION}"
        print_line(
            console,
            f"note: {sweep.name} last ran {was}. Its table now shows this run's trials, and the others stay in the "
            f"store; a different name gives this run a table of its own: {OPTION} name=NAME.",
        )
    store.write_manifest(sweep.manifest())


def _execute(
    executor: Executor, job: Job, again: tuple[Assignment, ...], progress: RunProgress, console: Console
) -> None:
    """Run pending trials, then recompute others in a separate store, so that the old records remain until then."""
    with shown(progress, console) as show:
        on_update = _checked(job.store, show)
        if job.assignments:
            executor.run(job, on_update, progress.wait_for)
        if again:
            beside = job.store.repairs()
            beside.create()
            executor.run(
                dataclasses.replace(job, assignments=again, store=beside.driven()), on_update, progress.wait_for
            )
    job.store.check()  # trials that only read would not notice a lost store


def _checked(store: Store, show: Callable[[TrialUpdate], None]) -> Callable[[TrialUpdate], None]:
    """A function that shows a run's updates, and ends the run once its store is lost."""

    def on_update(update: TrialUpdate) -> None:
        if update.is_lost:
            store.check()  # on this machine, which can find out where the store is
        show(update)

    return on_update


@contextlib.contextmanager
def _followed(sweep: Sweep, store: Store, options: Options, console: Console) -> Iterator[None]:
    """Show the sweep in MLflow while the block runs, unless tracking is off."""
    if not options.tracking:
        yield
        return
    uri = tracking_uri(store.beside, options.tracking_uri)
    with followed(store, sweep.name, uri, console):
        yield
    if store.is_behind(sweep.name):
        print_line(console, f"mlflow: not up to date; to catch up: crwn sync {shlex.quote(store.address)}")


def trials_left(sweep: Sweep, store: Store) -> tuple[TrialSpec, ...]:
    """The trials missing from the store."""
    finished = store.finished(trial.trial_id for trial in sweep.trials)
    return tuple(trial for trial in sweep.trials if trial.trial_id not in finished)


def _clear_leftovers(sweep: Sweep, store: Store) -> None:
    """Clean up after trials whose process was killed between writing the record and cleaning up."""
    store.clear_leftovers(store.finished(trial.trial_id for trial in sweep.trials))


def chosen_executor(options: Options, num_trials: int) -> str:
    """The name of the executor for the given number of trials.

    Raises:
        UserError: the options are wrong.
    """
    if options.tracking_uri is not None and not options.tracking:
        raise UserError("options-conflict", "--tracking-uri and --no-tracking: expected one of them, given both")
    if options.executor is not None and options.executor not in EXECUTORS:
        raise UserError("unknown-name", f"--executor: {nearest(options.executor, EXECUTORS)}")
    return options.executor or default_executor(num_trials)


def check_secrets(options: Options, executor: str) -> None:
    """Check that a command contains no password, since Ray shows it to everyone who can reach the cluster.

    Raises:
        UserError: it contains one.
    """
    uri = options.tracking_uri
    if executor == "ray" and uri is not None and hide_password(uri) != uri:
        raise UserError(
            "password-shown",
            f"--tracking-uri: expected an address without a password, given {hide_password(uri)}: Ray's list of jobs "
            f"shows the command. Set it in ${TRACKING_VARIABLE}",
        )


def chosen_resources(sweep: Sweep, options: Options) -> Resources:
    """The sweep's resources, overridden by the command line's.

    Raises:
        UserError: the options are wrong.
    """
    asked = sweep.resources
    given: dict[str, Any] = {"gpus": options.gpus, "cpus": options.cpus}
    for name, value in given.items():
        if value is not None and not 0 <= value < float("inf"):
            raise UserError("too-small", f"--{name}: expected a number of at least 0, given {value}")
    if options.cpus == 0:
        raise UserError("too-small", "--cpus: expected more than 0, given 0")
    try:
        return Resources(
            gpus=asked.gpus if options.gpus is None else options.gpus,
            cpus=asked.cpus if options.cpus is None else options.cpus,
        )
    except InvalidError as error:
        raise UserError(error.codes, f"--{error}") from error


def code_commit() -> str | None:
    """The git commit of the code, marked if the working tree differs; None outside a checkout of the code.

    If installed within a user's own repository, it has no commit: that repository's says nothing about this code. Code
    sent to a cluster is in no checkout; its commit comes with the environment.
    """
    if sent := os.environ.get(COMMIT_VARIABLE):
        return sent
    file = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603 (fixed arguments)
                ["git", "-C", str(file.parent), *arguments],  # noqa: S607 (the user's own git)
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    is_tracked = git("ls-files", "--error-unmatch", "--", file.name) is not None
    commit = git("rev-parse", "HEAD") if is_tracked else None
    if commit is None:
        return None
    return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
