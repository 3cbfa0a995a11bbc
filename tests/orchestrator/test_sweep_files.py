"""The sweeps that come with the project: each loads, expands, and can be built."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator import papers
from orchestrator.papers.reading import read_paper
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from tests.said import all_done, to_run

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
    assert re.fullmatch(rf"# (CRWN_DATA=\S+( with \S+)? )?crwn run {re.escape(file.as_posix())}", first)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_sweep_file_opens_with_what_to_expect(file: Path) -> None:
    """Its comment tells the time it takes; the number of trials that it tells is the grid's; files it names exist."""
    opening = re.match(r"(#.*\n)+", (ROOT / file).read_text(encoding="utf-8"))
    assert opening is not None
    text = opening[0].replace("\n# ", " ")
    assert "2 CPU cores" in text
    told = re.findall(r": (\d+) trials|[.] (\d+) trials", text)
    sweep = load_sweep(ROOT / file)
    assert {int(number) for pair in told for number in pair if number} <= {len(sweep.trials)}
    assert [name for name in re.findall(r"(?:docs|sweeps)/[\w/.-]*\w", text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_sweep_is_known_by_its_file(file: Path) -> None:
    """By its path, but for the folder of a paper. Two of one name would replace each other's manifest in a store."""
    sweep = load_sweep(ROOT / file)
    assert sweep.name == "-".join(part for part in file.with_suffix("").parts[1:] if part not in papers.names())


def test_no_two_sweeps_have_one_name() -> None:
    """Whatever papers they belong to: they may share a store."""
    names = [load_sweep(ROOT / file).name for file in FILES]
    assert len(set(names)) == len(names)


def test_every_paper_has_sweeps() -> None:
    """A folder of its name holds what makes its numbers."""
    for name in papers.names():
        assert [file for file in FILES if file.parts[1] == name], name


@pytest.mark.parametrize("name", papers.names())
def test_the_rows_of_a_paper_are_in_its_sweeps(name: str) -> None:
    """Else its tables and claims would lack numbers after all of its sweeps."""
    sweeps = [load_sweep(ROOT / file) for file in FILES if file.parts[1] == name]
    computed = {dataclasses.replace(trial, seed=0).trial_id for sweep in sweeps for trial in sweep.trials}
    missing = [
        f"{line.name} {scale} on {benchmark}"
        for layout in read_paper(name).tables.values()
        for line in layout.lines
        for scale in line.scales
        for benchmark in line.only or layout.benchmarks
        if line.entry.at(scale, benchmark).spec.trial_id not in computed
    ]
    assert missing == []


def test_the_paper_is_compared_with_mtl() -> None:
    """Table 1 and what shows all methods give the ratio of params/task to MTL's, as the paper does."""
    references = {file.as_posix(): load_sweep(ROOT / file).reference for file in FILES}
    of_the_paper = {"table1", "small/table1", "mnist-6-tasks", "r-mnist-three-seeds"}
    assert {file for file, reference in references.items() if reference == "mtl"} == {
        "sweeps/quickstart.yaml",
        *(f"sweeps/hong2022/{name}.yaml" for name in of_the_paper),
    }


def test_settings_are_chosen_without_the_test_set() -> None:
    """Every benchmark of a sweep that chooses settings holds out training images, and no other sweep's does."""
    validated = {
        file.as_posix(): {trial.benchmark.validation for trial in load_sweep(ROOT / file).trials} for file in FILES
    }
    for file in ("sweeps/hong2022/validation.yaml", "sweeps/varma2023/gated-search.yaml"):
        assert validated.pop(file) == {5000}
    assert set(map(frozenset, validated.values())) == {frozenset({0})}


def test_the_grammar_that_is_shown_beside_them_is_one(sweep_file: Callable[..., Path]) -> None:
    """What the folder's README shows can be copied: it loads, and expands to the 33 trials of its grid."""
    (grammar,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "sweeps" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    file = sweep_file(grammar)
    for name in ("wren", "rook"):  # the images that the example names
        folder = file.parent / "photos" / "birds" / name
        folder.mkdir(parents=True)
        for level in range(4):
            Image.new("RGB", (64, 64), (60 * level, len(name), ord(name[0]))).save(folder / f"{level}.png")
    sweep = load_sweep(file)
    assert sweep.name == "example"
    assert len(sweep.trials) == (1 * 3 + 4 * 2) * 3  # methods, variants and scales on their benchmarks; seeds


def test_every_sweep_file_is_listed_beside_them() -> None:
    """A reader of the folder's README finds each by its name."""
    readme = (ROOT / "sweeps" / "README.md").read_text(encoding="utf-8")
    assert [str(file) for file in FILES if f"`{file.relative_to('sweeps')}`" not in readme] == []


def test_no_sweep_file_is_listed_that_is_not_there() -> None:
    """Every file named in the folder's README exists."""
    table = (ROOT / "sweeps" / "README.md").read_text(encoding="utf-8").partition("## The grammar")[0]
    listed = re.findall(r"`([\w/.-]+\.yaml)`", table)
    assert [name for name in listed if Path("sweeps", name) not in FILES] == []


def test_table_4_in_small_runs_to_its_tables(crwn: Callable[..., Any], sweep_file: Callable[..., Path]) -> None:
    """From the file to the tables, with fewer tasks, updates and seeds: random against pretrained weights."""
    text = (ROOT / "sweeps/hong2022/small/table4.yaml").read_text(encoding="utf-8")
    for whole, part in (
        ("seeds: [0, 1, 2]", "seeds: [0]"),
        ("num_tasks: 6", "num_tasks: 3"),
        ("updates_per_task: 200", "updates_per_task: 5"),
        ("FC256", "FC16"),
    ):
        assert text.count(whole) == 1
        text = text.replace(whole, part)
    outcome = crwn("run", sweep_file(text), "--executor", "inline", "--gpus", "0", "--no-tracking")
    assert outcome.code == 0, outcome.err
    assert to_run("small-table4", 2) in outcome.out

    store = Store(Path("runs/small"))
    random, pretrained = store.records.trials(
        store.manifest("small-table4").cells[i].trials[0] for i in (0, 1)
    ).to_pylist()
    assert (random["variant"], pretrained["variant"]) == ("", "pretrained=True")
    weights = 64 * 16 + 16 * 16 + 16 * 10
    assert (random["params_per_task"], pretrained["params_per_task"]) == (99.0, 99 + weights / 3)
    for row in (random, pretrained):
        assert 0.0 < row["accuracy"] < 1.0
        assert (row["forgetting"], row["backward_transfer"]) == (0.0, 0.0)
    assert random["accuracy"] != pretrained["accuracy"]
    markdown = (store.root / "report" / "small-table4.md").read_text(encoding="utf-8").splitlines()
    assert [line.rsplit("|", maxsplit=2)[0] for line in markdown[-4:]] == [  # all but the seconds, which are measured
        "| method | variant | scale | r-digits | params/task ",
        "| --- | --- | --- | --- | --- ",
        f"| neuromodnet | random | FC16 | {100 * random['accuracy']:.2f} ± - (n=1) | 99 ",
        f"| neuromodnet | pretrained | FC16 | {100 * pretrained['accuracy']:.2f} ± - (n=1) | 579 ",
    ]
    again = crwn("run", sweep_file(text), "--no-tracking")
    assert (again.code, all_done("small-table4", 2) in again.out) == (0, True)
