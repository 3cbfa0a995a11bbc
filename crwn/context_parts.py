"""The parts of a context bank, and what follows from them without evaluating a network.

`ContextBank` (contexts.py) adds predictions. Checks and edits of banks (context_checks.py, context_edits.py) only need
the parts.

Shapes: T tasks, c classes, N units, O outputs and I inputs of a layer, d values per image. The task axis comes first.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from crwn import backbone
from crwn.backbone import Backbone
from crwn.context_files import ACTIVITY, SHARED, BankTask
from crwn.context_networks import draw, kept_by, tells_tasks
from crwn.context_origins import trial_from
from crwn.faults import InvalidError
from crwn.methods.protocol import Tensors
from crwn.superposition import Superposition
from crwn.trial_spec import TrialSpec

TaskName: TypeAlias = "int | str"
"""A task's position in the bank, from 0, or its name."""

NUM_NEAREST = 3
"""The largest number of tasks that an error names."""


@dataclass(frozen=True, kw_only=True)  # without slots, for what is computed once
class ContextParts:
    """The tensors kept for all tasks, and the trials and the backbone that they belong to.

    Attributes:
        tensors: by name, such as `layer1.context` [T, I] and `layer1.strength` [T]; masks are packed bits. Weights are
            included only if the trial was set to keep them; shared ones, such as `shared.layer1.weight` [O, I], have
            no task axis. Neither does the units' activity, `activity.<layer>` [c, ...]: means over the test images of
            each class at the trial's end.
        tasks: the tasks in order, each with its name and origin.
        specs: the resolved specs of the trials that learned them, by trial id, as parsed JSON.
        fingerprint: the fingerprint of the backbone that they modulate.
        arrays: the backbone's arrays by name, if the bank includes them; otherwise, they are drawn when needed.
        mean_images: each task's mean training image as unsigned bytes [T, d]; None: not known.
        card: the author's description.
        plugins: the names of the plug-ins that the trials' sweeps used, for errors if this process lacks one of them.
            Not saved.
    """

    tensors: Tensors
    tasks: tuple[BankTask, ...]
    specs: Mapping[str, dict[str, Any]]
    fingerprint: str
    arrays: Tensors = dataclasses.field(default_factory=dict)
    mean_images: torch.Tensor | None = None
    card: str = ""
    plugins: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the fields, without values computed from them, which may be tied to this process."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}

    @functools.cached_property
    def trials(self) -> Mapping[str, TrialSpec]:
        """The trials that learned the tasks, by id.

        Raises:
            ValueError: this crwn does not know a spec, or it is another trial's.
        """
        return {trial_id: trial_from(spec, trial_id, self.plugins) for trial_id, spec in self.specs.items()}

    @property
    def trial_id(self) -> str:
        """The id of the only trial that learned the tasks.

        Raises:
            ValueError: there are several.
        """
        if len(self.specs) != 1:
            raise InvalidError(
                "several-trials",
                f"contexts: expected the tasks of one trial, given those of {len(self.specs)}; `bank.tasks` names each "
                "task's trial",
            )
        return next(iter(self.specs))

    @property
    def trial(self) -> TrialSpec:
        """The only trial that learned the tasks; raises as `trial_id` and `trials` do."""
        return self.trials[self.trial_id]

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of the only trial that learned the tasks, as parsed JSON; raises as `trial_id` does."""
        return self.specs[self.trial_id]

    @property
    def activity(self) -> Tensors:
        """The units' activity by layer, such as the share of a class's images for which a gate is open: [c, N].

        Empty if the method records none.
        """
        names = sorted(name for name in self.tensors if name.startswith(ACTIVITY))
        return {name.removeprefix(ACTIVITY): self.tensors[name] for name in names}

    @functools.cached_property
    def own(self) -> Tensors:
        """The tensors with a task axis."""
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith((SHARED, ACTIVITY))}

    @functools.cached_property
    def shared(self) -> Tensors:
        """The learned shared weights, by the method's own names."""
        return {name.removeprefix(SHARED): tensor for name, tensor in self.tensors.items() if name.startswith(SHARED)}

    @property
    def any_trial(self) -> TrialSpec:
        """One of the trials; all agree in what matters here."""
        return next(iter(self.trials.values()))

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.tasks)

    @property
    def needs_task(self) -> bool:
        """Whether `predict` needs the task of the images; otherwise, one network predicts for all tasks."""
        return tells_tasks(self.any_trial)

    @functools.cached_property
    def drawn(self) -> Backbone:
        """The frozen weights: those that the bank includes, or drawn again.

        Raises:
            ValueError: they do not have the fingerprint.
        """
        if not self.arrays:
            return draw(self.any_trial.blueprint(), self.fingerprint)
        arrays = {name: tensor.numpy() for name, tensor in self.arrays.items()}
        found = backbone.fingerprint(arrays)
        if found != self.fingerprint:
            raise InvalidError(
                "other-backbone",
                f"backbone: expected the frozen weights with the fingerprint {self.fingerprint}, given {found} in the "
                "file itself",
            )
        return Backbone(arrays=arrays, fingerprint=found)

    @functools.cached_property
    def superposition(self) -> Superposition:
        """All tasks' masks over one network; raises if tasks have no masks."""
        return Superposition(self.any_trial, self.drawn, self.own)

    @functools.cached_property
    def tells_tasks_apart(self) -> bool:
        """Whether each task has its own predictions; otherwise, tasks share everything although they are told."""
        return kept_by(self.any_trial).varies

    def place(self, task: TaskName | None) -> int:
        """A task's position in the bank, given that or its name.

        Raises:
            ValueError: there is no such task.
        """
        if isinstance(task, str):
            if task in self._places:
                return self._places[task]
            close = difflib.get_close_matches(task[:100], self._places, n=NUM_NEAREST, cutoff=0)
            raise InvalidError(
                "unknown-task", f"task: expected the name of one, given {task[:100]!r}; the nearest are {close}"
            )
        last = self.num_tasks - 1
        try:
            place = operator.index(-1 if task is None or isinstance(task, bool | np.bool_) else task)
        except TypeError:
            place = -1
        if not 0 <= place <= last:
            message = f"task: expected the task of the images, by its name or from 0 to {last}, given {task!r}"
            raise InvalidError("unknown-task", message)
        return place

    def refuse_one_network(self, what: str) -> None:
        """Refuse an operation on tasks if the network is not told the task.

        Args:
            what: the operation's name, for the message.

        Raises:
            ValueError: one network predicts for all tasks.
        """
        if not self.needs_task:
            raise InvalidError(
                "task-not-told",
                f"{what}: expected a bank of tasks, given one network of {self.any_trial.method.kind}, which answers "
                "for all tasks",
            )

    @functools.cached_property
    def _places(self) -> Mapping[str, int]:
        """Each task's position by its name."""
        return {task.name: place for place, task in enumerate(self.tasks)}
