"""The script of a job of Slurm: what it asks for, how values are quoted, and what it does when signals come."""

from __future__ import annotations

import dataclasses
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.slurm_script import Allocation, Script, seconds_of
from tests.orchestrator.cluster.fake_slurm import directives

NASTY = """it's "quoted" $HOME `id` \\ ; # é"""


def script(tmp_path: Path, **changes: Any) -> Script:
    made = Script(
        name="crwn-tiny-0123abcd",
        comment="crwn 0123 2 tiny /scratch/tiny",
        folder=tmp_path / "tiny.slurm",
        directory=tmp_path,
        programs=tmp_path / "bin",
        command=["crwn", "run", "tiny.yaml"],
        allocation=Allocation(nodes=2),
        written_by="crwn submit tiny.yaml --slurm",
    )
    return dataclasses.replace(made, **changes)


def test_what_is_asked_for(tmp_path: Path) -> None:
    """All given options, one Ray process per node, and every job's signals and paths."""
    allocation = Allocation(
        nodes=2,
        gpus=4,
        cpus=16,
        time="8:00:00",
        partition="gpu",
        account="lab",
        more=("--qos=high", "--exclusive"),
    )
    made = script(tmp_path, allocation=allocation)
    assert directives(made.text()) == {
        "--job-name": "crwn-tiny-0123abcd",
        "--comment": "crwn 0123 2 tiny /scratch/tiny",
        "--chdir": f"{tmp_path}/tiny.slurm",
        "--output": "%j.log",
        "--open-mode": "append",
        "--requeue": "",
        "--signal": "B:USR1@120",
        "--ntasks-per-node": "1",
        "--nodes": "2",
        "--gpus-per-node": "4",
        "--cpus-per-task": "16",
        "--time": "8:00:00",
        "--partition": "gpu",
        "--account": "lab",
        "--qos": "high",
        "--exclusive": "",
    }
    assert {"SBATCH_TIMELIMIT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_NO_REQUEUE"} <= made.variables()


def test_what_is_not_asked_for_is_left_to_slurm(tmp_path: Path) -> None:
    """The defaults of the cluster and of the user's variables apply."""
    made = script(tmp_path, allocation=Allocation())
    assert (
        not {"--gpus-per-node", "--cpus-per-task", "--time", "--partition", "--account"}
        & directives(made.text()).keys()
    )
    assert not {"SBATCH_TIMELIMIT", "SBATCH_PARTITION", "SBATCH_ACCOUNT"} & made.variables()


def test_values_are_quoted(tmp_path: Path) -> None:
    """sbatch and the shell read what was meant, whatever it contains."""
    allocation = Allocation(account=NASTY, more=(f"--mail-user={NASTY}",))
    text = script(tmp_path, comment=NASTY, allocation=allocation, command=["printf", "%s", NASTY, "two\nlines"]).text()
    said = directives(text)
    assert [said[name] for name in ("--comment", "--account", "--mail-user")] == [NASTY] * 3
    (line,) = re.findall(r"^command=.*?\)$", text, flags=re.MULTILINE | re.DOTALL)
    asked = f'{line}; printf "%s\\0" "${{command[@]}}"'
    printed = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout
    assert printed.split("\0")[:-1] == ["printf", "%s", NASTY, "two\nlines"]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("asked", "code", "facts"),
    [
        ({"nodes": 0}, "too-small", ["--nodes", "1", "0"]),
        ({"gpus": -1}, "too-small", ["--gpus-per-node", "-1"]),
        ({"cpus": 0}, "too-small", ["--cpus-per-node", "1"]),
        ({"time": "8h"}, "not-a-time", ["--time", "'8h'", "8:00:00"]),
        ({"time": "UNLIMITED"}, "not-a-time", ["'UNLIMITED'"]),
        ({"time": "4:59"}, "too-small", ["--time", "5 minutes", "4:59"]),
        ({"partition": "gpu\n#SBATCH --uid=0"}, "name-not-printable", ["--partition", r"'gpu\n"]),
        ({"account": ""}, "name-not-printable", ["--account", "''"]),
        ({"more": ("qos=high",)}, "not-an-option", ["--sbatch", "'qos=high'"]),
        ({"more": ("--qos=high\nrm -r ~",)}, "not-an-option", ["--sbatch", r"high\nrm"]),
        ({"more": ("--time=5",)}, "option-is-crwns", ["--sbatch", "--time"]),
        ({"more": ("--job-name=x",)}, "option-is-crwns", ["--job-name"]),
    ],
)
def test_what_cannot_be_asked_for(asked: dict[str, Any], code: str, facts: list[str]) -> None:
    """Each fault is named."""
    (fault,) = Allocation(**asked).faults()
    assert fault.codes == (code,)
    assert [fact for fact in facts if fact not in fault] == []


def test_all_faults_at_once() -> None:
    """Three mistakes are reported together."""
    faults = Allocation(nodes=0, time="x", more=("--output=y",)).faults()
    assert [fault.codes for fault in faults] == [("too-small",), ("not-a-time",), ("option-is-crwns",)]


@pytest.mark.parametrize("folder", ["a%jb", "a\\b", "a\nb"])
def test_slurm_would_read_something_else(tmp_path: Path, folder: str) -> None:
    """Its names of logs have patterns, and no newline may end a line of options."""
    (fault,) = script(tmp_path, folder=tmp_path / folder).faults()
    assert fault.codes == ("path-slurm-changes",)
    assert repr(str(tmp_path / folder)) in fault


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("8:00:00", 28_800),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("1-00:00:05", 86_405),
        ("", None),
        ("1:2:3:4", None),
        ("-5", None),
        ("٣", None),
    ],
)
def test_slurms_times(time: str, seconds: int | None) -> None:
    """Minutes come first where there are no hours and no days."""
    assert seconds_of(time) == seconds


