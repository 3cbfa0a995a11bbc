"""`crwn verify` reads everything in a store, and every fault has a line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crwn.testing import tiny_trial, write_finished, write_sweep, write_unfinished
from orchestrator.store.schemas import ATTEMPTS_FILE, CONTEXTS_FILE, RESUME_FILE, SYSTEM_FILE, TASKS_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from orchestrator.store.verifying import verify
from tests.older_records import make_older

Crwn = Callable[..., Any]

A, B, C = (tiny_trial(seed=seed) for seed in range(3))


@pytest.fixture
def filled(store: Store) -> Store:
    """A sweep of two finished trials and one that was begun."""
    write_finished(store, A, accuracy=[0.5, 0.75])
    write_finished(store, B)
    write_unfinished(store, C)
    write_sweep(store, [A, B, C])
    return store


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_store_has_no_faults(filled: Store) -> None:
    """Nothing is written, either."""
    before = {path: path.read_bytes() for path in filled.root.rglob("*") if path.is_file()}
    found = verify(filled)
    assert (found.finished, found.unfinished, found.manifests, found.unsealed, found.faults) == (2, 1, 1, 0, [])
    assert {path: path.read_bytes() for path in filled.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("file", [TRIAL_FILE, TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE])
def test_a_flipped_bit_of_a_finished_trial_is_one_fault(filled: Store, file: str) -> None:
    """Whichever file it is in, the lines that no table reads included."""
    path = filled.folder(A.trial_id) / file
    flip(path)
    (fault,) = verify(filled).faults
    assert fault.startswith(f"{path}: ")
    assert fault.codes == ("made-with-others" if file == CONTEXTS_FILE else "content-changed",)


@pytest.mark.parametrize("file", [TASKS_FILE, SYSTEM_FILE, RESUME_FILE, ATTEMPTS_FILE])
def test_a_flipped_bit_of_an_unfinished_trial_is_one_fault(filled: Store, file: str) -> None:
    """The next run would find it only then."""
    path = filled.folder(C.trial_id) / file
    flip(path)
    (fault,) = verify(filled).faults
    assert fault.startswith(f"{path}: ")
    assert fault.codes == ("content-changed",)


def test_a_damaged_manifest_is_a_fault(filled: Store) -> None:
    """The others are still checked."""
    flip(filled.root / "sweeps" / "small.json")
    flip(filled.folder(A.trial_id) / TASKS_FILE)
    assert len(verify(filled).faults) == 2


@pytest.mark.parametrize("file", [CONTEXTS_FILE, SYSTEM_FILE, TASKS_FILE])
def test_a_file_of_another_trial_is_a_fault(filled: Store, file: str) -> None:
    """Whole in itself, it is of another one."""
    shutil.copy(filled.folder(B.trial_id) / file, filled.folder(A.trial_id) / file)
    assert any(f"{A.trial_id}/{file}" in fault for fault in verify(filled).faults)


def test_a_resume_point_of_another_trial_is_a_fault(filled: Store) -> None:
    """Resuming would use another trial's weights."""
    other = tiny_trial(seed=7)
    write_unfinished(filled, other)
    shutil.copy(filled.folder(other.trial_id) / RESUME_FILE, filled.folder(C.trial_id) / RESUME_FILE)
    (fault,) = verify(filled).faults
    assert fault.codes == ("of-another-trial",)
    assert repr(other.trial_id) in fault


def test_contexts_of_an_older_record_are_those_of_its_trial(filled: Store) -> None:
    """Its record names no bytes, but contexts say themselves whose they are."""
    make_older(filled.folder(A.trial_id) / TRIAL_FILE)
    assert (verify(filled).unsealed, verify(filled).faults) == (1, [])
    shutil.copy(filled.folder(B.trial_id) / CONTEXTS_FILE, filled.folder(A.trial_id) / CONTEXTS_FILE)
    (fault,) = verify(filled).faults
    assert fault.codes == ("of-another-trial",)
    assert repr(B.trial_id) in fault


def test_lost_contexts_are_a_fault(filled: Store) -> None:
    """A finished trial has them, if only empty ones."""
    (filled.folder(A.trial_id) / CONTEXTS_FILE).unlink()
    (fault,) = verify(filled).faults
    assert fault.codes == ("file-missing",)
    assert fault.startswith(f"{filled.locate(A.trial_id, CONTEXTS_FILE)}: ")


def test_the_command_ends_with_whether_all_is_whole(crwn: Crwn, filled: Store) -> None:
    """With the faults, what was read, and what to do."""
    ended = crwn("verify", filled.root)
    assert (ended.code, ended.err) == (0, "")
    assert all(part in ended.out for part in ("2 finished", "1 unfinished", "1 sweep", "0 faults"))
    flip(filled.folder(A.trial_id) / TRIAL_FILE)
    make_older(filled.folder(B.trial_id) / TRIAL_FILE)
    ended = crwn("verify", filled.root)
    assert ended.code == 1
    assert f"{A.trial_id}/{TRIAL_FILE}: " in ended.out
    assert "without checksums" in ended.out
    assert "--repair" in ended.out
    assert crwn("verify", filled.root / "nowhere").code == 2


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
@pytest.mark.parametrize("file", [TRIAL_FILE, TASKS_FILE, CONTEXTS_FILE])
def test_what_is_no_file_is_a_fault_and_the_others_are_read(
    filled: Store, make: Callable[[Path], None], file: str
) -> None:
    """A pipe does not block."""
    path = filled.folder(A.trial_id) / file
    path.unlink()
    make(path)
    flip(filled.folder(B.trial_id) / TASKS_FILE)
    faults = verify(filled).faults
    assert len(faults) == 2
    assert str(path) in faults[[A.trial_id in fault for fault in faults].index(True)]
