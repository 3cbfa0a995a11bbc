"""Sweeps as jobs of a Ray cluster: submit, follow, list, stop. The only file that imports Ray's job client.

A job is `crwn run` on the cluster's head, on the code and the sweep that were packed here. What it computed is in the
store, so a job can be stopped or lost at any moment: submitting again goes on with what the store lacks.

A job's id says which sweep it runs into which store, and the how manieth attempt it is. Ray takes an id only once, so
two people who submit the same at the same moment start one job.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import posixpath
import re
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from rich.console import Console

import crwn
import orchestrator
from orchestrator import scratch
from orchestrator.display import print_line
from orchestrator.errors import UserError, nearest
from orchestrator.execution.progress import show_seconds
from orchestrator.execution.running import COMMIT_VARIABLE, Options, chosen_executor, chosen_resources, code_commit
from orchestrator.store.address import SCHEMES, check_address
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.address import TRACKING_VARIABLE, hide_password, is_database, sqlite_file

_Value = TypeVar("_Value")

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""How long a dashboard may take until it is known to be one."""
STOP_SECONDS = 30
"""How long a job may take to end by itself when it is stopped, before it is killed."""
START_SECONDS = 60.0
"""How long a head that has just been started may take until it accepts jobs."""
NOT_STARTED = "No available agent"
"""What Ray says until then."""
POLL_SECONDS = 0.5
LOG_LINES = 5
"""Of each job, in a list with details."""

INTERRUPTED = 130

SWEEP, STORE, TRIALS, NUM_TRIALS = "crwn.sweep", "crwn.store", "crwn.trials", "crwn.num_trials"
"""What is kept with a job: the sweep's name, its store, a checksum of its trials, and how many they are."""

CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")
"""Loggers of Ray's client that tell of each upload and connection."""

OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Ray's client would take these over the address that it is given."""

TOKEN_PLACES = "It is read from $RAY_AUTH_TOKEN, else from the file $RAY_AUTH_TOKEN_PATH, else from ~/.ray/auth_token."  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A sweep that is to run on a cluster.

    Attributes:
        sweep: validated.
        file: what it was read from.
        store: where the cluster keeps it.
        options: of the run.
    """

    sweep: Sweep
    file: Path
    store: str
    options: Options

    @property
    def stem(self) -> str:
        """What the ids of all jobs of this sweep and store begin with."""
        digest = hashlib.sha256(f"{self.sweep.name}\n{self.store}".encode()).hexdigest()
        return f"crwn-{self.sweep.name}-{digest[:8]}-"

    @property
    def trials(self) -> str:
        """A checksum of the trials, whatever their order."""
        return hashlib.sha256("\n".join(sorted(trial.trial_id for trial in self.sweep.trials)).encode()).hexdigest()

    @property
    def entrypoint(self) -> str:
        """The command that the job runs."""
        # Ray also where few trials are left: the head may have neither GPUs nor cores to spare.
        return shlex.join(["crwn", "run", self.file.name, "--out", self.store, "--executor", "ray", *self._options()])

    def command(self, address: str) -> str:
        """The command that submits this."""
        uri = self.options.tracking_uri
        tracking = [] if uri is None else ["--tracking-uri", hide_password(uri)]
        words = ["crwn", "submit", str(self.file), "--address", address, "--out", self.store]
        return shlex.join([*words, *self._options(), *tracking])

    def _options(self) -> Iterator[str]:
        """What `submit` and `run` both take."""
        for name in ("data_root", "gpus", "cpus"):
            value = getattr(self.options, name)
            if value is not None:
                yield from (f"--{name.replace('_', '-')}", str(value))
        if not self.options.tracking:
            yield "--no-tracking"


def request(sweep: Sweep, file: Path, out: str | None, options: Options) -> Request:
    """Check what is to be submitted, without any cluster.

    Raises:
        UserError: something of it cannot work there.
    """
    chosen_resources(sweep, options)
    chosen_executor(options, len(sweep.trials))
    where = "an absolute path that all machines of the cluster share, such as /shared/runs/NAME, or s3://bucket/prefix"
    given = out if out is not None else None if sweep.store is None else str(sweep.store)
    if given is None:
        raise UserError(f"--out: expected where the cluster keeps the store, {where}; given nothing")
    source = "--out" if out is not None else f"{file}: store"
    try:
        check_address(given)
    except ValueError as error:
        raise UserError(f"{source}: {error}.") from error
    is_elsewhere = urlsplit(given).scheme in SCHEMES
    if not (given.startswith("/") or is_elsewhere):
        raise UserError(f"{source}: expected {where}; given {given!r}. A job's own folder vanishes with it.")
    if options.data_root is not None and not options.data_root.startswith("/"):
        raise UserError(
            f"--data-root: expected an absolute path on the cluster's machines; given {options.data_root!r}"
        )
    return Request(sweep=sweep, file=file, store=given if is_elsewhere else posixpath.normpath(given), options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """A job that crwn submitted.

    Attributes:
        job_id: Ray's submission id.
        notes: what was kept with it, by SWEEP, STORE, TRIALS and NUM_TRIALS.
        details: how it stands, as Ray tells.
    """

    job_id: str
    notes: Mapping[str, str]
    details: JobDetails

    @property
    def has_ended(self) -> bool:
        """Whether it is done, failed or stopped."""
        return self.details.status.is_terminal()


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster whose dashboard is at an address.

    Raises:
        UserError: the address is none, nothing answers there, it is no Ray, or it wants another token.
    """
    parts = urlsplit(address)
    if "@" in parts.netloc:  # before anything that repeats it
        raise UserError(
            "--address: expected the address of Ray's dashboard without a user or a password, given one with: it is "
            "shown in the commands to go on with. Use a tunnel, such as ssh -N -L 8265:127.0.0.1:8265 HEAD"
        )
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise UserError(
            f"--address: expected the address of Ray's dashboard, such as http://127.0.0.1:8265; given {address!r}"
        )
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    before = {name: os.environ.pop(name) for name in OVERRIDES if name in os.environ}
    try:
        return _within(ANSWER_SECONDS, lambda: _client(address, parts.hostname, port))
    except OSError as error:
        raise _unreachable(address, error) from error
    finally:
        os.environ.update(before)


