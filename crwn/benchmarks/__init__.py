"""Benchmarks: one file each, a frozen spec and the tasks it stands for.

`BENCHMARKS` is the registry; `PRESETS` are the benchmarks of the paper, and their twins on embedded data, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crwn.benchmarks import permuted, rotated, split
from crwn.spec import BenchmarkSpec

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
    }
)
