"""A store's results for Python: trials, matrices, curves, contexts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from crwn import metrics
from crwn.benchmarks import PRESETS
from crwn.benchmarks.rotated import RotatedSpec
from crwn.testing import Conditions, tiny_trial, write_finished, write_sweep, write_unfinished
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.measures import MEASURES
from orchestrator.report.results import Results
from orchestrator.store import index
from orchestrator.store.schemas import CONTEXTS_FILE, TASKS_FILE
from orchestrator.store.store import Store
from tests.methods import CASES
from tests.refusals import refused

Trial = Callable[..., TrialSpec]
NAN = math.nan

COLUMNS = [
    *("id", "method", "variant", "benchmark", "scale", "scenario", "seed", "num_tasks", "status"),
    *MEASURES,
    *("seconds", "started", "finished"),
]


def filled(store: Store, spec: TrialSpec, accuracy: Any = 0.5) -> Results:
    """A store with one finished trial."""
    write_finished(store, spec, accuracy=accuracy)
    return Results(store)


# Trials


def test_trials_are_those_that_are_asked_for_and_those_that_are_done(store: Store, trial: Trial) -> None:
    """In the sweep's order, each with its state, and with measures where it is done; then those of no sweep."""
    asked = [trial(seed) for seed in range(4)]
    other = trial(kind="er", buffer=20)
    write_sweep(store, asked)
    write_finished(store, asked[1], accuracy=[0.5, 0.75])
    write_unfinished(store, asked[2], error=ValueError("no"))
    write_unfinished(store, asked[3])
    write_finished(store, other, accuracy=[[0.5, 0.0], [0.25, 0.75]])
    found = Results(store).trials
    assert list(found.columns) == COLUMNS
    assert found["id"].tolist() == [each.trial_id for each in (*asked, other)]
    assert found["status"].tolist() == ["left", "done", "failed", "interrupted", "done"]
    assert found["method"].tolist() == ["neuromodnet"] * 4 + ["er"]
    assert found["variant"].tolist() == [""] * 4 + ["buffer=20"]
    assert set(found["benchmark"]) == {"r-digits"}
    assert set(found["scenario"]) == {"task"}
    assert found["num_tasks"].tolist() == [2] * 5
    assert found["seed"].tolist() == [0, 1, 2, 3, 0]
    assert found["accuracy"].tolist() == pytest.approx([NAN, 0.625, NAN, NAN, 0.5], nan_ok=True)
    assert found["forgetting"].tolist() == pytest.approx([NAN, 0, NAN, NAN, 0.25], nan_ok=True)
    assert found["examples_kept"].tolist() == pytest.approx([NAN, 0, NAN, NAN, 20], nan_ok=True)
    assert found["seconds"].notna().tolist() == [False, True, False, False, True]
    done = found[found["status"] == "done"]
    assert (done["finished"] > done["started"]).all()
    assert str(done["finished"].dt.tz) == "UTC"
    assert found.loc[found["status"] != "done", ["started", "finished"]].isna().all(axis=None)


def test_an_empty_store_has_no_trials(store: Store) -> None:
    """The columns still exist, so that a notebook's next cell runs."""
    found = Results(store).trials
    assert list(found.columns) == COLUMNS
    assert found.empty
    assert found.query("method == 'er' and accuracy > 0.5 and seed == 0").empty


def test_the_scenario_of_every_benchmark_is_named(store: Store) -> None:
    """The scenario and the number of tasks come from the benchmark, whatever the method."""
    for name, spec in ((name, CASES[name].trial()) for name in ("er", "finetune-class", "neuromodnet")):
        write_finished(store, spec, accuracy=0.5)
        found = Results(store).trials.set_index("id").loc[spec.trial_id]
        assert found["scenario"] == spec.benchmark.problem().scenario, name
        assert found["num_tasks"] == spec.benchmark.problem().num_tasks


# Matrices


