"""Plug-ins from the command line: written, run, resumed, submitted, reported; refused before anything starts."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crwn.code import fingerprint, method_code
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.protocol import NETWORKS
from crwn.plugins import load_file
from crwn.testing import check_method, check_network
from orchestrator import template, template_network
from orchestrator.api import load_sweep, open_store
from orchestrator.store.store import Store
from tests.plugged import METHOD, NETWORK, OF_NETWORK, SWEEP, no_traces
from tests.refusals import refused
from tests.said import OTHER_CODE, of_other_code

pytestmark = pytest.mark.usefixtures("no_plugins")

Crwn = Callable[..., Any]
Listing = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def files(workplace: Path) -> Path:
    """A sweep with its plug-in, in the working directory."""
    (workplace / "sweep.yaml").write_text(SWEEP)
    (workplace / "my_method.py").write_text(METHOD)
    return workplace


RUN = ("run", "sweep.yaml", "--executor", "inline", "--no-tracking")


def test_a_plug_in_is_run_where_the_command_names_it(crwn: Crwn, files: Path) -> None:
    """Its trials are like all others: their record says which code, and reports need no plug-in."""
    with no_traces():
        ran = crwn(*RUN, "--plugin", "my_method.py")
    assert (ran.code, ran.err) == (0, "")
    assert "mine" not in METHODS
    store = Store(files / "runs" / "mine")
    (trial_id,) = store.trial_ids()
    row = store.records.row(trial_id)
    assert row is not None
    assert (row.method, row.variant) == ("mine", "strength=2.0")
    assert row.provenance.code is not None
    assert row.provenance.code.method == fingerprint(METHOD)
    manifest = json.loads((store.root / "sweeps" / "mine.json").read_bytes())
    assert [plugin["code"] for plugin in manifest["plugins"]] == [fingerprint(METHOD)]

    assert crwn("status", "runs/mine").out.endswith("mine: 1 trials: 1 done, 0 left\n")
    tables = crwn("tables", "runs/mine")
    assert tables.code == 0
    assert "mine" in tables.out
    assert crwn("verify", "runs/mine").code == 0
    assert "mine" not in METHODS


@pytest.mark.parametrize(
    "command", [("plan",), ("run", "--no-tracking"), ("doctor",), ("submit", "--address", "http://head:8265")]
)
def test_no_command_runs_a_plug_in_that_it_does_not_name(
    crwn: Crwn, files: Path, listing: Listing, command: tuple[str, ...]
) -> None:
    """Each says which flag to add; nothing is written."""
    (files / "my_method.py").write_text("open('it ran', 'w')")
    before = listing(files)
    name, *options = command
    refused = crwn(name, "sweep.yaml", *options)
    assert (refused.code, refused.codes) == (2, ("plugin-not-named",))
    assert refused.err.endswith(" --plugin my_method.py\n")
    assert listing(files) == before


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("METHODS =", "1 / 0\nMETHODS =", "plugin-not-importable"),
        ('{"mine":', '{"er":', "name-taken"),
        ("frozen=True, ", "", "spec-not-frozen"),
    ],
)
def test_a_faulty_plug_in_is_refused_in_a_line(
    crwn: Crwn, files: Path, listing: Listing, old: str, new: str, code: str
) -> None:
    """Exit code 2, and nothing is started."""
    (files / "my_method.py").write_text(METHOD.replace(old, new))
    before = listing(files)
    refused = crwn(*RUN, "--plugin", "my_method.py")
    assert (refused.code, refused.codes, refused.out) == (2, (code,), "")
    _, line = refused.err.splitlines()
    assert line.startswith("  line 3, plugins[0]: my_method.py: ")
    assert listing(files) == before


def test_an_edited_plug_in_is_other_code(crwn: Crwn, files: Path) -> None:
    """Its old trials stay, and the run says so; `--recompute` computes them again."""
    with no_traces():
        assert crwn(*RUN, "--plugin", "my_method.py").code == 0
    (files / "my_method.py").write_text(METHOD.replace("plain_training(0.03)", "plain_training(0.01 + 0.02)"))
    with no_traces():
        again = crwn(*RUN, "--plugin", "my_method.py")
    assert of_other_code(1, "mine") in again.out
    with no_traces():
        again = crwn(*RUN, "--plugin", "my_method.py", "--recompute", "mine")
        assert again.code == 0
        assert OTHER_CODE not in crwn(*RUN, "--plugin", "my_method.py").out


BASE_SET = """\
import dataclasses

from crwn.data.base import Embedded
from crwn.data.digits import DIGITS, read

