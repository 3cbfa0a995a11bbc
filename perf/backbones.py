"""Compare two ways for a cluster machine to obtain frozen weights: have Ray send them, or draw them again.

    .venv/bin/python -m perf.backbones

The two machines are two Ray object stores on this one, so data crosses no network: a network's time
is computed separately. Writes the table in README.md between its marks.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crwn import backbone
from crwn.backbone import Arrays, Backbone
from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from crwn.trial_spec import TrialSpec
from perf.engine import machine, replace_between

ROWS = [
    ("neuromodnet", "r-mnist", "FC256"),
    ("neuromodnet", "r-mnist", "FC1024"),
    ("neuromodnet", "r-mnist", "FC4096"),
    ("flynet", "r-mnist", "40d"),
    ("neuromodnet", "split-cifar100", "1d"),
    ("neuromodnet", "split-cifar100", "6d"),
]
COLUMNS = [
    "backbone",
    "MiB",
    "draw it",
    "put it, once",
    "first read on another machine",
    "read again there",
    "check it",
    "1 Gbit/s",
    "10 Gbit/s",
]
MEBIBYTE = 2**20
GIGABIT = 10**9 / 8
REPEATS = 5


def main() -> None:
    """Measure every row, write, print."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    there = NodeAffinitySchedulingStrategy(other.node_id, soft=False)
    reader = ray.remote(Reader).options(scheduling_strategy=there).remote()
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    try:
        for row in ROWS:
            lines.append(f"| {' | '.join(measured(row, reader))} |")
            print(lines[-1])
    finally:
        ray.shutdown()
        other.kill_all_processes(check_alive=False, allow_graceful=True)
        cluster.shutdown()
    replace_between("backbones.py", [f"{machine()}. Medians of {REPEATS}, in ms.", "", *lines])


class Reader:
    """A process on the other machine."""

    def read(self, references: list[Any]) -> float:
        """Seconds until the arrays can be used here."""
        return timed(lambda: ray.get(references[0]))

    def check(self, references: list[Any], fingerprint: str) -> float:
        """Seconds to check that they are what was drawn."""
        arrays: Arrays = ray.get(references[0])
        return timed(Backbone(arrays=arrays, fingerprint=fingerprint).checked)


def measured(row: tuple[str, str, str], reader: Any) -> list[str]:
    """The cells of one row."""
    method, benchmark, scale = row
    settings = METHODS[method].spec()
    trial = TrialSpec(
        method=settings, benchmark=PRESETS[benchmark], scale=scale, seed=0, training=settings.training(scale)
    )
    spec = trial.blueprint().backbone
    drawn = backbone.draw(spec)
    times: dict[str, list[float]] = {name: [] for name in ("draw", "put", "first", "again", "check")}
    for _ in range(REPEATS):
        times["draw"].append(timed(lambda: backbone.draw(spec)))
        kept: list[Any] = []
        times["put"].append(timed(lambda: kept.append(ray.put(drawn.arrays))))  # noqa: B023 (called at once)
        times["first"].append(ray.get(reader.read.remote(kept)))
        times["again"].append(ray.get(reader.read.remote(kept)))
        times["check"].append(ray.get(reader.check.remote(kept, drawn.fingerprint)))
    size = sum(array.nbytes for array in drawn.arrays.values())
    return [
        f"{method} {benchmark} {scale}",
        f"{size / MEBIBYTE:.1f}",
        *(f"{1000 * statistics.median(values):.1f}" for values in times.values()),
        *(f"{1000 * size / (rate * GIGABIT):.1f}" for rate in (1, 10)),
    ]


def timed(do: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
