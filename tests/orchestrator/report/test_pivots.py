"""Any measure by any names: those that need tasks learned in turn, and those that some trials cannot have."""

from __future__ import annotations

import pytest

from crwn.benchmarks.permuted import PermutedSpec
from crwn.testing import tiny_trial, write_finished
from orchestrator.errors import UserError
from orchestrator.measures import MEASURES
from orchestrator.report.tables import Choice, tables_of
from orchestrator.store.store import Store
from tests.orchestrator.made_up import A, B, C, class_record, record, stream_record
from tests.refusals import refused


def mean(store: Store, value: str, *where: str) -> float:
    """The one cell of a table of this value."""
    (table,) = tables_of([store], Choice(rows=("method",), columns="scale", value=value, where=where))
    (found,) = table.summary["mean"]
    return float(found)


@pytest.fixture
def classes(store: Store) -> Store:
    """A store with one trial that learned two groups of classes and forgot half of the first."""
    store.records.write(A, class_record(A, [[0.75, 0.0], [0.25, 1.0]], [0.875, 1.0], examples_kept=30))
    return store


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("accuracy", 0.625),
        ("accuracy_told", 0.9375),
        ("incremental_accuracy", (0.75 + 0.625) / 2),
        ("forgetting", 0.5),
        ("backward_transfer", -0.5),
        ("forgetting_avalanche", 0.5),
        ("forgetting_mammoth", 0.5),
        ("forgetting_libcontinual", 0.0),
        ("backward_transfer_libcontinual", 0.0),
        ("examples_kept", 30),
        ("stored_memory", 0),
    ],
)
def test_every_measure_can_be_asked_for(classes: Store, value: str, expected: float) -> None:
    """By hand, of accuracies .75 after the first task, .25 and 1 after the second."""
    assert mean(classes, value) == expected


def test_a_measure_that_no_trial_has_is_refused(classes: Store) -> None:
    """It says what a trial would have to have; one that some have is shown of those."""
    with refused(UserError, "measure-not-taken", says=["--value forward_transfer: ", "`tests_ahead: true`"]):
        mean(classes, "forward_transfer")
    classes.records.write(B, record(B))
    with refused(UserError, "measure-not-taken", says="--value accuracy_told: "):
        mean(classes, "accuracy_told", "seed=" + str(_seed(classes, B)))


def test_forward_transfer_is_known_where_tasks_are_tested_ahead(store: Store) -> None:
    """Of a matrix [T, T] with the tests above its diagonal: (.35 - .1 + .6 - .1)/2, untrained tests being at chance."""
    benchmark = PermutedSpec(base="digits", num_tasks=3, task_known=False, tests_ahead=True)
    accuracy = [[0.9, 0.35, 0.0], [0.8, 0.9, 0.6], [0.7, 0.8, 0.9]]
    write_finished(store, tiny_trial("finetune", benchmark=benchmark), accuracy)
    assert mean(store, "forward_transfer") == pytest.approx(0.375)
    assert mean(store, "incremental_accuracy") == pytest.approx((0.9 + 0.85 + 0.8) / 3)
    assert mean(store, "forgetting") == pytest.approx((0.2 + 0.1) / 2)


def _seed(store: Store, trial_id: str) -> int:
    row = store.records.row(trial_id)
    assert row is not None
    return row.seed


def test_a_stream_has_no_figures_of_single_tasks(store: Store) -> None:
    """Asking for them is refused, with what would work; its accuracy is there."""
    store.records.write(C, stream_record(C, [0.25, 0.75]))
    assert mean(store, "accuracy") == 0.5
    unknown = [name for name, measure in MEASURES.items() if not measure.is_known_for_streams]
    assert {"forgetting", "backward_transfer", "forward_transfer", "incremental_accuracy"} < set(unknown)
    for name in unknown:
        with refused(UserError, "stream-has-no-tasks", says=[f"--value {name}: ", " r-digits", "--where benchmark="]):
            mean(store, name)


@pytest.mark.parametrize(
    ("choice", "same"),
    [
        (
            Choice(value="forgetting"),
            Choice(rows=("method", "variant", "scale"), columns="benchmark", value="forgetting"),
        ),
        (Choice(columns="scale"), Choice(rows=("method", "variant", "benchmark"), columns="scale", value="accuracy")),
    ],
)
def test_a_value_or_columns_alone_ask_for_a_table_of_cells(classes: Store, choice: Choice, same: Choice) -> None:
    """Its rows are what tells cells apart; nothing that is asked for is passed over."""
    (table,), (whole,) = tables_of([classes], choice), tables_of([classes], same)
    assert table.table.equals(whole.table)
    assert table.name == whole.name
