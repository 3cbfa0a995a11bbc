"""What the documentation names exists, and its commands and examples work."""

from __future__ import annotations

import dataclasses
import doctest
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from crwn.benchmarks import BENCHMARKS
from crwn.testing import new_store, write_finished
from orchestrator.measures import MEASURES
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
    """Every make target named in a document exists."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"(?:^ {4}|`)make ([a-z-]+)", document.read_text(), flags=re.MULTILINE)
    assert [target for target in named if target not in targets] == []


def test_the_citation_is_of_this_version() -> None:
    """What people cite names the version that they have, and its licence."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


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
    """The first ten lines have the two commands."""
    opening = "\n".join((ROOT / "README.md").read_text().splitlines()[:10])
    assert "make quickstart" in opening
    assert "make test" in opening


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `make quickstart` it prints trials, a matrix, and what the network answers and should."""
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "runs").mkdir()
    store = new_store(tmp_path / "runs" / "quickstart")
    for trial in load_sweep(ROOT / "sweeps" / "quickstart.yaml").trials:
        if trial.method.kind == "neuromodnet" and not trial.variant and trial.seed == 0:
            write_finished(store, trial, accuracy=0.75)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "README.md", "exec"), {})  # noqa: S102
    out = capsys.readouterr().out
    assert "neuromodnet  r-digits     0      0.75" in out
    assert "tasks_learned" in out
    assert len(re.findall(r"tensor\(\[\d(, \d){9}\]\)", out)) == 2


@pytest.mark.slow(reason="learns five small trials")
def test_the_examples_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of the page, with the sweep that it begins with, prints what the page says."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (sweep,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "small.yaml").write_text(sweep, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest(page, {}, "python.md", str(ROOT / "docs" / "python.md"), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(examples, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
    assert len(examples.examples) > 15


def test_the_columns_of_trials_are_on_their_page() -> None:
    """All of them, and no other."""
    rows = (ROOT / "docs" / "python.md").read_text(encoding="utf-8").partition("| column of `trials`")[2]
    table = rows.partition("\n\n")[0].splitlines()[2:]
    named = [name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert named == [
        *("id", "method", "variant", "benchmark", "scale", "scenario", "seed", "num_tasks", "status"),
        *MEASURES,
        *("seconds", "started", "finished"),
    ]
