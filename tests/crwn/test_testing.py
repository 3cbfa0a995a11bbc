"""The builder of stores: it writes what a run of the same trial writes, except for accuracies and times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from crwn import backbone, contexts, metrics
from crwn.benchmarks.permuted import PermutedSpec
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.spec import BenchmarkSpec
from crwn.testing import (
    Conditions,
    finished_record,
    new_store,
    tiny_trial,
    write_finished,
    write_sweep,
    write_unfinished,
)
from crwn.trial_spec import TrialSpec
from orchestrator.execution.attempt import attempt
from orchestrator.store.attempts import Position
from orchestrator.store.folder import LocalFiles
from orchestrator.store.index import results
from orchestrator.store.schemas import CONTEXTS_FILE, RESUME_FILE
from orchestrator.store.store import Store
from tests.methods import CASES
from tests.orchestrator.made_up import assignments_of
from tests.refusals import refused

KINDS = [(method, CASES[method].benchmark or "r-digits") for method in METHODS]
AHEAD = PermutedSpec(base="digits", num_tasks=4, task_known=False, tests_ahead=True)
KINDS += [("finetune", AHEAD), ("joint", AHEAD)]
KINDS += [("supsup", "split-digits"), ("psp", "p-digits"), ("finetune", "seq-digits"), ("finetune", "digits-360")]
MADE_UP = {"seconds", "provenance", "accuracy_told"}


@pytest.fixture
def made(tmp_path: Path) -> Store:
    """A store for synthetic trials."""
    return new_store(tmp_path / "made")


@pytest.fixture
def real(tmp_path: Path) -> Store:
    """A store for computed trials."""
    return new_store(tmp_path / "real")


def run(store: Store, spec: TrialSpec, digits: Datasets) -> None:
    """Compute a trial, or the rest of it."""
    (assignment,) = assignments_of(spec, commit="c" * 40)
    updates = list(attempt(assignment, store=store, data=digits, backbones=backbone.draw))
    assert updates[-1].state == "finished", updates[-1].error


def keys(value: Any) -> Any:
    """JSON without its values."""
    if isinstance(value, dict):
        return {name: keys(part) for name, part in value.items() if name not in ("spec", "versions")}
    return [keys(part) for part in value] if isinstance(value, list) else None


@pytest.mark.parametrize(("method", "benchmark"), KINDS)
def test_a_made_up_trial_is_like_a_real_one(
    made: Store, real: Store, digits: Datasets, method: str, benchmark: str | BenchmarkSpec
) -> None:
    """Given the real trial's accuracies, everything that does not depend on training is equal, file by file."""
    spec = tiny_trial(method, benchmark=benchmark, seed=3)
    run(real, spec, digits)
    (truth,) = real.records.trials([spec.trial_id]).to_pylist()
    tests = real.records.tasks([spec.trial_id]).to_pylist()
    num_tasks, is_stream = spec.benchmark.problem().num_tasks, spec.benchmark.problem().is_stream
    matrix = metrics.accuracy_matrix(
        ((test["task"], num_tasks if is_stream else test["tasks_learned"], test["accuracy"]) for test in tests),
        num_tasks,
        independent=spec.blueprint().is_independent,
    )
    computed = real.records.rows([spec.trial_id])[spec.trial_id].numerics
    conditions = Conditions(group_size=computed.group_size, kernel=computed.kernel)
    write_finished(made, spec, np.nan_to_num(matrix), conditions)
    (row,) = made.records.trials([spec.trial_id]).to_pylist()
    for name in set(truth) - MADE_UP:
        assert row[name] == truth[name], name
    assert (row["accuracy_told"] is None) == (truth["accuracy_told"] is None)
    assert keys(json.loads(row["provenance"])) == keys(json.loads(truth["provenance"]))
    names = ("trial_id", "method", "variant", "benchmark", "scale", "seed", "task", "tasks_learned", "update")
    made_tests = made.records.tasks([spec.trial_id]).to_pylist()
    shown = [[test["accuracy"] for test in rows if test["tasks_learned"]] for rows in (made_tests, tests)]
    assert is_stream or shown[0] == shown[1]
    for name in (*names, "num_test"):
        if name != "num_test" or benchmark != "split-digits":  # classes are not equally frequent
            assert [test[name] for test in made_tests] == [test[name] for test in tests], name
    for test, other in zip(made_tests, tests, strict=True):
        assert len(test["answered"] or ()) == len(other["answered"] or ())
        assert sum(test["answered"] or ()) in (0, test["num_test"])
    for name in ("train_seconds", "eval_seconds", "loss", "tested", "curve", "accuracy_told", "answered"):
        assert [bool(test[name]) for test in made_tests] == [bool(test[name]) for test in tests], name
    banks = [contexts.load((store.folder(spec.trial_id) / CONTEXTS_FILE).read_bytes()) for store in (made, real)]
    shapes = [{name: (t.shape, t.dtype) for name, t in bank.tensors.items()} for bank in banks]
    assert shapes[0] == shapes[1]
    assert [(bank.trial_id, bank.spec, bank.fingerprint) for bank in banks[:1]] == [
        (spec.trial_id, json.loads(spec.canonical_json()), row["fingerprint"])
    ]


