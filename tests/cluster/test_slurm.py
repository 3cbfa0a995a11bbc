"""`crwn submit --slurm` on Slurm itself: a login machine and two nodes in network namespaces here.

    make cluster-test

Root and a few Debian packages are needed, Slurm's among them; without them it is skipped, with the reason. What runs
on the nodes is this checkout, which they see at its path, as a home folder on a shared disk is seen.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from tests.cluster.machines import HOME, PACKAGES, SBIN, SHARED, Machine, Network, network, whats_missing
from tests.integration.conftest import CRWN, clean_environment, contents

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow(reason="Slurm puts a job back into its queue for two minutes, and a sweep runs there and here"),
]

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {**PACKAGES, "sbatch": "slurm-client", "slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge"}
NODES = {"login": "10.9.0.100", "node1": "10.9.0.1", "node2": "10.9.0.2"}
STORE = SHARED / "runs" / "cut"
FOLDER = SHARED / "runs" / "cut.slurm"

# In float64, for which there is one kernel, as in the test of `ray up`. Two idle cores take more than two minutes, in
# which Slurm tells of the limit.
SWEEP = """\
name: cut
seeds: [0, 1]
benchmarks:
  r-digits: {num_tasks: 3}
training: {dtype: float64}
methods:
  supsup: {scales: [FC64], training: {updates_per_task: 20000}}
  neuromodnet: {scales: [FC64], training: {updates_per_task: 30000}}
"""

# Kinds of plug-ins that need neither cgroups nor a database.
SLURM = """\
ClusterName=site
SlurmctldHost=login(10.9.0.100)
SlurmUser=me
SlurmdUser=me
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
NodeName=node1 NodeAddr=10.9.0.1 CPUs=2
NodeName=node2 NodeAddr=10.9.0.2 CPUs=2
PartitionName=short Nodes=node[1-2] Default=YES MaxTime=2:00:00
"""

SET_UP = f"""\
set -e
export PATH=$PATH:{SBIN}
mkdir -p /etc/slurm /etc/munge /run/munge /var/log/munge /var/lib/munge /var/spool/slurmctld /var/spool/slurmd
cp /shared/slurm.conf /etc/slurm/
cp /shared/munge.key /etc/munge/
chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
chmod 700 /etc/munge /var/log/munge
chmod 400 /etc/munge/munge.key
setpriv --reuid munge --regid munge --clear-groups munged
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where Slurm runs: nobody has heard of Ray yet."""

    network: Network
    login: Machine
    nodes: tuple[Machine, Machine]

    @property
    def store(self) -> Store:
        return Store(self.network.shared / STORE.relative_to(SHARED))

    def state(self, job: str) -> str:
        """A job's state, as Slurm has it; empty once it is forgotten."""
        return self.login.run(f"squeue --noheader --states=all --format=%T --jobs={job} || true").strip()

    def log(self, job: str) -> str:
        file = self.network.shared / FOLDER.relative_to(SHARED) / f"{job}.log"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if why := whats_missing(NEEDED):
        pytest.skip(why)
    environment = {"HOME": str(HOME), "LANG": "C.UTF-8", "PATH": f"{CRWN.parent}:/usr/bin:/bin"}
    seen = tuple(dict.fromkeys((ROOT, Path(sys.prefix), Path(sys.base_prefix))))
    with network(tmp_path / "site", "10.9.0.", seen) as made:
        machines = {name: made.add(name, address, environment) for name, address in NODES.items()}
        (made.shared / "slurm.conf").write_text(SLURM)
        (made.shared / "munge.key").write_bytes(bytes(range(256)) * 4)
        for machine in machines.values():
            names = "".join(f"{address} {name}\n" for name, address in NODES.items())
            machine.path(Path("/etc/hosts")).write_text(f"127.0.0.1 localhost\n{names}")
            machine.run(SET_UP)
        machines["login"].run(f"PATH=$PATH:{SBIN} slurmctld")
        for name in ("node1", "node2"):
            machines[name].run(f"PATH=$PATH:{SBIN} slurmd -N {name}")
        wait_until(lambda: machines["login"].run("sinfo --noheader --format=%t%D").strip() == "idle2", 60)
        yield Site(network=made, login=machines["login"], nodes=(machines["node1"], machines["node2"]))


