"""Trials one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crwn.trial import Event, iterate_trial
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.execution import attempt
from orchestrator.execution.inline import InlineExecutor
from orchestrator.execution.protocol import Job, TrialUpdate
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Resources
from tests.orchestrator.made_up import assignments_of
from tests.refusals import refused

Trial = Callable[..., TrialSpec]


def job(store: Store, *trials: TrialSpec) -> Job:
    """A run of some trials on the CPU."""
    return Job(assignments=assignments_of(*trials), store=store, data_roots=())


def run(store: Store, *trials: TrialSpec) -> list[TrialUpdate]:
    """The updates of a run, in order."""
    updates: list[TrialUpdate] = []
    InlineExecutor().run(job(store, *trials), updates.append)
    return updates


def test_trials_run_in_order(store: Store, trial: Trial) -> None:
    """One ends before the next begins, in the order of the job."""
    trials = [trial(seed) for seed in (2, 0, 1)]
    updates = run(store, *trials)
    ended = [update.trial_id for update in updates if update.state == "finished"]
    assert ended == [spec.trial_id for spec in trials]
    order = list(dict.fromkeys(update.trial_id for update in updates))
    assert order == ended
    assert [store.is_finished(trial_id) for trial_id in ended] == [True] * 3


def test_a_failing_trial_stops_no_other(store: Store, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are run and kept; the failed one is reported once."""
    trials = [trial(seed) for seed in range(3)]

    def iterate(spec: TrialSpec, **named: Any) -> Iterator[Event]:
        if spec.seed == 1:
            raise RuntimeError("a cosmic ray")
        yield from iterate_trial(spec, **named)

    monkeypatch.setattr(attempt, "iterate_trial", iterate)
    ended = [update for update in run(store, *trials) if update.state != "running"]
    assert [update.state for update in ended] == ["finished", "failed", "finished"]
    assert ended[1].error == "RuntimeError: a cosmic ray"
    assert [store.is_finished(spec.trial_id) for spec in trials] == [True, False, True]


def test_an_interruption_ends_the_run(store: Store, trial: Trial) -> None:
    """Ctrl-C while an update is shown goes through; the trial that had ended stays finished."""
    trials = [trial(seed) for seed in range(2)]

    def interrupt(update: TrialUpdate) -> None:
        if update.state == "finished":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().run(job(store, *trials), interrupt)
    assert [store.is_finished(spec.trial_id) for spec in trials] == [True, False]


def test_what_this_machine_has_not_is_refused() -> None:
    """Before anything is started."""
    executor = InlineExecutor()
    executor.check(Resources(gpus=0, cpus=1))
    with refused(UserError, "resources-too-large", says="100000 CPUs"):
        executor.check(Resources(gpus=0, cpus=100_000))
    with refused(UserError, "resources-too-large", says="1000 GPUs"):
        executor.check(Resources(gpus=1000))
