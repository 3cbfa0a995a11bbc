"""submit, status and stop on Slurm, whose commands are stand-ins on the path."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crwn.testing import new_store, write_finished
from orchestrator.cluster import slurm as on_slurm
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from tests.orchestrator.cluster.fake_slurm import FakeSlurm, directives

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err
SweepFile = Callable[..., Path]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A fake Slurm without jobs, on $PATH, with short timeouts."""
    made = FakeSlurm(folder=tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{made.install(sys.executable)}:/usr/bin:/bin")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(on_slurm, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(on_slurm, "POLL_SECONDS", 0.01)
    return made


def test_a_sweep_is_submitted(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm, workplace: Path) -> None:
    """The script is next to the store with a copy of the sweep, and the output says what to do next."""
    file = sweep_file()
    ended = crwn("submit", file, "--slurm", "--nodes", 2, "--time", "8:00:00", "--cpus", 2, "--no-tracking")
    assert ended.code == 0, ended.err
    folder, store = workplace / "runs" / "tiny.slurm", workplace / "runs" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["job.sbatch", "sweep.yaml"]
    assert (folder / "sweep.yaml").read_text() == file.read_text()
    script = (folder / "job.sbatch").read_text()
    said = directives(script)
    assert (said["--nodes"], said["--time"], said["--chdir"]) == ("2", "8:00:00", str(folder))
    assert re.fullmatch(r"crwn-tiny-[0-9a-f]{8}", said["--job-name"])
    crwn_program = Path(sys.executable).parent / "crwn"
    options = "--executor ray --cpus 2.0 --no-tracking"
    assert f"\ncommand=({crwn_program} run {folder}/sweep.yaml --out {store} {options})\n" in script
    assert ended.out.splitlines() == [
        f"job       101: waiting to start; tiny, 2 trials, into {store}",
        f"log       {folder}/101.log",
        f"follow    tail -F {folder}/101.log",
        "status    crwn status 101",
        "stop      crwn stop 101",
        f"resume    crwn submit {file} --slurm --nodes 2 --time 8:00:00 --out {store} --cpus 2.0 --no-tracking",
    ]
    assert not store.exists()


def test_a_sweep_is_not_submitted_twice(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """While a job waits or runs, it is shown; afterwards, submitting is resuming."""
    assert crwn("submit", sweep_file(), "--slurm").code == 0
    slurm.change("101", T="RUNNING", M="1:23:45")
    again = crwn("submit", sweep_file(), "--slurm")
    assert again.code == 0
    first, job, *_ = again.out.splitlines()
    assert first.startswith("tiny: already submitted to ")
    assert job.startswith("job       101: running, 1:23:45 of 1:00:00 on 1 node; tiny, 2 trials, into ")
    assert list(slurm.jobs) == ["101"]
    slurm.change("101", T="TIMEOUT")
    assert "job       102: " in crwn("submit", sweep_file(), "--slurm").out


def test_another_sweep_on_the_store_of_a_job(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """It is refused; so is the same with another seed, until the job is over."""
    assert crwn("submit", sweep_file(), "--slurm", "--out", "runs/x").code == 0
    text = sweep_file().read_text().replace("[0, 1]", "[0, 1, 2]")
    for changed in (sweep_file(text), sweep_file(text.replace("name: tiny", "name: other"), "other.yaml")):
        ended = crwn("submit", changed, "--slurm", "--out", "runs/x")
        assert (ended.code, ended.codes) == (2, ("store-taken",))
        assert [fact for fact in ("101", "'tiny'", "2 trials", "crwn stop 101") if fact not in ended.err] == []
    assert list(slurm.jobs) == ["101"]


def test_a_run_by_hand_on_the_store(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """The job would only find the store locked."""
    store = Store("runs/tiny")
    store.create()
    with store.lock():
        ended = crwn("submit", sweep_file(), "--slurm")
    assert (ended.code, ended.codes) == (2, ("store-taken",))
    assert slurm.jobs == {}


def test_a_finished_sweep_is_not_submitted(
    crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm, workplace: Path
) -> None:
    """There is no reason to queue a job."""
    store = new_store(workplace / "runs" / "tiny")
    for trial in load_sweep(sweep_file()).trials:
        write_finished(store, trial)
    ended = crwn("submit", sweep_file(), "--slurm")
    assert (ended.code, ended.out) == (0, "tiny: all 2 trials are done; nothing to submit\n")
    assert slurm.jobs == {}


@pytest.mark.parametrize(
    ("options", "codes", "facts"),
    [
        (["--partition", "gpu"], ["slurm-refuses"], ["gpu", "Invalid partition name specified"]),
        (["--partition", "shor"], ["slurm-refuses"], ["'shor'", "'short'"]),
        (["--time", "soon", "--nodes", "0"], ["too-small", "not-a-time"], ["--nodes", "'soon'"]),
        (["--sbatch", "--output=x"], ["option-is-crwns"], ["--output"]),
        (["--out", "runs/a%jb"], ["path-slurm-changes"], ["runs/a%jb.slurm"]),
        (["--out", "runs/a\nb"], ["address-not-printable"], [r"runs/a\nb"]),
        (["--follow"], ["options-conflict"], ["--follow", "--address"]),
    ],
)
def test_what_cannot_work_starts_nothing(
    *,
    crwn: Crwn,
    sweep_file: SweepFile,
    slurm: FakeSlurm,
    workplace: Path,
    options: list[str],
    codes: list[str],
    facts: list[str],
) -> None:
    """Exit code 2, no job, and no file."""
    ended = crwn("submit", sweep_file(), "--slurm", *options)
    assert (ended.code, ended.codes) == (2, tuple(codes)), ended.err
    assert [fact for fact in facts if fact not in ended.err] == []
    assert slurm.jobs == {}
    assert list(workplace.iterdir()) == []


def test_a_password_is_not_written_into_a_script(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """Others may read the script and Slurm's own copy of it."""
    ended = crwn("submit", sweep_file(), "--slurm", "--tracking-uri", "http://a:secret@b")
    assert (ended.code, "secret" in ended.err) == (2, False)
    assert slurm.asked == []


def test_one_kind_of_cluster(crwn: Crwn, sweep_file: SweepFile) -> None:
    """Ray's has an address; options for Slurm are then refused."""
    ray = ["--address", "http://head:8265"]
    for command, code, fact in (
        (["submit", sweep_file()], "options-conflict", "--slurm"),
        (["submit", sweep_file(), "--slurm", *ray], "options-conflict", "both"),
        (["submit", sweep_file(), *ray, "--nodes", "2", "--write", "x"], "options-conflict", "--nodes, --write"),
        (["stop", "crwn-x-1"], "cluster-not-named", "crwn-x-1"),
        (["status"], "options-conflict", "none"),
        (["status", "12", "--slurm"], "options-conflict", "several"),
    ):
        ended = crwn(*command)
        assert (ended.code, ended.codes) == (2, (code,))
        assert fact in ended.err


def test_a_machine_without_slurm(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command says what is missing; nothing is written."""
    monkeypatch.setenv("PATH", str(workplace))
    for command in (("submit", sweep_file(), "--slurm"), ("status", "12"), ("status", "--slurm"), ("stop", "12")):
        ended = crwn(*command)
        assert (ended.code, ended.codes) == (2, ("slurm-missing",))
        assert "squeue" in ended.err
        assert len(ended.err.splitlines()) == 1
    assert list(workplace.iterdir()) == []


def test_a_slurm_that_does_not_answer(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """What it says is passed on."""
    slurm.write("refusals", {"squeue --me": "slurm_load_jobs error: Unable to contact slurm controller\n"})
    ended = crwn("submit", sweep_file(), "--slurm")
    assert (ended.code, ended.codes) == (2, ("slurm-refuses",))
    assert "Unable to contact slurm controller" in ended.err
    assert "slurm_load_jobs" not in ended.err


def test_a_job_that_could_never_start_is_taken_back(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """Slurm accepts more time than a partition allows, and would let the job wait forever."""
    slurm.write("reason", "PartitionTimeLimit")
    ended = crwn("submit", sweep_file(), "--slurm")
    assert (ended.code, ended.codes) == (2, ("job-never-starts",))
    assert "PartitionTimeLimit" in ended.err
    assert slurm.jobs["101"]["T"] == "CANCELLED"


def test_variables_of_the_users_do_not_change_the_job(
    crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm prefers variables to the script; one for an option that was not given still applies."""
    for name in ("SBATCH_TIMELIMIT", "SBATCH_ACCOUNT", "SBATCH_OUTPUT", "SQUEUE_STATES"):
        monkeypatch.setenv(name, "x")
    assert crwn("submit", sweep_file(), "--slurm", "--time", "60").code == 0
    seen = slurm.read("environment", {})
    assert {"SBATCH_TIMELIMIT", "SBATCH_OUTPUT"}.isdisjoint(seen["sbatch"])
    assert "SBATCH_ACCOUNT" in seen["sbatch"]
    assert "SQUEUE_STATES" not in seen["squeue"]


def test_a_script_for_sbatch(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm, workplace: Path) -> None:
    """It is written where the user wants it, to be edited, and Slurm is not asked for anything."""
    ended = crwn("submit", sweep_file(), "--slurm", "--write", "my job.sbatch", "--out", "s3://bucket/runs/x")
    assert ended.code == 0
    assert ended.out == "script    my job.sbatch; nothing was submitted\nsubmit    sbatch 'my job.sbatch'\n"
    said = directives((workplace / "my job.sbatch").read_text())
    folder = workplace / "runs" / "tiny.slurm"
    assert said["--chdir"] == str(folder)
    assert (folder / "sweep.yaml").exists()
    assert slurm.asked == []


def test_the_jobs_that_wait_and_run(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm, workplace: Path) -> None:
    """One by one or all, with what their logs say last."""
    assert crwn("status", "--slurm").out == "Slurm: no crwn job is waiting or running\n"
    crwn("submit", sweep_file(), "--slurm")
    slurm.change("101", r="Priority")
    store = workplace / "runs" / "tiny"
    assert crwn("status", "101").out == f"101: waiting to start (Priority); tiny, 2 trials, into {store}\n"
    slurm.change("101", T="RUNNING", r="None", M="5:00", D="2")
    log = workplace / "runs" / "tiny.slurm" / "101.log"
    log.write_text("one\n0/2 trials done, 2 running\n1/2 trials done, 1 running\n\x1b[31mtwo\n")
    line = f"101: running, 5:00 of 1:00:00 on 2 nodes; tiny, 2 trials, into {store}"
    assert crwn("status", "101").out.splitlines() == [line, "  1/2 trials done, 1 running", f"  log {log}"]
    assert crwn("status", "--slurm", "-v").out.splitlines() == [
        "Slurm: 1 crwn job",
        line,
        "  one",
        "  0/2 trials done, 2 running",
        "  1/2 trials done, 1 running",
        "  \\x1b[31mtwo",
        f"  log {log}",
    ]


def test_a_job_that_the_queue_has_forgotten(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """Slurm's accounting still has it, if enabled."""
    crwn("submit", sweep_file(), "--slurm")
    job = slurm.jobs["101"]
    slurm.change("101", forgotten="yes")
    ended = crwn("status", "101")
    assert (ended.code, ended.codes) == (2, ("job-unknown",))
    assert "101" in ended.err
    slurm.write("accounts", [["101", "CANCELLED by 1000", "0:09:00", "1:00:00", "2", job["Z"], job["j"], job["k"]]])
    assert crwn("status", "101").out.startswith("101: stopped, 0:09:00 of 1:00:00 on 2 nodes; tiny, 2 trials, into ")


def test_a_job_is_stopped(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """It has ended when the command returns; stopping it again says so."""
    crwn("submit", sweep_file(), "--slurm")
    slurm.change("101", T="RUNNING")
    ended = crwn("stop", "101")
    assert (ended.code, ended.out) == (
        0,
        "101: stopped; its results are kept; submit the sweep again to continue\n",
    )
    assert slurm.jobs["101"]["T"] == "CANCELLED"
    assert crwn("stop", "101").out.endswith(" already\n")


def test_somebody_elses_job(crwn: Crwn, sweep_file: SweepFile, slurm: FakeSlurm) -> None:
    """Only jobs of crwn are shown and stopped."""
    crwn("submit", sweep_file(), "--slurm")
    slurm.change("101", j="simulation", k="(null)")
    for command in ("stop", "status"):
        ended = crwn(command, "101")
        assert (ended.code, ended.codes) == (2, ("job-of-another",))
        assert "101 is 'simulation'" in ended.err
    assert slurm.jobs["101"]["T"] == "PENDING"
    assert crwn("status", "--slurm").out == "Slurm: no crwn job is waiting or running\n"
