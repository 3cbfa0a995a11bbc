"""The Python interface: opening stores, loading sweeps, running."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crwn
from crwn.testing import write_finished
from crwn.trial_spec import TrialSpec
from orchestrator import api
from orchestrator.report.results import Results
from orchestrator.store.store import Store
from orchestrator.sweeps.places import FileFaultsError
from tests import plugged
from tests.object_storage import ObjectStorage
from tests.refusals import refused
from tests.said import left_of, nothing_left

Trial = Callable[..., TrialSpec]

SIGNATURES = {
    "load_sweep": "(file: 'str | Path', *, changes: 'Iterable[str]' = (), plugins: 'Iterable[str | Path]' = ()) -> "
    "'Sweep'",
    "open": "(store: 'str | Path') -> 'Results'",
    "run": "(work: 'Sweep | TrialSpec | Iterable[TrialSpec]', *, store: 'str | Path | None' = None, "
    "seeds: 'Iterable[int] | None' = None, executor: \"Literal['inline', 'ray'] | None\" = None, "
    "data_root: 'str | Path | None' = None, resources: 'Mapping[str, float] | None' = None, "
    "keep_weights: 'bool | None' = None, tracking: 'bool' = False) -> 'Results'",
}


def names(thing: object) -> list[str]:
    """The public names of something."""
    return [name for name in dir(thing) if not name.startswith("_")]


# The names


def test_the_names_are_these() -> None:
    """Adding a name or a parameter changes an interface on which notebooks rely; it is listed here."""
    assert sorted(crwn._PLACES) == [
        "ContextBank",
        "TrialSpec",
        "UnfinishedError",
        "UserError",
        "load_sweep",
        "open",
        "run",
    ]
    assert sorted(crwn.__all__) == ["ContextBank", "TrialSpec", "UnfinishedError", "UserError", "load_sweep", "run"]
    assert {name: str(inspect.signature(getattr(crwn, name))) for name in SIGNATURES} == SIGNATURES
    assert names(Results) == ["address", "contexts", "curve", "matrix", "spec", "test_set", "trials"]


def test_all_names_are_there() -> None:
    """They are what they say, are completed, and are imported with a star; Python's own `open` stays."""
    star: dict[str, Any] = {}
    exec("from crwn import *", star)  # noqa: S102 (what a notebook may begin with)
    assert set(star) - {"__builtins__"} == set(crwn.__all__)
    assert crwn.open is api.open_store
    assert crwn.run is star["run"] is api.run
    assert crwn.TrialSpec is TrialSpec
    assert set(crwn._PLACES) <= set(dir(crwn))
    assert all(inspect.getdoc(getattr(crwn, name)) for name in crwn._PLACES)


def test_another_name_is_none() -> None:
    """As of any module; modules of the package are found as ever."""
    with pytest.raises(AttributeError, match="'runn'"):
        _ = crwn.runn  # type: ignore[attr-defined]
    from crwn import metrics

    assert metrics.__name__ == "crwn.metrics"


def test_types_are_shipped() -> None:
    """A wheel has a package's other files only where `package-data` names them."""
    import tomllib

    root = Path(__file__).resolve().parents[2]
    shipped = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("crwn", "orchestrator"):
        assert "py.typed" in shipped[package]
        assert (root / package / "py.typed").exists()


# Opening


def test_a_store_is_opened_by_its_path(store: Store, trial: Trial) -> None:
    """Given as text or as a path."""
    write_finished(store, trial())
    for address in (str(store.root), store.root):
        found = crwn.open(address)
        assert found.address == store.address
        assert repr(found) == f"<crwn results in {store.address}>"
        assert found.trials["id"].tolist() == [trial().trial_id]


