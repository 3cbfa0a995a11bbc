"""Whether any machine has the resources that a trial requests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from orchestrator.errors import UserError
from orchestrator.execution.protocol import NodeResources
from orchestrator.execution.resources import check_resources, nodes_to_come, this_machine
from orchestrator.sweeps.sweep import Resources
from tests.refusals import refused

SMALL = NodeResources(cpus=2, gpus=0)
LARGE = NodeResources(cpus=16, gpus=4)


@pytest.mark.parametrize(
    ("resources", "nodes"),
    [
        (Resources(), [SMALL]),
        (Resources(cpus=2.0, gpus=0), [SMALL]),
        (Resources(cpus=0.5), [SMALL]),
        (Resources(cpus=16, gpus=4), [SMALL, LARGE]),
        (Resources(gpus=0.25), [LARGE]),
    ],
)
def test_a_request_that_one_machine_can_meet_passes(resources: Resources, nodes: list[NodeResources]) -> None:
    """One machine is enough; without a request for GPUs, none is needed."""
    check_resources(resources, nodes)


@pytest.mark.parametrize(
    ("resources", "nodes"),
    [
        (Resources(cpus=3), [SMALL, SMALL]),
        (Resources(gpus=0.25), [SMALL]),
        (Resources(cpus=17, gpus=1), [SMALL, LARGE]),
        (Resources(cpus=4, gpus=1), [NodeResources(cpus=8, gpus=0), NodeResources(cpus=2, gpus=8)]),
        (Resources(), []),
    ],
)
def test_a_request_that_no_machine_can_meet_is_refused(resources: Resources, nodes: list[NodeResources]) -> None:
    """CPUs and GPUs must be on one machine: a trial is not split over two."""
    with refused(UserError, "resources-too-large", says=["--cpus", "--gpus"]):
        check_resources(resources, nodes)


def test_the_message_says_what_is_asked_for_and_what_there_is() -> None:
    """Each kind of machine once."""
    facts = ["1 CPUs", "8 GPUs", ": 16 CPUs and 4 GPUs; 2 CPUs and 0 GPUs."]
    with refused(UserError, "resources-too-large", says=facts):
        check_resources(Resources(cpus=1, gpus=8), [SMALL, LARGE, SMALL])


def test_no_machine_is_said_to_be_none() -> None:
    """A cluster without machines."""
    with refused(UserError, "resources-too-large", says=": no machine."):
        check_resources(Resources(), [])


def test_this_machine_is_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores it is bound to, not those the machine has; GPUs are looked for only where they are asked for."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert this_machine(count_gpus=False) == NodeResources(cpus=3, gpus=0)


def test_machines_that_can_still_come_are_known_from_the_clusters_file(tmp_path: Path) -> None:
    """The project's own cluster file, as `ray up` leaves it on the head: workers with GPUs, the head not once more."""
    from ray.autoscaler._private.util import prepare_config

    config = yaml.safe_load((Path(__file__).resolve().parents[3] / "cluster.yaml").read_text())
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(json.dumps(prepare_config(config)))
    assert nodes_to_come(file) == [NodeResources(cpus=8, gpus=1)]


@pytest.mark.parametrize("content", [None, "", "[]", "{", "available_node_types: {a: }", "available_node_types: 3"])
def test_without_a_clusters_file_no_machines_can_come(tmp_path: Path, content: str | None) -> None:
    """Nor with one that says nothing."""
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_text(content)
    assert nodes_to_come(file) == []