@pytest.mark.parametrize("method", [name for name in METHODS if CASES[name].blueprint().is_continual])
def test_an_unfinished_trial_goes_on_from_its_point(made: Store, digits: Datasets, method: str) -> None:
    """As one that was killed does: its first task is not learned again, and both attempts are known."""
    spec = tiny_trial(method, benchmark=CASES[method].benchmark or "r-digits")
    write_unfinished(made, spec, accuracy=0.75)
    assert made.state(spec.trial_id, driven=False) == "interrupted"
    run(made, spec, digits)
    tasks = made.records.tasks([spec.trial_id]).to_pylist()
    assert (tasks[0]["accuracy"], tasks[0]["tested"]) == (0.75, 1_750_000_001.125)
    attempts = made.all_attempts(spec.trial_id)
    assert [entry.began_at for entry in attempts] == [Position(), Position(tasks_learned=1)]


def test_a_failed_trial_says_in_what_it_ended(made: Store) -> None:
    """Its error is that of its last attempt; it has a resume point as any."""
    spec = tiny_trial()
    write_unfinished(made, spec, error=ValueError("no such thing"))
    assert made.state(spec.trial_id, driven=True) == "failed"
    assert made.unfinished.errors([spec.trial_id]) == {spec.trial_id: "ValueError: no such thing"}
    assert made.read(spec.trial_id, RESUME_FILE) is not None


@pytest.mark.parametrize(
    ("method", "accuracy", "measured"),
    [
        ("neuromodnet", 0.5, (0.5, 0.0, 0.0)),
        ("neuromodnet", [0.25, 0.5, 0.75], (0.5, 0.0, 0.0)),
        ("psp", [0.25, 0.5, 0.75], (0.5, 0.0, 0.0)),
        ("psp", [[1.0, 0, 0], [0.5, 1.0, 0], [0.25, 0.5, 1.0]], (1.75 / 3, 0.625, -0.625)),
        ("mtl", [0.25, 0.5, 0.75], (0.5, None, None)),
    ],
)
def test_measures_follow_from_the_accuracies(made: Store, method: str, accuracy: Any, measured: Any) -> None:
    """Accuracy, forgetting and backward transfer are those of the matrix; what it does not tell is null."""
    spec = tiny_trial(method, num_tasks=3)
    write_finished(made, spec, accuracy)
    (row,) = made.records.trials([spec.trial_id]).to_pylist()
    assert (row["accuracy"], row["forgetting"], row["backward_transfer"]) == measured
    final = results(made)["final"][0].as_py()
    assert metrics.average_accuracy(final) == row["accuracy"]


