"""What commands print, for tests that ask for the numbers and names in it: the words are in this file alone."""

from __future__ import annotations


def to_run(name: str, left: int, done: int = 0) -> str:
    """Of a run or plan that has trials left."""
    return f"{name}: {left_of(left, done)}"


def left_of(left: int, done: int = 0) -> str:
    """The same without the sweep's name."""
    return f"{left} trials to run, {done} done"


def all_done(name: str, number: int) -> str:
    """Of a run that has nothing to do."""
    return f"{name}: {nothing_left(number)}"


def nothing_left(number: int) -> str:
    """The same without the sweep's name."""
    return f"all {number} trials are done; nothing to start"


def progress(done: int, asked: int, failed: int = 0, *, running: int = 0, waiting: int | None = None) -> str:
    """Of a run; without `waiting`, the start of the line."""
    line = f"{done}/{asked} trials done, {running} running, {failed} failed"
    return line if waiting is None else f"{line}, {waiting} waiting"


def failed(trial: str, error: str) -> str:
    """Of a trial that failed: its label, and the error in a line."""
    return f"failed: {trial}: {error}"


def states(sweep: str, asked: int, done: int, left: int) -> str:
    """Of a sweep's state, of which nothing runs or failed."""
    return f"{sweep}: {asked} trials: {done} done, {left} left"


def done_of(done: int, asked: int) -> str:
    """Of a report's section on a sweep."""
    return f"{done} of {asked} trials done"


NOTHING_STARTED = "nothing was started"
"""Of commands that only look, or find that nothing is to do."""

INTERRUPTED = "Interrupted. Everything up to the last resume point is kept; continue with:\n  "
"""Of a run at Ctrl-C; then the command."""

DRIVEN = "a run is working on it"
"""Of the state of a store that a run drives."""

DRIVEN_BY = "expected no other run on this store, but one is working on it"
"""Of a second run, which is refused; then who, where that is known."""

TAKEN_BY_A_JOB = "expected no other job on this store"
"""Of a second job, which is refused."""

ON_THE_CPU = "computes on the CPU"
"""Of a trial that was given a GPU which torch cannot use."""

BEHIND = "mlflow: not up to date"
"""Of a run after which MLflow lacks something."""

FOLDER_UNSEEN = "does not see the folder "
"""Of machines that do not see a store; then the folder."""

OTHER_CODE = "computed by different code"
"""Of finished trials of which the code has changed since."""


def of_other_code(number: int, method: str) -> str:
    """The same with the number of trials of a method."""
    return f"{OTHER_CODE}: {trials_of(number, method)}"


def trials_of(number: int, method: str) -> str:
    """A part of it, where there are several methods or reasons."""
    return f"{number} trial{'' if number == 1 else 's'} of {method}"


def results_versions(then: int, now: int) -> str:
    """A reason of it."""
    return f"results version {then}, now {now}"


ACCEPTED_NOTHING = "nothing to accept"
"""Of `crwn accept` where all trials have one code."""


def not_recomputed(number: int) -> str:
    """Of a run whose `--recompute` did not succeed for so many trials."""
    return f"{number} trials were not recomputed"


def differs(column: str, *values: str) -> str:
    """Of trials that are not averaged, or are noted: a column, and its values with the seeds that have each."""
    return f"{column} is {', '.join(values)}"


def noted(column: str, cells: int) -> str:
    """Of the note below a table: a column in which seeds differ, and in how many cells."""
    return f"{column} in {cells}"


def several_results(seed: int) -> str:
    """Of a cell with two results at a seed."""
    return f"several results at seed {seed}"


NO_COMMON_SEED = "with numbers at a common seed"
"""Of a claim that nothing can decide."""


def nearest(name: str) -> str:
    """Of an unknown name."""
    return f"did you mean {name!r}?"


def waiting(what: str, seconds: int) -> str:
    """Of a run that is silent for a while."""
    return f"waiting for {what}, {seconds} s so far"


def only_in(side: str, trial: str) -> str:
    """Of the differences between two stores."""
    return f"only in {side} {trial}"


CUT_OFF = "an earlier run on this store was cut off"
"""Of a run that goes on where another one was killed."""

AWAY, BACK = "trying again for up to 90 s", "the storage answers again"
"""Of a run whose object storage does not answer for a while."""

HERE_ALONE = "names a place on this machine"
"""Of an address of MLflow that a cluster's job cannot use."""

AS_IT_WAS = "as it was"
"""Of a damaged trial that was computed again, to the same accuracy."""

SAMPLE_DEVIATION = "sample standard deviation"
"""Of a table's caption."""