BASE_SETS = {"ten": dataclasses.replace(DIGITS, name="ten", source=Embedded(read=read))}
"""

ON_TEN = """\
name: ten
seeds: [0]
plugins: [my_set.py]
benchmarks: {own: {kind: sequential, base: ten, first: 2}}
training: {updates_per_task: 5}
methods: {finetune: {scales: [FC16]}}
"""


def test_an_edited_base_set_is_other_code(crwn: Crwn, workplace: Path) -> None:
    """The method is unchanged, and a comment changes nothing. Only recomputing fixes it."""
    sweep, plugin = workplace / "ten.yaml", workplace / "my_set.py"
    sweep.write_text(ON_TEN)

    def run(source: str, *options: str) -> str:
        plugin.write_text(source)
        with no_traces():
            ended = crwn("run", sweep, *RUN[2:], "--plugin", "my_set.py", *options)
        assert ended.code == 0, ended.err
        return str(ended.out)

    said, edited = of_other_code(1, "finetune"), f"{BASE_SET}SHIFT = 1\n"
    run(BASE_SET)
    assert said not in run(f"# a comment\n{BASE_SET}")
    for out in (run(edited), run(edited, "--seeds", "0")):
        assert said in out
        assert "--recompute" in out
        assert "crwn accept" not in out  # which is for the code of methods
    assert said not in run(edited, "--recompute", "finetune")
    assert said in run(BASE_SET)
    assert said not in crwn("status", "runs/ten").out  # whose process has no such plug-in, and runs none


def test_a_new_method_runs(crwn: Crwn, workplace: Path) -> None:
    """What `new method` writes is a method under its name and a sweep; nothing is overwritten."""
    made = crwn("new", "method", "slow_pull")
    assert (made.code, made.err) == (0, "")
    assert ["run", "crwn", "run", "slow_pull.yaml", "--plugin", "slow_pull.py"] in map(str.split, made.out.splitlines())
    text = (workplace / "slow_pull.py").read_text()
    assert "class SlowPullSpec:" in text
    assert 'METHODS = {"slow_pull": MethodEntry(spec=SlowPullSpec, build=SlowPull)}' in text
    assert "mine" not in text.lower().split()

    sweep = workplace / "slow_pull.yaml"
    sweep.write_text(sweep.read_text().replace("[0, 1, 2]", "[0]").replace("FC100", "FC16"))
    ran = crwn("run", sweep, "--plugin", "slow_pull.py", "--executor", "inline", "--no-tracking")
    assert (ran.code, ran.err) == (0, "")
    assert method_code(METHODS["slow_pull"].spec()) == fingerprint(text)

    again = crwn("new", "method", "slow_pull")
    assert (again.code, again.codes) == (2, ("file-exists",))
    assert "slow_pull.py" in again.err


@pytest.mark.parametrize(("name", "code"), [("er", "name-taken"), ("My-M", "name-unfit"), ("../x", "name-unfit")])
def test_a_new_method_needs_a_name_of_its_own(crwn: Crwn, workplace: Path, name: str, code: str) -> None:
    """Which a module and a sweep can have; else nothing is written."""
    refused = crwn("new", "method", name)
    assert (refused.code, refused.codes) == (2, (code,))
    assert repr(name) in refused.err
    assert list(workplace.iterdir()) == []


def test_the_template_is_a_method_of_this_package() -> None:
    """So that it is checked with the rest of the code."""
    assert template.METHODS.keys() == {"mine"}


@pytest.mark.usefixtures("one_thread")
def test_a_network_is_run_as_a_scale(crwn: Crwn, workplace: Path) -> None:
    """Planned, run, shown, kept: its weights predict; an edit of its file is other code."""
    (workplace / "sweep.yaml").write_text(OF_NETWORK)
    (workplace / "my_network.py").write_text(NETWORK)
    unnamed = crwn("plan", "sweep.yaml")
    assert (unnamed.code, unnamed.codes) == (2, ("plugin-not-named",))
    with no_traces():
        planned = crwn("plan", "sweep.yaml", "--plugin", "my_network.py")
        assert planned.code == 0
        assert "small" in planned.out
    with no_traces():
        ran = crwn(*RUN, "--plugin", "my_network.py")
    assert (ran.code, ran.err) == (0, "")
    assert "small" not in NETWORKS
    store = Store(workplace / "runs" / "own")
    rows = [row for row in map(store.records.row, store.trial_ids()) if row is not None]
    assert sorted((row.method, row.scale) for row in rows) == [("er", "FC16"), ("er", "small"), ("finetune", "small")]
    added = {row.scale: row.provenance.code.added for row in rows if row.provenance.code is not None}
    assert added["FC16"] is None
    assert added["small"] is not None
    tables = crwn("tables", "runs/own")
    assert tables.code == 0
    assert "small" in tables.out

    (trial,) = (row.trial_id for row in rows if (row.method, row.scale) == ("finetune", "small"))
    with no_traces():
        load_file(workplace / "my_network.py")
        results = open_store("runs/own")
        images, labels = results.test_set(trial, task=1)
        logits = results.contexts(trial).predict(images)
        accuracy = (logits.argmax(dim=1) == labels).double().mean()
        assert float(accuracy) == results.matrix(trial).loc[2, 1]

    (workplace / "my_network.py").write_text(NETWORK.replace("Dropout(0.1)", "Dropout(0.2)"))
    with no_traces():
        told = crwn(*RUN, "--plugin", "my_network.py")
        assert "1 trial of finetune (other code of the plug-ins of small, " in told.out
        again = crwn(*RUN, "--plugin", "my_network.py", "--recompute", "finetune", "--recompute", "er")
    assert (again.code, again.err) == (0, "")
    assert "different code" not in crwn("status", "runs/own").out
    rows = [row for row in map(store.records.row, store.trial_ids()) if row is not None]
    edited = {row.scale: row.provenance.code.added for row in rows if row.provenance.code is not None}
    assert edited["FC16"] is None
    assert edited["small"] not in (None, added["small"])


def test_the_template_of_a_network_is_one_of_this_package() -> None:
    """So that it is checked with the rest of the code."""
    assert template_network.NETWORKS.keys() == {"mine"}


CONTEXTS_ON_TEN = """\
name: kept
seeds: [0]
plugins: [my_set.py]
benchmarks: {own: {kind: rotated, base: ten, num_tasks: 2, step_degrees: 90}}
training: {updates_per_task: 5}
methods: {neuromodnet: {scales: [FC16]}}
"""

KEPT = {
    "method": ("my_method.py", METHOD, SWEEP.replace("name: mine", "name: kept\nkeep_weights: true"), "'mine'"),
    "network": ("my_network.py", NETWORK, OF_NETWORK.replace("name: own", "name: kept"), "'small'"),
    "base set": ("my_set.py", BASE_SET, CONTEXTS_ON_TEN, "'ten'"),
}
"""Plug-ins by what they define: the file, its source, a sweep that keeps what it learns, the name that they define."""


@pytest.fixture(params=KEPT)
def kept(request: pytest.FixtureRequest, crwn: Crwn, workplace: Path) -> tuple[str, str, str]:
    """A finished trial of a plug-in that is not loaded: its id, the plug-in's file, the name that it defines."""
    file, source, sweep, name = KEPT[request.param]
    (workplace / "sweep.yaml").write_text(sweep)
    (workplace / file).write_text(source)
    with no_traces():
        ran = crwn(*RUN, "--plugin", file)
    assert (ran.code, ran.err) == (0, "")
    store = Store(workplace / "runs" / "kept")
    rows = [row for row in map(store.records.row, store.trial_ids()) if row is not None]
    return next(row.trial_id for row in rows if row.scale != "FC16" or request.param != "network"), file, name


