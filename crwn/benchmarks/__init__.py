"""Benchmarks: one file each, a frozen spec and the tasks it stands for.

`BENCHMARKS` is the registry; `PRESETS` are those of the papers, and their twins on embedded data, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crwn.benchmarks import permuted, rotated, sequential, split, turning
from crwn.spec import BenchmarkSpec, ProblemShape

if TYPE_CHECKING:
    import torch

    from crwn.benchmarks.protocol import Benchmark
    from crwn.data.base import ImageSet


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkEntry:
    """A benchmark's spec class, and what builds its tasks from (spec, base set, seed, device)."""

    spec: type[Any]
    build: Callable[[Any, ImageSet, int, torch.device], Benchmark]


BENCHMARKS: Mapping[str, BenchmarkEntry] = MappingProxyType(
    {
        "rotated": BenchmarkEntry(spec=rotated.RotatedSpec, build=rotated.build),
        "permuted": BenchmarkEntry(spec=permuted.PermutedSpec, build=permuted.build),
        "split": BenchmarkEntry(spec=split.SplitSpec, build=split.build),
        "sequential": BenchmarkEntry(spec=sequential.SequentialSpec, build=sequential.build),
        "turning": BenchmarkEntry(spec=turning.TurningSpec, build=turning.build),
    }
)

PRESETS: Mapping[str, BenchmarkSpec] = MappingProxyType(
    {
        "r-mnist": rotated.RotatedSpec(base="mnist"),
        "p-mnist": permuted.PermutedSpec(base="mnist"),
        "r-digits": rotated.RotatedSpec(base="digits"),
        "p-digits": permuted.PermutedSpec(base="digits"),
        "split-cifar100": split.SplitSpec(base="cifar100"),
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
    }
)


def benchmark_name(benchmark: Mapping[str, Any]) -> str:
    """What a benchmark is called in tables, figures and MLflow: as its preset is, however many tasks it has.

    What was tested on held-out training images never passes for the test set.

    Args:
        benchmark: its spec as JSON has it, which may be a newer crwn's.

    Returns:
        The name of the preset of the same kind, base set and knowledge of the task; of what has no preset
        `kind-base`; with `-validation` where images are held out.
    """
    kind, base, is_told = benchmark["kind"], benchmark["base"], benchmark.get("task_known", True)
    named = (
        name
        for name, preset in PRESETS.items()
        if (preset.kind, preset.base, getattr(preset, "task_known", True)) == (kind, base, is_told)
    )
    return next(named, f"{kind}-{base}") + ("-validation" if benchmark.get("validation") else "")


MOST_TASKS = 100_000
"""Of a record's benchmark whose sizes are worked out: it may be a stranger's, and names each task's size."""


def problem_of(benchmark: Mapping[str, Any]) -> ProblemShape | None:
    """The sizes of a benchmark from its spec as JSON has it, whatever a method does with them.

    Args:
        benchmark: of a record, that may be a stranger's, or of a newer crwn.

    Returns:
        None where it is not the spec of a benchmark that is known here.
    """
    entry = BENCHMARKS.get(str(benchmark.get("kind")))
    num_tasks = benchmark.get("num_tasks")
    if entry is None or (isinstance(num_tasks, int) and num_tasks > MOST_TASKS):
        return None
    try:
        spec: BenchmarkSpec = entry.spec(**{name: value for name, value in benchmark.items() if name != "kind"})
    except (TypeError, ValueError):
        return None
    return spec.problem()
