"""How Ray is started and asked: for this run alone, without a dashboard, and again where its head is busy."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import RaySystemError

from orchestrator.errors import UserError
from orchestrator.executors import ray_tune


def test_a_local_ray_has_no_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no cluster is named none is looked for, and the dashboard, which starts jobs, cannot be reached."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **named: asked.append(named))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ray_tune.ENVIRONMENT:
        monkeypatch.setenv(name, "as it was")
    assert ray_tune._connect()
    (named,) = asked
    assert named["address"] == "local"
    assert named["include_dashboard"] is False
    assert not {"dashboard_host", "_node_ip_address"} & named.keys()


def test_a_head_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while; then it is said that it does not answer."""
    answers: list[Any] = [RaySystemError("Failed to connect to GCS"), [{"Alive": True}, {"Alive": False}]]

    def nodes() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(ray_tune, "PAUSE_SECONDS", 0.0)
    assert ray_tune._alive() == [{"Alive": True}]
    answers.append(RaySystemError("Failed to connect to GCS"))
    monkeypatch.setattr(ray_tune, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(UserError, match=r"expected the cluster's head to answer: .*Failed to connect to GCS"):
        ray_tune._alive()
