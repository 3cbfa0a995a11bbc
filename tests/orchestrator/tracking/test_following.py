"""Keeping MLflow up to date: the follower process, the driver's side of it, and `crwn sync`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from orchestrator.errors import UserError
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.store import Store
from orchestrator.tracking import following
from orchestrator.tracking.address import TrackingError
from orchestrator.tracking.following import follow, followed, sync
from tests.refusals import refused

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err
Act = Callable[[], int]
Block = contextlib.AbstractContextManager[None]

OUTAGE = TrackingError("tracking-unreachable", "MLflow at http://x does not answer.")


class FakeTracker:
    """Stands for the one that writes to MLflow: notes its calls, and does what its test asks for.

    Attributes:
        made: the store and the address of each one that was made.
        calls: the sweep and `driven` of each pass.
        act: called in each pass; gives the number of runs written.
        make: called when one is made.
    """

    made: list[tuple[Path, str]]
    calls: list[tuple[str, bool]]
    act: Act
    make: Callable[[], None]

    def __init__(self, store: Store, uri: str) -> None:
        self.made.append((store.root, uri))
        type(self).make()

    def sync(self, manifest: Manifest, *, driven: bool, on_trial: Callable[[], object]) -> int:
        self.calls.append((manifest.name, driven))
        on_trial()
        return type(self).act()


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> type[FakeTracker]:
    """Puts a fake in the place of orchestrator/tracking/tracker.py, whose import takes seconds."""
    fake = type(
        "Tracker", (FakeTracker,), {"made": [], "calls": [], "act": staticmethod(int), "make": staticmethod(int)}
    )
    module = types.ModuleType("orchestrator.tracking.tracker")
    module.Tracker = fake  # type: ignore[attr-defined]  # that is what a module is
    monkeypatch.setitem(sys.modules, "orchestrator.tracking.tracker", module)
    return fake


CELL = ManifestCell(method="m", variant="", scale="FC16", benchmark="b", trials={0: "0" * 16, 1: "1" * 16})


@pytest.fixture
def swept(store: Store) -> Store:
    """A store with the sweep `tiny` of one cell with two trials."""
    store.write_manifest(Manifest(name="tiny", cells=(CELL,)))
    return store


class Waits(threading.Event):
    """An end that comes after a number of waits, which it notes and does not wait for."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        if len(self.seconds) == self.left:
            self.set()
        return self.is_set()


def failing(*passes: int, error: Exception = OUTAGE) -> Act:
    """What a tracker does that raises in the passes given, counted from 0."""
    count = iter(range(1000))

    def act() -> int:
        if next(count) in passes:
            raise error
        return 0

    return act


# The process: `follow`


def test_it_looks_until_the_end_and_once_more(swept: Store, tracker: type[FakeTracker]) -> None:
    """The last look, after the end, is told that nothing drives the sweep; one tracker serves all of them."""
    news: list[str] = []
    follow(swept, "tiny", "sqlite:///x", Waits(3), news.append)
    assert tracker.calls == [("tiny", True)] * 3 + [("tiny", False)]
    assert tracker.made == [(swept.root, "sqlite:///x")]
    assert news == ["", ""] * 4


def test_what_ended_before_the_first_look_is_looked_at_once(swept: Store, tracker: type[FakeTracker]) -> None:
    """A sweep with nothing left is caught up with in one pass."""
    ended = Waits(0)
    ended.set()
    follow(swept, "tiny", "sqlite:///x", ended, lambda _: None)
    assert tracker.calls == [("tiny", False)]
    assert ended.seconds == []


def test_trouble_is_said_and_tried_again(swept: Store, tracker: type[FakeTracker]) -> None:
    """Each time; a pass that succeeds says that it is over."""
    tracker.act = failing(0, 1, 3)
    news: list[str] = []
    follow(swept, "tiny", "sqlite:///x", Waits(4), news.append)
    trouble = "MLflow at http://x does not answer"
    assert news[1::2] == [trouble, trouble, "", trouble, ""]


