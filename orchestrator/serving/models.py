"""A finished trial as an MLflow model: a folder with its bank, the code that answers, and MLflow's description of both.

The model is made from the store's tensors and from this crwn's own code. It holds no pickle, no training data and no
path of this machine. Whoever loads it runs the code inside it.

Shapes: B images, d values per image, m classes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow import pyfunc
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from crwn import code
from crwn.faults import InvalidError
from crwn.trial_spec import used_by
from orchestrator.errors import UserError
from orchestrator.report.results import Results
from orchestrator.serving import crwn_model
from orchestrator.store.store import Store

if TYPE_CHECKING:
    from crwn.contexts import ContextBank

REQUIRED = ("annotated-types", "mlflow", "numpy", "safetensors", "torch")
"""The distributions required to load a model, in the versions that made it. crwn is not one of them."""

BANK_FILE = "bank.safetensors"
NUM_DIGITS = 16


class ServedTrial:
    """A finished trial that can be made a model.

    Args:
        store: its store.
        trial: its id, or the unambiguous beginning of one.

    Raises:
        UserError: there is no such trial, it is not finished, a plug-in defines a part of it, it kept nothing to
            predict with, or it cannot be served.
    """

    def __init__(self, store: Store, trial: str) -> None:
        self.bank: ContextBank = Results(store).contexts(trial)
        self.trial_id = self.bank.trial_id
        if plugins := _plugins(self.bank):
            raise UserError(
                "model-of-a-plugin",
                f"trial {self.trial_id}: expected one that crwn alone defines, given one of {', '.join(plugins)}: a "
                "model takes along the code of crwn, but no plug-in's. It predicts in Python, where its plug-in is "
                f"loaded: after crwn.load_sweep(SWEEP, plugins=[FILE]), crwn.open({store.address!r})"
                f".contexts({self.trial_id!r}).predict(...).",
            )
        try:
            crwn_model.BankModel(self.bank)
            self._content = self.bank.to_bytes(backbone=True)
        except InvalidError as error:
            raise UserError(error.codes, f"trial {self.trial_id}: {error}.") from error

    @property
    def title(self) -> str:
        """A description for people: `neuromodnet FC256 on 36 rotated tasks of mnist, seed 0`."""
        trial = self.bank.trial
        tasks = f"{self.bank.num_tasks} {trial.benchmark.kind} tasks of {trial.benchmark.base}"
        return f"{trial.method.kind} {trial.scale} on {tasks}, seed {trial.seed}"

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with the tensors, the code or the required versions."""
        parts = [self._content, str(code.crwn_code()).encode(), Path(crwn_model.__file__).read_bytes()]
        parts.append("\n".join(_requirements()).encode())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:NUM_DIGITS]

    def save(self, folder: Path) -> None:
        """Write the model into a folder that does not exist yet."""
        logging.getLogger("mlflow").setLevel(logging.ERROR)  # MLflow logs each step
        os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # or MLflow copies the lock file of a surrounding project
        with tempfile.TemporaryDirectory(prefix="crwn-model-") as made:
            bank, package = Path(made) / BANK_FILE, Path(made) / "crwn"
            bank.write_bytes(self._content)
            ignored = shutil.ignore_patterns("__pycache__", *code.NO_PART_IN_RESULTS)
            shutil.copytree(Path(code.__file__).parent, package, ignore=ignored)
            pyfunc.save_model(
                folder,
                loader_module=crwn_model.__name__.rpartition(".")[2],
                data_path=str(bank),
                code_paths=[str(package), crwn_model.__file__],
                signature=self._signature(),
                input_example=self._example(),
                pip_requirements=_requirements(),
                metadata=self._description(),
            )

    def _signature(self) -> ModelSignature:
        problem = self.bank.trial.benchmark.problem()
        inputs: list[ColSpec | TensorSpec] = [TensorSpec(np.dtype(np.uint8), (-1, problem.input_size), "images")]
        if self.bank.needs_task:
            inputs.append(TensorSpec(np.dtype(np.int64), (-1,), "task"))
        numbers = np.dtype(np.float64 if self.bank.trial.training.dtype == "float64" else np.float32)
        logits = TensorSpec(numbers, (-1, problem.num_classes), "logits")
        outputs: list[ColSpec | TensorSpec] = [TensorSpec(np.dtype(np.int64), (-1,), "label"), logits]
        return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))

    def _example(self) -> dict[str, Any]:
        """A blank image for the first task and one for the last; no image from a data set."""
        size = self.bank.trial.benchmark.problem().input_size
        images = np.zeros((2, size), np.uint8)
        return {"images": images} | ({"task": np.array([0, self.bank.num_tasks - 1])} if self.bank.needs_task else {})

    def _description(self) -> dict[str, Any]:
        """The metadata that describes the model to its users."""
        tasks = [task.name for task in self.bank.tasks] if self.bank.needs_task else []
        return {"trial": self.trial_id, "title": self.title, "tasks": tasks, "crwn": metadata.version("crwn")}


def _plugins(bank: ContextBank) -> list[str]:
    """The names of the plug-ins that define parts of a bank's trial, or may define what this process does not know."""
    try:
        return [plugin.name for plugin in used_by(bank.trial)]
    except InvalidError:
        return list(bank.plugins) or ["a plug-in"]


def _requirements() -> list[str]:
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIRED]
