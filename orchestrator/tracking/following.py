"""Keeps MLflow up to date: in a separate process while a sweep runs, and with `crwn sync`.

The process that follows a sweep polls the store and writes what is new, so a tracking server that is down, slow or full
can neither stop nor slow down a trial. It reports in JSON lines. When its input ends, also because the driver was
killed, it makes a last pass and exits, so no run stays marked as running in MLflow.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress

from orchestrator.display import print_line
from orchestrator.errors import UnfinishedError, UserError
from orchestrator.store.locks import TakenError
from orchestrator.store.store import Store
from orchestrator.tracking import database
from orchestrator.tracking.address import TRACKING_VARIABLE, sqlite_file
from orchestrator.tracking.errors import TrackingError

PAUSE = 2.0
"""Seconds between two passes; more if a pass takes long."""
MAX_PAUSE = 30.0
PAUSE_COST_FACTOR = 10
TROUBLE_PAUSE, MAX_TROUBLE_PAUSE = 2.0, 15.0
"""First and longest pause between attempts at a server that cannot be written, in seconds."""
PATIENCE, TROUBLE_PATIENCE, INTERRUPTED_PATIENCE = 30.0, 1.0, 3.0
"""Seconds after which the end of a run stops waiting: for a silent follower (a busy machine is slow to start Python,
and to run a process of lower priority), after an error, after Ctrl-C."""
SIGN_PAUSE = 1.0
"""Seconds between two heartbeats while this machine is working: creating a database, computing tables."""
NOTE_SECONDS = 5.0
"""Seconds of waiting after which the end of a run says so."""
NICENESS = 10
"""The follower's niceness: trials take precedence."""


