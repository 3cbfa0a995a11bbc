"""A context bank as an MLflow model: what MLflow calls to load it and to predict.

This file travels with each model, together with a copy of the package crwn and the bank's file. It needs MLflow and
what crwn needs to predict; it imports nothing of the orchestrator.

Shapes: B images, d values per image, m classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from numpy.typing import NDArray

from crwn.contexts import ContextBank
from crwn.faults import InvalidError

ANY_SIZE = 2**62
"""No limit on the network's size: whoever serves a model chose it."""

MAX_SHOWN = 3
"""The largest number of unknown tasks that an error names."""


class RefusedError(MlflowException):
    """A request that the model refuses. A server responds with status 400 and only this message.

    MLflow's server would assign a new message, with all data of the request in front of the reason.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        super().__init__(reason, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The reason."""
        return self._reason

    @message.setter
    def message(self, text: str) -> None:
        """Keep the reason unchanged."""


class BankModel:
    """A bank that answers requests.

    Args:
        bank: the bank.

    Raises:
        ValueError: it cannot predict.
    """

    def __init__(self, bank: ContextBank) -> None:
        self._bank = bank
        trial = next(iter(bank.trials.values()))
        self._shape = trial.benchmark.problem().input_shape
        blank = np.zeros((1, math.prod(self._shape)), np.uint8)
        self.predict({"images": blank} | ({"task": np.zeros(1, np.int64)} if bank.needs_task else {}))

    def predict(self, model_input: Mapping[str, NDArray[Any]], params: object = None) -> dict[str, NDArray[Any]]:
        """The classes of images.

        Args:
            model_input: `images`, unsigned bytes [B, d]; `task`, the position of each image's task in the bank, from 0
                [B], if the bank needs it.
            params: not used.

        Returns:
            `label` [B], the class with the highest score, and `logits` [B, m], as from `ContextBank.predict`; classes
            that were not learned have the lowest finite number, since JSON has no infinity.

        Raises:
            MlflowException: the images or tasks are not as expected; a server answers with status 400.
        """
        del params
        task_B = model_input.get("task")
        try:
            if task_B is not None:
                self._check_tasks(task_B)
            logits_Bm = self._bank.predict(model_input["images"], task_B)
        except InvalidError as error:
            raise RefusedError(str(error)) from error
        finite_Bm = logits_Bm.clamp(min=torch.finfo(logits_Bm.dtype).min)
        return {"label": logits_Bm.argmax(dim=1).numpy(), "logits": finite_Bm.numpy()}

    def _check_tasks(self, task_B: NDArray[Any]) -> None:
        """Check that the tasks exist; the error names all that do not."""
        last = self._bank.num_tasks - 1
        if unknown := sorted({place for place in task_B.tolist() if not 0 <= place <= last}):
            more = f" and {len(unknown) - MAX_SHOWN} others" if len(unknown) > MAX_SHOWN else ""
            shown = f"{', '.join(map(str, unknown[:MAX_SHOWN]))}{more}"
            message = f"task: expected for each image its task's number, from 0 to {last}, given {shown}"
            raise InvalidError("unknown-task", message)


def _load_pyfunc(data_path: str) -> BankModel:
    """The model from its bank's file; MLflow calls this."""
    return BankModel(ContextBank.load(Path(data_path), largest=ANY_SIZE))
