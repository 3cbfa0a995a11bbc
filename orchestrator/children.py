"""Child processes that never outlive this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def child(command: Sequence[str], *, patience: float, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a process while the block runs, then end it and all processes that it started.

    It runs in its own session, so that Ctrl-C reaches only this process.

    Args:
        command: the program and its arguments.
        patience: seconds between SIGTERM and SIGKILL, which also ends processes that are stopped or ignore SIGTERM.
        options: those of `subprocess.Popen`.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(command, start_new_session=True, **options)  # noqa: S603 (the callers' own programs)
    try:
        yield process
    finally:
        try:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(patience)
        finally:  # even if the user presses Ctrl-C again
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