class Follower:
    """The driver's side: starts the process that follows a sweep, and listens to it. Use it in a `with` block.

    Args:
        store: the store, which this process drives.
        sweep: the sweep's name.
        uri: MLflow's tracking URI.
        console: where an error is reported, once.
    """

    def __init__(self, store: Store, sweep: str, uri: str, console: Console) -> None:
        self._store = store
        self._sweep = sweep
        self._uri = uri
        self._console = console
        self._process: subprocess.Popen[str] | None = None
        self._trouble: str | None = None
        self._said: str | None = None
        self._heard: float | None = None

    def __enter__(self) -> Follower:
        try:
            self._process = subprocess.Popen(  # noqa: S603 (this project's own module)
                # -P: do not import files of the working folder as modules
                [sys.executable, "-P", "-m", "orchestrator.tracking.following", self._store.address, self._sweep],
                env={**os.environ, TRACKING_VARIABLE: self._uri},  # not as an argument: ps must not show a password
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C reaches only the driver, which ends this process itself
            )
        except OSError as error:  # no more processes are available
            self._complain(_words(error))
            return self
        self._listener = threading.Thread(target=self._listen, args=[self._process], daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        reason = None
        try:
            reason = self._wait(process, interrupted=kind is not None)
        finally:
            process.kill()  # SIGKILL, since it may be stopped or ignore signals
            process.wait()
            self._listener.join()
            process.stdout.close()
            if (file := sqlite_file(self._uri)) is not None:
                database.clear(file)
        if reason not in (None, self._said):
            print_line(self._console, f"note: MLflow is not waited for: {reason}")

    @property
    def is_current(self) -> bool:
        """Whether MLflow shows everything in the store; valid after the end."""
        return not self._store.is_behind(self._sweep)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._heard = time.monotonic()
            news = json.loads(line)
            if not news:
                continue  # a heartbeat
            self._trouble = news.get("trouble")
            if self._trouble:
                self._complain(self._trouble)

    def _complain(self, trouble: str) -> None:
        """Report the first error."""
        if self._said is None:
            self._said = trouble
            command = f"crwn sync {shlex.quote(self._store.address)}"
            print_line(self._console, f"note: {trouble}. The sweep goes on without it; catch up with: {command}")

    def _wait(self, process: subprocess.Popen[str], *, interrupted: bool) -> str | None:
        """Wait until the follower has ended, or will probably not end soon.

        Returns:
            Why it did not end well; None if it did, or if the run was interrupted.
        """
        ended = time.monotonic()
        has_noted = False
        while (code := process.poll()) is None:
            time.sleep(0.05)
            if interrupted:
                reason, deadline = None, ended + INTERRUPTED_PATIENCE
            elif self._trouble:
                reason, deadline = self._trouble, ended + TROUBLE_PATIENCE
            elif self._heard is None:
                reason = f"the process that writes it has not started within {PATIENCE:g} s"
                deadline = ended + PATIENCE
            else:  # as long as it takes, if it sends heartbeats
                reason = f"the process that writes it said nothing for {PATIENCE:g} s; a server may be slow, or a disk"
                deadline = max(ended, self._heard) + PATIENCE
            now = time.monotonic()
            if now > deadline:
                return reason
            if not (has_noted or interrupted or self._trouble) and now > ended + NOTE_SECONDS:
                has_noted = True
                print_line(self._console, "mlflow: being brought up to date; the run's end waits for that (or Ctrl-C)")
        if code == 0 or interrupted:
            return None
        end = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return self._trouble or f"the process that writes it {end}"


def follow(
    store: Store, sweep: str, uri: str, ended: threading.Event, say: Callable[[Mapping[str, Any]], None]
) -> None:
    """Keep a sweep in MLflow up to date until `ended`, with a last pass after that.

    Args:
        store: the store.
        sweep: the sweep's name.
        uri: MLflow's tracking URI.
        ended: set when there will be no more news.
        say: called with `{"left": n}` after each trial and each pass, and with `{"trouble": ...}` after an error.
    """
    tracker, trouble_pause = None, TROUBLE_PAUSE
    lock = store.tracking_lock()
    # A database on this machine may be slow, or wait for another process; a slow server does not get this patience.
    at_work = contextlib.nullcontext if sqlite_file(uri) is None else lambda: _signs_of_life(say)
    while True:
        is_last = ended.is_set()
        began = time.monotonic()
        try:
            from orchestrator.tracking.tracker import Tracker  # noqa: PLC0415 (seconds, for MLflow)

            store.check()  # its address may hold another store by now
            if not lock.is_held:
                with _signs_of_life(say):
                    lock.acquire(timeout=PATIENCE)
            with at_work():
                tracker = tracker or Tracker(store, uri, computing=lambda: _signs_of_life(say))
                tracker.sync(store.manifest(sweep), driven=not is_last, on_trial=lambda left: say({"left": left}))
        except Exception as error:  # noqa: BLE001 (any error is reported and retried)
            say({"trouble": _words(error)})
            pause, trouble_pause = trouble_pause, min(2 * trouble_pause, MAX_TROUBLE_PAUSE)
        else:
            say({"left": 0})
            pause = min(max(PAUSE, PAUSE_COST_FACTOR * (time.monotonic() - began)), MAX_PAUSE)
            trouble_pause = TROUBLE_PAUSE
            if is_last:
                store.mark_behind(sweep, behind=False)
        if is_last:
            lock.release()
            return
        ended.wait(pause)


@contextlib.contextmanager
def _signs_of_life(say: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Send heartbeats during work that may take long, since a silent follower is given up."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(SIGN_PAUSE):
            say({})

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _words(error: Exception) -> str:
    match error:
        case TrackingError() | UserError():
            return str(error).rstrip(".")
        case TakenError():
            return "another process shows this store in MLflow"
        case _:
            return f"MLflow could not be used: {type(error).__name__}: {error}".splitlines()[0]


REMEDY = "What the store has is safe; run crwn sync again."


def sync(store: Store, uri: str, console: Console) -> None:
    """Show all sweeps of a store in MLflow: write what is missing, and nothing twice.

    Raises:
        UserError: MLflow cannot be written, or another process is writing it.
        UnfinishedError: writing failed after some trials were written.
    """
    lock = store.tracking_lock()
    try:
        lock.acquire(timeout=1.0)
    except TakenError as error:
        raise UserError(
            f"{store.address}: a run is working on this store and keeps MLflow up to date itself."
        ) from error
    except OSError as error:
        raise UserError(f"{store.address}: expected a store that can be written: {error}.") from error
    trials: list[int] = []
    try:
        _sync(store, uri, console, trials.append)
    except TrackingError as error:
        raise (UnfinishedError if trials else UserError)(f"{_words(error)}. {REMEDY}") from error
    finally:
        lock.release()


def _sync(store: Store, uri: str, console: Console, on_trial: Callable[[int], None]) -> None:
    from orchestrator.tracking.tracker import Tracker  # noqa: PLC0415 (seconds, for MLflow)

    driven = store.is_driven
    tracker = Tracker(store, uri)
    for manifest in store.manifests():
        name = manifest.name
        num_trials = len(manifest.trial_ids)
        with _bar(console, name, num_trials) as show:

            def tell(left: int, show: Callable[[int], None] = show) -> None:
                on_trial(left)
                show(left)

            written = tracker.sync(manifest, driven=driven, on_trial=tell)
        store.mark_behind(name, behind=driven)
        print_line(console, f"{name}: {written} of {num_trials} trials written; the others were up to date")


def check(store: Store, uri: str) -> None:
    """Check that MLflow answers; a missing database is created.

    Raises:
        UserError: it does not answer.
    """
    from orchestrator.tracking.tracker import Tracker  # noqa: PLC0415 (seconds, for MLflow)

    try:
        Tracker(store, uri)
    except TrackingError as error:
        raise UserError(_words(error)) from error


@contextlib.contextmanager
def _bar(console: Console, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar in a terminal; yields a function to call with the number left."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda left: bar.update(task, completed=total - left)


def main() -> None:
    """The follower: `python -m orchestrator.tracking.following STORE SWEEP`; it ends when its input ends."""
    root, sweep = sys.argv[1:]
    uri = os.environ[TRACKING_VARIABLE]
    os.nice(NICENESS)
    for sign in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # stopping a cluster's job sends them to all of its processes
        signal.signal(sign, signal.SIG_IGN)
    ended = threading.Event()
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (not a user's path)
        os.dup2(nowhere.fileno(), sys.stdout.fileno())  # discard what libraries print

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    speaking = threading.Lock()

    def say(news: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError), speaking:  # the driver was killed, so nobody listens
            channel.write(json.dumps(news) + "\n")
            channel.flush()

    threading.Thread(target=listen, daemon=True).start()
    say({})
    # Errors are reported where it is used
    with contextlib.suppress(Exception), _signs_of_life(say):
        importlib.import_module("orchestrator.tracking.tracker")
    follow(Store(root).followed(), sweep, uri, ended, say)
    os._exit(0)  # or Python complains about a broken pipe at exit


if __name__ == "__main__":
    main()
