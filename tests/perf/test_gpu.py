"""The script for GPUs, tested on a CPU, since time on a GPU is too scarce to debug it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crwn.trial_spec import TrialSpec
from perf import gpu
from tests.methods import CASES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(out: Path, *only: str) -> int:
    return gpu.main(["--device", "cpu", "--tiny", "--out", str(out), "--only", *only])


def found(out: Path) -> dict[str, dict[str, object]]:
    parts: dict[str, dict[str, object]] = json.loads((out / "gpu.json").read_text())["parts"]
    return parts


def test_every_case_has_its_parts() -> None:
    """Contract, trace and waits of each, and a speed for each network that is timed."""
    names = [name for name, _ in gpu.parts("cpu", tiny=True)]
    assert [f"{part} {name}" for part in ("contract", "golden", "waits") for name in CASES] == names[: 3 * len(CASES)]
    assert len(names) == len(set(names)) == 3 * len(CASES) + len(gpu.SPEEDS)


def test_each_part_is_written_and_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One part of each kind, in JSON and as a row; the second call finds them, the third continues with others."""
    some = ["contract supsup", "golden flynet", "waits er", "speed derpp"]
    assert tiny(tmp_path, *some) == 0
    before = found(tmp_path)
    assert [part["failed"] for part in before.values()] == [""] * 4
    assert all(f"| {name} |" in (tmp_path / "gpu.md").read_text() for name in before)
    assert tiny(tmp_path, *some, "waits agem") == 0
    assert capsys.readouterr().out.count("done before") == 4
    after = found(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"waits agem"}


def test_a_failure_is_written_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with 1 and the other parts are done; the next call does the failed one again."""

    def failing(name: str, *rest: object) -> dict[str, object]:
        raise RuntimeError(f"no memory for {name}")

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "golden", failing)
        assert tiny(tmp_path, "golden finetune", "waits finetune") == 1
    assert found(tmp_path)["golden finetune"]["failed"] == "RuntimeError: no memory for finetune"
    assert found(tmp_path)["waits finetune"]["failed"] == ""
    assert tiny(tmp_path, "golden finetune") == 0


def test_a_trace_that_is_missed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As does a trial whose repetition differs."""
    from tests.golden import record

    off = record.trace("finetune")
    off["tasks"][0]["test_loss"] += 1e-3
    monkeypatch.setattr(record, "trace", lambda name, device: off)
    with pytest.raises(AssertionError, match="trace"):
        gpu.golden("finetune", "cpu")
    learn, seeds = gpu.learn, iter([0, 1])

    def another(spec: TrialSpec, device: gpu.Device) -> object:
        return learn(dataclasses.replace(spec, seed=next(seeds)), device)

    monkeypatch.setattr(gpu, "learn", another)
    with pytest.raises(AssertionError, match="run again"):
        gpu.contract("finetune", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written, and the command ends with a code of its own."""
    assert gpu.main(["--out", str(tmp_path / "out")]) == gpu.NO_GPU
    assert "found none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow(reason="a process of its own imports torch and all that the script uses")
def test_it_needs_neither_the_orchestrator_nor_the_test_runner() -> None:
    """A machine with a GPU may have torch and little else."""
    code = (
        "import sys; from perf import gpu; list(gpu.parts('cpu', tiny=True)); "
        "assert not {'ray', 'mlflow', 'pytest', 'pandas', 'orchestrator', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
