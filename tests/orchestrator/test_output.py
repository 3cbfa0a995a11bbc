"""A standard output that cannot be written stops nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.output import Stream


def wrapped(stream: Stream) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(stream), encoding="utf-8", line_buffering=True)


def test_what_a_reader_no_longer_reads_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe to `head` ends before what is written: nothing is raised, then or later, and nothing is said."""
    reading, writing = os.pipe()
    stream = Stream(writing)
    text = wrapped(stream)
    print("first", file=text)
    assert os.read(reading, 100) == b"first\n"
    os.close(reading)
    for _ in range(3):
        print("second", file=text)
    text.flush()
    assert isinstance(stream.error, BrokenPipeError)
    assert not stream.is_lost
    assert capsys.readouterr().err == ""
    os.close(writing)


@pytest.mark.parametrize("is_result", [True, False])
def test_a_full_disk_is_said_once(*, is_result: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """It loses a result, unless the command is about something else."""
    full = os.open("/dev/full", os.O_WRONLY)
    stream = Stream(full)
    stream.is_result, stream.farewell = is_result, "The run goes on."
    text = wrapped(stream)
    print("first", file=text)
    print("second", file=text)
    assert stream.is_lost is is_result
    assert capsys.readouterr().err == ("standard output cannot be written: No space left on device. The run goes on.\n")
    os.close(full)


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    """Another program at the same terminal or pipe may have set it so; nothing is lost."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    script = "import sys, time; time.sleep(0.1); print(len(sys.stdin.buffer.read()))"
    with subprocess.Popen([sys.executable, "-c", script], stdin=reading, stdout=subprocess.PIPE, text=True) as reader:
        os.close(reading)
        text = wrapped(Stream(writing))
        text.write("x" * 10**6)
        text.flush()
        os.close(writing)
        assert reader.communicate()[0] == "1000000\n"


CLOSING = """
import os, sys
for number in map(int, sys.argv[1]): os.close(number)
os.execv(sys.executable, [sys.executable, "-c", "from orchestrator.cli import main; main()", *sys.argv[2:]])
"""


def test_a_command_works_with_closed_streams(tmp_path: Path) -> None:
    """As a service may be started: the exit code is that of the work."""
    command = [sys.executable, "-c", CLOSING, "012", "data", "list"]
    assert subprocess.run(command, cwd=tmp_path, timeout=60, check=False).returncode == 0
