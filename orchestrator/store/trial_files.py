"""The files of single trials, finished or not, and whether a trial is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa

from orchestrator.store import integrity, parquet_files
from orchestrator.store.files import TEMPORARY, Files
from orchestrator.store.parquet_files import STREAM_VERSION
from orchestrator.store.rows import Sample, TestRow
from orchestrator.store.schemas import (
    ATTEMPTS_FILE,
    RESUME_FILE,
    SYSTEM_FILE,
    SYSTEM_SCHEMA,
    TASKS_FILE,
    TASKS_SCHEMA,
    TRIAL_FILE,
    TRIALS_FOLDER,
    of_trial,
)

Row = TypeVar("Row", TestRow, Sample)

_DEPTH = 3
"""Number of parts in the name of a trial's file."""


def read(files: Files, trial_id: str, file: str) -> bytes | None:
    """The bytes of one of a trial's files; None if it does not exist."""
    try:
        return files.read(of_trial(trial_id, file))
    except FileNotFoundError:
        return None


def is_finished(files: Files, trial_id: str) -> bool:
    """Whether the trial's final record exists."""
    return files.exists(of_trial(trial_id, TRIAL_FILE))


def finished(files: Files, trial_ids: Iterable[str]) -> set[str]:
    """The finished ones among the given trials."""
    names = {of_trial(trial_id, TRIAL_FILE): trial_id for trial_id in trial_ids}
    return {names[name] for name in files.existing(list(names))}


def finished_ids(files: Files) -> list[str]:
    """The ids of all finished trials, sorted."""
    paths = [name.split("/") for name in files.walk(TRIALS_FOLDER)]
    return [path[1] for path in paths if len(path) == _DEPTH and path[-1] == TRIAL_FILE]


def signature(files: Files, trial_id: str) -> tuple[tuple[str, int, int], ...]:
    """A value that changes whenever one of the trial's files does."""
    found = []
    for file in (TRIAL_FILE, ATTEMPTS_FILE, TASKS_FILE):
        written = files.signature(of_trial(trial_id, file))
        if written is not None:
            found.append((file, *written))
    return tuple(found)


def signatures(files: Files) -> dict[str, tuple[tuple[int, int], ...]]:
    """For every finished trial, a value that changes with its results: modification times and sizes of its records."""
    finished: set[str] = set()
    found: dict[str, list[tuple[int, int]]] = {}
    for name, written in files.signatures(TRIALS_FOLDER, (TRIAL_FILE, TASKS_FILE)).items():
        found.setdefault(name.split("/")[1], []).append(written)
        if name.endswith(TRIAL_FILE):
            finished.add(name.split("/")[1])
    return {trial_id: tuple(found[trial_id]) for trial_id in sorted(finished)}


def clear_leftovers(files: Files, trial_ids: Iterable[str]) -> None:
    """Remove from finished trials what only unfinished ones need, and files whose writer was killed."""
    folders = {f"{TRIALS_FOLDER}/{trial_id}" for trial_id in trial_ids}
    for name in files.walk(min(folders) if len(folders) == 1 else TRIALS_FOLDER):
        folder, _, file = name.rpartition("/")
        if folder in folders and (file in (RESUME_FILE, ATTEMPTS_FILE) or file.endswith(TEMPORARY)):
            files.remove(name)


def write_tests(files: Files, trial_id: str, tasks: Sequence[TestRow], system: Sequence[Sample]) -> pa.Table:
    """Write a trial's `tasks` and `system` rows, up to its resume point or all; returns `tasks` as written."""
    table = parquet_files.from_rows((row.columns() for row in tasks), TASKS_SCHEMA)
    files.write(of_trial(trial_id, TASKS_FILE), parquet_files.dump(table, version_of(tasks)))
    samples = parquet_files.from_rows((sample.columns() for sample in system), SYSTEM_SCHEMA)
    files.write(of_trial(trial_id, SYSTEM_FILE), parquet_files.dump(samples))
    return table


def read_tests(files: Files, trial_id: str) -> tuple[list[TestRow], list[Sample]]:
    """A trial's `tasks` and `system` rows, as far as they exist.

    Raises:
        UserError: a file is damaged, belongs to another trial, or is newer than this reader.
    """
    tests = _rows(files, TestRow, trial_id, TASKS_FILE, TASKS_SCHEMA)
    return tests, _rows(files, Sample, trial_id, SYSTEM_FILE, SYSTEM_SCHEMA)


def _rows(files: Files, kind: type[Row], trial_id: str, file: str, schema: pa.Schema) -> list[Row]:
    content = read(files, trial_id, file)
    if content is None:
        return []
    place = files.locate(of_trial(trial_id, file))
    table = own_table(content, schema, trial_id, place)
    with refused(place):
        return [kind.read(row) for row in table.to_pylist()]


def own_table(content: bytes | None, schema: pa.Schema, trial_id: str, place: str) -> pa.Table:
    """The rows of a trial's Parquet file, checked to belong to it; raises like `read_tests`."""
    table = parquet_files.load(content, schema, place).table
    with refused(place):
        integrity.check_owner(table, trial_id)
    return table


@contextlib.contextmanager
def refused(place: str) -> Iterator[None]:
    """Turn errors about the record at a place into a `UserError` that names it."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise parquet_files.refusal(place, error) from error


def version_of(tests: Sequence[TestRow]) -> dict[str, str]:
    """The version of a trial's records, if it differs from the schema's."""
    is_stream = any(test.update is not None for test in tests)
    return {"version": "{}.{}".format(*STREAM_VERSION)} if is_stream else {}
