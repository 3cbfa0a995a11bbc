"""Registers a finished trial as a model in MLflow, linked to the trial's run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException
from rich.console import Console

from orchestrator.display import hide_password, print_line
from orchestrator.errors import UserError, begun, shortened
from orchestrator.serving.models import ServedTrial
from orchestrator.store.store import Store
from orchestrator.tracking import following
from orchestrator.tracking.address import artifact_root
from orchestrator.tracking.connecting import connect, explained

MODEL_TAG = "crwn.model"
"""The tag of a version that holds the digest of its model, so that nothing is registered twice."""

LONGEST_NAME = 200
REFUSED_IN_NAMES = frozenset("/:.%\"'")


def register(store: Store, trial: str, name: str | None, uri: str, console: Console) -> None:
    """Register a finished trial as a model, unless an identical version is registered already.

    Args:
        store: the store.
        trial: the trial's id, or the unambiguous beginning of one.
        name: the model's name in MLflow; None: `crwn-` and the trial's id.
        uri: MLflow's tracking URI.
        console: where the version is printed.

    Raises:
        UserError: the trial cannot predict, MLflow does not respond, or the name is not valid in MLflow.
        UnfinishedError: something failed after the first write to MLflow.
    """
    served = ServedTrial(store, trial)
    name = f"crwn-{served.trial_id}" if name is None else _checked(name)
    with explained(uri):
        client = connect(uri, artifact_root(store.beside, uri))
        run = _run_of(client, store, served.trial_id)
    if run is None:
        if not any(served.trial_id in manifest.trial_ids for manifest in store.manifests()):
            raise UserError(
                "trial-not-asked-for",
                f"trial {served.trial_id}: expected one that a sweep of {store.address} requests, since MLflow shows "
                "no other; run its sweep on this store again, which recomputes nothing",
            )
        following.sync(store, uri, console)
    with begun("Run crwn register again."), explained(uri):
        run = run or _run_of(client, store, served.trial_id)
        if run is None:
            raise UserError("run-gone", f"expected the run of trial {served.trial_id} in MLflow, found it deleted")
        version = _registered(client, name, served.digest)
        if version is None:
            version, news = _register(client, name, served, run), "registered"
        else:
            news = "already registered"
    print_line(console, f"{news}: {served.title}, as version {version} of the model {name} in {hide_password(uri)}")
    print_line(console, f'to load it in Python: mlflow.pyfunc.load_model("models:/{name}/{version}")')


def _checked(name: str) -> str:
    is_printable = name.strip() == name and name.isprintable() and 0 < len(name) <= LONGEST_NAME
    if not is_printable or REFUSED_IN_NAMES & set(name):
        signs = " ".join(sorted(REFUSED_IN_NAMES))
        message = f"--name: expected 1 to {LONGEST_NAME} printable characters without {signs}"
        raise UserError("not-a-name", f"{message}, given {shortened(repr(name))}")
    return name


def _run_of(client: MlflowClient, store: Store, trial_id: str) -> entities.Run | None:
    """The trial's run in MLflow; if several sweeps request the trial, the latest of its runs."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    ours = f"tags.`crwn.trial` = '{trial_id}' and tags.`crwn.store` = '{store.identity}'"
    found = client.search_runs(experiments, filter_string=ours, max_results=1) if experiments else []
    return found[0] if found else None


def _registered(client: MlflowClient, name: str, digest: str) -> str | None:
    """The version of the model with this digest; None if there is none."""
    versions = client.search_model_versions(f"name = '{name}'")
    same = [version for version in versions if version.tags.get(MODEL_TAG) == digest and version.status == "READY"]
    return max((version.version for version in same), key=int, default=None)


def _register(client: MlflowClient, name: str, served: ServedTrial, run: entities.Run) -> str:
    """Write the model and register it; returns the version's number."""
    tags = {"crwn.trial": served.trial_id, MODEL_TAG: served.digest}
    with tempfile.TemporaryDirectory(prefix="crwn-model-") as made:
        folder = Path(made) / "model"
        served.save(folder)
        model = client.create_logged_model(
            run.info.experiment_id, name=name, source_run_id=run.info.run_id, tags=tags, model_type="pyfunc"
        )
        try:
            client.log_model_artifacts(model.model_id, str(folder))
        except BaseException:
            client.finalize_logged_model(model.model_id, "FAILED")
            raise
    client.finalize_logged_model(model.model_id, "READY")
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    version = client.create_model_version(
        name,
        model.artifact_location,  # MLflow looks up "models:/<id>" in the process's own database, not the client's
        run_id=run.info.run_id,
        tags=tags,
        description=served.title,
        model_id=model.model_id,
    )
    return str(version.version)
