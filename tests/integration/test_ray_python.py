"""`crwn.run` on Ray, from a script of a user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import plugged
from tests.integration.conftest import clean_environment, contents

pytestmark = [pytest.mark.ray, pytest.mark.slow(reason="Ray starts, and its worker imports torch")]

SCRIPT = """\
import sys
import crwn

sweep = crwn.load_sweep("mine.yaml", plugins=["my_method.py", "my_network.py"])
for _ in range(2):
    results = crwn.run(sweep, executor=sys.argv[1], store=sys.argv[1])
print(results.trials["status"].tolist())
"""


def test_a_sweep_with_plug_ins_runs_on_ray_from_python(tmp_path: Path) -> None:
    """A method that trains a network, each of a file: the records are those of an inline run.

    A second call finds them, and starts nothing.
    """
    (tmp_path / "my_method.py").write_text(plugged.METHOD)
    (tmp_path / "my_network.py").write_text(plugged.NETWORK)
    sweep = plugged.SWEEP.replace("[my_method.py]", "[my_method.py, my_network.py]").replace("[FC16]", "[small]")
    (tmp_path / "mine.yaml").write_text(sweep)
    printed = {}
    for executor in ("inline", "ray"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, executor],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        printed[executor] = done.stdout
    assert "1 trials to run, 0 done; executor ray" in printed["ray"]
    assert "1/1 trials done" in printed["ray"]
    assert "all 1 trials are done; nothing to start" in printed["ray"]
    assert printed["ray"].splitlines()[-1] == "['done']"
    assert contents(tmp_path / "ray") == contents(tmp_path / "inline")
