"""What a Ray worker is sent: plug-ins come before what they define."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from crwn.plugins import load_file
from crwn.testing import tiny_trial
from orchestrator.execution.backbones import SharedBackbone
from orchestrator.execution.protocol import Assignment
from orchestrator.execution.ray_actors import Sent
from orchestrator.sweeps.sweep import Resources
from tests.plugged import METHOD

pytestmark = pytest.mark.usefixtures("no_plugins")


def test_what_is_sent_to_a_worker_loads_its_plug_ins_first(tmp_path: Path) -> None:
    """Before the trial, whose class one of them defines; another process runs it from the bytes."""
    file = tmp_path / "my_method.py"
    file.write_text(METHOD, encoding="utf-8")
    plugin = load_file(file)
    trial = tiny_trial("mine", benchmark="seq-digits", num_tasks=5)
    sent = Sent(
        plugins=(plugin,),
        assignment=Assignment(spec=trial, resources=Resources()),
        backbone=SharedBackbone(reference=None, fingerprint="none"),
        store="store",
        mark=None,
        home=None,
        data_roots=(),
    )
    (tmp_path / "sent").write_bytes(cloudpickle.dumps({trial.trial_id: sent}))
    file.unlink()
    code = (
        "import pickle, sys\n"
        "sent, = pickle.load(open(sys.argv[1], 'rb')).values()\n"
        "print(sent.assignment.spec.trial_id, sent.plugins[0].code)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "sent"], capture_output=True, text=True, check=False)
    assert found.stdout.split() == [trial.trial_id, plugin.code], found.stderr
