"""What the documents say exists, and what they tell people to type works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.sweep import load_sweep

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "sweeps" / "README.md",
    ROOT / "perf" / "README.md",
]
FOLDERS = ("crwn", "docs", "orchestrator", "perf", "sweeps", "tests")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_files_that_are_named_exist(document: Path) -> None:
    """Every path below one of the project's folders that stands in back quotes is there."""
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", document.read_text())
    missing = [path for path in named if path != "sweeps/example.yaml" and not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_targets_of_make_that_are_named_exist(document: Path) -> None:
    """Whoever types what a document says after `make` finds it in the Makefile."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"(?:^ {4}|`)make ([a-z]+)", document.read_text(), flags=re.MULTILINE)
    assert [target for target in named if target not in targets] == []


def test_the_readmes_sweep_is_one(tmp_path: Path) -> None:
    """The sweep of the README loads and is the grid that its methods, scales, variants, benchmarks and seeds make."""
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    file = tmp_path / "my.yaml"
    file.write_text(text)
    assert len(load_sweep(file).trials) == (1 + 2 * 2) * 2 * 3


def test_the_commands_of_the_readme_come_before_its_prose_is_long() -> None:
    """A stranger sees the two commands within the first ten lines."""
    opening = "\n".join((ROOT / "README.md").read_text().splitlines()[:10])
    assert "make quickstart" in opening
    assert "make test" in opening
