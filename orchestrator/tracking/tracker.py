"""Writes MLflow from the store.

There is one experiment per sweep name; in it, one parent run per sweep and store, one child run per started trial, and,
when no run is in progress, one per cell of the table: mean, deviation and number of seeds. Everything that they show is
read from the store (`projection.py`), so it can lag behind, be lost, and be rebuilt.

MLflow can only append to metrics. A run therefore belongs to one origin of its numbers, its tag `crwn.origin`; numbers
of another origin replace it with a new run. Runs deleted in MLflow are ignored: the next process that shows
the sweep creates new ones. One process at a time writes (`Store.tracking_lock`).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from orchestrator.report import filenames
from orchestrator.report.page import sweep_files
from orchestrator.report.sweep_tables import sweep_table
from orchestrator.store.json_fields import milliseconds
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.schemas import ATTEMPTS_FILE
from orchestrator.store.store import Store, TrialState
from orchestrator.tracking import projection
from orchestrator.tracking.address import TrackingError, artifact_root
from orchestrator.tracking.connecting import connect, entities, explained
from orchestrator.tracking.projection import Point, RunContent

MAX_FAULTS = 3
"""Number of failed trials after which a pass is abandoned: one may be an oddity, more are an outage."""

METRICS_PER_CALL, MAX_RUNS = 800, 50_000
"""MLflow's limits: a thousand entries per call, a hundred of them params, and this many runs per query."""

STATUS: Mapping[TrialState, str] = {
    "done": "FINISHED",
    "failed": "FAILED",
    "running": "RUNNING",
    "interrupted": "KILLED",
    "left": "KILLED",
}


@dataclass(slots=True)
class ShownRun:
    """The known state of a run in MLflow.

    Attributes:
        experiment, run_id, tags, start, end, status, params: as they are there; times in milliseconds since 1970.
        sent: values of metrics that this process has written; MLflow ignores what it is sent once more.
        seen: the state of the store that it shows; None if unknown.
    """

    experiment: str
    run_id: str
    tags: dict[str, str]
    start: int
    end: int | None = None
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    sent: set[Point] = field(default_factory=set)
    seen: Any = None


Runs: TypeAlias = dict[tuple[str, str], ShownRun]
"""A sweep's, by level and identity: `PARENT`, ("trial", its id), ("cell", its `ManifestCell.key`)."""

PARENT = ("sweep", "")


