"""Starting Ray and connecting to it: for this run only, without a dashboard, with retries if its head is busy."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import RaySystemError

from orchestrator.errors import UnavailableError, UserError
from orchestrator.execution import ray_cluster, ray_tune, reaching_ray
from orchestrator.sweeps.sweep import Resources
from tests.refusals import refused


@pytest.fixture
def initialised(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Replaces `ray.init` with a test's function; returns its arguments."""

    def replace(error: Exception | None = None) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def init(**named: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray's own does
            asked.append({**named, "environment": dict(os.environ)})
            if error is not None:
                raise error

        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", init)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        for name in ray_cluster.ENVIRONMENT:
            monkeypatch.setenv(name, "as it was")
        return asked

    return replace


@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_local_ray_has_no_dashboard(
    initialised: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    """Where no cluster is named none is looked for, and the dashboard, which starts jobs, cannot be reached."""
    asked = initialised()
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert ray_cluster.connect()
    (named,) = asked
    assert named["address"] == "local"
    assert named["include_dashboard"] is False
    assert not {"dashboard_host", "_node_ip_address"} & named.keys()


def test_rays_processes_keep_compiled_modules(
    initialised: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the environment forbids it, which is restored afterwards: otherwise, each process recompiles them."""
    asked = initialised()
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    ray_cluster.connect()
    assert "PYTHONDONTWRITEBYTECODE" not in asked[0]["environment"]
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"


def test_a_head_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while; then the error says that it does not respond."""
    answers: list[Any] = [RaySystemError("Failed to connect to GCS"), [{"Alive": True}, {"Alive": False}]]

    def nodes() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(ray_cluster, "PAUSE_SECONDS", 0.0)
    assert ray_cluster.alive() == [{"Alive": True}]
    answers.append(RaySystemError("Failed to connect to GCS"))
    monkeypatch.setattr(ray_cluster, "PATIENCE_SECONDS", -1.0)
    with refused(UserError, "cluster-silent", says=["connect to GCS", "ray status"]):
        ray_cluster.alive()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(98, "Address in use"), "[Errno 98] Address in use"),
        (Exception("The current node timed out.\nSecond line\n"), "The current node timed out"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line(
    initialised: Callable[..., list[dict[str, Any]]], error: Exception, reason: str
) -> None:
    """Whatever its reason: the first line of it, where the logs are, what to do; SIGTERM does what it did before."""
    initialised(error)
    before = signal.getsignal(signal.SIGTERM)
    facts = [f": {reason}. ", "session_latest/logs", "ulimit -u", "--executor inline"]
    with refused(UnavailableError, "ray-not-started", says=facts) as caught:
        ray_cluster.connect()
    assert "\n" not in str(caught.value)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_cluster_that_cannot_be_joined_is_one_line(
    initialised: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what Ray says, and what that came from."""
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    error.__cause__ = RuntimeError("Version mismatch: the cluster was started with Ray 2.0.\nMore")
    initialised(error)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray_cluster, "check_cluster", lambda _: None)
    with refused(UnavailableError, "ray-not-started", says=["10.0.0.1:6379", "Version mismatch", " 2.0. "]):
        ray_cluster.connect()


def test_what_is_in_the_way_of_ray_is_found_before_a_run(
    initialised: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the check that comes before anything is written, for a folder here as for a cluster; Ray is not asked."""
    asked = initialised()
    monkeypatch.setenv("RAY_TMPDIR", f"/{'x' * 95}")
    with refused(UnavailableError, "path-too-long", says="$RAY_TMPDIR: "):
        ray_tune.RayTuneExecutor().check(Resources())
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(reaching_ray, "WAIT_SECONDS", 0.0)
    for question in (lambda: ray_tune.RayTuneExecutor().check(Resources()), ray_tune.RayTuneExecutor().capacity):
        with refused(UnavailableError, "connection-refused", says="$RAY_ADDRESS=127.0.0.1:1: "):
            question()
    assert asked == []


@pytest.mark.parametrize(
    "variables", [{}, {"TMPDIR": "/t"}, {"TMPDIR": "/t/"}, {"TMPDIR": ""}, {"TMPDIR": "/t", "RAY_TMPDIR": "/r"}]
)
def test_rays_folder_is_known_as_ray_chooses_it(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Against its own functions: the folder, the file with a cluster's address, the longest path of a socket."""
    from ray._common.utils import get_default_ray_temp_dir, get_ray_address_file
    from ray._private.utils import validate_socket_filepath

    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = reaching_ray.ray_folder()
    assert str(folder.path) == get_default_ray_temp_dir()
    assert str(folder.recorded_address) == get_ray_address_file(None)
    validate_socket_filepath("x" * reaching_ray.SOCKET_PATH_BYTES)
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath("x" * (reaching_ray.SOCKET_PATH_BYTES + 1))
