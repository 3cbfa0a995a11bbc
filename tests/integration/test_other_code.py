"""A method that is edited after a run: what is reported, what is averaged, and how to recompute."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crwn.code import code_of
from crwn.testing import Conditions, write_finished
from orchestrator.store.rows import TrialRow
from orchestrator.store.store import Store
from tests.integration.conftest import Run, clean_environment
from tests.object_storage import ENVIRONMENT, ObjectStorage
from tests.said import differs, noted, of_other_code

ROOT = Path(__file__).resolve().parents[2]

SWEEP = """\
name: edited
seeds: [{seeds}]
benchmarks: {{r-digits: {{num_tasks: 2, task_known: false}}}}
training: {{updates_per_task: 20}}
methods: {{ewc: {{scales: [FC16]}}, finetune: {{scales: [FC16]}}}}
"""

TINY = """\
name: tiny
seeds: [0, 1]
benchmarks: {r-digits: {num_tasks: 2}}
training: {updates_per_task: 5}
methods: {neuromodnet: {scales: [FC16]}}
"""

SAID = "computed by different code"

COMMANDS = """\
import json, sys
from orchestrator.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["crwn", *arguments]
    try:
        main()
    except SystemExit as ended:
        print("exit code", ended.code, flush=True)
"""
"""Runs one command after the other, which saves starting Python for each."""

Crwn = Callable[..., list[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the two packages, whose methods can be edited."""
    for name in ("crwn", "orchestrator"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def crwn(project: Path) -> Crwn:
    """Runs commands with the copied code as it is now, in one process; gives what each printed. All must succeed."""

    def call(*commands: str) -> list[str]:
        ended = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps([shlex.split(command) for command in commands])],
            cwd=project,
            env=clean_environment(PYTHONPATH=str(project), PYTHONDONTWRITEBYTECODE="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        *printed, rest = ended.stdout.split("exit code 0\n")
        assert (len(printed), rest) == (len(commands), ""), ended.stdout
        return printed

    return call


def edited(project: Path, old: str, new: str) -> None:
    """Edit EWC's file."""
    file = project / "crwn" / "methods" / "ewc.py"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")


def rows(store: Store) -> dict[tuple[str, int], TrialRow]:
    return {(row.method, row.seed): row for row in store.records.rows(store.trial_ids()).values()}


def run(project: Path, seeds: int, *, out: str = "runs/edited") -> str:
    """The command that runs the sweep with so many seeds."""
    file = f"{seeds}.yaml"
    (project / file).write_text(SWEEP.format(seeds=", ".join(map(str, range(seeds)))), encoding="utf-8")
    return f"run {file} --executor inline --no-tracking --out {out}"


@pytest.mark.slow(reason="a sweep runs in processes of its own, before and after its method is edited")
def test_a_method_is_edited_after_a_run(project: Path, crwn: Crwn) -> None:
    """A comment changes nothing. Different code is named everywhere, and old seeds are not averaged with new ones.

    What is computed again is what the edited code computes by itself.
    """
    two, three = run(project, 2), run(project, 3)
    status = "status runs/edited"
    store = Store(project / "runs" / "edited")
    crwn(two)
    before = rows(store)
    edited(project, "from __future__ import annotations\n", "# as before\nfrom __future__ import annotations\n\n")
    assert not any(SAID in said for said in crwn(two, status))

    edited(project, "state, self._spec.strength)", "state, 3 * self._spec.strength)")
    *named, added, tables, _ = crwn(two, status, three, "tables runs/edited", "report runs/edited")
    for said in (*named, added):
        assert of_other_code(2, "ewc") in said
        assert "finetune" not in said.partition(SAID)[2].partition("\n")[0]
        assert "--recompute METHOD" in said
    assert "mixed (n=3)" in added
    after = rows(store)
    old, new = (after["ewc", seed].provenance.code for seed in (0, 2))
    assert old is not None
    assert new is not None
    page = (project / "runs" / "edited" / "report" / "report.html").read_text(encoding="utf-8")
    for text in (tables, page):
        assert differs("code.method", f"{old.method} (seeds 0, 1)", f"{new.method} (seed 2)") in text
    assert {key: after[key] for key in before} == before

    recomputed, stands, _ = crwn(f"{three} --recompute ewc", status, run(project, 3, out="runs/anew"))
    assert recomputed.count("recomputed ") == 2
    assert not any(word in said for said in (recomputed, stands) for word in (SAID, "mixed"))
    anew, mended = rows(Store(project / "runs" / "anew")), rows(store)
    assert {key: row.accuracy for key, row in mended.items()} == {key: row.accuracy for key, row in anew.items()}
    assert mended["ewc", 0].accuracy != before["ewc", 0].accuracy
    assert [mended["finetune", seed] for seed in (0, 1)] == [before["finetune", seed] for seed in (0, 1)]

    edited(project, "state, 3 * self._spec.strength)", "state, self._spec.strength)")
    stands, said, accepted, verified = crwn(status, "accept runs/edited ewc", run(project, 4), "verify runs/edited")
    assert of_other_code(3, "ewc") in stands
    assert str(old.method) in said
    assert not any(word in accepted for word in (SAID, "mixed"))
    assert noted("code.method", 1) in accepted
    assert "0 faults" in verified


@pytest.mark.slow(reason="Ray starts, and a store on object storage has a server")
@pytest.mark.parametrize("executor", ["ray"])
def test_other_code_is_computed_again_on_object_storage(
    executor: str, start: Callable[..., Run], storage: ObjectStorage
) -> None:
    """As on a path and inline: with this code, in any process; afterwards, `repairs/` is empty."""
    address = storage.new_address()
    first = start(address, "--executor", "inline", text=TINY, **ENVIRONMENT)
    code, output = first.wait()
    assert code == 0, output
    store, (old, _) = first.store, first.sweep.trials
    write_finished(store, old, conditions=Conditions(code=replace(code_of(old.method), method="f" * 16)))
    code, output = start(address, "--executor", executor, "--recompute", "neuromodnet", text=TINY, **ENVIRONMENT).wait()
    assert code == 0, output
    assert f"recomputed {old.trial_id}" in output
    assert SAID not in output
    assert {row.provenance.code for row in rows(store).values()} == {code_of(old.method)}
    assert store.repairs().trial_folders() == []
