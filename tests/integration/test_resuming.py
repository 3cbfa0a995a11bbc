"""A sweep that is killed and run again leaves the store of one that was never killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.attempts import Position
from orchestrator.store.store import Store
from tests.integration.conftest import Run, Undisturbed, contents, finished_times

WARM_UP, FILLS, UPDATES = 3000, 700, 3800
"""Updates: without gates, then until the buffer is full, and of the task."""

GATED = f"""\
seeds: [0]
benchmarks:
  digits: {{kind: sequential, base: digits, channels: 3, num_tasks: 1}}
training: {{batch_size: 2, updates_per_task: {UPDATES}, epochs_per_task: 0, learning_rate: 0.01}}
methods:
  dynamos:
    scales: [dynamos-nf2]
    settings: {{stores: all, buffer: {2 * FILLS}, replay_batch: 2, warm_up: {WARM_UP}, wrong_factor: 1.0}}
"""
"""Dynamos with a warm-up, and a buffer that fills slowly."""

MOMENTS = {"inline": (0.3, 0.7), "ray": (0.3, 0.7)}
"""Shares of the training after which the whole process tree is killed."""

LONG_TASK = """\
seeds: [0]
benchmarks:
  split-digits: {num_tasks: 2}
methods:
  neuromodnet: {scales: [nf8], training: {updates_per_task: 250}}
"""
"""Two tasks of a ResNet-18, learned at once."""

LONG_ITEMS = """\
seeds: [0]
keep_weights: true
benchmarks:
  items-digits: {num_tasks: 3, images: 200}
methods:
  metaplastic:
    scales: [FC64]
    settings: {steepness: 100}
    training: {learning_rate: 0.01, batch_size: 20, epochs_per_task: 700}
"""
"""Three items of some seconds each, after the first of which weights have moved so far that some stay."""


@pytest.mark.slow(reason="each kill costs a start of Python and torch, with Ray ten seconds more")
@pytest.mark.chaos
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_killed_at_several_moments(
    executor: str, start: Callable[..., Run], undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Kill -9 of the whole process tree, again and again, leaves an equal store, and no finished file is rewritten."""
    store = tmp_path / "store"
    kills, written = 0, {}
    for moment in MOMENTS[executor]:
        run = start(store, "--executor", executor)
        if run.wait_until(lambda run=run, moment=moment: run.share_done() >= moment, may_end=True):
            run.kill_tree()
            kills += not all(run.store.is_finished(trial.trial_id) for trial in run.sweep.trials)
        after = finished_times(run.store)
        assert {path: after[path] for path in written} == written
        written = after
    assert kills == len(MOMENTS[executor])
    code, output = start(store, "--executor", executor).wait()
    assert code == 0, output
    after = finished_times(Store(store))
    assert {path: after[path] for path in written} == written
    assert contents(store) == undisturbed(start)


@pytest.mark.slow(reason="the task has to be long against the two seconds between resume points")
def test_a_long_task_is_not_begun_again(start: Callable[..., Run], tmp_path: Path) -> None:
    """Killed inside a long task, a trial goes on there, at its last resume point, and ends the same."""
    undisturbed, killed = (start(tmp_path / name, "--executor", "inline", text=LONG_TASK) for name in ("one", "two"))
    (trial,) = killed.sweep.trials
    steps = trial.training.updates_per_task
    # At the first one: where a machine writes slowly, the second comes after a hundred times what the first took.
    assert killed.wait_until(lambda: reached_step(killed, trial) > 0)
    killed.kill_tree()
    kept = reached_step(killed, trial)
    assert 0 < kept < steps
    again = start(killed.store.root, "--executor", "inline", text=LONG_TASK)
    for run in (again, undisturbed):
        code, output = run.wait()
        assert code == 0, output
    first, second = again.store.all_attempts(trial.trial_id)
    assert first.reached == second.began_at == Position(step=kept)
    assert contents(again.store.root) == contents(undisturbed.store.root)


@pytest.mark.slow(reason="an item has to be long against the two seconds between resume points")
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_killed_inside_an_item(executor: str, start: Callable[..., Run], tmp_path: Path) -> None:
    """Kill -9 inside the second item, whose alpha was computed as it began, leaves an equal store, byte for byte."""
    undisturbed = start(tmp_path / "undisturbed", "--executor", "inline", text=LONG_ITEMS)
    killed = start(tmp_path / "killed", "--executor", executor, text=LONG_ITEMS)
    (trial,) = killed.sweep.trials

    def is_inside() -> bool:
        attempts = killed.store.unfinished.attempts(trial.trial_id)
        reached = attempts[-1].reached if attempts else None
        return reached is not None and reached.tasks_learned == 1 and reached.step > 0

    assert killed.wait_until(is_inside, seconds=300)  # Ray alone may take minutes to start on a busy machine
    killed.kill_tree()
    again = start(killed.store.root, "--executor", executor, text=LONG_ITEMS)
    for run in (again, undisturbed):
        code, output = run.wait()
        assert code == 0, output
    assert len(again.store.all_attempts(trial.trial_id)) == 2
    assert contents(again.store.root) == contents(undisturbed.store.root)


@pytest.mark.slow(reason="each kill costs a start of Python and torch, with Ray ten seconds more")
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_killed_in_warm_up_and_as_the_buffer_fills(executor: str, start: Callable[..., Run], tmp_path: Path) -> None:
    """Dynamos goes on from both, and ends with the bytes of a run that nobody disturbed."""
    store = tmp_path / "killed"
    for after, before in ((0, WARM_UP), (WARM_UP, WARM_UP + FILLS)):
        run = start(store, "--executor", executor, text=GATED)
        (trial,) = run.sweep.trials
        assert run.wait_until(lambda run=run, trial=trial, after=after: reached_step(run, trial) > after)
        run.kill_tree()
        assert after < reached_step(run, trial) < before
    again = start(store, "--executor", executor, text=GATED)
    undisturbed = start(tmp_path / "undisturbed", "--executor", "inline", text=GATED)
    for run in (again, undisturbed):
        code, output = run.wait()
        assert code == 0, output
    assert len(again.store.all_attempts(trial.trial_id)) == 3
    assert contents(again.store.root) == contents(undisturbed.store.root)


def reached_step(run: Run, trial: Any) -> int:
    """The update of the first task's group that the store's resume point holds."""
    attempts = run.store.unfinished.attempts(trial.trial_id)
    reached = attempts[-1].reached if attempts else None
    return 0 if reached is None else reached.step