def test_a_matrix_is_whole_where_tasks_do_not_touch(store: Store, trial: Trial) -> None:
    """The diagonal and the last row are stored, and what is between is implied; what was not learned is not known."""
    spec = trial(num_tasks=3)
    found = filled(store, spec, [0.5, 0.75, 0.25]).matrix(spec)
    assert found.index.tolist() == [1, 2, 3]
    assert (found.index.name, found.columns.name) == ("tasks_learned", "task")
    assert found.columns.tolist() == [0, 1, 2]
    expected = [[0.5, NAN, NAN], [0.5, 0.75, NAN], [0.5, 0.75, 0.25]]
    np.testing.assert_array_equal(found.to_numpy(), expected)


def test_a_matrix_of_tasks_that_interfere(store: Store, trial: Trial) -> None:
    """The lower triangle as it was tested; measures over it are those of the trial."""
    spec = trial(kind="finetune", num_tasks=3)
    accuracies = np.array([[0.9, 0, 0], [0.5, 0.8, 0], [0.25, 0.5, 0.75]])
    results = filled(store, spec, accuracies)
    found = results.matrix(spec)
    np.testing.assert_array_equal(found.to_numpy(), np.where(np.tri(3, dtype=bool), accuracies, NAN))
    assert metrics.forgetting(found.to_numpy()) == pytest.approx(results.trials["forgetting"][0])


def test_a_matrix_of_joint_training_has_its_last_row(store: Store, trial: Trial) -> None:
    """All tasks are learned at once; before that, nothing is known."""
    spec = trial(kind="mtl", num_tasks=3)
    found = filled(store, spec, [0.5, 0.75, 0.25]).matrix(spec)
    np.testing.assert_array_equal(found.to_numpy(), [[NAN] * 3, [NAN] * 3, [0.5, 0.75, 0.25]])


def test_a_matrix_with_tests_ahead_begins_before_any_learning(store: Store) -> None:
    """A row 0 of untrained networks, and the tests of each task just before it is learned."""
    benchmark = dataclasses.replace(PRESETS["r-digits-domain"], num_tasks=3, tests_ahead=True)
    spec = tiny_trial("finetune", benchmark=benchmark)
    accuracies = np.array([[0.9, 0.2, 0], [0.5, 0.8, 0.3], [0.25, 0.5, 0.75]])
    found = filled(store, spec, accuracies).matrix(spec)
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found.loc[0].tolist() == pytest.approx([0.1] * 3)
    np.testing.assert_array_equal(found.loc[1:].to_numpy(), np.where(np.tri(3, k=1, dtype=bool), accuracies, NAN))


def test_a_matrix_of_a_stream_is_by_update(store: Store) -> None:
    """A row for each update at which it was tested, a column for each test, of which there are fewer than segments."""
    spec = tiny_trial("er", benchmark=dataclasses.replace(PRESETS["digits-360"], test_every=5))
    problem = spec.benchmark.problem()
    found = filled(store, spec, 0.5).matrix(spec)
    assert found.index.name == "update"
    assert found.index.tolist() == [*range(5, spec.num_updates(), 5), spec.num_updates()]
    assert found.shape[1] == problem.num_tasks < problem.num_segments
    assert (found == 0.5).all(axis=None)


@pytest.mark.parametrize("name", CASES)
def test_the_last_row_of_every_methods_matrix_is_its_accuracy(name: str, store: Store) -> None:
    """In every scenario, the last row is known and its mean is the trial's accuracy."""
    spec = CASES[name].trial()
    results = filled(store, spec, 0.5)
    found = results.matrix(spec)
    assert found.shape[1] == spec.benchmark.problem().num_tasks
    assert found.iloc[-1].mean() == results.trials["accuracy"][0] == 0.5