def test_a_server_that_is_not_there_yet_is_tried_again(swept: Store, tracker: type[FakeTracker]) -> None:
    """A tracker that could not be made is made again, and then kept."""
    count = iter(range(1000))

    def make() -> None:
        if next(count) < 2:
            raise OUTAGE

    tracker.make = make
    follow(swept, "tiny", "sqlite:///x", Waits(4), lambda _: None)
    assert len(tracker.made) == 3
    assert tracker.calls == [("tiny", True)] * 2 + [("tiny", False)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            UserError("file-missing", "trial.parquet: it is missing."),
            "trial.parquet: it is missing",
        ),
        (RuntimeError("no luck\nwith details"), "MLflow could not be used: RuntimeError: no luck"),
        (ModuleNotFoundError("No module named 'mlflow'"), "MLflow could not be used: ModuleNotFoundError: No module"),
    ],
)
def test_whatever_goes_wrong_is_said(swept: Store, tracker: type[FakeTracker], error: Exception, said: str) -> None:
    """In one line without a full stop, which the driver adds; the process continues."""
    tracker.act = failing(0, error=error)
    news: list[str] = []
    follow(swept, "tiny", "sqlite:///x", Waits(1), news.append)
    assert news[1].startswith(said)
    assert "\n" not in news[1]
    assert not news[1].endswith(".")
    assert tracker.calls[-1] == ("tiny", False)