def test_a_store_on_object_storage_is_one_as_any(storage: ObjectStorage, trial: Trial, workplace: Path) -> None:
    """A trial runs there, and all that a store says is read from there; nothing is written here."""
    address = storage.new_address()
    assert crwn.run(trial(), store=address, executor="inline").address == address
    found = crwn.open(address)
    (trial_id,) = found.trials["id"]
    assert found.trials["status"].tolist() == ["done"]
    images, labels = found.test_set(trial_id, 1)
    predicted = found.contexts(trial_id).predict(images, task=1).argmax(dim=1)
    assert (predicted == labels).double().mean() == found.matrix(trial_id[:5]).iloc[-1, 1]
    assert set(found.curve(trial_id)["task"]) == {0, 1}
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere", "nowhere: "),
        ("", "store: "),
        (None, "given None"),
        ("ftp://host/store", "given 'ftp://host/store'"),
    ],
)
def test_what_is_no_store_is_refused(given: Any, says: str, workplace: Path) -> None:
    """Nothing is created."""
    with pytest.raises(crwn.UserError) as caught:
        crwn.open(given)
    assert says in str(caught.value)
    assert list(workplace.iterdir()) == []


def test_a_folder_of_other_things_is_no_store(workplace: Path) -> None:
    """A folder without a store's mark is refused as the command refuses it."""
    (workplace / "file").touch()
    with pytest.raises(crwn.UserError, match=r"expected a store"):
        crwn.open(workplace)


# Sweeps


def test_a_sweep_is_read(sweep_file: Callable[..., Path]) -> None:
    """From a path, given as text too; its trials are resolved."""
    for file in (sweep_file(), str(sweep_file())):
        sweep = crwn.load_sweep(file)
        assert [trial.seed for trial in sweep.trials] == [0, 1]


def test_a_sweep_is_changed_as_it_is_read(sweep_file: Callable[..., Path]) -> None:
    """As `--set` does."""
    sweep = crwn.load_sweep(sweep_file(), changes=["training.updates_per_task=3", "seeds=[7]"])
    assert [(trial.seed, trial.training.updates_per_task) for trial in sweep.trials] == [(7, 3)]


def test_a_sweep_with_faults_is_refused(sweep_file: Callable[..., Path]) -> None:
    """With all faults; so is what is no path, or no change."""
    with refused(crwn.UserError, "too-small", "unknown-scale"):
        crwn.load_sweep(sweep_file("seeds: [-1]\nbenchmarks: [r-digits]\nmethods: {er: {scales: [FC0]}}"))
    with refused(crwn.UserError, "wrong-type", says="file: expected a path, given None"):
        crwn.load_sweep(None)  # type: ignore[arg-type]
    for changes in (3, [3], {"seeds": [0]}):
        with refused(crwn.UserError, "wrong-type", says="changes: "):
            crwn.load_sweep(sweep_file(), changes=changes)  # type: ignore[arg-type]


def test_a_plug_in_runs_where_it_is_named(workplace: Path) -> None:
    """Its code runs with the call that names it alone; a trial of it can then be run, and written down."""
    Path("my_method.py").write_text(plugged.METHOD)
    Path("mine.yaml").write_text(plugged.SWEEP)
    with plugged.no_traces():
        with refused(FileFaultsError, "plugin-not-named", says="add plugins=['my_method.py']") as error:
            crwn.load_sweep("mine.yaml")
        assert [fault.message.endswith("plugins=['my_method.py']") for fault in error.value.faults] == [True]
        with refused(crwn.UserError, "plugin-not-listed", says="plugins=['other.py']: expected"):
            crwn.load_sweep("mine.yaml", plugins=["other.py"])
        (trial,) = crwn.load_sweep("mine.yaml", plugins=["my_method.py"]).trials
        assert crwn.TrialSpec.from_json(trial.canonical_json()) == trial
        results = crwn.run(trial, keep_weights=True)
        assert results.trials["status"].tolist() == ["done"]
        images, _ = results.test_set(trial, 0)
        assert results.contexts(trial).predict(images).shape == (len(images), 10)
    with refused(crwn.UserError, "unknown-name", says="mine"):
        crwn.open("runs/python").spec(trial.trial_id)


# Running


