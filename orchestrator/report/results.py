"""The results in a store, for Python: what `crwn.open` and `crwn.run` return.

Shapes: T tasks, N images, C channels, H height, W width, d values per image.
"""

from __future__ import annotations

import difflib
import functools
import json
import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crwn.benchmarks import BENCHMARKS, problem_of
from crwn.data import DataError, datasets
from crwn.faults import codes_of
from crwn.spec import TRIAL_ID
from crwn.spec_json import unknown_names
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError, shortened
from orchestrator.measures import MEASURES
from orchestrator.report.frames import asked_frame, trials_frame
from orchestrator.store import index
from orchestrator.store.integrity import MOST_TASKS, Tests, matrix_of
from orchestrator.store.provenance import Provenance
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.rows import TestRow
from orchestrator.store.store import Store

if TYPE_CHECKING:
    import torch

    from crwn.benchmarks.protocol import Benchmark
    from crwn.contexts import ContextBank

NUM_NEAREST = 3
"""Number of trials that an error names: the nearest to an unknown one, or the first of an ambiguous beginning."""


class Results:
    """The results in a store. Everything is read from the store on access, even while a sweep runs.

    A trial is named by its id, as in the column `id` of `trials`, by the unambiguous beginning of one, or by its spec.

    Args:
        store: the store, which must exist.

    Raises:
        UserError: (all methods) the store holds no such trial, its records are damaged, or it cannot be reached.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<crwn results in {self.address}>"

    @property
    def address(self) -> str:
        """The store's full path, or its URI."""
        return self._store.address

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial that is finished, or requested by a sweep of the store, in the sweeps' order.

        Columns:
            id: the trial's identity.
            method, variant, benchmark, scale, scenario, seed, num_tasks: what it is a trial of, in the store's own
                words: the method's name in the registry, its settings that are not the paper's, the preset's name.
            status: `done`, `running`, `failed`, `interrupted` (it will resume) or `left` (not started).
            accuracy and so on: every measure of `orchestrator/measures.py`, as numbers, so shares from 0 to 1; NaN
                where it is unknown, so for every trial that is not done.
            seconds: time of training and tests.
            started, finished: when, in UTC; of trials that are done.
        """
        table = index.results(self._store)
        done = trials_frame(table, self._store.accepted())
        done["seconds"] = table["seconds"].to_pylist()
        said = [Provenance.from_json(text) for text in table["provenance"].to_pylist()]
        done["started"] = [each.attempts[0].started if each.attempts else None for each in said]
        done["finished_at"] = [each.finished for each in said]
        trials = asked_frame(self._store.manifests(), done)
        states = self._store.states(trials["trial_id"], driven=self._store.is_driven)
        problems = [_problem(settings) for settings in trials["settings"]]
        names = {name: trials[name] for name in ("method", "variant", "benchmark", "scale")}
        return pd.DataFrame(
            {
                "id": trials["trial_id"],
                **names,
                "scenario": [scenario for scenario, _ in problems],
                "seed": trials["seed"].astype(int),
                "num_tasks": pd.array([num_tasks for _, num_tasks in problems], dtype="Int64"),
                "status": [states[trial_id] for trial_id in trials["trial_id"]],
                **{name: trials[name].astype(float) for name in (*MEASURES, "seconds")},
                "started": pd.to_datetime(trials["started"], utc=True),
                "finished": pd.to_datetime(trials["finished_at"], utc=True),
            }
        )

    def spec(self, trial: str | TrialSpec) -> TrialSpec:
        """A trial's spec."""
        trial_id = self._find(trial)
        try:
            return TrialSpec.from_values(self._settings(trial_id).values)
        except ValueError as error:
            message = f"trial {trial_id}: expected a spec that this crwn knows: {error}."
            raise UserError(codes_of(error, "spec-unknown"), message) from error

    def matrix(self, trial: str | TrialSpec) -> pd.DataFrame:
        """The accuracy matrix of a trial: test accuracies from 0 to 1; NaN where no test was made and none is implied.

        Where learning a task leaves the others unchanged, its test right after it was learned stands for all later
        ones. In the scenario `class`, an answer may be any class learned so far. `crwn.metrics` has measures over it.

        Returns:
            [T, T]: a row for each number of tasks learned (`tasks_learned`, from 1), a column for each task (from 0).
            With `tests_ahead`, there is also a row 0, before any learning. For a stream, a row for each `update` at
            which it was tested.
        """
        trial_id = self._find(trial)
        row = self._store.records.row(trial_id)
        spec = self._settings(trial_id) if row is None else row.spec
        independent = self.spec(trial_id).blueprint().is_independent if row is None else row.is_independent
        tests = Tests.of_rows(self._rows(trial_id))
        problem = problem_of(spec.benchmark)
        num_tasks = max(tests.num_tasks, 0 if problem is None else problem.num_tasks)
        if tests.update is None:
            num_tasks = max(num_tasks, tests.tasks_learned.max(initial=0))
        if num_tasks > MOST_TASKS:
            message = f"trial {trial_id}: expected at most {MOST_TASKS} tasks, given {num_tasks}"
            raise UserError("too-many-tasks", message)
        if tests.update is not None:
            return _stream(tests, num_tasks)
        return _in_turn(tests, num_tasks, independent=independent)

    def curve(self, trial: str | TrialSpec) -> pd.DataFrame:
        """The training curve of a trial, so far if it is running.

        Returns:
            One row per point: task; step, the task's update, from 1; loss in nats and accuracy from 0 to 1, means over
            the training batches since the point before; time in UTC. What is learned as one mixture or stream has one
            curve, that of task 0.
        """
        points = [(row.task, point) for row in self._rows(self._find(trial)) for point in row.curve]
        return pd.DataFrame(
            {
                "task": pd.array([task for task, _ in points], dtype=int),
                "step": pd.array([point.step for _, point in points], dtype=int),
                "loss": np.array([point.loss for _, point in points], dtype=float),
                "accuracy": np.array([point.accuracy for _, point in points], dtype=float),
                "time": pd.to_datetime(np.array([point.time for _, point in points], dtype=float), unit="s", utc=True),
            }
        )

    def contexts(self, trial: str | TrialSpec) -> ContextBank:
        """What a finished trial learned: its tensors, and predictions with them for any of its tasks.

        Each task's accuracy is the one at the trial's end. Of a trial that a plug-in defines which is not loaded, the
        tensors, tasks and spec can be read; predictions and edits raise ValueError, which says what to load.

        Raises:
            UserError: the trial is not finished, or kept nothing, since what it learned is weights; the message says
                what to set.
        """
        from crwn.context_networks import machine_memory  # noqa: PLC0415 (imports torch)
        from crwn.contexts import HOW_TO_KEEP_WEIGHTS, load, load_without_plugin  # noqa: PLC0415

        trial_id = self._find(trial)
        if not self._store.is_finished(trial_id):
            message = f"trial {trial_id}: expected a finished one, given an unfinished one; crwn.run resumes it"
            raise UserError("trial-not-finished", message)
        content, last = self._store.records.contexts(trial_id), self.matrix(trial_id).iloc[-1].tolist()
        try:
            if unknown_names(self._settings(trial_id).values):
                bank = load_without_plugin(content, len(last), self._plugins(trial_id))
            else:
                bank = load(content, largest=machine_memory())
        except ValueError as error:
            raise UserError(codes_of(error, "contexts-unreadable"), f"trial {trial_id}: {error}.") from error
        if not bank.tensors:
            raise UserError(
                "weights-not-kept",
                f"trial {trial_id}: expected contexts, found none: what {bank.spec['method']['kind']} learns is "
                f"weights, which are kept on request. Run it in a new store {HOW_TO_KEEP_WEIGHTS}.",
            )
        tasks = [replace(task, accuracy=_known(last[task.index])) for task in bank.tasks]
        return replace(bank, tasks=tuple(tasks))

    def test_set(
        self, trial: str | TrialSpec, task: int, *, data_root: str | Path | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The test images of one of a trial's tasks, as it is tested on them, and their labels.

        Args:
            trial: the trial.
            task: the task, from 0.
            data_root: a folder in which the base set is looked for first. Nothing is downloaded.

        Returns:
            Unsigned bytes [N, d] or [N, C, H, W], and labels [N].

        Raises:
            UserError: (also) the base set is not on this machine, or there is no such task.
        """
        spec = self.spec(trial)
        last = spec.benchmark.problem().num_tasks - 1
        try:
            place = operator.index(task)
        except TypeError:
            place = -1
        if not 0 <= place <= last:
            raise UserError("unknown-task", f"task: expected one of the trial's, from 0 to {last}, given {task!r}")
        split = tasks_of(spec, data_root).test_split(place)
        return split.images, split.labels

    def _find(self, trial: str | TrialSpec) -> str:
        """The id of a trial."""
        wanted = trial.trial_id if isinstance(trial, TrialSpec) else trial
        if not isinstance(wanted, str):
            raise UserError("wrong-type", f"trial: expected an id or a spec, given {shortened(repr(wanted))}")
        if TRIAL_ID.fullmatch(wanted) and self._store.is_finished(wanted):
            return wanted
        asked = [trial_id for manifest in self._store.manifests() for trial_id in manifest.trial_ids]
        known = sorted({*self._store.trial_folders(), *asked})
        found = [trial_id for trial_id in known if trial_id.startswith(wanted)] if wanted else []
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(
                "ambiguous-trial",
                f"trial: expected the beginning of one id, given {wanted!r}, with which {len(found)} begin: "
                f"{_listed(found[:NUM_NEAREST], len(found))}",
            )
        close = difflib.get_close_matches(wanted[:16], known, n=NUM_NEAREST, cutoff=0)
        nearest = f"; the nearest are {_listed(close, len(known))}" if close else "; there is none"
        message = f"trial: expected one in {self.address}, given {shortened(wanted)!r}{nearest}"
        raise UserError("unknown-trial", message)

    def _settings(self, trial_id: str) -> RecordedSpec:
        """A trial's settings, with its seed."""
        row = self._store.records.row(trial_id)
        if row is not None:
            return row.spec
        for manifest in self._store.manifests():
            for cell, seed, asked in manifest.trials():
                if asked == trial_id and cell.spec is not None:
                    return RecordedSpec({**cell.spec.values, "seed": seed})
        attempts = self._store.unfinished.attempts(trial_id)
        if attempts and attempts[-1].spec is not None:
            return attempts[-1].spec
        message = f"trial {trial_id}: expected its spec in a manifest or in its attempts, found it in neither"
        raise UserError("spec-unknown", message)

    def _plugins(self, trial_id: str) -> list[str]:
        """The names of the plug-ins that the sweeps used which ask for a trial."""
        asking = [manifest for manifest in self._store.manifests() if trial_id in manifest.trial_ids]
        return list(dict.fromkeys(plugin.name for manifest in asking for plugin in manifest.plugins))

    def _rows(self, trial_id: str) -> Sequence[TestRow]:
        """A trial's tests; those of a finished one are checked against its record."""
        if self._store.is_finished(trial_id):
            (result,) = self._store.records.results([trial_id])
            if isinstance(result, UserError):
                raise result
        return self._store.so_far(trial_id)[0]


def tasks_of(spec: TrialSpec, data_root: str | Path | None) -> Benchmark:
    """A trial's tasks, on the CPU.

    Args:
        spec: the trial.
        data_root: a folder in which the base set is looked for first. Nothing is downloaded.

    Raises:
        UserError: the base set is not on this machine.
    """
    import torch  # noqa: PLC0415 (takes a second)

    from crwn.benchmarks.validation import hold_out  # noqa: PLC0415 (imports torch)

    try:
        images = datasets(None if data_root is None else str(data_root)).load(spec.benchmark.base)
    except DataError as error:
        raise UserError(codes_of(error, "data-refused"), str(error)) from error
    build = BENCHMARKS[spec.benchmark.kind].build
    return build(spec.benchmark, hold_out(images, spec.benchmark.validation), spec.seed, torch.device("cpu"))


def _known(accuracy: float) -> float | None:
    """An accuracy; None if there was no test."""
    return None if np.isnan(accuracy) else accuracy


def _problem(settings: str | None) -> tuple[str | None, int | None]:
    """The scenario and the number of tasks of a trial, from its settings; None where they are not known."""
    return (None, None) if settings is None else _sizes(json.dumps(RecordedSpec.from_index(settings).benchmark))


@functools.lru_cache(maxsize=1000)
def _sizes(benchmark: str) -> tuple[str | None, int | None]:
    problem = problem_of(json.loads(benchmark))
    return (None, None) if problem is None else (problem.scenario, problem.num_tasks)


def _in_turn(tests: Tests, num_tasks: int, *, independent: bool) -> pd.DataFrame:
    """The accuracy matrix of tasks that come one after another, or all at once."""
    matrix = matrix_of(tests, independent=independent, num_tasks=num_tasks)
    matrix[tests.tasks_learned.max(initial=0) :] = np.nan  # what is not learned yet implies nothing
    first, is_before = 1, tests.tasks_learned == 0
    if is_before.any():
        untrained = np.full(num_tasks, np.nan)
        untrained[tests.task[is_before]] = tests.accuracy[is_before]
        first, matrix = 0, np.vstack([untrained, matrix])
    learned = pd.RangeIndex(first, num_tasks + 1, name="tasks_learned")
    return pd.DataFrame(matrix, index=learned, columns=pd.RangeIndex(num_tasks, name="task"))


def _stream(tests: Tests, num_tasks: int) -> pd.DataFrame:
    """The accuracy matrix of a stream."""
    assert tests.update is not None
    updates, row = np.unique(tests.update, return_inverse=True)
    matrix = np.full((len(updates), num_tasks), np.nan)
    matrix[row, tests.task] = tests.accuracy
    return pd.DataFrame(matrix, index=pd.Index(updates, name="update"), columns=pd.RangeIndex(num_tasks, name="task"))


def _listed(trial_ids: Sequence[str], total: int) -> str:
    return ", ".join(trial_ids) + (", ..." if total > len(trial_ids) else "")
