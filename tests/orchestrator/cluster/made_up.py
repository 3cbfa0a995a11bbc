"""A fake cluster: records the calls to Ray's client, and shows jobs as it would."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from ray.job_submission import JobDetails, JobStatus, JobType

from orchestrator.cluster import dashboard

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err
SweepFile = Callable[..., Path]

URL = "http://head:8265"
STORE = "/shared/runs/tiny"


class Cluster:
    """A cluster's jobs as Ray's client shows them, without a cluster.

    Attributes:
        jobs: by id.
        asked: what was submitted, with the names of the packed files.
        logs: by id.
        address: that a client was made for, and the variables that would have won over it.
        on_list: called before each list of the jobs.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, JobDetails] = {}
        self.asked: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.address: tuple[str, dict[str, str]] | None = None
        self.refusals: list[str] = []
        self.on_list: Callable[[], None] = lambda: None
        self.on_tail: Callable[[str], None] = self.end

    def __call__(self, address: str) -> Cluster:
        """Be the client's class."""
        self.address = address, {name: os.environ[name] for name in dashboard.OVERRIDES if name in os.environ}
        return self

    def add(self, job_id: str, status: str = "RUNNING", **more: Any) -> None:
        fields = {"entrypoint": "x", "start_time": 1_750_000_000_000 + len(self.jobs), "metadata": {}, **more}
        self.jobs[job_id] = JobDetails(
            type=JobType.SUBMISSION, submission_id=job_id, status=JobStatus(status), **fields
        )

    def end(self, job_id: str, status: str = "SUCCEEDED", **more: Any) -> None:
        changes = {"status": JobStatus(status), "end_time": 1_750_000_065_000, "driver_exit_code": 0, **more}
        self.jobs[job_id] = self.jobs[job_id].model_copy(update=changes)

    def list_jobs(self) -> list[JobDetails]:
        self.on_list()
        return list(reversed(self.jobs.values()))

    def submit_job(self, *, submission_id: str, **asked: Any) -> str:
        if self.refusals:
            raise RuntimeError(self.refusals.pop())
        if submission_id in self.jobs:
            raise RuntimeError(
                f"Request failed with status code 500: Job with submission_id {submission_id} already exists"
            )
        folder = Path(asked["runtime_env"]["working_dir"])
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        self.asked.append({"submission_id": submission_id, "files": files, **asked})
        self.add(submission_id, entrypoint=asked["entrypoint"], metadata=asked["metadata"])
        return submission_id

    def get_job_info(self, job_id: str) -> JobDetails:
        return self.jobs[job_id]

    def get_job_logs(self, job_id: str) -> str:
        if job_id not in self.logs:
            raise RuntimeError("Request failed with status code 500: the node is gone")
        return self.logs[job_id]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "first line\n"
        await asyncio.sleep(0)
        self.on_tail(job_id)
        yield "last line\n"

    def stop_job(self, job_id: str) -> bool:
        self.end(job_id, "STOPPED", driver_exit_code=None)
        return True


def submit(crwn: Crwn, file: Path, *more: str) -> Any:
    """Submit a sweep to it."""
    return crwn("submit", file, "--address", URL, "--out", STORE, *more)
