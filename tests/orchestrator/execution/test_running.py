"""A run: the checks before anything starts, and the trials that it finds pending."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from crwn.code import code_of
from crwn.data.verified import VerifiedFiles
from crwn.testing import Conditions, write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.errors import LostError, UserError
from orchestrator.execution import inline, running
from orchestrator.execution.inline import InlineExecutor
from orchestrator.execution.protocol import Assignment, Job, TrialUpdate
from orchestrator.execution.running import Options, run
from orchestrator.store.attempts import Attempt
from orchestrator.store.schemas import ATTEMPTS_FILE
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from tests import said
from tests.refusals import refused
from tests.said import all_done, progress, to_run

SweepFile = Callable[..., Path]
Listing = Callable[[Path], dict[str, bytes]]


def finish(store: Store, spec: TrialSpec) -> None:
    """Store a trial as computed by this code."""
    write_finished(store, spec, conditions=Conditions(code=code_of(spec.method)))


@pytest.fixture
def sweep(sweep_file: SweepFile, workplace: Path) -> Sweep:
    """Two tiny trials, on a machine without data sets."""
    del workplace
    return load_sweep(sweep_file())


@pytest.fixture
def new_store(tmp_path: Path) -> Store:
    """A store that no run has made yet."""
    return Store(tmp_path / "new")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Replaces the inline executor by one that runs nothing, writes records and notes its jobs."""
    noted: list[Job] = []

    def pretend(_: InlineExecutor, job: Job, on_update: Callable[[TrialUpdate], None], on_wait: object) -> None:
        noted.append(job)
        for spec in job.trials:
            finish(job.store, spec)
            on_update(TrialUpdate(trial_id=spec.trial_id, state="finished"))

    monkeypatch.setattr(InlineExecutor, "run", pretend)
    return noted


def quietly(sweep: Sweep, store: Store, **options: Any) -> tuple[bool, list[str]]:
    """Whether some trial failed, and the lines that were printed; without MLflow, unless the test is about it."""
    file = io.StringIO()
    options = {"tracking": False, **options}
    failed = run(sweep, store, Options(**options), Console(file=file, width=80))
    return failed, file.getvalue().splitlines()


def test_the_executor_gets_what_is_left(sweep: Sweep, new_store: Store, jobs: list[Job]) -> None:
    """Finished trials are not handed over again; the manifest is there before the first trial ends."""
    new_store.create()
    done, left = sweep.trials
    finish(new_store, done)
    failed, lines = quietly(sweep, new_store)
    assert not failed
    assert lines[0] == f"{to_run('tiny', 1, 1)}; executor inline; {new_store.root}"
    assert lines[-1].startswith(progress(2, 2))
    (job,) = jobs
    assert job.trials == (left,)
    assert new_store.manifests() == [sweep.manifest()]
    assert not new_store.is_driven


def test_a_sweep_that_is_done_starts_nothing(sweep: Sweep, new_store: Store, jobs: list[Job]) -> None:
    """The second run finds nothing to do, whatever it is told about executors and data."""
    quietly(sweep, new_store)
    failed, lines = quietly(sweep, new_store, data_root="/does/not/exist", gpus=1000.0, executor="ray")
    assert not failed
    assert lines == [all_done("tiny", 2)]
    assert len(jobs) == 1


@pytest.mark.parametrize("num_done", [1, 2])
def test_what_a_killed_process_left_beside_a_record_is_cleared(
    sweep: Sweep, new_store: Store, jobs: list[Job], num_done: int
) -> None:
    """A process can die between a trial's record and clearing up: the next run does the rest, whatever it has to do."""
    del jobs
    new_store.create()
    done = sweep.trials[:num_done]
    for trial in done:
        finish(new_store, trial)
        new_store.unfinished.write_attempts(trial.trial_id, [Attempt(pid=1)])
    quietly(sweep, new_store)
    assert [(new_store.folder(trial.trial_id) / ATTEMPTS_FILE).exists() for trial in done] == [False] * num_done


def test_a_sweep_whose_trials_another_one_ran_is_done(
    sweep_file: SweepFile, sweep: Sweep, new_store: Store, jobs: list[Job]
) -> None:
    """Sweeps that share a store share trials; the second leaves its manifest all the same."""
    quietly(sweep, new_store)
    other = load_sweep(sweep_file(sweep_file().read_text().replace("name: tiny", "name: other")))
    quietly(other, new_store)
    assert len(jobs) == 1
    assert [manifest.name for manifest in new_store.manifests()] == ["other", "tiny"]