@pytest.mark.usefixtures("one_thread")
def test_what_a_trial_kept_is_read_without_its_plug_in(kept: tuple[str, str, str]) -> None:
    """Tensors, origins and spec; what needs the network says which plug-in to load, and answers once it is loaded."""
    trial_id, file, name = kept
    bank = open_store("runs/kept").contexts(trial_id)
    assert bank.tensors
    assert [(task.trial_id, task.index, task.start) for task in bank.tasks] == [(trial_id, n, "own") for n in (0, 1)]
    assert bank.spec["seed"] == 0
    questions: list[Callable[[], object]] = [
        lambda: bank.predict([[0]], task=0),  # type: ignore[arg-type]
        lambda: bank.similarity(by="contexts"),
        lambda: bank.select([0]),
        lambda: bank.save("bank.safetensors"),
    ]
    for question in questions:
        with refused(InvalidError, "unknown-name", says=[name, f"load_sweep(SWEEP, plugins=['{file}'])"]):
            question()
    with no_traces():
        load_sweep("sweep.yaml", plugins=[file])
        results = open_store("runs/kept")
        images, labels = results.test_set(trial_id, task=1)
        loaded = results.contexts(trial_id)
        logits = loaded.predict(images, task=1 if loaded.needs_task else None)
        accuracy = (logits.argmax(dim=1) == labels).double().mean()
        assert float(accuracy) == bank.tasks[1].accuracy
        assert [task.name for task in loaded.tasks] == [task.name for task in bank.tasks]


