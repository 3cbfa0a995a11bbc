"""Slurm jobs, as reported by Slurm's own commands.

A job's name identifies the sweep and the store, its comment holds the rest, so nothing has to be stored outside Slurm.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError

ANSWER_SECONDS = 120.0
"""Seconds that a Slurm command may take; commands retry by themselves for a minute."""

SEPARATOR = "\x1f"
FORMAT = SEPARATOR.join(("%i", "%T", "%r", "%M", "%l", "%D", "%Z", "%j", "%k"))
"""Fields of squeue: id, state, reason, time used, limit, nodes, folder, name, comment."""

ACCOUNTED = "JobIDRaw,State,Elapsed,Timelimit,NNodes,WorkDir,JobName,Comment"
"""The same for sacct, which has no reason."""

CHANGING = ("SQUEUE_ALL", "SQUEUE_ARRAY", "SQUEUE_FORMAT", "SQUEUE_FORMAT2", "SQUEUE_SORT", "SQUEUE_STATES")
"""Variables with which users customise squeue's output."""

MARK = "crwn"
"""Prefix of the names and comments of our jobs."""

STATES = {
    "PENDING": "waiting to start",
    "CONFIGURING": "starting",
    "RUNNING": "running",
    "COMPLETING": "ending",
    "COMPLETED": "done",
    "CANCELLED": "stopped",
    "TIMEOUT": "ended by its time limit",
}
"""Slurm's states in our words; others are shown unchanged."""

GOING_ON = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "STOPPED")
"""States of an unfinished job; a requeued job starts again."""


class RefusedError(UserError):
    """A Slurm command refused; the text is its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """A job as reported by Slurm.

    Attributes:
        job_id: its number.
        state: in Slurm's capitals.
        reason: why it waits; empty if it does not wait.
        elapsed: the time that it has run, in Slurm's format.
        limit: its time limit, likewise.
        nodes: number of nodes.
        folder: where its log is.
        name: of the job.
        trials: a checksum of its sweep's trials; empty if its comment is not ours.
        num_trials: their number.
        sweep: its name.
        store: where the results are.
    """

    job_id: str
    state: str
    reason: str
    elapsed: str
    limit: str
    nodes: str
    folder: Path
    name: str
    trials: str
    num_trials: str
    sweep: str
    store: str

    @property
    def is_ours(self) -> bool:
        """Whether crwn submitted it, or wrote its script."""
        return self.name.startswith(f"{MARK}-") and bool(self.store)

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self.state not in GOING_ON

    @property
    def log(self) -> Path:
        """Its log, of all attempts."""
        return self.folder / f"{self.job_id}.log"

    def said(self) -> str:
        """Its state, and what it runs."""
        state = STATES.get(self.state, self.state.lower().replace("_", " "))
        if self.state == "PENDING":
            state += f" ({self.reason})" if self.reason else ""
        else:
            state += f", {self.elapsed} of {self.limit} on {self.nodes} node{'' if self.nodes == '1' else 's'}"
        return f"{self.job_id}: {state}; {self.sweep}, {self.num_trials} trials, into {self.store}"


def _job(fields: Sequence[str], comment: str) -> SlurmJob:
    job_id, state, reason, elapsed, limit, nodes, folder, name = fields
    mark, *notes = comment.strip().split(" ", 4)
    trials, num_trials, sweep, store = notes if mark == MARK and len(notes) == 4 else ("", "", "", "")
    return SlurmJob(
        job_id=job_id,
        state=state.partition(" ")[0],  # sacct adds who stopped it
        reason="" if reason == "None" else reason,
        elapsed=elapsed,
        limit=limit,
        nodes=nodes,
        folder=Path(folder),
        name=name,
        trials=trials,
        num_trials=num_trials,
        sweep=sweep,
        store=store,
    )


def queued() -> list[SlurmJob]:
    """This user's unfinished crwn jobs."""
    try:
        lines = ask("squeue", "--me", "--noheader", f"--format={FORMAT}").splitlines()
    except RefusedError as error:
        raise UserError(error.codes, f"--slurm: expected Slurm to list its jobs, given the error: {error}") from None
    jobs = [_of_squeue(line) for line in lines]
    return [job for job in jobs if job.is_ours and not job.has_ended]


def look_up(job_id: str) -> list[SlurmJob]:
    """A job by its number, from the queue, else from the accounting database; None if it is in neither."""
    try:
        lines = ask("squeue", f"--jobs={job_id}", "--states=all", "--noheader", f"--format={FORMAT}").splitlines()
    except RefusedError as error:
        if "nvalid job id" not in str(error):
            raise UserError(error.codes, f"JOB: expected Slurm to report on {job_id}, given: {error}") from None
        lines = []
    if lines:
        return [_of_squeue(lines[0])]
    query = ("--allocations", "--noheader", "--parsable2", f"--delimiter={SEPARATOR}", f"--format={ACCOUNTED}")
    try:
        accounted = ask("sacct", f"--jobs={job_id}", *query).splitlines()
    except UserError:
        return []  # this cluster has no accounting database
    if not accounted:
        return []
    number, state, *rest, comment = accounted[0].split(SEPARATOR)
    return [_job((number, state, "", *rest), comment)]


def _of_squeue(line: str) -> SlurmJob:
    *fields, comment = line.split(SEPARATOR)
    return _job(fields, comment)


def ask(*words: str, given: str | None = None, unset: Collection[str] = ()) -> str:
    """The output of a Slurm command.

    Args:
        words: the command and its arguments.
        given: its standard input.
        unset: environment variables to hide from it.

    Raises:
        UserError: Slurm is not installed, or does not answer.
        RefusedError: it refuses.
    """
    try:
        done = subprocess.run(  # noqa: S603 (Slurm's own commands, without a shell)
            words,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
            env={name: value for name, value in os.environ.items() if name not in unset and name not in CHANGING},
        )
    except FileNotFoundError as error:
        raise UserError(
            "slurm-missing",
            f"--slurm: expected Slurm's {words[0]} in $PATH, found none. Call crwn where you would call sbatch: on a "
            "machine of the cluster, perhaps after `module load slurm`. Other clusters: --address",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError("slurm-silent", f"--slurm: expected an answer of Slurm's {words[0]}: {error}") from error
    if done.returncode != 0:
        said = dict.fromkeys(re.sub(r"^(\w+: )?(\w+ )?(error|fatal|failure): ", "", line) for line in _lines(done))
        raise RefusedError(
            "slurm-refuses", "; ".join(line.rstrip(".") for line in said) or f"exit code {done.returncode}"
        )
    return done.stdout


def _lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.strip() for line in f"{done.stderr}\n{done.stdout}".splitlines() if line.strip()]
