"""What commands print of their progress, for tests that ask for the numbers in it: the words are in this file alone."""

from __future__ import annotations


def to_run(name: str, left: int, done: int = 0) -> str:
    """Of a run or plan that has trials left."""
    return f"{name}: {left_of(left, done)}"


def left_of(left: int, done: int = 0) -> str:
    """The same without the sweep's name."""
    return f"{left} trials to run, {done} done"


def all_done(name: str, number: int) -> str:
    """Of a run that has nothing to do."""
    return f"{name}: all {number} trials are done; nothing to start"


def progress(done: int, asked: int, failed: int = 0) -> str:
    """Of a run at its end, when nothing runs or waits."""
    return f"{done}/{asked} trials done, 0 running, {failed} failed"
