"""Sweeps as Slurm jobs: submitted once, shown, stopped."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from orchestrator.cluster.request import Request
from orchestrator.cluster.slurm_jobs import MARK, RefusedError, SlurmJob, ask, look_up, queued
from orchestrator.cluster.slurm_script import Allocation, Script
from orchestrator.display import counted, print_line
from orchestrator.errors import UserError, begun, nearest
from orchestrator.execution import running
from orchestrator.store.store import Store

POLL_SECONDS = 1.0
STOP_SECONDS = 90.0
"""Seconds that a stopped job may take to disappear: Slurm kills it after half a minute."""

SETTLE_SECONDS = 4.0
"""Seconds that Slurm may take to say why a new job does not start."""

LOG_LINES = 5
"""Of a job's log, with details."""

NEVER = (
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "PartitionConfig",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
)
"""Reasons for which a job would wait until an administrator changes the cluster."""


def submit(wanted: Request, allocation: Allocation, console: Console, *, script_file: Path | None = None) -> None:
    """Submit a sweep to Slurm unless a job already runs it; print how to continue.

    Args:
        wanted: the sweep; its store is on a path that all nodes see, or on object storage.
        allocation: the resources requested.
        console: where to print.
        script_file: where to write the script for `sbatch` instead of submitting it.

    Raises:
        UserError: Slurm is missing or refuses the job, or the store is in use. Nothing was written or started.
    """
    script = _script(wanted, allocation)
    if faults := [*allocation.faults(), *script.faults()]:
        raise UserError.of(faults, "\n".join(faults))
    if script_file is not None:
        _write(wanted, script, script_file)
        print_line(console, f"script    {script_file}; nothing was submitted")
        print_line(console, f"submit    {shlex.join(['sbatch', str(script_file)])}")
        return
    store = Store(wanted.store)
    at_it = [job for job in queued() if job.store == wanted.store]
    if at_it:
        job = _same(at_it[0], wanted)
        print_line(console, f"{wanted.sweep.name}: already submitted to {wanted.store}; nothing was started")
    elif not wanted.options.recompute and not running.trials_left(wanted.sweep, store):
        print_line(console, f"{wanted.sweep.name}: all {len(wanted.sweep.trials)} trials are done; nothing to submit")
        return
    else:
        _check_free(store)
        job = _start(wanted, script)
    print_line(console, f"job       {job.said()}")
    print_line(console, f"log       {job.log}")
    print_line(console, f"follow    {shlex.join(['tail', '-F', str(job.log)])}")
    print_line(console, f"status    crwn status {job.job_id}")
    print_line(console, f"stop      crwn stop {job.job_id}")
    print_line(console, f"resume    {wanted.command('--slurm', *allocation.words())}")


def _script(wanted: Request, allocation: Allocation) -> Script:
    """The script of a job, after copying every file that it names into place."""
    root = Path(wanted.store) if wanted.store.startswith("/") else Path.cwd() / "runs" / wanted.sweep.name
    folder = root.with_name(f"{root.name}.slurm")
    notes = (MARK, wanted.trials[:16], str(len(wanted.sweep.trials)), wanted.sweep.name, wanted.store)
    programs = Path(sys.executable).parent
    uri = wanted.options.tracking_uri
    tracking = [] if uri is None else ["--tracking-uri", uri]
    return Script(
        name=wanted.stem.rstrip("-"),
        comment=" ".join(notes),
        folder=folder,
        directory=Path.cwd(),
        programs=programs,
        command=[str(programs / "crwn"), *wanted.run(folder)[1:], *tracking],
        allocation=allocation,
        written_by=wanted.command("--slurm", *allocation.words()),
    )


def _same(job: SlurmJob, wanted: Request) -> SlurmJob:
    """The job on the wanted store, if it runs the wanted sweep."""
    if (job.sweep, job.trials) == (wanted.sweep.name, wanted.trials[:16]):
        return job
    raise UserError(
        "store-taken",
        f"{wanted.store}: expected no other job on this store, but job {job.job_id} runs the sweep {job.sweep!r} of "
        f"{job.num_trials} trials there, which is not that of {wanted.file}. Wait for it, stop it "
        f"(crwn stop {job.job_id}), or name another store with --out.",
    )


def _check_free(store: Store) -> None:
    """Refuse a folder driven by a run that is not one of our jobs: the job would be queued only to be refused."""
    if store.is_folder and any(driver.is_live for driver in store.drivers()):
        raise UserError(
            "store-taken",
            f"{store.address}: expected no other run on this store, but one is working on it. Wait for it (crwn status "
            "shows it), stop it, or name another store with --out.",
        )


