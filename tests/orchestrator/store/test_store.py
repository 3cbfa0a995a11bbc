"""The results store: what it keeps, how it is written, and which folders it refuses."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import LostError, UserError
from orchestrator.store import leases
from orchestrator.store.address import open_files
from orchestrator.store.attempts import Attempt
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.schemas import (
    SYSTEM_FILE,
    TASKS_FILE,
    TRIAL_FILE,
)
from orchestrator.store.store import Store, sees
from tests.object_storage import ObjectStorage
from tests.older_records import make_older
from tests.orchestrator.made_up import A, B, C, D, files_of, record
from tests.refusals import refused

Listing = Callable[[Path], dict[str, bytes]]

CELL = ManifestCell(method="m", variant="", scale="FC16", benchmark="b", trials={0: "0" * 16, 1: "1" * 16})
MANIFEST = Manifest(name="small", cells=(CELL,))


# Records, whichever version wrote them


def test_a_store_of_version_1_0_is_read(store: Store, tmp_path: Path) -> None:
    """It has no times, no samples and no id: the columns are null, the samples none, and its path stands for its id."""
    for name in (A, B):
        store.records.write(name, record(name))
    added = ["tested", "curve_times"]
    make_older(store.folder(A) / TASKS_FILE, lambda table: table.drop_columns(added), "1.0")
    later = ["grouping", "forgetting", "backward_transfer"]
    make_older(store.folder(A) / TRIAL_FILE, lambda table: table.drop_columns(later), "1.0")
    (store.folder(A) / SYSTEM_FILE).unlink()
    (store.root / "store.json").write_text('{"format": "crwn-store", "version": [1, 0]}')

    old = Store(store.root)
    tasks, system = old.so_far(A)
    assert tasks == [
        replace(row, tested=None, curve=tuple(replace(point, time=None) for point in row.curve))
        for row in record(A).tasks
    ]
    assert system == []
    assert old.records.trials([A, B]).select(["accuracy", *later]).to_pylist() == [
        {"accuracy": 0.5, "grouping": None, "forgetting": None, "backward_transfer": None},
        {"accuracy": 0.5, "grouping": "any", "forgetting": 0.0, "backward_transfer": 0.0},
    ]
    assert old.records.tasks([A, B])["tested"].null_count == 3
    assert old.identity == str(tmp_path / "store")
    old.create()  # a run goes on in it
    assert old.identity == str(tmp_path / "store")


# Writing


def test_a_write_that_is_interrupted_leaves_no_temporary_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, listing: Listing
) -> None:
    """Not even after Ctrl-C in the middle of a write."""
    before = listing(store.root)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Store(store.root).write_manifest(MANIFEST)  # which waits for the disk
    assert {name: content for name, content in listing(store.root).items() if content != b"a folder"} == before


def test_an_equal_manifest_is_left_alone(store: Store) -> None:
    """A run with nothing to change writes nothing; one with something does."""
    store.write_manifest(MANIFEST)
    path = store.root / "sweeps" / "small.json"
    os.utime(path, ns=(1, 1))
    store.write_manifest(replace(MANIFEST, cells=(replace(CELL, trials=dict(reversed(CELL.trials.items()))),)))
    assert path.stat().st_mtime_ns == 1
    changed = replace(MANIFEST, reference="m")
    store.write_manifest(changed)
    assert path.stat().st_mtime_ns != 1
    assert store.manifests() == [changed]


def test_manifests_come_by_name(anywhere: Store) -> None:
    """Several sweeps may share a store."""
    assert anywhere.manifests() == []
    for name in ("b", "a"):
        anywhere.write_manifest(replace(MANIFEST, name=name))
    assert [manifest.name for manifest in anywhere.manifests()] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "json-unreadable"),
        ("{", "json-unreadable"),
        ("[]", "wrong-type"),
        ("{}", "missing-key"),
        ("null", "wrong-type"),
    ],
)
def test_a_damaged_manifest_is_named(store: Store, content: str, code: str) -> None:
    """A file that was changed by hand is for the user to fix; the sweep's run can write it again."""
    store.write_manifest(MANIFEST)
    (store.root / "sweeps" / "small.json").write_text(content)
    with refused(UserError, code, says=["small.json: ", "crwn run"]):
        store.manifests()


def test_a_manifest_of_a_newer_format_is_refused(store: Store) -> None:
    """It may say more than this reader understands."""
    store.write_manifest(MANIFEST)
    path = store.root / "sweeps" / "small.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with refused(UserError, "newer-format", says="small.json: "):
        store.manifests()


# How trials stand


