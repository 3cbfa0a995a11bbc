"""What a sweep would run: the table for people and the JSON for programs."""

from __future__ import annotations

import collections
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from crwn.data import BASE_SETS
from crwn.methods import METHODS
from crwn.spec import Blueprint, ProblemShape, Scenario, TrainingSpec, kind_field
from crwn.testing import TEST_SECONDS, Conditions, write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.execution.planning import as_json, petaflop, show, show_capacity
from orchestrator.execution.progress import STEP_OVERHEAD, estimated_work
from orchestrator.execution.protocol import Capacity, NodeResources
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Cell, Resources, Sweep
from tests.said import NOTHING_STARTED, left_of

SweepFile = Callable[..., Path]
Trial = Callable[..., TrialSpec]
Crwn = Callable[..., Any]

SWEEPS = Path(__file__).resolve().parents[3] / "sweeps" / "hong2022"

# The methods of the paper on its first benchmark; their parameters a task by hand:
# NeuroModNet FC256 has a context of 784 + 256 + 256 numbers and 3 strengths; FlyNet 10d has 7,840 units and a strength;
# SupSup FC256 has a score for each of 784 * 256 + 256 * 256 + 256 * 10 weights.
PAPER = """\
name: paper
seeds: [0, 1, 2]
benchmarks: [r-mnist]
methods:
  neuromodnet: {scales: [FC256]}
  flynet: {scales: [10d]}
  supsup: {scales: [FC256]}
"""
PARAMETERS = {"neuromodnet": 1_299, "flynet": 7_841, "supsup": 268_800}


def printed(sweep: Sweep, store: Store, width: int = 10_000) -> str:
    """A plan as printed without a terminal."""
    file = io.StringIO()
    show(sweep, store, Console(file=file, width=width, force_terminal=False))
    return file.getvalue()