# The script itself, with stand-ins for Ray, srun and Slurm's commands


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a script runs on this machine as if it were the only node of a job.

    Attributes:
        folder: with bin/ for its commands; what they did is in files.
    """

    folder: Path

    def program(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)

    def start(self, made: Script, **variables: str) -> subprocess.Popen[str]:
        (self.folder / "job").write_text(made.text())
        return subprocess.Popen(
            ["bash", self.folder / "job"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "RAY_TMPDIR": str(self.folder / "tmp"),
                "SLURM_JOB_ID": "77",
                "SLURM_JOB_NODELIST": "one",
                "SLURMD_NODENAME": "one",
                "SLURM_CPUS_ON_NODE": "3",
                **variables,
            },
        )

    def said(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(folder=tmp_path)
    for folder in ("bin", "tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    made.program("scontrol", f'[[ $1 == show ]] && echo "$3" || echo "$*" >> {tmp_path}/scontrol')
    # As Slurm's does, it passes USR1 on.
    made.program("srun", "while [[ $1 == --* ]]; do shift; done\n\"$@\" & trap 'kill -USR1 $!' USR1; wait; wait")
    made.program(
        "ray",
        f'exec 3>> {tmp_path}/ray; echo "$*" >&3; echo "$RAY_AUTH_MODE ${{#RAY_AUTH_TOKEN}}" >&3\n'
        'echo "$PYTHONDONTWRITEBYTECODE" >&3\n'
        'stat -c %a "$place" >&3; mkdir "$place/ray" && touch "$place/ray/ray_current_cluster"; exec sleep 60',
    )
    return made


def running(place: Place) -> Script:
    """A script whose command says that it runs, and ends with 130 when it is asked to."""
    place.program(
        "crwn", f"trap 'kill $!; exit 130' TERM; echo \"$RAY_ADDRESS $PWD\" >> {place.folder}/crwn; sleep 60 & wait"
    )
    return script(place.folder, command=["crwn", "run"], allocation=Allocation())


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_run_that_ends_by_itself(place: Place, code: int) -> None:
    """The job ends with its exit code; Ray has what Slurm allotted, a token, its own folder, keeps compiled modules."""
    place.program("crwn", f'echo "$*"; exit {code}')
    job = place.start(
        script(place.folder, command=["crwn", "run", "a b"]), SLURM_GPUS_ON_NODE="2", PYTHONDONTWRITEBYTECODE="1"
    )
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == code, printed
    assert "run a b\n" in printed
    started, token, uncompiled, mode = place.said("ray")
    for option in ("--head", "--port=20616", "--num-cpus=3", "--num-gpus=2", "--block", "--include-dashboard=false"):
        assert option in started.split()
    assert "--node-ip-address=127.0.0.1" in started.split()
    assert (token, uncompiled, mode) == ("token 64", "", "700")
    assert list((place.folder / "tmp").iterdir()) == []
    assert place.said("scontrol") == []


def test_near_the_time_limit_the_job_goes_back_into_the_queue(place: Place) -> None:
    """The run is interrupted, Ray is stopped, and the job requeues itself."""
    job = place.start(running(place))
    wait_until(lambda: place.said("crwn"))
    job.send_signal(signal.SIGUSR1)
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == 130, printed
    assert place.said("scontrol") == ["requeue 77"]
    assert list((place.folder / "tmp").iterdir()) == []


def test_a_job_that_is_stopped_does_not_come_back(place: Place) -> None:
    """TERM is what scancel sends, and preemption, after which Slurm itself puts the job back."""
    job = place.start(running(place))
    wait_until(lambda: place.said("crwn"))
    job.send_signal(signal.SIGTERM)
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == 130, printed
    assert place.said("scontrol") == []


def test_a_signal_while_ray_starts(place: Place) -> None:
    """The run does not start, and the job is not requeued, since it might fail in the same way again."""
    place.program("ray", f"touch {place.folder}/started; exec sleep 60")
    job = place.start(running(place))
    wait_until((place.folder / "started").exists)
    job.send_signal(signal.SIGUSR1)
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == 1, printed
    assert place.said("crwn") == []
    assert place.said("scontrol") == []


def test_a_ray_that_does_not_start(place: Place) -> None:
    """The job says so, with Ray's output, and fails at once."""
    place.program("ray", "echo 'no room'; exit 1")
    job = place.start(running(place))
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "Ray did not stay up on one:\nno room\n" in printed
    assert "Ray did not start on one" in printed
    assert place.said("crwn") == []


def test_a_folder_that_is_there_is_not_taken(place: Place) -> None:
    """On a shared node, somebody else may have created it; other attempts of the job have other names."""
    (place.folder / "tmp" / "crwn-77.0").mkdir()
    job = place.start(running(place))
    printed, _ = job.communicate(timeout=60)
    assert (job.returncode, place.said("ray")) == (1, [])
    assert "crwn-77.0" in printed
    again = place.start(running(place), SLURM_RESTART_COUNT="1")
    wait_until(lambda: place.said("crwn"))
    again.send_signal(signal.SIGTERM)
    printed, _ = again.communicate(timeout=60)
    assert again.returncode == 130, printed


def test_ports_that_are_taken(place: Place) -> None:
    """The next ones are tried."""
    place.program("crwn", "exit 0")
    with socket.create_server(("127.0.0.1", 20_617)):
        job = place.start(script(place.folder, command=["crwn", "run"]))
        job.communicate(timeout=60)
    assert {"--port=20624", "--ray-client-server-port=20625"} <= set(place.said("ray")[0].split())