def _client(address: str, host: str | None, port: int) -> JobSubmissionClient:
    # Ray's own client would wait for minutes for a machine that does not answer
    socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    with _explained(address):
        return JobSubmissionClient(address)


def _within(seconds: float, call: Callable[[], _Value]) -> _Value:
    """What a call returns that knows no limit of time: the system's look-up of names, a request of Ray's client.

    Raises:
        TimeoutError: it takes longer. It goes on in its thread, which keeps no process from ending.
    """
    future: Future[_Value] = Future()

    def answer() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 (raised where it was asked for)
            future.set_exception(error)

    threading.Thread(target=answer, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"nothing answers within {seconds:.0f} s") from error


def submit(client: JobSubmissionClient, address: str, wanted: Request, console: Console) -> str:
    """Have the cluster run a sweep, unless a job is at it already; say how to go on.

    Returns:
        The job's id.

    Raises:
        UserError: another sweep's job works on the store, or the cluster cannot be reached.
    """
    while True:
        jobs = _jobs(client, address)
        at_it = [job for job in jobs if job.notes[STORE] == wanted.store and not job.has_ended]
        if at_it:
            job_id = _same(at_it[0], wanted, address)
            print_line(console, f"{wanted.sweep.name}: already submitted to {wanted.store}; nothing was started")
            break
        number = 1 + max((_number(job.job_id, wanted.stem) for job in jobs), default=0)
        job_id = f"{wanted.stem}{number}"
        if _start(client, address, wanted, job_id, console):
            break
    print_line(console, f"sweep     {wanted.sweep.name}: {len(wanted.sweep.trials)} trials, into {wanted.store}")
    print_line(console, f"job       {job_id}")
    print_line(console, f"dashboard {address}/#/jobs/{job_id}")
    print_line(console, f"follow    {wanted.command(address)} --follow")
    print_line(console, f"status    crwn status --address {address}")
    print_line(console, f"stop      crwn stop --address {address} {job_id}")
    print_line(console, f"resume    {wanted.command(address)}")
    return job_id


