"""Running jobs: following, listing and stopping them."""

from __future__ import annotations

import re

import aiohttp
import pytest
from ray.job_submission import JobStatus

from tests.orchestrator.cluster.made_up import STORE, URL, Cluster, Crwn, SweepFile, submit


@pytest.mark.parametrize(
    ("status", "exit_code", "code", "words"),
    [
        ("SUCCEEDED", 0, 0, ": done, begun"),
        ("FAILED", 1, 1, " exit code 1,"),
        ("FAILED", 2, 2, " exit code 2,"),
        ("FAILED", -9, 1, " exit code -9,"),
        ("FAILED", 127, 127, "command crwn"),
        ("FAILED", None, 1, "no memory"),
        ("STOPPED", None, 130, ": stopped, begun"),
    ],
)
def test_following_ends_with_the_jobs_exit_code(
    *, crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, status: str, exit_code: int | None, code: int, words: str
) -> None:
    """Its log is printed as it comes, then how it ended."""
    cluster.on_tail = lambda job: cluster.end(job, status, driver_exit_code=exit_code, message="no memory")
    ended = submit(crwn, sweep_file(), "--follow")
    assert ended.code == code
    assert "first line\nlast line\n" in ended.out
    assert words in ended.out


def test_following_again_follows_the_job_that_runs(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """The printed command starts nothing."""
    submit(crwn, sweep_file())
    ended = submit(crwn, sweep_file(), "--follow")
    assert (ended.code, len(cluster.asked)) == (0, 1)
    assert "last line" in ended.out


def test_ctrl_c_ends_the_following_alone(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """The job continues, and the message says how to stop it."""

    def press(_: str) -> None:
        raise KeyboardInterrupt

    cluster.on_tail = press
    ended = submit(crwn, sweep_file(), "--follow")
    (job,) = cluster.jobs
    assert ended.code == 130
    assert cluster.jobs[job].status == JobStatus.RUNNING
    assert ended.out.endswith(
        f"{job}: no longer followed; the job continues. To stop it:\n  crwn stop --address {URL} {job}\n"
    )


@pytest.mark.parametrize("error", [aiohttp.ClientError("gone"), RuntimeError("WebSocket closed"), OSError("tunnel")])
def test_a_lost_connection_ends_the_following_alone(
    crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, error: Exception
) -> None:
    """No traceback, and no claim that the job failed."""

    def lose(_: str) -> None:
        raise error

    cluster.on_tail = lose
    ended = submit(crwn, sweep_file(), "--follow")
    assert ended.code == 130
    assert f": {error}\n" in ended.out
    assert "Traceback" not in ended.out + ended.err


def test_status_shows_the_jobs_of_crwn(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """Oldest first, with the progress of running ones; other people's jobs are not shown."""
    assert crwn("status", "--address", URL).out == f"{URL}: no crwn jobs\n"
    cluster.add("raysubmit_somebodys")
    submit(crwn, sweep_file())
    first = cluster.asked[0]["submission_id"]
    cluster.end(first, "FAILED", driver_exit_code=1)
    submit(crwn, sweep_file())
    second = cluster.asked[1]["submission_id"]
    cluster.logs[second] = "0/2 trials done, 1 running\n  details\n1/2 trials done, 1 running\n  details\n"
    shown = crwn("status", "--address", URL)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == f"{URL}: 2 crwn jobs"
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(
        rf"{first}: failed with exit code 1, begun {date}, 1 min 5 s; tiny, 2 trials, into {STORE}", lines[1]
    )
    assert lines[2].startswith(f"{second}: running, begun ")
    assert lines[3:] == ["  1/2 trials done, 1 running"]
    assert crwn("status", "--address", URL, "-v").out.splitlines()[3:] == [
        f"  {line}" for line in cluster.logs[second].splitlines()
    ]


@pytest.mark.parametrize("arguments", [[], ["runs/x", "--address", URL]])
def test_status_is_of_a_store_or_of_a_cluster(crwn: Crwn, arguments: list[str]) -> None:
    """One of them."""
    ended = crwn("status", *arguments)
    assert (ended.code, ended.codes) == (2, ("options-conflict",))
    assert ("several" if arguments else "none") in ended.err


def test_stop_stops_a_job_and_says_what_it_means(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """It waits for the job to end; a job that has ended is unchanged."""
    submit(crwn, sweep_file())
    (job,) = cluster.jobs
    stopped = crwn("stop", "--address", URL, job)
    assert stopped.code == 0
    assert cluster.jobs[job].status == JobStatus.STOPPED
    assert stopped.out.startswith(f"{job}: stopped, begun ")
    assert crwn("stop", "--address", URL, job).out.endswith(" already\n")


def test_only_jobs_of_crwn_can_be_stopped(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """A mistyped id is refused with the nearest one; other jobs are refused too."""
    cluster.add("raysubmit_somebodys")
    submit(crwn, sweep_file())
    job = cluster.asked[0]["submission_id"]
    for wrong in (job[:-2], "raysubmit_somebodys"):
        ended = crwn("stop", "--address", URL, wrong)
        assert (ended.code, ended.codes) == (2, ("unknown-name",))
        for fact in ("JOB: ", job, repr(wrong)):
            assert fact in ended.err
    assert all(not details.status.is_terminal() for details in cluster.jobs.values())