def test_damaged_manifests_are_refused_before_anything_starts(
    sweep_file: SweepFile, sweep: Sweep, new_store: Store, jobs: list[Job], listing: Listing
) -> None:
    """The sweep's own and another's, a line each; once they are removed, a run writes the sweep's again."""
    quietly(sweep, new_store)
    quietly(load_sweep(sweep_file(sweep_file().read_text().replace("name: tiny", "name: other"))), new_store)
    files = [new_store.root / "sweeps" / name for name in ("other.json", "tiny.json")]
    whole = files[1].read_bytes()
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"r-digits", b"s-digits"))
    before = listing(new_store.root)
    with pytest.raises(UserError) as refused:
        quietly(sweep, new_store)
    lines = str(refused.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(file) for file in files]
    assert all(line.endswith("Remove it; crwn run on the sweep rewrites it.") for line in lines)
    assert listing(new_store.root) == before
    for file in files:
        file.unlink()
    quietly(sweep, new_store)
    assert files[1].read_bytes() == whole
    assert len(jobs) == 1


def test_a_manifest_of_a_newer_crwn_is_not_overwritten(sweep: Sweep, new_store: Store, jobs: list[Job]) -> None:
    """It may contain more than this crwn would write."""
    quietly(sweep, new_store)
    file = new_store.root / "sweeps" / "tiny.json"
    newer = json.dumps(json.loads(file.read_text()) | {"format": 2})
    file.write_text(newer)
    with refused(UserError, "newer-format", says=str(file)):
        quietly(sweep, new_store)
    assert (file.read_text(), len(jobs)) == (newer, 1)


