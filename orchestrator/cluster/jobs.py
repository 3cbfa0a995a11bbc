"""Jobs that crwn submitted to a Ray cluster: their status and logs, and stopping them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import aiohttp
import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from rich.console import Console

from orchestrator.cluster.dashboard import explained
from orchestrator.display import print_line
from orchestrator.errors import UserError, nearest
from orchestrator.execution.progress import show_seconds

STOP_SECONDS = 30
"""Seconds that a stopped job may take to exit before it is killed."""

POLL_SECONDS = 0.5
LOG_LINES = 5
"""Log lines shown per job in a verbose list."""

INTERRUPTED = 130

SWEEP, STORE, TRIALS, NUM_TRIALS = "crwn.sweep", "crwn.store", "crwn.trials", "crwn.num_trials"
"""Metadata of a job: the sweep's name, its store, a checksum of its trials, and their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """A job that crwn submitted.

    Attributes:
        job_id: Ray's submission id.
        notes: its metadata, by SWEEP, STORE, TRIALS and NUM_TRIALS.
        details: its status as reported by Ray.
    """

    job_id: str
    notes: Mapping[str, str]
    details: JobDetails

    @property
    def has_ended(self) -> bool:
        """Whether it succeeded, failed or was stopped."""
        return self.details.status.is_terminal()


def follow(client: JobSubmissionClient, address: str, job_id: str, console: Console) -> int:
    """Print a job's log until the job ends. Ctrl-C stops only the printing.

    Returns:
        The job's exit code; 130 if it was stopped or is no longer followed.
    """
    try:
        asyncio.run(_print_log(client, job_id, console))
        with explained(address):
            info = client.get_job_info(job_id)
            while not info.status.is_terminal():  # the log ends shortly before the job
                time.sleep(POLL_SECONDS)
                info = client.get_job_info(job_id)
    except KeyboardInterrupt:
        print_line(console, f"\n{job_id}: no longer followed; the job continues. To stop it:")
        print_line(console, f"  crwn stop --address {address} {job_id}")
        return INTERRUPTED
    except (aiohttp.ClientError, UserError, RuntimeError, OSError) as error:
        print_line(console, f"\n{job_id}: no longer followed: {error}")
        print_line(console, "The job continues; the same command follows it again.")
        return INTERRUPTED
    print_line(console, f"{job_id}: {state_of(info)}")
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return INTERRUPTED
    code = info.driver_exit_code
    if code == 127:
        print_line(
            console, "The cluster does not have the command crwn: install the project on its machines, and put the"
        )
        print_line(console, "environment's bin/ on $PATH where `ray start` is called (docs/cluster.md).")
    elif code is None and info.message:
        print_line(console, info.message)
    return code if code is not None and 0 < code < 256 else 1


async def _print_log(client: JobSubmissionClient, job_id: str, console: Console) -> None:
    async for text in client.tail_job_logs(job_id):
        console.file.write(text)
        console.file.flush()


def show(client: JobSubmissionClient, address: str, console: Console, *, verbose: bool) -> None:
    """Print the cluster's jobs and their status; with `verbose`, also the last lines of their logs."""
    jobs = jobs_of(client, address)
    print_line(console, f"{address}: {len(jobs)} crwn jobs" if jobs else f"{address}: no crwn jobs")
    for job in jobs:
        name, store, number = (job.notes[key] for key in (SWEEP, STORE, NUM_TRIALS))
        print_line(console, f"{job.job_id}: {state_of(job.details)}; {name}, {number} trials, into {store}")
        for line in _last_lines(client, job, verbose=verbose):
            print_line(console, f"  {line}")


def _last_lines(client: JobSubmissionClient, job: ClusterJob, *, verbose: bool) -> Sequence[str]:
    """The end of a job's log; without `verbose`, only how many trials of a running job are done."""
    if not verbose and job.has_ended:
        return ()
    try:
        lines = client.get_job_logs(job.job_id).splitlines()
    except (RuntimeError, requests.RequestException):
        return ()  # its machine is gone
    return lines[-LOG_LINES:] if verbose else [line for line in lines if re.match(r"\d+/\d+ trials done", line)][-1:]


def stop(client: JobSubmissionClient, address: str, job_id: str, console: Console) -> None:
    """Stop a crwn job and wait until it has ended.

    Raises:
        UserError: there is no such job.
    """
    jobs = {job.job_id: job for job in jobs_of(client, address)}
    if job_id not in jobs:
        raise UserError("unknown-name", f"JOB: {nearest(job_id, jobs)}; crwn status --address {address} shows them")
    if jobs[job_id].has_ended:
        print_line(console, f"{job_id}: {state_of(jobs[job_id].details)} already")
        return
    with explained(address):
        client.stop_job(job_id)
        until = time.monotonic() + 2 * STOP_SECONDS
        while not (info := client.get_job_info(job_id)).status.is_terminal():
            if time.monotonic() > until:
                print_line(console, f"{job_id}: asked to stop, but still running; see crwn status --address {address}")
                return
            time.sleep(POLL_SECONDS)
    print_line(console, f"{job_id}: {state_of(info)}; its results are kept; submit the sweep again to continue")


def jobs_of(client: JobSubmissionClient, address: str) -> list[ClusterJob]:
    """The cluster's jobs that crwn submitted, oldest first."""
    with explained(address):
        found = sorted(client.list_jobs(), key=lambda details: details.start_time or 0)
    return [
        ClusterJob(job_id=details.submission_id, notes=details.metadata, details=details)
        for details in found
        if details.submission_id and details.metadata and {SWEEP, STORE, TRIALS, NUM_TRIALS} <= details.metadata.keys()
    ]


def state_of(details: JobDetails) -> str:
    """A job's status, in words."""
    code = details.driver_exit_code
    words = {
        JobStatus.PENDING: "waiting to start",
        JobStatus.RUNNING: "running",
        JobStatus.STOPPED: "stopped",
        JobStatus.SUCCEEDED: "done",
        JobStatus.FAILED: "failed" if code is None else f"failed with exit code {code}",
    }[details.status]
    if details.start_time is None:
        return words
    begun = details.start_time / 1000  # milliseconds
    end = details.end_time / 1000 if details.end_time else time.time()
    date = datetime.fromtimestamp(begun).astimezone()
    return f"{words}, begun {date:%Y-%m-%d %H:%M}, {show_seconds(max(0.0, end - begun))}"
