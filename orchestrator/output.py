"""Standard output and error that never stop a command, even if they are closed, full, or no longer read.

A pipe to `head`, a full disk under the log, or a closed terminal must not end a run. Output that cannot be written is
dropped, with one message.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Stream(io.FileIO):
    """Writes to a file descriptor until a write fails, then discards everything.

    Args:
        descriptor: 1 or 2.

    Attributes:
        error: the error that ended writing, or None.
        farewell: printed to standard error if the output can no longer be written; may be empty.
        is_result: whether the output is the command's purpose, so that losing it is a failure.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None
        self.farewell = ""
        self.is_result = True

    def write(self, content: ReadableBuffer, /) -> int:
        """Write the bytes, or drop them if they cannot be written."""
        while self.error is None:
            try:
                written: int | None = super().write(content)
            except OSError as error:
                self.error = error
                self._say()
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # another program made the pipe or terminal non-blocking
        return memoryview(content).nbytes

    @property
    def is_lost(self) -> bool:
        """Whether a result could not be printed, other than because its reader closed the pipe."""
        return self.is_result and self.error is not None and self.error.errno != errno.EPIPE

    def _say(self) -> None:
        if self.fileno() == 2:  # there is nowhere else to report it
            return
        if self.is_lost or self.farewell:
            assert self.error is not None
            reason = self.error.strerror
            print(f"standard output cannot be written: {reason}. {self.farewell}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201


def take_over() -> Stream | None:
    """Replace both standard streams of this process by ones that never stop it.

    Returns:
        The stream of standard output; None if something else, such as a test, has already replaced it.
    """
    for descriptor in range(3):  # a file opened on a closed stream's descriptor would receive the output
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = _taken(sys.stderr, sys.__stderr__, 2)
    sys.stdout = _taken(sys.stdout, sys.__stdout__, 1)
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Stream) else None


def go_on_without(farewell: str) -> None:
    """For a command that does more than print: if its output is lost, print `farewell` and continue."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Stream):
        raw.farewell, raw.is_result = farewell, False


def _taken(current: TextIO | None, original: TextIO | None, descriptor: int) -> TextIO:
    """A replacement of Python's own stream; characters that cannot be encoded are replaced instead of raising."""
    if current is not None and current is not original:
        if isinstance(current, io.TextIOWrapper):
            current.reconfigure(errors="replace")
        return current
    if current is not None:
        current.flush()
    encoding = getattr(current, "encoding", None) or "utf-8"
    stream = Stream(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=encoding,
        errors="replace",
        line_buffering=descriptor == 2 or stream.isatty(),
    )