def _same(job: ClusterJob, wanted: Request, address: str) -> str:
    """The id of a job on the wanted store, if it runs the wanted sweep."""
    if (job.notes[SWEEP], job.notes[TRIALS]) == (wanted.sweep.name, wanted.trials):
        return job.job_id
    raise UserError(
        f"{wanted.store}: expected no other job on this store, but {job.job_id} runs the sweep {job.notes[SWEEP]!r} of "
        f"{job.notes[NUM_TRIALS]} trials there, which is not that of {wanted.file}. Wait for it, stop it "
        f"(crwn stop --address {address} {job.job_id}), or name another store with --out."
    )


def _number(job_id: str, stem: str) -> int:
    """Which attempt at a sweep and a store a job is; 0 if at another."""
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
        variables[TRACKING_VARIABLE] = uri  # not in the command, which everybody sees: it may have a password
    with _packed(wanted.file) as folder, _explained(address):
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                client.submit_job(
                    entrypoint=wanted.entrypoint,
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
def _packed(file: Path) -> Iterator[Path]:
    """A folder with what a job needs: the two packages, and the sweep.

    It is filled rather than the project's folder thinned out: neither data nor runs nor an environment can get in,
    wherever they are, and a sweep may lie anywhere.
    """
    with scratch.folder("crwn-submit-") as folder:
        for package in (crwn, orchestrator):
            assert package.__file__ is not None
            source = Path(package.__file__).parent
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]"))
        shutil.copy(file, folder / file.name)
        yield folder


def _tracking_uri(options: Options, console: Console) -> str | None:
    """MLflow's address for the job; None where the head's own holds, or none is wanted."""
    if not options.tracking:
        return None
    if options.tracking_uri is not None:
        if sqlite_file(options.tracking_uri) and not options.tracking_uri.partition(":///")[2].startswith("/"):
            raise UserError(
                "--tracking-uri: expected an absolute path on the cluster's head (four slashes), "
                f"given {options.tracking_uri}"
            )
        return options.tracking_uri
    uri = os.environ.get(TRACKING_VARIABLE)
    if uri and (uri.startswith(("http://", "https://")) or (is_database(uri) and not uri.startswith("sqlite"))):
        return uri
    if uri:
        print_line(
            console,
            f"note: ${TRACKING_VARIABLE} names a place on this machine, {hide_password(uri)}; "
            "the job uses what is set on the cluster's head",
        )
    return None


def follow(client: JobSubmissionClient, address: str, job_id: str, console: Console) -> int:
    """Print a job's log until it ends. Ctrl-C ends only that.

    Returns:
        The job's exit code; 130 if it was stopped, or is followed no longer.
    """
    try:
        asyncio.run(_print_log(client, job_id, console))
        with _explained(address):
            info = client.get_job_info(job_id)
            while not info.status.is_terminal():  # the log ends a moment before the job
                time.sleep(POLL_SECONDS)
                info = client.get_job_info(job_id)
    except KeyboardInterrupt:
        print_line(console, f"\n{job_id}: no longer followed; the job goes on. To stop it:")
        print_line(console, f"  crwn stop --address {address} {job_id}")
        return INTERRUPTED
    except (aiohttp.ClientError, UserError, RuntimeError, OSError) as error:
        print_line(console, f"\n{job_id}: no longer followed: {error}")
        print_line(console, "The job goes on without this connection; the same command follows it again.")
        return INTERRUPTED
    print_line(console, f"{job_id}: {_state(info)}")
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return INTERRUPTED
    code = info.driver_exit_code
    if code == 127:
        print_line(console, "The cluster lacks the command crwn: install the project on its machines, and have the")
        print_line(console, "environment's bin/ in $PATH where `ray start` is called (docs/cluster.md).")
    elif code is None and info.message:
        print_line(console, info.message)
    return code if code is not None and 0 < code < 256 else 1


