"""The sweeps that come with the project: each loads, expands, and can be built."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweep import load_sweep

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.relative_to(ROOT) for ending in ("yaml", "yml") for path in (ROOT / "sweeps").rglob(f"*.{ending}"))


def test_there_are_sweeps() -> None:
    """The tests below would hold nothing without files, and the README's first command needs this one."""
    assert Path("sweeps/quickstart.yaml") in FILES


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_sweep_file_expands_to_trials_that_can_be_built(file: Path) -> None:
    """No fault, at least one trial, no trial twice, and every trial has a blueprint."""
    trials = load_sweep(ROOT / file).trials
    assert trials
    assert len({trial.trial_id for trial in trials}) == len(trials)
    for trial in trials:
        assert trial.blueprint().params_per_task > 0


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_sweep_file_opens_with_its_command(file: Path) -> None:
    """Its first line is a comment that can be copied to run it."""
    first = (ROOT / file).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("#")
    assert f"crwn run {file.as_posix()}" in first


def test_the_grammar_that_is_shown_beside_them_is_one(sweep_file: Callable[..., Path]) -> None:
    """What the folder's README shows can be copied: it loads, and expands to the 45 trials of its grid."""
    (grammar,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "sweeps" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    sweep = load_sweep(sweep_file(grammar))
    assert sweep.name == "example"
    assert len(sweep.trials) == 5 * 3 * 3  # methods, variants and scales; benchmarks; seeds


def test_every_sweep_file_is_listed_beside_them() -> None:
    """A reader of the folder's README finds each by its name."""
    readme = (ROOT / "sweeps" / "README.md").read_text(encoding="utf-8")
    assert [str(file) for file in FILES if f"`{file.relative_to('sweeps')}`" not in readme] == []
