"""`ray up` with the documented file for on-premises machines: two machines and a laptop, in network namespaces.

    make cluster-test

Root and a few Debian packages are needed; without them it is skipped, with the reason. One thing of the file is not
proven: its `make install` finds the environment installed, since no package index can be reached from the machines. It
is this one's, without the project: what runs there is the code that `ray up` has copied.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from tests.cluster.machines import HOME, SHARED, Machine, Network, network, whats_missing
from tests.integration.conftest import CRWN, clean_environment, contents

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow(reason="a cluster is started by ssh, and a sweep runs on it and once more here"),
]

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "cluster-onprem.yaml"
INSTALLED = HOME / "crwn-cluster" / ".venv"
DASHBOARD, MLFLOW = "http://127.0.0.1:8265", "http://127.0.0.1:5000"
"""On the laptop, through ssh."""
STORE = SHARED / "runs" / "cut"

# Half a minute a trial where two at once on each of two machines have two cores between them. In float64, for which
# there is one kernel: for float32 the faster is found by a measurement, which other work can tip, and digits with it.
SWEEP = """\
# crwn submit sweep.yaml
name: cut
seeds: [0, 1]
benchmarks:
  r-digits: {num_tasks: 3}
training: {dtype: float64}
methods:
  supsup: {scales: [FC64], training: {updates_per_task: 4000}}
  neuromodnet: {scales: [FC64], training: {updates_per_task: 6000}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Machines that know nothing of Ray yet."""

    network: Network
    laptop: Machine
    head: Machine
    worker: Machine


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The file's head and first worker, which accept the laptop's key, and the laptop with this checkout."""
    if why := whats_missing():
        pytest.skip(why)
    provider = yaml.safe_load(FILE.read_text())["provider"]
    prefix = provider["head_ip"].rpartition(".")[0] + "."
    environment = {"HOME": str(HOME), "LANG": "C.UTF-8", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    seen = tuple(dict.fromkeys((ROOT, Path(sys.prefix), Path(sys.base_prefix))))
    with network(tmp_path / "site", prefix, seen) as made:
        laptop = made.add("laptop", f"{prefix}100", environment)
        laptop.run("install -d -m 700 ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
        key = laptop.path(HOME / ".ssh" / "id_ed25519.pub").read_text()
        machines = []
        for name, address in (("head", provider["head_ip"]), ("worker", provider["worker_ips"][0])):
            machine = made.add(name, address, environment)
            machine.run("install -d -m 700 ~/.ssh")
            machine.path(HOME / ".ssh" / "authorized_keys").write_text(key)
            install(machine)
            machines.append(machine)
        yield Site(network=made, laptop=laptop, head=machines[0], worker=machines[1])


def install(machine: Machine) -> None:
    """What `make install` would have made there: this environment's packages, and the project's code."""
    machine.run(f"mkdir -p {INSTALLED.parent} && {Path(sys.executable).resolve()} -m venv --without-pip {INSTALLED}")
    (site_packages,) = machine.path(INSTALLED).glob("lib/python*/site-packages")
    # Those of this environment as one more folder, so that its link to this checkout is not followed.
    (site_packages / "crwn.pth").write_text(f"{INSTALLED.parent}\n{sysconfig.get_path('purelib')}\n")
    for name in ("crwn", "mlflow", "ray"):
        (entry,) = set(metadata.entry_points(group="console_scripts", name=name))
        script = machine.path(INSTALLED / "bin" / name)
        script.write_text(
            f"#!{INSTALLED}/bin/python\nimport sys\nfrom {entry.module} import {entry.attr}\nsys.exit({entry.attr}())\n"
        )
        script.chmod(0o755)
    machine.path(INSTALLED / ".installed").touch()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not in {seconds} s"
        time.sleep(0.5)


def rays_processes(machine: Machine) -> list[str]:
    """The command lines of Ray's processes on a machine."""
    return [line for line in machine.processes() if re.search(r"^ray|/site-packages/ray/", line)]


def num_machines(head: Machine) -> int:
    """The number of machines that the cluster reports."""
    said = head.run(f"RAY_AUTH_MODE=token {INSTALLED}/bin/ray status")
    return sum(int(number) for number in re.findall(r"^ (\d+) local\.cluster\.node$", said, flags=re.MULTILINE))


def finished_runs(laptop: Machine) -> int:
    """The number of the sweep's finished runs in MLflow, including its own and those of its cells."""
    api = f"curl -sf {MLFLOW}/api/2.0/mlflow"
    experiment = json.loads(laptop.run(f"{api}/experiments/get-by-name?experiment_name=cut"))["experiment"]
    asked = json.dumps({"experiment_ids": [experiment["experiment_id"]]})
    runs = json.loads(laptop.run(f"{api}/runs/search --json '{asked}'"))["runs"]
    return [run["info"]["status"] for run in runs].count("FINISHED")


def test_a_sweep_on_machines_of_ones_own(site: Site, tmp_path: Path) -> None:
    """`ray up`, a sweep over both machines, with one cable pulled in the middle and put back, then `ray down`."""
    laptop, head, worker = site.laptop, site.head, site.worker
    config: dict[str, Any] = yaml.safe_load(FILE.read_text())
    config["provider"]["worker_ips"] = [worker.address]
    config["min_workers"] = config["max_workers"] = 1
    laptop.path(HOME / "cluster.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    laptop.run("ray get-auth-token --generate > /dev/null")
    laptop.run(f"cd {ROOT} && ray up --yes ~/cluster.yaml")
    user = config["auth"]["ssh_user"]
    laptop.start(
        "ssh -N -o StrictHostKeyChecking=accept-new -o ExitOnForwardFailure=yes "
        f"-L 8265:127.0.0.1:8265 -L 5000:127.0.0.1:5000 {user}@{head.address}",
        tmp_path / "tunnel.log",
    )
    wait_until(lambda: num_machines(head) == 2, 180)
    laptop.run(f"curl -sf --retry 100 --retry-delay 1 --retry-all-errors {MLFLOW}/health")
    for machine in (head, worker):
        where = machine.run(f"{INSTALLED}/bin/python -c 'import orchestrator; print(orchestrator.__file__)'").strip()
        assert where == f"{INSTALLED.parent}/orchestrator/__init__.py"

    sweep = tmp_path / "sweep.yaml"
    for file in (sweep, laptop.path(HOME / "sweep.yaml")):
        file.write_text(SWEEP)
    log = tmp_path / "submit.log"
    following = laptop.start(
        f"RAY_AUTH_MODE=token crwn submit ~/sweep.yaml --address {DASHBOARD} --out {STORE} --follow", log
    )
    store = Store(site.network.shared / STORE.relative_to(SHARED))
    trials = [trial.trial_id for trial in load_sweep(sweep).trials]

    def working() -> set[str | None]:
        """The machines that are in the middle of a task."""
        attempts = [attempt for trial in trials for attempt in store.all_attempts(trial)]
        return {attempt.host for attempt in attempts if attempt.reached is not None and attempt.reached.step > 500}

    wait_until(lambda: working() == {"head", "worker"} or following.poll() is not None, 180)
    assert following.poll() is None, log.read_text()
    site.network.unplug(worker)
    jobs = laptop.run(f"RAY_AUTH_MODE=token crwn status --address {DASHBOARD}")
    assert re.search(rf"running, begun .*; cut, 4 trials, into {STORE}\n", jobs), jobs
    assert following.wait(600) == 0, log.read_text()
    assert "4/4 trials done" in log.read_text()
    hosts = [[attempt.host for attempt in store.all_attempts(trial)] for trial in trials]
    assert ["worker", "head"] in hosts, hosts
    num_cells = len(store.manifest("cut").cells)
    wait_until(lambda: finished_runs(laptop) == 1 + len(trials) + num_cells, 60)

    wait_until(lambda: num_machines(head) == 1, 60)
    site.network.plug(worker)
    wait_until(lambda: num_machines(head) == 2, 180)  # by itself
    laptop.run(f"cd {ROOT} && ray down --yes ~/cluster.yaml")
    assert rays_processes(head) == []
    laptop.run(f"ssh -o StrictHostKeyChecking=accept-new {user}@{worker.address} crwn-cluster/.venv/bin/ray stop")
    assert rays_processes(worker) == []

    here = [CRWN, "run", sweep, "--out", tmp_path / "here", "--executor", "inline", "--no-tracking"]
    subprocess.run(here, env=clean_environment(), capture_output=True, check=True, timeout=600)
    assert contents(store.root) == contents(tmp_path / "here")
