"""The exact wording of the most important messages of every area, only in this file.

All other tests check a fault's code and facts in its message (`tests/refusals.py`), so that a message can be
reworded here and where it is raised only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crwn import tensorfile
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.data import BASE_SETS, Datasets
from crwn.data.base import data_roots
from crwn.data.layouts import read_pickle
from crwn.data.listing import read_list
from crwn.faults import FaultError
from crwn.methods.er import ERSpec
from crwn.methods.ewc import EWCSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.psp import PSPSpec
from crwn.resume import read_numerics
from crwn.spec import TrainingSpec, check_group_size
from crwn.testing import new_store
from crwn.trial_spec import TrialSpec
from orchestrator.cluster.dashboard import connect
from orchestrator.execution.protocol import NodeResources
from orchestrator.execution.reaching_ray import check_cluster
from orchestrator.execution.resources import check_resources
from orchestrator.papers.reading import read_paper
from orchestrator.report.tables import tables_of
from orchestrator.store import parquet_files
from orchestrator.store.address import open_files
from orchestrator.store.manifests import Manifest
from orchestrator.store.schemas import TRIALS_SCHEMA
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Resources

SWEEP = """\
seeds: [0]
benchmarks: [{benchmark}]
methods: {{neuromodnet: {{{entry}}}}}
"""


def trial(method: Any, **changes: Any) -> TrialSpec:
    """A trial on r-digits."""
    settings = {"scale": "FC16", "seed": 0, "training": TrainingSpec(learning_rate=0.1), **changes}
    return TrialSpec(**{"benchmark": RotatedSpec(base="digits"), **settings, "method": method})


def sweep(folder: Path, benchmark: str = "r-digits", entry: str = "scales: [FC16]") -> None:
    """Reads a sweep with this benchmark and entry."""
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(benchmark=benchmark, entry=entry))
    load_sweep(file)


def written(file: Path, text: str) -> Path:
    """The file, with this text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def second_driver(folder: Path) -> None:
    """Drives a store twice at the same time."""
    store = new_store(folder / "store")
    with store.lock(), Store(store.root).lock():
        pass


def link_out(folder: Path) -> None:
    """Reads a store's file that is a link."""
    store = new_store(folder / "store")
    (store.root / "x").symlink_to(written(folder / "outside", "mine"))
    open_files(store.root).read("x")


MESSAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a setting beyond its bounds": (
        lambda _: TrainingSpec(learning_rate=-1, batch_size=0),
        "learning_rate: expected more than 0, given -1.0; batch_size: expected at least 1, given 0",
    ),
    "a choice that there is not": (
        lambda _: NeuroModNetSpec(modulation="lcoal"),  # type: ignore[arg-type]
        "modulation: expected one of 'local+global', 'local', 'global', given 'lcoal'",
    ),
    "a scale that there is not": (
        lambda _: trial(NeuroModNetSpec(), scale="10d"),
        (
            "scale: expected one such as FC256 or FC4096, or, for a ResNet-18, 1d or 6d, nf10 or nf64, or, for "
            "Dynamos's backbone, dynamos; given '10d'"
        ),
    ),
    "a scenario in which the task is not told": (
        lambda _: trial(EWCSpec(), benchmark=TurningSpec(base="digits")),
        (
            "ewc needs to be told when a task begins and ends, which the scenario 'general' of 'turning' does not "
            "tell; it runs where the scenario is 'task' or 'domain' or 'class'"
        ),
    ),
    "a buffer larger than the data": (
        lambda _: trial(ERSpec(buffer=2000), benchmark=SequentialSpec(base="digits")),
        "buffer: expected at most the 1437 training images of the benchmark, given 2000",
    ),
    "a group that a method cannot learn": (
        lambda _: check_group_size(2, trial(PSPSpec()).blueprint(), 36),
        "group_size: expected 1, given 2; this method learns one task at a time",
    ),
    "a resume point of another format": (
        lambda _: read_numerics(tensorfile.dump({}, {"format": 99})),
        "the resume point cannot be read: expected a resume point of format 6 or 7, given 99",
    ),
    "a file whose content changed": (
        lambda _: tensorfile.parse(tensorfile.dump({}, {"step": 1}).replace(b"1}", b"2}")),
        "expected the content that was written, found a different one: the SHA-256 differs; the file is damaged",
    ),
    "a data root that is no folder": (
        lambda _: data_roots("/no/such/folder"),
        "--data-root: expected a folder, given '/no/such/folder', which is not one. Correct it or leave it out.",
    ),
    "a data set that is nowhere": (
        lambda _: Datasets(BASE_SETS, roots=()).load("mnist"),
        (
            "data set 'mnist': expected in a folder named by --data-root or $CRWN_DATA, but none is named or known on "
            "this machine."
        ),
    ),
    "a list of images without its columns": (
        lambda folder: read_list(written(folder / "train.csv", "file;class")),
        (
            "{folder}/train.csv: expected the columns filename and label, found ['file;class'] in its first row. "
            "Separate the columns by commas."
        ),
    ),
    "a pickle that would run code": (
        lambda folder: read_pickle(written(folder / "x.pkl", "cos\nsystem\n.")),
        (
            "{folder}/x.pkl cannot be read as a pickle of arrays, and nothing in it was run: it names os.system, which "
            "no array needs"
        ),
    ),
    "a sweep with faults": (
        lambda folder: sweep(folder, benchmark="r-digit", entry="scales: [FC16], settings: {weight_gain: 010}"),
        (
            "{folder}/sweep.yaml: 2 faults; nothing was started\n"
            "  line 2, benchmarks[0]: expected one of {presets}; given 'r-digit'; did you mean 'r-digits'?\n"
            "  line 3, methods.neuromodnet.settings.weight_gain: expected a number that all programs read alike, given "
            "010; write 10 (or 0o10 for 8), or '010' in quotes where text is meant"
        ),
    ),
    "a sweep that moved": (
        lambda folder: load_sweep(written(folder / "sweeps/paper/table1.yaml", "").parents[1] / "table1.yaml"),
        ("{folder}/sweeps/table1.yaml: expected a file, but there is none; there is {folder}/sweeps/paper/table1.yaml"),
    ),
    "a folder of other files": (
        lambda folder: Store(written(folder / "thesis.tex", "...").parent),
        ("{folder}: expected a store or an empty folder; it holds other files and no store.json. Nothing was changed."),
    ),
    "a store on which a run works": (
        second_driver,
        (
            "{folder}/store: expected no other run on this store, but one is working on it. Wait for it (crwn status "
            "shows it), stop it, or name another store with --out."
        ),
    ),
    "a record that is gone": (
        lambda _: parquet_files.load(None, TRIALS_SCHEMA, "trial.parquet"),
        (
            "trial.parquet: expected a readable record: it is missing. Recompute its trial with crwn run "
            "SWEEP --repair, or remove its folder."
        ),
    ),
    "a manifest that was changed by hand": (
        lambda _: Manifest.from_json(b"[]", name="tiny", place="tiny.json"),
        (
            "tiny.json: expected a sweep's manifest: at the top: expected keys with values, given []. Remove it; crwn "
            "run on the sweep rewrites it."
        ),
    ),
    "an address with credentials": (
        lambda _: open_files("s3://key:secret@bucket/runs"),
        (
            "expected an address without credentials, given one that has some: it is displayed, logged and sent to "
            "other machines. Put them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile in ~/.aws."
        ),
    ),
    "an address of another kind": (
        lambda _: open_files("http://server/runs"),
        "expected a path, s3://bucket/prefix or gs://bucket/prefix; given 'http://server/runs'.",
    ),
    "a link out of a store": (
        link_out,
        (
            "{folder}/store/x: expected a file or a folder of the store itself, given a link out of it. It was neither "
            "read nor written; remove it, or ask who made the store."
        ),
    ),
    "more GPUs than any machine has": (
        lambda _: check_resources(Resources(cpus=1, gpus=8), [NodeResources(cpus=16, gpus=4)]),
        (
            "resources: a trial requests 1 CPUs and 8 GPUs, more than any machine has: 16 CPUs and 4 GPUs. Request "
            "less with --cpus and --gpus, or under resources in the sweep; nothing was started."
        ),
    ),
    "a cluster's address that is none": (
        lambda _: check_cluster("head:0"),
        (
            "$RAY_ADDRESS: expected the address of a cluster's head as HOST:PORT, such as 10.0.0.1:6379, or auto on "
            "the head; given 'head:0'. From elsewhere: crwn submit. To use this machine: unset RAY_ADDRESS."
        ),
    ),
    "a dashboard's address that is none": (
        lambda _: connect("nonsense"),
        "--address: expected the address of Ray's dashboard, such as http://127.0.0.1:8265; given 'nonsense'",
    ),
    "a paper that is not known": (
        lambda _: read_paper("hong"),
        ("--paper: expected one of cho2025, hong2022, varma2023; given 'hong'; did you mean 'hong2022'?"),
    ),
    "tables of an empty store": (
        lambda folder: tables_of([Store(folder / "store")]),
        "{folder}/store: expected a store with at least one sweep, found none; start with crwn run",
    ),
    "a sweep's tables over two stores": (
        lambda folder: tables_of([Store(folder), Store(folder)]),
        "expected one store, given 2; use --rows or --paper for tables over several stores",
    ),
}
"""Functions that raise an error, and its full message."""


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_reads_as_it_is_meant_to(name: str, tmp_path: Path) -> None:
    """Each message says what was expected and given, where, and what to do."""
    from crwn.benchmarks import PRESETS

    cause, message = MESSAGES[name]
    with pytest.raises(FaultError) as caught:
        cause(tmp_path)
    said = str(caught.value).replace(", ".join(sorted(PRESETS)), "{presets}")
    assert said.replace(str(tmp_path), "{folder}") == message