def _start(wanted: Request, script: Script) -> SlurmJob:
    """Submit a script that Slurm has accepted; raises like `submit`."""
    text = script.text()
    try:
        ask("sbatch", "--test-only", given=text, unset=script.variables())
        file = script.folder / "job.sbatch"
        _write(wanted, script, file)
        job_id = ask("sbatch", "--parsable", str(file), unset=script.variables()).strip().partition(";")[0]
    except RefusedError as error:
        raise UserError(
            error.codes, f"Slurm refuses the job: {error}. {_partitions(script.allocation)}Nothing was started."
        ) from None
    with begun(f"Slurm has the job: crwn status {job_id}"):
        job = _settled(job_id)
        if job.state == "PENDING" and job.reason in NEVER:
            ask("scancel", job_id)
    if job.state == "PENDING" and job.reason in NEVER:
        raise UserError(
            "job-never-starts",
            f"Slurm would never start the job ({job.reason}): expected --nodes, --time, --partition and --account that "
            f"go together. {_partitions(script.allocation)}It was cancelled.",
        )
    return job


def _settled(job_id: str) -> SlurmJob:
    """A new job once Slurm has started it or says why not."""
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        job = _known(job_id)
        if job.reason or job.state != "PENDING" or time.monotonic() > until:
            return job
        time.sleep(POLL_SECONDS / 4)


def _write(wanted: Request, script: Script, file: Path) -> None:
    """Write the script, and copies of the sweep and its plug-ins, which may change here before the job starts."""
    script.folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(wanted.file, script.folder / wanted.file.name)
    for plugin in wanted.plugin_files:
        (script.folder / plugin.name).write_bytes(plugin.source)
    file.write_text(script.text(), encoding="utf-8")


def _partitions(allocation: Allocation) -> str:
    """A sentence about the named partition, if it does not exist."""
    try:
        known = dict.fromkeys(ask("sinfo", "--noheader", "--format=%R").split())
    except UserError:
        return ""
    named = (allocation.partition or "").split(",")
    wrong = [name for name in named if name and name not in known]
    return f"--partition: {nearest(wrong[0], known)}. " if wrong and known else ""


def show(job_id: str, console: Console, *, verbose: bool) -> None:
    """Print a job's state and the end of its log.

    Raises:
        UserError: Slurm is missing, or has no such job.
    """
    _show(_ours(job_id), console, verbose=verbose)


def show_all(console: Console, *, verbose: bool) -> None:
    """Print the states of this user's unfinished crwn jobs; raises like `show`."""
    jobs = queued()
    print_line(
        console, f"Slurm: {counted(len(jobs), 'crwn job')}" if jobs else "Slurm: no crwn job is waiting or running"
    )
    for job in jobs:
        _show(job, console, verbose=verbose)


def _show(job: SlurmJob, console: Console, *, verbose: bool) -> None:
    print_line(console, job.said())
    try:
        lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # it has not started, or its log is elsewhere
    for line in (
        lines[-LOG_LINES:] if verbose else [line for line in lines if re.match(r"\d+/\d+ trials done", line)][-1:]
    ):
        print_line(console, f"  {line}")
    print_line(console, f"  log {job.log}")


def stop(job_id: str, console: Console) -> None:
    """Stop a job and wait until it has ended; raises like `show`."""
    job = _ours(job_id)
    if job.has_ended:
        print_line(console, f"{job.said()} already")
        return
    try:
        ask("scancel", job_id)
    except RefusedError as error:
        raise UserError(error.codes, f"JOB: Slurm refuses to stop {job_id}: {error}") from None
    until = time.monotonic() + STOP_SECONDS
    while (found := look_up(job_id)) and not found[0].has_ended:
        if time.monotonic() > until:
            print_line(console, f"{job_id}: asked to stop, but still ending; see crwn status {job_id}")
            return
        time.sleep(POLL_SECONDS)
    print_line(console, f"{job_id}: stopped; its results are kept; submit the sweep again to continue")


def _ours(job_id: str) -> SlurmJob:
    """A crwn job by its number.

    Raises:
        UserError: Slurm is missing, has no such job, or the job is not a crwn job.
    """
    job = _known(job_id)
    if not job.is_ours:
        raise UserError("job-of-another", f"JOB: expected a crwn job, but {job_id} is {job.name!r}")
    return job


def _known(job_id: str) -> SlurmJob:
    """Any job by its number; raises like `_ours`."""
    found = look_up(job_id)
    if not found:
        raise UserError(
            "job-unknown",
            f"JOB: expected a job known to Slurm, given {job_id}. Slurm forgets what ended long ago; crwn status "
            "--slurm shows what waits and runs, crwn status STORE the results",
        )
    return found[0]
