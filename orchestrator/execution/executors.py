"""Executors: where trials run. `EXECUTORS` is the registry; each is imported when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from orchestrator.execution.protocol import Executor
from orchestrator.execution.reaching_ray import cluster_address


def _inline() -> Executor:
    from orchestrator.execution.inline import InlineExecutor  # noqa: PLC0415 (brings torch)

    return InlineExecutor()


def _ray() -> Executor:
    from orchestrator.execution.ray_tune import RayTuneExecutor  # noqa: PLC0415 (brings Ray)

    return RayTuneExecutor()


EXECUTORS: Mapping[str, Callable[[], Executor]] = MappingProxyType({"inline": _inline, "ray": _ray})

FEW_TRIALS = 3
"""Up to this many trials finish sooner one after another than Ray takes to start."""


def default_executor(num_trials: int) -> str:
    """The executor for a run that has so many trials left; on a cluster its machines run them, however few."""
    return "inline" if num_trials <= FEW_TRIALS and not cluster_address() else "ray"
