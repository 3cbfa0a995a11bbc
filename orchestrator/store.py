"""The results store: the only truth about what was computed.

    STORE/
      store.json                         what this folder is, and its version
      sweeps/NAME.json                   a sweep's manifest: the trials it asks for, under its own names
      sweeps/NAME.behind                 while what MLflow shows of the sweep may be behind
      trials/ID/attempts.json            while a trial is not finished: its attempts, the last one's error if it failed
      trials/ID/resume.safetensors       while a trial is not finished: where it goes on
      trials/ID/tasks.parquet            one row for every test of a task; while a trial is not finished, up to its
                                         resume point
      trials/ID/system.parquet           one row for every sample of the system's use, likewise
      trials/ID/contexts.safetensors     every task's learned tensors
      trials/ID/trial.parquet            one row; written last: a trial is finished if and only if it is there
      report/                            tables; can be thrown away

Files are written beside their place and moved into it, so a reader never sees half a file. Fields that may differ
between two equal runs are marked `volatile` in the Parquet schemas.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import UserError

STORE_VERSION = (1, 1)
"""Major, minor. A reader refuses a newer major version; a newer minor one has only added fields."""

MANIFEST_FORMAT = 1

_VOLATILE = {b"volatile": b"true"}


def _field(name: str, kind: pa.DataType, *, volatile: bool = False) -> pa.Field:
    return pa.field(name, kind, metadata=_VOLATILE if volatile else None)


_CURVE_POINT = pa.struct([("step", pa.int64()), ("loss", pa.float64()), ("accuracy", pa.float64())])

_VERSION_METADATA = {b"crwn.version": "{}.{}".format(*STORE_VERSION).encode()}

_IDENTITY = [
    _field("trial_id", pa.string()),
    _field("method", pa.string()),
    _field("variant", pa.string()),
    _field("benchmark", pa.string()),
    _field("scale", pa.string()),
    _field("seed", pa.int64()),
]

TASKS_SCHEMA = pa.schema(
    [
        *_IDENTITY,
        _field("task", pa.int64()),
        _field("tasks_learned", pa.int64()),
        _field("accuracy", pa.float64()),
        _field("loss", pa.float64()),
        _field("num_test", pa.int64()),
        _field("train_seconds", pa.float64(), volatile=True),
        _field("eval_seconds", pa.float64(), volatile=True),
        _field("curve", pa.list_(_CURVE_POINT)),
        _field("tested", pa.float64(), volatile=True),
        _field("curve_times", pa.list_(pa.float64()), volatile=True),
    ],
    metadata={
        **_VERSION_METADATA,
        b"crwn.record": b"tasks",
        b"crwn.matrix": b"the diagonal of the accuracy matrix (tasks_learned = task + 1) and its last row; for methods "
        b"whose tasks do not interfere an accuracy stays what it was when its task was learned; the lower triangle "
        b"where learning a task can change another; the last row alone where all tasks are learned at once",
    },
)

TRIALS_SCHEMA = pa.schema(
    [
        *_IDENTITY,
        _field("accuracy", pa.float64()),
        _field("forgetting", pa.float64()),
        _field("backward_transfer", pa.float64()),
        _field("params_per_task", pa.float64()),
        _field("trained_per_task", pa.int64()),
        _field("stored_per_task", pa.int64()),
        _field("grouping", pa.string()),
        _field("fingerprint", pa.string()),
        _field("spec", pa.string()),
        _field("numerics", pa.string()),
        _field("seconds", pa.float64(), volatile=True),
        _field("provenance", pa.string(), volatile=True),
    ],
    metadata={**_VERSION_METADATA, b"crwn.record": b"trials"},
)

SYSTEM_SCHEMA = pa.schema(
    [
        _field("trial_id", pa.string()),
        *(
            _field(name, pa.float64(), volatile=True)
            for name in (
                "time",
                "process_cpu_percent",
                "process_memory_bytes",
                "machine_cpu_percent",
                "machine_memory_bytes",
                "gpu_percent",
                "gpu_memory_bytes",
                "gpu_power_watts",
            )
        ),
    ],
    metadata={**_VERSION_METADATA, b"crwn.record": b"system"},
)
"""Times are seconds since 1970; 100 % of a process is one core, of a machine all of them; null without a GPU."""

TRIAL_FILE, TASKS_FILE, SYSTEM_FILE = "trial.parquet", "tasks.parquet", "system.parquet"
CONTEXTS_FILE = "contexts.safetensors"
RESUME_FILE = "resume.safetensors"
ATTEMPTS_FILE = "attempts.json"


TrialState: TypeAlias = Literal["done", "running", "failed", "interrupted", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """Everything that is kept of a finished trial.

    Attributes:
        trial: its `trials` row.
        tasks: its `tasks` rows.
        system: its `system` rows.
        contexts: a file's bytes.
    """

    trial: Mapping[str, Any]
    tasks: Sequence[Mapping[str, Any]]
    system: Sequence[Mapping[str, Any]]
    contexts: bytes


class Store:
    """A store on a path that this process can read and write. Opening one that does not exist yet writes nothing.

    Args:
        root: the store's folder.

    Raises:
        UserError: the folder is something else than a store, or a newer one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._check()

    def _check(self) -> None:
        mark = self.root / "store.json"
        if not self.root.exists() and not self.root.is_symlink():
            return
        if not self.root.is_dir():
            raise UserError(f"{self.root}: expected a store's folder, such as runs/quickstart, given a file.")
        try:
            if not mark.exists():
                # An empty folder becomes a store, and one in which making a store was cut off.
                if not all(_is_left_over(path.name) for path in self.root.iterdir()):
                    raise UserError(
                        f"{self.root}: expected a store or an empty folder; it holds other files and no store.json. "
                        "Nothing there is touched."
                    )
                return
            version = json.loads(mark.read_text())["version"]
            newer = version[0] > STORE_VERSION[0]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{mark}: expected a store's mark that can be read: {error!r}") from error
        if newer:
            raise UserError(
                f"{self.root}: expected a store of version {STORE_VERSION[0]} or older, given version {version[0]}. "
                "It was written by a newer crwn: upgrade crwn."
            )

    @property
    def identity(self) -> str:
        """What the store is known by elsewhere, wherever it is moved; its path for one of version 1.0."""
        try:
            return str(json.loads((self.root / "store.json").read_text())["id"])
        except KeyError:
            return str(self.root)

    @property
    def exists(self) -> bool:
        """Whether the folder is a store already."""
        return (self.root / "store.json").exists()

    def create(self) -> None:
        """Make the folder a store if it is none yet.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f"{uuid.uuid4().hex}{_TEMPORARY}"
            probe.touch()
            probe.unlink()
            if not self.exists:
                mark = {"format": "crwn-store", "version": list(STORE_VERSION), "id": uuid.uuid4().hex}
                _write_json(self.root / "store.json", mark)
        except OSError as error:
            raise UserError(
                f"{self.root}: expected a folder that can be written: {error}. Name another with --out."
            ) from error

    def tracking_lock(self) -> filelock.FileLock:
        """Held by the one process that shows this store in MLflow."""
        return filelock.FileLock(self.root / _TRACKING_LOCK)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one driver of this store for the length of a `with` block.

        Raises:
            UserError: another process is.
        """
        lock = filelock.FileLock(self.root / _LOCK)
        try:
            lock.acquire(timeout=1.0)  # `is_driven` of another process holds it for an instant
        except filelock.Timeout as error:
            raise UserError(
                f"{self.root}: expected no other run on this store, but one is working on it. "
                "Wait for it (crwn status shows it), stop it, or name another store with --out."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def is_driven(self) -> bool:
        """Whether some process is running a sweep on this store."""
        if not (self.root / _LOCK).exists():
            return False
        lock = filelock.FileLock(self.root / _LOCK)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return True
        except OSError:
            return False  # a store that cannot be written is not being written
        lock.release()
        return False

    # Sweeps

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Keep a sweep's manifest under its name; an equal one is left as it is. MLflow is behind a changed one."""
        path = self.root / "sweeps" / f"{manifest['name']}.json"
        if not path.exists() or path.read_text() != _json_text(manifest):
            _write_json(path, manifest)
            self.mark_behind(manifest["name"], behind=True)

    def manifests(self) -> list[dict[str, Any]]:
        """All sweeps' manifests, by name.

        Raises:
            UserError: one is damaged or newer than this reader.
        """
        return [_read_manifest(path) for path in sorted((self.root / "sweeps").glob("*.json"))]

    def manifest(self, name: str) -> dict[str, Any]:
        """One sweep's manifest; raises as `manifests` does."""
        return _read_manifest(self.root / "sweeps" / f"{name}.json")

    def mark_behind(self, name: str, *, behind: bool) -> None:
        """Note whether a sweep's runs in MLflow may be behind what is here."""
        mark = self.root / "sweeps" / f"{name}{_BEHIND}"
        if behind:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def is_behind(self, name: str) -> bool:
        """Whether a sweep's runs in MLflow may be behind what is here."""
        return (self.root / "sweeps" / f"{name}{_BEHIND}").exists()

    # Trials

    def folder(self, trial_id: str) -> Path:
        """A trial's folder, which need not exist."""
        return self.root / "trials" / trial_id

    def is_finished(self, trial_id: str) -> bool:
        """Whether the trial's final record is there."""
        return (self.folder(trial_id) / TRIAL_FILE).exists()

    def state(self, trial_id: str, *, driven: bool) -> TrialState:
        """Where a trial stands.

        Args:
            trial_id: the trial.
            driven: whether a run is working on the store.

        Returns:
            `done`; `failed`, its last attempt ended in an error; `running`; `interrupted`, begun and stopped, it goes
            on from its resume point; `left`, not begun.
        """
        if self.is_finished(trial_id):
            return "done"
        attempts = self.attempts(trial_id)
        if not attempts:
            return "left"
        if "error" in attempts[-1]:
            return "failed"
        return "running" if driven else "interrupted"

    def signature(self, trial_id: str) -> tuple[tuple[str, int, int], ...]:
        """Something that changes whenever one of the trial's files does."""
        found = []
        for name in (TRIAL_FILE, ATTEMPTS_FILE, TASKS_FILE):
            with contextlib.suppress(FileNotFoundError):
                status = (self.folder(trial_id) / name).stat()
                found.append((name, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def trial_ids(self) -> list[str]:
        """All trials that were finished, in order."""
        return sorted(path.parent.name for path in (self.root / "trials").glob(f"*/{TRIAL_FILE}"))

    def write_record(self, trial_id: str, record: TrialRecord) -> None:
        """Keep a finished trial; its resume point and attempts are removed once all is written."""
        folder = self.folder(trial_id)
        self._write_tests(trial_id, record.tasks, record.system)
        _write(folder / CONTEXTS_FILE, record.contexts)
        _write(folder / TRIAL_FILE, _parquet([record.trial], TRIALS_SCHEMA))
        self.clear_leftovers(trial_id)

    def clear_leftovers(self, trial_id: str) -> None:
        """Remove what only an unfinished trial needs, and files whose writer was killed."""
        folder = self.folder(trial_id)
        for path in (folder / RESUME_FILE, folder / ATTEMPTS_FILE, *folder.glob(f"*{_TEMPORARY}")):
            path.unlink(missing_ok=True)

    def trials(self, trial_ids: Iterable[str]) -> pa.Table:
        """The `trials` rows of those that are finished.

        Raises:
            UserError: a record is damaged or newer than this reader.
        """
        return self._table(trial_ids, TRIAL_FILE, TRIALS_SCHEMA)

    def tasks(self, trial_ids: Iterable[str]) -> pa.Table:
        """The `tasks` rows of those that are finished; raises as `trials` does."""
        return self._table(trial_ids, TASKS_FILE, TASKS_SCHEMA)

    def so_far(self, trial_id: str) -> tuple[pa.Table, pa.Table]:
        """The `tasks` and the `system` rows of one trial, finished or not; raises as `trials` does.

        A task that is being learned has its curve so far, and null for what a test would say.
        """
        return self._rows(trial_id, TASKS_FILE, TASKS_SCHEMA), self._rows(trial_id, SYSTEM_FILE, SYSTEM_SCHEMA)

    def _rows(self, trial_id: str, file: str, schema: pa.Schema) -> pa.Table:
        path = self.folder(trial_id) / file
        try:
            return _read_parquet(path, schema) if path.exists() else schema.empty_table()
        except UserError:
            if path.exists():
                raise
            return schema.empty_table()  # removed while it was read: its trial began anew

    def _table(self, trial_ids: Iterable[str], file: str, schema: pa.Schema) -> pa.Table:
        paths = [self.folder(trial_id) / file for trial_id in trial_ids if self.is_finished(trial_id)]
        return pa.concat_tables([schema.empty_table(), *(_read_parquet(path, schema) for path in paths)])

    # What an unfinished trial leaves

    def write_resume(
        self, trial_id: str, content: bytes, tasks: Sequence[Mapping[str, Any]], system: Sequence[Mapping[str, Any]]
    ) -> None:
        """Keep where a trial goes on, instead of an earlier point, and the rows up to there."""
        _write(self.folder(trial_id) / RESUME_FILE, content)
        self._write_tests(trial_id, tasks, system)  # afterwards: no row that the trial would compute once more

    def _write_tests(
        self, trial_id: str, tasks: Sequence[Mapping[str, Any]], system: Sequence[Mapping[str, Any]]
    ) -> None:
        folder = self.folder(trial_id)
        _write(folder / TASKS_FILE, _parquet(tasks, TASKS_SCHEMA))
        _write(folder / SYSTEM_FILE, _parquet(system, SYSTEM_SCHEMA))

    def read_resume(self, trial_id: str) -> bytes | None:
        """Where a trial goes on, if it was begun."""
        try:
            return (self.folder(trial_id) / RESUME_FILE).read_bytes()
        except FileNotFoundError:
            return None

    def discard_resume(self, trial_id: str) -> None:
        """Remove a resume point that cannot be used, and the rows up to there."""
        for file in (TASKS_FILE, SYSTEM_FILE, RESUME_FILE):  # the point last: whoever finds it discards the rest too
            (self.folder(trial_id) / file).unlink(missing_ok=True)

    def write_attempts(self, trial_id: str, attempts: list[dict[str, Any]]) -> None:
        """Keep what is known of a trial's attempts so far; JSON values."""
        _write_json(self.folder(trial_id) / ATTEMPTS_FILE, {"attempts": attempts})

    def attempts_file(self, trial_id: str) -> Path:
        """Where `attempts` are kept, with the last one's traceback if it failed."""
        return self.folder(trial_id) / ATTEMPTS_FILE

    def attempts(self, trial_id: str) -> list[dict[str, Any]]:
        """The attempts at an unfinished trial, oldest first; a failed one has an `error`."""
        try:
            content = json.loads((self.folder(trial_id) / ATTEMPTS_FILE).read_text())
            attempts: list[dict[str, Any]] = content["attempts"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return []  # notes, which a trial can go on without
        return attempts

    def all_attempts(self, trial_id: str) -> list[dict[str, Any]]:
        """The attempts at a trial, finished or not, oldest first; raises as `trials` does."""
        rows = self.trials([trial_id]).to_pylist()
        if not rows:
            return self.attempts(trial_id)
        try:
            attempts: list[dict[str, Any]] = json.loads(rows[0]["provenance"])["attempts"]
        except (ValueError, KeyError, TypeError):
            return []
        return attempts


_LOCK, _TRACKING_LOCK = ".lock", ".tracking.lock"
_BEHIND = ".behind"
_TEMPORARY = ".part"


def _is_left_over(name: str) -> bool:
    return name == _LOCK or name.endswith(_TEMPORARY)


def stable_columns(table: pa.Table) -> pa.Table:
    """A table without the columns that may differ between two equal runs."""
    names = [item.name for item in table.schema if (item.metadata or {}).get(b"volatile") != b"true"]
    return table.select(names)


def _parquet(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{**row} for row in rows], schema=schema), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
        if b"crwn.version" not in (table.schema.metadata or {}):
            raise ValueError("it is a Parquet file, but none of crwn's")
        version = table.schema.metadata[b"crwn.version"].decode()
        major = int(version.split(".")[0])
        if major > STORE_VERSION[0]:
            raise UserError(f"{path}: expected version {STORE_VERSION[0]} or older, given {version}; upgrade crwn.")
        missing = [item for item in schema if item.name not in table.schema.names]
        for item in missing:  # an older record has fewer columns
            table = table.append_column(item, pa.nulls(len(table), item.type))
        return table.select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{path}: expected a record that can be read: {error}. Remove its folder to have the trial run again."
        ) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        newer = manifest["format"] > MANIFEST_FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected a sweep's manifest: {error!r}. Remove it; crwn run on the sweep writes it again."
        ) from error
    if newer:
        raise UserError(f"{path}: expected format {MANIFEST_FORMAT} or older, given a newer one; upgrade crwn.")
    return manifest


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _write_json(path: Path, value: Any) -> None:
    _write(path, _json_text(value).encode())


def _write(path: Path, content: bytes) -> None:
    """Write beside the place and move into it; on the disk before it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
