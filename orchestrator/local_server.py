"""A server in a process of its own, for this machine alone, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from orchestrator.children import child
from orchestrator.display import hide_password
from orchestrator.errors import UserError
from orchestrator.waiting import waiting

HOST = "127.0.0.1"
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 180.0, 5.0, 0.2


def check_port(port: int) -> None:
    """Check that nothing listens on a port of this machine.

    Raises:
        UserError: something does.
    """
    if _is_open(port):
        raise UserError(
            "port-taken", f"--port: expected a free port, given {port}. Stop the program that uses it, or name another."
        )


def serve(
    command: Sequence[str],
    port: int,
    console: Console,
    *,
    name: str,
    announce: Callable[[], None],
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> None:
    """Run a server until Ctrl-C, then end it and all processes that it started.

    Args:
        command: the server and its arguments.
        port: where it will listen.
        console: where a slow start is reported.
        name: the server's name, for messages.
        announce: called once the server listens.
        environment: its environment variables.
        folder: its working folder; default: this process's.

    Raises:
        UserError: it does not start, or exits by itself.
    """
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryFile() as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        with child(command, patience=STOP_SECONDS, env=environment, cwd=folder, **streams) as server:
            deadline = time.monotonic() + START_SECONDS
            with waiting(f"{name} to start", console):
                while not (is_up := _is_open(port)) and server.poll() is None and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)
            if is_up:
                announce()
                server.wait()
        size = os.fstat(log.fileno()).st_size
        said = os.pread(log.fileno(), 2000, max(0, size - 2000)).decode(errors="replace")
        how = "exited by itself" if is_up else f"did not start within {START_SECONDS:g} s"
        raise UserError("server-failed", f"{name} {how}:\n{hide_password(said)}")


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
