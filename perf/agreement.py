"""Check that the engine's optimisations preserve results: r-mnist learned in several ways, compared task by task.

    CRWN_DATA=... .venv/bin/python -m perf.agreement

The plain way is PyTorch's own products in float32, one task at a time. Writes agreement.json and the table in README.md
between its marks; half an hour on one core.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from crwn import backbone
from crwn.data import datasets
from crwn.engine import Engine
from crwn.events import Numerics
from crwn.trial import run_trial
from perf.engine import FOLDER, machine, replace_between, trial

NUM_TASKS = 36
FEW_TASKS = 4
PLAIN = Numerics(device="cpu", group_size=1, kernel="plain", threads=1)


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to learn, compared with the plain way of the same network and tasks.

    `other_order` redraws the batches of all seeds: how much results change by chance alone.
    """

    method: str
    scale: str
    num_tasks: int
    kernel: Any = "onednn"
    group_size: int = 1
    dtype: str = "float32"
    other_order: bool = False

    @property
    def seeds(self) -> range:
        """Three, or one where there are many tasks to compare."""
        return range(1 if self.num_tasks == NUM_TASKS else 3)


WAYS = [
    Way("neuromodnet", "FC256", NUM_TASKS, kernel="plain", other_order=True),
    Way("neuromodnet", "FC256", NUM_TASKS),
    Way("neuromodnet", "FC256", NUM_TASKS, group_size=4),
    Way("neuromodnet", "FC256", NUM_TASKS, group_size=36),
    Way("neuromodnet", "FC256", FEW_TASKS, group_size=4),
    Way("neuromodnet", "FC256", FEW_TASKS, group_size=4, dtype="bfloat16"),
    Way("neuromodnet", "FC1024", FEW_TASKS, group_size=4),
    Way("neuromodnet", "FC1024", FEW_TASKS, group_size=4, dtype="bfloat16"),
    Way("flynet", "10d", FEW_TASKS, group_size=4),
    Way("flynet", "10d", FEW_TASKS, group_size=4, dtype="bfloat16"),
    Way("supsup", "FC256", FEW_TASKS),
    Way("supsup", "FC256", FEW_TASKS, dtype="bfloat16"),
    Way("batche", "FC256", FEW_TASKS, group_size=4),
    Way("batche", "FC256", FEW_TASKS, group_size=4, dtype="bfloat16"),
    Way("psp", "FC256", FEW_TASKS),
    Way("psp", "FC256", FEW_TASKS, dtype="bfloat16"),
]


def main() -> None:
    """Run what is missing from agreement.json, and write the table after each way."""
    path = FOLDER / "agreement.json"
    found: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}
    for way in WAYS:
        for seed in way.seeds:
            for one in (plain(way), way):
                if key(one, seed) not in found:
                    found[key(one, seed)] = accuracies(one, seed)
                    path.write_text(json.dumps(found, indent=0) + "\n")
                    print(key(one, seed), f"{np.mean(found[key(one, seed)]):.4f}", flush=True)
        replace_between("agreement.py", list(table(found)))


def plain(way: Way) -> Way:
    """The plain way of the same network and tasks."""
    return Way(way.method, way.scale, way.num_tasks, kernel="plain")


def key(way: Way, seed: int) -> str:
    """A way and a seed as text."""
    return " ".join(map(str, [*dataclasses.astuple(way), seed]))


def accuracies(way: Way, seed: int) -> list[float]:
    """Test accuracy of every task after the last one."""
    spec = trial(way.method, way.scale, way.dtype, 1000, num_tasks=way.num_tasks)
    numerics = dataclasses.replace(PLAIN, kernel=way.kernel, group_size=way.group_size)
    with mock.patch("crwn.trial.Engine", reordered if way.other_order else Engine):
        finished = run_trial(
            dataclasses.replace(spec, seed=seed), data=datasets(), backbones=backbone.draw, numerics=numerics
        )
    last = {row.task: row.accuracy for row in finished.rows if row.tasks_learned == way.num_tasks}
    return [last[task] for task in range(way.num_tasks)]


def reordered(*, seed: int, **settings: Any) -> Engine:
    """The engine, whose own seed is that of the batches."""
    return Engine(seed=seed + 1000, **settings)


def table(found: dict[str, list[float]]) -> Iterator[str]:
    """The lines of the table for what has run so far."""
    yield f"{machine()}; one thread. Accuracies in %, mean ± sample standard deviation over seeds."
    yield ""
    yield "| method | scale | tasks | plain accuracy | configuration | accuracy | difference | largest over tasks |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for way in (way for way in WAYS if all(key(way, seed) in found for seed in way.seeds)):
        reference, other = (of_seeds(found, one) for one in (plain(way), way))
        difference = other - reference
        how = f"{way.kernel}, {way.group_size} at once, {way.dtype}" + ", other batches" * way.other_order
        yield (
            f"| {way.method} | {way.scale} | {way.num_tasks} | {mean_sd(reference)} | {how} | {mean_sd(other)} | "
            f"{100 * difference.mean():+.3f} | {100 * np.abs(difference).max():.2f} |"
        )


def of_seeds(found: dict[str, list[float]], way: Way) -> NDArray[np.float64]:
    """[seeds, tasks]."""
    return np.array([found[key(way, seed)] for seed in way.seeds])


def mean_sd(accuracies_ST: NDArray[np.float64]) -> str:
    """Over seeds, of the mean over tasks."""
    means_S = 100 * accuracies_ST.mean(axis=1)
    deviation = f"{means_S.std(ddof=1):.2f}" if len(means_S) > 1 else "-"
    return f"{means_S.mean():.2f} ± {deviation} (n={len(means_S)})"


if __name__ == "__main__":
    main()
