"""`crwn register`: what it adds to MLflow, what is refused, and that nothing is registered twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient, pyfunc
from rich.console import Console

from crwn.testing import write_finished
from orchestrator.errors import UserError
from orchestrator.report.results import Results
from orchestrator.serving.models import ServedTrial
from orchestrator.serving.registering import register
from orchestrator.store.store import Store
from orchestrator.tracking.address import ARTIFACT_FOLDER, default_uri
from orchestrator.tracking.connecting import make_database
from tests.orchestrator.serving.conftest import KEEPS_NOTHING, NUM_TASKS, TRIAL, UNFINISHED
from tests.refusals import refused

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err

RARER = pytest.mark.slow(reason="several passes over a database, for what happens more rarely than in the quick tests")
NAME = f"crwn-{TRIAL.trial_id}"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("template")
    make_database(folder / "mlflow.db", folder / ARTIFACT_FOLDER)
    return folder / "mlflow.db"


@pytest.fixture
def uri(served_store: Store, template: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty database next to the store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(template, served_store.beside / "mlflow.db")
    return default_uri(served_store.beside)


def registered(store: Store, uri: str, trial: str = TRIAL.trial_id, name: str | None = None) -> str:
    """Register a trial; what is printed."""
    console = Console(record=True, width=300)
    register(store, trial, name, uri, console)
    return console.export_text()


def test_a_registered_trial_is_loaded_by_its_name(
    served_store: Store, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From MLflow it answers as the bank does; the model belongs to the trial's run, which was shown first."""
    said = registered(served_store, uri)
    assert f'mlflow.pyfunc.load_model("models:/{NAME}/1")' in said
    client = MlflowClient(uri)
    (version,) = client.search_model_versions(f"name = '{NAME}'")
    run = client.get_run(version.run_id)
    assert run.data.tags["crwn.trial"] == version.tags["crwn.trial"] == TRIAL.trial_id
    assert (version.status, version.description) == ("READY", "neuromodnet FC16 on 4 rotated tasks of digits, seed 0")
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (str(model.status), model.source_run_id) == ("READY", run.info.run_id)
    images, task = np.random.default_rng(0).integers(0, 256, (8, 64), np.uint8), np.arange(8) % NUM_TASKS
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    answer = pyfunc.load_model(f"models:/{NAME}/1").predict({"images": images, "task": task})
    assert np.array_equal(answer["logits"], Results(served_store).contexts(TRIAL).predict(images, task).numpy())


@RARER
def test_nothing_is_registered_twice(served_store: Store, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model is named, not added; another under the same name is its next version."""
    for times in range(2):
        assert ("already registered" in registered(served_store, uri, name="mine")) == bool(times)
    write_finished(served_store, UNFINISHED)
    assert "version 2 of the model mine" in registered(served_store, uri, UNFINISHED.trial_id, name="mine")
    client = MlflowClient(uri)
    trials = {version.version: version.tags["crwn.trial"] for version in client.search_model_versions("name = 'mine'")}
    assert trials == {1: TRIAL.trial_id, 2: UNFINISHED.trial_id}
    monkeypatch.setattr(ServedTrial, "digest", "another code")
    assert "version 3 of the model mine" in registered(served_store, uri, name="mine")


@RARER
def test_what_fails_on_the_way_is_registered_by_the_next_call(
    served_store: Store, uri: str, monkeypatch: pytest.MonkeyPatch, crwn: Crwn
) -> None:
    """Code 1; what MLflow has of it is marked as failed, and no version names it."""

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_model_artifacts", fail)
        ended = crwn("register", served_store.root, TRIAL.trial_id)
    assert (ended.code, ended.codes) == (1, ("tracking-failed",))
    assert "the disk is full" in ended.err
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert [str(model.status) for model in client.search_logged_models(experiments)] == ["FAILED"]
    assert client.search_model_versions() == []
    assert crwn("register", served_store.root, TRIAL.trial_id).code == 0
    assert [version.version for version in client.search_model_versions()] == [1]


@pytest.mark.parametrize("trial", [UNFINISHED.trial_id, KEEPS_NOTHING.trial_id, "0123456789abcdef"])
def test_what_cannot_predict_is_refused_before_anything_is_written(crwn: Crwn, served_store: Store, trial: str) -> None:
    """Code 2, and no database."""
    ended = crwn("register", served_store.root, trial)
    assert (ended.code, ended.out) == (2, "")
    assert trial in ended.err
    assert not (served_store.beside / "mlflow.db").exists()


@pytest.mark.parametrize("name", ["", " a", "a/b", "models:/a", "a\nb", "it's", "a" * 300])
def test_a_name_that_mlflow_does_not_take_is_refused(served_store: Store, name: str) -> None:
    """Before anything is written."""
    with refused(UserError, "not-a-name", says="--name"):
        registered(served_store, default_uri(served_store.beside), name=name)
    assert not (served_store.beside / "mlflow.db").exists()


def test_a_trial_that_no_sweep_asks_for_has_no_run(served_store: Store, uri: str) -> None:
    """So it is refused before anything is written."""
    other = Store(served_store.beside / "other")
    other.create()
    write_finished(other, TRIAL)
    with refused(UserError, "trial-not-asked-for", says=TRIAL.trial_id):
        registered(other, uri)
    assert not (other.beside / ARTIFACT_FOLDER).exists()
