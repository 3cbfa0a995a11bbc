"""Base sets that a sweep defines: the user's images, whose content is in the trials' identity."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crwn.data import BASE_SETS
from crwn.plugins import DefinedSet
from crwn.trial_spec import code_of_trial, used_by
from orchestrator.cluster.request import request, request_here
from orchestrator.errors import UserError
from orchestrator.execution.running import Options
from orchestrator.sweeps.places import FileFaultsError
from orchestrator.sweeps.reading import load_sweep
from tests.orchestrator.conftest import Outcome
from tests.orchestrator.sweeps.conftest import Faults
from tests.refusals import check_refusal, refused

pytestmark = pytest.mark.usefixtures("no_plugins")

SWEEP = """\
name: own
seeds: [0]
data:
  pets: {kind: folder, path: photos, size: 8}
benchmarks:
  split pets: {kind: split, base: pets, num_tasks: 2}
methods:
  stl: {scales: [FC16]}
training: {updates_per_task: 5}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep next to a folder of four classes of images; the test has its own cache."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    generator = np.random.default_rng(0)
    for name in ("ant", "bee", "cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            pixels = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "sweep.yaml"


def test_a_label_becomes_the_contents_name(file: Path, tmp_path: Path) -> None:
    """Equal images at another path under another label are the same trials; another size makes others."""
    sweep = load_sweep(file)
    (trial,) = sweep.trials
    (defined,) = sweep.plugins
    assert isinstance(defined, DefinedSet)
    assert trial.benchmark.base == defined.name
    assert (used_by(trial), code_of_trial(trial).added) == ((defined,), None)
    assert sweep.manifest().plugins == ()
    shutil.copytree(tmp_path / "photos", tmp_path / "elsewhere")
    (tmp_path / "other.yaml").write_text(SWEEP.replace("pets", "beasts").replace("photos", "elsewhere"))
    assert load_sweep(tmp_path / "other.yaml").trials == sweep.trials
    assert load_sweep(file, changes=["data.pets.size=9"]).trials != sweep.trials


def test_decoding_is_told_on_standard_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, when it happens: standard output is for the command's results."""
    load_sweep(file)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "pets: " in printed.err
    assert "20 images" in printed.err
    load_sweep(file)
    assert capsys.readouterr().err == ""


def test_all_faults_of_all_sets_are_said_at_once(file: Path, tmp_path: Path, faults: Faults) -> None:
    """A missing folder, broken images, unknown kinds and keys, missing settings, and built-in names."""
    (tmp_path / "photos" / "ant" / "0.png").write_bytes(b"none")
    found = faults(
        SWEEP.replace(
            "  pets: {kind: folder, path: photos, size: 8}\n",
            "  pets: {kind: folder, path: photos, size: 8}\n"
            "  none: {kind: folder, path: nowhere, size: 8}\n"
            "  zip: {kind: fodler, path: photos, size: 8}\n"
            "  key: {kind: folder, path: photos, seize: 8}\n"
            "  mnist: {kind: folder, path: photos, size: 8}\n"
            "  text: photos\n"
            "  less: {path: photos}\n",
        ).replace("num_tasks: 2}", "num_tasks: 2}\n  x: {kind: split, base: pest, num_tasks: 2}")
    )
    assert {each.where.split(", ")[1]: each.codes for each in found} == {
        "data.pets.path": ("image-of-no-known-format",),
        "data.none.path": ("not-a-folder",),
        "data.zip.kind": ("unknown-name",),
        "data.key.seize": ("unknown-key",),
        "data.key.size": ("missing-key",),
        "data.mnist": ("name-taken",),
        "data.text": ("wrong-type",),
        "data.less": ("missing-key",),
        "benchmarks.x.base": ("unknown-name",),
    }
    assert "pets" in next(each for each in found if each.where.endswith("x.base"))


@pytest.mark.usefixtures("file")
def test_faults_show_a_set_by_its_label(faults: Faults) -> None:
    """Whatever a benchmark refuses of a set, the message has the sweep's label and never the content's name."""
    found = faults(
        SWEEP.replace(
            "  split pets: {kind: split, base: pets, num_tasks: 2}\n",
            "  grey: {kind: sequential, base: pets, num_tasks: 2}\n"
            "  uneven: {kind: sequential, base: pets, num_tasks: 3, channels: 3}\n"
            "  pooled: {kind: sequential, base: pets, num_tasks: 2, channels: 3, pool: 3}\n"
            "  turned: {kind: rotated, base: pets}\n"
            "  typo: {kind: sequential, base: pest, num_tasks: 2}\n",
        ).replace("stl", "finetune")
    )
    assert {each.where.split(", ")[1]: each.codes for each in found} == {
        "benchmarks.grey": ("channels-too-few",),
        "benchmarks.uneven": ("classes-do-not-divide",),
        "benchmarks.pooled": ("pool-does-not-divide",),
        "benchmarks.turned.base": ("unknown-name",),
        "benchmarks.typo.base": ("unknown-name",),
    }
    for each in found:
        assert "'pets'" in each, each
        assert "images-" not in each, each
    assert "channels: 3" in next(each for each in found if each.where.endswith("grey"))


def test_images_stay_where_they_are(file: Path, tmp_path: Path) -> None:
    """A cluster's machines have them at an absolute path, or `submit` refuses; Slurm's copy of a sweep is elsewhere."""
    sweep = load_sweep(file)
    for ask in (request, request_here):
        with refused(UserError, "path-not-absolute", says=[str(tmp_path / "photos")]):
            ask(sweep, file, "/shared/runs", Options())
    (tmp_path / "there.yaml").write_text(SWEEP.replace("path: photos", f"path: {tmp_path / 'photos'}"))
    there = load_sweep(tmp_path / "there.yaml")
    assert there.trials == sweep.trials
    assert request(there, tmp_path / "there.yaml", "/shared/runs", Options()).sweep == there


def test_a_sweep_on_images_of_ones_own_runs(file: Path, tmp_path: Path, crwn: Callable[..., Outcome]) -> None:
    """From the command line, to a record with the content's name; broken images end it before anything starts."""
    ended = crwn("run", str(file), "--out", str(tmp_path / "runs"), "--executor", "inline", "--no-tracking")
    assert ended.code == 0, ended.err
    shown = crwn("plan", str(file), "--out", str(tmp_path / "runs"), "--json")
    assert shown.code == 0, shown.err
    planned = json.loads(shown.out)
    (trial,) = planned["trials"]
    assert (trial["finished"], trial["spec"]["benchmark"]["base"] in BASE_SETS) == (True, True)
    shutil.rmtree(tmp_path / "photos")
    ended = crwn("run", str(file), "--out", str(tmp_path / "other"), "--executor", "inline")
    assert (ended.code, ended.codes) == (2, ("not-a-folder",))
    assert not (tmp_path / "other").exists()


def test_one_class_is_refused(file: Path, tmp_path: Path) -> None:
    """The error has the line of its path."""
    for name in ("bee", "cat", "dog"):
        shutil.rmtree(tmp_path / "photos" / name)
    with pytest.raises(FileFaultsError) as error:
        load_sweep(file)
    check_refusal(error.value, "classes-too-few", says=["line 4", "ant"])
