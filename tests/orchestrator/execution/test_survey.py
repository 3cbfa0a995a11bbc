"""What a machine reports about itself."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from crwn.benchmarks.features import WeightsFile
from orchestrator.execution import survey
from orchestrator.execution.survey import VERSIONS, Questions, look


def questions(folder: Path, **changes: Any) -> Questions:
    """Of a machine that shares the folder; the driver's file is there."""
    (folder / "probe").touch()
    asked: dict[str, Any] = {
        "store": str(folder),
        "probe": "probe",
        "bases": ("digits",),
        "data_roots": (),
        "gpus": False,
    }
    return Questions(**{**asked, **changes})


def test_a_machine_that_shares_the_store_says_so(tmp_path: Path) -> None:
    """It sees the driver's file and leaves one of its own; versions are those of this process."""
    report = look(questions(tmp_path))
    assert report.sees_probe
    assert report.answer is not None
    assert (tmp_path / report.answer).exists()
    assert report.store_error is None
    assert report.free_disk > 0
    assert report.versions == {"python": platform.python_version(), **{n: metadata.version(n) for n in VERSIONS}}
    assert (report.data_faults, report.usable_gpus) == ({}, 0)


def test_a_machine_without_the_store_makes_none(tmp_path: Path) -> None:
    """A folder that is not there is not shared: making it would hide that."""
    report = look(questions(tmp_path, store=str(tmp_path / "elsewhere" / "store")))
    assert (report.sees_probe, report.answer) == (False, None)
    assert report.store_error == "no such folder"
    assert not (tmp_path / "elsewhere").exists()


def test_data_that_is_nowhere_is_named(tmp_path: Path) -> None:
    """With the folders that were looked in; an embedded set is never missing."""
    report = look(questions(tmp_path, bases=("digits", "mnist"), data_roots=(tmp_path,)))
    assert report.data_faults == {"mnist": f"found in none of {tmp_path}"}


def test_weights_that_are_nowhere_are_named(tmp_path: Path) -> None:
    """With the folders that were looked in; weights that are there are no fault."""
    content = b"weights"
    digits = hashlib.sha256(content).hexdigest()[:8]
    (tmp_path / f"alexnet-{digits}.pth").write_bytes(content)
    there, nowhere = (WeightsFile(network="alexnet", digits=each) for each in (digits, "01234567"))
    report = look(questions(tmp_path, data_roots=(tmp_path,), weights=(there, nowhere)))
    (fault,) = report.data_faults.values()
    assert report.data_faults.keys() == {nowhere.pattern}
    assert str(tmp_path / "alexnet") in fault


def test_a_package_that_is_not_installed_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is empty, not an error."""
    monkeypatch.setattr(survey, "VERSIONS", ("crwn", "no-such-package"))
    assert look(questions(tmp_path)).versions["no-such-package"] == ""
