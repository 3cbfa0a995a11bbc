"""A Ray cluster, or Ray on this machine: connections, machines, and their resources."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RaySystemError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crwn.paths import expanded
from orchestrator.errors import UnavailableError, UserError
from orchestrator.execution.protocol import Capacity, NodeResources
from orchestrator.execution.reaching_ray import check_cluster, check_start, cluster_address, ray_folder
from orchestrator.execution.resources import nodes_to_come
from orchestrator.execution.survey import NodeReport, Questions, gpu_memory, look

SURVEY_SECONDS = 600.0
"""Seconds that a machine may take to answer; the first task there starts Python and may decode photographs."""

PATIENCE_SECONDS, PAUSE_SECONDS = 60.0, 1.0
"""Seconds that a head may take to answer, and the pause between two requests."""

AUTOSCALER_FILE = Path("~/ray_bootstrap_config.yaml")
"""The file on the head in which `ray up` lists the machines that it may start."""

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials keep the driver's working folder
    "RAY_USAGE_STATS_ENABLED": "0",  # send no telemetry
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they would duplicate the store's content on disk
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's handler makes an interrupted run look finished
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the store keeps errors, and the command line shows them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Must be set before Ray starts; the user's own settings take precedence."""


def connect() -> bool:
    """Connect to a cluster or start a local one; returns whether this call did so.

    Raises:
        UnavailableError: $RAY_ADDRESS names a cluster that cannot be reached, or Ray does not start here.
    """
    if ray.is_initialized():
        return False
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = cluster_address()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        check_cluster(address)
        what_to_do = (
            "Start one with `ray start --head`, or unset the variable to use this machine. A cluster with token "
            "authentication (Ray's default) requires RAY_AUTH_MODE=token here, and its token in ~/.ray/auth_token."
        )
        with _own_sigterm(), _explained(f"$RAY_ADDRESS: connecting to the Ray cluster at {address} failed", what_to_do):
            ray.init(address=address, **quiet)
    else:
        check_start()
        what_to_do = (
            f"Its logs are in {ray_folder().logs}; it may lack memory, processes (ulimit -u), open files (ulimit -n) "
            "or, on a busy machine, time: try again. Or run the trials without it: --executor inline."
        )
        # "local" never looks for an earlier cluster, whose stale address could make it hang.
        with _own_sigterm(), _compiled_kept(), _explained("Ray could not be started on this machine", what_to_do):
            ray.init(address="local", include_dashboard=False, num_cpus=len(os.sched_getaffinity(0)), **quiet)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    return True


@contextlib.contextmanager
def _explained(what_failed: str, what_to_do: str) -> Iterator[None]:
    """Turn any exception of Ray's start or connection into a one-line error.

    Raises:
        UnavailableError: instead of Ray's errors.
    """
    try:
        yield
    except Exception as error:
        raise UnavailableError("ray-not-started", f"{what_failed}: {_reason(error)}. {what_to_do}") from error


def _reason(error: BaseException) -> str:
    """What went wrong, in one line: the messages of the error and of its causes."""
    said = [line for cause in _causes(error) if (line := next(iter(str(cause).strip().splitlines()), ""))]
    return ": ".join(dict.fromkeys(line.rstrip(".") for line in said)) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep our SIGTERM handler: Ray's own ends a driver at once, leaving MLflow's runs marked as running."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _compiled_kept() -> Iterator[None]:
    """Let Ray's processes keep compiled modules, which container images often forbid.

    Otherwise, each compiles all modules at every start, which on a busy machine takes longer than Ray waits.
    """
    before = os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["PYTHONDONTWRITEBYTECODE"] = before


def alive() -> list[dict[str, Any]]:
    """The machines that are up. Ray gives a busy head five seconds to answer; we allow a minute.

    Raises:
        UserError: the head did not answer.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        except RaySystemError as error:
            if time.monotonic() > until:
                raise UserError(
                    "cluster-silent", f"expected the cluster's head to answer: {error}. Check it with: ray status"
                ) from error
            time.sleep(PAUSE_SECONDS)
        else:
            return [node for node in nodes if node["Alive"]]


def cluster_nodes() -> list[NodeResources]:
    """The machines of the cluster, and those that its autoscaler may add."""
    running = [
        NodeResources(cpus=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
        for node in alive()
    ]
    # Without a named cluster, Ray was started on this machine for this run, and starts no other machines.
    if not cluster_address():
        return running
    with contextlib.suppress(ValueError):  # a user without a home folder has not started a cluster
        running.extend(nodes_to_come(expanded(AUTOSCALER_FILE)))
    return running


def ask_each(questions: Questions) -> Mapping[str, NodeReport | str]:
    """The answers of the cluster's machines that have CPUs or GPUs for trials, by address."""
    asked = {
        node["NodeManagerAddress"]: ray.remote(look)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(questions)
        for node in alive()
        if node["Resources"].get("CPU") or node["Resources"].get("GPU")
    }
    return {address: _answer(reference) for address, reference in asked.items()}


def _answer(reference: Any) -> NodeReport | str:
    """A machine's answer, or why there is none."""
    try:
        report: NodeReport = ray.get(reference, timeout=SURVEY_SECONDS)
    except (RayError, ImportError) as error:  # it left, lacks crwn, or is too busy
        return str(error).strip().splitlines()[-1]
    return report


def cluster_capacity() -> Capacity:
    """The resources of the cluster's machines, including those that its autoscaler may add."""
    nodes = tuple(cluster_nodes())
    return Capacity(nodes=nodes, gpu_memory=_smallest_gpu() if any(node.gpus >= 1 for node in nodes) else None)


def _smallest_gpu() -> int | None:
    """Memory of the smallest GPU of the cluster's machines, in bytes.

    None if torch cannot use any GPU of some machine with GPUs, or if no machine with a GPU is up yet, although an
    autoscaler may start some.
    """
    look_there = ray.remote(gpu_memory)
    asked = [
        look_there.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in alive()
        if node["Resources"].get("GPU")
    ]
    sizes: list[list[int]] = ray.get(asked)
    return min(min(memories) for memories in sizes) if sizes and all(sizes) else None
