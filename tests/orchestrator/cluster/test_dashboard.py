"""A cluster that does not respond, or refuses access."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from orchestrator.cluster import dashboard
from tests.orchestrator.cluster.made_up import STORE, URL, Cluster, Crwn, SweepFile


def test_a_dashboard_that_takes_connections_and_is_silent_is_given_up(
    crwn: Crwn, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through a tunnel to a lost head, where Ray's client would wait forever; likewise for every command."""
    monkeypatch.setattr(dashboard, "ANSWER_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for command in (
            ("submit", sweep_file(), "--address", url, "--out", STORE),
            ("status", "--address", url),
            ("stop", "--address", url, "crwn-tiny-1"),
        ):
            refused = crwn(*command)
            assert (refused.code, refused.codes) == (2, ("cluster-unreachable",))
            assert "--address: " in refused.err
            assert f" {url}, " in refused.err


def test_the_address_given_wins_over_rays_variables(
    crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's client would prefer $RAY_ADDRESS, so it is hidden from it and restored afterwards."""
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert crwn("submit", sweep_file(), "--address", f"{URL}/", "--out", STORE).code == 0
    assert cluster.address == (URL, {})
    assert os.environ["RAY_ADDRESS"] == "elsewhere:6379"


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto", "http://", "http://head:port", ""])
def test_an_address_is_the_dashboards(crwn: Crwn, workplace: Path, address: str) -> None:
    """Ray's client would search for a cluster by itself."""
    ended = crwn("status", "--address", address)
    assert ended.code == 2
    assert ended.err == (
        f"error: --address: expected the address of Ray's dashboard, such as http://127.0.0.1:8265; given {address!r}\n"
    )


def test_a_cluster_that_is_away_is_one_clear_line(crwn: Crwn, workplace: Path) -> None:
    """Nothing listens there: the error says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ended = crwn("status", "--address", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (ended.code, ended.codes) == (2, ("cluster-unreachable",))
    for fact in ("error: --address: ", " refused", "ssh -N -L 8265:127.0.0.1:8265 HEAD"):
        assert fact in ended.err
    assert ended.err.count("\n") == 1


@pytest.fixture
def server() -> Iterator[Callable[[int, bytes], str]]:
    """Starts a server that gives every request the same answer; its address."""
    servers = []

    def start(status: int, content: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        servers.append(made)
        return f"http://127.0.0.1:{made.server_address[1]}"

    yield start
    for made in servers:
        made.shutdown()
        made.server_close()


@pytest.mark.parametrize(("status", "content"), [(404, b""), (200, b"<html>"), (500, b""), (200, b"{}")])
def test_another_server_is_no_cluster(
    crwn: Crwn, workplace: Path, server: Callable[[int, bytes], str], status: int, content: bytes
) -> None:
    """Such as MLflow's: one line, no traceback."""
    address = server(status, content)
    ended = crwn("status", "--address", address)
    assert (ended.code, ended.codes) == (2, ("not-a-dashboard",))
    assert f" {address}, " in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(("mode", "is_asked"), [(None, True), ("token", False)])
def test_a_token_that_is_missing_is_asked_for(
    crwn: Crwn, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, mode: str | None, *, is_asked: bool
) -> None:
    """The error says where it is looked for, and how to enable it."""

    def refuse() -> None:
        raise AuthenticationError("Unauthorized")

    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    cluster.on_list = refuse
    ended = crwn("status", "--address", URL)
    assert (ended.code, ended.codes) == (2, ("token-refused",))
    assert URL in ended.err
    assert ("RAY_AUTH_MODE=token" in ended.err) == is_asked
    for place in ("$RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"):
        assert place in ended.err
