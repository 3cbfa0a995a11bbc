"""Free ports for the servers that tests start."""

from __future__ import annotations

import functools
import os
import random
import socket
from collections.abc import Iterator

RANGE = range(20_000, 32_768)
"""Above the ports of Ray's workers, and below the system's ephemeral ports: between the moment
when a port is found free and the moment when its server binds it, nobody else gets it."""
MOST_PROCESSES = 8
"""Number of port ranges: each test run uses its own."""


def free_port() -> int:
    """A free port of this machine; a different one at each call."""
    return next(port for port in _ports() if _is_free(port))


@functools.cache
def _ports() -> Iterator[int]:
    """This process's ports, in any order."""
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
