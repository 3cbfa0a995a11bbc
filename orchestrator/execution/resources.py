"""Checks whether any machine has the resources that a trial requests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from orchestrator.errors import UserError
from orchestrator.execution.protocol import NodeResources
from orchestrator.sweeps.sweep import Resources


def check_resources(resources: Resources, nodes: Sequence[NodeResources]) -> None:
    """Check a trial's resources against the available machines.

    Raises:
        UserError: no machine can ever provide them; a scheduler would wait forever.
    """
    gpus = resources.gpus or 0.0
    if any(node.cpus >= resources.cpus and node.gpus >= gpus for node in nodes):
        return
    have = "; ".join(sorted({f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes})) or "no machine"
    raise UserError(
        "resources-too-large",
        f"resources: a trial requests {resources.cpus:g} CPUs and {gpus:g} GPUs, more than any machine has: {have}. "
        "Request less with --cpus and --gpus, or under resources in the sweep; nothing was started.",
    )


def nodes_to_come(file: Path) -> list[NodeResources]:
    """The resources of machines that an autoscaler may start.

    Ray reports only running machines. On the head of a cluster started by `ray up`, a file lists the kinds of machines
    that it may start; without them, a cluster that has shrunk to its head would refuse every trial.

    Args:
        file: the file that `ray up` leaves in the head's home folder; it does not exist on other machines.
    """
    try:
        config = yaml.safe_load(file.read_text())
        kinds = [kind for kind in config["available_node_types"].values() if kind.get("max_workers", 0) > 0]
        return [
            NodeResources(cpus=float(kind["resources"].get("CPU", 0)), gpus=float(kind["resources"].get("GPU", 0)))
            for kind in kinds
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []


def this_machine(*, count_gpus: bool = True) -> NodeResources:
    """The CPU cores that this process may use, and the GPUs that torch can use.

    Args:
        count_gpus: whether to look for GPUs, which takes importing torch.
    """
    num_gpus = 0
    if count_gpus:
        import torch  # noqa: PLC0415 (only to count GPUs)

        num_gpus = torch.cuda.device_count()
    return NodeResources(cpus=len(os.sched_getaffinity(0)), gpus=num_gpus)
