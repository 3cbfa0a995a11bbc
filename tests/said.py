"""Printed lines, for tests that check the numbers and names in them: the wording is only in this file."""

from __future__ import annotations


def to_run(name: str, left: int, done: int = 0) -> str:
    """For a run or plan with pending trials."""
    return f"{name}: {left_of(left, done)}"


def left_of(left: int, done: int = 0) -> str:
    """The same without the sweep's name."""
    return f"{left} trials to run, {done} done"


def all_done(name: str, number: int) -> str:
    """For a run with nothing to do."""
    return f"{name}: {nothing_left(number)}"


def nothing_left(number: int) -> str:
    """The same without the sweep's name."""
    return f"all {number} trials are done; nothing to start"


def progress(done: int, asked: int, failed: int = 0, *, running: int = 0, waiting: int | None = None) -> str:
    """For a run; without `waiting`, the start of the line."""
    line = f"{done}/{asked} trials done, {running} running, {failed} failed"
    return line if waiting is None else f"{line}, {waiting} waiting"


def failed(trial: str, error: str) -> str:
    """For a failed trial: its label, and the error in one line."""
    return f"failed: {trial}: {error}"


def states(sweep: str, asked: int, done: int, left: int) -> str:
    """For a sweep without running or failed trials."""
    return f"{sweep}: {asked} trials: {done} done, {left} left"


def done_of(done: int, asked: int) -> str:
    """For a report's section on a sweep."""
    return f"{done} of {asked} trials done"


NOTHING_STARTED = "nothing was started"
"""For commands that start nothing, or find nothing to do."""

INTERRUPTED = "Interrupted. Everything up to the last resume point is kept; continue with:\n  "
"""Printed on Ctrl-C; followed by the command."""

DRIVEN = "a run is working on it"
"""The state of a store with an active run."""

DRIVEN_BY = "expected no other run on this store, but one is working on it"
"""Refuses a second run; followed by the driver, if known."""

TAKEN_BY_A_JOB = "expected no other job on this store"
"""Refuses a second job."""

ON_THE_CPU = "computes on the CPU"
"""For a trial with a GPU that torch cannot use."""

BEHIND = "mlflow: not up to date"
"""For a run after which MLflow is out of date."""

FOLDER_UNSEEN = "does not see the folder "
"""For machines without access to a store; followed by the folder."""

OTHER_CODE = "computed by different code"
"""For finished trials whose code has changed since."""


def of_other_code(number: int, method: str) -> str:
    """The same with a method's number of trials."""
    return f"{OTHER_CODE}: {trials_of(number, method)}"


def trials_of(number: int, method: str) -> str:
    """A part of it, if there are several methods or reasons."""
    return f"{number} trial{'' if number == 1 else 's'} of {method}"


def results_versions(then: int, now: int) -> str:
    """One of its reasons."""
    return f"results version {then}, now {now}"


ACCEPTED_NOTHING = "nothing to accept"
"""For `crwn accept` if all trials have the same code."""


def not_recomputed(number: int) -> str:
    """For a run whose `--recompute` failed for this many trials."""
    return f"{number} trials were not recomputed"


def differs(column: str, *values: str) -> str:
    """For trials that are not averaged, or are noted: a column, and its values with their seeds."""
    return f"{column} is {', '.join(values)}"


def noted(column: str, cells: int) -> str:
    """For the note below a table: a column in which seeds differ, and in how many cells."""
    return f"{column} in {cells}"


def several_results(seed: int) -> str:
    """For a cell with two results at a seed."""
    return f"several results at seed {seed}"


NO_COMMON_SEED = "with numbers at a common seed"
"""For a claim without evidence."""


def nearest(name: str) -> str:
    """For an unknown name."""
    return f"did you mean {name!r}?"


def waiting(what: str, seconds: int) -> str:
    """For a run that is silent for a while."""
    return f"waiting for {what}, {seconds} s so far"


def only_in(side: str, trial: str) -> str:
    """For the differences between two stores."""
    return f"only in {side} {trial}"


CUT_OFF = "an earlier run on this store was cut off"
"""For a run that resumes a killed one."""

AWAY, BACK = "retrying for up to 90 s", "the storage responds again"
"""For a run whose object storage is unavailable for a while."""

HERE_ALONE = "names a place on this machine"
"""For an MLflow address that a cluster's job cannot use."""

AS_IT_WAS = "as it was"
"""For a damaged trial that was recomputed with the same accuracy."""

SAMPLE_DEVIATION = "sample standard deviation"
"""In a table's caption."""
