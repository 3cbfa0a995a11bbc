"""How a local Ray is started: for this run alone, without a dashboard."""

from __future__ import annotations

from typing import Any

import pytest
import ray

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
