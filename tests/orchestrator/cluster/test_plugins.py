"""Plug-ins of a submitted sweep: their bytes go along, and another version of one is another job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.orchestrator.cluster.made_up import STORE, URL, Cluster, Crwn, submit
from tests.plugged import METHOD, SWEEP, no_traces
from tests.said import TAKEN_BY_A_JOB

pytestmark = pytest.mark.usefixtures("no_plugins")


@pytest.fixture
def files(workplace: Path) -> Path:
    """A sweep with its plug-in, in the working directory."""
    (workplace / "sweep.yaml").write_text(SWEEP)
    (workplace / "my_method.py").write_text(METHOD)
    return workplace


def test_a_plug_in_goes_along_with_a_job(crwn: Crwn, files: Path, cluster: Cluster) -> None:
    """Its bytes are packed with the sweep, and the job's command and the one to resume name it."""
    submitted = submit(crwn, Path("sweep.yaml"), "--plugin", "my_method.py")
    assert (submitted.code, submitted.err) == (0, "")
    (asked,) = cluster.asked
    named = "--executor ray --plugin my_method.py"
    assert asked["entrypoint"] == f"crwn run sweep.yaml --out {STORE} {named}"
    assert {"my_method.py", "sweep.yaml"} <= set(asked["files"])
    assert f"crwn submit sweep.yaml --address {URL} --out {STORE} --plugin my_method.py\n" in submitted.out


def test_another_version_of_a_plug_in_is_another_job(crwn: Crwn, files: Path, cluster: Cluster) -> None:
    """While one runs on the store, it is refused."""
    with no_traces():
        assert submit(crwn, Path("sweep.yaml"), "--plugin", "my_method.py").code == 0
    (files / "my_method.py").write_text(METHOD + "# edited\n")
    refused = submit(crwn, Path("sweep.yaml"), "--plugin", "my_method.py")
    assert refused.code == 2
    assert TAKEN_BY_A_JOB in refused.err
