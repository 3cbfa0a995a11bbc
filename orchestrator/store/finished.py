"""The records of finished trials: a trial is finished once its last file is written; only consistent ones are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from crwn.benchmarks import benchmark_of
from crwn.code import Code
from orchestrator.errors import UserError
from orchestrator.store import integrity, parquet_files, trial_files
from orchestrator.store.files import Files
from orchestrator.store.integrity import Outcome
from orchestrator.store.parquet_files import DamagedError, Sealed
from orchestrator.store.rows import Sample, TestRow, TrialRow
from orchestrator.store.schemas import (
    ANSWERS_SCHEMA,
    CONTEXTS_FILE,
    TASKS_FILE,
    TASKS_SCHEMA,
    TESTS_SCHEMA,
    TRIAL_FILE,
    TRIALS_SCHEMA,
    of_trial,
)
from orchestrator.store.trial_files import refused


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """Everything that the store keeps for a finished trial.

    Attributes:
        trial: its `trials` row.
        tasks: its `tasks` rows.
        system: its `system` rows.
        contexts: the bytes of its contexts file.
    """

    trial: TrialRow
    tasks: Sequence[TestRow]
    system: Sequence[Sample]
    contexts: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What tables read from a finished trial.

    Attributes:
        trial: its `trials` row, as a table.
        is_sealed: whether its records have checksums, which were verified; records before version 1.2 have none.
        is_stream: whether its tests are by update, not by task.
        outcome: the results of its tests.
        code: the code that computed it; empty if not recorded.
    """

    trial: pa.Table
    is_sealed: bool
    is_stream: bool
    outcome: Outcome
    code: Code


