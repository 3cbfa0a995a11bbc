"""The status of a store's sweeps."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from crwn.code import RESULTS_VERSION, Code, code_of
from crwn.testing import Conditions
from orchestrator.execution.status import show
from orchestrator.store.attempts import Attempt, AttemptError, Position
from orchestrator.store.json_fields import SUM
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.schemas import ATTEMPTS_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from tests.orchestrator.made_up import SPECS, A, B, C, D, record
from tests.said import results_versions, trials_of

DONE, FAILED, BEGUN, ABSENT = A, B, C, D
ERROR = AttemptError(
    type="OSError", message="no space\nleft", traceback="Traceback (most recent call last):\n  in a file\n"
)


HERE = Conditions(code=code_of(SPECS[A].method))
"""Of a trial that this code computed."""


def manifest(**trials: str) -> Manifest:
    """A sweep of one cell, its trials by seed."""
    names = {"method": "own name", "variant": "local", "scale": "FC16", "benchmark": "r-digits"}
    seeds = {int(name.removeprefix("seed")): trial_id for name, trial_id in trials.items()}
    return Manifest(name="small", cells=(ManifestCell(**names, trials=seeds),))


def printed(store: Store, *, verbose: bool = False) -> list[str]:
    """The lines that are shown of a store, without the first, which says where it is."""
    file = io.StringIO()
    show(store, Console(file=file, width=80), verbose=verbose)
    return file.getvalue().splitlines()[1:]


@pytest.fixture
def mixed(store: Store) -> Store:
    """A store with a sweep of which one trial is done, one failed, one begun, and one not begun."""
    store.records.write(DONE, record(DONE, conditions=HERE))
    failed = Attempt(error=ERROR, reached=Position(tasks_learned=1, step=2))
    store.unfinished.write_attempts(FAILED, [Attempt(pid=1), failed])
    store.unfinished.write_attempts(BEGUN, [Attempt(error=ERROR), Attempt(reached=Position(tasks_learned=3, step=40))])
    store.write_manifest(manifest(seed0=DONE, seed1=FAILED, seed2=BEGUN, seed3=ABSENT))
    return store


def test_a_summary_counts_and_explains_failures(mixed: Store) -> None:
    """One line for the sweep, one for every failure with the first line of its error."""
    assert printed(mixed) == [
        "small: 4 trials: 1 done, 1 failed, 1 interrupted, 1 left",
        f"  failed {FAILED} own name local FC16 r-digits seed 1: OSError: no space",
    ]


def test_verbose_has_a_line_for_every_trial(mixed: Store) -> None:
    """State, identity, the sweep's own names, and how far it is; no failure is told twice."""
    assert printed(mixed, verbose=True) == [
        "small: 4 trials: 1 done, 1 failed, 1 interrupted, 1 left",
        f"  done        {DONE} own name local FC16 r-digits seed 0",
        f"  failed      {FAILED} own name local FC16 r-digits seed 1: OSError: no space",
        "    Traceback (most recent call last):",
        "      in a file",
        f"  interrupted {BEGUN} own name local FC16 r-digits seed 2: 3 tasks learned, update 40 of the next",
        f"  left        {ABSENT} own name local FC16 r-digits seed 3",
    ]


def test_of_a_long_traceback_the_end_is_shown(mixed: Store) -> None:
    """The end says what went wrong; control characters are escaped."""
    text = "".join(f"line {number}\x1b\n" for number in range(1000))
    error = AttemptError(type="OSError", message="full", traceback=text)
    mixed.unfinished.write_attempts(FAILED, [Attempt(error=error)])
    lines = [line for line in printed(mixed, verbose=True) if line.startswith("    ")]
    assert lines == ["    (940 earlier lines are in attempts.json)", *(f"    line {i}\\x1b" for i in range(940, 1000))]


def test_verbose_says_what_was_computed_under_more_than_one_code(store: Store) -> None:
    """Of finished trials and of those that are not."""
    older = replace(HERE, versions=(("torch", "2.10.0"),))
    store.records.write(DONE, record(DONE, conditions=replace(HERE, before=older)))
    begun = [Attempt(began_at=Position(), versions={"torch": "1"}), Attempt(began_at=Position(step=4))]
    going_on = replace(begun[1], reached=Position(step=9), versions={"torch": "2"})
    store.unfinished.write_attempts(BEGUN, [begun[0], going_on])
    store.write_manifest(manifest(seed0=DONE, seed1=BEGUN))
    _, done, interrupted = printed(store, verbose=True)
    assert done.endswith(" seed 0: computed by several code versions: torch 2.10.0 -> 2.11.0")
    assert interrupted.endswith("update 9 of the next; by several code versions: torch 1 -> 2")