def test_all_of_a_sweeps_trials_at_once(anywhere: Store) -> None:
    """The same states as one by one, in the order asked for, also of many."""
    for name in (A, B):
        anywhere.records.write(name, record(name))
    anywhere.unfinished.write_attempts(D, [Attempt(pid=1)])
    names = [D, A, *(f"absent {index}" for index in range(40)), B]
    assert anywhere.finished(names) == {A, B}
    states = anywhere.states(names, driven=False)
    assert list(states.items()) == [(name, anywhere.state(name, driven=False)) for name in names]


def test_leftovers_of_unfinished_trials_stay(anywhere: Store) -> None:
    """Those of the trials named go, one or several."""
    for name in (A, B, C):
        anywhere.records.write(name, record(name))
        anywhere.unfinished.write_attempts(name, [Attempt(pid=1)])
    anywhere.unfinished.write_attempts(D, [Attempt(pid=1)])
    anywhere.clear_leftovers([A])
    assert [bool(anywhere.unfinished.attempts(name)) for name in (A, B, C, D)] == [False, True, True, True]
    anywhere.clear_leftovers([A, B, C])
    assert [bool(anywhere.unfinished.attempts(name)) for name in (A, B, C, D)] == [False, False, False, True]
    assert anywhere.trial_ids() == [A, B, C]


def test_a_store_pickles_as_its_address(anywhere: Store) -> None:
    """Another process opens the same one."""
    anywhere.records.write(A, record(A))
    again = pickle.loads(pickle.dumps(anywhere))  # noqa: S301 (this very process made it)
    assert (again.address, again.identity) == (anywhere.address, anywhere.identity)
    assert again.trial_ids() == [A]


# Object storage


def test_opening_a_prefix_where_nothing_is_writes_nothing(storage: ObjectStorage) -> None:
    """Planning looks at a store that a run would make."""
    opened = Store(storage.new_address())
    assert (opened.exists, opened.is_driven, opened.manifests(), opened.trial_ids()) == (False, False, [], [])
    assert open_files(opened.address).names("") == []


def test_a_second_driver_of_object_storage_is_refused(storage: ObjectStorage) -> None:
    """It is told who the first is, as is who asks, until that one ends."""
    first = Store(storage.new_address())
    second = Store(first.address)
    first.create()
    assert not first.is_driven
    with first.lock() as ended:
        assert ended == []
        assert second.is_driven
        with refused(UserError, "store-driven", says=[f"process {os.getpid()}", "three minutes"]), second.lock():
            pass
        assert len(second.drivers()) == 1
    assert not first.is_driven
    with second.lock():
        pass