@pytest.mark.parametrize("kind", ["neuromodnet", "finetune"])
def test_a_matrix_of_a_trial_that_is_not_done_has_what_it_learned(kind: str, store: Store, trial: Trial) -> None:
    """What is not learned yet implies nothing about the rows that come."""
    spec = trial(kind=kind, num_tasks=3)
    write_sweep(store, [spec])
    results = Results(store)
    assert results.matrix(spec).shape == (3, 3)
    assert results.matrix(spec).isna().all(axis=None)
    write_unfinished(store, spec, accuracy=0.5, tasks_learned=2)
    expected = [[0.5, NAN, NAN], [0.5, 0.5, NAN], [NAN, NAN, NAN]]
    np.testing.assert_array_equal(results.matrix(spec).to_numpy(), expected)


def test_damaged_tests_are_no_matrix(store: Store, trial: Trial) -> None:
    """A record that is not as it was written is refused, whatever is asked of it."""
    spec, other = trial(), trial(kind="finetune")
    results = filled(store, spec)
    write_finished(store, other)
    path = store.folder(spec.trial_id) / TASKS_FILE
    path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)
    for ask in (results.matrix, results.curve):
        with pytest.raises(UserError, match=r"tasks\.parquet"):
            ask(spec)
    with pytest.raises(UserError, match=r"tasks\.parquet"):
        _ = results.trials


# Curves


def test_a_curve_has_a_row_for_each_point(store: Store, trial: Trial) -> None:
    """Of each task, with the update after which it was taken."""
    spec = trial(num_tasks=2)
    write_finished(store, spec, conditions=Conditions(curve_points=2))
    found = Results(store).curve(spec)
    assert list(found.columns) == ["task", "step", "loss", "accuracy", "time"]
    assert found["task"].tolist() == [0, 0, 1, 1]
    assert found["step"].tolist() == [2, 5, 2, 5]
    assert (found["loss"] == 2.0).all()
    assert (found["accuracy"] == 0.25).all()
    assert found["time"].is_monotonic_increasing
    assert str(found["time"].dt.tz) == "UTC"


def test_a_trial_that_has_not_begun_has_an_empty_curve(store: Store, trial: Trial) -> None:
    """With the columns of one."""
    write_sweep(store, [trial()])
    found = Results(store).curve(trial())
    assert found.empty
    assert list(found.columns) == ["task", "step", "loss", "accuracy", "time"]


# Contexts


def test_contexts_predict(store: Store, trial: Trial) -> None:
    """From the store's files alone: the images of a task and the scores of each class."""
    spec = trial(num_tasks=2)
    results = filled(store, spec)
    images, labels = results.test_set(spec, 1)
    assert images.dtype == torch.uint8
    assert len(images) == len(labels) == 360
    bank = results.contexts(spec)
    assert bank.trial == spec
    assert bank.tensors["layer1.context"].shape == (2, 64)
    assert bank.predict(images, task=1).shape == (360, 10)


def test_contexts_that_were_not_kept_say_what_to_set(store: Store, trial: Trial) -> None:
    """A method whose learning is weights keeps them on request."""
    spec = trial(kind="stl")
    results = filled(store, spec)
    with refused(UserError, "weights-not-kept", says=["stl", "keep_weights: true", "keep_weights=True"]):
        results.contexts(spec)


def test_contexts_of_a_trial_that_is_not_done_are_refused(store: Store, trial: Trial) -> None:
    """They are only written at its end."""
    spec = trial()
    write_unfinished(store, spec)
    with refused(UserError, "trial-not-finished", says=["crwn.run", spec.trial_id]):
        Results(store).contexts(spec)


def test_damaged_or_lost_contexts_are_refused(store: Store, trial: Trial) -> None:
    """They are those of the trial's record, or none."""
    spec = trial()
    results = filled(store, spec)
    path = store.folder(spec.trial_id) / CONTEXTS_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    with refused(UserError, "made-with-others", says=str(path)):
        results.contexts(spec)
    path.unlink()
    with refused(UserError, "file-missing", says=str(path)):
        results.contexts(spec)


