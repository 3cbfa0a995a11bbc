"""Sweeps as jobs: what is asked of Ray's client, what is refused, what is said. test_jobs.py has a real cluster."""

from __future__ import annotations

import asyncio
import http.server
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobType

from orchestrator.cluster import submitting
from orchestrator.execution.running import code_commit

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
        self.address = address, {name: os.environ[name] for name in submitting.OVERRIDES if name in os.environ}
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


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster whose dashboard answers at URL; this machine's own variables point nowhere."""
    made = Cluster()
    monkeypatch.setattr(submitting, "JobSubmissionClient", made)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    for name in ("MLFLOW_TRACKING_URI", "RAY_AUTH_MODE", *submitting.OVERRIDES):
        monkeypatch.delenv(name, raising=False)
    return made


def submit(crwn: Crwn, file: Path, *more: str) -> Any:
    return crwn("submit", file, "--address", URL, "--out", STORE, *more)


# What is asked of the cluster


def test_a_sweep_becomes_a_job(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """The command, the code and the sweep alone, where MLflow is, which code it is; and how to go on is said."""
    ended = submit(crwn, sweep_file())
    assert (ended.code, ended.err) == (0, "")
    (asked,) = cluster.asked
    job = asked["submission_id"]
    assert re.fullmatch(r"crwn-tiny-[0-9a-f]{8}-1", job)
    assert asked["entrypoint"] == f"crwn run sweep.yaml --out {STORE} --executor ray"
    assert {name.split("/")[0] for name in asked["files"]} == {"crwn", "orchestrator", "sweep.yaml"}
    assert {"crwn/data/digits.py", "crwn/methods/psp.py", "orchestrator/execution/ray_tune.py"} <= set(asked["files"])
    assert not [name for name in asked["files"] if not name.endswith((".py", ".yaml", "page.html"))]
    variables = asked["runtime_env"]["env_vars"]
    assert "MLFLOW_TRACKING_URI" not in variables
    assert variables.get("CRWN_COMMIT") == code_commit()
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert lines == {
        "sweep": f"tiny: 2 trials, into {STORE}",
        "job": job,
        "dashboard": f"{URL}/#/jobs/{job}",
        "follow": f"crwn submit {sweep_file()} --address {URL} --out {STORE} --follow",
        "status": f"crwn status --address {URL}",
        "stop": f"crwn stop --address {URL} {job}",
        "resume": f"crwn submit {sweep_file()} --address {URL} --out {STORE}",
    }


def test_the_runs_options_go_along(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """What `submit` takes of `run` is in the job's command, and in the one that goes on with it."""
    options = ["--data-root", "/shared/my data", "--gpus", "0.25", "--cpus", "2.0", "--no-tracking"]
    ended = submit(crwn, sweep_file(), *options)
    said = "--data-root '/shared/my data' --gpus 0.25 --cpus 2.0 --no-tracking"
    assert cluster.asked[0]["entrypoint"] == f"crwn run sweep.yaml --out {STORE} --executor ray {said}"
    assert f"--out {STORE} {said}\n" in ended.out


def test_a_head_that_has_just_been_started_is_waited_for(
    crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent takes seconds longer than its dashboard; another error is one at once, as is this after a while."""
    busy = "Request failed with status code 500: No available agent to submit job, please try again later.."
    monkeypatch.setattr(submitting, "POLL_SECONDS", 0.0)
    cluster.refusals = [busy, busy]
    assert crwn("submit", sweep_file(), "--address", URL, "--out", STORE).code == 0
    assert len(cluster.asked) == 1
    cluster.refusals = [busy, "Request failed with status code 500: disk full"]
    refused = crwn("submit", sweep_file(), "--address", URL, "--out", f"{STORE}2")
    assert (refused.code, "disk full" in refused.err) == (2, True)
    monkeypatch.setattr(submitting, "START_SECONDS", -1.0)
    refused = crwn("submit", sweep_file(), "--address", URL, "--out", f"{STORE}2")
    assert (refused.code, "No available agent" in refused.err) == (2, True)


def test_a_dashboard_that_takes_connections_and_is_silent_is_given_up(
    crwn: Crwn, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a tunnel whose head is gone: Ray's client would wait for ever. The same for all that ask a cluster."""
    monkeypatch.setattr(submitting, "ANSWER_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for command in (
            ("submit", sweep_file(), "--address", url, "--out", STORE),
            ("status", "--address", url),
            ("stop", "--address", url, "crwn-tiny-1"),
        ):
            refused = crwn(*command)
            assert refused.code == 2
            assert f"expected Ray's dashboard at {url}, but it cannot be reached: nothing answers within" in refused.err


def test_the_address_given_wins_over_rays_variables(
    crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's client prefers $RAY_ADDRESS: it does not see it, and it is there again afterwards."""
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert crwn("submit", sweep_file(), "--address", f"{URL}/", "--out", STORE).code == 0
    assert cluster.address == (URL, {})
    assert os.environ["RAY_ADDRESS"] == "elsewhere:6379"


@pytest.mark.parametrize(
    ("environment", "option", "passed"),
    [
        ("http://127.0.0.1:5000", None, "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000", "http://other:5000", "http://other:5000"),
        ("postgresql://me:secret@db/mlflow", None, "postgresql://me:secret@db/mlflow"),
        (None, "sqlite:////shared/mlflow.db", "sqlite:////shared/mlflow.db"),
        ("sqlite:///mlflow.db", None, None),
        ("/home/me/mlruns", None, None),
        (None, None, None),
    ],
)
def test_mlflows_address_goes_along(
    *,
    crwn: Crwn,
    sweep_file: SweepFile,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    environment: str | None,
    option: str | None,
    passed: str | None,
) -> None:
    """Servers and database servers do, as a variable that the command does not show; files of this machine do not."""
    if environment is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    ended = submit(crwn, sweep_file(), *([] if option is None else ["--tracking-uri", option]))
    (asked,) = cluster.asked
    assert asked["runtime_env"]["env_vars"].get("MLFLOW_TRACKING_URI") == passed
    assert "secret" not in ended.out + asked["entrypoint"]
    assert ("names a place on this machine" in ended.out) == (environment is not None and passed is None)


# Nothing runs twice


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_job_that_is_at_it_is_pointed_to(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, status: str) -> None:
    """The same sweep and store again: nothing is started, the same lines are shown. A slash more is no other store."""
    first = submit(crwn, sweep_file())
    (job,) = cluster.jobs
    cluster.jobs[job] = cluster.jobs[job].model_copy(update={"status": JobStatus(status)})
    again = crwn("submit", sweep_file(), "--address", URL, "--out", f"{STORE}/")
    assert again.code == 0
    assert len(cluster.asked) == 1
    assert again.out == f"tiny: already submitted to {STORE}; nothing was started\n{first.out}"


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_after_its_end_a_new_attempt_goes_on(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, status: str) -> None:
    """Under the next number: Ray takes an id once. Other stores have numbers of their own."""
    for number in (1, 2, 3):
        submit(crwn, sweep_file())
        job = cluster.asked[-1]["submission_id"]
        assert job.endswith(f"-{number}")
        cluster.end(job, status)
    crwn("submit", sweep_file(), "--address", URL, "--out", "/shared/runs/other")
    assert cluster.asked[-1]["submission_id"].endswith("-1")


@pytest.mark.parametrize("change", [("[0, 1]", "[0, 1, 2]"), ("name: tiny", "name: other")])
def test_another_sweep_waits_for_the_job_on_its_store(
    crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, change: tuple[str, str]
) -> None:
    """A sweep that was changed is another one. It is refused with the ways out."""
    submit(crwn, sweep_file())
    ended = submit(crwn, sweep_file(sweep_file().read_text().replace(*change), "changed.yaml"))
    assert ended.code == 2
    assert len(cluster.asked) == 1
    job = cluster.asked[0]["submission_id"]
    assert f"error: {STORE}: expected no other job on this store, but {job} runs the sweep 'tiny' of 2" in ended.err
    assert "which is not that of" in ended.err
    assert f"stop it (crwn stop --address {URL} {job}), or name another store with --out." in ended.err


def test_two_who_submit_at_once_start_one_job(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """Between our look and our job another one came: its id is taken, and it is pointed to."""
    submit(crwn, sweep_file())
    (theirs,) = cluster.jobs.items()
    cluster.jobs.clear()

    def appear_after_the_look(**asked: Any) -> str:
        cluster.jobs[theirs[0]] = theirs[1]
        return Cluster.submit_job(cluster, **asked)

    cluster.submit_job = appear_after_the_look  # type: ignore[method-assign]
    ended = submit(crwn, sweep_file())
    assert ended.code == 0
    assert len(cluster.asked) == 1
    assert ended.out.startswith("tiny: already submitted")


# Following


@pytest.mark.parametrize(
    ("status", "exit_code", "code", "words"),
    [
        ("SUCCEEDED", 0, 0, ": done, begun"),
        ("FAILED", 1, 1, ": failed with exit code 1, begun"),
        ("FAILED", 2, 2, ": failed with exit code 2, begun"),
        ("FAILED", -9, 1, ": failed with exit code -9, begun"),
        ("FAILED", 127, 127, "The cluster lacks the command crwn"),
        ("FAILED", None, 1, "why it failed"),
        ("STOPPED", None, 130, ": stopped, begun"),
    ],
)
def test_following_ends_with_the_jobs_exit_code(
    *, crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, status: str, exit_code: int | None, code: int, words: str
) -> None:
    """Its log is printed as it comes, then how it ended."""
    cluster.on_tail = lambda job: cluster.end(job, status, driver_exit_code=exit_code, message="why it failed")
    ended = submit(crwn, sweep_file(), "--follow")
    assert ended.code == code
    assert "first line\nlast line\n" in ended.out
    assert words in ended.out


def test_following_again_follows_the_job_that_runs(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """The command that is shown beside `follow` starts nothing."""
    submit(crwn, sweep_file())
    ended = submit(crwn, sweep_file(), "--follow")
    assert (ended.code, len(cluster.asked)) == (0, 1)
    assert "last line" in ended.out


def test_ctrl_c_ends_the_following_alone(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """The job is left running, and it is said how to stop it."""

    def press(_: str) -> None:
        raise KeyboardInterrupt

    cluster.on_tail = press
    ended = submit(crwn, sweep_file(), "--follow")
    (job,) = cluster.jobs
    assert ended.code == 130
    assert cluster.jobs[job].status == JobStatus.RUNNING
    assert ended.out.endswith(
        f"{job}: no longer followed; the job goes on. To stop it:\n  crwn stop --address {URL} {job}\n"
    )


@pytest.mark.parametrize("error", [aiohttp.ClientError("gone"), RuntimeError("WebSocket closed"), OSError("tunnel")])
def test_a_lost_connection_ends_the_following_alone(
    crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, error: Exception
) -> None:
    """Neither a traceback nor a word that the job failed."""

    def lose(_: str) -> None:
        raise error

    cluster.on_tail = lose
    ended = submit(crwn, sweep_file(), "--follow")
    assert ended.code == 130
    assert f"no longer followed: {error}\nThe job goes on without this connection" in ended.out
    assert "Traceback" not in ended.out + ended.err


# Looking and stopping


def test_status_shows_the_jobs_of_crwn(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """Oldest first, with how far a running one is; others' jobs are not ours to show."""
    assert crwn("status", "--address", URL).out == f"{URL}: no job of crwn\n"
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
    assert lines[0] == f"{URL}: 2 jobs of crwn"
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
    assert ended.code == 2
    given = "both" if arguments else "neither"
    assert ended.err == f"error: status: expected a store, or a cluster with --address; given {given}\n"


def test_stop_stops_a_job_and_says_what_it_means(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """It waits for the end; a job that has ended stays as it is."""
    submit(crwn, sweep_file())
    (job,) = cluster.jobs
    stopped = crwn("stop", "--address", URL, job)
    assert stopped.code == 0
    assert cluster.jobs[job].status == JobStatus.STOPPED
    assert stopped.out.startswith(f"{job}: stopped, begun ")
    assert "what it computed is kept, and submitting the sweep again goes on" in stopped.out
    assert crwn("stop", "--address", URL, job).out.endswith(" already\n")


def test_only_jobs_of_crwn_can_be_stopped(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """A mistyped id is refused with the nearest; somebody else's job is none of ours."""
    cluster.add("raysubmit_somebodys")
    submit(crwn, sweep_file())
    job = cluster.asked[0]["submission_id"]
    for wrong in (job[:-2], "raysubmit_somebodys"):
        ended = crwn("stop", "--address", URL, wrong)
        assert ended.code == 2
        assert f"error: JOB: expected one of {job}; given {wrong!r}" in ended.err
    assert all(not details.status.is_terminal() for details in cluster.jobs.values())


# What is refused before anything is started


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("seeds: [0, 0]\nbenchmarks: [r-digit]\nmethods: {supsub: {scales: [FC16]}}\n", [], r"supsub.*|r-digit.*"),
        (None, ["--out", "runs/tiny"], r"--out: expected an absolute path that all machines .*; given 'runs/tiny'"),
        (None, ["--out", "~/tiny"], r"--out: expected an absolute path"),
        (None, ["--gpus", "1.5"], r"--gpus: expected a share of at most 1 or a whole number, given 1.5"),
        (None, ["--cpus", "0"], r"--cpus: expected more than 0, given 0"),
        (
            None,
            ["--data-root", "data"],
            r"--data-root: expected an absolute path on the cluster's machines; given 'data'",
        ),
        (None, ["--tracking-uri", "http://a", "--no-tracking"], r"expected one of them, given both"),
        (None, ["--tracking-uri", "sqlite:///mlflow.db"], r"expected an absolute path on the cluster's head"),
    ],
)
def test_what_cannot_work_starts_nothing(
    *, crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, text: str | None, options: list[str], match: str
) -> None:
    """Exit code 2, all faults of the sweep at once, and no job."""
    file = sweep_file(text) if text else sweep_file()
    ended = submit(crwn, file, *options)
    assert ended.code == 2
    assert re.search(match, ended.err)
    if text:
        assert "supsub" in ended.err
        assert "r-digit" in ended.err
    assert cluster.asked == []


def test_a_store_is_needed_that_outlives_the_job(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """The sweep's own will do where it is absolute; without one, --out is asked for."""
    ended = crwn("submit", sweep_file(), "--address", URL)
    assert ended.code == 2
    assert "--out: expected where the cluster keeps the store, an absolute path" in ended.err
    relative = sweep_file(sweep_file().read_text() + "store: runs/x\n")
    assert f"error: {relative}: store: expected an absolute path" in crwn("submit", relative, "--address", URL).err
    absolute = sweep_file(relative.read_text().replace("runs/x", "/shared/runs/x"))
    assert crwn("submit", absolute, "--address", URL).code == 0
    assert "--out /shared/runs/x " in cluster.asked[0]["entrypoint"]


def test_a_store_may_be_on_object_storage(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """Its address is passed on as it is; one with credentials, which everybody would see, is refused."""
    assert crwn("submit", sweep_file(), "--address", URL, "--out", "s3://bucket/runs/x").code == 0
    assert "--out s3://bucket/runs/x " in cluster.asked[0]["entrypoint"]
    refused = crwn("submit", sweep_file(), "--address", URL, "--out", "s3://me:secret@bucket/runs")
    assert (refused.code, "expected an address without credentials" in refused.err) == (2, True)
    assert "secret" not in refused.err
    assert len(cluster.asked) == 1


# A cluster that does not answer, or not us


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto", "http://", "http://head:port", ""])
def test_an_address_is_the_dashboards(crwn: Crwn, workplace: Path, address: str) -> None:
    """Ray's client would look for a cluster in its own ways."""
    ended = crwn("status", "--address", address)
    assert ended.code == 2
    assert ended.err == (
        f"error: --address: expected the address of Ray's dashboard, such as http://127.0.0.1:8265; given {address!r}\n"
    )


def test_a_cluster_that_is_away_is_one_clear_line(crwn: Crwn, workplace: Path) -> None:
    """Nothing listens there: what to do is said."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ended = crwn("status", "--address", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert ended.code == 2
    assert re.fullmatch(
        r"error: --address: expected Ray's dashboard at \S+, but it cannot be reached: .*refused. Is the cluster up, "
        r"and the tunnel to its head \(ssh -N -L 8265:127.0.0.1:8265 HEAD\)\?\n",
        ended.err,
    )


@pytest.fixture
def server() -> Iterator[Callable[[int, bytes], str]]:
    """Starts a server that gives every request the same answer; its address."""
    servers = []

    def start(status: int, content: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        servers.append(made)
        return f"http://127.0.0.1:{made.server_address[1]}"

    yield start
    for made in servers:
        made.shutdown()
        made.server_close()


@pytest.mark.parametrize(("status", "content"), [(404, b""), (200, b"<html>"), (500, b""), (200, b"{}")])
def test_another_server_is_no_cluster(
    crwn: Crwn, workplace: Path, server: Callable[[int, bytes], str], status: int, content: bytes
) -> None:
    """Such as MLflow's: one line, no traceback."""
    address = server(status, content)
    ended = crwn("status", "--address", address)
    assert ended.code == 2
    assert f"error: --address: expected Ray's dashboard at {address}, which refused or is another server: " in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("mode", "said"), [(None, "none was given: set RAY_AUTH_MODE=token"), ("token", "none or another")]
)
def test_a_token_that_is_missing_is_asked_for(
    crwn: Crwn, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, mode: str | None, said: str
) -> None:
    """Where it is looked for, and how to have it looked for at all."""

    def refuse() -> None:
        raise AuthenticationError("Unauthorized")

    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    cluster.on_list = refuse
    ended = crwn("status", "--address", URL)
    assert ended.code == 2
    assert f"error: --address: the cluster at {URL} expects its token, and {said}" in ended.err
    assert "$RAY_AUTH_TOKEN_PATH, else from ~/.ray/auth_token." in ended.err