class Tracker:
    """Shows a store's sweeps in MLflow.

    Args:
        store: the store.
        uri: MLflow's tracking URI.

    Raises:
        TrackingError: MLflow cannot be reached, or is not as expected.
    """

    def __init__(self, store: Store, uri: str) -> None:
        self._store = store
        self._uri = uri
        self._artifacts = artifact_root(store.beside, uri)
        self._known: dict[str, Runs] = {}
        with explained(uri):
            self._client = connect(uri, self._artifacts)

    def sync(self, manifest: Manifest, *, driven: bool, on_trial: Callable[[], object] = int) -> int:
        """Write what MLflow lacks of a sweep.

        Args:
            manifest: the sweep's manifest.
            driven: whether a run is working on it; numbers over several trials are then written only at its end.
            on_trial: called after each trial that was looked at.

        Returns:
            The number of trials' runs written.

        Raises:
            TrackingError: something could not be written; the next call continues.
            UserError: a record of the store is damaged.
        """
        states = self._store.states(manifest.trial_ids, driven=driven)
        with explained(self._uri):
            # Removed during a pass: if it fails, it is unknown what arrived, and the next pass looks it up again.
            runs = self._known.pop(manifest.name, None) or self._look_up(manifest, states)
        if not runs:
            return 0  # nothing has started
        num_written, faults = 0, list[TrackingError]()
        for cell, seed, trial_id in manifest.trials():
            states[trial_id] = self._store.state(trial_id, driven=driven)  # it may have ended since
            try:
                with explained(self._uri):
                    num_written += self._sync_trial(runs, trial_id, states[trial_id], cell, seed)
            except TrackingError as error:
                faults.append(error)
                if len(faults) == MAX_FAULTS:
                    raise
            on_trial()
        with explained(self._uri):
            self._sync_parent(runs, manifest, states, driven=driven)
        if faults:
            raise faults[0]
        self._known[manifest.name] = runs
        return num_written

    def _look_up(self, manifest: Manifest, states: Mapping[str, TrialState]) -> Runs:
        """The sweep's runs of this store that are not deleted; creates the parent run if any trial has started."""
        experiment = self._experiment_id(manifest.name)
        begun = {trial_id: cell for cell, _, trial_id in manifest.trials() if states[trial_id] != "left"}
        asked = {PARENT, *(("trial", trial_id) for trial_id in begun), *(("cell", cell.key) for cell in begun.values())}
        runs: Runs = {}
        for run in self._client.search_runs([experiment], max_results=MAX_RUNS):
            tags, info = dict(run.data.tags), run.info
            if tags.get("crwn.store") != self._store.identity:
                continue
            level = tags.get("crwn.level", "")
            place = PARENT if level == "sweep" else (level, tags.get(f"crwn.{level}", ""))
            if place in asked and place not in runs:
                shown = runs[place] = ShownRun(experiment, info.run_id, tags, info.start_time)
                shown.status, shown.end, shown.params = info.status, info.end_time, dict(run.data.params)
            else:  # not requested any more, gone, or a duplicate: MLflow's client retried after a lost answer
                self._client.delete_run(info.run_id)
        if PARENT not in runs and begun:
            attempts = [self._store.all_attempts(trial_id) for trial_id in begun]
            start = min((milliseconds(tried[0].started) for tried in attempts if tried), default=0)
            tags = {"crwn.sweep": manifest.name, "crwn.level": "sweep", "mlflow.runName": manifest.name}
            runs[PARENT] = self._create(experiment, start, tags)
        for place, child in runs.items():
            if place != PARENT:  # their parent may have been another run
                self._write_tags(child, {"mlflow.parentRunId": runs[PARENT].run_id})
        return runs

    def _experiment_id(self, name: str) -> str:
        """The id of the experiment with this name, which is created if missing, or restored if deleted."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if self._artifacts is None else (self._artifacts / filenames.part(name)).as_uri()
            made = self._client.create_experiment(name, artifact_location=location)
            found = self._client.get_experiment(made)
        if found.lifecycle_stage != "active":  # MLflow accepts no second experiment of its name
            self._client.restore_experiment(found.experiment_id)
        for tag, value in projection.EXPERIMENT_TAGS.items():
            if found.tags.get(tag) != value:
                self._client.set_experiment_tag(found.experiment_id, tag, value)
        return str(found.experiment_id)

    def _sync_trial(self, runs: Runs, trial_id: str, state: TrialState, cell: ManifestCell, seed: int) -> bool:
        """Update one trial's run; returns whether anything was written."""
        place = ("trial", trial_id)
        shown = runs.get(place)
        if state == "left" and shown is not None:  # its files were removed
            self._client.delete_run(runs.pop(place).run_id)
            return True
        seen = (state, cell.names, self._store.signature(trial_id))
        if shown is not None and shown.seen == seen:
            return False
        digest = projection.digest(self._store, trial_id, cell, seed) if state == "done" else None
        is_whole = shown is not None and (shown.status, shown.tags.get("crwn.projected")) == (STATUS["done"], digest)
        if shown is None or not is_whole:
            content = projection.trial_content(self._store, trial_id, state, cell, seed)
            if content is None:
                return False  # the next pass will see it finished
            shown = self._write(runs, place, content, STATUS[state])
            if digest is not None:
                files = projection.artifacts(self._store, trial_id, projection.run_name(cell, seed))
                self._write_files(shown, files)
                self._write_tags(shown, {"crwn.projected": digest})  # last: it marks the run as complete
            elif state == "failed":
                self._write_files(shown, {ATTEMPTS_FILE: self._store.read(trial_id, ATTEMPTS_FILE) or b""})
        shown.seen = seen
        return not is_whole

    def _sync_parent(self, runs: Runs, manifest: Manifest, states: Mapping[str, TrialState], *, driven: bool) -> None:
        """Update the sweep's own run: the number of trials by state, when work ended, and, unless driven, its table."""
        counts = Counter(states.values())
        rests: TrialState = "failed" if counts["failed"] else "done" if counts["done"] == len(states) else "interrupted"
        state = "running" if driven else rests
        trials = ", ".join(f"{counts[name]} {name}" for name in STATUS if counts[name])
        self._write_tags(runs[PARENT], {"state": state, "trials": trials, "sweep": manifest.name})
        if not driven:
            self._sync_table(runs, manifest, states)
        ends = [run.end for (level, _), run in runs.items() if level == "trial" and run.end is not None]
        self._write_status(runs[PARENT], STATUS[state], max(ends, default=runs[PARENT].start))

    def _sync_table(self, runs: Runs, manifest: Manifest, states: Mapping[str, TrialState]) -> None:
        """Update the runs of the table's cells, then the table and the report, unless they are up to date."""
        if runs[PARENT].tags.get("crwn.projected") == self._digest(runs, manifest, states):
            return
        spans = {name: (run.start, run.end or 0) for (_, name), run in runs.items() if states.get(name) == "done"}
        table = sweep_table(self._store, manifest)
        contents = {("cell", c.key): content for c, content in projection.cell_contents(manifest, table, spans)}
        for place in [place for place in runs if place[0] == "cell" and place not in contents]:
            self._client.delete_run(runs.pop(place).run_id)
        for place, content in contents.items():
            self._write(runs, place, content, STATUS["done"])
        self._write_files(runs[PARENT], sweep_files(self._store, manifest, table))
        tags = {"mlflow.note.content": projection.note(table), "crwn.projected": self._digest(runs, manifest, states)}
        self._write_tags(runs[PARENT], tags)

    def _write(self, runs: Runs, place: tuple[str, str], content: RunContent, status: str) -> ShownRun:
        """Write content to a child run: the existing one, or a new one for numbers of another origin.

        Existing params keep their values, which MLflow never changes: an older crwn may have named them differently.
        """
        shown = runs.get(place)
        if shown is not None and shown.tags.get("crwn.origin") != content.tags["crwn.origin"]:
            self._client.delete_run(shown.run_id)
            shown = None
        if shown is None:
            (level, identity), parent = place, runs[PARENT]
            below = {"mlflow.parentRunId": parent.run_id, "crwn.level": level, f"crwn.{level}": identity}
            shown = runs[place] = self._create(parent.experiment, content.start, {**content.tags, **below})
        missing = {name: value for name, value in content.params.items() if name not in shown.params}
        params = [entities.Param(name, value) for name, value in missing.items()]
        new = [point for point in content.points if point not in shown.sent]
        metrics = [entities.Metric(point.name, point.value, point.time, point.step) for point in new]
        for start in range(0, len(metrics) or len(params), METRICS_PER_CALL):
            chunk = metrics[start : start + METRICS_PER_CALL]
            self._client.log_batch(shown.run_id, metrics=chunk, params=params if start == 0 else ())
        shown.params |= missing
        shown.sent |= set(new)
        self._write_tags(shown, content.tags)
        self._write_status(shown, status, content.end)
        return shown

    def _create(self, experiment: str, start: int, tags: Mapping[str, str]) -> ShownRun:
        """Create a run that begins at `start`; its name is the tag `mlflow.runName`."""
        tags = {
            "crwn.store": self._store.identity,
            "mlflow.user": psutil.Process().username(),  # in a container, it may be just a number
            "mlflow.source.name": "crwn run",
            "mlflow.source.type": "LOCAL",
            **{name: value for name, value in tags.items() if value},
        }
        run = self._client.create_run(experiment, start_time=start, tags=tags, run_name=tags["mlflow.runName"])
        return ShownRun(experiment, run.info.run_id, tags, start)

    def _write_tags(self, shown: ShownRun, tags: Mapping[str, str]) -> None:
        """Write the tags that a run lacks or that differ."""
        changed = {name: value for name, value in tags.items() if shown.tags.get(name, "") != value}
        if changed:
            self._client.log_batch(shown.run_id, tags=[entities.RunTag(*tag) for tag in changed.items()])
            shown.tags |= changed

    def _write_status(self, shown: ShownRun, status: str, end: int) -> None:
        """Write a run's status, and its end if it has ended."""
        now = (status, None if status == "RUNNING" else end)
        if now == (shown.status, shown.end):
            return
        shown.status, shown.end = now
        if shown.end is None:
            self._client.update_run(shown.run_id, status=status)
        else:
            self._client.set_terminated(shown.run_id, status, end_time=end)

    def _write_files(self, shown: ShownRun, files: Mapping[str, bytes]) -> None:
        """Write a run's artifacts by path, overwriting existing ones."""
        with tempfile.TemporaryDirectory(prefix="crwn-artifacts-") as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(shown.run_id, folder)

    def _digest(self, runs: Runs, manifest: Manifest, states: Mapping[str, TrialState]) -> str:
        """A digest of what the sweep's own run depends on: the other runs, whole or running, and the accepted codes."""
        names = ("crwn.projected", "error", "crwn.origin")
        shown = [
            (place, runs[place].status, [runs[place].tags.get(name) or "" for name in names])
            for place in sorted(runs.keys() - {PARENT})
        ]
        return projection.digits(repr((shown, states, manifest.to_json_bytes(), self._store.accepted().agreements)))
