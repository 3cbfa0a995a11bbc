"""Making MLflow's database: beside its place, one process at a time, and nothing is left of one that was killed."""

from __future__ import annotations

import threading
from pathlib import Path

import filelock
import pytest

from orchestrator.tracking.database import clear, making


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the database is to be."""
    return tmp_path / "runs" / "mlflow.db"


def names(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir())


LOCK = ".mlflow.db.lock"


def test_a_database_gets_its_place_when_it_is_made(file: Path) -> None:
    """Not before; the folder that it was made in is gone then, and it is not made again."""
    with making(file) as made:
        assert made is not None
        made.write_text("a database")
        made.with_name("mlflow.db-journal").touch()
        assert not file.exists()
    assert file.read_text() == "a database"
    assert names(file) == [LOCK, "mlflow.db"]
    with making(file) as made:
        assert made is None


def test_one_that_cannot_be_made_leaves_nothing(file: Path) -> None:
    """The next one tries again; an empty file is none yet."""
    for _ in range(2):
        with pytest.raises(OSError, match="no space"), making(file):
            raise OSError("no space")
        assert names(file) == [LOCK]
    file.touch()
    with making(file) as made:
        assert made is not None
        made.write_text("a database")


def test_what_a_killed_process_left_is_cleared(file: Path) -> None:
    """By the next that makes it, or by who killed it; folders of anybody else stay."""
    for clears in (False, True):
        left = file.parent / ".mlflow.db.making-abc"
        left.mkdir(parents=True)
        (left / "mlflow.db").touch()
        (file.parent / "tmp12345678").mkdir(exist_ok=True)
        if clears:
            clear(file)
        else:
            with pytest.raises(OSError, match="no space"), making(file):
                raise OSError("no space")
        assert names(file) == [LOCK, "tmp12345678"]


def test_what_a_process_uses_is_not_cleared(file: Path) -> None:
    """It holds the lock."""
    with making(file) as made:
        assert made is not None
        made.write_text("a database")
        clear(file)
        assert made.exists()
    clear(file)
    clear(file.parent / "nowhere" / "mlflow.db")
    assert names(file) == [LOCK, "mlflow.db"]


def test_two_that_make_one_database_wait_for_each_other(file: Path) -> None:
    """The second finds it made."""
    file.parent.mkdir()
    found: list[Path | None] = []

    def make() -> None:
        with making(file) as made:
            found.append(made)

    with filelock.FileLock(file.with_name(LOCK)):
        second = threading.Thread(target=make)
        second.start()
        file.write_text("a database")
    second.join()
    assert found == [None]
