"""Feedback during long waits: a line at least every few seconds, or an animated display in a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.text import Text

from orchestrator.display import print_line, printable

if TYPE_CHECKING:
    from crwn.data.base import OnProgress

QUIET_SECONDS = 12.0
"""Seconds of silence after which a line says what is being waited for."""

LEAST_SECONDS = 0.1
"""The shortest time between two beats."""


class Heartbeat:
    """Calls a function whenever some time has passed since the last call, or since the last reset.

    It runs in its own thread during a `with` block. Other code holds `lock` while it prints.

    Args:
        beat: the function.
        seconds: the time.
    """

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self.lock = threading.RLock()
        self._beat = beat
        self._seconds = seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.reset()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def quiet(self) -> float:
        """Seconds since the last beat or reset."""
        return time.monotonic() - self._last

    def reset(self) -> None:
        """Restart the time, since something else was printed."""
        self._last = time.monotonic()

    def _run(self) -> None:
        while not self._is_over.wait(max(LEAST_SECONDS, self._seconds - self.quiet)):
            with self.lock:
                if self.quiet >= self._seconds:
                    self.reset()
                    self._beat()


@contextmanager
def waiting(what: str, console: Console) -> Iterator[None]:
    """Say what is being waited for if a `with` block takes long."""
    if console.is_terminal:
        with console.status(Text(printable(f"waiting for {what}"))):
            yield
        return
    since = time.monotonic()

    def say() -> None:
        print_line(console, f"waiting for {what}, {time.monotonic() - since:.0f} s so far")

    with Heartbeat(say, QUIET_SECONDS):
        yield


@contextmanager
def decoding(name: str, console: Console) -> Iterator[OnProgress]:
    """Show the progress of decoding a data set: a line at the start, then a bar in a terminal, or lines."""
    since, standing = time.monotonic(), "reading files"
    progress = Progress(transient=True, disable=not console.is_terminal, console=console)
    bar = progress.add_task(escape(printable(name)), total=None, visible=False)

    def say() -> None:
        if not console.is_terminal:
            print_line(console, f"{name}: {standing}, {time.monotonic() - since:.0f} s so far")

    with progress, Heartbeat(say, QUIET_SECONDS) as heartbeat:

        def show(done: int, total: int) -> None:
            nonlocal standing
            with heartbeat.lock:
                if not progress.tasks[0].visible:
                    heartbeat.reset()
                    print_line(console, f"{name}: decoding {total:,} images, once on this machine")
                standing = f"{done:,} of {total:,} images decoded"
            progress.update(bar, completed=done, total=total, visible=True)

        yield show
