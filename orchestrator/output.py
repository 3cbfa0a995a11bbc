"""Standard output and error of the command: closed, full or given up by its reader, they stop nothing.

A run must not end because of a pipe to `head`, a full disk under its log, or a terminal that was closed: what cannot be
written is dropped, and said once.
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
    """Writes to a file descriptor until that fails once, and then to nowhere.

    Args:
        descriptor: 1 or 2.

    Attributes:
        error: why it no longer writes, or None.
        farewell: said on standard error when nobody reads any more; nothing where a reader has seen enough of it.
        is_result: whether what is printed is what the command is for, so that losing it is a failure.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None
        self.farewell = ""
        self.is_result = True

    def write(self, content: ReadableBuffer, /) -> int:
        """Write, or drop what cannot be written."""
        while self.error is None:
            try:
                written: int | None = super().write(content)
            except OSError as error:
                self.error = error
                self._say()
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # another program has set the pipe or terminal not to block
        return memoryview(content).nbytes

    @property
    def is_lost(self) -> bool:
        """Whether a result could not be printed, and not because its reader left."""
        return self.is_result and self.error is not None and self.error.errno != errno.EPIPE

    def _say(self) -> None:
        if self.fileno() == 2:  # there is no other place to say it
            return
        if self.is_lost or self.farewell:
            assert self.error is not None
            reason = self.error.strerror
            print(f"standard output cannot be written: {reason}. {self.farewell}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201


def take_over() -> Stream | None:
    """Make both standard streams of this process ones that stop nothing.

    Returns:
        Standard output; None where another one has been put into its place, as tests do.
    """
    for descriptor in range(3):  # a file opened in the place of a closed one would get what others print
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = _taken(sys.stderr, sys.__stderr__, 2)
    sys.stdout = _taken(sys.stdout, sys.__stdout__, 1)
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Stream) else None


def go_on_without(farewell: str) -> None:
    """Have a command that is about more than its output say `farewell` where that is lost, and end as it would."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Stream):
        raw.farewell, raw.is_result = farewell, False


def _taken(current: TextIO | None, original: TextIO | None, descriptor: int) -> TextIO:
    """A stream in the place of Python's own; errors in encoding show another sign, not a traceback."""
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
