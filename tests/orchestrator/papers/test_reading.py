"""A paper's file: the values read from it, and all its faults at once, each with its line."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from orchestrator.errors import UserError
from orchestrator.papers import file_of, grammar, names
from orchestrator.papers.paper import Bound, Comparison, Selectivity, TaskComparison, Trend
from orchestrator.papers.reading import read_file, read_paper
from tests.refusals import refused

ROOT = Path(__file__).resolve().parents[3]

SMALL = """\
title: Somebody, Something
trials: Their settings
seeds: 2
rows:
  wide net: {method: neuromodnet, training: {epochs_per_task: 3}}
  local: {method: neuromodnet, settings: {modulation: local}}
  er: {method: er, settings: {buffer: 200}}
tables:
  table1:
    title: What it shows
    benchmarks: [r-digits, seq-digits]
    reference: er
    rows:
      - {name: ER, row: er, scales: [FC100]}
      - {name: Net, row: wide net, scales: [FC16, FC32], only: [r-digits]}
figures:
  figure1: {title: What it draws, shows: seen, table: table1, benchmark: seq-digits}
claims:
  - says: Something is so
    checks:
      - on: [r-digits, p-digits]
        compare:
          - {row: wide net FC16, higher: accuracy, than: [local FC16, local FC32], by: 0.1}
          - {row: wide net FC16 on p-digits, lower: forgetting, than: [local FC16], times: 0.5}
          - {row: wide net FC16, lower: accuracy, than: [local FC16], tasks: [1, -1]}
          - {row: local FC16, higher: spread_over_tasks, to: 0.2}
          - {rising: accuracy, gains: [[wide net FC16, local FC16], [wide net FC32, local FC32]]}
"""


def read(folder: Path, text: str) -> str | None:
    """The error for a file, or None if it is valid."""
    file = folder / "small.yaml"
    file.write_text(text)
    try:
        read_file(file)
    except UserError as error:
        return str(error)
    return None


def test_a_file_becomes_a_paper(tmp_path: Path) -> None:
    """Comparisons are written once for several rows and benchmarks: benchmark by benchmark, in the file's order."""
    assert read(tmp_path, SMALL) is None
    paper = read_file(tmp_path / "small.yaml")
    assert (paper.name, paper.title, paper.seeds) == ("small", "Somebody, Something", 2)
    table = paper.tables["table1"]
    assert table.reference is not None
    assert [line.name for line in table.lines] == ["ER", "Net"]
    assert table.lines[1].entry.at("FC16", "r-digits").spec.training.epochs_per_task == 3
    assert table.lines[1].entry.at("FC16", "r-digits").spec.training.updates_per_task == 1000
    figure = paper.figures["figure1"]
    assert (figure.shows, figure.table, figure.benchmark) == ("seen", "table1", "seq-digits")
    assert table.reference.entry.at("FC100", "seq-digits").spec.method == METHODS["er"].spec(buffer=200)
    (claim,) = paper.claims
    kinds = [Comparison, Comparison, Comparison, TaskComparison, Bound, Trend]
    assert [type(check) for check in claim.checks] == 2 * kinds
    first, second = claim.checks[0], claim.checks[8]
    assert isinstance(first, Comparison)
    assert isinstance(second, Comparison)
    assert (str(first.row), str(first.than), first.by) == ("wide net FC16 on r-digits", "local FC16 on r-digits", 0.1)
    assert {str(row) for row in second.rows} == {"wide net FC16 on p-digits", "local FC16 on p-digits"}


OWN = """\
title: Somebody, Something
trials: Their settings
seeds: 2
rows:
  plain: {method: finetune}
benchmarks:
  three times: {preset: items-digits, num_tasks: 4, rounds: 3}
tables:
  table1:
    title: What it shows
    benchmarks: [three times, items-digits]
    values: [worst_task, memorised]
    rows:
      - {name: Plain, row: plain, scales: [FC100]}
claims:
  - says: Something is so
    checks:
      - on: [three times]
        compare:
          - {row: plain FC100, higher: accuracy, tasks: [1, 3], others: [2, -1], by: 0.1, surely: true}
          - {row: plain FC100, lower: memorised, than: [plain FC100 on items-digits], surely: true}
"""


