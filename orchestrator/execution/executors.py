"""Executors run trials. `EXECUTORS` is the registry; executors are imported when chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from orchestrator.execution.protocol import Executor
from orchestrator.execution.reaching_ray import cluster_address


def _inline() -> Executor:
    from orchestrator.execution.inline import InlineExecutor  # noqa: PLC0415 (imports torch)

    return InlineExecutor()


def _ray() -> Executor:
    from orchestrator.execution.ray_tune import RayTuneExecutor  # noqa: PLC0415 (imports Ray)

    return RayTuneExecutor()


EXECUTORS: Mapping[str, Callable[[], Executor]] = MappingProxyType({"inline": _inline, "ray": _ray})

FEW_TRIALS = 3
"""Up to this number of trials, running them one after another takes less time than starting Ray."""


def default_executor(num_trials: int) -> str:
    """The executor for a run with this number of pending trials; on a cluster, always Ray."""
    return "inline" if num_trials <= FEW_TRIALS and not cluster_address() else "ray"
