"""The command line: its input, output, exit codes, and what it writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main

from crwn.code import RESULTS_VERSION
from crwn.trial import Event, iterate_trial
from crwn.trial_spec import TrialSpec
from orchestrator import cli
from orchestrator.execution import attempt, running
from orchestrator.execution.inline import InlineExecutor
from orchestrator.store import object_storage
from orchestrator.store.address import open_files
from orchestrator.store.folder import LocalFiles
from orchestrator.store.schemas import MARK_FILE
from orchestrator.store.store import Store
from tests.object_storage import ObjectStorage
from tests.said import (
    DRIVEN,
    DRIVEN_BY,
    INTERRUPTED,
    NOTHING_STARTED,
    all_done,
    failed,
    left_of,
    progress,
    states,
    to_run,
)

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err
SweepFile = Callable[..., Path]
Listing = Callable[[Path], dict[str, bytes]]

# Few flags on purpose: what can be set of a trial belongs into the sweep's file. A flag that is added or renamed must
# be added or renamed here, in the same change, for a reason.
OPTIONS = {
    "sweeps": ["[NAME]", "[TO]"],
    "plan": ["--cluster", "--json", "--out", "--plugin", "--seeds", "--set", "SWEEP"],
    "run": [
        "--cpus",
        "--data-root",
        "--executor",
        "--gpus",
        "--no-tracking",
        "--out",
        "--plugin",
        "--recompute",
        "--repair",
        "--seeds",
        "--set",
        "--tracking-uri",
        "SWEEP",
    ],
    "submit": [
        "--account",
        "--address",
        "--cpus",
        "--cpus-per-node",
        "--data-root",
        "--follow",
        "--gpus",
        "--gpus-per-node",
        "--no-tracking",
        "--nodes",
        "--out",
        "--partition",
        "--plugin",
        "--recompute",
        "--sbatch",
        "--seeds",
        "--set",
        "--slurm",
        "--time",
        "--tracking-uri",
        "--write",
        "SWEEP",
    ],
    "stop": ["--address", "JOB"],
    "status": ["--address", "--slurm", "--verbose", "-v", "[STORE|JOB]"],
    "contexts": ["--data-root", "--images", "--infer", "--similarity", "--to", "--where", "STORE"],
    "report": ["--paper", "--to", "STORE..."],
    "tables": ["--against", "--cols", "--paper", "--rows", "--sweep", "--to", "--value", "--where", "STORE"],
    "diff": ["--json", "--noise", "--where", "A", "B"],
    "doctor": sorted(
        [
            *("--cpus", "--data-root", "--executor", "--gpus", "--no-tracking", "--out", "--plugin", "--tracking-uri"),
            "SWEEP",
        ]
    ),
    "sync": ["--tracking-uri", "STORE"],
    "ui": ["--port", "RUNS"],
    "register": ["--name", "--tracking-uri", "STORE", "TRIAL"],
    "serve": ["--port", "STORE", "TRIAL"],
    "verify": ["STORE"],
    "accept": ["--code", "--results-version", "METHOD...", "STORE"],
    "new method": ["NAME"],
    "new network": ["NAME"],
    "data list": ["--data-root"],
    "data fetch": ["--data-root", "NAME"],
    "data verify": ["--data-root", "[NAME]..."],
}

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def table_of(text: str) -> list[str]:
    """The lines of the table in what was printed."""
    return [line for line in text.splitlines() if line.startswith(("│", "┃"))]


def times_of(folder: Path) -> dict[str, int]:
    """When each file below a folder was last written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def crwn(crwn: Crwn) -> Crwn:
    """The command line; a run shows nothing in MLflow, whose process costs seconds (test_following.py is about it)."""

    def call(*arguments: object, tracking: bool = False) -> Any:
        return crwn(*arguments, *([] if tracking or arguments[:1] != ("run",) else ["--no-tracking"]))

    return call


