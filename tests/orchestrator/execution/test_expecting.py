"""Estimated durations: from measurements, else from operation counts, with bounds and basis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crwn.methods import METHODS
from crwn.testing import new_store, write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.execution import expecting
from orchestrator.execution.expecting import (
    ALIKE,
    COUNTED,
    SAME,
    Past,
    about,
    duration,
    expected,
    past_trials,
)
from orchestrator.execution.progress import estimated_work
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources

MakeTrial = Callable[..., TrialSpec]

SPEED = 1e9


@pytest.fixture(autouse=True)
def speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cores of known speed."""
    monkeypatch.setattr(expecting, "measured_speed", lambda: SPEED)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def past(spec: TrialSpec, seconds: float, *, is_here: bool = True) -> Past:
    return Past(spec=spec, seconds=seconds, store="runs/a", is_here=is_here)


def test_the_nearest_finished_trials_are_the_basis(trial: MakeTrial) -> None:
    """Those that differ by their seed; else those of the method, in proportion to the work; else a count."""
    known = [past(trial(0), 2.0), past(trial(1), 4.0), past(trial(0, updates_per_task=50), 100.0)]
    same, alike, counted = expected([trial(2), trial(2, updates_per_task=10), trial(0, kind="supsup")], known)
    assert (same.seconds, same.basis, len(same.past)) == (3.0, SAME, 2)
    work = sum(estimated_work(each.spec) for each in known)
    assert alike.basis == ALIKE
    assert alike.seconds == pytest.approx(106.0 / work * estimated_work(trial(2, updates_per_task=10)))
    assert counted.basis == COUNTED
    assert expected([trial(2, updates_per_task=5000)], known)[0].basis == COUNTED  # too far from what was measured
    assert counted.seconds == pytest.approx(estimated_work(trial(0, kind="supsup")) / (0.5 * SPEED))


def test_times_of_this_machine_come_first(trial: MakeTrial) -> None:
    """Times of other machines count only if this one has computed nothing."""
    elsewhere, here = past(trial(0), 100.0, is_here=False), past(trial(1), 1.0)
    assert expected([trial(2)], [elsewhere, here])[0].seconds == 1.0
    assert expected([trial(2)], [elsewhere])[0].seconds == 100.0


def test_a_duration_has_bounds_and_says_what_it_is_based_on(trial: MakeTrial, tmp_path: Path) -> None:
    """It counts trials in parallel; neighbouring stores are read too, even of other sweeps."""
    store = Store(tmp_path / "runs" / "new")
    other = new_store(tmp_path / "runs" / "old")
    write_finished(other, trial(0))
    assert not store.exists
    (known,) = past_trials(store)
    assert (known.spec, known.store) == (trial(0), other.address)
    left = [trial(seed) for seed in range(1, 7)]
    found = duration(left, Resources(), store)
    assert (found.slots, found.cpus) == (2, 2)
    assert found.seconds == pytest.approx(3 * known.seconds)
    assert found.most == pytest.approx(1.25**2 * found.least) == pytest.approx(1.25 * found.seconds)
    there = "" if known.is_here else ", on another machine"
    assert found.parts == (f"6 trials {SAME.text} in {other.address}{there}",)
    assert duration(left, Resources(cpus=2.0), store).slots == 1
    assert duration(left, Resources(cpus=3.0), store).slots == 0
    few = duration(left[:2], Resources(), store)
    assert (few.slots, few.seconds) == (1, pytest.approx(2 * known.seconds))  # inline, one after another
    (counted,) = duration([trial(0, kind="supsup")], Resources(), store).parts
    assert counted == "1 trial from a count of operations, at 0 billion multiply-adds per second and core, measured now"


def test_what_cannot_be_read_is_no_basis(trial: MakeTrial, tmp_path: Path) -> None:
    """A damaged record, a spec of another crwn, and folders that are no stores; nothing is written."""
    store = new_store(tmp_path / "runs" / "one")
    for seed in (0, 1):
        write_finished(store, trial(seed))
    (tmp_path / "runs" / "folder").mkdir()
    (store.folder(trial(0).trial_id) / "trial.parquet").write_bytes(b"damaged")
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    assert [each.spec for each in past_trials(store)] == [trial(1)]
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before


def test_a_folder_beside_that_is_no_store_is_passed_over(trial: MakeTrial, tmp_path: Path) -> None:
    """Such as one of images."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").touch()
    store = new_store(tmp_path / "runs")
    write_finished(store, trial(0))
    assert [each.spec for each in past_trials(store)] == [trial(0)]


def test_a_trial_whose_parts_are_not_known_is_passed_over(
    trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a method of a plug-in that is not here."""
    store = new_store(tmp_path / "runs")
    for seed in range(2):
        write_finished(store, trial(seed, kind="er"))
    assert len(list(past_trials(store))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(METHODS, "_entries", {name: entry for name, entry in METHODS.items() if name != "er"})
        assert list(past_trials(store)) == []


def test_the_speed_of_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """In multiply-adds per second of a core: more than ten million, and less than any has."""
    monkeypatch.undo()
    assert 1e7 < expecting.measured_speed() < 1e13


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (8.6, "9 s"), (83, "85 s"), (100, "2 min"), (3700, "62 min"), (6000, "1.7 h"), (90_000, "25 h")],
)
def test_a_duration_is_told_roughly(seconds: float, text: str) -> None:
    """Because the bounds are wide."""
    assert about(seconds) == text
