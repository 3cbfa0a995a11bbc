"""Writes MLflow from the store.

There is one experiment per sweep name; in it, one parent run per sweep and store, one child run per started trial, and
one per cell of the sweep's table: mean, standard deviation and number of seeds. Their content is read from the store
(`projection.py`), so all of it can lag behind, be lost, and be rebuilt: `Tracker.sync` writes what is missing, and
nothing twice.

Metrics in MLflow can only be added. So a trial's run belongs to one computation of it, its `crwn.origin`; if a trial is
recomputed, its run is replaced. A cell's run is replaced whenever its numbers change, so while a sweep runs, only
complete cells have one. Runs of trials and cells that a sweep no longer asks for are deleted, which MLflow can undo;
`sync` restores them when they are asked for again.

One process at a time writes (`Store.tracking_lock`).
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import UserError
from orchestrator.report import sweep_tables
from orchestrator.store.manifests import Manifest
from orchestrator.store.schemas import ATTEMPTS_FILE
from orchestrator.store.store import Store, TrialState
from orchestrator.tracking import projection
from orchestrator.tracking.errors import TrackingError, explain
from orchestrator.tracking.mlflow_runs import MlflowRuns, ShownRun
from orchestrator.tracking.projection import Label, RunContent

MAX_FAULTS = 3
"""Number of failed trials after which a pass is given up: one may be odd, more are an outage."""

TABLE_COST_FACTOR = 20
"""Interval between writes of a running sweep's table, as a multiple of the time of the last write."""

STATUS: Mapping[TrialState, str] = {
    "done": "FINISHED",
    "failed": "FAILED",
    "running": "RUNNING",
    "interrupted": "KILLED",
    "left": "KILLED",
}


@dataclass(slots=True, kw_only=True)
class _Experiment:
    """A sweep's runs: the parent, if it exists yet, and its children by trial and by cell.

    Attributes:
        experiment_id: MLflow's experiment id.
        name: the sweep's name.
        parent: the sweep's own run.
        trials: the runs of trials, by trial id.
        cells: the runs of the table's cells, by `Label.cell_key`.
        deleted_cells: deleted runs of cells, by cell and what they show.
        table_due: when the table is due to be written, by the monotonic clock.
    """

    experiment_id: str
    name: str
    parent: ShownRun | None = None
    trials: dict[str, ShownRun] = field(default_factory=dict)
    cells: dict[str, ShownRun] = field(default_factory=dict)
    deleted_cells: dict[tuple[str, str], ShownRun] = field(default_factory=dict)
    table_due: float = 0.0

    def has_place(self, run: ShownRun, asked: Collection[str]) -> bool:
        """Whether a run is the first one of the sweep, or of one of the trials and cells asked for."""
        if _level(run) == "sweep":
            return self.parent is None
        return _identity(run) in asked and _identity(run) not in self._children(run)

    def take(self, run: ShownRun) -> None:
        """Add a run in its place."""
        if _level(run) == "sweep":
            self.parent = run
        else:
            self._children(run)[_identity(run)] = run

    def _children(self, run: ShownRun) -> dict[str, ShownRun]:
        return self.cells if _level(run) == "cell" else self.trials


def _level(run: ShownRun) -> str:
    return run.tags.get("crwn.level", "")


def _is_whole(run: ShownRun, digest: str) -> bool:
    """Whether a run is complete for this digest."""
    return (run.status, run.tags.get("crwn.projected")) == (STATUS["done"], digest)


def _identity(run: ShownRun) -> str:
    return run.tags.get(f"crwn.{_level(run)}", "")


