"""Sweeps as Ray jobs: packed, and submitted unless a job already runs them.

A job is `crwn run` on the cluster's head, with the code and the sweep packed here. Its results are in the
store, so a job may be stopped or lost at any time: submitting again computes the missing trials.

A job's id encodes the sweep, the store and the number of the attempt. Ray accepts an id only once, so
two simultaneous submissions start only one job.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ray.job_submission import JobSubmissionClient
from rich.console import Console

import crwn
import orchestrator
from orchestrator import scratch
from orchestrator.cluster.dashboard import explained
from orchestrator.cluster.jobs import NUM_TRIALS, POLL_SECONDS, STOP_SECONDS, STORE, SWEEP, TRIALS, ClusterJob, jobs_of
from orchestrator.cluster.request import Request
from orchestrator.display import hide_password, print_line
from orchestrator.errors import UserError
from orchestrator.execution.running import COMMIT_VARIABLE, Options, code_commit
from orchestrator.tracking.address import TRACKING_VARIABLE, is_database, sqlite_file

START_SECONDS = 60.0
"""Seconds that a newly started head may take until it accepts jobs."""
NOT_STARTED = "No available agent"
"""Ray's message until then."""


def submit(client: JobSubmissionClient, address: str, wanted: Request, console: Console) -> str:
    """Submit a sweep unless a job already runs it, and print how to continue.

    Returns:
        The job's id.

    Raises:
        UserError: another sweep's job uses the store, or the cluster cannot be reached.
    """
    while True:
        jobs = jobs_of(client, address)
        at_it = [job for job in jobs if job.notes[STORE] == wanted.store and not job.has_ended]
        if at_it:
            job_id = _same(at_it[0], wanted, address)
            print_line(console, f"{wanted.sweep.name}: already submitted to {wanted.store}; nothing was started")
            break
        number = 1 + max((_number(job.job_id, wanted.stem) for job in jobs), default=0)
        job_id = f"{wanted.stem}{number}"
        if _start(client, address, wanted, job_id, console):
            break
    print_line(console, f"sweep     {wanted.sweep.title}: {len(wanted.sweep.trials)} trials, into {wanted.store}")
    print_line(console, f"job       {job_id}")
    print_line(console, f"dashboard {address}/#/jobs/{job_id}")
    print_line(console, f"follow    {wanted.command('--address', address)} --follow")
    print_line(console, f"status    crwn status --address {address}")
    print_line(console, f"stop      crwn stop --address {address} {job_id}")
    print_line(console, f"resume    {wanted.command('--address', address)}")
    return job_id


def _same(job: ClusterJob, wanted: Request, address: str) -> str:
    """The id of the job on this store, if it runs the same sweep."""
    if (job.notes[SWEEP], job.notes[TRIALS]) == (wanted.sweep.name, wanted.trials):
        return job.job_id
    raise UserError(
        "store-taken",
        f"{wanted.store}: expected no other job on this store, but {job.job_id} runs the sweep {job.notes[SWEEP]!r} of "
        f"{job.notes[NUM_TRIALS]} trials there, a different sweep than {wanted.file}. Wait for it, stop it "
        f"(crwn stop --address {address} {job.job_id}), or name another store with --out.",
    )


def _number(job_id: str, stem: str) -> int:
    """The number of a job's attempt at this sweep and store; 0 if it is for another."""
    found = re.fullmatch(f"{re.escape(stem)}([0-9]+)", job_id)
    return int(found[1]) if found else 0


def _start(client: JobSubmissionClient, address: str, wanted: Request, job_id: str, console: Console) -> bool:
    """Pack and submit; False if another process has just taken the id."""
    metadata = {
        SWEEP: wanted.sweep.name,
        STORE: wanted.store,
        TRIALS: wanted.trials,
        NUM_TRIALS: str(len(wanted.sweep.trials)),
    }
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    if commit := code_commit():
        variables[COMMIT_VARIABLE] = commit
    if uri := _tracking_uri(wanted.options, console):
        variables[TRACKING_VARIABLE] = uri  # not in the command, which everyone can see: it may contain a password
    with _packed(wanted) as folder, explained(address):
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                client.submit_job(
                    entrypoint=shlex.join(wanted.run()),
                    submission_id=job_id,
                    metadata=metadata,
                    runtime_env={"working_dir": str(folder), "env_vars": variables},
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                if NOT_STARTED not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return True


@contextlib.contextmanager
def _packed(wanted: Request) -> Iterator[Path]:
    """A folder with everything that a job needs: the two packages, the sweep and its plug-ins, as they were read.

    Files are added one by one rather than excluded from the project's folder, so that no data, runs or environment can
    get in, and the sweep may be anywhere.
    """
    with scratch.folder("crwn-submit-") as folder:
        for package in (crwn, orchestrator):
            assert package.__file__ is not None
            source = Path(package.__file__).parent
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]"))
        shutil.copy(wanted.file, folder / wanted.file.name)
        for plugin in wanted.plugin_files:
            (folder / plugin.name).write_bytes(plugin.source)
        yield folder


def _tracking_uri(options: Options, console: Console) -> str | None:
    """MLflow's address for the job; None if the head's own setting applies or tracking is off."""
    if not options.tracking:
        return None
    if options.tracking_uri is not None:
        if sqlite_file(options.tracking_uri) and not options.tracking_uri.partition(":///")[2].startswith("/"):
            raise UserError(
                "path-not-absolute",
                "--tracking-uri: expected an absolute path on the cluster's head (four slashes), "
                f"given {options.tracking_uri}",
            )
        return options.tracking_uri
    uri = os.environ.get(TRACKING_VARIABLE)
    if uri and (uri.startswith(("http://", "https://")) or (is_database(uri) and not uri.startswith("sqlite"))):
        return uri
    if uri:
        print_line(
            console,
            f"note: ${TRACKING_VARIABLE} names a place on this machine, {hide_password(uri)}; "
            "the job uses the setting of the cluster's head",
        )
    return None