class Records:
    """The records of a store's finished trials.

    Args:
        files: the store's files.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def write(self, trial_id: str, record: TrialRecord) -> None:
        """Write a finished trial; its resume point and attempts are removed once everything is written."""
        tasks = trial_files.write_tests(self._files, trial_id, record.tasks, record.system)
        self._files.write(of_trial(trial_id, CONTEXTS_FILE), record.contexts)
        # A run that is being taken over may still rewrite `tasks` with other times, so only stable columns are covered.
        sums = {
            integrity.TASKS_SUM: parquet_files.stable_sum(tasks),
            integrity.CONTEXTS_SUM: hashlib.sha256(record.contexts).hexdigest(),
        }
        trial = parquet_files.from_rows([record.trial.columns()], TRIALS_SCHEMA)
        said = {**sums, **trial_files.version_of(record.tasks)}
        self._files.write(of_trial(trial_id, TRIAL_FILE), parquet_files.dump(trial, said))
        trial_files.clear_leftovers(self._files, [trial_id])

    def trials(self, trial_ids: Iterable[str]) -> pa.Table:
        """The `trials` rows of the finished ones among the given trials, validated.

        Raises:
            UserError: a record is damaged, belongs to another trial, or is newer than this reader.
        """
        found = [self._trial(trial_id, content)[0].table for trial_id, content in self._finished(trial_ids, TRIAL_FILE)]
        return pa.concat_tables([TRIALS_SCHEMA.empty_table(), *found])

    def row(self, trial_id: str) -> TrialRow | None:
        """The `trials` row of one trial; None if it is not finished; raises like `trials`."""
        return self.rows([trial_id]).get(trial_id)

    def rows(self, trial_ids: Iterable[str]) -> dict[str, TrialRow]:
        """The `trials` rows of the finished ones, by trial; raises like `trials`."""
        return {
            trial_id: self._trial(trial_id, content)[1] for trial_id, content in self._finished(trial_ids, TRIAL_FILE)
        }

    def tasks(self, trial_ids: Iterable[str]) -> pa.Table:
        """The `tasks` rows of the finished ones; raises like `trials`."""
        found = [
            trial_files.own_table(content, TASKS_SCHEMA, trial_id, self._locate(trial_id, TASKS_FILE))
            for trial_id, content in self._finished(trial_ids, TASKS_FILE)
        ]
        return pa.concat_tables([TASKS_SCHEMA.empty_table(), *found])

    def _finished(self, trial_ids: Iterable[str], file: str) -> Iterator[tuple[str, bytes | None]]:
        """One file's content for each of the finished trials."""
        wanted = list(trial_ids)
        finished = trial_files.finished(self._files, wanted)
        wanted = [trial_id for trial_id in wanted if trial_id in finished]
        return zip(wanted, self._files.read_all([of_trial(trial_id, file) for trial_id in wanted]), strict=True)

    def results(self, trial_ids: Sequence[str]) -> Iterator[Result | UserError]:
        """The row and the test results of each of these finished trials, validated and consistent.

        Args:
            trial_ids: the trials.

        Returns:
            In the same order; a `UserError` for a trial whose records are damaged, missing, swapped or newer.
        """
        places = [of_trial(trial_id, file) for trial_id in trial_ids for file in (TRIAL_FILE, TASKS_FILE)]
        contents = self._files.read_all(places)
        for trial_id in trial_ids:
            trial, tasks = next(contents), next(contents)  # outside the try: no fault of the trial's
            try:
                yield self._result(trial_id, trial, tasks)
            except UserError as error:
                yield error

    def _result(self, trial_id: str, trial_content: bytes | None, tasks_content: bytes | None) -> Result:
        trial, row = self._trial(trial_id, trial_content)
        place = self._locate(trial_id, TASKS_FILE)
        benchmark = benchmark_of(row.spec.benchmark)
        counts_answers = bool(integrity.labels_of(benchmark))
        tasks = parquet_files.load(tasks_content, ANSWERS_SCHEMA if counts_answers else TESTS_SCHEMA, place)
        with refused(place):
            tests = integrity.check_tests(tasks.table, trial_id)
            integrity.check_same_tests(trial, tasks)
            found = integrity.outcome(tests, independent=row.is_independent, benchmark=benchmark, seed=row.seed)
        with refused(self._locate(trial_id, TRIAL_FILE)):
            integrity.check_mean(row.accuracy, found.final)
            integrity.check_mean(row.accuracy_told, found.told, "accuracy_told")
        is_stream = tests.update is not None
        code = row.provenance.code or Code()
        return Result(trial=trial.table, is_sealed=trial.is_sealed, is_stream=is_stream, outcome=found, code=code)

    def _trial(self, trial_id: str, content: bytes | None) -> tuple[Sealed, TrialRow]:
        """A trial's record, validated."""
        place = self._locate(trial_id, TRIAL_FILE)
        sealed = parquet_files.load(content, TRIALS_SCHEMA, place)
        with refused(place):
            return sealed, integrity.check_trial(sealed.table, trial_id)

    def contexts(self, trial_id: str) -> bytes:
        """The contexts of a finished trial, checked against its record.

        Raises:
            UserError: they are missing or differ, or the trial's record is damaged.
        """
        trial, _ = self._trial(trial_id, self._read(trial_id, TRIAL_FILE))
        content = self._read(trial_id, CONTEXTS_FILE)
        with refused(self._locate(trial_id, CONTEXTS_FILE)):
            if content is None:
                raise DamagedError("file-missing", "it is missing")
            integrity.check_contexts(trial, content)
        return content

    def check_whole(self, trial_id: str) -> None:
        """Check that a finished trial's record, tests and contexts belong to it and are consistent.

        Raises:
            UserError: they are not.
        """
        (result,) = self.results([trial_id])
        if isinstance(result, UserError):
            raise result
        self.contexts(trial_id)

    def is_sealed(self, trial_id: str) -> bool:
        """Whether a finished trial's record has checksums; those before version 1.2 have none. Raises like `trials`."""
        return self._trial(trial_id, self._read(trial_id, TRIAL_FILE))[0].is_sealed

    def _read(self, trial_id: str, file: str) -> bytes | None:
        return trial_files.read(self._files, trial_id, file)

    def _locate(self, trial_id: str, file: str) -> str:
        return self._files.locate(of_trial(trial_id, file))
