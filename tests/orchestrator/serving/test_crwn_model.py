"""A bank as an MLflow model: it predicts as the bank does, and bad requests are the caller's errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

import crwn
from crwn.benchmarks.sequential import SequentialSpec
from crwn.contexts import ContextBank
from crwn.testing import tiny_trial
from orchestrator.report.results import Results
from orchestrator.serving.crwn_model import BankModel
from orchestrator.store.store import Store
from tests.orchestrator.serving.conftest import NUM_TASKS, TRIAL


@pytest.fixture
def bank(served_store: Store) -> ContextBank:
    """The bank of a finished trial."""
    return Results(served_store).contexts(TRIAL)


def pictures(count: int) -> NDArray[np.uint8]:
    """Random images [B, d]."""
    return np.random.default_rng(0).integers(0, 256, (count, 64), np.uint8)


def test_images_of_several_tasks_are_answered_as_the_bank_does(bank: ContextBank) -> None:
    """The same numbers, and the class with the highest."""
    images, task = pictures(12), np.arange(12) % NUM_TASKS
    answer = BankModel(bank).predict({"images": images, "task": task})
    expected = bank.predict(images, task).numpy()
    assert np.array_equal(answer["logits"], expected)
    assert np.array_equal(answer["label"], expected.argmax(axis=1))
    assert len(np.unique(answer["logits"], axis=0)) == 12


@pytest.mark.parametrize(
    ("task", "says"),
    [([0, NUM_TASKS], "given 4"), ([-1, 0], "given -1"), ([9, 5], "given 5, 9"), ([5, 6, 7, 8, 9], "and 2 others")],
)
def test_an_unknown_task_is_refused(bank: ContextBank, task: Sequence[int], says: str) -> None:
    """As an invalid value, status 400 on a server; -1 is not the last task."""
    with pytest.raises(MlflowException) as caught:
        BankModel(bank).predict({"images": pictures(len(task)), "task": np.array(task)})
    assert (caught.value.error_code, caught.value.get_http_status_code()) == ("INVALID_PARAMETER_VALUE", 400)
    assert "from 0 to 3" in caught.value.message
    assert says in caught.value.message


def test_a_server_answers_with_the_reason_alone(bank: ContextBank) -> None:
    """MLflow's server writes the request's data in front of the message of what `predict` raises."""
    with pytest.raises(MlflowException) as caught:
        BankModel(bank).predict({"images": pictures(1), "task": np.array([7])})
    error = caught.value
    error.message = f"Failed to predict data '{pictures(1)}'. \nError: {error.message}"
    said = json.loads(error.serialize_as_json())
    assert said["message"] == str(error)
    assert "given 7" in said["message"]
    assert len(said["message"]) < 100


@pytest.mark.parametrize(
    ("images", "task"), [(pictures(2), np.zeros(3, np.int64)), (pictures(2)[:, :9], np.zeros(2, np.int64))]
)
def test_images_that_do_not_fit_are_refused(
    bank: ContextBank, images: NDArray[np.uint8], task: NDArray[np.int64]
) -> None:
    """More tasks than images, or images of another size, are invalid values too."""
    with pytest.raises(MlflowException) as caught:
        BankModel(bank).predict({"images": images, "task": task})
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.usefixtures("workplace")
def test_one_network_for_all_tasks_is_told_none(tmp_path: Path) -> None:
    """Classes that it never learned have the lowest finite number: JSON has no infinity."""
    trial = tiny_trial("er", benchmark=SequentialSpec(base="digits", first=2))
    results = crwn.run(trial, store=tmp_path / "kept", executor="inline", keep_weights=True)
    kept = results.contexts(trial)
    answer = BankModel(kept).predict({"images": pictures(3)})
    expected = kept.predict(pictures(3)).numpy()
    assert np.isneginf(expected).any()
    assert np.array_equal(answer["label"], expected.argmax(axis=1))
    assert np.array_equal(answer["logits"], np.maximum(expected, np.finfo(np.float32).min))