def test_a_trial_runs(workplace: Path, trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    """Into runs/python, with plain lines of progress; called again, nothing is left to do."""
    results = crwn.run(trial())
    assert results.address == str(workplace / "runs" / "python")
    assert results.trials[["id", "status"]].to_numpy().tolist() == [[trial().trial_id, "done"]]
    out = capsys.readouterr().out
    assert f"{left_of(1)}; executor inline" in out
    assert "1/1 trials done" in out
    assert sorted(path.name for path in (workplace / "runs").iterdir()) == ["python"]  # nothing of MLflow
    again = crwn.run(trial())
    assert nothing_left(1) in capsys.readouterr().out
    assert again.trials.equals(results.trials)


def test_a_sweep_runs_with_some_of_its_seeds(workplace: Path, sweep_file: Callable[..., Path]) -> None:
    """Into its own store, as the command's run would; trials that are done are not computed again."""
    sweep = crwn.load_sweep(sweep_file())
    results = crwn.run(sweep, seeds=[1])
    assert results.address == str(workplace / "runs" / "tiny")
    assert results.trials[["seed", "status"]].to_numpy().tolist() == [[0, "left"], [1, "done"]]
    finished = results.trials["finished"][1]
    results = crwn.run(sweep)
    assert results.trials[["seed", "status"]].to_numpy().tolist() == [[0, "done"], [1, "done"]]
    assert results.trials["finished"][1] == finished
    assert [manifest.name for manifest in Store(results.address).manifests()] == ["tiny"]
    with refused(crwn.UserError, "unknown-seed", says="given 2"):
        crwn.run(sweep, seeds=[1, 2])


def test_trials_are_cells_with_names_of_their_own(trial: Trial) -> None:
    """By what differs between them: seeds share a cell, and learning rates are told apart."""
    trials = [trial(1), trial(0), trial(0, learning_rate=0.1), trial(0, kind="er", buffer=20), trial(1)]
    sweep = api._sweep_of(iter(trials))
    assert [(cell.method, cell.variant, [each.seed for each in cell.trials]) for cell in sweep.cells] == [
        ("neuromodnet", "training.learning_rate=0.01", [0, 1]),
        ("neuromodnet", "training.learning_rate=0.1", [0]),
        ("er", "buffer=20", [0]),
    ]
    assert {cell.benchmark for cell in sweep.cells} == {"r-digits"}
    assert sweep.name == api._sweep_of(trials[::-1]).name == api._sweep_of([*trials, trial(7)]).name
    assert sweep.name != api._sweep_of(trials[:1]).name
    sweep.manifest().to_json_bytes()


def test_several_trials_run_with_seeds(trial: Trial, tmp_path: Path) -> None:
    """Each runs with each seed; the other arguments take effect."""
    store = tmp_path / "mine"
    results = crwn.run(
        [trial(), trial(kind="stl")],
        store=store,
        seeds=range(2),
        executor="inline",
        resources={"cpus": 1, "gpus": 0},
        keep_weights=True,
    )
    assert results.address == str(store)
    assert results.trials[["method", "seed", "status"]].to_numpy().tolist() == [
        ["neuromodnet", 0, "done"],
        ["neuromodnet", 1, "done"],
        ["stl", 0, "done"],
        ["stl", 1, "done"],
    ]
    stl = results.trials.query("method == 'stl'")["id"].iloc[1]
    images, labels = results.test_set(stl, 1)
    predicted = results.contexts(stl).predict(images, task=1).argmax(dim=1)
    assert (predicted == labels).double().mean() == results.matrix(stl).iloc[-1, 1]
    row = Store(store).records.row(stl)
    assert row is not None
    assert row.provenance.attempts[0].gpus == 0


def test_a_trial_that_fails_does_not_end_the_others(
    trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, and its status is `failed`; nothing is raised."""
    results = crwn.run([trial(initial_strength=1e30), trial()], store=tmp_path / "store", executor="inline")
    assert results.trials["status"].tolist() == ["failed", "done"]
    assert "learning rate" in capsys.readouterr().out


def test_a_run_goes_on_after_an_interruption(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves what was computed, and no lock: the same call computes the rest."""
    from orchestrator.execution import inline

    begun, whole = [], inline.attempt

    def interrupted(assignment: Any, **more: Any) -> Any:
        begun.append(assignment.spec)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return whole(assignment, **more)

    monkeypatch.setattr(inline, "attempt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crwn.run(trial(), store=tmp_path / "store", seeds=range(3), executor="inline")
    assert crwn.open(tmp_path / "store").trials["status"].tolist() == ["done", "left", "left"]
    crwn.run(trial(), store=tmp_path / "store", seeds=range(3), executor="inline")
    assert crwn.open(tmp_path / "store").trials["status"].tolist() == ["done"] * 3
    assert begun == [trial(0), trial(1), trial(1), trial(2)]


@pytest.mark.parametrize(
    ("work", "more", "code", "says"),
    [
        ("sweep.yaml", {}, "wrong-type", "crwn.load_sweep"),
        (None, {}, "wrong-type", "work: "),
        ([], {}, "wrong-type", "given none"),
        (["er"], {}, "wrong-type", "given ['er']"),
        ({"method": "er"}, {}, "wrong-type", "work: "),
        (..., {"seeds": []}, "not-seeds", "given []"),
        (..., {"seeds": [1, 1]}, "not-seeds", "given [1, 1]"),
        (..., {"seeds": [-1]}, "not-seeds", "given [-1]"),
        (..., {"seeds": ["1"]}, "not-seeds", "given ['1']"),
        (..., {"seeds": 0.5}, "not-seeds", "given 0.5"),
        (..., {"executor": "rai"}, "not-a-choice", "given 'rai'"),
        (..., {"store": 3}, "wrong-type", "given 3"),
        (..., {"store": ""}, "wrong-type", "store: "),
        (..., {"data_root": "nowhere"}, "not-a-folder", "given 'nowhere'"),
        (..., {"resources": 1}, "wrong-type", "resources: "),
        (..., {"resources": {"cpu": 1}}, "unknown-key", "'cpus'"),
        (..., {"resources": {"cpus": "2"}}, "wrong-type", "resources.cpus: "),
        (..., {"resources": {"cpus": 0}}, None, "resources['cpus']: "),
        (..., {"resources": {"gpus": -1}}, None, "resources['gpus']: "),
        (..., {"resources": {"gpus": 1.5}}, None, "given 1.5"),
        (..., {"keep_weights": "yes"}, "not-a-choice", "given 'yes'"),
        (
            ...,
            {"tracking": "http://host"},
            "not-a-choice",
            "given 'http://host'",
        ),
        (..., {"tracking": 1}, "not-a-choice", "given 1"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_starts(
    work: Any, more: dict[str, Any], code: str | None, says: str, workplace: Path, trial: Trial
) -> None:
    """As a UserError that names the argument; no store is made."""
    with pytest.raises(crwn.UserError) as caught:
        crwn.run(trial() if work is ... else work, **more)
    assert says in str(caught.value)
    assert "--" not in str(caught.value)
    assert all(str(caught.value).startswith(f"{name}") for name in more)
    assert code is None or caught.value.codes == (code,)
    assert list(workplace.iterdir()) == []


def test_all_that_is_wrong_is_said_at_once(workplace: Path, trial: Trial) -> None:
    """One line per argument."""
    with refused(crwn.UserError, "not-seeds", "wrong-type", "not-a-choice") as caught:
        crwn.run(trial(), seeds=[], executor="slurm", store=0, tracking=None)  # type: ignore[arg-type]
    places = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert places == ["seeds", "store", "executor", "tracking"]
    assert list(workplace.iterdir()) == []


def test_a_folder_of_other_things_is_left_alone(workplace: Path, trial: Trial) -> None:
    """A store is not created among other files."""
    (workplace / "thesis.tex").touch()
    with pytest.raises(crwn.UserError, match="expected a store"):
        crwn.run(trial(), store=workplace)
    assert [path.name for path in workplace.iterdir()] == ["thesis.tex"]
