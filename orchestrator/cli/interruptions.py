"""Signals that end a command cleanly, as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command cleanly: Ctrl-C, a scheduler's termination, a lost terminal or connection."""


def take_signals_for_interruptions() -> None:
    """Make each of these signals raise KeyboardInterrupt, even in the background, where shells ignore Ctrl-C.

    A signal sent to this process is deliberate. A hang-up is sent to all processes and stays ignored under nohup.
    """
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # kernel and shell both send one; the second must not cut off the end
    raise KeyboardInterrupt
