"""Temporary folders are removed at the end, and those of processes that were killed by the next one of their kind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from orchestrator import scratch

PREFIX = "crwn-test-"
LEFTOVER = f"{PREFIX}123-abc"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_is_there_while_it_is_used(temporary: Path) -> None:
    """Also where what it is used for is interrupted, with whatever is in it."""

    def use() -> None:
        with scratch.folder(PREFIX) as folder:
            assert folder.parent == temporary
            assert folder.name.startswith(f"{PREFIX}{os.getpid()}-")
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert names(temporary) == set()


def test_what_a_killed_process_left_is_removed(temporary: Path) -> None:
    """Its lock is free."""
    (temporary / LEFTOVER / "wave").mkdir(parents=True)
    (temporary / LEFTOVER / "wave" / "file").write_text("x")
    with scratch.folder(PREFIX) as folder:
        assert names(temporary) == {folder.name}


def test_what_others_use_stays(temporary: Path) -> None:
    """Two at once have a folder each, and the second start does not take the first one's."""
    with scratch.folder(PREFIX) as first, scratch.folder(PREFIX) as second:
        assert names(temporary) == {first.name, second.name}


@pytest.mark.parametrize("name", ["crwn-test-abc", "crwn-other-1-abc", "x-crwn-test-1-abc", "crwn-test-1-abc.txt"])
def test_what_has_another_name_stays(temporary: Path, name: str) -> None:
    """Nothing is removed that was not made here."""
    (temporary / name).mkdir()
    scratch.clear(PREFIX)
    assert names(temporary) == {name}


def test_no_link_is_followed(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither one with the name of a leftover nor one inside of a leftover; a file of that name stays too."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").write_text("x")
    (temporary / LEFTOVER).symlink_to(elsewhere)
    (temporary / f"{PREFIX}124-abc").mkdir()
    (temporary / f"{PREFIX}124-abc" / "link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}125-abc").write_text("a file")
    scratch.clear(PREFIX)
    assert names(temporary) == {LEFTOVER, f"{PREFIX}125-abc"}
    assert names(elsewhere) == {"kept"}


def test_what_another_user_left_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for root, who could remove it."""
    (temporary / LEFTOVER).mkdir()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    scratch.clear(PREFIX)
    assert names(temporary) == {LEFTOVER}


def test_a_file_system_without_locks_keeps_all(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can tell whether a process lives, a folder is made and removed, and no other is."""

    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(scratch.fcntl, "flock", no_locks)
    (temporary / LEFTOVER).mkdir()
    with scratch.folder(PREFIX) as folder:
        assert names(temporary) == {LEFTOVER, folder.name}
    assert names(temporary) == {LEFTOVER}


def test_a_folder_that_is_cleared_before_it_is_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another start may come in between, and takes it for a leftover."""
    lock, seen = scratch.fcntl.flock, []

    def cleared_once(descriptor: int, operation: int) -> None:
        if not seen:
            seen.extend(temporary.iterdir())
            seen[0].rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", cleared_once)
    with scratch.folder(PREFIX) as folder:
        assert folder.is_dir()
        assert folder != seen[0]
