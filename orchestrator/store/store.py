"""The results store: the only truth about what was computed.

    STORE/                               a folder on a path, or a prefix on object storage
      store.json                         what this folder is, and its version; with a sum
      sweeps/NAME.json                   a sweep's manifest: the trials it asks for, under its own names; with a sum
      sweeps/NAME.behind                 while what MLflow shows of the sweep may be behind
      trials/ID/attempts.json            while a trial is not finished: its attempts, the last one's error if it failed;
                                         with a sum
      trials/ID/resume.safetensors       while a trial is not finished: where it goes on
      trials/ID/tasks.parquet            one row for every test of a task; while a trial is not finished, up to its
                                         resume point
      trials/ID/system.parquet           one row for every sample of the system's use, likewise
      trials/ID/contexts.safetensors     every task's learned tensors
      trials/ID/trial.parquet            one row; written last: a trial is finished if and only if it is there
      report/                            tables; can be thrown away
      index/                             all finished trials in one file (`index.py`); likewise
      repairs/                           a store in which damaged trials are computed again, until they are whole
      leases/                            on object storage: who is working on the store
      .driver                            on a path: the last run's word, by which it knows the folder on any machine

A file is replaced atomically (`files.py`), so a reader never sees half of one. Fields that may differ
between two equal runs are marked `volatile` in the Parquet schemas.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import reprlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import pyarrow as pa

from orchestrator.errors import StorageError, UserError
from orchestrator.store import integrity, parquet_files
from orchestrator.store.address import open_files
from orchestrator.store.files import TEMPORARY, Files, Mark
from orchestrator.store.folder import LOCKS, LocalFiles
from orchestrator.store.integrity import Outcome
from orchestrator.store.json_fields import parse
from orchestrator.store.locks import Claim, Holder, OnOther, TakenError
from orchestrator.store.manifests import Manifest
from orchestrator.store.parquet_files import SEALED_SINCE, STORE_VERSION, STREAM_VERSION, VOLATILE, DamagedError, Sealed
from orchestrator.store.records import Attempt, Sample, TestRow, TrialRow, attempts_bytes, read_attempts


def _field(name: str, kind: pa.DataType, *, volatile: bool = False) -> pa.Field:
    return pa.field(name, kind, metadata=VOLATILE if volatile else None)


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
        _field("update", pa.int64()),
        _field("accuracy", pa.float64()),
        _field("accuracy_told", pa.float64()),
        _field("answered", pa.list_(pa.int64())),
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
        b"where learning a task can change another; the last row alone where all tasks are learned at once; with "
        b"`tests_ahead` besides each task after those before it, and every task after none; of a "
        b"stream every test after every `update` at which it was tested, and tasks_learned the segments seen whole",
    },
)

TRIALS_SCHEMA = pa.schema(
    [
        *_IDENTITY,
        _field("accuracy", pa.float64()),
        _field("accuracy_told", pa.float64()),
        _field("forgetting", pa.float64()),
        _field("backward_transfer", pa.float64()),
        _field("params_per_task", pa.float64()),
        _field("trained_per_task", pa.int64()),
        _field("stored_per_task", pa.int64()),
        _field("examples_kept", pa.int64()),
        _field("stored_memory", pa.int64()),
        _field("grouping", pa.string()),
        _field("independent", pa.bool_()),
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

_TESTS_SCHEMA = pa.schema(
    [TASKS_SCHEMA.field(name) for name in ("trial_id", "task", "tasks_learned", "update", "accuracy", "accuracy_told")]
)

MARK_FILE, WORD_FILE = "store.json", ".driver"
SWEEPS_FOLDER, TRIALS_FOLDER, REPORT_FOLDER, INDEX_FOLDER = "sweeps", "trials", "report", "index"
REPAIRS_FOLDER = "repairs"
TRIAL_FILE, TASKS_FILE, SYSTEM_FILE = "trial.parquet", "tasks.parquet", "system.parquet"
CONTEXTS_FILE = "contexts.safetensors"
RESUME_FILE = "resume.safetensors"
ATTEMPTS_FILE = "attempts.json"


Row = TypeVar("Row", TestRow, Sample)

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

    trial: TrialRow
    tasks: Sequence[TestRow]
    system: Sequence[Sample]
    contexts: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What is read of a finished trial to make tables from.

    Attributes:
        trial: its `trials` row, a table.
        is_sealed: whether its records have sums, which were checked; those of versions before 1.2 have none.
        is_stream: whether its tests are by update, not by task.
        outcome: what its tests say.
    """

    trial: pa.Table
    is_sealed: bool
    is_stream: bool
    outcome: Outcome