def test_what_was_finished_while_waiting_is_not_run(
    sweep: Sweep, new_store: Store, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and being the store's one driver, another run may have ended."""
    create = Store.create

    def meanwhile(store: Store) -> None:
        create(store)
        finish(store, sweep.trials[0])

    monkeypatch.setattr(Store, "create", meanwhile)
    quietly(sweep, new_store)
    assert [spec.trial_id for spec in jobs[0].trials] == [sweep.trials[1].trial_id]


def test_the_command_line_wins_over_the_sweeps_resources(
    sweep_file: SweepFile, new_store: Store, jobs: list[Job], workplace: Path
) -> None:
    """What is not given there comes from the sweep."""
    del workplace
    sweep = load_sweep(sweep_file(sweep_file().read_text() + "resources: {gpus: 0, cpus: 0.5}\n"))
    quietly(sweep, new_store, cpus=0.25)
    assert {(each.resources.gpus, each.resources.cpus) for each in jobs[0].assignments} == {(0.0, 0.25)}


@pytest.mark.parametrize(
    ("options", "code", "facts"),
    [
        ({"executor": "foo"}, "unknown-name", ["--executor: ", " inline, ray;", "'foo'"]),
        ({"executor": "inlin"}, "unknown-name", ["--executor: ", "'inline'?"]),
        ({"gpus": 1000.0}, "resources-too-large", [" 1000 GPUs"]),
        ({"gpus": 1.5}, "gpus-no-share", ["--gpus: ", " 1.5"]),
        ({"gpus": -1.0}, "too-small", ["--gpus: ", " -1"]),
        ({"gpus": float("nan")}, "too-small", ["--gpus: ", " nan"]),
        ({"cpus": 100_000.0}, "resources-too-large", [" 100000 CPUs"]),
        ({"cpus": 0.0}, "too-small", ["--cpus: ", " 0"]),
        ({"cpus": float("inf")}, "too-small", ["--cpus: ", " inf"]),
        ({"data_root": "/does/not/exist"}, "not-a-folder", ["--data-root: ", "'/does/not/exist'"]),
        ({"tracking_uri": "x"}, "options-conflict", ["--tracking-uri", "--no-tracking"]),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    *, sweep: Sweep, new_store: Store, listing: Listing, options: dict[str, Any], code: str, facts: list[str]
) -> None:
    """Each is named as it is typed, with what it should be; no folder is made."""
    before = listing(new_store.root.parent)
    with refused(UserError, code, says=facts):
        quietly(sweep, new_store, **options)
    assert listing(new_store.root.parent) == before


def test_a_wrong_data_folder_in_the_environment_is_refused(
    sweep: Sweep, new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named as the variable it came from."""
    monkeypatch.setenv("CRWN_DATA", "/does/not/exist")
    with refused(UserError, "not-a-folder", says=["$CRWN_DATA: ", "'/does/not/exist'"]):
        quietly(sweep, new_store)
    assert not new_store.exists


def test_data_that_cannot_be_had_is_refused(
    sweep_file: SweepFile, new_store: Store, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without files and without a network: where they were looked for, and which files to put there."""

    def offline(*_: object) -> None:
        raise OSError("network unreachable")

    monkeypatch.setattr(VerifiedFiles, "fetch", offline)
    sweep = load_sweep(sweep_file(sweep_file().read_text().replace("r-digits", "r-mnist")))
    facts = ["'mnist'", str(workplace), str(Path.home() / ".cache" / "crwn"), "network unreachable"]
    facts += ["MNIST/raw/train-images-idx3-ubyte", "--data-root", "$CRWN_DATA"]
    with refused(UserError, "data-set-missing", "download-failed", says=facts):
        quietly(sweep, new_store, data_root=str(workplace))
    assert not new_store.exists


def test_a_store_that_is_driven_is_refused(sweep: Sweep, new_store: Store, jobs: list[Job]) -> None:
    """Nothing is run while another driver is active."""
    new_store.create()
    with new_store.lock(), refused(UserError, "store-driven", says=str(new_store.root)):
        quietly(sweep, Store(new_store.root))
    assert jobs == []


def test_failures_are_told_with_their_tracebacks_place(
    sweep: Sweep, new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the file that has the traceback, and what to do."""
    first, second = sweep.trials

    def pretend(_: InlineExecutor, job: Job, on_update: Callable[[TrialUpdate], None], on_wait: object) -> None:
        on_update(TrialUpdate(trial_id=first.trial_id, state="failed", error="OSError: no"))
        finish(job.store, second)
        on_update(TrialUpdate(trial_id=second.trial_id, state="finished"))

    monkeypatch.setattr(InlineExecutor, "run", pretend)
    failed, lines = quietly(sweep, new_store)
    assert failed
    assert said.failed("neuromodnet FC16, r-digits, seed 0", "OSError: no") in lines
    assert lines[-2] == f"traceback: {new_store.folder(first.trial_id) / 'attempts.json'}"
    assert lines[-1] == "1 trials did not finish; the same command resumes them"


def renamed(root: Path) -> None:
    root.rename(root.with_name("renamed"))


def swapped(root: Path) -> None:
    renamed(root)
    Store(root).create()


@pytest.mark.parametrize(
    ("lose", "found", "where"),
    [
        (renamed, "nothing", "{folder}/renamed"),
        (swapped, "another folder", "{folder}/renamed"),
        (shutil.rmtree, "nothing", "removed"),
    ],
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_store_that_is_lost_between_two_trials_ends_the_run(
    *,
    crwn: Callable[..., Any],
    sweep_file: SweepFile,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    listing: Listing,
    lose: Callable[[Path], object],
    found: str,
    where: str,
    after: int,
) -> None:
    """Code 1, and one line that says where it is; no other trial is tried, and nothing is written elsewhere."""
    root = workplace / "x"
    tried: list[TrialSpec] = []
    lost: dict[str, bytes] = {}

    def pretend(assignment: Assignment, *, store: Store, **_: Any) -> Iterator[TrialUpdate]:
        spec = assignment.spec
        if len(tried) == after:
            lose(root)
            lost.update(listing(workplace))
        tried.append(spec)
        try:
            finish(store, spec)
        except OSError as error:
            yield TrialUpdate(
                trial_id=spec.trial_id, state="failed", error=str(error), is_lost=isinstance(error, LostError)
            )
            return
        yield TrialUpdate(trial_id=spec.trial_id, state="finished")
        if len(tried) == after == 2:
            lose(root)
            lost.update(listing(workplace))

    monkeypatch.setattr(inline, "attempt", pretend)
    ended = crwn("run", sweep_file(), "--out", root, "--executor", "inline", "--no-tracking")
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: {root}: expected the store of this run, found {found}. ")
    assert where.format(folder=workplace) in line
    assert len(tried) == min(after + 1, 2)
    assert listing(workplace) == lost
    if lose is not shutil.rmtree:
        assert len(Store(workplace / "renamed").trial_ids()) == after


@pytest.mark.parametrize(
    ("status", "expected"), [("", "c0ffee"), (" M orchestrator/store/store.py\n", "c0ffee+changes"), (None, None)]
)
def test_the_commit_is_handed_on_and_marked_where_files_differ(
    *,
    sweep: Sweep,
    new_store: Store,
    jobs: list[Job],
    monkeypatch: pytest.MonkeyPatch,
    status: str | None,
    expected: str | None,
) -> None:
    """It goes into every record; outside a checkout, or without git, there is none."""

    def git(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if status is None:
            raise FileNotFoundError("git")
        return subprocess.CompletedProcess(command, 0, stdout="c0ffee\n" if "rev-parse" in command else status)

    monkeypatch.setattr(subprocess, "run", git)
    quietly(sweep, new_store)
    assert {each.commit for each in jobs[0].assignments} == {expected}


def test_the_commit_of_a_users_own_repository_is_not_the_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a package that is installed within it, and not among its files; where it is one of them, the commit counts."""
    package = tmp_path / ".venv" / "orchestrator"
    package.mkdir(parents=True)
    file = package / "running.py"
    file.touch()
    (tmp_path / "analysis.py").touch()

    def git(*arguments: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *author, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(running, "__file__", str(file))
    git("init", "-q")
    git("add", "analysis.py")
    git("commit", "-qm", "theirs")
    assert running.code_commit() is None
    git("add", ".venv")
    git("commit", "-qm", "with the code")
    assert running.code_commit() == git("rev-parse", "HEAD")


def test_the_store_decides_whether_all_is_done(sweep: Sweep, new_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that returns without an error and without results has not succeeded."""
    monkeypatch.setattr(InlineExecutor, "run", lambda *_: None)
    failed, lines = quietly(sweep, new_store)
    assert failed
    assert lines[-1].startswith(f"{len(sweep.trials)} trials did not finish")


# MLflow


@dataclass
class Followed:
    """A sweep that was followed: its name, the address, and what happened meanwhile."""

    sweep: str
    uri: str
    num_finished: int = -1
    is_current: ClassVar[bool] = True


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[Followed]:
    """Replaces the process that follows a sweep by a stub that only records calls."""
    noted: list[Followed] = []

    @contextlib.contextmanager
    def follower(store: Store, sweep: str, uri: str, _: Console) -> Iterator[Followed]:
        noted.append(Followed(sweep=sweep, uri=uri))
        yield noted[-1]
        noted[-1].num_finished = len(store.trial_ids())
        store.mark_behind(sweep, behind=not Followed.is_current)

    monkeypatch.setattr(running, "followed", follower)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return noted


@pytest.mark.usefixtures("jobs")
def test_a_run_is_followed_to_its_end(sweep: Sweep, new_store: Store, followed: list[Followed]) -> None:
    """Into the database next to the store, until its last trial has ended; then nothing is printed."""
    failed, lines = quietly(sweep, new_store, tracking=True)
    own = f"sqlite:///{new_store.root.parent / 'mlflow.db'}"
    assert followed == [Followed(sweep="tiny", uri=own, num_finished=2)]
    assert not failed
    assert lines[-1].startswith("2/2 trials done")


@pytest.mark.usefixtures("jobs")
def test_the_address_is_the_one_given(
    sweep: Sweep, new_store: Store, followed: list[Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the command line, else in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    quietly(sweep, new_store, tracking=True)
    quietly(sweep, Store(new_store.root.with_name("newer")), tracking=True, tracking_uri="http://given")
    assert [entry.uri for entry in followed] == ["http://environment", "http://given"]


@pytest.mark.usefixtures("jobs")
def test_a_run_that_is_not_tracked_is_not_followed(sweep: Sweep, new_store: Store, followed: list[Followed]) -> None:
    """Nor is one with nothing left that was shown before."""
    quietly(sweep, new_store)
    new_store.mark_behind("tiny", behind=True)
    quietly(sweep, new_store)
    assert followed == []


@pytest.mark.usefixtures("jobs")
def test_with_nothing_left_only_what_is_behind_is_caught_up_with(
    sweep: Sweep, new_store: Store, followed: list[Followed]
) -> None:
    """A sweep whose last run was killed, or had no server, is shown to its end; else nothing is started."""
    quietly(sweep, new_store, tracking=True)
    for is_behind, expected in ((False, 1), (True, 2), (False, 2)):
        new_store.mark_behind("tiny", behind=is_behind)
        _, lines = quietly(sweep, new_store, tracking=True)
        assert lines == [all_done("tiny", 2)]
        assert len(followed) == expected


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("left", [2, 0])
def test_a_run_that_mlflow_did_not_keep_up_with_says_so(
    sweep: Sweep, new_store: Store, followed: list[Followed], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Once, with the command to run; it is no failure."""
    if not left:
        quietly(sweep, new_store)
        new_store.mark_behind("tiny", behind=True)
    monkeypatch.setattr(Followed, "is_current", False)
    failed, lines = quietly(sweep, new_store, tracking=True)
    assert not failed
    assert len(followed) == 1
    behind = f"mlflow: not up to date; to catch up: crwn sync {new_store.root}"
    assert [line for line in lines if "mlflow:" in line] == [behind]


def test_an_interrupted_run_is_followed_to_its_end(
    sweep: Sweep, new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches the follower, which ends its process."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    left: list[type[BaseException] | None] = []

    class Leaving(contextlib.AbstractContextManager[Followed]):
        def __init__(self, *_: object) -> None:
            pass

        def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
            left.append(kind)

    monkeypatch.setattr(running, "followed", Leaving)
    monkeypatch.setattr(InlineExecutor, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quietly(sweep, new_store, tracking=True)
    assert left == [KeyboardInterrupt]
    assert not new_store.is_driven
