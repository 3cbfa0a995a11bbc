"""Photographs from the command line, in every supported layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from tests.crwn.data.conftest import write_class_dict
from tests.integration.conftest import Run, contents

FOLDER = "tiny_imagenet_100"
PARTS = ("train", "test")
SWEEP = """\
seeds: [0]
benchmarks: [split-tinyimagenet]
training: {updates_per_task: 2}
methods:
  neuromodnet: {scales: [nf2]}
"""


@pytest.mark.data
@pytest.mark.slow(reason="12,000 photographs are laid out and decoded three times")
def test_numbers_do_not_depend_on_the_form(data_root: Path, start: Callable[..., Run], tmp_path: Path) -> None:
    """The same photographs as Parquet, as folders of JPEG and as pixels in pickles: equal stores."""
    given = data_root / FOLDER
    if not given.is_dir():
        pytest.skip(f"needs the stand-in for miniImageNet: {data_root} has no folder {FOLDER}")
    forms = {"Parquet": data_root, "folders": tmp_path / "folders", "pickles": tmp_path / "pickles"}
    lay_out(given, forms["folders"] / FOLDER, forms["pickles"] / FOLDER)
    runs = [
        start(
            tmp_path / "runs" / form, "--executor", "inline", text=SWEEP, CRWN_DATA=str(root), HOME=str(tmp_path / form)
        )
        for form, root in forms.items()
    ]
    for run in runs:
        code, output = run.wait()
        assert code == 0, output
    expected, *others = (contents(run.store.root) for run in runs)
    assert len(expected) == 2 + len(runs[0].sweep.trials)
    assert others == [expected, expected]


def lay_out(given: Path, folders: Path, pickles: Path) -> None:
    """The photographs of Parquet files as a folder a class, and as pickled pixels."""
    classes: dict[str, list[np.ndarray]] = {}
    for part in PARTS:
        (file,) = given.glob(f"{part}-*.parquet")
        for number, row in enumerate(parquet.read_table(file).to_pylist()):
            path = folders / part / row["wnid"] / f"{number:05d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["image"]["bytes"])
            classes.setdefault(row["wnid"], []).append(np.asarray(Image.open(path).convert("RGB")))
    pickles.mkdir(parents=True)
    write_class_dict(pickles, classes, train_each=100)  # the test images come last, as everywhere
