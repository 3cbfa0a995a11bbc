"""The files of unfinished trials: the resume point, the rows up to there, and the attempts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from crwn.faults import Fault, codes_of
from orchestrator.store import trial_files
from orchestrator.store.attempts import Attempt, AttemptError, attempts_bytes, read_attempts
from orchestrator.store.files import Files
from orchestrator.store.rows import Sample, TestRow
from orchestrator.store.schemas import ATTEMPTS_FILE, RESUME_FILE, SYSTEM_FILE, TASKS_FILE, TRIAL_FILE, of_trial


class Unfinished:
    """What a store keeps of trials until they are finished.

    Args:
        files: the store's files.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def write_resume(self, trial_id: str, content: bytes, tasks: Sequence[TestRow], system: Sequence[Sample]) -> bool:
        """Write a trial's resume point, replacing an earlier one, and the rows up to there.

        Returns:
            Whether it was written; a trial that another run, which took over, has finished meanwhile is left unchanged.
        """
        if trial_files.is_finished(self._files, trial_id):
            return False
        self._files.write(of_trial(trial_id, RESUME_FILE), content)
        # after the resume point, so that no row is ahead of it and computed again
        trial_files.write_tests(self._files, trial_id, tasks, system)
        if trial_files.is_finished(self._files, trial_id):
            # finished by another run meanwhile, whose rows these may have replaced: this run takes the trial back
            self._files.remove(of_trial(trial_id, TRIAL_FILE))
        return True

    def read_resume(self, trial_id: str) -> bytes | None:
        """A trial's resume point; None if there is none."""
        return trial_files.read(self._files, trial_id, RESUME_FILE)

    def discard_resume(self, trial_id: str) -> None:
        """Remove an unusable resume point, and the rows up to there, unless the trial is finished by now."""
        if trial_files.is_finished(self._files, trial_id):
            return
        for file in (TASKS_FILE, SYSTEM_FILE, RESUME_FILE):  # the point last: who finds it discards the rest too
            self._files.remove(of_trial(trial_id, file))

    def write_attempts(self, trial_id: str, attempts: Sequence[Attempt]) -> None:
        """Write a trial's attempts so far."""
        self._files.write(of_trial(trial_id, ATTEMPTS_FILE), attempts_bytes(attempts))

    def attempts(self, trial_id: str) -> tuple[Attempt, ...]:
        """The attempts at an unfinished trial, oldest first; empty if their file is damaged."""
        return attempts_of(trial_files.read(self._files, trial_id, ATTEMPTS_FILE))

    def attempts_fault(self, trial_id: str) -> Fault | None:
        """What is wrong with an unfinished trial's attempts file, in one line; None if nothing is."""
        content = trial_files.read(self._files, trial_id, ATTEMPTS_FILE)
        error = None if content is None else _notes_fault(content)
        if error is None:
            return None
        place = self._files.locate(of_trial(trial_id, ATTEMPTS_FILE))
        message = f"{place}: expected a readable attempts file: {error}. The next run continues without it."
        return Fault(codes_of(error, "notes-unreadable"), message)

    def errors(self, trial_ids: Iterable[str]) -> dict[str, str]:
        """The errors of unfinished trials whose last attempt failed, by trial, in one line each."""
        return {trial_id: error.line for trial_id, error in self._last_errors(trial_ids)}

    def tracebacks(self, trial_ids: Iterable[str]) -> dict[str, str]:
        """The tracebacks of these errors as Python prints them, by trial; without those of processes that died."""
        return {trial_id: error.traceback for trial_id, error in self._last_errors(trial_ids) if error.traceback}

    def _last_errors(self, trial_ids: Iterable[str]) -> Iterator[tuple[str, AttemptError]]:
        wanted = list(trial_ids)
        contents = self._files.read_all([of_trial(trial_id, ATTEMPTS_FILE) for trial_id in wanted])
        for trial_id, content in zip(wanted, contents, strict=True):
            attempts = attempts_of(content)
            if attempts and attempts[-1].error is not None:
                yield trial_id, attempts[-1].error

    def states(self, trial_ids: Sequence[str], *, driven: bool) -> dict[str, UnfinishedState]:
        """The states of unfinished trials by their attempts, in the order given; see `Store.state`."""
        contents = self._files.read_all([of_trial(trial_id, ATTEMPTS_FILE) for trial_id in trial_ids])
        return {
            trial_id: state_by(content, driven=driven) for trial_id, content in zip(trial_ids, contents, strict=True)
        }


UnfinishedState = Literal["running", "failed", "interrupted", "left"]


def state_by(notes: bytes | None, *, driven: bool) -> UnfinishedState:
    """The state of an unfinished trial by its attempts file; if that is damaged, only that it was started is known."""
    attempts = attempts_of(notes)
    if attempts and attempts[-1].error is not None:
        return "failed"
    is_begun = attempts or (notes is not None and _notes_fault(notes) is not None)
    if not is_begun:
        return "left"
    return "running" if driven else "interrupted"


def attempts_of(content: bytes | None) -> tuple[Attempt, ...]:
    """The attempts in an attempts file; empty if it is missing or damaged, since a trial can resume without them."""
    return () if content is None or _notes_fault(content) is not None else read_attempts(content)


def _notes_fault(content: bytes) -> Exception | None:
    """What is wrong with an attempts file's content; None if it can be read."""
    try:
        read_attempts(content)
    except (ValueError, RecursionError) as error:
        return error
    return None