def test_verbose_says_where_trials_stand_also_where_a_record_is_damaged(store: Store) -> None:
    """And which it is."""
    store.records.write(DONE, record(DONE, conditions=HERE))
    (store.folder(DONE) / TRIAL_FILE).write_bytes(b"damaged")
    store.write_manifest(manifest(seed0=DONE))
    _, damaged, line, last = printed(store, verbose=True)
    assert str(store.folder(DONE) / TRIAL_FILE) in damaged
    assert line == f"  done        {DONE} own name local FC16 r-digits seed 0"
    assert last == "1 finished trial cannot be read; crwn verify says why"


def test_what_other_code_computed_is_named(store: Store) -> None:
    """By method, with what to do, until a user accepts both codes as equivalent; unknown code does not count."""
    here, older = code_of(SPECS[A].method), RESULTS_VERSION - 1
    codes = [here, replace(here, method="f" * 16), replace(here, results_version=older), Code()]
    for trial_id, code in zip((A, B, C, D), codes, strict=True):
        store.records.write(trial_id, record(trial_id, conditions=Conditions(code=code)))
    store.write_manifest(manifest(seed0=A, seed1=B, seed2=C, seed3=D))
    _, named, remedy = printed(store)
    assert trials_of(2, "neuromodnet") in named
    assert results_versions(older, RESULTS_VERSION) in named
    assert "--recompute" in remedy
    assert f"crwn accept {store.address}" in remedy
    accepted = store.accepted().adding("neuromodnet", codes=["f" * 16, str(here.method)])
    store.write_accepted(accepted)
    assert trials_of(1, "neuromodnet") in printed(store)[1]
    store.write_accepted(accepted.adding("neuromodnet", results_versions=[older, RESULTS_VERSION]))
    assert len(printed(store)) == 1


@pytest.mark.parametrize("verbose", [True, False])
def test_damaged_notes_of_attempts_are_named(mixed: Store, *, verbose: bool) -> None:
    """The trial counts as begun; whether it failed is unknown."""
    (mixed.folder(FAILED) / ATTEMPTS_FILE).write_text("{")
    (line,) = [line for line in printed(mixed, verbose=verbose) if ATTEMPTS_FILE in line]
    assert line.startswith(f"  {mixed.locate(FAILED, ATTEMPTS_FILE)}: expected ")


def test_a_sweep_that_has_not_begun_has_everything_left(store: Store) -> None:
    """Done and left are always told."""
    store.write_manifest(manifest(seed0=BEGUN, seed1=ABSENT))
    assert printed(store) == ["small: 2 trials: 0 done, 2 left"]


def test_an_attempt_that_has_not_reported_has_no_detail(store: Store) -> None:
    """Between its start and its first resume point."""
    store.unfinished.write_attempts(BEGUN, [Attempt(pid=1)])
    store.write_manifest(manifest(seed0=BEGUN))
    assert printed(store, verbose=True)[1] == f"  interrupted {BEGUN} own name local FC16 r-digits seed 0"


def test_the_first_line_says_whether_a_run_is_at_work(store: Store) -> None:
    """And where the store is, in full."""
    file = io.StringIO()
    show(store, Console(file=file, width=80), verbose=False)
    with store.lock():
        show(store, Console(file=file, width=80), verbose=False)
    assert file.getvalue().splitlines() == [
        f"{store.root}: no run is working on it",
        f"{store.root}: a run is working on it",
    ]


def test_a_long_error_is_not_wrapped(store: Store) -> None:
    """One line per trial, whatever the width."""
    store.unfinished.write_attempts(BEGUN, [Attempt(error=replace(ERROR, message="word " * 50))])
    store.write_manifest(manifest(seed0=BEGUN))
    assert len(printed(store)) == 2


def test_manifests_of_an_older_crwn_are_named(store: Store) -> None:
    """They have no checksum; a run adds it."""
    store.write_manifest(manifest(seed0=BEGUN))
    path = store.root / "sweeps" / "small.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != SUM}))
    assert printed(store)[-1] == "manifests without a checksum, from an older crwn: small; crwn run adds it"
    store.write_manifest(manifest(seed0=BEGUN))
    assert printed(store) == ["small: 1 trials: 0 done, 1 left"]
