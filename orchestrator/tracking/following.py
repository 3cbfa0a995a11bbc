"""Keeps MLflow up to date: in a separate process while a sweep runs, and with `crwn sync`.

The process that follows a sweep polls the store and writes what is new, so a tracking server that is down, slow or full
can neither stop nor slow down a trial. It reports its problem, or no problem, in lines of JSON. When its input
ends, also because the driver was killed, it makes a last pass and exits, so no run stays marked as running.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from orchestrator.children import child
from orchestrator.display import print_line
from orchestrator.errors import UnfinishedError, UserError
from orchestrator.store.locks import TakenError
from orchestrator.store.store import Store
from orchestrator.tracking.address import TRACKING_VARIABLE, TrackingError

if TYPE_CHECKING:
    from orchestrator.tracking.tracker import Tracker

PAUSE, MAX_PAUSE, PAUSE_COST_FACTOR = 2.0, 30.0, 10
"""Seconds between two passes; more if a pass takes long."""
PATIENCE, TROUBLE_PATIENCE, INTERRUPTED_PATIENCE = 120.0, 1.0, 3.0
"""Seconds after which the end of a run no longer waits: for a silent follower (on a busy machine a database or a report
takes long to make), in trouble, after Ctrl-C."""
NOTE_SECONDS = 5.0
"""Seconds of waiting after which the end of a run says so."""


@dataclass(slots=True)
class _Heard:
    """The reports of a follower: the time of the last one, its problem, and the first problem, which was printed."""

    at: float = 0.0
    trouble: str = ""
    printed: str | None = None


@contextlib.contextmanager
def followed(store: Store, sweep: str, uri: str, console: Console) -> Iterator[None]:
    """Show a sweep in MLflow from a separate process while the block runs, and complete it afterwards.

    Args:
        store: the store, which this process drives; its mark `behind` says afterwards whether MLflow is out of date.
        sweep: the sweep's name.
        uri: MLflow's tracking URI.
        console: where to report an error, once.
    """
    heard = _Heard()

    def complain(trouble: str) -> None:
        if heard.printed is None:
            heard.printed = trouble
            command = f"crwn sync {shlex.quote(store.address)}"
            print_line(console, f"note: {trouble}. The sweep continues without it; to catch up: {command}")

    def listen(lines: IO[str]) -> None:
        with lines:
            for line in lines:
                heard.at, heard.trouble = time.monotonic(), json.loads(line)
                if heard.trouble:
                    complain(heard.trouble)

    # -P: do not import files of the working folder as modules
    command = [sys.executable, "-P", "-m", "orchestrator.tracking.following", store.address, sweep]
    environment = {**os.environ, TRACKING_VARIABLE: uri}  # it may have a password, which ps must not show
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        try:
            process = stack.enter_context(child(command, patience=0, env=environment, text=True, **streams))
        except OSError as error:  # no more processes are available
            complain(_words(error))
            yield
            return
        assert process.stdin is not None
        assert process.stdout is not None
        listener.submit(listen, process.stdout)
        is_interrupted = True
        try:
            yield
            is_interrupted = False
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            reason = _wait(process, heard, console, is_interrupted=is_interrupted)
            if reason not in (None, heard.printed):
                print_line(console, f"note: not waiting for MLflow: {reason}")


def _wait(process: subprocess.Popen[str], heard: _Heard, console: Console, *, is_interrupted: bool) -> str | None:
    """Wait until a follower has ended, or is not expected to end soon.

    Returns:
        Why it did not end well; None if it did, or if the run was interrupted.
    """
    ended = time.monotonic()
    has_noted = is_interrupted
    while (code := process.poll()) is None:
        time.sleep(0.05)
        now = time.monotonic()
        if is_interrupted:
            reason, deadline = None, ended + INTERRUPTED_PATIENCE
        elif heard.trouble:
            reason, deadline = heard.trouble, ended + TROUBLE_PATIENCE
        else:  # without limit, as long as it sends heartbeats
            reason = f"the process that writes it reported nothing for {PATIENCE:g} s; a server or disk may be slow"
            deadline = max(ended, heard.at) + PATIENCE
        if now > deadline:
            return reason
        if now > ended + NOTE_SECONDS and not has_noted:
            has_noted = True
            print_line(console, "mlflow: writing the last results; the run ends when this is done, or on Ctrl-C")
    if code == 0 or is_interrupted:
        return None
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return heard.trouble or f"the process that writes it {how}"


def connected(store: Store, uri: str) -> Tracker:
    """A tracker of a store; creates a missing database. Raises `TrackingError` if MLflow does not answer."""
    from orchestrator.tracking.tracker import Tracker  # noqa: PLC0415 (seconds, for MLflow)

    return Tracker(store, uri)


def follow(store: Store, sweep: str, uri: str, ended: threading.Event, say: Callable[[str], None]) -> None:
    """Keep a sweep in MLflow up to date until `ended`, with a last pass after that.

    Args:
        store: the store.
        sweep: the sweep's name.
        uri: MLflow's tracking URI.
        ended: set when the run has ended.
        say: called with each problem, and with an empty string after each trial and each pass.
    """
    tracker, lock = None, store.tracking_lock()
    while True:
        is_last = ended.is_set()
        began = time.monotonic()
        try:
            store.check()  # another store may be at its address by now
            if not lock.is_held:
                lock.acquire(timeout=MAX_PAUSE)
            tracker = tracker or connected(store, uri)
            tracker.sync(store.manifest(sweep), driven=not is_last, on_trial=partial(say, ""))
            if is_last:
                store.mark_behind(sweep, behind=False)
            say("")
        except Exception as error:  # noqa: BLE001 (any error is reported and retried)
            say(_words(error))
        if is_last:
            lock.release()
            return
        ended.wait(min(max(PAUSE, PAUSE_COST_FACTOR * (time.monotonic() - began)), MAX_PAUSE))


def _words(error: Exception) -> str:
    if isinstance(error, TakenError):
        return "another process shows this store in MLflow"
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    return f"MLflow could not be used: {type(error).__name__}: {error}".splitlines()[0]


def sync(store: Store, uri: str, console: Console) -> None:
    """Show all sweeps of a store in MLflow: write only what is missing.

    Raises:
        UserError: MLflow cannot be written, or another process is writing it.
        UnfinishedError: writing failed after some trials were written.
    """
    lock = store.tracking_lock()
    try:
        lock.acquire(timeout=1.0)
    except (TakenError, OSError) as error:
        code, reason = "store-not-writable", f"expected a store that can be written: {error}"
        if isinstance(error, TakenError):
            code, reason = "store-driven", "a run is working on this store and updates MLflow itself"
        raise UserError(code, f"{store.address}: {reason}.") from error
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    try:
        driven, tracker = store.is_driven, connected(store, uri)
        with bar:
            for manifest in store.manifests():
                total = len(manifest.trial_ids)
                task = bar.add_task(manifest.name, total=total)
                written = tracker.sync(manifest, driven=driven, on_trial=partial(bar.advance, task))
                store.mark_behind(manifest.name, behind=driven)
                news = f"{written} of {total} trials written; the others were already up to date"
                print_line(console, f"{manifest.name}: {news}")
    except TrackingError as error:
        kind = UnfinishedError if any(task.completed for task in bar.tasks) else UserError
        raise kind(error.codes, f"{_words(error)}. The store is intact; run crwn sync again.") from error
    finally:
        lock.release()


def main() -> None:
    """The follower: `python -m orchestrator.tracking.following STORE SWEEP`; it ends when its input ends."""
    root, sweep = sys.argv[1:]
    os.nice(10)  # trials come first
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # stopping a cluster's job signals all its processes
        signal.signal(sign, signal.SIG_IGN)
    ended, channel = threading.Event(), sys.stdout
    sys.stdout = sys.stderr  # output of libraries is not a report

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    def say(trouble: str) -> None:
        with contextlib.suppress(OSError):  # the driver was killed
            print(json.dumps(trouble), file=channel, flush=True)

    threading.Thread(target=listen, daemon=True).start()
    follow(Store(root).followed(), sweep, os.environ[TRACKING_VARIABLE], ended, say)
    os._exit(0)  # or Python complains about a broken pipe at exit


if __name__ == "__main__":
    main()
