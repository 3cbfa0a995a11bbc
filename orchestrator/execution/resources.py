"""Whether any machine can give a trial what it asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from orchestrator.errors import UserError
from orchestrator.execution.protocol import NodeResources
from orchestrator.sweeps.sweep import Resources


def check_resources(resources: Resources, nodes: Sequence[NodeResources]) -> None:
    """Check a trial's request against the machines there are.

    Raises:
        UserError: no machine can ever meet it; a scheduler would wait for ever.
    """
    gpus = resources.gpus or 0.0
    if any(node.cpus >= resources.cpus and node.gpus >= gpus for node in nodes):
        return
    have = "; ".join(sorted({f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes})) or "no machine"
    raise UserError(
        f"resources: a trial asks for {resources.cpus:g} CPUs and {gpus:g} GPUs, and no machine has that: {have}. "
        "Ask for less with --cpus and --gpus, or in the sweep's resources; nothing was started."
    )


def nodes_to_come(file: Path) -> list[NodeResources]:
    """What the machines have that an autoscaler may start.

    Ray tells only of machines that run. On the head of a cluster that `ray up` started, its file says which kinds of
    machines there can be, and without it a cluster that shrank to its head would refuse every trial.

    Args:
        file: that `ray up` leaves in the home folder of the head; there is none on other machines.
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
    """The CPU cores this process may use, and the GPUs that torch can use.

    Args:
        count_gpus: whether to look for GPUs, which costs torch's start-up.
    """
    num_gpus = 0
    if count_gpus:
        import torch  # noqa: PLC0415 (only to count GPUs)

        num_gpus = torch.cuda.device_count()
    return NodeResources(cpus=len(os.sched_getaffinity(0)), gpus=num_gpus)