def cells_of(text: str) -> list[list[str]]:
    """The rows of a table with the text of each cell."""
    return [[part.strip() for part in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


@pytest.fixture
def paper(sweep_file: SweepFile) -> Sweep:
    return load_sweep(sweep_file(PAPER))


@pytest.fixture
def absent(tmp_path: Path) -> Store:
    """A store that no run has made yet."""
    return Store(tmp_path / "absent")


def test_every_cell_has_a_row(paper: Sweep, absent: Store) -> None:
    """Names, tasks, updates, seeds, what is done, and the exact counts of parameters."""
    rows = cells_of(printed(paper, absent))
    assert [row[:-1] for row in rows] == [
        [method, "", scale, "r-mnist", "0 1 2", "36", "1000", "0/3", *[f"{PARAMETERS[method]:,}"] * 3]
        for method, scale in (("neuromodnet", "FC256"), ("flynet", "10d"), ("supsup", "FC256"))
    ]


def test_the_totals_follow(paper: Sweep, absent: Store) -> None:
    """The number of trials, the store, the work, and that nothing was started."""
    text = printed(paper, absent)
    total = 3 * sum(petaflop(cell.trials[0]) for cell in paper.cells)
    assert text.startswith("paper: 9 trials")
    assert f"{left_of(9)} in {absent.root}" in text
    assert f"{total:.3g} PFLOP " in text
    assert NOTHING_STARTED in text


def test_finished_trials_are_counted_and_cost_nothing_more(paper: Sweep, store: Store) -> None:
    """The row says how many are done; the work left is that of the others."""
    for trial in paper.cells[0].trials[:2]:
        write_finished(store, trial)
    text = printed(paper, store)
    assert [row[7] for row in cells_of(text)] == ["2/3", "0/3", "0/3"]
    assert left_of(7, 2) in text
    first, *others = (petaflop(cell.trials[0]) for cell in paper.cells)
    assert f"{first + 3 * sum(others):.3g} PFLOP " in text


def test_the_work_of_a_trial_by_hand(trial: Trial) -> None:
    """NeuroModNet FC16 on digits: two operations a weight, forward and back, 128 images, 5 updates, 2 tasks."""
    num_weights = 64 * 16 + 16 * 16 + 16 * 10
    assert petaflop(trial()) == pytest.approx(2 * 2 * num_weights * 128 * 5 * 2 / 1e15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Groups of classes of unlike sizes, or a stream of as many images."""

    kind: str = kind_field("classes")
    base: str = "digits"
    validation: int = 0
    scenario: Scenario = "class"

    def problem(self) -> ProblemShape:
        return ProblemShape(
            input_shape=(1, 8, 8),
            num_classes=10,
            num_tasks=2,
            scenario=self.scenario,
            num_segments=3,
            segment_sizes=(100, 250, 50),
            task_classes=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
        )

    def normalisation(self) -> Any:
        return BASE_SETS[self.base].normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A method that is told nothing and keeps some images."""

    kind: str = kind_field("rehearsal")
    buffer_size: int = 0

    def training(self, scale: str) -> TrainingSpec:
        return TrainingSpec(learning_rate=0.01)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        return Blueprint(
            params_per_task=1.0,
            trained_per_task=1,
            stored_per_task=0,
            multiply_adds=10**9,
            activations=1,
            backbone=METHODS["stl"].spec().blueprint(scale, problem, seed).backbone,
            moves_shared="always",
            needs=frozenset(),
            examples_kept=self.buffer_size,
        )


def rehearsal(buffer_size: int, benchmark: Classes, **training: Any) -> TrialSpec:
    """A trial of these."""
    return TrialSpec(
        method=Rehearsal(buffer_size=buffer_size),
        benchmark=benchmark,
        scale="FC16",
        seed=0,
        training=TrainingSpec(learning_rate=0.01, **training),
    )


def planned(absent: Store, *trials: TrialSpec) -> list[dict[str, str]]:
    """The rows of a plan, by its header."""
    cells = [
        Cell(method=f"row {number}", variant="", scale="FC16", benchmark="classes", trials=(trial,))
        for number, trial in enumerate(trials)
    ]
    text = printed(Sweep(name="s", store=None, cells=tuple(cells), resources=Resources()), absent)
    lines = [line for line in text.splitlines() if line.startswith("┃")]
    parts = [[part.strip() for part in line.split("┃")[1:-1]] for line in lines]
    header = [" ".join(filter(None, column)) for column in zip(*parts, strict=True)]
    return [dict(zip(header, row, strict=True)) for row in cells_of(text)]


def test_scenario_and_buffer_have_columns_where_there_is_something_to_tell(absent: Store) -> None:
    """A row without a buffer has none; a plan of the paper has neither column."""
    rows = planned(absent, rehearsal(200, Classes()), rehearsal(0, Classes()))
    assert [(row["scenario"], row["examples kept"]) for row in rows] == [("class", "200"), ("class", "-")]
    (row,) = planned(absent, rehearsal(0, Classes(scenario="domain")))
    assert row["scenario"] == "domain"
    assert "examples kept" not in row


def test_updates_follow_from_epochs_and_from_a_stream(absent: Store) -> None:
    """By hand, batches of 10: 2 epochs are 2 (10 + 25 + 5) updates; a stream is seen once; else as many as asked."""
    trials = [
        rehearsal(0, Classes(), batch_size=10, epochs_per_task=2),
        rehearsal(0, Classes(scenario="general"), batch_size=10),
        rehearsal(0, Classes(), batch_size=10, updates_per_task=7),
    ]
    assert [row["updates /task"] for row in planned(absent, *trials)] == ["27", "40 in all", "7"]
    assert [petaflop(trial) for trial in trials] == pytest.approx([2 * 10**9 * 10 * n / 1e15 for n in (80, 40, 21)])
    assert [estimated_work(trial) for trial in trials] == pytest.approx(
        [(10**9 * 10 + STEP_OVERHEAD) * n for n in (80, 40, 21)]
    )


def test_a_plan_is_neither_cut_nor_wrapped_without_a_terminal(sweep_file: SweepFile, absent: Store) -> None:
    """The longest label that there may be stands whole in one line of a log file."""
    label = "label-" * 16
    sweep = load_sweep(sweep_file(PAPER.replace("neuromodnet: {", f"{label}: {{method: neuromodnet, ")))
    text = printed(sweep, absent)
    assert cells_of(text)[0][0] == label
    assert "…" not in text


def test_numbers_stay_whole_in_a_terminal(paper: Sweep, absent: Store) -> None:
    """Eighty columns are what a terminal has at first: a count that is broken over two lines reads as another."""
    text = printed(paper, absent, width=80)
    for whole in ("1000", "1,299", "7,841", "268,800", "0/3"):
        assert whole in text


def test_the_names_and_counts_of_table_1_stay_whole_in_a_terminal(absent: Store) -> None:
    """The ratio has a column more than there is room for at eighty columns: something else gives way."""
    rows = cells_of(printed(load_sweep(SWEEPS / "table1.yaml"), absent, width=80))
    found = [row for row in rows if row[1]]  # without what is left of a label in the next line
    for names, shown in TABLE_1.items():
        label = "mtl (not" if names[0].startswith("mtl") else names[0]
        for params, ratio, _ in shown:
            assert any(row[:2] == [label, names[1]] and {params, ratio} <= set(row) for row in found), (names, params)


def test_machines_say_how_many_run_at_once_and_how_long(paper: Sweep, store: Store) -> None:
    """Eight trials share a GPU of 80 GiB; two seeds of 30 s at once take 30 s; others are said to be unknown."""
    done, *left = paper.cells[0].trials
    capacity = Capacity(nodes=(NodeResources(cpus=2, gpus=1),), gpu_memory=80 * 2**30)
    num_tasks = done.benchmark.problem().num_tasks
    tests = (2 * num_tasks - 1) * TEST_SECONDS  # each task when it was learned, all but the last once more
    write_finished(store, done, conditions=Conditions(task_seconds=(30.0 - tests) / num_tasks))
    file = io.StringIO()
    show_capacity(paper, store, capacity, Console(file=file, width=10_000, force_terminal=False))
    assert cells_of(file.getvalue()) == [
        ["neuromodnet", "", "FC256", "r-mnist", "0.125", "2", str(len(left)), "30 s"],
        ["flynet", "", "10d", "r-mnist", "0.125", "2", "3", "-"],
        ["supsup", "", "FC256", "r-mnist", "0.125", "2", "3", "-"],
    ]
    assert file.getvalue().startswith("paper on machines: 1, with 2 CPUs and 1 GPUs of 80 GiB")
    for fact in (" 30 s ", " 6 trials "):
        assert fact in file.getvalue()


def test_labels_are_shown_as_they_are(sweep_file: SweepFile, absent: Store) -> None:
    """Brackets in a label are part of it, not instructions to the display."""
    labels = ["[red]digits[/red]", "[/closed]", "lr [local]"]
    benchmarks = "".join(f"\n  '{label}': {{preset: r-digits, num_tasks: {i + 1}}}" for i, label in enumerate(labels))
    sweep = load_sweep(sweep_file(PAPER.replace(" [r-mnist]", benchmarks)))
    assert [row[3] for row in cells_of(printed(sweep, absent))[:3]] == labels


def test_the_plan_tells_the_time_and_what_departs(sweep_file: SweepFile, absent: Store) -> None:
    """How long it may take, within which bounds and why; the settings that are not the methods' own; the warnings."""
    text = printed(load_sweep(sweep_file(PAPER + "training: {updates_per_task: 100}\n")), absent)
    lines = text[text.rindex("┘") :].splitlines()[1:]
    assert lines[0] == ("not the default: 100 updates per task instead of 1000 updates: neuromodnet, flynet, supsup")
    assert lines[1].startswith("warning: 3 methods ")
    assert all(method in lines[1] for method in ("neuromodnet", "flynet", "supsup", "10 %"))
    time = r"time: about \S+ \w+ on this machine, between \S+ \w+ and \S+ \w+; \d+ in parallel on \d+ CPU cores?"
    assert re.fullmatch(time, lines[3])
    assert re.fullmatch(r"  9 trials from a count of operations, at \d+ billion multiply-adds per second .*", lines[4])
    assert len(lines) == 7


def test_the_json_has_every_trial(paper: Sweep, store: Store) -> None:
    """Identity, names, whether it is finished, counts and the resolved spec: enough to run it elsewhere."""
    done = paper.trials[1].trial_id
    write_finished(store, paper.trials[1])
    plan = json.loads(as_json(paper, store))
    assert (plan["sweep"], plan["store"]) == ("paper", str(store.root))
    assert [entry["trial_id"] for entry in plan["trials"]] == [trial.trial_id for trial in paper.trials]
    assert [entry["trial_id"] for entry in plan["trials"] if entry["finished"]] == [done]
    for entry, trial in zip(plan["trials"], paper.trials, strict=True):
        assert entry["spec"] == json.loads(trial.canonical_json())
        assert (entry["method"], entry["variant"], entry["benchmark"]) == (trial.method.kind, "", "r-mnist")
        assert (entry["scale"], entry["seed"]) == (trial.scale, trial.seed)
        assert entry["params_per_task"] == PARAMETERS[trial.method.kind]
        assert entry["petaflop"] == petaflop(trial)
        assert 0 < entry["seconds_least"] < entry["seconds"] < entry["seconds_most"]
        assert entry["departures"] == {}


# The paper's tables. Their parameters a task by hand: FC256 on 784 pixels has
# W = 784 * 256 + 256 * 256 + 256 * 10 = 268,800 weights; PSP a rotation of each layer's inputs besides,
# 784^2 + 256^2 + 256^2 numbers; BatchE W divided by the number of tasks, and 784 + 256 + 256 + 256 + 256 + 10 factors;
# FlyNet a context of 7,840 units, or a multiple, and a strength; NeuroModNet 784 + 2 H contexts and 3 strengths.

W = 268_800
TABLE_1 = {
    # method as it is shown, scale: params/task and ratio on r-mnist (36 tasks), and on p-mnist (100 tasks)
    ("mtl (not continual)", "FC256"): [("268,800", "1", W), ("268,800", "1", W)],
    ("psp", "FC256"): [("1,014,528", "3.77", 1_014_528)] * 2,
    ("batche", "FC256"): [("9,285", "0.0345", W / 36 + 1_818), ("4,506", "0.0168", 4_506)],
    ("supsup", "FC256"): [("268,800", "1", W)] * 2,
    ("flynet", "10d"): [("7,841", "0.0292", 7_841)] * 2,
    ("flynet", "20d"): [("15,681", "0.0583", 15_681)] * 2,
    ("flynet", "30d"): [("23,521", "0.0875", 23_521)] * 2,
    ("flynet", "40d"): [("31,361", "0.117", 31_361)] * 2,
    ("neuromodnet", "FC256"): [("1,299", "0.00483", 1_299)] * 2,
    ("neuromodnet", "FC512"): [("1,811", "0.00674", 1_811)] * 2,
    ("neuromodnet", "FC1024"): [("2,835", "0.0105", 2_835)] * 2,
    ("neuromodnet", "FC2048"): [("4,883", "0.0182", 4_883)] * 2,
    ("neuromodnet", "FC4096"): [("8,979", "0.0334", 8_979)] * 2,
}
PARAMS_COLUMN, RATIO_COLUMN = 8, 9


def plan_of(crwn: Crwn, file: Path) -> Any:
    """What `crwn plan --json` prints of a sweep file."""
    outcome = crwn("plan", file, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_the_plan_of_table_1_has_the_papers_counts(crwn: Crwn) -> None:
    """Table 1 as planned: 78 trials, and of each row the parameters a task and their ratio to MTL's."""
    outcome = crwn("plan", SWEEPS / "table1.yaml")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("table1: 78 trials")
    assert left_of(78) in outcome.out
    header = [[part.strip() for part in line.split("┃")[1:-1]] for line in outcome.out.splitlines()[2:4]]
    assert [[names[PARAMS_COLUMN], names[RATIO_COLUMN]] for names in header] == [
        ["params", "ratio to"],
        ["/task", "mtl"],
    ]
    found = [
        (row[0], row[2], row[3], row[4], row[7], row[PARAMS_COLUMN], row[RATIO_COLUMN]) for row in cells_of(outcome.out)
    ]
    assert found == [
        (*names, benchmark, "0 1 2", "0/3", params, ratio)
        for names, shown in TABLE_1.items()
        for benchmark, (params, ratio, _) in zip(("r-mnist", "p-mnist"), shown, strict=True)
    ]


def test_the_json_of_table_1_has_the_papers_counts_as_numbers(crwn: Crwn) -> None:
    """`--json`: every digit of the counts and ratios, not what is shown of them, and whether a method is continual."""
    plan = plan_of(crwn, SWEEPS / "table1.yaml")
    assert len(plan["trials"]) == 78
    expected = [
        (names[0].removesuffix(" (not continual)"), names[1], benchmark, seed, params, params / W)
        for names, shown in TABLE_1.items()
        for benchmark, (_, _, params) in zip(("r-mnist", "p-mnist"), shown, strict=True)
        for seed in (0, 1, 2)
    ]
    names = ("method", "scale", "benchmark", "seed", "params_per_task", "ratio")
    assert [tuple(entry[name] for name in names) for entry in plan["trials"]] == expected
    assert {entry["method"] for entry in plan["trials"] if entry["continual"] is not True} == {"mtl"}
    assert {entry["continual"] for entry in plan["trials"] if entry["method"] == "mtl"} == {False}
    trained = {entry["method"]: entry["trained_per_task"] for entry in plan["trials"] if entry["scale"] == "FC256"}
    assert trained == {"mtl": W, "psp": W, "batche": 1_818, "supsup": W, "neuromodnet": 1_299}


TABLE_2 = {
    # method, scale: params/task on split-cifar100 and on split-miniimagenet, and how many statistics are kept besides
    ("stl", "1d"): ("274,570", "11,179,072"),
    ("psp", "1d"): ("273,070", "11,169,472"),
    ("batche", "1d"): ("15,092", "567,634"),
    ("supsup", "1d"): ("273,070", "11,169,472"),
    ("neuromodnet", "1d"): ("4,968", "31,656"),
    ("neuromodnet, wider", "2d"): ("9,888", None),
    ("neuromodnet, wider", "4d"): ("19,728", None),
    ("neuromodnet, wider", "6d"): ("29,568", None),
}


def test_the_plan_of_table_2_has_the_papers_counts(crwn: Crwn) -> None:
    """Table 2 as planned, without any data: 39 trials, exact parameters a task, statistics on their own."""
    outcome = crwn("plan", SWEEPS / "table2.yaml")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("table2: 39 trials")
    rows = cells_of(outcome.out)
    assert [(row[0], row[2], row[3], row[PARAMS_COLUMN]) for row in rows] == [
        (*names, benchmark, params)
        for names, shown in TABLE_2.items()
        for benchmark, params in zip(("split-cifar100", "split-miniimagenet"), shown, strict=True)
        if params is not None
    ]
    # Twice the normalised channels: 750 of the reduced network, k times as many of a wider one, 4,800 of the standard.
    statistics = {(row[0], row[2], row[3]): row[12] for row in rows}
    assert statistics["stl", "1d", "split-cifar100"] == "1,500"
    assert statistics["neuromodnet, wider", "6d", "split-cifar100"] == "9,000"
    assert statistics["supsup", "1d", "split-miniimagenet"] == "9,600"
    assert {count for (method, _, _), count in statistics.items() if method == "psp"} == {"0"}


def test_the_pretrained_network_of_table_4_counts_its_shared_weights(crwn: Crwn) -> None:
    """FC4096: (784 * 4096 + 4096^2 + 4096 * 10) / 36 + 8,979 = 565,352 and a third, against 8,979 with random ones."""
    plan = plan_of(crwn, SWEEPS / "table4.yaml")
    assert {entry["variant"]: entry["params_per_task"] for entry in plan["trials"]} == {
        "random": 8_979,
        "pretrained": 20_029_440 / 36 + 8_979,
        "random, contexts at one": 8_979,
        "pretrained, contexts at one": 20_029_440 / 36 + 8_979,
    }
    shown = [row[PARAMS_COLUMN] for row in cells_of(crwn("plan", SWEEPS / "table4.yaml").out)]
    assert shown == ["8,979", "565,352"] * 2


@pytest.mark.parametrize(
    ("folder", "name", "num_trials", "shared"),
    [
        ("", "table3", 81, {("flynet", "local+global"): 12, ("neuromodnet", "local+global"): 15}),
        ("", "table4", 12, {("neuromodnet", "random"): 3}),
        ("small", "table3", 27, {("flynet", "local+global"): 6, ("neuromodnet", "local+global"): 3}),
        ("small", "table4", 6, {("neuromodnet", "random"): 3}),
    ],
)
def test_the_ablations_share_trials_with_table_1(
    crwn: Crwn, folder: str, name: str, num_trials: int, shared: dict[tuple[str, str], int]
) -> None:
    """Those with the paper's settings are Table 1's own, by identity and in one store: they are not run again."""
    first, other = (plan_of(crwn, SWEEPS / folder / f"{table}.yaml") for table in ("table1", name))
    assert first["store"] == other["store"]
    assert len(other["trials"]) == num_trials
    known = {entry["trial_id"]: entry["spec"] for entry in first["trials"]}
    both = [entry for entry in other["trials"] if entry["trial_id"] in known]
    assert collections.Counter((entry["method"], entry["variant"]) for entry in both) == shared
    assert all(known[entry["trial_id"]] == entry["spec"] for entry in both)


def test_the_small_tables_are_the_tables_of_the_paper_in_small(crwn: Crwn) -> None:
    """The methods and variants of each are those of its twin, with the same settings of the methods."""
    for table in ("table1", "table3"):
        large, small = (plan_of(crwn, SWEEPS / folder / f"{table}.yaml") for folder in ("", "small"))
        settings = [
            {entry["method"] + entry["variant"]: entry["spec"]["method"] for entry in plan["trials"]}
            for plan in (large, small)
        ]
        assert settings[0] == settings[1]


# What is shown of a reference, and of a method that is not continual

COMPARED = """\
name: compared
seeds: [0]
benchmarks: [r-digits]
methods: {both: {method: mtl, scales: [FC16]}, supsup: {scales: [FC16]}}
"""


def test_a_method_that_is_not_continual_is_marked(sweep_file: SweepFile, absent: Store) -> None:
    """Behind its label, whatever that is; in the JSON the label stays as it is and a field says so."""
    sweep = load_sweep(sweep_file(COMPARED))
    assert [row[0] for row in cells_of(printed(sweep, absent))] == ["both (not continual)", "supsup"]
    entries = json.loads(as_json(sweep, absent))["trials"]
    assert [(entry["method"], entry["continual"]) for entry in entries] == [("both", False), ("supsup", True)]


def test_without_a_reference_there_is_no_ratio(sweep_file: SweepFile, absent: Store) -> None:
    """No column of the plan, and null in its JSON; with one the column names it."""
    plain = load_sweep(sweep_file(COMPARED))
    assert "ratio to" not in printed(plain, absent)
    assert {entry["ratio"] for entry in json.loads(as_json(plain, absent))["trials"]} == {None}
    compared = load_sweep(sweep_file(COMPARED + "reference: both\n"))
    text = printed(compared, absent)
    assert re.search(r"ratio to.*\n.*\bboth\b", text)
    assert {entry["ratio"] for entry in json.loads(as_json(compared, absent))["trials"]} == {1.0}


def test_a_plan_refuses_what_cannot_be_run(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Exit code 2 and every fault at its line, of the reference and of the groups' sizes; nothing is written."""
    text = COMPARED.replace(
        "{both: {method: mtl, scales: [FC16]}, supsup: {scales: [FC16]}}",
        "\n  mtl: {scales: [FC16], group_size: 35}\n  psp: {scales: [FC16], group_size: 2}\n"
        "  stl: {scales: [FC16], group_size: 0}",
    )
    outcome = crwn("plan", sweep_file(text + "reference: mlt\n"))
    assert (outcome.code, outcome.out) == (2, "")
    first, *faults = [line.strip() for line in outcome.err.splitlines()]
    assert first.endswith("sweep.yaml: 4 faults; nothing was started")
    assert faults == [
        "line 5, methods.mtl.group_size: expected 36, given 35; this method learns all tasks at once",
        "line 6, methods.psp.group_size: expected 1, given 2; this method learns one task at a time",
        "line 7, methods.stl.group_size: expected greater than or equal to 1; given 0",
        "line 8, reference: expected one of mtl, psp, stl; given 'mlt'; did you mean 'mtl'?",
    ]
    assert list(workplace.iterdir()) == []