class Tracker:
    """Shows a store's sweeps in MLflow.

    Args:
        store: the store.
        uri: MLflow's tracking URI.
        computing: returns a context for long work without calls to MLflow: tables and figures.

    Raises:
        TrackingError: MLflow cannot be reached, or is not as expected.
    """

    def __init__(
        self,
        store: Store,
        uri: str,
        computing: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self._store = store
        self._uri = uri
        self._computing = computing
        self._experiments: dict[str, _Experiment] = {}
        with _explained(uri):
            self._runs = MlflowRuns(uri, store.identity, store.beside)

    def sync(
        self,
        manifest: Manifest,
        *,
        driven: bool,
        on_trial: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Write what MLflow lacks of a sweep.

        Args:
            manifest: the sweep's manifest.
            driven: whether a run is working on it.
            on_trial: called after each trial with the number of trials left.

        Returns:
            The number of trials' runs written.

        Raises:
            TrackingError: something could not be written; the next call continues.
            UserError: a record of the store is damaged.
        """
        labels = projection.labels(manifest)
        states = self._store.states(labels, driven=driven)
        with self._writing(manifest.name):
            experiment = self._experiments.get(manifest.name) or self._look_up(manifest.name, labels)
            self._ensure_parent(experiment, states)
        if experiment.parent is None:
            return 0  # nothing has started
        num_written = 0
        faults: list[TrackingError] = []
        for index, (trial_id, label) in enumerate(labels.items(), start=1):
            states[trial_id] = self._store.state(trial_id, driven=driven)  # it may have ended since
            try:
                with self._writing(manifest.name):
                    self._ensure_child(experiment, experiment.trials.get(trial_id))
                    num_written += self._sync_trial(experiment, trial_id, states[trial_id], label)
            except TrackingError as error:
                faults.append(error)
                if len(faults) == MAX_FAULTS:
                    break
            on_trial(len(labels) - index)
        if len(faults) < MAX_FAULTS:
            with self._writing(manifest.name):
                self._sync_parent(experiment, manifest, states, driven=driven)
        if faults:
            raise faults[0]
        return num_written

    @contextlib.contextmanager
    def _writing(self, sweep: str) -> Iterator[None]:
        """Explain failures; how much was written is unknown, so the next pass looks the sweep up again."""
        try:
            with _explained(self._uri):
                yield
        except TrackingError:
            self._experiments.pop(sweep, None)
            raise

    # What is there

    def _look_up(self, name: str, labels: Mapping[str, Label]) -> _Experiment:
        """The sweep's experiment, created if missing, with the runs in it that belong to this store."""
        experiment = _Experiment(experiment_id=self._runs.experiment_id(name), name=name)
        asked = {*labels, *(label.cell_key for label in labels.values())}
        deleted = []
        for run in self._runs.search(experiment.experiment_id, name):
            if run.is_deleted:
                deleted.append(run)
            elif experiment.has_place(run, asked):
                experiment.take(run)
            else:  # no longer asked for, or a duplicate: MLflow's client retried after losing an answer
                self._runs.delete(run)
                deleted += [run] if _level(run) == "cell" else []
        for run in deleted:
            if _level(run) == "cell":
                experiment.deleted_cells[_identity(run), run.tags.get("crwn.projected", "")] = run
            elif experiment.has_place(run, asked) and self._is_current(run):
                experiment.take(self._runs.restore(run))
        self._experiments[name] = experiment
        return experiment

    def _is_current(self, run: ShownRun) -> bool:
        """Whether a run shows the computation of its trial in the store; a sweep's own run always does."""
        if _level(run) == "sweep":
            return True
        attempts = self._store.all_attempts(_identity(run))
        return bool(attempts) and run.tags.get("crwn.origin") == projection.origin(attempts)

    # Below the parent

    def _create_child(self, experiment: _Experiment, content: RunContent, level: str, identity: str) -> ShownRun:
        """Create a run below the sweep's own, which is found again by its `identity`."""
        assert experiment.parent is not None
        place = {"mlflow.parentRunId": experiment.parent.run_id, "crwn.level": level, f"crwn.{level}": identity}
        return self._runs.create(experiment.experiment_id, experiment.name, content.start, {**content.tags, **place})

    def _ensure_child(self, experiment: _Experiment, shown: ShownRun | None) -> None:
        """Make sure that a run is below its sweep's run, which may have been duplicated or lost."""
        assert experiment.parent is not None
        if shown is not None:
            self._runs.write_tags(shown, {"mlflow.parentRunId": experiment.parent.run_id})

    def _sync_trial(self, experiment: _Experiment, trial_id: str, state: TrialState, label: Label) -> bool:
        """Update one trial's run; returns whether anything was written."""
        shown = experiment.trials.get(trial_id)
        if state == "left":
            if shown is not None and shown.status == "RUNNING":
                self._runs.write_status(shown, STATUS[state], shown.start)
                return True
            return False
        seen = (state, label, self._store.signature(trial_id))
        if shown is not None and shown.seen == seen:
            return False
        digest = projection.digest(self._store, trial_id, label) if state == "done" else None
        if shown is not None and digest is not None and _is_whole(shown, digest):
            shown.seen = seen
            return False
        content = projection.trial_content(self._store, trial_id, state, label)
        if content is None:
            return False  # the next pass will see it finished
        if shown is not None and shown.tags.get("crwn.origin") != content.origin and self._runs.points(shown):
            self._runs.delete(shown)  # it shows another computation, and metrics cannot be removed
            shown = None
        if shown is None:
            shown = self._create_child(experiment, content, "trial", trial_id)
            experiment.trials[trial_id] = shown
        self._write(shown, content, STATUS[state])
        if digest is not None:
            self._runs.write_files(shown, projection.artifacts(self._store, trial_id, label.run_name))
            self._runs.write_tags(shown, {"crwn.projected": digest})  # last, once it is complete
        elif state == "failed":
            self._runs.write_files(shown, {ATTEMPTS_FILE: self._store.read(trial_id, ATTEMPTS_FILE) or b""})
        shown.seen = seen
        return True

    def _sync_cells(self, experiment: _Experiment, found: Mapping[str, RunContent], *, driven: bool) -> None:
        """Update the runs of the table's cells.

        Args:
            experiment: the sweep's experiment.
            found: the content of cells, by `Label.cell_key`.
            driven: whether seeds may still follow; incomplete cells then wait for them.
        """
        for key in experiment.cells.keys() - found.keys():
            self._runs.delete(experiment.cells.pop(key))
        for key, content in found.items():
            if driven and content.tags["state"] != "done":
                continue
            shown = experiment.cells.get(key)
            if shown is not None and not _is_whole(shown, content.origin):
                self._runs.delete(shown)
                shown = None
            if shown is None:
                deleted = experiment.deleted_cells.pop((key, content.origin), None)
                if deleted is not None:
                    shown = self._runs.restore(deleted)
                else:
                    shown = self._create_child(experiment, content, "cell", key)
                experiment.cells[key] = shown
            self._ensure_child(experiment, shown)
            if not _is_whole(shown, content.origin):
                self._write(shown, content, STATUS["done"])
                self._runs.write_tags(shown, {"crwn.projected": content.origin})  # last, once it is complete

    def _write(self, shown: ShownRun, content: RunContent, status: str) -> None:
        self._runs.write_params(shown, content.params)
        self._runs.write_points(shown, content.points)
        self._runs.write_tags(shown, content.tags)
        self._runs.write_status(shown, status, content.end)

    # The parent

    def _ensure_parent(self, experiment: _Experiment, states: Mapping[str, TrialState]) -> None:
        begun = [trial_id for trial_id, state in states.items() if state != "left"]
        if experiment.parent is not None or not begun:
            return
        start = min(projection.started(self._store, trial_id) for trial_id in begun)
        tags = {"crwn.level": "sweep", "mlflow.runName": experiment.name}
        experiment.parent = self._runs.create(experiment.experiment_id, experiment.name, start, tags)

    def _sync_parent(
        self, experiment: _Experiment, manifest: Manifest, states: Mapping[str, TrialState], *, driven: bool
    ) -> None:
        """Update the sweep's own run: counts of trials by state, table, cells, report, and the end of the work."""
        parent = experiment.parent
        if parent is None:
            return
        counts = Counter(states.values())
        if driven:
            state: TrialState = "running"
        elif counts["failed"]:
            state = "failed"
        else:
            state = "done" if counts["done"] == len(states) else "interrupted"
        trials = ", ".join(f"{counts[name]} {name}" for name in STATUS if counts[name])
        self._runs.write_tags(parent, {"state": state, "trials": trials, "sweep": manifest.name})
        settled = [
            (name, its, self._store.signature(name)) for name, its in states.items() if its in ("done", "failed")
        ]
        seen = (driven, settled, manifest)
        if parent.seen != seen and (not driven or time.monotonic() >= experiment.table_due):
            began = time.monotonic()
            self._sync_table(experiment, parent, manifest, states, driven=driven)
            parent.seen = seen
            experiment.table_due = time.monotonic() + TABLE_COST_FACTOR * (time.monotonic() - began)
        ends = [child.end for child in experiment.trials.values() if child.end is not None]
        self._runs.write_status(parent, STATUS[state], max(ends, default=parent.start))

    def _sync_table(
        self,
        experiment: _Experiment,
        parent: ShownRun,
        manifest: Manifest,
        states: Mapping[str, TrialState],
        *,
        driven: bool,
    ) -> None:
        """Update everything that is computed from several trials."""
        with self._computing():
            trials = sweep_tables.sweep_trials(self._store, manifest)
            table = sweep_tables.sweep_table(self._store, manifest, trials)
            spans = {trial_id: (run.start, run.end or run.start) for trial_id, run in experiment.trials.items()}
            settings = dict(zip(trials["trial_id"], trials["settings"], strict=True))
            cells = projection.cell_contents(manifest, table, settings, spans)
        self._runs.write_tags(parent, {"mlflow.note.content": projection.note(table)})
        self._runs.write_files(parent, projection.table_files(manifest, table))
        self._sync_cells(experiment, cells, driven=driven)
        # Write the report only when no run is working: it takes seconds to draw.
        shown = {trial_id: run.tags.get("crwn.projected") for trial_id, run in experiment.trials.items()}
        digest = projection.sweep_digest(manifest, states, shown, self._store.accepted())
        if not driven and parent.tags.get("crwn.projected") != digest:
            with self._computing():
                files = projection.sweep_report(self._store, manifest)
            self._runs.write_files(parent, files)
            self._runs.write_tags(parent, {"crwn.projected": digest})  # last, once it is complete


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn whatever MLflow and its libraries raise into a TrackingError with advice."""
    try:
        yield
    except (TrackingError, UserError):
        raise
    except Exception as error:  # MLflow, SQLAlchemy, requests, drivers, the file system
        raise TrackingError(explain(error, uri)) from error