def test_a_test_set_is_that_of_the_trial(store: Store, trial: Trial) -> None:
    """Rotated as the task's, held out where the trial's were; another task, folder or set is refused."""
    spec, held_out = trial(), trial(validation=100)
    results = filled(store, spec)
    write_finished(store, held_out)
    assert len(results.test_set(held_out, 0)[0]) == 100
    first, second = (results.test_set(spec, task)[0] for task in (0, np.int64(1)))
    assert not torch.equal(first, second)
    for task in (2, -1, "0", None):
        with refused(UserError, "unknown-task", says=["from 0 to 1", f"given {task!r}"]):
            results.test_set(spec, task)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected a folder"):
        results.test_set(spec, 0, data_root="/nowhere")


def test_a_base_set_that_is_not_here_is_not_fetched(store: Store, tmp_path: Path, workplace: Path) -> None:
    """The message says where it was looked for."""
    spec = tiny_trial(benchmark=RotatedSpec(base="mnist", num_tasks=2))
    with refused(UserError, "data-set-missing", says="'mnist'"):
        filled(store, spec).test_set(spec, 0)
    assert not (tmp_path / "home" / ".cache").exists()
    assert list(workplace.iterdir()) == []


# Names of trials


def test_a_trial_is_named_by_its_id_the_beginning_of_it_or_its_spec(store: Store, trial: Trial) -> None:
    """All three mean the same, whether it is finished or only asked for."""
    done, asked = trial(0), trial(1)
    write_finished(store, done)
    write_sweep(store, [done, asked])
    results = Results(store)
    for spec in (done, asked):
        length = next(n for n in range(1, 17) if done.trial_id[:n] != asked.trial_id[:n])
        for name in (spec, spec.trial_id, spec.trial_id[:length]):
            assert results.spec(name) == spec


def test_an_unknown_trial_is_refused_with_the_nearest(store: Store, trial: Trial) -> None:
    """With at most three ids, not with all of them; so is what is no name of one."""
    specs = [trial(seed) for seed in range(5)]
    for spec in specs:
        write_finished(store, spec)
    results = Results(store)
    wanted = specs[0].trial_id[:-1] + "x"
    with refused(UserError, "unknown-trial", says=[f"given '{wanted}'", specs[0].trial_id]) as caught:
        results.matrix(wanted)
    assert sum(spec.trial_id in str(caught.value) for spec in specs) == 3
    with refused(UserError, "unknown-trial", says=trial(9).trial_id):
        results.matrix(trial(9))
    for name in ("", "../../etc", "x" * 10_000):
        with refused(UserError, "unknown-trial") as caught:
            results.curve(name)
        assert len(str(caught.value)) < 1000
    for other in (None, 3, ["a"], results.trials["id"]):
        with refused(UserError, "wrong-type", says="trial: expected an id or a spec, given "):
            results.curve(other)  # type: ignore[arg-type]


def test_a_beginning_of_several_is_refused(store: Store, trial: Trial) -> None:
    """The message names some of them."""
    specs = [trial(seed) for seed in range(17)]  # with 16 digits, two ids begin alike
    write_sweep(store, specs)
    first = [spec.trial_id[0] for spec in specs]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with refused(UserError, "ambiguous-trial", says=[f"given '{twice}'", f"{first.count(twice)} begin: {twice}"]):
        Results(store).matrix(twice)


def test_an_empty_store_has_no_nearest_trial(store: Store) -> None:
    """The message says so."""
    with refused(UserError, "unknown-trial", says="there is none"):
        Results(store).matrix("abc")


def test_a_large_store_is_read_through_its_index(store: Store, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trials are the same as from the records."""
    specs = [trial(seed) for seed in range(3)]
    for spec in specs:
        write_finished(store, spec)
    expected = Results(store).trials
    monkeypatch.setattr(index, "FEW", 2)
    pd.testing.assert_frame_equal(Results(store).trials, expected)
    assert store.index.exists(index.INDEX_FILE)
    pd.testing.assert_frame_equal(Results(store).trials, expected)
