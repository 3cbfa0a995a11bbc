"""The interface of executors: their input, their reports, and their guarantees.

Executors differ only in where trials run: equal trials leave equal files in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from crwn.events import Progress
    from crwn.plugins import Plugin
    from crwn.trial_spec import TrialSpec
    from orchestrator.execution.survey import NodeReport, Questions
    from orchestrator.store.store import Store
    from orchestrator.sweeps.sweep import Resources

Survey: TypeAlias = "Callable[[Questions], Mapping[str, NodeReport | str]]"
"""An executor's `survey`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResources:
    """A machine's resources for trials."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """All machines' resources for trials.

    Attributes:
        nodes: the resources of each machine.
        gpu_memory: memory of the smallest GPU, in bytes; None if there is none, or if it is unknown.
    """

    nodes: tuple[NodeResources, ...]
    gpu_memory: int | None

    @property
    def has_gpus(self) -> bool:
        """Whether any machine has a whole GPU."""
        return any(node.gpus >= 1 for node in self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A trial and how a run wants it computed: one value, from the run to the process that computes it.

    Attributes:
        spec: the trial.
        resources: its resources; GPUs None for whatever the machine has.
        commit: the commit of the code, if known.
        max_group_size: limit of the number of tasks learned at once; None leaves it to the rule.
        keep_weights: whether trained weights are stored with the contexts.
    """

    spec: TrialSpec
    resources: Resources
    commit: str | None = None
    max_group_size: int | None = None
    keep_weights: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The pending trials of one run.

    Attributes:
        assignments: the trials, in the order in which they should start.
        store: where results are written.
        data_roots: the folders to search for data sets, on every machine.
        known_trials: all trials of the sweep; measurements of finished ones predict the resources of others.
        plugins: the plug-ins that define parts of the trials, loaded in this process.
    """

    assignments: tuple[Assignment, ...]
    store: Store
    data_roots: tuple[Path, ...]
    known_trials: tuple[TrialSpec, ...] = ()
    plugins: tuple[Plugin, ...] = ()

    @property
    def trials(self) -> tuple[TrialSpec, ...]:
        """The trials, in that order."""
        return tuple(assignment.spec for assignment in self.assignments)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialUpdate:
    """An update about one trial.

    Attributes:
        trial_id: the trial.
        state: running, or how it ended.
        progress: its progress, if known.
        note: a message to show to the user once.
        error: what went wrong, in one line; the traceback is in the store.
        is_lost: whether the error is that the store was lost, so that all other trials would fail too.
    """

    trial_id: str
    state: Literal["running", "finished", "failed"]
    progress: Progress | None = None
    note: str | None = None
    error: str | None = None
    is_lost: bool = False


def say_nothing(what: str) -> None:
    """Ignore what an executor waits for."""
    del what


class Executor(Protocol):
    """Runs trials."""

    def check(self, resources: Resources) -> None:
        """Check that some machine has the resources that a trial requests, without starting or writing anything.

        Raises:
            UserError: no machine has them.
        """
        ...

    def survey(self, questions: Questions) -> Mapping[str, NodeReport | str]:
        """Ask every machine that may run trials.

        Returns:
            Each machine's answer, or why there is none, by the machine's address.
        """
        ...

    def run(
        self, job: Job, on_update: Callable[[TrialUpdate], None], on_wait: Callable[[str], None] = say_nothing
    ) -> None:
        """Run every trial of the job; each ends finished or failed, and a failure does not stop the others.

        Args:
            job: what to run.
            on_update: called in this process, for every trial at most several times a second; an exception that it
                raises ends the run.
            on_wait: called with what the next update has to wait for, whenever that may take seconds.

        Raises:
            KeyboardInterrupt: the user stopped the run; everything up to the last resume points is kept.
        """
        ...
