"""Benchmarks: one file each, with a frozen spec and the tasks that it describes.

`BENCHMARKS` is the registry; `PRESETS` are the papers' benchmarks and their twins on embedded data, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crwn.benchmarks import items, permuted, rotated, sequential, split, turning
from crwn.registry import Registry
from crwn.spec import BenchmarkSpec, ProblemShape

if TYPE_CHECKING:
    import torch

    from crwn.benchmarks.protocol import Benchmark
    from crwn.data.base import ImageSet


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkEntry:
    """A benchmark's spec class, and the function that builds its tasks from (spec, base set, seed, device)."""

    spec: type[Any]
    build: Callable[[Any, ImageSet, int, torch.device], Benchmark]


BENCHMARKS: Registry[BenchmarkEntry] = Registry(
    "benchmark",
    {
        "rotated": BenchmarkEntry(spec=rotated.RotatedSpec, build=rotated.build),
        "permuted": BenchmarkEntry(spec=permuted.PermutedSpec, build=permuted.build),
        "split": BenchmarkEntry(spec=split.SplitSpec, build=split.build),
        "sequential": BenchmarkEntry(spec=sequential.SequentialSpec, build=sequential.build),
        "turning": BenchmarkEntry(spec=turning.TurningSpec, build=turning.build),
        "items": BenchmarkEntry(spec=items.ItemsSpec, build=items.build),
    },
)

PRESETS: Mapping[str, BenchmarkSpec] = MappingProxyType(
    {
        "r-mnist": rotated.RotatedSpec(base="mnist"),
        "p-mnist": permuted.PermutedSpec(base="mnist"),
        "r-digits": rotated.RotatedSpec(base="digits"),
        "p-digits": permuted.PermutedSpec(base="digits"),
        "split-cifar100": split.SplitSpec(base="cifar100"),
        "superclass-cifar100": split.SplitSpec(base="cifar100", by="superclass"),
        "split-miniimagenet": split.SplitSpec(base="miniimagenet"),
        "split-tinyimagenet": split.SplitSpec(base="tinyimagenet"),
        "split-digits": split.SplitSpec(base="digits", num_tasks=5, crop_padding=0, flip=False),
        "r-mnist-domain": rotated.RotatedSpec(
            base="mnist", num_tasks=20, angles="random", task_known=False, normalise=False
        ),
        "r-digits-domain": rotated.RotatedSpec(
            base="digits", num_tasks=20, angles="random", task_known=False, normalise=False
        ),
        "p-mnist-domain": permuted.PermutedSpec(base="mnist", num_tasks=20, task_known=False, normalise=False),
        "p-digits-domain": permuted.PermutedSpec(base="digits", num_tasks=20, task_known=False, normalise=False),
        "seq-mnist": sequential.SequentialSpec(base="mnist"),
        "seq-digits": sequential.SequentialSpec(base="digits"),
        "seq-cifar100": sequential.SequentialSpec(
            base="cifar100", num_tasks=10, crop_padding=4, flip=True, normalise=True, channels=3
        ),
        "mnist-360": turning.TurningSpec(base="mnist"),
        "digits-360": turning.TurningSpec(base="digits", test_every=20),
        "items-mnist": items.ItemsSpec(base="mnist"),
        "items-digits": items.ItemsSpec(base="digits", images=100, test_images=100, pool=1),
    }
)


def benchmark_name(benchmark: Mapping[str, Any]) -> str:
    """The name of a benchmark in tables, figures and MLflow: that of its preset, whatever its number of tasks.

    Results on held-out training images never pass for results on the test set.

    Args:
        benchmark: its spec as parsed JSON, possibly from a newer crwn.

    Returns:
        The name of the preset with the same kind, base set, grouping and knowledge of the task, or `kind-base` if there
        is none; with the suffix `-validation` if images are held out.
    """
    kind, base = benchmark["kind"], benchmark["base"]
    defaults = {"task_known": True, "by": "class"}
    given = {name: benchmark.get(name, default) for name, default in defaults.items()}
    named = (
        name
        for name, preset in PRESETS.items()
        if (preset.kind, preset.base) == (kind, base)
        and given == {field: getattr(preset, field, default) for field, default in defaults.items()}
    )
    return next(named, f"{kind}-{base}") + ("-validation" if benchmark.get("validation") else "")


MOST_TASKS = 100_000
"""Largest number of tasks for which a record's problem is computed, which lists every task's size: records may be
untrusted."""


def problem_of(benchmark: Mapping[str, Any]) -> ProblemShape | None:
    """The problem shape of a benchmark, from its spec as parsed JSON; see `benchmark_of`."""
    spec = benchmark_of(benchmark)
    return None if spec is None else spec.problem()


def benchmark_of(benchmark: Mapping[str, Any]) -> BenchmarkSpec | None:
    """The spec of a benchmark, from parsed JSON.

    Args:
        benchmark: the spec in a record, which may be untrusted or from a newer crwn.

    Returns:
        The spec; None if it is not that of a known benchmark.
    """
    entry = BENCHMARKS.get(str(benchmark.get("kind")))
    num_tasks = benchmark.get("num_tasks")
    if entry is None or (isinstance(num_tasks, int) and num_tasks > MOST_TASKS):
        return None
    try:
        spec: BenchmarkSpec = entry.spec(**{name: value for name, value in benchmark.items() if name != "kind"})
    except (TypeError, ValueError):
        return None
    return spec
