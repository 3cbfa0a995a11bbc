"""Fixtures for the orchestrator's tests: an empty working directory, tiny trials, the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crwn.benchmarks.rotated import RotatedSpec
from crwn.faults import codes_of
from crwn.testing import new_store, tiny_trial
from crwn.trial_spec import TrialSpec
from orchestrator import cli
from orchestrator.store.store import Store

# Two trials of a fraction of a second each, on embedded data.
TINY = """\
name: tiny
seeds: [0, 1]
benchmarks: {r-digits: {num_tasks: 2}}
training: {updates_per_task: 5}
methods: {neuromodnet: {scales: [FC16]}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended, what it printed, and the codes of the error that ended it."""

    code: int
    out: str
    err: str
    codes: tuple[str, ...]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, on a machine without data sets and with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(home))
    for name in ("CRWN_DATA", "RAY_ADDRESS", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def sweep_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sweep file and gives its path."""

    def write(text: str = TINY, name: str = "sweep.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def crwn(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """Runs a command line in this process, from its arguments to its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    codes: list[str] = []
    print_error = cli._print_error

    def note(error: Exception) -> None:
        codes.extend(codes_of(error, "system-refused"))
        print_error(error)

    monkeypatch.setattr(cli, "_print_error", note)

    def call(*arguments: object) -> Outcome:
        codes.clear()
        monkeypatch.setattr(sys, "argv", ["crwn", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Outcome(code=int(ended.value.code or 0), out=printed.out, err=printed.err, codes=tuple(codes))

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces figures with empty files, which saves tests of pages a second per figure."""
    from orchestrator.report.charts import FORMATS, Chart

    def files(chart: Chart, formats: Collection[str] = tuple(FORMATS)) -> Iterator[tuple[str, bytes]]:
        nothing = b'<svg viewBox="0 0 1 1"></svg>'
        yield from ((f"{chart.name}.{suffix}", nothing) for suffix in (*formats, "csv"))

    monkeypatch.setattr(Chart, "files", files)


@pytest.fixture
def listing() -> Callable[[Path], dict[str, bytes]]:
    """Gives every file below a folder with its content, and every folder, to see whether something was written."""

    def look(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
            for path in sorted(folder.rglob("*"))
        }

    return look


@pytest.fixture
def trial() -> Callable[..., TrialSpec]:
    """Makes specs of trials that take a fraction of a second; settings are the method's."""

    def make(
        seed: int = 0,
        *,
        kind: str = "neuromodnet",
        num_tasks: int = 2,
        validation: int = 0,
        learning_rate: float = 0.01,
        updates_per_task: int = 5,
        **settings: Any,
    ) -> TrialSpec:
        benchmark = RotatedSpec(base="digits", num_tasks=num_tasks, validation=validation)
        return tiny_trial(
            kind,
            seed=seed,
            benchmark=benchmark,
            learning_rate=learning_rate,
            updates_per_task=updates_per_task,
            **settings,
        )

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new, empty store."""
    return new_store(tmp_path / "store")