@pytest.fixture
def failing_seeds(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Trials with these seeds fail; the set can be changed."""
    seeds: set[int] = set()

    def iterate(spec: TrialSpec, **named: Any) -> Iterator[Event]:
        if spec.seed in seeds:
            raise RuntimeError(f"no luck with seed {spec.seed}")
        yield from iterate_trial(spec, **named)

    monkeypatch.setattr(attempt, "iterate_trial", iterate)
    return seeds


# The commands


def test_the_commands_and_their_options_are_frozen() -> None:
    """A new flag is a decision, not an accident."""

    def options_of(command: Any, path: str = "") -> dict[str, list[str]]:
        if hasattr(command, "commands"):  # a group
            return {
                name: options
                for part, sub in command.commands.items()
                for name, options in options_of(sub, f"{path} {part}".strip()).items()
            }
        shown = [
            text
            for parameter in command.params
            for text in (parameter.opts if parameter.param_type_name == "option" else [parameter.metavar])
        ]
        return {path: sorted(shown)}

    assert options_of(typer.main.get_command(cli.app)) == OPTIONS


@pytest.mark.parametrize("arguments", [["--help"], []])
@pytest.mark.parametrize("group", [[], ["data"]])
def test_help_lists_the_commands(crwn: Crwn, group: list[str], arguments: list[str]) -> None:
    """Each with its first sentence, not cut off. Without a command there is help too, and the exit code is 2."""
    shown = crwn(*group, *arguments)
    assert shown.code == (0 if arguments else 2)
    names = {tuple(name.split())[len(group)] for name in OPTIONS if name.split()[: len(group)] == group}
    assert len(names) > 2
    for name in names:
        assert re.search(rf"^  {name} +[A-Z].*[^.]\.$", shown.out + shown.err, re.MULTILINE)


@pytest.mark.parametrize("command", list(OPTIONS))
def test_every_command_and_option_is_explained(crwn: Crwn, command: str) -> None:
    """Every command and option has a description."""
    shown = crwn(*command.split(), "--help")
    assert shown.code == 0
    for option in OPTIONS[command]:
        assert re.search(rf"{re.escape(option)}.*\s\s+\S", shown.out), option


def test_help_has_a_short_name_and_the_version_is_told(crwn: Crwn) -> None:
    """`-h` of every command is its `--help`; `--version` also tells the version of results."""
    for command in ([], *(name.split() for name in OPTIONS)):
        assert crwn(*command, "-h") == crwn(*command, "--help")
    shown = crwn("--version")
    assert shown.code == 0
    assert shown.out == f"crwn {metadata.version('crwn')}, results version {RESULTS_VERSION}\n"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["fly"], "'fly'"),
        (["run"], "'SWEEP'"),
        (["tables"], "'STORE'"),
        (["run", "a.yaml", "--fast"], "--fast"),
        (["run", "a.yaml", "--gpus", "many"], "'--gpus'"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(crwn: Crwn, arguments: list[str], match: str) -> None:
    """With the command's usage."""
    ended = crwn(*arguments)
    assert ended.code == 2
    assert match in ended.err
    assert ended.err.startswith("Usage: ")


# Planning


def test_plan_needs_no_data_and_writes_nothing(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path, tmp_path: Path, listing: Listing
) -> None:
    """On a machine without data sets: rows with exact counts, and everything is as it was."""
    file = sweep_file(
        "seeds: [0, 1]\nbenchmarks: [r-mnist, p-mnist]\n"
        "methods: {neuromodnet: {scales: [FC256]}, flynet: {scales: [10d]}, supsup: {scales: [FC256]}}\n"
    )
    before = listing(tmp_path)
    shown = crwn("plan", file)
    assert shown.code == 0
    assert shown.err == ""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table_of(shown.out) if line[0] == "│"]
    assert [(row[0], row[3], row[8]) for row in rows] == [
        (method, benchmark, count)
        for method, count in (("neuromodnet", "1,299"), ("flynet", "7,841"), ("supsup", "268,800"))
        for benchmark in ("r-mnist", "p-mnist")
    ]
    assert left_of(12) in shown.out
    assert NOTHING_STARTED in shown.out
    assert str(workplace / "runs" / "sweep") in shown.out
    assert listing(tmp_path) == before


def test_plan_as_json_is_json(crwn: Crwn, sweep_file: SweepFile, workplace: Path, listing: Listing) -> None:
    """Every trial, and nothing else on the output."""
    shown = crwn("plan", sweep_file(), "--json")
    assert shown.code == 0
    plan = json.loads(shown.out)
    assert [(entry["seed"], entry["finished"]) for entry in plan["trials"]] == [(0, False), (1, False)]
    assert plan["store"] == str(workplace / "runs" / "tiny")
    assert listing(workplace) == {}


# Running