def test_a_model_takes_no_plug_in_along(crwn: Crwn, kept: tuple[str, str, str]) -> None:
    """`register` and `serve` refuse its trials, loaded or not, and say what works; `contexts` lists them."""
    trial_id, file, name = kept
    for command in ("register", "serve"):
        ended = crwn(command, "runs/kept", trial_id)
        assert (ended.code, ended.codes, ended.out) == (2, ("model-of-a-plugin",), "")
        assert file in ended.err
        assert "crwn.load_sweep(" in ended.err
    assert not Path("runs/mlflow.db").exists()
    with no_traces():
        load_file(Path(file))
        assert crwn("register", "runs/kept", trial_id).codes == ("model-of-a-plugin",)
    listed = crwn("contexts", "runs/kept")
    assert listed.code == 0
    for part in (trial_id, name, file):
        assert part in listed.out
    asked = crwn("contexts", "runs/kept", "--infer")
    assert f"plugins=['{file}']" in asked.err


@pytest.mark.parametrize(("name", "code"), [("nf10", "name-taken"), ("My", "name-unfit")])
def test_a_new_network_needs_a_name_of_its_own(crwn: Crwn, workplace: Path, name: str, code: str) -> None:
    """One that is no built-in scale; else nothing is written."""
    refused = crwn("new", "network", name)
    assert (refused.code, refused.codes) == (2, (code,))
    assert list(workplace.iterdir()) == []


WHOLE_GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
OF_NETWORKS = WHOLE_GUIDE[WHOLE_GUIDE.index("\n## A network ") : WHOLE_GUIDE.index("\n## Code provenance")]
GUIDE = WHOLE_GUIDE.replace(OF_NETWORKS, "")


@pytest.mark.usefixtures("one_thread")
def test_the_guide_to_networks_can_be_followed(crwn: Crwn, workplace: Path) -> None:
    """Its network is what `new network` writes; its sweep runs, and its check passes."""
    new, run = (shlex.split(line) for line in re.findall(r"^ {4}crwn (.*)$", OF_NETWORKS, re.MULTILINE))
    made = crwn(*new)
    assert (made.code, made.err) == (0, "")
    assert made.out.splitlines()[-2] == f"run       crwn {shlex.join(run)}"
    (network,) = re.findall(r"```python\n(.*?)```", OF_NETWORKS, re.DOTALL)
    assert (workplace / "small_vit.py").read_text() == network
    (sweep,) = re.findall(r"```yaml\n(.*?)```", OF_NETWORKS, re.DOTALL)
    for text in ((workplace / "small_vit.yaml").read_text(), sweep):
        short = text.replace("[seq-digits]", "{seq-digits: {first: 2}}") + "training: {updates_per_task: 3}\n"
        (workplace / "small_vit.yaml").write_text(short)
        ran = crwn(*run, "--seeds", "0", "--executor", "inline", "--no-tracking")
        assert (ran.code, ran.err) == (0, "")
    (check,) = re.findall(r"`(check_network\(.*?\))`", OF_NETWORKS)
    assert check == 'check_network("small_vit.py")'
    check_network("small_vit.py", benchmark="seq-digits")


def test_the_guide_can_be_followed(crwn: Crwn, workplace: Path) -> None:
    """Its commands in their order, its sweep and its check, on a small network and one seed."""
    commands = [shlex.split(line) for line in re.findall(r"^ {4}crwn (.*)$", GUIDE, re.MULTILINE)]
    assert [command[0] for command in commands] == ["new", "plan", "run"]
    new, plan, run = commands
    name = new[-1]
    (sweep,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert crwn(*new).code == 0
    declared = re.findall(r"^ {4}(METHODS = .*)$", GUIDE, re.MULTILINE)
    assert declared == [(workplace / f"{name}.py").read_text().splitlines()[-1]]
    (workplace / f"{name}.yaml").write_text(sweep.replace("FC100", "FC8"))
    planned = crwn(*plan)
    assert planned.code == 0
    assert "9 trials" in planned.out
    ran = crwn(*run, "--seeds", "0", "--executor", "inline", "--no-tracking")
    assert (ran.code, ran.err) == (0, "")
    (check,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert check.splitlines() == [
        "from crwn.testing import check_method",
        "",
        f'check_method("{name}.py")',
    ]
    check_method(f"{name}.py")