def test_a_run_that_was_taken_over_stops_at_its_next_write(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any of its processes: it was cut off from the storage until its lease had expired."""
    first = Store(storage.new_address())
    first.create()
    with first.lock():
        run = first.driven()
        run.records.write(A, record(A))
        monkeypatch.setattr(leases, "RECENT_SECONDS", 0.0)
        with Store(first.address).lock() as ended:
            assert [holder.is_live for holder in ended] == [False]
            later = Store(first.address).driven()
            for store in (run, pickle.loads(pickle.dumps(run))):  # noqa: S301 (this very process made it)
                with refused(LostError, "store-moved", says=["another run", "crwn status"]):
                    store.records.write(B, record(B))
            later.records.write(C, record(C))
    assert later.trial_ids() == [A, C]


# Folders


def test_opening_a_store_that_does_not_exist_writes_nothing(tmp_path: Path, listing: Listing) -> None:
    """Planning looks at a store that a run would make."""
    opened = Store(tmp_path / "deep" / "store")
    assert not opened.exists
    assert not opened.is_finished(A)
    assert not opened.is_driven
    assert opened.manifests() == []
    assert opened.trial_ids() == []
    assert listing(tmp_path) == {}


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is opened by its full path, so that a change of folder does not lose it."""
    monkeypatch.chdir(tmp_path)
    opened = Store(Path("runs/a"))
    monkeypatch.chdir("/")
    assert opened.root == tmp_path / "runs" / "a"


def test_a_store_is_made_with_its_parents(tmp_path: Path) -> None:
    """Its mark says what it is and by which version it was made; making it again changes nothing."""
    made = Store(tmp_path / "deep" / "store")
    made.create()
    assert made.exists
    assert files_of(made.root) == {"store.json"}
    mark = json.loads((made.root / "store.json").read_text())
    assert mark == {"format": "crwn-store", "version": [1, 3], "id": made.identity}
    os.utime(made.root / "store.json", ns=(1, 1))
    Store(made.root).create()
    assert (made.root / "store.json").stat().st_mtime_ns == 1


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, listing: Listing) -> None:
    """A store below a file, for one; the file stays as it was."""
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    with refused(UserError, "folder-not-writable", says=[str(tmp_path / "file" / "store"), "--out"]):
        Store(tmp_path / "file" / "store").create()
    assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out before hours of training, not after."""

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", fail)
    with refused(UserError, "folder-not-writable", says=[str(store.root), "Permission denied"]):
        store.create()


# One driver at a time


def test_a_second_driver_is_refused(store: Store) -> None:
    """Two runs on one store would learn the same trials; the second is told what to do."""
    with store.lock():
        assert Store(store.root).is_driven
        with (
            refused(UserError, "store-driven", says=[str(store.root), "crwn status", "--out"]),
            Store(store.root).lock(),
        ):
            pass
    assert not store.is_driven
    with Store(store.root).lock():
        pass


def test_a_driver_in_another_process_is_seen(store: Store) -> None:
    """The lock holds between processes and ends with its holder, however that ends."""
    script = (
        "import sys; from pathlib import Path; from orchestrator.store.store import Store\n"
        "with Store(Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert store.is_driven
        with refused(UserError, "store-driven", says=str(store.root)), store.lock():
            pass
        process.kill()
        process.wait()
        assert not store.is_driven
        with store.lock():
            pass


def test_a_run_that_fails_lets_go_of_its_store(store: Store) -> None:
    """An error inside the block releases the lock at once."""
    with pytest.raises(RuntimeError) as kept, store.lock():
        raise RuntimeError("an error")
    assert not store.is_driven
    del kept


def test_asking_for_the_driver_makes_no_file(store: Store, listing: Listing) -> None:
    """So `crwn status` writes nothing."""
    before = listing(store.root)
    assert not store.is_driven
    assert listing(store.root) == before


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    """Whatever ends a run, the next one can begin at once."""
    store = Store(tmp_path)
    store.create()
    with pytest.raises(KeyboardInterrupt), store.lock():
        raise KeyboardInterrupt
    assert not store.is_driven
    with store.lock():
        assert store.is_driven


def test_another_machine_knows_the_store_by_its_drivers_word(tmp_path: Path) -> None:
    """Neither a folder of that name without it, nor a copy from before the run, is the store."""
    store = Store(tmp_path / "store")
    store.create()
    early = shutil.copytree(store.root, tmp_path / "copied early")
    word = store.give_word()
    assert word is not None
    assert sees(store.address, word)
    late = shutil.copytree(store.root, tmp_path / "copied late")
    assert [sees(str(path), word) for path in (early, tmp_path / "nowhere")] == [False, False]
    again = store.give_word()
    assert again is not None
    assert [sees(str(path), again) for path in (store.root, late)] == [True, False]


def test_a_run_and_its_other_processes_know_the_store(anywhere: Store) -> None:
    """By the word of this very run, which is stopped by a later one's; other processes write as before."""
    run = anywhere.driven()
    assert (run.word is None) is (not anywhere.is_folder)
    again = pickle.loads(pickle.dumps(run))  # noqa: S301 (this very process made it)
    assert (again.address, again.mark) == (run.address, run.mark)
    again.records.write(A, record(A))
    shown = anywhere.followed()
    shown.check()
    later = anywhere.driven()
    later.records.write(B, record(B))
    shown.mark_behind("tiny", behind=True)
    anywhere.mark_behind("tiny", behind=False)
    with refused(LostError, "store-moved", says="another folder" if anywhere.is_folder else "another run on it"):
        again.unfinished.write_attempts("c", [])
    assert (anywhere.trial_ids(), anywhere.is_behind("tiny")) == ([A, B], False)


def test_what_only_reads_or_shows_a_store_does_not_bring_it_back(
    store: Store, tmp_path: Path, listing: Listing
) -> None:
    """Tables, the index, marks of MLflow's and locks are nothing without the store that they are of."""
    store.records.write(A, record(A))
    shown = store.followed()
    store.root.rename(tmp_path / "renamed")
    before = listing(tmp_path)
    for write in (
        lambda: store.report.write("x", b""),
        lambda: store.index.write("x", b""),
        lambda: store.mark_behind("tiny", behind=True),
        lambda: store.write_manifest(MANIFEST),
        lambda: store.tracking_lock().acquire(timeout=0),
        shown.check,
    ):
        with pytest.raises(OSError, match=str(store.root)):
            write()
    store.mark_behind("tiny", behind=False)
    store.clear_leftovers([A])
    assert listing(tmp_path) == before