def test_a_paper_has_benchmarks_and_measures_of_its_own(tmp_path: Path) -> None:
    """Benchmarks as a sweep has them, further columns of a table, and claims about tasks of one row."""
    assert read(tmp_path, OWN) is None
    paper = read_file(tmp_path / "small.yaml")
    table = paper.tables["table1"]
    assert list(table.benchmarks) == ["three times", "items-digits"]
    assert table.benchmarks["three times"].problem().num_segments == 12
    assert table.values == ("worst_task", "memorised")
    first, second = paper.claims[0].checks
    assert isinstance(first, Selectivity)
    assert isinstance(second, Comparison)
    assert (first.tasks, first.others, first.by, first.surely) == ((1, 3), (2, -1), 0.1, True)
    assert (str(second.than), second.surely) == ("plain FC100 on items-digits", True)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("rounds: 3", "round: 3", "did you mean 'rounds'"),
        ("preset: items-digits, num", "preset: item-digits, num", "did you mean 'items-digits'"),
        ("num_tasks: 4", "num_tasks: 1", "at least 2 items"),
        ("[three times, items", "[three time, items", "did you mean 'three times'"),
        ("worst_task, mem", "worst_tasks, mem", "did you mean 'worst_task'"),
        ("others: [2, -1]", "others: [2, 5]", "expected tasks up to 4"),
        ("others: [2, -1]", "others: [2, 0]", "counted from 1"),
        ("others: [2, -1], by", "by", "expected .*others"),
    ],
)
def test_faults_of_own_benchmarks_and_tasks(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """Each is named."""
    assert old in OWN
    said = read(tmp_path, OWN.replace(old, new))
    assert said is not None
    assert re.search(fault, said)


@pytest.mark.parametrize(
    ("old", "new", "line", "place", "fault"),
    [
        ("seeds: 2", "seeds: 0", 3, "seeds", "greater than or equal to 1"),
        ("title: Some", "tittle: Some", 1, "tittle", "unknown key; .*did you mean 'title'"),
        ("method: er,", "method: err,", 7, "rows.er.method", "did you mean 'er'"),
        ("buffer: 200", "bufer: 200", 7, "rows.er.settings.bufer", "did you mean 'buffer'"),
        ("epochs_per_task: 3", "epochs_per_task: 0.5", 5, "rows.wide net.training.epochs_per_task", "expected"),
        ("wide net:", "net on x:", 5, "rows.net on x", "without ' on '"),
        ("table1:", "first:", 9, "tables.first", "expected table1, table2"),
        ("[r-digits, seq", "[r-digit, seq", 11, r"tables.table1.benchmarks\[0\]", "did you mean 'r-digits'"),
        ("reference: er", "reference: eer", 12, "tables.table1.reference", "did you mean 'er'"),
        ("only: [r-digits]", "only: [p-digits]", 15, r"tables.table1.rows\[1\].only\[0\]", "expected one of r-digits"),
        ("scales: [FC100]", "scales: [10d]", 14, r"tables.table1.rows\[0\].scales\[0\]", "expected one such as FC256"),
        ("row: er,", "row: eer,", 14, r"tables.table1.rows\[0\].row", "did you mean 'er'"),
        ("only: [r-digits]", "only: [r-digits], beside: local", 9, "tables.table1", "expected columns"),
        ("figure1:", "fig1:", 17, "figures.fig1", "expected figure1, figure2"),
        ("shows: seen", "shows: seens", 17, "figures.figure1.shows", "did you mean 'seen'"),
        ("table: table1", "table: table2", 17, "figures.figure1.table", "did you mean 'table1'"),
        (
            "benchmark: seq-digits}",
            "benchmark: seq-digits, before: x}",
            17,
            "figures.figure1.before",
            "one of r-digits",
        ),
        (
            "benchmark: seq-digits}",
            "benchmark: seq-digits, before: r-digits}",
            17,
            "figures.figure1.before",
            "shows: tasks; given 'r-digits'",
        ),
        ("benchmark: seq-digits", "benchmark: p-digits", 17, "figures.figure1.benchmark", "expected one of r-digits"),
        ("on: [r-digits, p", "on: [rr-digits, p", 21, r"checks\[0\].on\[0\]", "did you mean 'r-digits'"),
        ("higher: accuracy", "higher: acuracy", 23, r"compare\[0\].higher", "did you mean 'accuracy'"),
        ("higher: accuracy", "more: accuracy", 23, r"compare\[0\]", "unknown key; expected one of"),
        (", by: 0.1", ", by: 0.1, times: 2", 23, r"compare\[0\]", "expected row and than or .*given by and row and"),
        (
            "than: [local FC16, local",
            "than: [global FC16, local",
            23,
            r"than\[0\]",
            "expected one of er, local, wide net",
        ),
        ("than: [local FC16, local", "than: [FC16, local", 23, r"than\[0\]", "expected a row and a scale"),
        ("tasks: [1, -1]", "tasks: [0, 1]", 25, r"compare\[2\]", "counted from 1"),
        ("tasks: [1, -1]", "tasks: [37]", 25, r"compare\[2\].tasks", "expected tasks up to 36"),
        ("to: 0.2", "by: 0.2", 26, r"compare\[3\]", "expected row and than"),
    ],
)
def test_a_fault_is_told_with_its_place(tmp_path: Path, old: str, new: str, line: int, place: str, fault: str) -> None:
    """Whatever is not known, does not fit or cannot run, with the nearest name."""
    assert SMALL.count(old) == 1
    said = read(tmp_path, SMALL.replace(old, new))
    assert said is not None
    assert re.search(rf"line {line}, .*{place}.*: .*{fault}", said), said


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Of every part, in the file's order; what hangs on a faulty part is not blamed."""
    text = SMALL.replace("method: er,", "method: err,").replace("tasks: [1, -1]", "tasks: [0]").replace("seeds: 2", "")
    said = read(tmp_path, text)
    assert said is not None
    assert "3 faults" in said
    assert re.findall(r"line (\d+)", said) == ["1", "7", "25"]
    assert read(tmp_path, "- a list") is not None


def test_the_grammar_that_is_shown_is_one(tmp_path: Path) -> None:
    """Its example has every key that a part of a file may have, and no fault."""
    text = textwrap.dedent(re.findall(r"\n\n(    .*?)\n\n\w", str(grammar.__doc__), re.DOTALL)[0])
    assert read(tmp_path, text) is None
    parts = [value for value in vars(grammar).values() if dataclasses.is_dataclass(value)]
    keys = {item.name for part in parts for item in dataclasses.fields(part)}
    assert len(parts) == 8
    assert keys - set(re.findall(r"(\w+):", text)) == {"rising"}


@pytest.mark.parametrize("name", names())
def test_every_paper_that_comes_along_is_one(name: str) -> None:
    """It has no fault, and its sweeps have a folder."""
    paper = read_paper(name)
    assert paper.name == name
    assert re.fullmatch("[a-z0-9]+", name), "tables are named by it"
    assert paper.tables or paper.claims


def test_a_paper_that_is_not_known_is_answered_with_those_that_are() -> None:
    """With what to type."""
    assert "hong2022" in names()
    with refused(UserError, "unknown-name", says=["--paper: ", "'hong2202'", "'hong2022'?"]):
        file_of("hong2202")


def test_files_that_are_no_code_are_installed_too() -> None:
    """A wheel has a package's other files only where `package-data` names them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    for package in ("crwn", "orchestrator"):
        folder = ROOT / package
        others = [
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc")
        ]
        assert [name for name in others if not any(fnmatch(name, one) for one in patterns.get(package, ()))] == []
    assert any(fnmatch("papers/hong2022.yaml", one) for one in patterns["orchestrator"])


def test_the_engine_knows_no_paper() -> None:
    """The code that makes tables and verdicts names no method or benchmark; the papers' files do."""
    files = [
        *(
            ROOT / "orchestrator/report" / name
            for name in ("claims.py", "paper_tables.py", "paper_figures.py", "charts.py", "tables.py", "page.py")
        ),
        ROOT / "orchestrator/report/page.html",
        ROOT / "orchestrator/papers/paper.py",
    ]
    known = [*METHODS, *PRESETS, *names(), "NeuroModNet", "SupSup", "FC4096", "arXiv"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert [name for name in known if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)] == [], file