def test_run_ends_with_the_table_and_where_everything_is(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Progress in plain lines, the table, the places of results, tables and contexts; they are there."""
    ended = crwn("run", sweep_file())
    assert (ended.code, ended.err) == (0, "")
    store = workplace / "runs" / "tiny"
    lines = ended.out.splitlines()
    assert lines[0] == f"{to_run('tiny', 2)}; executor inline; {store}"
    assert [line for line in lines if line.startswith("warning: ")] == [lines[1]]
    for fact in ("neuromodnet (0 % ", " 0.01)"):
        assert fact in lines[1]
    assert any(line.startswith(progress(2, 2)) for line in lines)
    assert re.search(r"│ neuromodnet │ FC16 +│ \d+\.\d\d ± \d+\.\d\d \(n=2\) │ +99 │", ended.out)
    assert lines[-3:] == [
        f"results   {store}",
        f"tables    {store}/report/tiny.md and .csv",
        f"contexts  {store}/trials/*/contexts.safetensors",
    ]
    assert (store / "report" / "tiny.md").is_file()
    assert (store / "report" / "tiny.csv").is_file()
    assert len(list(store.glob("trials/*/contexts.safetensors"))) == 2
    assert "\x1b" not in ended.out


def test_running_again_repeats_nothing(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """The same table comes out; no file of a trial is touched."""
    first = crwn("run", sweep_file())
    before = times_of(workplace / "runs/tiny/trials")
    again = crwn("run", sweep_file())
    assert again.code == 0
    assert again.out.startswith(all_done("tiny", 2) + "\n")
    assert table_of(again.out) == table_of(first.out) != []
    assert times_of(workplace / "runs/tiny/trials") == before


def test_a_new_seed_runs_alone(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Adding to a sweep keeps what is there; taking away again leaves it in the store."""
    crwn("run", sweep_file())
    before = times_of(workplace / "runs/tiny/trials")
    larger = sweep_file(sweep_file().read_text().replace("[0, 1]", "[0, 1, 7]"))
    ended = crwn("run", larger)
    assert ended.code == 0
    assert ended.out.startswith(to_run("tiny", 1, 2))
    assert "(n=3)" in ended.out
    after = times_of(workplace / "runs/tiny/trials")
    assert {name: after[name] for name in before} == before
    assert len({name.split("/")[0] for name in after}) == 3
    smaller = crwn("run", sweep_file())
    assert smaller.out.startswith(all_done("tiny", 2))
    assert "(n=2)" in smaller.out
    assert times_of(workplace / "runs/tiny/trials") == after


def test_some_seeds_run_and_the_store_asks_for_all(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """`--seeds` chooses what runs now. The sweep asks for the others too, so they show as left, and run later."""
    plan = json.loads(crwn("plan", sweep_file(), "--seeds", "1", "--json").out)
    assert [entry["seed"] for entry in plan["trials"]] == [1]
    first = crwn("run", sweep_file(), "--seeds", "1")
    assert first.code == 0
    assert first.out.startswith(to_run("tiny, seeds 1", 1))
    assert "(1/2)" in first.out
    assert states("tiny", 2, done=1, left=1) in crwn("status", workplace / "runs/tiny").out
    again = crwn("run", sweep_file(), "--seeds", "1")
    assert (again.code, again.out.splitlines()[0]) == (0, all_done("tiny, seeds 1", 1))
    rest = crwn("run", sweep_file())
    assert rest.out.startswith(to_run("tiny", 1, 1))
    assert "(n=2)" in rest.out


@pytest.mark.parametrize(
    ("seeds", "code"),
    [
        *[(seeds, "unknown-seed") for seeds in ("2", "0,2")],
        *[(seeds, "not-seeds") for seeds in ("0,0", "", "0,", "-1", "0-1", "01", "a")],
    ],
)
def test_seeds_that_are_not_the_sweeps_start_nothing(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path, seeds: str, code: str
) -> None:
    """Another seed is a change of the sweep, and the error says how to make it."""
    refused(crwn("run", sweep_file(), "--seeds", seeds), code, says="--seeds: ")
    assert list(workplace.iterdir()) == []


def test_changes_of_the_command_line_are_kept_in_the_manifest(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path
) -> None:
    """Other settings are other trials; the store knows what was changed, and the next run without it says so."""
    change = "methods.neuromodnet.training.learning_rate=0.001"
    changed = crwn("run", sweep_file(), "--seeds", "0", "--set", change)
    assert changed.code == 0
    assert changed.out.splitlines()[0] == f"--set {change}"
    store = Store(workplace / "runs/tiny")
    manifest = store.manifest("tiny")
    assert manifest.changes == (change,)
    assert manifest.cells[0].spec.values["training"]["learning_rate"] == 0.001
    assert states(f"tiny (--set {change})", 2, done=1, left=1) in crwn("status", store.address).out
    plain = crwn("run", sweep_file())
    assert plain.out.startswith(f"note: tiny last ran --set {change}. Its table now shows this run's trials")
    assert to_run("tiny", 2) in plain.out
    assert store.manifest("tiny").changes == ()
    assert len(store.trial_ids()) == 3


def test_a_change_that_cannot_be_made_starts_nothing(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Exit code 2, the option instead of a line, and the nearest name."""
    ended = crwn("run", sweep_file(), "--set", "methods.neuromodnt.scales=[FC8]")
    refused(ended, "unknown-name", says=["  --set methods.neuromodnt.scales=[FC8]: ", "'neuromodnet'?"])
    assert list(workplace.iterdir()) == []


def test_the_store_is_the_sweeps_own_unless_the_command_names_one(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path
) -> None:
    """`store:` wins over runs/NAME, `--out` over both; both are seen from the working folder."""
    file = sweep_file(sweep_file().read_text() + "store: results/shared\n")
    assert json.loads(crwn("plan", file, "--json").out)["store"] == str(workplace / "results" / "shared")
    assert crwn("run", file, "--out", "elsewhere").code == 0
    assert sorted(path.name for path in workplace.iterdir()) == ["elsewhere"]
    assert crwn("run", file).code == 0
    assert sorted(path.name for path in workplace.iterdir()) == ["elsewhere", "results"]
    assert len(Store(workplace / "results" / "shared").trial_ids()) == 2


def test_sweeps_that_share_a_store_share_their_trials(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """The second finds its trials done under its own names; the tables of both are there."""
    text = sweep_file().read_text() + "store: shared\n"
    crwn("run", sweep_file(text))
    renamed = text.replace("name: tiny", "name: other")
    renamed = renamed.replace("neuromodnet: {", "own name: {method: neuromodnet, ")
    ended = crwn("run", sweep_file(renamed, "other.yaml"))
    assert ended.code == 0
    assert ended.out.startswith(all_done("other", 2))
    assert "own name" in ended.out
    assert sorted(path.name for path in (workplace / "shared" / "report").iterdir()) == [
        f"{name}.{ending}" for name in ("other", "tiny") for ending in ("csv", "md", "parquet", "tex")
    ]


def test_a_store_on_object_storage_is_one_as_any(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path, storage: ObjectStorage
) -> None:
    """Every command takes its address, as `--out` or in the sweep; nothing is written here, and tables are equal."""
    address = storage.new_address()
    ended = crwn("run", sweep_file(), "--out", address)
    assert ended.code == 0, ended.err
    prefix = address.partition("?")[0]
    assert ended.out.splitlines()[-3:] == [
        f"results   {address}",
        f"tables    {prefix}/report/tiny.md and .csv",
        f"contexts  {prefix}/trials/*/contexts.safetensors",
    ]
    again = crwn("run", sweep_file(sweep_file().read_text() + f"store: '{address}'\n"))
    assert again.out.startswith(all_done("tiny", 2))
    assert table_of(again.out) == table_of(ended.out)
    assert json.loads(crwn("plan", sweep_file(), "--json", "--out", address).out)["store"] == address
    status = crwn("status", address, "-v").out.splitlines()
    assert status[:2] == [f"{address}: no run is working on it", "tiny: 2 trials: 2 done, 0 left"]
    assert sorted(path.name for path in workplace.iterdir()) == []
    tables = crwn("tables", address)
    assert tables.out.splitlines()[-4:-2] == [f"{prefix}/report/tiny.md", f"{prefix}/report/tiny.csv"]
    elsewhere = open_files(storage.new_address())
    for to, files in ((elsewhere.address, elsewhere), ("here", open_files(workplace / "here"))):
        assert crwn("tables", address, "--to", to).code == 0
        assert {name: files.read(name) for name in files.names("")} == {
            name: open_files(address).read(f"report/{name}")
            for name in ("tiny.csv", "tiny.md", "tiny.parquet", "tiny.tex")
        }


@pytest.mark.usefixtures("plain_figures")
def test_one_page_over_stores(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Into the first store's report, or where the user says; what is no store is refused."""
    assert crwn("run", sweep_file(), "--out", "one").code == 0
    written = crwn("report", "one", "one")
    assert written.out.splitlines() == [str(workplace / "one/report" / name) for name in ("report.html", "figures")]
    page = (workplace / "one/report/report.html").read_text()
    assert page.count("2 of 2 trials done") == 2
    assert crwn("report", "one", "--to", "elsewhere").code == 0
    assert (workplace / "elsewhere/figures/tiny-r-digits-tasks.pdf").exists()
    refused(crwn("report", "one", "two"), "store-missing", says="two")


@pytest.mark.parametrize(
    "arguments",
    [
        ("tables", "runs/any", "--paper"),
        ("report", "runs/any", "--paper"),
        ("tables", "--paper", "runs/any"),
        ("tables", "runs/any", "--paper", "--sweep", "tiny"),
        ("report", "runs/any", "--paper", "hong"),
    ],
)
def test_a_paper_is_asked_for_by_its_name(crwn: Crwn, arguments: tuple[str, ...]) -> None:
    """The flag that it once was, and a wrong name, are answered with what to type."""
    refused(crwn(*arguments), "unknown-name", says=["--paper: ", "hong2022"])


@pytest.mark.usefixtures("plain_figures")
def test_a_papers_tables_and_claims_are_written_for_whoever_asks(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path
) -> None:
    """Of a store that has none of its trials, the tables with what is missing, and every claim open."""
    assert crwn("run", sweep_file(), "--out", "one", "--no-tracking").code == 0
    assert "NeuroModNet FC4096" in crwn("tables", "one", "--paper", "hong2022").out
    assert (workplace / "one/report/paper-hong2022-table1.tex").is_file()
    assert crwn("report", "one", "--paper", "hong2022").code == 0
    assert (workplace / "one/report/figures/claims.csv").read_text().count(",open\n") == 9


def test_a_driver_elsewhere_refuses_a_run_and_one_that_was_cut_off_does_not(
    crwn: Crwn, sweep_file: SweepFile, storage: ObjectStorage
) -> None:
    """`status` says who they are, and so does `run`."""
    address = storage.new_address()
    files = open_files(address)
    Store(address).create()
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    lease = {"user": "ann", "host": "elsewhere", "pid": 12, "since": time.time() - 100, "renewed": time.time()}
    ended = {**lease, "user": "bob", "host": socket.gethostname(), "pid": child.pid, "renewed": time.time() - 7200}
    files.write("leases/run/live.json", json.dumps(lease).encode())
    files.write("leases/run/old.json", json.dumps(ended).encode())
    status = crwn("status", address).out.splitlines()
    assert status[0] == f"{address}: a run is working on it"
    assert status[1].startswith("  running: ann on elsewhere, process 12, since ")
    assert status[2].startswith(f"  was cut off: bob on {socket.gethostname()}, process {child.pid}, since ")
    assert status[2].endswith("last sign of life 2 h ago")
    refused = crwn("run", sweep_file(), "--out", address)
    assert refused.code == 2
    assert f"{DRIVEN_BY}: ann on elsewhere, process 12, " in refused.err
    files.remove("leases/run/live.json")
    done = crwn("run", sweep_file(), "--out", address)
    assert done.code == 0
    assert done.out.startswith(f"note: an earlier run on this store was cut off: bob on {socket.gethostname()}, ")
    assert files.names("leases/run") == []


def test_storage_that_goes_away_in_a_run_is_one_line(
    crwn: Crwn, sweep_file: SweepFile, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its patience, only the trial fails, the exit code is 1, and the same command resumes later."""
    monkeypatch.setattr(object_storage, "PATIENCE", 0.0)  # pyarrow's own attempts take seconds
    address = storage.new_address()
    file = sweep_file(sweep_file().read_text().replace("[0, 1]", "[0]"))
    run = InlineExecutor.run

    def without_storage(*arguments: Any) -> None:
        storage.stop()
        try:
            run(*arguments)
        finally:
            storage.start()

    with monkeypatch.context() as patch:
        patch.setattr(InlineExecutor, "run", without_storage)
        ended = crwn("run", file, "--out", address, "--executor", "inline")
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert ended.out.count("failed: neuromodnet FC16, r-digits, seed") == 1
    assert "the storage is unavailable" in ended.out
    assert crwn("run", file, "--out", address).code == 0


def test_mlflow_of_a_store_on_object_storage_is_here(crwn: Crwn) -> None:
    """`ui` wants a folder, and says which."""
    refused(crwn("ui", "s3://bucket/runs"), "not-a-folder", says="crwn sync STORE")


def test_labels_of_any_kind_come_through(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Brackets, bars, commas and letters of other scripts are in the printed table, in Markdown and in CSV."""
    text = sweep_file().read_text().replace("r-digits: {", "'[red] a|b, ü': {preset: r-digits, ")
    ended = crwn("run", sweep_file(text))
    assert ended.code == 0
    assert "[red] a|b, ü" in ended.out
    report = workplace / "runs/tiny/report"
    assert "[red] a\\|b, ü" in (report / "tiny.md").read_text(encoding="utf-8")
    assert '"[red] a|b, ü"' in (report / "tiny.csv").read_text(encoding="utf-8")


def test_a_run_ends_with_where_mlflow_shows_it(
    crwn: Crwn, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command for the stores' own database, else the address; a password is not printed."""
    monkeypatch.setattr(running, "followed", lambda *_: contextlib.nullcontext())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert crwn("run", sweep_file(), tracking=True).out.splitlines()[-1] == "mlflow    crwn ui runs"
    ended = crwn("run", sweep_file(), "--out", "my stores/tiny", tracking=True)
    assert ended.out.splitlines()[-1] == "mlflow    crwn ui 'my stores'"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server:5000")
    assert crwn("run", sweep_file(), tracking=True).out.splitlines()[-1] == "mlflow    http://me:***@server:5000"
    ended = crwn("run", sweep_file(), "--tracking-uri", "http://other", tracking=True)
    assert ended.out.splitlines()[-1] == "mlflow    http://other"


def test_a_polite_end_is_an_interruption(crwn: Crwn, sweep_file: SweepFile) -> None:
    """SIGTERM, as schedulers send it, is treated like Ctrl-C, which counts where a shell had it ignored, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    crwn("run", sweep_file())
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_how_to_go_on(
    crwn: Crwn, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch, sign: signal.Signals
) -> None:
    """Ctrl-C, a scheduler or a terminal that is closed: code 130, and nothing of what follows is cut off by another."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    monkeypatch.setattr(InlineExecutor, "run", lambda *_: signal.raise_signal(sign))
    ended = crwn("run", sweep_file())
    assert ended.code == 130
    assert "0/2 trials done" in ended.out
    assert f"{INTERRUPTED}crwn run" in ended.err
    assert signal.getsignal(sign) is signal.SIG_IGN


def test_under_nohup_a_hang_up_stays_ignored(crwn: Crwn, sweep_file: SweepFile) -> None:
    """That is the purpose of nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    crwn("run", sweep_file())
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_before_or_after_the_start_is_told_by_the_exit_code(
    *, crwn: Crwn, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """2 if nothing was started, 1 otherwise: either way, one line, and the same command resumes."""
    write = LocalFiles.write
    last = {"name": MARK_FILE}

    def refuse(files: LocalFiles, name: str, content: bytes) -> None:
        if name == last["name"]:
            raise OSError(number, os.strerror(number), name)
        write(files, name, content)

    monkeypatch.setattr(LocalFiles, "write", refuse)
    before = crwn("run", sweep_file())
    assert (before.code, before.err.count("\n")) == (2, 1)
    for name in ("sweeps/tiny.json", "tiny.md"):
        last["name"] = name
        after = crwn("run", sweep_file())
        assert (after.code, after.err.count("\n")) == (1, 1)
        assert os.strerror(number) in after.err
        assert after.err.endswith("the same command continues.\n")
    last["name"] = ""
    assert crwn("run", sweep_file()).code == 0


def test_of_tables_that_are_written_in_part_the_exit_code_tells(
    crwn: Crwn, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing written is 2, the first files written 1."""
    crwn("run", sweep_file())
    refused = "tiny.md"

    def refuse(files: LocalFiles, name: str, content: bytes) -> None:
        if name == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    monkeypatch.setattr(LocalFiles, "write", refuse)
    assert crwn("tables", "runs/tiny").code == 2
    refused = "tiny.csv"
    assert crwn("tables", "runs/tiny").code == 1


def test_a_file_that_may_not_be_read_is_one_line(
    crwn: Crwn, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no traceback, whatever the system's error."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    crwn("run", sweep_file())
    monkeypatch.setattr(LocalFiles, "names", refuse)
    ended = crwn("status", "runs/tiny")
    assert (ended.code, ended.err) == (2, "error: [Errno 13] Permission denied: 'x'\n")


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(crwn: Crwn, sweep_file: SweepFile) -> None:
    """In the sweep, for the store and for what is written from it; another user's must be known."""
    store = Path.home() / "runs" / "x"
    named = sweep_file(sweep_file().read_text() + "store: ~/runs/x\n", name="named.yaml")
    for arguments in ([named], [sweep_file(), "--out=~/runs/x"]):
        assert json.loads(crwn("plan", *arguments, "--json").out)["store"] == str(store)
    assert crwn("run", named).code == 0
    assert (store / "store.json").exists()
    assert not Path("~").exists()
    assert crwn("status", "~/runs/x").out.startswith(f"{store}: ")
    assert crwn("tables", "~/runs/x", "--to", "~/tables").code == 0
    assert (Path.home() / "tables" / "tiny.md").exists()
    assert crwn("diff", "~/runs/x", store).code == 0
    assert crwn("plan", "~/../named.yaml").code == 0
    assert crwn("plan", sweep_file(), "--out", "~nobody-here/x").codes == ("no-home-folder",)
    unknown = sweep_file(sweep_file().read_text() + "store: ~nobody-here/x\n", name="unknown.yaml")
    refused(crwn("run", unknown), "no-home-folder", says=["store: ", "'~nobody-here/x'"])


# Failing


def test_a_failed_trial_ends_with_1_and_is_tried_again(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path, failing_seeds: set[int]
) -> None:
    """The others are kept and shown with what is missing; the same command then runs the failed one alone."""
    failing_seeds.add(1)
    ended = crwn("run", sweep_file())
    assert ended.code == 1
    error = "RuntimeError: no luck with seed 1"
    assert failed("neuromodnet FC16, r-digits, seed 1", error) in ended.out
    assert progress(1, 2, 1) in ended.out
    assert "(1/2)" in ended.out
    traceback = re.search(r"^traceback: (.*)$", ended.out, re.MULTILINE)
    assert traceback is not None
    assert error in Path(traceback[1]).read_text()
    assert "Traceback" not in ended.out + ended.err

    before = times_of(workplace / "runs/tiny/trials")
    failing_seeds.clear()
    again = crwn("run", sweep_file())
    assert again.code == 0
    assert again.out.startswith(to_run("tiny", 1, 1))
    assert "(n=2)" in again.out
    after = times_of(workplace / "runs/tiny/trials")
    kept = [name for name in before if not name.endswith("attempts.json")]
    assert len(kept) == 4
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert not any(name.endswith("attempts.json") for name in after)


def test_a_trial_that_diverges_fails_with_advice(crwn: Crwn, sweep_file: SweepFile) -> None:
    """Settings that are allowed but too wild cost their own trials only."""
    text = sweep_file().read_text().replace("[0, 1]", "[0]").replace("[FC16]}", "[FC16], variants: VARIANTS}")
    ended = crwn("run", sweep_file(text.replace("VARIANTS", "{good: , wild: {settings: {initial_strength: 1e30}}}")))
    assert ended.code == 1
    assert progress(1, 2, 1) in ended.out
    assert re.search(r"failed: .*initial_strength=1e\+30.*training diverged\. Lower the learning rate", ended.out)
    assert re.search(r"│ neuromodnet │ good +│ FC16 +│ \d", ended.out)
    assert re.search(r"│ neuromodnet │ wild +│ FC16 +│ +- \(0/1\) │", ended.out)


# Wrong input: code 2, a few lines, nothing written


def refused(ended: Any, *codes: str, says: str | Sequence[str] = ()) -> None:
    """The command refused its input for the faults with these codes, in a few lines, which have these facts in them."""
    assert (ended.code, ended.codes) == (2, codes), ended.err
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) <= 12
    for fact in [says] if isinstance(says, str) else says:
        assert fact in ended.err


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("old", "new", "code", "facts"),
    [
        ("neuromodnet:", "neuromodnt:", "unknown-name", ["line 5, methods.neuromodnt", "'neuromodnet'?"]),
        ("r-digits", "r-digit", "unknown-name", ["line 3, benchmarks.r-digit", "'r-digits'?"]),
        ("FC16", "10d", "unknown-scale", ["line 5, methods.neuromodnet", " FC256 ", "'10d'"]),
        ("updates_per_task", "updates", "unknown-key", ["line 4, training.updates: ", "updates_per_task"]),
        ("updates_per_task: 5", "updates_per_task: '5'", "wrong-type", ["'5'"]),
        ("seeds: [0, 1]", "seeds: []", "empty", ["line 2, seeds: "]),
        ("seeds: [0, 1]", "seeds: [0, 0]", "same-trials-twice", ["line 2, seeds[1]: "]),
        ("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]", "repeated-key", ["line 2, seeds: ", "line 3"]),
        ("seeds: [0, 1]", "seeds: [0, 1", "file-not-yaml", []),
        ("seeds: [0, 1]", "seeds: !!python/object/apply:os.system [ls]", "yaml-tag", ["line 2, seeds"]),
        ("name: tiny", "name: ../tiny", "name-no-filename", ["line 1, name: ", " 100 "]),
    ],
)
def test_a_faulty_sweep_is_refused(
    *,
    crwn: Crwn,
    sweep_file: SweepFile,
    workplace: Path,
    listing: Listing,
    command: str,
    old: str,
    new: str,
    code: str,
    facts: list[str],
) -> None:
    """Planning and running find the same faults; neither makes a folder."""
    file = sweep_file(sweep_file().read_text().replace(old, new))
    refused(crwn(command, file), code, says=[str(file), *facts])
    assert listing(workplace) == {}


def test_a_missing_sweep_is_refused(crwn: Crwn, workplace: Path, listing: Listing) -> None:
    """A mistyped path is named."""
    refused(crwn("run", "sweeps/none.yaml"), "file-unreadable", says="sweeps/none.yaml: ")
    assert listing(workplace) == {}


@pytest.mark.parametrize(
    ("options", "code", "facts"),
    [
        (["--executor", "rayy"], "unknown-name", ["--executor: ", " inline, ray;", "'rayy'", "'ray'?"]),
        (["--gpus", 5000, "--executor", "inline"], "resources-too-large", [" 5000 GPUs"]),
        (["--cpus", 100_000], "resources-too-large", [" 100000 CPUs", "--cpus"]),
        (["--gpus", 1.5], "gpus-no-share", ["--gpus", " 1.5"]),
        (["--gpus", -1], "too-small", ["--gpus: ", " -1"]),
        (["--cpus", 0], "too-small", ["--cpus: ", " 0"]),
        (["--data-root", "nowhere"], "not-a-folder", ["--data-root: ", "'nowhere'"]),
        (["--out", "mine"], "folder-in-use", ["mine: ", "--out"]),
        (["--out", "mine/thesis.tex"], "not-a-folder", ["mine/thesis.tex: ", "--out"]),
        (["--out", "mine/thesis.tex/store"], "folder-not-writable", ["mine/thesis.tex/store: ", "--out"]),
        (["--out", "http://server/runs"], "address-unknown", ["s3://bucket/prefix", "--out"]),
        (["--tracking-uri", "http://x"], "options-conflict", ["--tracking-uri", "--no-tracking"]),
        (["--out", "newer"], "newer-version", ["newer: ", " 1 ", " 2"]),
    ],
)
def test_a_wrong_option_is_refused(
    *,
    crwn: Crwn,
    sweep_file: SweepFile,
    workplace: Path,
    listing: Listing,
    options: list[object],
    code: str,
    facts: list[str],
) -> None:
    """What was expected, what was given, what to do; what was in the folder is as it was."""
    (workplace / "mine").mkdir()
    (workplace / "mine" / "thesis.tex").write_text("years of work")
    (workplace / "newer").mkdir()
    (workplace / "newer" / "store.json").write_text('{"format": "crwn-store", "version": [2, 0]}')
    before = listing(workplace)
    refused(crwn("run", sweep_file(), *options), code, says=facts)
    assert listing(workplace) == before


def mnist_sweep(sweep_file: SweepFile) -> Path:
    """The tiny sweep on MNIST."""
    return sweep_file(sweep_file().read_text().replace("r-digits", "r-mnist"))


def test_damaged_data_is_refused(crwn: Crwn, sweep_file: SweepFile, workplace: Path, listing: Listing) -> None:
    """A file of the right name with the wrong bytes: its path, its size, both hashes, and what to do."""
    raw = workplace / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_FILES:
        (raw / name).write_bytes(b"half a file")
    before = listing(workplace)
    facts = ["'mnist'", str(raw / MNIST_FILES[0]), "11 bytes", "ba891046"]
    refused(crwn("run", mnist_sweep(sweep_file), "--data-root", "data"), "checksum-differs", says=facts)
    assert listing(workplace) == before


def test_data_of_which_a_part_is_missing_is_refused(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """The files that are missing are named."""
    raw = workplace / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / MNIST_FILES[0]).write_bytes(b"...")
    ended = crwn("run", mnist_sweep(sweep_file), "--data-root", "data")
    refused(ended, "data-set-incomplete", says=MNIST_FILES[1:])
    assert not (workplace / "runs").exists()


def test_a_store_that_another_run_drives_is_refused(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """The second of two runs on one store ends at once; status tells that there is one."""
    store = Store(workplace / "runs" / "tiny")
    store.create()
    with store.lock():
        refused(crwn("run", sweep_file()), "store-driven", says="crwn status")
        assert DRIVEN in crwn("status", "runs/tiny").out
    assert store.trial_ids() == []


# Looking


@pytest.mark.parametrize("command", ["status", "tables"])
def test_a_store_that_is_not_there_is_refused(crwn: Crwn, workplace: Path, listing: Listing, command: str) -> None:
    """A mistyped folder is named, and how a store is made."""
    refused(crwn(command, "runs/tiny"), "store-missing", says=["runs/tiny: ", "crwn run"])
    assert listing(workplace) == {}


@pytest.mark.parametrize("command", ["status", "tables"])
def test_a_sweep_given_for_a_store_is_refused(crwn: Crwn, sweep_file: SweepFile, command: str) -> None:
    """The two are easily mixed up; the advice must be one that this command can follow."""
    ended = crwn(command, sweep_file())
    refused(ended, "not-a-folder", says="runs/quickstart")
    assert "--out" not in ended.err


def test_status_before_during_and_after(
    crwn: Crwn, sweep_file: SweepFile, workplace: Path, failing_seeds: set[int]
) -> None:
    """Failed trials are shown with their errors, finished ones are counted; -v has a line for every trial."""
    failing_seeds.add(1)
    crwn("run", sweep_file())
    failed = crwn("status", "runs/tiny")
    assert failed.code == 0
    lines = failed.out.splitlines()
    assert lines[0] == f"{workplace / 'runs/tiny'}: no run is working on it"
    assert lines[1] == "tiny: 2 trials: 1 done, 1 failed, 0 left"
    pattern = r"  failed [0-9a-f]{16} neuromodnet FC16 r-digits seed 1: RuntimeError: no luck with seed 1"
    assert re.fullmatch(pattern, lines[2])
    assert len(lines) == 3

    failing_seeds.clear()
    crwn("run", sweep_file())
    assert crwn("status", "runs/tiny").out.splitlines()[1:] == ["tiny: 2 trials: 2 done, 0 left"]
    for flag in ("-v", "--verbose"):
        _, _, *trials = crwn("status", "runs/tiny", flag).out.splitlines()
        patterns = [rf"  done        [0-9a-f]{{16}} neuromodnet FC16 r-digits seed {seed}" for seed in (0, 1)]
        assert [re.fullmatch(pattern, line) is not None for pattern, line in zip(patterns, trials, strict=True)] == [
            True,
            True,
        ]


def test_looking_writes_nothing(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Neither plan nor status changes a store."""
    crwn("run", sweep_file())
    before = times_of(workplace)
    crwn("plan", sweep_file())
    crwn("status", "runs/tiny", "-v")
    assert times_of(workplace) == before


def test_tables_are_written_where_they_are_asked_for(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Into the folder named, or the store's report; the same bytes as the run's own, and the table on the screen."""
    run = crwn("run", sweep_file())
    own = workplace / "runs/tiny/report"
    ended = crwn("tables", "runs/tiny", "--to", "paper/tables")
    assert ended.code == 0
    assert table_of(ended.out) == table_of(run.out)
    names = ("tiny.md", "tiny.csv", "tiny.tex", "tiny.parquet")
    assert ended.out.splitlines()[-4:] == [str(workplace / "paper/tables" / name) for name in names]
    for name in names:
        assert (workplace / "paper/tables" / name).read_bytes() == (own / name).read_bytes()
        (own / name).unlink()
    assert crwn("tables", "runs/tiny").code == 0
    assert sorted(path.name for path in own.iterdir()) == sorted(names)


def test_tables_without_a_sweep_are_refused(crwn: Crwn, workplace: Path) -> None:
    """An empty store has none."""
    Store(workplace / "empty").create()
    refused(crwn("tables", "empty"), "store-empty")


def test_a_damaged_record_is_refused(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """The file is named, and how to have its trial run again; then that works."""
    crwn("run", sweep_file())
    file = sorted((workplace / "runs/tiny/trials").glob("*/trial.parquet"))[0]
    file.write_bytes(b"not a record")
    ended = crwn("tables", "runs/tiny")
    refused(ended, "record-unreadable", says=f"{file}: ")
    for path in file.parent.iterdir():
        path.unlink()
    file.parent.rmdir()
    assert crwn("run", sweep_file()).out.startswith(to_run("tiny", 1, 1))


# In a process of its own


def test_doctor_says_what_stands_in_the_way(crwn: Crwn, sweep_file: SweepFile, tmp_path: Path) -> None:
    """One line per check; exit code 1 if one is a fault; no trial starts."""
    file = sweep_file()
    fine = crwn("doctor", file, "--out", tmp_path / "store", "--no-tracking")
    assert (fine.code, fine.out.splitlines()[-1].endswith("no problems found")) == (0, True)
    ill = crwn("doctor", file, "--out", tmp_path / "store", "--no-tracking", "--cpus", "9999")
    assert ill.code == 1
    assert re.search("^FAULT resources .* 9999 ", ill.out, re.MULTILINE)
    assert not (tmp_path / "store" / "trials").exists()


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The script that pip installs."""
    command = Path(sys.executable).parent / "crwn"
    return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def test_the_installed_command_ends_with_its_codes(sweep_file: SweepFile, workplace: Path) -> None:
    """0, and 2 for what is wrong; errors and nothing else go to the standard error."""
    planned = call("plan", sweep_file())
    assert (planned.returncode, planned.stderr) == (0, "")
    assert left_of(2) in planned.stdout
    wrong = call("run", sweep_file(), "--executor", "zzz")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: --executor: expected one of inline, ray; given 'zzz'\n"
    assert list(workplace.iterdir()) == []


@pytest.mark.slow(reason="a process of its own learns")
@pytest.mark.usefixtures("workplace")
def test_the_installed_command_says_that_trials_failed(sweep_file: SweepFile) -> None:
    """By its code, 1, and on the standard output."""
    wild = sweep_file().read_text().replace("[FC16]", "[FC16], settings: {initial_strength: 1e30}")
    failed = call("run", sweep_file(wild), "--no-tracking")
    assert (failed.returncode, failed.stderr) == (1, "")
    assert "training diverged" in failed.stdout
    assert "\x1b" not in failed.stdout


@pytest.mark.slow(reason="a run comes first, for which MLflow makes a new database")
def test_a_sweep_that_is_done_costs_no_heavy_library(crwn: Crwn, sweep_file: SweepFile, workplace: Path) -> None:
    """Help, planning, looking, tables, and a run with nothing left and MLflow up to date answer at once."""
    first = crwn("run", sweep_file())
    script = """
import sys
from orchestrator.cli import main

sweep = sys.argv[1]
for arguments in (["--help"], ["plan", sweep], ["status", "runs/tiny"], ["tables", "runs/tiny"], ["run", sweep]):
    sys.argv = ["crwn", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
    heavy = {"torch", "torchvision", "ray", "sklearn", "mlflow", "sqlalchemy", "matplotlib"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, sweep_file()],
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all_done("tiny", 2) in ended.stdout
    assert table_of(ended.stdout)[-len(table_of(first.out)) :] == table_of(first.out)
