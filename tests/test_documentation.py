"""What the documents say exists, and what they tell people to type works."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from crwn.benchmarks import BENCHMARKS
from orchestrator.sweeps.reading import load_sweep
from tests import documents

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
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"(?:^ {4}|`)make ([a-z-]+)", document.read_text(), flags=re.MULTILINE)
    assert [target for target in named if target not in targets] == []


def test_the_readmes_sweep_is_one(tmp_path: Path) -> None:
    """The sweep of the README loads and is the grid that its methods, scales, variants, benchmarks and seeds make."""
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    file = tmp_path / "my.yaml"
    file.write_text(text)
    assert len(load_sweep(file).trials) == (1 + 2 * 2) * 2 * 3


# What a document says of methods, against the methods


def rows_of(document: str, first: str) -> list[list[str]]:
    """The rows of a document's tables whose first cell names something in back quotes, with the text of each cell."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if f"`{first}`" in row[0]]


@pytest.mark.parametrize("name", documents.TABLES)
def test_the_tables_of_methods_are_those_of_the_specs(name: str) -> None:
    """What the documents say of every method is what its spec and the head of its file say."""
    _, written, _ = documents.parts(name)
    advice = (
        f"write it anew with\n    .venv/bin/python -m tests.documents\n{documents.TABLES[name][0]} is behind the specs"
    )
    assert written.splitlines() == documents.table(name).splitlines(), advice


def test_a_row_of_the_table_of_methods() -> None:
    """The pretrained mode of NeuroModNet, letter by letter but for its sentence and source."""
    (row,) = [row for row in documents.methods() if row[0] == "`neuromodnet`, `pretrained: true`"]
    assert row[2:7] == [
        "task",
        "learned with the first task",
        "first alone, then any number",
        "8,766 / 3,987",
        "nothing",
    ]


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_all_settings_of_a_benchmark_are_listed(kind: str) -> None:
    """The README of the sweeps lists every setting of a benchmark's kind, and no other."""
    (row,) = rows_of("sweeps/README.md", f"kind: {kind}")
    settings = {item.name for item in dataclasses.fields(BENCHMARKS[kind].spec) if item.init}
    assert set(re.findall(r"`(\w+)`", row[1])) == settings


def test_the_commands_of_the_readme_come_before_its_prose_is_long() -> None:
    """A stranger sees the two commands within the first ten lines."""
    opening = "\n".join((ROOT / "README.md").read_text().splitlines()[:10])
    assert "make quickstart" in opening
    assert "make test" in opening


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It learns three tasks and prints their accuracies: each as it was learned, then all at the end."""
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert text.count("updates_per_task=100") == 1
    exec(compile(text.replace("updates_per_task=100", "updates_per_task=5"), "README.md", "exec"), {})  # noqa: S102
    assert re.fullmatch(r"\[0\.\d+(, 0\.\d+)*\]\n", capsys.readouterr().out)