@pytest.mark.parametrize(("cost", "pause"), [(0.0, 2.0), (0.5, 5.0), (1.5, 15.0), (100.0, 30.0)])
def test_a_look_that_takes_long_is_made_rarely(
    *, swept: Store, tracker: type[FakeTracker], monkeypatch: pytest.MonkeyPatch, cost: float, pause: float
) -> None:
    """Ten times as long passes until the next, at least 2 s and at most 30 s."""
    now = [1000.0]

    def act() -> int:
        now[0] += cost
        return 0

    tracker.act = act
    monkeypatch.setattr(following, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    ended = Waits(1)
    follow(swept, "tiny", "sqlite:///x", ended, lambda _: None)
    assert ended.seconds == [pause]


@pytest.mark.parametrize(("failures", "is_behind"), [((), False), ((0, 1), False), ((2,), True), ((0, 1, 2), True)])
def test_the_mark_goes_after_a_last_look_that_succeeded(
    *, swept: Store, tracker: type[FakeTracker], failures: tuple[int, ...], is_behind: bool
) -> None:
    """Neither an earlier success nor an end in trouble means that MLflow shows all of the sweep."""
    swept.mark_behind("tiny", behind=True)
    marks: list[bool] = []
    fails = failing(*failures)

    def act() -> int:
        marks.append(swept.is_behind("tiny"))
        return fails()

    tracker.act = act
    follow(swept, "tiny", "sqlite:///x", Waits(2), lambda _: None)
    assert marks == [True] * 3
    assert swept.is_behind("tiny") is is_behind


def test_another_process_that_shows_the_store_is_said(
    swept: Store, tracker: type[FakeTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written meanwhile; once the other ends, this one takes over, and releases the claim at its end."""
    monkeypatch.setattr(following, "MAX_PAUSE", 0.05)
    other = swept.tracking_lock()
    other.acquire(timeout=0)
    news: list[str] = []

    def say(trouble: str) -> None:
        news.append(trouble)
        if len(news) == 2:
            other.release()

    follow(swept, "tiny", "sqlite:///x", Waits(3), say)
    assert news[:2] == ["another process shows this store in MLflow"] * 2
    assert tracker.calls == [("tiny", True), ("tiny", False)]
    swept.tracking_lock().acquire(timeout=0)


# The driver's side: `followed`


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def follower(swept: Store, output: io.StringIO) -> Block:
    """The driver's side for the sweep `tiny`."""
    swept.mark_behind("tiny", behind=True)
    return followed(swept, "tiny", "postgresql://me:secret@x/y", Console(file=output, width=80))


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the follower's place, in Python, to which `say(trouble)` and `go_on()` are known.

    Going on is for 20 s, with a sign of life each 20 ms; then it leaves the file `gave_up`.
    """
    python = sys.executable

    def write(text: str) -> None:
        file = tmp_path / "python"
        file.write_text(
            f"#!{python} -IS\nimport json, os, signal, sys, time\n"
            "def say(trouble=''): print(json.dumps(trouble), flush=True)\n"
            "def go_on(*news):\n"
            "    for _ in range(1000): time.sleep(0.02); say(*news) if news else None\n"
            f"    open({str(tmp_path / 'gave_up')!r}, 'w')\n" + text
        )
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return write


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    """No test leaves a process, not even a zombie, nor a thread."""
    me, before = psutil.Process(), threading.active_count()
    processes = me.children(recursive=True)
    yield
    assert [child for child in me.children(recursive=True) if child not in processes] == []
    assert threading.active_count() == before


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_trouble_is_printed_once(
    follower: Block, swept: Store, output: io.StringIO, program: Callable[[str], None]
) -> None:
    """With what to do; a second kind of trouble would only push the trials' lines away."""
    program("say(); say('[no] server'); say('still none'); say(); sys.stdin.read()")
    with follower:
        until(output.getvalue)
    assert output.getvalue() == (
        f"note: [no] server. The sweep continues without it; to catch up: crwn sync {swept.root}\n"
    )


def test_what_it_is_told_and_what_it_is_not_told_openly(
    follower: Block, swept: Store, program: Callable[[str], None], tmp_path: Path
) -> None:
    """The store and the sweep are arguments; the address, which may hold a password, is in the environment alone.

    It has a session of its own, so that Ctrl-C is for the driver, and finds no modules in the working folder.
    """
    program(
        f"os.chdir({str(tmp_path)!r})\n"
        "open('heard', 'w').write(json.dumps([sys.argv[1:], os.environ['MLFLOW_TRACKING_URI'], os.getsid(0)]))\n"
        "sys.stdin.read()"
    )
    with follower:
        until((tmp_path / "heard").exists)
    arguments, uri, session = following.json.loads((tmp_path / "heard").read_text())
    assert arguments == ["-P", "-m", "orchestrator.tracking.following", str(swept.root), "tiny"]
    assert uri == "postgresql://me:secret@x/y"
    assert session != os.getsid(0)


def test_the_end_waits_for_one_that_is_at_work(
    follower: Block,
    swept: Store,
    program: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the last look takes: each trial that it reports is a sign of life."""
    monkeypatch.setattr(following, "PATIENCE", 0.6)
    mark = swept.root / "sweeps" / "tiny.behind"
    program(f"say(); sys.stdin.read()\nfor _ in range(12): time.sleep(0.1); say()\nos.unlink({str(mark)!r})")
    with follower:
        assert mark.exists()
    assert not swept.is_behind("tiny")


def test_the_end_says_that_it_waits(
    follower: Block,
    output: io.StringIO,
    program: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once, where it takes longer than a moment: a database is made on a slow disk, or another process makes it."""
    monkeypatch.setattr(following, "NOTE_SECONDS", 0.1)
    program("say(); sys.stdin.read()\nfor _ in range(10): time.sleep(0.1); say()")
    with follower:
        pass
    assert output.getvalue() == "mlflow: writing the last results; the run ends when this is done, or on Ctrl-C\n"


HANGS = {
    "silent": "go_on()",
    "does not listen": "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(); go_on()",
    "stopped": "say(); os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("text", HANGS.values(), ids=HANGS)
def test_one_that_hangs_is_given_up(
    *,
    follower: Block,
    output: io.StringIO,
    program: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    swept: Store,
) -> None:
    """The end of a run waits no longer than its patience lasts, and says so; what MLflow shows is not current then."""
    monkeypatch.setattr(following, "PATIENCE", 0.3)
    program(text)
    with follower:
        ended = time.monotonic()
    assert time.monotonic() - ended >= 0.3
    assert " 0.3 s" in " ".join(output.getvalue().split())
    assert swept.is_behind("tiny")
    assert not (tmp_path / "gave_up").exists()


def test_one_in_trouble_is_not_waited_for(
    *,
    follower: Block,
    output: io.StringIO,
    program: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Signs of life mean nothing then."""
    monkeypatch.setattr(following, "TROUBLE_PATIENCE", 0.1)
    program("say('no server'); go_on('still none')")
    with follower:
        until(output.getvalue)
    assert not (tmp_path / "gave_up").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("broken", "no luck")], ids=["interrupt", "error"])
def test_an_error_in_the_block_gets_through(
    *,
    follower: Block,
    program: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
) -> None:
    """It is raised soon, even if the process would continue for long and says so."""
    monkeypatch.setattr(following, "INTERRUPTED_PATIENCE", 0.1)
    program("go_on('')")
    with pytest.raises(type(error)), follower:
        raise error
    assert not (tmp_path / "gave_up").exists()


def test_ctrl_c_while_the_end_waits_ends_it(
    follower: Block,
    program: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A user who does not want to wait for MLflow is obeyed, and nothing is left behind."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    program("go_on('')")
    monkeypatch.setattr(following, "time", types.SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    with pytest.raises(KeyboardInterrupt), follower:
        pass
    assert not (tmp_path / "gave_up").exists()


@pytest.mark.parametrize("text", ["sys.exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_one_that_dies_at_once_disturbs_nothing(
    *,
    follower: Block,
    swept: Store,
    output: io.StringIO,
    program: Callable[[str], None],
    text: str,
) -> None:
    """The block runs to its end, which does not wait and says how it died; what MLflow shows is not current."""
    program(text)
    with follower:
        time.sleep(0.2)
    how = "ended with code 1" if "exit" in text else "was killed by signal 9"
    assert " ".join(output.getvalue().split()) == (f"note: not waiting for MLflow: the process that writes it {how}")
    assert swept.is_behind("tiny")


def test_one_that_cannot_be_started_disturbs_nothing(
    follower: Block,
    swept: Store,
    output: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the machine cannot start a process, the sweep continues, and says so."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    done = False
    with follower:
        done = True
    assert done
    assert swept.is_behind("tiny")
    assert output.getvalue().startswith("note: MLflow could not be used: FileNotFoundError: ")
    assert output.getvalue().endswith(f"crwn sync {swept.root}\n")


# `sync`


def test_sync_says_what_it_wrote(swept: Store, tracker: type[FakeTracker], output: io.StringIO) -> None:
    """A line for each sweep; none of them is behind afterwards."""
    swept.write_manifest(Manifest(name="also", cells=(replace(CELL, trials={0: "2" * 16}),)))
    swept.mark_behind("tiny", behind=True)
    tracker.act = iter([0, 1]).__next__
    sync(swept, "sqlite:///x", Console(file=output, width=80))
    assert output.getvalue().splitlines() == [
        "also: 0 of 1 trials written; the others were already up to date",
        "tiny: 1 of 2 trials written; the others were already up to date",
    ]
    assert tracker.made == [(swept.root, "sqlite:///x")]
    assert tracker.calls == [("also", False), ("tiny", False)]
    assert not swept.is_behind("tiny")


def test_sync_beside_a_run_without_tracking(swept: Store, tracker: type[FakeTracker], output: io.StringIO) -> None:
    """Trials that run are shown so, and the sweep stays behind: more will come."""
    with swept.lock():
        sync(swept, "sqlite:///x", Console(file=output))
    assert tracker.calls == [("tiny", True)]
    assert swept.is_behind("tiny")


def test_sync_beside_a_run_that_is_followed_is_refused(
    swept: Store, tracker: type[FakeTracker], output: io.StringIO
) -> None:
    """Two that write would write everything twice."""
    follower = swept.tracking_lock()
    follower.acquire(timeout=0)
    with refused(UserError, "store-driven"):
        sync(swept, "sqlite:///x", Console(file=output))
    assert tracker.made == []


@pytest.mark.parametrize("place", ["make", "act"])
def test_sync_without_a_server_says_what_to_do(
    swept: Store, tracker: type[FakeTracker], output: io.StringIO, place: str
) -> None:
    """The message names the outage, and says that nothing is lost and that the same command resumes, which it does."""
    swept.mark_behind("tiny", behind=True)
    setattr(tracker, place, failing(0))
    with refused(UserError, "tracking-unreachable", says="crwn sync"):
        sync(swept, "sqlite:///x", Console(file=output))
    assert swept.is_behind("tiny")
    sync(swept, "sqlite:///x", Console(file=output))
    assert not swept.is_behind("tiny")


def test_sync_on_the_command_line(
    crwn: Crwn, swept: Store, tracker: type[FakeTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with where to look: the command for the stores' own database, else the address without its password."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ended = crwn("sync", swept.root)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == f"mlflow    crwn ui {swept.root.parent}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server:5000")
    assert crwn("sync", swept.root).out.splitlines()[-1] == "mlflow    http://me:***@server:5000"
    given = "sqlite:///elsewhere.db"
    assert crwn("sync", swept.root, "--tracking-uri", given).out.splitlines()[-1] == f"mlflow    {given}"
    own = f"sqlite:///{swept.root.parent / 'mlflow.db'}"
    assert [uri for _, uri in tracker.made] == [own, "http://me:secret@server:5000", given]
    tracker.act = failing(0)
    ended = crwn("sync", swept.root)
    assert ended.code == 1  # it had written a trial
    assert ended.err == "error: MLflow at http://x does not answer. The store is intact; run crwn sync again.\n"