class Store:
    """A store on a path or on object storage. Opening one that does not exist yet writes nothing.

    It pickles as its address and its mark, so that another process, on another machine too, opens the same one.

    Args:
        address: the store's folder, or its URI such as s3://bucket/prefix; or its files, which do not pickle.
        mark: what a run knows it by (`driven`); each write first sees that it is there.

    Raises:
        UserError: what is there is something else than a store, or a newer one, or cannot be reached.
    """

    def __init__(self, address: Path | str | Files, mark: Mark | None = None) -> None:
        files = open_files(address) if isinstance(address, (Path, str)) else address
        self._files = files if mark is None else files.marked(mark)
        self._mark = mark
        self._check()

    def __reduce__(self) -> tuple[type[Store], tuple[str, Mark | None]]:
        return Store, (self.address, self._mark)

    def _check(self) -> None:
        try:
            kind = self._files.kind()
        except UserError:
            raise
        except OSError as error:  # one that may not be looked into, or a name that is too long for any
            raise UserError(
                f"{self.address}: expected a store's folder, which cannot be looked up: {error}."
            ) from error
        if kind == "absent":
            return
        if kind == "file":
            raise UserError(f"{self.address}: expected a store's folder, such as runs/quickstart, given a file.")
        try:
            if not self.exists:
                # An empty folder becomes a store, and one in which making a store was cut off.
                if not all(_is_left_over(name) for name in self._files.names("")):
                    raise UserError(
                        f"{self.address}: expected a store or an empty folder; it holds other files and no store.json. "
                        "Nothing there is touched."
                    )
                return
            version, _ = _read_mark(self._files.read(MARK_FILE))
        except UserError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            mark = self._files.locate(MARK_FILE)
            raise UserError(
                f"{mark}: expected a store's mark that can be read: {error}. Put back a copy of it; all else in the "
                "store is whole."
            ) from error
        if version[0] > STORE_VERSION[0]:
            raise UserError(
                f"{self.address}: expected a store of version {STORE_VERSION[0]} or older, given version {version[0]}. "
                "It was written by a newer crwn: upgrade crwn."
            )

    @property
    def address(self) -> str:
        """What opens this store: its full path, or its URI."""
        return self._files.address

    @property
    def beside(self) -> Path:
        """The folder on this machine for what several stores share: MLflow's database, its artifacts."""
        return self._files.beside

    @property
    def is_folder(self) -> bool:
        """Whether it is on a path, which other machines may not see, and not on object storage."""
        return isinstance(self._files, LocalFiles)

    @property
    def root(self) -> Path:
        """The folder of a store on a path.

        Raises:
            UserError: it is on object storage.
        """
        if not isinstance(self._files, LocalFiles):
            raise UserError(f"{self.address}: expected a store on a path, given one on object storage.")
        return self._files.root

    @property
    def report(self) -> Files:
        """Where the store's own tables are."""
        return self._files.below(REPORT_FOLDER)

    @property
    def index(self) -> Files:
        """Where the compacted index of the trials is."""
        return self._files.below(INDEX_FOLDER)

    @property
    def identity(self) -> str:
        """What the store is known by elsewhere, wherever it is moved; its path for one of version 1.0."""
        return _read_mark(self._files.read(MARK_FILE))[1] or self.address

    @property
    def version(self) -> tuple[int, int]:
        """By which version it was made."""
        return _read_mark(self._files.read(MARK_FILE))[0]

    @property
    def exists(self) -> bool:
        """Whether the folder is a store already."""
        return self._files.exists(MARK_FILE)

    def create(self) -> None:
        """Make the folder a store if it is none yet.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self._files.make()
            if not self.exists:
                self._files.write(MARK_FILE, _json_bytes(_new_mark()))
        except UserError:
            raise
        except OSError as error:
            raise UserError(
                f"{self.address}: expected a folder that can be written: {error}. Name another with --out."
            ) from error

    # Who works on it

    def tracking_lock(self) -> Claim:
        """Held by the one process that shows this store in MLflow."""
        return self._files.claim("tracking")

    @contextlib.contextmanager
    def lock(self, on_other: OnOther | None = None) -> Iterator[list[Holder]]:
        """Be the one driver of this store for the length of a `with` block.

        Object storage has no locks: there a lease says who drives the store, and another one is no obstacle.

        Args:
            on_other: called once with each driver that is found, also later, then from a thread.

        Returns:
            On object storage the drivers found so far: at work, or ended without giving their lease back.

        Raises:
            UserError: another process is the driver.
        """
        found: list[Holder] = []

        def tell(holder: Holder) -> None:
            found.append(holder)
            if on_other is not None:
                on_other(holder)

        claim = self._files.claim("run")
        try:
            claim.acquire(
                timeout=1.0, despite_lease=True, on_other=tell
            )  # `drivers` of another process holds a lock for an instant
        except TakenError as error:
            raise UserError(
                f"{self.address}: expected no other run on this store, but one is working on it. "
                "Wait for it (crwn status shows it), stop it, or name another store with --out."
            ) from error
        try:
            yield found
        finally:
            claim.release()

    def drivers(self) -> list[Holder]:
        """The processes that run a sweep on this store, or ended without saying so; one at most on a path."""
        return self._files.claim("run").holders()

    def give_word(self) -> str | None:
        """Leave a new word in the folder, by which processes elsewhere find out whether they see this very one.

        Returns:
            The word, for `sees`; None on object storage, which all machines see.
        """
        if not self.is_folder:
            return None
        word = uuid.uuid4().hex
        self._files.write(WORD_FILE, word.encode())
        return word

    def driven(self) -> Store:
        """This store for the run that drives it, which stops once the folder is renamed, removed or another's.

        On a path the run leaves its word there; an object storage's prefix is known by the store's own mark.

        Returns:
            The same store; each write first sees that it is there, and raises LostError where it is not.
        """
        return self._known_by(MARK_FILE if self.give_word() is None else WORD_FILE)

    def followed(self) -> Store:
        """This store for a process that shows it elsewhere: the same, but runs may come and go."""
        return self._known_by(MARK_FILE)

    def _known_by(self, name: str) -> Store:
        return Store(self._files, Mark(name=name, content=self._files.read(name)))

    def check(self) -> None:
        """See that a run's store is still there; see `Files.check`."""
        self._files.check()

    @property
    def mark(self) -> Mark | None:
        """What a run knows its store by, for other processes of the run; None for all others."""
        return self._mark

    @property
    def word(self) -> str | None:
        """The run's word, for `sees`; None on object storage."""
        return self._mark.content.decode() if self._mark is not None and self.is_folder else None

    @property
    def is_driven(self) -> bool:
        """Whether some process is running a sweep on this store, as far as can be known."""
        return any(driver.is_live for driver in self.drivers())

    # Sweeps

    def write_manifest(self, manifest: Manifest) -> None:
        """Keep a sweep's manifest under its name; an equal one is left as it is. MLflow is behind a changed one."""
        name, content = f"{SWEEPS_FOLDER}/{manifest.name}.json", manifest.to_json_bytes()
        if self._read(name) != content:
            self._files.write(name, content)
            self.mark_behind(manifest.name, behind=True)

    def manifests(self) -> list[Manifest]:
        """All sweeps' manifests, by name.

        Raises:
            UserError: some are damaged or newer than this reader; a line for each.
        """
        found, faults = [], []
        for name in self.manifest_names():
            try:
                found.append(self.manifest(name))
            except StorageError:  # it does not answer, or will not give it
                raise
            except UserError as error:
                faults.append(str(error))
        if faults:
            raise UserError("\n".join(faults))
        return found

    def manifest_names(self) -> list[str]:
        """The sweeps that have a manifest here, whether or not it can be read."""
        names = self._files.names(SWEEPS_FOLDER)
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def manifest(self, name: str) -> Manifest:
        """One sweep's manifest.

        Raises:
            UserError: it is missing, damaged or newer than this reader.
        """
        file = f"{SWEEPS_FOLDER}/{name}.json"
        place = self._files.locate(file)
        try:
            content = self._files.read(file)
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{place}: expected a sweep's manifest that can be read: {error}.") from error
        return Manifest.from_json(content, name=name, place=place)

    def mark_behind(self, name: str, *, behind: bool) -> None:
        """Note whether a sweep's runs in MLflow may be behind what is here."""
        mark = f"{SWEEPS_FOLDER}/{name}{_BEHIND}"
        if not behind:
            self._files.remove(mark)
        elif not self._files.exists(mark):
            self._files.write(mark, b"")

    def is_behind(self, name: str) -> bool:
        """Whether a sweep's runs in MLflow may be behind what is here."""
        return self._files.exists(f"{SWEEPS_FOLDER}/{name}{_BEHIND}")

    # Trials

    def folder(self, trial_id: str) -> Path:
        """A trial's folder in a store on a path, which need not exist; raises as `root` does."""
        return self.root / TRIALS_FOLDER / trial_id

    def locate(self, trial_id: str, file: str) -> str:
        """The full name of one of a trial's files, to be shown."""
        return self._files.locate(_of_trial(trial_id, file))

    def read(self, trial_id: str, file: str) -> bytes | None:
        """The bytes of one of a trial's files; None where it is not there."""
        return self._read(_of_trial(trial_id, file))

    def is_finished(self, trial_id: str) -> bool:
        """Whether the trial's final record is there."""
        return self._files.exists(_of_trial(trial_id, TRIAL_FILE))

    def finished(self, trial_ids: Iterable[str]) -> set[str]:
        """Those that are finished."""
        names = {_of_trial(trial_id, TRIAL_FILE): trial_id for trial_id in trial_ids}
        return {names[name] for name in self._files.existing(list(names))}

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
        return _unfinished_state(self.read(trial_id, ATTEMPTS_FILE), driven=driven)

    def states(self, trial_ids: Iterable[str], *, driven: bool) -> dict[str, TrialState]:
        """Where trials stand, see `state`; in the order given."""
        wanted = list(trial_ids)
        finished = self.finished(wanted)
        others = [trial_id for trial_id in wanted if trial_id not in finished]
        contents = self._files.read_all([_of_trial(trial_id, ATTEMPTS_FILE) for trial_id in others])
        states: dict[str, TrialState] = dict.fromkeys(wanted, "done")
        for trial_id, content in zip(others, contents, strict=True):
            states[trial_id] = _unfinished_state(content, driven=driven)
        return states

    def errors(self, trial_ids: Iterable[str]) -> dict[str, str]:
        """How the last attempt at unfinished trials failed, by trial, in a line; the others are left out."""
        wanted = list(trial_ids)
        contents = self._files.read_all([_of_trial(trial_id, ATTEMPTS_FILE) for trial_id in wanted])
        errors = {}
        for trial_id, content in zip(wanted, contents, strict=True):
            attempts = _attempts(content)
            if attempts and attempts[-1].error is not None:
                errors[trial_id] = attempts[-1].error.line
        return errors

    def signature(self, trial_id: str) -> tuple[tuple[str, int, int], ...]:
        """Something that changes whenever one of the trial's files does."""
        found = []
        for file in (TRIAL_FILE, ATTEMPTS_FILE, TASKS_FILE):
            written = self._files.signature(_of_trial(trial_id, file))
            if written is not None:
                found.append((file, *written))
        return tuple(found)

    def signatures(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Of every finished trial something that changes with its results: when its records were written, how long."""
        finished: set[str] = set()
        found: dict[str, list[tuple[int, int]]] = {}
        for name, signature in self._files.signatures(TRIALS_FOLDER, (TRIAL_FILE, TASKS_FILE)).items():
            found.setdefault(name.split("/")[1], []).append(signature)
            if name.endswith(TRIAL_FILE):
                finished.add(name.split("/")[1])
        return {trial_id: tuple(found[trial_id]) for trial_id in sorted(finished)}

    def trial_ids(self) -> list[str]:
        """All trials that were finished, in order."""
        paths = [name.split("/") for name in self._files.walk(TRIALS_FOLDER)]
        return [path[1] for path in paths if len(path) == _TRIAL_DEPTH and path[-1] == TRIAL_FILE]

    def trial_folders(self) -> list[str]:
        """All trials of which something is there, finished or not, in order."""
        return sorted({name.split("/")[1] for name in self._files.walk(TRIALS_FOLDER) if name.count("/") > 1})

    def contexts(self, trial_id: str) -> bytes:
        """The contexts of a finished trial, seen to be those that its record was made with.

        Raises:
            UserError: they are missing or others, or the trial's record is damaged.
        """
        trial, _ = self._trial(trial_id, self.read(trial_id, TRIAL_FILE))
        content = self.read(trial_id, CONTEXTS_FILE)
        with _refused(self.locate(trial_id, CONTEXTS_FILE)):
            if content is None:
                raise DamagedError("it is missing")
            integrity.check_contexts(trial, content)
        return content

    def check_whole(self, trial_id: str) -> None:
        """See that a finished trial's record, tests and contexts are its own and belong together.

        Raises:
            UserError: they are not.
        """
        (result,) = self.results([trial_id])
        if isinstance(result, UserError):
            raise result
        self.contexts(trial_id)

    def without_contexts(self, trial_ids: Iterable[str]) -> list[str]:
        """Those of finished trials whose contexts are gone, by a listing alone."""
        names = {_of_trial(trial_id, CONTEXTS_FILE): trial_id for trial_id in trial_ids}
        there = self._files.existing(list(names))
        return [trial_id for name, trial_id in names.items() if name not in there]

    def is_sealed(self, trial_id: str) -> bool:
        """Whether a finished trial's record has sums; those of versions before 1.2 have none. Raises as `trials`."""
        return self._trial(trial_id, self.read(trial_id, TRIAL_FILE))[0].is_sealed

    def repairs(self) -> Store:
        """A store in this one, where trials whose records are damaged are computed again; it need not exist."""
        return Store(f"{self.address}/{REPAIRS_FOLDER}")

    def replace_record(self, trial_id: str, source: Store) -> None:
        """Take a finished trial's files from another store in place of this one's; there they are removed.

        Cut off at any moment, the other store still has all of it.
        """
        for file in (TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE, TRIAL_FILE):
            content = source.read(trial_id, file)
            assert content is not None, file
            self._files.write(_of_trial(trial_id, file), content)
        self.clear_leftovers([trial_id])
        source.forget(trial_id)

    def forget(self, trial_id: str) -> None:
        """Remove all of a trial's files, its final record first."""
        for file in (TRIAL_FILE, RESUME_FILE, ATTEMPTS_FILE, CONTEXTS_FILE, SYSTEM_FILE, TASKS_FILE):
            self._files.remove(_of_trial(trial_id, file))

    def write_record(self, trial_id: str, record: TrialRecord) -> None:
        """Keep a finished trial; its resume point and attempts are removed once all is written."""
        tasks = self._write_tests(trial_id, record.tasks, record.system)
        self._files.write(_of_trial(trial_id, CONTEXTS_FILE), record.contexts)
        # A second driver on object storage may write `tasks` again, with other times: that makes no record another.
        sums = {
            integrity.TASKS_SUM: parquet_files.stable_sum(tasks),
            integrity.CONTEXTS_SUM: hashlib.sha256(record.contexts).hexdigest(),
        }
        trial = parquet_files.from_rows([record.trial.columns()], TRIALS_SCHEMA)
        said = {**sums, **_version_of(record.tasks)}
        self._files.write(_of_trial(trial_id, TRIAL_FILE), parquet_files.dump(trial, said))
        self.clear_leftovers([trial_id])

    def clear_leftovers(self, trial_ids: Iterable[str]) -> None:
        """Remove what only unfinished trials need, and files whose writer was killed, from finished ones."""
        folders = {f"{TRIALS_FOLDER}/{trial_id}" for trial_id in trial_ids}
        for name in self._files.walk(min(folders) if len(folders) == 1 else TRIALS_FOLDER):
            folder, _, file = name.rpartition("/")
            if folder in folders and (file in (RESUME_FILE, ATTEMPTS_FILE) or file.endswith(TEMPORARY)):
                self._files.remove(name)

    def trials(self, trial_ids: Iterable[str]) -> pa.Table:
        """The `trials` rows of those that are finished, each seen to be its own.

        Raises:
            UserError: a record is damaged, of another trial, or newer than this reader.
        """
        found = [self._trial(trial_id, content)[0].table for trial_id, content in self._finished(trial_ids, TRIAL_FILE)]
        return pa.concat_tables([TRIALS_SCHEMA.empty_table(), *found])

    def row(self, trial_id: str) -> TrialRow | None:
        """The `trials` row of one trial; None where it is not finished; raises as `trials` does."""
        return self.rows([trial_id]).get(trial_id)

    def rows(self, trial_ids: Iterable[str]) -> dict[str, TrialRow]:
        """The `trials` rows of those that are finished, by trial; raises as `trials` does."""
        return {
            trial_id: self._trial(trial_id, content)[1] for trial_id, content in self._finished(trial_ids, TRIAL_FILE)
        }

    def tasks(self, trial_ids: Iterable[str]) -> pa.Table:
        """The `tasks` rows of those that are finished; raises as `trials` does."""
        found = [
            self._own(trial_id, TASKS_FILE, TASKS_SCHEMA, content)
            for trial_id, content in self._finished(trial_ids, TASKS_FILE)
        ]
        return pa.concat_tables([TASKS_SCHEMA.empty_table(), *found])

    def _finished(self, trial_ids: Iterable[str], file: str) -> Iterator[tuple[str, bytes | None]]:
        """Of those that are finished one file's content."""
        wanted = list(trial_ids)
        finished = self.finished(wanted)
        wanted = [trial_id for trial_id in wanted if trial_id in finished]
        return zip(wanted, self._files.read_all([_of_trial(trial_id, file) for trial_id in wanted]), strict=True)

    def results(self, trial_ids: Sequence[str]) -> Iterator[Result | UserError]:
        """Of each of these finished trials its row and what its tests say, seen to be its own and to belong together.

        Args:
            trial_ids: the trials.

        Returns:
            In their order; a `UserError` in place of one whose records are damaged, missing, exchanged or newer.
        """
        places = [_of_trial(trial_id, file) for trial_id in trial_ids for file in (TRIAL_FILE, TASKS_FILE)]
        contents = self._files.read_all(places)
        for trial_id in trial_ids:
            trial, tasks = next(contents), next(contents)  # what the storage refuses is no fault of the trial's
            try:
                yield self._result(trial_id, trial, tasks)
            except UserError as error:
                yield error

    def _result(self, trial_id: str, trial_content: bytes | None, tasks_content: bytes | None) -> Result:
        trial, row = self._trial(trial_id, trial_content)
        place = self.locate(trial_id, TASKS_FILE)
        tasks = parquet_files.load(tasks_content, _TESTS_SCHEMA, place)
        with _refused(place):
            tests = integrity.check_tests(tasks.table, trial_id)
            integrity.check_same_tests(trial, tasks)
            found = integrity.outcome(tests, independent=row.is_independent)
        with _refused(self.locate(trial_id, TRIAL_FILE)):
            integrity.check_mean(row.accuracy, found.final)
            integrity.check_mean(row.accuracy_told, found.told, "accuracy_told")
        is_stream = tests.update is not None
        return Result(trial=trial.table, is_sealed=trial.is_sealed, is_stream=is_stream, outcome=found)

    def _trial(self, trial_id: str, content: bytes | None) -> tuple[Sealed, TrialRow]:
        """A trial's record, seen to be its own."""
        place = self.locate(trial_id, TRIAL_FILE)
        sealed = parquet_files.load(content, TRIALS_SCHEMA, place)
        with _refused(place):
            return sealed, integrity.check_trial(sealed.table, trial_id)

    def so_far(self, trial_id: str) -> tuple[list[TestRow], list[Sample]]:
        """The `tasks` and the `system` rows of one trial, finished or not; raises as `trials` does.

        A task that is being learned has its curve so far, and None for what a test would say.
        """
        tests = self._rows(TestRow, trial_id, TASKS_FILE, TASKS_SCHEMA)
        return tests, self._rows(Sample, trial_id, SYSTEM_FILE, SYSTEM_SCHEMA)

    def _rows(self, kind: type[Row], trial_id: str, file: str, schema: pa.Schema) -> list[Row]:
        content = self.read(trial_id, file)
        if content is None:
            return []
        table = self._own(trial_id, file, schema, content)
        with _refused(self.locate(trial_id, file)):
            return [kind.read(row) for row in table.to_pylist()]

    def _own(self, trial_id: str, file: str, schema: pa.Schema, content: bytes | None) -> pa.Table:
        """A record's rows, all of this trial."""
        place = self.locate(trial_id, file)
        table = parquet_files.load(content, schema, place).table
        with _refused(place):
            integrity.check_owner(table, trial_id)
        return table

    # What an unfinished trial leaves

    def write_resume(self, trial_id: str, content: bytes, tasks: Sequence[TestRow], system: Sequence[Sample]) -> bool:
        """Keep where a trial goes on, instead of an earlier point, and the rows up to there.

        Returns:
            Whether that was done; a trial that another run has finished meanwhile, where no lock kept it away, stays
            as it is.
        """
        if self.is_finished(trial_id):
            return False
        self._files.write(_of_trial(trial_id, RESUME_FILE), content)
        self._write_tests(trial_id, tasks, system)  # afterwards: no row that the trial would compute once more
        if self.is_finished(trial_id):  # while these were written, and its rows may be these: it is this run's again
            self._files.remove(_of_trial(trial_id, TRIAL_FILE))
        return True

    def _write_tests(self, trial_id: str, tasks: Sequence[TestRow], system: Sequence[Sample]) -> pa.Table:
        table = parquet_files.from_rows((row.columns() for row in tasks), TASKS_SCHEMA)
        self._files.write(_of_trial(trial_id, TASKS_FILE), parquet_files.dump(table, _version_of(tasks)))
        samples = parquet_files.from_rows((sample.columns() for sample in system), SYSTEM_SCHEMA)
        self._files.write(_of_trial(trial_id, SYSTEM_FILE), parquet_files.dump(samples))
        return table

    def read_resume(self, trial_id: str) -> bytes | None:
        """Where a trial goes on, if it was begun."""
        return self.read(trial_id, RESUME_FILE)

    def discard_resume(self, trial_id: str) -> None:
        """Remove a resume point that cannot be used, and the rows up to there, unless the trial is finished by now."""
        if self.is_finished(trial_id):
            return
        for file in (TASKS_FILE, SYSTEM_FILE, RESUME_FILE):  # the point last: whoever finds it discards the rest too
            self._files.remove(_of_trial(trial_id, file))

    def write_attempts(self, trial_id: str, attempts: Sequence[Attempt]) -> None:
        """Keep what is known of a trial's attempts so far."""
        self._files.write(_of_trial(trial_id, ATTEMPTS_FILE), attempts_bytes(attempts))

    def attempts(self, trial_id: str) -> tuple[Attempt, ...]:
        """The attempts at an unfinished trial, oldest first."""
        return _attempts(self.read(trial_id, ATTEMPTS_FILE))

    def attempts_fault(self, trial_id: str) -> str | None:
        """What is wrong with the notes of an unfinished trial's attempts, in a line; None where nothing is."""
        content = self.read(trial_id, ATTEMPTS_FILE)
        error = None if content is None else _notes_fault(content)
        if error is None:
            return None
        place = self.locate(trial_id, ATTEMPTS_FILE)
        return f"{place}: expected notes of attempts that can be read: {error}. The next run goes on without them."

    def all_attempts(self, trial_id: str) -> tuple[Attempt, ...]:
        """The attempts at a trial, finished or not, oldest first; raises as `trials` does."""
        row = self.row(trial_id)
        return self.attempts(trial_id) if row is None else row.provenance.attempts

    def _read(self, name: str) -> bytes | None:
        try:
            return self._files.read(name)
        except FileNotFoundError:
            return None


def sees(address: str, word: str) -> bool:
    """Whether the folder at a path on this machine is the store in which a driver elsewhere has left its word."""
    try:
        return LocalFiles(Path(address)).read(WORD_FILE) == word.encode()
    except OSError:
        return False


def _version_of(tests: Sequence[TestRow]) -> dict[str, str]:
    """The version of a trial's records, where it is another than the schema's."""
    is_stream = any(test.update is not None for test in tests)
    return {"version": "{}.{}".format(*STREAM_VERSION)} if is_stream else {}


_BEHIND = ".behind"
_TRIAL_DEPTH = 3
"""Parts of the name of a trial's file."""


def _of_trial(trial_id: str, file: str) -> str:
    return f"{TRIALS_FOLDER}/{trial_id}/{file}"


@contextlib.contextmanager
def _refused(place: str) -> Iterator[None]:
    """Makes of what is wrong with the record at a place an error that names it."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise parquet_files.refusal(place, error) from error


def _is_left_over(name: str) -> bool:
    return name == LOCKS["run"] or name.endswith(TEMPORARY)


def _attempts(content: bytes | None) -> tuple[Attempt, ...]:
    """What an attempts file says; nothing where it is absent or damaged: notes, which a trial can go on without."""
    return () if content is None or _notes_fault(content) is not None else read_attempts(content)


def _notes_fault(content: bytes) -> Exception | None:
    """What is wrong with an attempts file's content; None where it can be read."""
    try:
        read_attempts(content)
    except (ValueError, RecursionError) as error:
        return error
    return None


def _unfinished_state(notes: bytes | None, *, driven: bool) -> TrialState:
    """Where an unfinished trial stands by its attempts file: with damaged notes it was begun, more is not known."""
    attempts = _attempts(notes)
    if attempts and attempts[-1].error is not None:
        return "failed"
    is_begun = attempts or (notes is not None and _notes_fault(notes) is not None)
    if not is_begun:
        return "left"
    return "running" if driven else "interrupted"


def _new_mark() -> dict[str, Any]:
    """What a new store says of itself: its id ends in a checksum over all of it."""
    mark = {"format": "crwn-store", "version": list(STORE_VERSION)}
    token = uuid.uuid4().hex[:24]
    return {**mark, "id": f"{token}-{_mark_sum(STORE_VERSION, token)}"}


def _mark_sum(version: tuple[int, int], token: str) -> str:
    return hashlib.sha256(f"crwn-store {version[0]}.{version[1]} {token}".encode()).hexdigest()[:8]


def _read_mark(content: bytes) -> tuple[tuple[int, int], str | None]:
    """The version and the id in a store's mark; a store of version 1.0 has no id, and none before 1.2 a checksum.

    Raises:
        ValueError, RecursionError: it is damaged.
    """
    said = parse(content)
    if not isinstance(said, dict):
        raise ValueError("expected an object")
    version, id_ = said.get("version"), said.get("id")
    if not isinstance(version, list) or len(version) < _MARK_NUMBERS or not all(type(part) is int for part in version):
        raise ValueError(f"version: expected two whole numbers, given {reprlib.repr(version)}")
    if id_ is not None and not (isinstance(id_, str) and id_.isprintable()):
        raise ValueError(f"expected an id in text, given {reprlib.repr(id_)}")
    token, dash, checksum = (id_ or "").partition("-")
    if dash and (checksum != _mark_sum((version[0], version[1]), token) or said.get("format") != "crwn-store"):
        raise ValueError("its version, format or id is not what was written, by the id's checksum")
    is_older = id_ is None or (version[0], version[1]) < SEALED_SINCE
    if not dash and (not is_older or len(id_ or "") > _OLDER_ID or set(said) - {"format", "version", "id"}):
        raise ValueError(f"expected format, version and an id with its checksum, given {reprlib.repr(said)}")
    return (version[0], version[1]), id_


_MARK_NUMBERS, _OLDER_ID = 2, 32


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
