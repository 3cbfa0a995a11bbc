"""Feedback during long waits."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from orchestrator import waiting
from orchestrator.waiting import Heartbeat


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat every tenth of a second."""
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 0.1)


def made(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=200, color_system=None), file


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_heart_beats_while_nothing_else_is_said() -> None:
    """Repeatedly; other output delays the next beat; after the end, there is none."""
    beats: list[float] = []
    with Heartbeat(lambda: beats.append(time.monotonic()), 0.2) as heartbeat:
        wait_until(lambda: len(beats) >= 2)
        with heartbeat.lock:
            heartbeat.reset()
            said, before = time.monotonic(), len(beats)
        wait_until(lambda: len(beats) > before)
    assert beats[before] - said >= 0.2
    ended = len(beats)
    time.sleep(0.5)
    assert len(beats) == ended


def test_what_is_waited_for_is_said_in_lines() -> None:
    """The lines have the time so far."""
    console, file = made()
    with waiting.waiting("the server [to] start", console):
        wait_until(lambda: file.getvalue().count("\n") >= 2)
    assert file.getvalue().startswith("waiting for the server [to] start, 0 s so far\n")


def test_what_is_waited_for_is_shown_in_a_terminal() -> None:
    """As a display, which is gone in the end."""
    console, file = made(terminal=True)
    with waiting.waiting("the server [to] start", console):
        wait_until(lambda: "the server [to] start" in file.getvalue())
    assert "so far" not in file.getvalue()


def test_decoding_is_told_in_lines() -> None:
    """Before the first image that files are read; then how many are decoded, also while no news comes."""
    console, file = made()
    with waiting.decoding("birds", console) as on_progress:
        wait_until(lambda: "so far" in file.getvalue())
        assert file.getvalue().startswith("birds: reading files, 0 s so far\n")
        on_progress(0, 10_000)
        on_progress(4_000, 10_000)
        wait_until(lambda: "4,000 of 10,000" in file.getvalue())
    assert file.getvalue().count("birds: decoding 10,000 images, once on this machine\n") == 1
    assert re.search(r"^birds: 4,000 of 10,000 images decoded, \d+ s so far$", file.getvalue(), re.MULTILINE)


def test_images_that_are_decoded_already_are_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line where it is quick."""
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 60.0)
    console, file = made()
    with waiting.decoding("birds", console):
        pass
    assert file.getvalue() == ""


def test_decoding_is_a_bar_in_a_terminal() -> None:
    """With its line above."""
    console, file = made(terminal=True)
    with waiting.decoding("[red]birds", console) as on_progress:
        on_progress(0, 4)
        on_progress(2, 4)
        wait_until(lambda: " 50%" in file.getvalue())
    assert "[red]birds ━" in file.getvalue()
    assert "[red]birds: decoding 4 images" in file.getvalue()
    assert "so far" not in file.getvalue()
