"""A cluster whose dashboard answers."""

from __future__ import annotations

import socket

import pytest

from orchestrator.cluster import dashboard
from tests.orchestrator.cluster.made_up import Cluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster whose dashboard answers at URL; this machine's own variables point nowhere."""
    made = Cluster()
    monkeypatch.setattr(dashboard, "JobSubmissionClient", made)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    for name in ("MLFLOW_TRACKING_URI", "RAY_AUTH_MODE", *dashboard.OVERRIDES):
        monkeypatch.delenv(name, raising=False)
    return made
