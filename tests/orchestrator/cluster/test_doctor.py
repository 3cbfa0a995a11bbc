"""What would stop a sweep is found and named before it starts; what would not is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from crwn.testing import tiny_trial
from crwn.trial_spec import TrialSpec
from orchestrator.cluster import doctor
from orchestrator.cluster.doctor import MIN_FREE_DISK, Finding, examine, kept_bytes, resume_bytes
from orchestrator.errors import UnavailableError, UserError
from orchestrator.execution.running import Options
from orchestrator.execution.survey import NodeReport, Questions, look
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Resources, Sweep

SWEEP = """
seeds: [0]
benchmarks: [r-digits]
methods: {neuromodnet: {scales: [FC16]}}
"""
Answers = Callable[[Questions], Mapping[str, NodeReport | str]]
OPTIONS = Options(tracking=False)


class Machines:
    """An executor whose machines' reports a test sets."""

    def __init__(self, answers: Answers) -> None:
        self.survey = answers

    def check(self, resources: Resources) -> None:
        if resources.cpus > 4:
            raise UserError("resources-too-large", "resources: a trial asks for too much")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """One trial on embedded digits."""
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    return load_sweep(file)


@pytest.fixture
def examined(sweep: Sweep, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """The findings for these machines' reports."""

    def find(answers: Answers, options: Options = OPTIONS) -> list[Finding]:
        monkeypatch.setattr(doctor, "EXECUTORS", {"inline": lambda: Machines(answers)})
        return list(examine(sweep, store, options))

    return find


@pytest.fixture
def faults(examined: Callable[..., list[Finding]]) -> Callable[..., list[Finding]]:
    """The faults for these machines' reports."""
    return lambda *answers: [finding for finding in examined(*answers) if finding.is_fault]


def two(change: Callable[[Questions, NodeReport], NodeReport | str]) -> Answers:
    """Two machines, the second with a different report."""
    return lambda questions: {"10.0.0.1": look(questions), "10.0.0.2": change(questions, look(questions))}


def changed(**values: Any) -> Answers:
    """The second of two machines answers with other values."""
    return two(lambda _, report: dataclasses.replace(report, **values))


def test_nothing_is_in_the_way(faults: Callable[..., list[Finding]], store: Store) -> None:
    """Two machines on one folder: no fault, and nothing is left behind in the store."""
    assert faults(changed()) == []
    assert sorted(path.name for path in store.root.iterdir()) == ["store.json"]


@pytest.mark.parametrize(
    ("values", "subject", "words"),
    [
        ({"versions": {}}, None, ()),
        ({"versions": {"ray": "2.0"}}, "versions", ("10.0.0.2", "ray 2.0, not 2.", "constraints.txt")),
        ({"versions": {"ray": ""}}, "versions", ("ray none, not 2.",)),
        ({"store_error": "PermissionError: no"}, "store", ("10.0.0.2", "PermissionError: no", "--out")),
        ({"answer": "written elsewhere"}, "store", ("10.0.0.2", "not visible here", "--out")),
        (
            {"data_faults": {"mnist": "found in none of /data"}},
            "data",
            ("mnist on", "10.0.0.2", "crwn data fetch mnist"),
        ),
        (
            {"data_faults": {"miniimagenet": "found in none of /data"}},
            "data",
            ("Put it there: miniimagenet/*.parquet, with", "; or miniimagenet/CLASS/*.jpg"),
        ),
    ],
)
def test_a_machine_that_differs_is_named(
    faults: Callable[..., list[Finding]], values: dict[str, Any], subject: str | None, words: tuple[str, ...]
) -> None:
    """The fault says what is wrong there and what to do; the other machine is not named."""
    found = faults(changed(**values))
    assert [finding.subject for finding in found] == ([subject] if subject else [])
    for word in words:
        assert word in found[0].found
    assert not any("10.0.0.1" in finding.found for finding in found)


def test_data_that_is_damaged_is_not_asked_for_again(faults: Callable[..., list[Finding]]) -> None:
    """Only the damage is reported: downloading would not help."""
    (fault,) = faults(changed(data_faults={"mnist": "data set 'mnist': /data/x is damaged."}))
    assert fault.found.endswith("data set 'mnist': /data/x is damaged.")


@pytest.mark.parametrize("error", ["no such folder", None])
def test_a_machine_that_does_not_see_the_store_costs_something(
    faults: Callable[..., list[Finding]], examined: Callable[..., list[Finding]], error: str | None
) -> None:
    """It is no fault: results are sent through Ray, and the cost is reported."""
    values = {"sees_probe": False, "store_error": error, "answer": "written elsewhere"}
    assert faults(changed(**values)) == []
    costs, seen = [finding.found for finding in examined(changed(**values)) if finding.subject == "store"]
    assert "10.0.0.2" not in seen
    for words in ("(10.0.0.2)", "through Ray", " MiB "):
        assert words in costs
    assert seen.endswith("written and read from 1 machine")


@pytest.mark.parametrize(("address", "machines"), [(None, 1), ("10.0.0.1:6379", 0)])
def test_where_nothing_can_run_the_rest_is_looked_at(
    sweep: Sweep, store: Store, monkeypatch: pytest.MonkeyPatch, address: str | None, machines: int
) -> None:
    """Ray does not start here, or a cluster does not answer: said once, and asked once; this machine is examined."""

    class Nowhere:
        def check(self, _: Resources) -> None:
            raise UnavailableError("path-too-long", "$TMPDIR: expected a shorter path")

        def survey(self, _: Questions) -> Mapping[str, NodeReport | str]:
            raise AssertionError("asked again")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(doctor, "EXECUTORS", {"ray": Nowhere})
    findings = list(examine(sweep, store, Options(tracking=False, executor="ray")))
    (fault,) = [finding for finding in findings if finding.is_fault]
    assert (fault.subject, fault.found) == ("Ray", "$TMPDIR: expected a shorter path")
    assert [finding.subject for finding in findings].count("machines") == machines
    assert {"versions", "disk"} <= {finding.subject for finding in findings}


def test_a_machine_that_is_silent_is_named(faults: Callable[..., list[Finding]]) -> None:
    """As one without crwn is; the others are examined all the same."""
    (finding,) = faults(two(lambda *_: "No module named 'orchestrator'"))
    assert finding.found.startswith("10.0.0.2 ")
    assert "'orchestrator'" in finding.found


def test_no_machine_at_all_is_a_fault(faults: Callable[..., list[Finding]]) -> None:
    """A cluster without workers yet."""
    (finding,) = faults(lambda _: {})
    assert (finding.subject, "workers" in finding.found) == ("machines", True)


def test_all_faults_are_found_at_once(faults: Callable[..., list[Finding]]) -> None:
    """Too large a request, no data, a GPU that torch cannot use."""
    options = dataclasses.replace(OPTIONS, cpus=5.0, gpus=1.0)
    found = faults(changed(data_faults={"mnist": "absent"}, usable_gpus=0), options)
    subjects = [finding.subject for finding in found]
    assert subjects[:2] == ["resources", "data"]
    assert set(subjects[2:]) == {"GPUs"}
    assert found[0].found == "a trial asks for too much"


def test_a_full_disk_is_a_fault(
    faults: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Of the store's disk as this machine sees it."""
    monkeypatch.setattr(
        doctor, "look", lambda questions: dataclasses.replace(look(questions), free_disk=MIN_FREE_DISK - 1)
    )
    (finding,) = faults(changed())
    assert (finding.subject, f"{store.root}: 1.0 GiB free" in finding.found) == ("disk", True)


def test_a_tracking_server_that_is_not_there_is_a_fault(faults: Callable[..., list[Finding]]) -> None:
    """With the same message as in a run."""
    pytest.importorskip("mlflow")
    (finding,) = faults(changed(), Options(tracking_uri="http://127.0.0.1:1"))
    assert (finding.subject, "http://127.0.0.1:1 " in finding.found) == ("MLflow", True)


@pytest.mark.parametrize(
    ("method", "scale", "keep_weights", "numbers"),
    [
        ("neuromodnet", "FC16", False, 36 * (784 + 16 + 16 + 3)),
        ("stl", "FC16", False, 0),
        ("stl", "FC16", True, 36 * (784 * 16 + 16 * 16 + 16 * 10)),
    ],
)
def test_what_a_trial_keeps_by_hand(method: str, scale: str, numbers: int, *, keep_weights: bool) -> None:
    """Four bytes a number of every task, weights only on request; a resume point holds an optimiser besides."""
    settings = METHODS[method].spec()
    trial = TrialSpec(
        method=settings, benchmark=PRESETS["r-mnist"], scale=scale, seed=0, training=settings.training(scale)
    )
    assert kept_bytes(trial, keep_weights=keep_weights) == doctor.ROWS_BYTES + 4 * numbers
    trained = trial.blueprint().trained_per_task
    kept = 36 * trial.blueprint().stored_per_task
    assert resume_bytes(trial) == 4 * (kept + 3 * trained)


def test_a_resume_point_holds_the_buffer() -> None:
    """In addition to fine-tuning's: 64 bytes per image, its label, and its ten scores."""
    without, with_buffer = (
        resume_bytes(trial)
        for trial in (
            tiny_trial("finetune", benchmark="seq-digits"),
            tiny_trial("er", benchmark="seq-digits", buffer=100),
        )
    )
    assert with_buffer - without == 100 * (64 + 8 + 40)