@pytest.mark.parametrize(
    ("accuracy", "code"),
    [
        (1.5, "not-an-accuracy"),
        ([0.5, float("nan")], "not-an-accuracy"),
        ([0.5, 0.5, 0.5], "wrong-shape"),
        ([[0.5, 0.0], [0.25, 0.5]], "forgets-nothing"),
    ],
)
def test_what_no_trial_could_have_is_refused(accuracy: Any, code: str) -> None:
    """A synthetic store is always valid."""
    with refused(InvalidError, code, says="accuracy: "):
        finished_record(tiny_trial(), accuracy)


@pytest.mark.parametrize(("method", "tasks_learned"), [("supsup", 2), ("supsup", -1), ("mtl", 1)])
def test_a_trial_that_would_be_finished_is_not_unfinished(made: Store, method: str, tasks_learned: int) -> None:
    """Nor is one that learns all its tasks at once ever half-way by tasks."""
    with refused(InvalidError, "all-learned", says=f"given {tasks_learned}"):
        write_unfinished(made, tiny_trial(method), tasks_learned=tasks_learned)


def test_equal_calls_write_equal_bytes(tmp_path: Path) -> None:
    """Times too: nothing comes from the clock or the machine."""
    stores = [new_store(tmp_path / name) for name in "ab"]
    spec = tiny_trial()
    for store in stores:
        write_finished(store, spec)
    first, second = (
        {path.name: path.read_bytes() for path in store.folder(spec.trial_id).iterdir()} for store in stores
    )
    assert first == second
    assert len(first) == 4


def test_conditions_are_kept(made: Store) -> None:
    """Numerics, machine and times of each trial may be chosen; a trial on a GPU has samples of it."""
    spec = tiny_trial()
    conditions = Conditions(device="cuda", device_name="H200", group_size=1, host="there", task_seconds=2.0, memory=7)
    write_finished(made, spec, 0.5, conditions)
    row = made.records.rows([spec.trial_id])[spec.trial_id]
    assert row.numerics.device == "cuda"
    said = row.provenance
    assert (said.device, said.host, said.peak_memory_bytes) == ("H200", "there", 7)
    assert (said.train_seconds_per_task, row.seconds) == (2.0, 4.375)
    _, system = made.so_far(spec.trial_id)
    assert [sample.gpu_percent for sample in system] == [40.0, 40.0]


def test_a_trial_may_have_gone_on_under_other_code(made: Store) -> None:
    """Both attempts are in its record, with what each computed with."""
    spec = tiny_trial()
    before = Conditions(versions=(("torch", "2.10.0"),), host="there")
    write_finished(made, spec, 0.5, Conditions(before=before))
    row = made.records.row(spec.trial_id)
    assert row is not None
    assert row.provenance.code_changes == "torch 2.10.0 -> 2.11.0"
    assert [attempt.host for attempt in row.provenance.attempts] == ["there", "here"]


def test_a_sweep_asks_for_the_trials(made: Store) -> None:
    """Those that differ by their seed alone are one cell; other settings are another."""
    specs = [tiny_trial(seed=seed, modulation=name) for name in ("local", "global") for seed in (0, 1)]
    write_sweep(made, specs, name="two")
    cells = made.manifest("two").cells
    assert [(cell.method, cell.variant, len(cell.trials)) for cell in cells] == [
        ("neuromodnet", "modulation=local", 2),
        ("neuromodnet", "modulation=global", 2),
    ]
    assert made.manifest("two").trial_ids == [spec.trial_id for spec in specs]


def test_a_quick_store_does_not_wait_for_the_disk(made: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other does, for every file."""
    waited: list[int] = []
    monkeypatch.setattr("os.fsync", waited.append)
    write_finished(made, tiny_trial())
    made.report.write("table.md", b"...")
    assert waited == []
    LocalFiles(made.root).write("report/table.md", b"...")
    assert len(waited) == 1


def test_the_tables_are_the_stores_own(made: Store) -> None:
    """A column has the type that a run gives it."""
    write_finished(made, tiny_trial())
    assert made.records.trials([tiny_trial().trial_id]).schema.field("seed").type == pa.int64()
