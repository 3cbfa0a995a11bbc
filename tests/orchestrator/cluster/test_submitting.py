"""Sweeps as jobs: the calls to Ray's client, and nothing twice. test_ray_jobs.py has a real cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ray.job_submission import JobStatus

from orchestrator.cluster import submitting
from orchestrator.execution.running import code_commit
from tests.orchestrator.cluster.made_up import STORE, URL, Cluster, Crwn, SweepFile, submit
from tests.said import HERE_ALONE


def test_a_sweep_becomes_a_job(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """It gets command, code, sweep, MLflow's address and the code version; the output says what to do next."""
    ended = submit(crwn, sweep_file())
    assert (ended.code, ended.err) == (0, "")
    (asked,) = cluster.asked
    job = asked["submission_id"]
    assert re.fullmatch(r"crwn-tiny-[0-9a-f]{8}-1", job)
    assert asked["entrypoint"] == f"crwn run sweep.yaml --out {STORE} --executor ray"
    assert {name.split("/")[0] for name in asked["files"]} == {"crwn", "orchestrator", "sweep.yaml"}
    assert {"crwn/data/digits.py", "crwn/methods/psp.py", "orchestrator/execution/ray_tune.py"} <= set(asked["files"])
    assert not [name for name in asked["files"] if not name.endswith((".py", ".yaml", "page.html", "py.typed"))]
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
    """The options that `submit` shares with `run` are in the job's command, and in the one to resume it."""
    options = ["--data-root", "/shared/my data", "--gpus", "0.25", "--cpus", "2.0", "--no-tracking"]
    chosen = ["--seeds", "1", "--set", "training.updates_per_task=7", "--set", "seeds=[1, 2]"]
    ended = submit(crwn, sweep_file(), *options, *chosen)
    said = (
        "--seeds 1 --set training.updates_per_task=7 --set 'seeds=[1, 2]' "
        "--data-root '/shared/my data' --gpus 0.25 --cpus 2.0 --no-tracking"
    )
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
    assert (refused.code, busy in refused.err) == (2, True)


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
    """Servers' addresses are passed on, as a variable that the command does not show; local files' are not."""
    if environment is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    ended = submit(crwn, sweep_file(), *([] if option is None else ["--tracking-uri", option]))
    (asked,) = cluster.asked
    assert asked["runtime_env"]["env_vars"].get("MLFLOW_TRACKING_URI") == passed
    assert "secret" not in ended.out + asked["entrypoint"]
    assert (HERE_ALONE in ended.out) == (environment is not None and passed is None)


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_job_that_is_at_it_is_pointed_to(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, status: str) -> None:
    """Submitting again starts nothing and prints the same lines, also with a trailing slash in the store's path."""
    first = submit(crwn, sweep_file())
    (job,) = cluster.jobs
    cluster.jobs[job] = cluster.jobs[job].model_copy(update={"status": JobStatus(status)})
    again = crwn("submit", sweep_file(), "--address", URL, "--out", f"{STORE}/")
    assert again.code == 0
    assert len(cluster.asked) == 1
    assert again.out == f"tiny: already submitted to {STORE}; nothing was started\n{first.out}"


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_after_its_end_a_new_attempt_goes_on(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, status: str) -> None:
    """Under the next number, since Ray accepts an id once; other stores have their own numbers."""
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
    """A changed sweep is another one; it is refused, with what can be done."""
    submit(crwn, sweep_file())
    ended = submit(crwn, sweep_file(sweep_file().read_text().replace(*change), "changed.yaml"))
    assert (ended.code, ended.codes) == (2, ("store-taken",))
    assert len(cluster.asked) == 1
    job = cluster.asked[0]["submission_id"]
    for fact in (f"{STORE}: ", "'tiny'", " 2 trials ", "changed.yaml", f"(crwn stop --address {URL} {job})", "--out"):
        assert fact in ended.err


def test_two_who_submit_at_once_start_one_job(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """If another job starts between the check and the submission, its id is taken, and it is shown."""
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
