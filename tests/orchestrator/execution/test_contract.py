"""What every executor promises: a job's settings reach its trials, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from crwn import contexts
from crwn.benchmarks.rotated import RotatedSpec
from crwn.methods import METHODS
from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from orchestrator.execution.executors import EXECUTORS
from orchestrator.execution.protocol import Job, TrialUpdate
from orchestrator.store.finished import Records
from orchestrator.store.parquet_files import stable_columns
from orchestrator.store.schemas import CONTEXTS_FILE
from orchestrator.store.store import Store
from tests.orchestrator.made_up import assignments_of

NUM_TASKS = 4


def trial(kind: str, seed: int = 0) -> TrialSpec:
    return TrialSpec(
        method=METHODS[kind].spec(),
        benchmark=RotatedSpec(base="digits", num_tasks=NUM_TASKS),
        scale="FC16",
        seed=seed,
        training=TrainingSpec(learning_rate=0.01, updates_per_task=2),
    )


FREE, LIMITED, BATCHE, PSP, MTL, STL = TRIALS = (
    trial("neuromodnet"),
    trial("neuromodnet", seed=1),
    trial("batche"),
    trial("psp"),
    trial("mtl"),
    trial("stl"),
)
ASKED = {LIMITED: 2, BATCHE: 3, PSP: 1, MTL: NUM_TASKS}


SLOW = {"ray": [pytest.mark.ray, pytest.mark.slow(reason="a Ray session, whose worker imports torch")]}


def run(name: str, store: Store, sizes: Mapping[TrialSpec, int] | None = None, **options: Any) -> Store:
    """Have an executor run all trials on the CPU."""
    limits = sizes or {}
    store.create()
    updates: list[TrialUpdate] = []
    assignments = tuple(
        replace(assignment, max_group_size=limits.get(assignment.spec))
        for assignment in assignments_of(*TRIALS, **options)
    )
    job = Job(assignments=assignments, store=store, data_roots=())
    EXECUTORS[name]().run(job, updates.append)
    assert [update.error for update in updates if update.state == "failed"] == []
    return store


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What comes of a job that says nothing, run inline."""
    return run("inline", Store(tmp_path_factory.mktemp("plain") / "store"))


@pytest.fixture(scope="module", params=[pytest.param(name, marks=SLOW.get(name, ())) for name in EXECUTORS])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What an executor makes of a job that asks for groups and weights."""
    return run(request.param, Store(tmp_path_factory.mktemp("asked") / "store"), ASKED, keep_weights=True)


def group_sizes(store: Store) -> dict[TrialSpec, int | None]:
    """How many tasks each trial learned at once, as its record says."""
    rows = store.records.rows(spec.trial_id for spec in TRIALS)
    return {spec: rows[spec.trial_id].numerics.group_size for spec in TRIALS}


def tensors(store: Store, spec: TrialSpec) -> set[str]:
    """The names of what is kept of a trial."""
    return set(contexts.load((store.folder(spec.trial_id) / CONTEXTS_FILE).read_bytes()).tensors)


def test_an_executor_limits_the_groups_of_the_trials_that_are_named(plain: Store, asked: Store) -> None:
    """Each to its own size; the others take what the rule gives them, and no trial becomes another by it."""
    assert group_sizes(plain) == {FREE: 4, LIMITED: 4, BATCHE: 4, PSP: 1, MTL: 4, STL: 4}
    assert group_sizes(asked) == {FREE: 4, LIMITED: 2, BATCHE: 3, PSP: 1, MTL: 4, STL: 4}
    assert plain.trial_ids() == asked.trial_ids() == sorted(spec.trial_id for spec in TRIALS)


def test_an_executor_has_weights_kept_where_the_job_asks(plain: Store, asked: Store) -> None:
    """Shared weights or a task's own, in addition to what is always kept; by default, none are kept."""
    weights = {"shared.layer1.weight", "shared.layer2.weight", "shared.layer3.weight"}
    for spec in (BATCHE, PSP, MTL):
        assert tensors(asked, spec) - tensors(plain, spec) == weights
        assert not tensors(plain, spec) & weights
    assert tensors(plain, PSP) == tensors(plain, MTL) == tensors(plain, STL) == set()
    assert tensors(asked, STL) == {"layer1.weight", "layer2.weight", "layer3.weight"}
    assert tensors(asked, FREE) == tensors(plain, FREE) != set()


def test_keeping_weights_changes_no_row(plain: Store, asked: Store) -> None:
    """Of trials whose groups are the same, everything that equal runs have in common is equal."""
    for spec in (FREE, PSP, MTL, STL):
        for read in (Records.trials, Records.tasks):
            first, second = (stable_columns(read(store.records, [spec.trial_id])) for store in (plain, asked))
            assert first.equals(second)