async def _print_log(client: JobSubmissionClient, job_id: str, console: Console) -> None:
    async for text in client.tail_job_logs(job_id):
        console.file.write(text)
        console.file.flush()


def show(client: JobSubmissionClient, address: str, console: Console, *, verbose: bool) -> None:
    """Print the cluster's jobs and how they stand; with `verbose` also the last lines of their logs."""
    jobs = _jobs(client, address)
    print_line(console, f"{address}: {len(jobs)} jobs of crwn" if jobs else f"{address}: no job of crwn")
    for job in jobs:
        name, store, number = (job.notes[key] for key in (SWEEP, STORE, NUM_TRIALS))
        print_line(console, f"{job.job_id}: {_state(job.details)}; {name}, {number} trials, into {store}")
        for line in _last_lines(client, job, verbose=verbose):
            print_line(console, f"  {line}")


def _last_lines(client: JobSubmissionClient, job: ClusterJob, *, verbose: bool) -> Sequence[str]:
    """The end of a job's log; without `verbose` how many trials of a running one are done."""
    if not verbose and job.has_ended:
        return ()
    try:
        lines = client.get_job_logs(job.job_id).splitlines()
    except (RuntimeError, requests.RequestException):
        return ()  # the machine that has it is gone
    return lines[-LOG_LINES:] if verbose else [line for line in lines if re.match(r"\d+/\d+ trials done", line)][-1:]


def stop(client: JobSubmissionClient, address: str, job_id: str, console: Console) -> None:
    """Stop a job of crwn and wait until it has ended.

    Raises:
        UserError: there is no such job.
    """
    jobs = {job.job_id: job for job in _jobs(client, address)}
    if job_id not in jobs:
        raise UserError(f"JOB: {nearest(job_id, jobs)}; crwn status --address {address} shows them")
    if jobs[job_id].has_ended:
        print_line(console, f"{job_id}: {_state(jobs[job_id].details)} already")
        return
    with _explained(address):
        client.stop_job(job_id)
        until = time.monotonic() + 2 * STOP_SECONDS
        while not (info := client.get_job_info(job_id)).status.is_terminal():
            if time.monotonic() > until:
                print_line(console, f"{job_id}: asked to stop, and still running; crwn status --address {address}")
                return
            time.sleep(POLL_SECONDS)
    print_line(console, f"{job_id}: {_state(info)}; what it computed is kept, and submitting the sweep again goes on")


def _jobs(client: JobSubmissionClient, address: str) -> list[ClusterJob]:
    """The cluster's jobs that crwn submitted, oldest first."""
    with _explained(address):
        found = sorted(client.list_jobs(), key=lambda details: details.start_time or 0)
    return [
        ClusterJob(job_id=details.submission_id, notes=details.metadata, details=details)
        for details in found
        if details.submission_id and details.metadata and {SWEEP, STORE, TRIALS, NUM_TRIALS} <= details.metadata.keys()
    ]


def _state(details: JobDetails) -> str:
    """How a job stands, in words."""
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


def _unreachable(address: str, error: BaseException) -> UserError:
    return UserError(
        f"--address: expected Ray's dashboard at {address}, but it cannot be reached: {error}. Is the cluster up, and "
        "the tunnel to its head (ssh -N -L 8265:127.0.0.1:8265 HEAD)?"
    )


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """What Ray's client raises, as the user's to mend.

    Raises:
        UserError: instead of it.
    """
    try:
        yield
    except AuthenticationError as error:
        is_set = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        given = "none or another was given" if is_set else "none was given: set RAY_AUTH_MODE=token"
        raise UserError(
            f"--address: the cluster at {address} expects its token, and {given}. {TOKEN_PLACES}"
        ) from error
    except (ConnectionError, requests.ConnectionError, requests.Timeout) as error:
        raise _unreachable(address, error) from error
    except (RuntimeError, requests.RequestException, ValueError, KeyError) as error:
        raise UserError(
            f"--address: expected Ray's dashboard at {address}, which refused or is another server: "
            f"{type(error).__name__}: {error}"
        ) from error
