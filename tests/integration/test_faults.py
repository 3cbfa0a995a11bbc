"""Faults of machines: no result is lost or duplicated, and the numbers are the same.

`make chaos` runs these, and not `make test`: each runs a sweep to its end, some of them twice.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import psutil
import pytest

from orchestrator.store.store import Store
from tests.integration.conftest import Run, Undisturbed, contents
from tests.said import DRIVEN_BY

pytestmark = [pytest.mark.chaos, pytest.mark.slow(reason="a sweep is run to its end")]

GRACE = 30.0
"""Seconds that a spot machine leaves between its signal and the end."""
DISK = "8m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        why = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError as error:
        why = str(error)
    if why:
        pytest.skip(f"needs the right to mount a disk: {why}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs for trials, to which machines can be added, all on this one."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


def fill(disk: Path) -> Path:
    """A file that takes all the space that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 2**10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_of_two_drivers_started_at_once_one_works(
    start: Callable[..., Run], undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """The other says so and exits; it has changed nothing."""
    runs = [start(tmp_path / "store", "--executor", "inline") for _ in range(2)]
    ended = [run.wait() for run in runs]
    assert sorted(code for code, _ in ended) == [0, 2], ended
    (told,) = [output for code, output in ended if code == 2]
    assert DRIVEN_BY in told
    assert contents(tmp_path / "store") == undisturbed(start)


def test_a_machine_that_is_taken_away_with_notice(
    start: Callable[..., Run], undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """SIGTERM to every process, as in a shutdown: all exit in time, and the same command resumes."""
    run = start(tmp_path / "store", "--executor", "inline")
    assert run.wait_until(lambda: run.share_done() > 0.3)
    tree, told = run.tree(), time.monotonic()
    for process in tree:
        process.terminate()
    code, output = run.wait(GRACE)
    assert (code, time.monotonic() - told < GRACE) == (130, True), output
    assert psutil.wait_procs(tree, timeout=5)[1] == []
    assert run.share_done() > 0.3
    code, output = start(tmp_path / "store", "--executor", "inline").wait()
    assert code == 0, output
    assert contents(tmp_path / "store") == undisturbed(start)


def test_a_disk_that_is_full_for_a_while(start: Callable[..., Run], undisturbed: Undisturbed, disk: Path) -> None:
    """Trials that cannot write fail and say why, finished ones stay intact, and with free space the rest is done."""
    store = disk / "store"
    run = start(store, "--executor", "inline")
    assert run.wait_until(lambda: run.share_done() > 0.4)
    ballast = fill(disk)
    code, output = run.wait()
    assert code != 0
    assert "No space left on device" in output
    assert "Traceback" not in output
    finished = Store(store).trial_ids()
    ballast.unlink()
    code, output = start(store, "--executor", "inline").wait()
    assert code == 0, output
    assert set(finished) <= set(Store(store).trial_ids())
    assert contents(store) == undisturbed(start)
    assert not list(store.rglob("*.part"))


@pytest.mark.ray
def test_a_driver_that_is_killed_alone(start: Callable[..., Run], undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Kill -9 of the driver: its child processes exit, and the same command resumes at once and cleans up."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    places = {"TMPDIR": str(temporary), "RAY_TMPDIR": gettempdir()}  # Ray's sockets want a short path
    run = start(tmp_path / "store", "--executor", "ray", **places)
    assert run.wait_until(lambda: run.share_done() > 0.3)
    driver, *others = run.tree()
    driver.kill()
    run.process.wait(10)
    assert [path.name.split("-")[:3] for path in temporary.glob("crwn-*")] == [["crwn", "tune", str(driver.pid)]]
    code, output = start(tmp_path / "store", "--executor", "ray", **places).wait()
    assert code == 0, output
    assert not list(temporary.glob("crwn-*"))
    assert psutil.wait_procs(others, timeout=60)[1] == []
    assert contents(tmp_path / "store") == undisturbed(start)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves its machines' files open
def test_a_machine_that_is_lost_while_its_trials_run(
    start: Callable[..., Run], undisturbed: Undisturbed, tmp_path: Path, cluster: Any
) -> None:
    """One of two machines of a cluster is cut off: its trials resume on the other from their resume points."""
    worker = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    run = start(tmp_path / "store", "--executor", "ray", RAY_ADDRESS=cluster.address)
    assert run.wait_until(lambda: run.share_done() > 0.3)
    cluster.remove_node(worker, allow_graceful=False)
    code, output = run.wait(600)
    assert code == 0, output
    attempts = [run.store.all_attempts(trial.trial_id) for trial in run.sweep.trials]
    assert max(map(len, attempts)) == 2  # some trial was on the machine that was lost
    assert contents(tmp_path / "store") == undisturbed(start)
