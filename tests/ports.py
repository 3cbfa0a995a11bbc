"""Ports for the servers that tests start."""

from __future__ import annotations

import functools
import os
import random
import socket
from collections.abc import Iterator

RANGE = range(20_000, 32_768)
"""Above those that Ray gives its workers, and below those that a system gives whoever asks for any: between the moment
in which a port is seen to be free and the one in which its server takes it, nobody else is given it."""
MOST_PROCESSES = 8
"""Of a test run: each chooses from ports of its own."""


def free_port() -> int:
    """A port of this machine that nothing listens at; another one at each call."""
    return next(port for port in _ports() if _is_free(port))


@functools.cache
def _ports() -> Iterator[int]:
    """This process's, in any order."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = RANGE[process % MOST_PROCESSES :: MOST_PROCESSES]
    return iter(random.sample(ports, len(ports)))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
