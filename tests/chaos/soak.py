"""A soak: 500 tiny trials on a cluster of three machines, with a kill every 20 seconds on average.

    make chaos                                          the tests of single faults, then this
    .venv/bin/python -m tests.chaos.soak --trials 40    a short one

The kills are random: the process of a training trial, a whole machine (another one joins), or the driver (the
same command is restarted). At the end, the store is compared, trial by trial, with that of an undisturbed
run, and the figures are written as JSON. The exit code is 1 if a trial is lost, duplicated or different.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import psutil
import ray
from ray.cluster_utils import Cluster

from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from tests.integration.conftest import CRWN, clean_environment, contents

Kind: TypeAlias = Literal["worker", "machine", "driver"]

MACHINES = 3
SWEEP = """\
# crwn run soak.yaml
name: soak
seeds: [{seeds}]
benchmarks:
  r-digits: {{num_tasks: 2}}
methods:
  neuromodnet: {{scales: [FC64], training: {{updates_per_task: 1500}}}}
  supsup: {{scales: [FC32], training: {{updates_per_task: 500}}}}
"""
KINDS: Mapping[Kind, int] = {"worker": 10, "machine": 1, "driver": 1}
"""What is killed, and the relative frequency."""


def command(sweep: Path, store: Path) -> list[str | Path]:
    """The user's command; CPUs only, without MLflow."""
    return [CRWN, "run", sweep, "--out", store, "--executor", "ray", "--gpus", "0", "--no-tracking"]


@dataclass
class Soak:
    """One soak and its counts.

    Args:
        folder: of the sweep and both stores.
        sweep: the sweep's file.
        rng: what decides.
        every: seconds between two kills, on average.
    """

    folder: Path
    sweep: Path
    rng: random.Random
    every: float
    kills: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    waiting: list[tuple[str, float, int]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        """The store under test."""
        return Store(self.folder / "tormented")

    def run(self, trials: Sweep) -> None:
        """Start the command, and kill it until it ends by itself."""
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.machines = [self.cluster.add_node(num_cpus=1) for _ in range(MACHINES)]
        kind: Kind | None = None
        driver, due = self._start(), time.monotonic() + self.rng.expovariate(1 / self.every)
        try:
            while True:
                time.sleep(0.2)
                self._note_recoveries()
                code = driver.poll()
                if code is not None:
                    if code == 0 and all(self.store.is_finished(trial.trial_id) for trial in trials.trials):
                        return
                    driver = self._start()  # it was killed, or some trial's process died three times
                if time.monotonic() >= due:
                    kind = kind or self.rng.choices(list(KINDS), list(KINDS.values()))[0]
                    if self._kill(kind, driver):  # else no trial is training: as soon as one is
                        kind, due = None, time.monotonic() + self.rng.expovariate(1 / self.every)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
            self.cluster.shutdown()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(
                command(self.sweep, self.store.root),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=clean_environment(RAY_ADDRESS=self.cluster.address),
            )

    def _kill(self, kind: Kind, driver: subprocess.Popen[bytes]) -> bool:
        """Kill something; return whether there was anything to kill."""
        before = self._num_finished()
        match kind:
            case "driver":
                driver.kill()
                driver.wait()
            case "machine":
                lost = self.rng.choice(self.machines)
                self.machines.remove(lost)
                self.cluster.remove_node(lost, allow_graceful=False)
                self.machines.append(self.cluster.add_node(num_cpus=1))
            case _:
                victims = list(self._training())
                if not victims:
                    return False
                self.rng.choice(victims).kill()
        self.kills[kind] += 1
        self.waiting.append((kind, time.monotonic(), before))
        return True

    def _training(self) -> Iterator[psutil.Process]:
        """The processes of trials that have begun to train and have not ended."""
        for file in (self.store.root / "trials").glob("*/attempts.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError, psutil.Error):
                last = json.loads(file.read_text())["attempts"][-1]
                process = psutil.Process(last["pid"])
                if "reached" in last and "error" not in last and "ray::" in " ".join(process.cmdline()):
                    yield process

    def _num_finished(self) -> int:
        return len(self.store.trial_ids()) if self.store.exists else 0

    def _note_recoveries(self) -> None:
        """A kill is over once the next trial has finished."""
        finished = self._num_finished()
        for kind, at, before in [*self.waiting]:
            if finished > before:
                self.recoveries[kind].append(time.monotonic() - at)
                self.waiting.remove((kind, at, before))


def compare(tormented: Path, undisturbed: Path, sweep: Sweep) -> Mapping[str, int]:
    """The number of trials that are lost, duplicated, or different from an undisturbed run's."""
    expected, found = contents(undisturbed), contents(tormented)
    ids = [trial.trial_id for trial in sweep.trials]
    rows = Store(tormented).records.trials(ids)["trial_id"].to_pylist()
    return {
        "trials": len(ids),
        "lost": len(set(ids) - set(rows)),
        "double": len(rows) - len(set(rows)) + len(set(Store(tormented).trial_ids()) - set(ids)),
        "corrupt": sum(found.get(trial_id) != expected[trial_id] for trial_id in ids),
    }


def main() -> None:
    """Run, compare, write, print."""
    parser = argparse.ArgumentParser(description="Kill what runs a sweep, and compare what comes out.")
    parser.add_argument("--trials", type=int, default=500, help="an even number")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed and when")
    parser.add_argument("--to", type=Path, default=Path("runs/soak.json"), help="where the figures go")
    parser.add_argument("--undisturbed", type=Path, help="where the store to compare with is, or is to be kept")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crwn-soak-"))
    file = folder / "soak.yaml"
    file.write_text(SWEEP.format(seeds=", ".join(map(str, range(given.trials // 2)))))
    sweep = load_sweep(file)
    soak = Soak(folder=folder, sweep=file, rng=random.Random(given.seed), every=given.every)
    started = time.monotonic()
    soak.run(sweep)
    tormented_seconds = time.monotonic() - started
    undisturbed = given.undisturbed or folder / "undisturbed"
    subprocess.run(  # where the store is whole, nothing is computed again
        command(file, undisturbed),
        check=True,
        stdout=subprocess.DEVNULL,
        env=clean_environment(),
    )
    attempts = Counter(len(soak.store.all_attempts(trial.trial_id)) for trial in sweep.trials)
    found: dict[str, Any] = {
        **compare(soak.store.root, undisturbed, sweep),
        "kills": dict(soak.kills),
        "trials_by_attempts": {str(number): attempts[number] for number in sorted(attempts)},
        "seconds_to_the_next_finished_trial": {
            kind: {"mean": sum(taken) / len(taken), "longest": max(taken)}
            for kind, taken in sorted(soak.recoveries.items())
            if taken
        },
        "seconds": tormented_seconds,
        "seed": given.seed,
        "ray": ray.__version__,
        "cores": os.cpu_count(),
    }
    given.to.parent.mkdir(parents=True, exist_ok=True)
    given.to.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    is_whole = not (found["lost"] or found["double"] or found["corrupt"])
    if is_whole:
        shutil.rmtree(folder)
    else:
        print(f"kept for a look: {folder}")
    sys.exit(not is_whole)


if __name__ == "__main__":
    main()
