"""Ray actors that run trials: their assignments, how they reach the store, and their reports."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crwn.backbone import Arrays, Backbone, BackboneSpec
from crwn.data import BASE_SETS, Datasets
from crwn.plugins import Plugin
from orchestrator.execution.backbones import SharedBackbone
from orchestrator.execution.home import Ask, Home, SentFiles
from orchestrator.execution.protocol import Assignment, TrialUpdate
from orchestrator.execution.reaching_ray import cluster_address
from orchestrator.store.files import Mark
from orchestrator.store.store import Store, sees

STEP_SECONDS = 1.0
"""Seconds that an actor computes between two reports to the driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeAddress:
    """How a machine without access to the store's folder reaches it.

    Attributes:
        actor: a `Home` on the driver's machine.
        word: the nonce in the folder, by which machines check whether they see it.
        host: the driver's machine.
    """

    actor: Any
    word: str
    host: str


def home_of(store: Store) -> HomeAddress | None:
    """The home of a store on a path in a cluster, where any machine, even one added later, may lack the path."""
    word = store.word if cluster_address() else None
    if word is None:
        return None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kept = ray.remote(Home).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
    return HomeAddress(actor=kept.remote(store.address, store.mark), word=word, host=socket.gethostname())


def _ask(home: HomeAddress) -> Ask:
    def ask(what: str, *arguments: Any) -> Any:
        try:
            return ray.get(home.actor.answer.remote(what, *arguments))
        except RayTaskError as error:
            raise error.cause from None  # the original error
        except RayError as error:
            raise OSError(f"the store on {home.host} cannot be reached: {error}") from error

    return ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The data sent to an actor to run a trial. It is pickled, but only from the driver to its own workers.

    Unpickling loads the plug-ins; they come first, since they define classes of the assignment.

    Attributes:
        plugins: the plug-ins that the run uses; a worker that finds other code refuses.
        assignment: the trial, and how it is to be computed.
        backbone: its frozen weights, in the object store.
        store: the store's address.
        mark: the mark by which the run identifies the store.
        home: how a machine that does not see the store reaches it; None if all machines see it.
        data_roots: the folders to search for data sets.
    """

    plugins: tuple[Plugin, ...]
    assignment: Assignment
    backbone: SharedBackbone
    store: str
    mark: Mark | None
    home: HomeAddress | None
    data_roots: tuple[Path, ...]

    @property
    def gpus(self) -> float:
        """The GPUs assigned to the trial."""
        return self.assignment.resources.gpus or 0.0


class TrialActor(tune.Trainable):
    """One process that runs trials, one after another if actors are reused."""

    def setup(  # type: ignore[override]  # `tune.with_parameters` adds the argument
        self, config: dict[str, Any], sent: Mapping[str, Sent]
    ) -> None:
        """Take the first assignment of the wave."""
        self._sent = sent
        self._datasets: dict[tuple[Path, ...], Datasets] = {}
        self._assign(sent[config["trial_id"]])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next assignment."""
        self._assign(self._sent[new_config["trial_id"]])
        return True

    def step(self) -> dict[str, Any]:
        """Compute for about a second, then report."""
        until = time.monotonic() + STEP_SECONDS
        for update in self._updates:
            if update.state != "running" or update.note or time.monotonic() >= until:
                break
        return {"update": update, "done": update.state != "running"}

    def cleanup(self) -> None:
        """Stop the trial in progress; its resume point stays."""
        self._updates.close()

    def _assign(self, sent: Sent) -> None:
        roots = sent.data_roots
        self._updates = _computed(sent, self._datasets.setdefault(roots, Datasets(BASE_SETS, roots)))


def _computed(sent: Sent, data: Datasets) -> Generator[TrialUpdate, None, None]:
    """Updates of a trial; see `attempt`."""
    from orchestrator.execution.attempt import attempt  # noqa: PLC0415 (imports torch, which the driver does not need)

    home, store = sent.home, sent.store
    files: str | SentFiles = store
    mark = sent.mark
    if home is not None and not sees(store, home.word):
        files, mark = SentFiles(store, _ask(home)), None  # the driver's machine checks the mark
        note = (
            f"{socket.gethostname()} does not see the folder {store} of {home.host}: what its trials compute, resume "
            "points too, goes there through Ray, and is lost if that disk is. A folder that all machines share, or "
            "object storage (--out s3://bucket/prefix), spares the way"
        )
        yield TrialUpdate(trial_id=sent.assignment.spec.trial_id, state="running", note=note)
    yield from attempt(sent.assignment, store=Store(files, mark), data=data, backbones=source(sent.backbone))


def source(shared: SharedBackbone) -> Callable[[BackboneSpec], Backbone]:
    """The source from which a trial in an actor reads its backbone: the object store, without copying."""

    def read(_: BackboneSpec) -> Backbone:
        arrays: Arrays = ray.get(shared.reference)  # read-only views of the object store's memory
        return Backbone(arrays=arrays, fingerprint=shared.fingerprint)

    return read