def wait_until(condition: Callable[[], object], seconds: float, said: Callable[[], str] = str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not in {seconds} s\n{said()}"
        time.sleep(0.5)


def test_a_sweep_that_its_time_limit_cuts_off(site: Site, tmp_path: Path) -> None:
    """Over two nodes, requeued in the middle, stopped, and submitted again: the store is complete."""
    (site.network.shared / "sweep.yaml").write_text(SWEEP)
    submit = (
        f"crwn submit {SHARED}/sweep.yaml --slurm --out {STORE} --nodes 2 --cpus-per-node 2 --time 60 --no-tracking"
    )
    refused = site.login.run(f"{submit} --partition long 2>&1; echo $?; ls {SHARED}/runs 2>&1 || true")
    assert "--partition: expected one of short; given 'long'" in refused
    assert "\n2\n" in refused
    assert "cut.slurm" not in refused
    assert site.login.run("squeue --noheader") == ""

    printed = site.login.run(submit)
    job = re.findall(r"^job +(\d+): ", printed, flags=re.MULTILINE)[0]
    trials = [trial.trial_id for trial in load_sweep(site.network.shared / "sweep.yaml").trials]

    def working() -> set[str | None]:
        """The nodes that are in the middle of a task."""
        attempts = [attempt for trial in trials for attempt in site.store.all_attempts(trial)]
        return {attempt.host for attempt in attempts if attempt.reached is not None and attempt.reached.step > 500}

    wait_until(lambda: working() == {"node1", "node2"}, 900, lambda: site.log(job))
    assert f"{job}: already submitted" not in printed
    assert f"already submitted to {STORE}; nothing was started" in site.login.run(submit)
    assert re.search(rf"^{job}: running, .* on 2 nodes; cut, 4 trials, into {STORE}$", status(site, job), re.MULTILINE)

    # The limit is near: Slurm tells the job within a minute.
    elapsed = site.login.run(f"squeue --noheader --format=%M --jobs={job}").strip()
    minutes = sum(int(part) * factor for part, factor in zip(reversed(elapsed.split(":")), (0, 1, 60), strict=False))
    site.login.run(f"scontrol update JobId={job} TimeLimit={minutes + 2}")
    wait_until(lambda: site.state(job) == "PENDING", 240, lambda: site.log(job))
    assert "the time limit is near: the job is requeued" in site.log(job)
    wait_until(lambda: not any(map(rays_processes, site.nodes)), 60)
    assert [list(node.path(Path("/tmp")).glob("crwn-*")) for node in site.nodes] == [[], []]  # noqa: S108
    reached = sum(len(site.store.all_attempts(trial)) for trial in trials)
    site.login.run(f"scontrol update JobId={job} TimeLimit=60")

    # It starts again by itself, two minutes later, and goes on.
    wait_until(lambda: site.state(job) == "RUNNING", 300, lambda: site.log(job))
    begun = [len(site.store.all_attempts(trial)) for trial in trials]
    wait_until(
        lambda: (
            sum(len(site.store.all_attempts(trial)) for trial in trials) > reached
            or all(map(site.store.is_finished, trials))
        ),
        900,
        lambda: site.log(job),
    )
    assert "attempt 2: node1 node2" in site.log(job)
    assert sum(begun) == reached
    if site.state(job) == "RUNNING":
        assert f"{job}: stopped" in site.login.run(f"crwn stop {job}")
    assert site.state(job) in ("CANCELLED", "COMPLETED")

    printed = site.login.run(submit)
    if again := re.findall(r"^job +(\d+): ", printed, flags=re.MULTILINE):
        wait_until(lambda: site.state(again[0]) in ("COMPLETED", "FAILED"), 1800, lambda: site.log(again[0]))
        assert site.state(again[0]) == "COMPLETED", site.log(again[0])
    assert site.login.run(submit) == "cut: all 4 trials are done; nothing to submit\n"
    assert site.login.run("crwn status --slurm") == "Slurm: no crwn job is waiting or running\n"

    here = [CRWN, "run", site.network.shared / "sweep.yaml", "--out", tmp_path / "here", "--executor", "inline"]
    subprocess.run([*here, "--no-tracking"], env=clean_environment(), capture_output=True, check=True, timeout=1800)
    assert contents(site.store.root) == contents(tmp_path / "here")


def status(site: Site, job: str) -> str:
    return site.login.run(f"crwn status {job}")


def rays_processes(machine: Machine) -> list[str]:
    """The command lines of Ray's processes on a machine."""
    return [line for line in machine.processes() if re.search(r"^ray|/site-packages/ray/", line)]
