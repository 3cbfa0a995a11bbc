"""A trial as a folder that MLflow loads anywhere: its content, and that it needs nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import pyfunc

from crwn.testing import write_finished
from orchestrator.errors import UserError
from orchestrator.report.results import Results
from orchestrator.serving.models import ServedTrial
from orchestrator.store.store import Store
from tests.orchestrator.serving.conftest import KEEPS_NOTHING, NUM_TASKS, TRIAL, UNFINISHED
from tests.refusals import refused

ROOT = Path(__file__).resolve().parents[3]

# Loads the model where neither crwn nor the orchestrator can be imported but from the model itself.
ELSEWHERE = """
import json, sys
folder, root, images, task = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
sys.path = [path for path in sys.path if path not in ("", root)]
for name in ("crwn", "orchestrator"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} is installed")
import numpy as np
from mlflow import pyfunc
answer = pyfunc.load_model(folder).predict({"images": np.array(images, np.uint8), "task": np.array(task)})
import crwn
assert crwn.__file__.startswith(folder), crwn.__file__
print(json.dumps([answer["logits"].tolist(), sorted(name for name in sys.modules if name.startswith("orchestrator"))]))
"""


@pytest.fixture
def folder(served_store: Store, tmp_path: Path) -> Path:
    """The model of the finished trial."""
    ServedTrial(served_store, TRIAL.trial_id).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_names_no_place_of_this_machine(folder: Path, tmp_path: Path) -> None:
    """It names no store, project or temporary folder, and contains no pickle or cache."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {"", ".json", ".py", ".safetensors", ".txt", ".typed", ".yaml"}
    places = [str(place).encode() for place in (tmp_path, ROOT, sys.prefix, tempfile.gettempdir())]
    assert [(path.name, place) for path in files for place in places if place in path.read_bytes()] == []


def test_a_model_describes_what_it_takes_and_gives(folder: Path) -> None:
    """Tensors by name, an example that is no image of a data set, the trial and its tasks, and no crwn to install."""
    described = yaml.safe_load((folder / "MLmodel").read_text())
    inputs, outputs = (json.loads(described["signature"][side]) for side in ("inputs", "outputs"))

    def sizes(side: list[dict[str, Any]]) -> dict[str, tuple[str, list[int]]]:
        return {one["name"]: (one["tensor-spec"]["dtype"], one["tensor-spec"]["shape"]) for one in side}

    assert sizes(inputs) == {"images": ("uint8", [-1, 64]), "task": ("int64", [-1])}
    assert sizes(outputs) == {"label": ("int64", [-1]), "logits": ("float32", [-1, 10])}
    example = json.loads((folder / "serving_input_example.json").read_text())["inputs"]
    assert example == {"images": [[0] * 64] * 2, "task": [0, NUM_TASKS - 1]}
    assert described["metadata"]["trial"] == TRIAL.trial_id
    assert described["metadata"]["tasks"] == [f"rotated {task}" for task in range(NUM_TASKS)]
    required = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()]
    assert required == ["annotated-types", "mlflow", "numpy", "safetensors", "torch"]


def test_a_loaded_model_answers_as_the_bank(folder: Path, served_store: Store) -> None:
    """Also through MLflow's own checks of names, shapes and dtypes."""
    images = np.random.default_rng(0).integers(0, 256, (8, 64), np.uint8)
    task = np.arange(8) % NUM_TASKS
    answer = pyfunc.load_model(str(folder)).predict({"images": images, "task": task})
    assert np.array_equal(answer["logits"], Results(served_store).contexts(TRIAL).predict(images, task).numpy())


@pytest.mark.slow(reason="a new process imports torch and MLflow")
def test_a_model_loads_without_crwn(folder: Path, served_store: Store) -> None:
    """Where neither crwn nor the orchestrator is installed: its own copy of crwn answers, with the same numbers."""
    images = np.random.default_rng(0).integers(0, 256, (4, 64), np.uint8)
    task = np.arange(4)
    arguments = [str(folder), str(ROOT), json.dumps(images.tolist()), json.dumps(task.tolist())]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *arguments], cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    logits, orchestrators = json.loads(done.stdout.splitlines()[-1])
    expected = Results(served_store).contexts(TRIAL).predict(images, task).numpy()
    np.testing.assert_allclose(np.array(logits, np.float32), expected, rtol=1e-5, atol=1e-5)
    assert orchestrators == []


def test_the_digest_is_of_what_a_model_computes(served_store: Store) -> None:
    """The same for the same trial; another for one with other tensors."""
    one = ServedTrial(served_store, TRIAL.trial_id).digest
    assert ServedTrial(served_store, TRIAL.trial_id[:8]).digest == one
    write_finished(served_store, UNFINISHED)
    assert ServedTrial(served_store, UNFINISHED.trial_id).digest != one


@pytest.mark.parametrize(
    ("trial", "code"),
    [
        (lambda: UNFINISHED.trial_id, "trial-not-finished"),
        (lambda: KEEPS_NOTHING.trial_id, "weights-not-kept"),
        (lambda: "0123456789abcdef", "unknown-trial"),
        (lambda: "", "unknown-trial"),
    ],
)
def test_what_cannot_predict_is_refused(served_store: Store, trial: Callable[[], str], code: str) -> None:
    """An unfinished trial, one that kept no weights, one that the store does not have."""
    with refused(UserError, code, says=trial()):
        ServedTrial(served_store, trial())
