"""The results store: the single source of truth about what was computed.

Files are replaced atomically (`files.py`), so a reader never sees a partial file. Fields that may differ between two
equal runs are marked `volatile` in the Parquet schemas.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeAlias

from orchestrator.errors import StorageError, UserError
from orchestrator.store import accepted, trial_files
from orchestrator.store import mark as marks
from orchestrator.store.accepted import Accepted
from orchestrator.store.address import open_files
from orchestrator.store.attempts import Attempt
from orchestrator.store.files import Files, Mark
from orchestrator.store.finished import Records
from orchestrator.store.folder import LocalFiles
from orchestrator.store.locks import Claim, Holder, driving
from orchestrator.store.manifests import Manifest
from orchestrator.store.rows import Sample, TestRow
from orchestrator.store.schemas import (
    ACCEPTED_FILE,
    ATTEMPTS_FILE,
    CONTEXTS_FILE,
    INDEX_FOLDER,
    MARK_FILE,
    REPAIRS_FOLDER,
    REPORT_FOLDER,
    RESUME_FILE,
    SWEEPS_FOLDER,
    SYSTEM_FILE,
    TASKS_FILE,
    TRIAL_FILE,
    TRIALS_FOLDER,
    WORD_FILE,
    of_trial,
)
from orchestrator.store.unfinished import Unfinished, state_by

TrialState: TypeAlias = Literal["done", "running", "failed", "interrupted", "left"]

_BEHIND = ".behind"


class Store:
    """A store on a path or on object storage. Opening a store that does not exist yet writes nothing.

    It pickles as its address and its mark, so that another process, even on another machine, opens the same store.

    Args:
        address: the store's folder, or its URI such as s3://bucket/prefix; or its files, which cannot be pickled.
        mark: identifies the store to a run (`driven`); each write first checks that it is present.

    Attributes:
        records: the records of finished trials.
        unfinished: the files of unfinished trials.

    Raises:
        UserError: the address holds something other than a store, or a newer store, or cannot be reached.
    """

    def __init__(self, address: Path | str | Files, mark: Mark | None = None) -> None:
        files = open_files(address) if isinstance(address, (Path, str)) else address
        self._files = files if mark is None else files.marked(mark)
        self._mark = mark
        self.records = Records(self._files)
        self.unfinished = Unfinished(self._files)
        marks.check_folder(self._files)

    @classmethod
    def existing(cls, address: Path | str) -> Store:
        """The store at an address; raises like the class, and a UserError if there is none."""
        store = cls(address)
        if not store.exists:
            raise UserError("store-missing", f"{address}: expected a store, found none; crwn run creates one")
        return store

    def __reduce__(self) -> tuple[type[Store], tuple[str, Mark | None]]:
        return Store, (self.address, self._mark)

    @property
    def address(self) -> str:
        """The address that opens this store: its full path, or its URI."""
        return self._files.address

    @property
    def beside(self) -> Path:
        """The folder on this machine for what several stores share: MLflow's database and artifacts."""
        return self._files.beside

    @property
    def is_folder(self) -> bool:
        """Whether it is on a path, which other machines may not see, rather than on object storage."""
        return isinstance(self._files, LocalFiles)

    @property
    def root(self) -> Path:
        """The folder of a store on a path; raises a UserError if it is on object storage."""
        if not isinstance(self._files, LocalFiles):
            raise UserError(
                "not-on-a-path", f"{self.address}: expected a store on a path, given one on object storage."
            )
        return self._files.root

    @property
    def report(self) -> Files:
        """The files of the store's own tables."""
        return self._files.below(REPORT_FOLDER)

    @property
    def index(self) -> Files:
        """The files of the compacted index of trials."""
        return self._files.below(INDEX_FOLDER)

    @property
    def identity(self) -> str:
        """The identity of the store elsewhere, which survives moves; for version 1.0, its path."""
        return marks.read_mark(self._files.read(MARK_FILE))[1] or self.address

    @property
    def version(self) -> tuple[int, int]:
        """The version that created it."""
        return marks.read_mark(self._files.read(MARK_FILE))[0]

    @property
    def exists(self) -> bool:
        """Whether the store exists."""
        return self._files.exists(MARK_FILE)

    def create(self) -> None:
        """Create the store if it does not exist.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self._files.make()
            if not self.exists:
                self._files.write(MARK_FILE, marks.new_mark())
        except UserError:
            raise
        except OSError as error:
            raise UserError(
                "folder-not-writable",
                f"{self.address}: expected a writable folder: {error}. Name another with --out.",
            ) from error

    # Drivers

    def tracking_lock(self) -> Claim:
        """The claim held by the only process that shows this store in MLflow."""
        return self._files.claim("tracking")

    def lock(self) -> AbstractContextManager[list[Holder]]:
        """Be the only driver of this store for the duration of a `with` block; see `locks.driving`."""
        return driving(self._files.claim("run"), self.address)

    def drivers(self) -> list[Holder]:
        """The process that runs a sweep on this store, and those that ended without releasing it."""
        return self._files.claim("run").holders()

    def give_word(self) -> str:
        """Write a new nonce, by which processes elsewhere check whether they see this same store.

        Returns:
            The nonce, for `sees`.
        """
        word = uuid.uuid4().hex
        self._files.write(WORD_FILE, word.encode())
        return word

    def driven(self) -> Store:
        """This store for the run that drives it, which stops once the store is renamed, removed or taken over.

        Returns:
            The same store; each write, in any process, first checks that the run's nonce is still present, and raises
            LostError otherwise.
        """
        self.give_word()
        return self._known_by(WORD_FILE)

    def followed(self) -> Store:
        """This store for a process that shows it elsewhere: like `driven`, but runs may come and go."""
        return self._known_by(MARK_FILE)

    def _known_by(self, name: str) -> Store:
        return Store(self._files, Mark(name=name, content=self._files.read(name)))

    def check(self) -> None:
        """Check that a run's store is still present; see `Files.check`."""
        self._files.check()

    @property
    def mark(self) -> Mark | None:
        """The mark that identifies the store to a run, for the run's other processes; None outside a run."""
        return self._mark

    @property
    def word(self) -> str | None:
        """The run's nonce, for `sees`; None on object storage."""
        return self._mark.content.decode() if self._mark is not None and self.is_folder else None

    @property
    def is_driven(self) -> bool:
        """Whether a process is running a sweep on this store, as far as can be known."""
        return any(driver.is_live for driver in self.drivers())

    # Sweeps

    def write_manifest(self, manifest: Manifest) -> None:
        """Write a sweep's manifest under its name, unless it is unchanged; a changed one leaves MLflow behind."""
        name, content = f"{SWEEPS_FOLDER}/{manifest.name}.json", manifest.to_json_bytes()
        if next(iter(self._files.read_all([name]))) != content:
            self._files.write(name, content)
            self.mark_behind(manifest.name, behind=True)

    def manifests(self) -> list[Manifest]:
        """All sweeps' manifests, sorted by name.

        Raises:
            UserError: some are damaged or newer than this reader; the message has one line for each.
        """
        found, faults = [], []
        for name in self.manifest_names():
            try:
                found.append(self.manifest(name))
            except StorageError:  # the storage does not answer, or refuses
                raise
            except UserError as error:
                faults.append(error)
        if faults:
            raise UserError.of(faults, "\n".join(map(str, faults)))
        return found

    def manifest_names(self) -> list[str]:
        """The names of the sweeps that have a manifest here, readable or not."""
        names = self._files.names(SWEEPS_FOLDER)
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def manifest(self, name: str) -> Manifest:
        """One sweep's manifest.

        Raises:
            UserError: the manifest is missing, damaged or newer than this reader.
        """
        file = f"{SWEEPS_FOLDER}/{name}.json"
        place = self._files.locate(file)
        try:
            content = self._files.read(file)
        except UserError:
            raise
        except OSError as error:
            raise UserError("file-unreadable", f"{place}: expected a readable sweep manifest: {error}.") from error
        return Manifest.from_json(content, name=name, place=place)

    def mark_behind(self, name: str, *, behind: bool) -> None:
        """Record whether a sweep's runs in MLflow may be behind the store."""
        mark = f"{SWEEPS_FOLDER}/{name}{_BEHIND}"
        if not behind:
            self._files.remove(mark)
        elif not self._files.exists(mark):
            self._files.write(mark, b"")

    def is_behind(self, name: str) -> bool:
        """Whether a sweep's runs in MLflow may be behind the store."""
        return self._files.exists(f"{SWEEPS_FOLDER}/{name}{_BEHIND}")

    # Codes

    def accepted(self) -> Accepted:
        """The code accepted as equivalent in this store; raises like `accepted.read`."""
        return accepted.read(self._files)

    def write_accepted(self, said: Accepted) -> None:
        """Write the code accepted as equivalent. MLflow is then behind, since means may change."""
        self._files.write(ACCEPTED_FILE, said.to_json_bytes())
        for name in self.manifest_names():
            self.mark_behind(name, behind=True)

    # Trials

    def folder(self, trial_id: str) -> Path:
        """A trial's folder in a store on a path, which need not exist; raises like `root`."""
        return self.root / TRIALS_FOLDER / trial_id

    def locate(self, trial_id: str, file: str) -> str:
        """The full name of one of a trial's files, for display."""
        return self._files.locate(of_trial(trial_id, file))

    def read(self, trial_id: str, file: str) -> bytes | None:
        """The bytes of one of a trial's files; None if it does not exist."""
        return trial_files.read(self._files, trial_id, file)

    def is_finished(self, trial_id: str) -> bool:
        """Whether the trial's final record exists."""
        return trial_files.is_finished(self._files, trial_id)

    def finished(self, trial_ids: Iterable[str]) -> set[str]:
        """The finished ones among the given trials."""
        return trial_files.finished(self._files, trial_ids)

    def state(self, trial_id: str, *, driven: bool) -> TrialState:
        """The state of a trial.

        Args:
            trial_id: the trial.
            driven: whether a run is working on the store.

        Returns:
            `done`; `failed`: its last attempt ended in an error; `running`; `interrupted`: started and stopped, it will
            resume from its resume point; `left`: not started.
        """
        if self.is_finished(trial_id):
            return "done"
        return state_by(self.read(trial_id, ATTEMPTS_FILE), driven=driven)

    def states(self, trial_ids: Iterable[str], *, driven: bool) -> dict[str, TrialState]:
        """The states of trials, in the order given; see `state`."""
        wanted = list(trial_ids)
        finished = self.finished(wanted)
        others = self.unfinished.states([each for each in wanted if each not in finished], driven=driven)
        return {trial_id: others.get(trial_id, "done") for trial_id in wanted}

    def signature(self, trial_id: str) -> tuple[tuple[str, int, int], ...]:
        """A value that changes whenever one of the trial's files does."""
        return trial_files.signature(self._files, trial_id)

    def signatures(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """For every finished trial, a value that changes with its results: times and sizes of its records."""
        return trial_files.signatures(self._files)

    def trial_ids(self) -> list[str]:
        """The ids of all finished trials, sorted."""
        return trial_files.finished_ids(self._files)

    def trial_folders(self) -> list[str]:
        """The ids of all trials that have files, finished or not, sorted."""
        return sorted({name.split("/")[1] for name in self._files.walk(TRIALS_FOLDER) if name.count("/") > 1})

    def without_contexts(self, trial_ids: Iterable[str]) -> list[str]:
        """The given finished trials whose contexts are missing, found by listing only."""
        names = {of_trial(trial_id, CONTEXTS_FILE): trial_id for trial_id in trial_ids}
        there = self._files.existing(list(names))
        return [trial_id for name, trial_id in names.items() if name not in there]

    def repairs(self) -> Store:
        """A store inside this one, in which trials are recomputed before they replace others; it need not exist."""
        return Store(open_files(self.address).below(REPAIRS_FOLDER).address)

    def replace_record(self, trial_id: str, source: Store) -> None:
        """Move a finished trial's files from another store, replacing this store's.

        If interrupted at any moment, the other store still has all of them.
        """
        for file in (TASKS_FILE, SYSTEM_FILE, CONTEXTS_FILE, TRIAL_FILE):
            content = source.read(trial_id, file)
            assert content is not None, file
            self._files.write(of_trial(trial_id, file), content)
        self.clear_leftovers([trial_id])
        source.forget(trial_id)

    def forget(self, trial_id: str) -> None:
        """Remove all of a trial's files, its final record first."""
        for file in (TRIAL_FILE, RESUME_FILE, ATTEMPTS_FILE, CONTEXTS_FILE, SYSTEM_FILE, TASKS_FILE):
            self._files.remove(of_trial(trial_id, file))

    def clear_leftovers(self, trial_ids: Iterable[str]) -> None:
        """Remove from finished trials what only unfinished ones need, and files whose writer was killed."""
        trial_files.clear_leftovers(self._files, trial_ids)

    def so_far(self, trial_id: str) -> tuple[list[TestRow], list[Sample]]:
        """The `tasks` and `system` rows of one trial, finished or not; raises like `Records.trials`.

        A task in progress has its curve so far, and None for the results of a test.
        """
        return trial_files.read_tests(self._files, trial_id)

    def all_attempts(self, trial_id: str) -> tuple[Attempt, ...]:
        """The attempts at a trial, finished or not, oldest first; raises like `Records.trials`."""
        row = self.records.row(trial_id)
        return self.unfinished.attempts(trial_id) if row is None else row.provenance.attempts


def sees(address: str, word: str) -> bool:
    """Whether the folder at a path on this machine is the store in which a driver elsewhere wrote its nonce."""
    try:
        return LocalFiles(Path(address)).read(WORD_FILE) == word.encode()
    except OSError:
        return False
