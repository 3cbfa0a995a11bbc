"""Fixtures for the tests of models: stores with finished trials, synthetic or briefly trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crwn.testing import new_store, tiny_trial, write_finished, write_sweep, write_unfinished
from orchestrator.store.store import Store

NUM_TASKS = 4
TRIAL = tiny_trial(num_tasks=NUM_TASKS)
UNFINISHED = tiny_trial(num_tasks=NUM_TASKS, seed=1)
KEEPS_NOTHING = tiny_trial("er", num_tasks=NUM_TASKS)


@pytest.fixture(autouse=True)
def nothing_stays_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow adds the folder of each model that it loads to Python's path, for good."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("crwn_model", None)


@pytest.fixture
def served_store(tmp_path: Path) -> Store:
    """A store of three trials: one finished, one not, and one whose weights were not kept."""
    store = new_store(tmp_path / "runs" / "small")
    write_sweep(store, [TRIAL, UNFINISHED, KEEPS_NOTHING])
    write_finished(store, TRIAL)
    write_unfinished(store, UNFINISHED)
    write_finished(store, KEEPS_NOTHING)
    return store
