"""A sweep that is killed and run again leaves the store of one that was never killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.attempts import Position
from orchestrator.store.store import Store
from tests.integration.conftest import Run, Undisturbed, contents, finished_times

LONGER = (1, 4, 16)
"""Factors by which a trial is made longer, in turn, until it can be killed at the moment that a test asks for."""

GATED = """\
seeds: [0]
benchmarks:
  digits: {{kind: sequential, base: digits, channels: 3, num_tasks: 1}}
training: {{batch_size: 2, updates_per_task: {updates}, epochs_per_task: 0, learning_rate: 0.01}}
methods:
  dynamos:
    scales: [dynamos-nf2]
    settings: {{stores: all, buffer: {buffer}, replay_batch: 2, warm_up: {warm_up}, wrong_factor: 1.0}}
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
  items-digits: {{num_tasks: 3, images: 200}}
methods:
  metaplastic:
    scales: [FC64]
    settings: {{steepness: 100}}
    training: {{learning_rate: 0.01, batch_size: 20, epochs_per_task: {epochs}}}
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
    """Killed inside a long task, a trial resumes there, at its last resume point, with the same results."""
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

    def is_inside(run: Run) -> bool:
        (trial,) = run.sweep.trials
        attempts = run.store.unfinished.attempts(trial.trial_id)
        reached = attempts[-1].reached if attempts else None
        return reached is not None and reached.tasks_learned == 1 and reached.step > 0

    for longer in LONGER:
        text = LONG_ITEMS.format(epochs=700 * longer)
        killed = start(tmp_path / f"killed {longer}", "--executor", executor, text=text)
        # Ray alone may take minutes to start on a busy machine.
        if killed.wait_until(lambda run=killed: is_inside(run), seconds=300, may_end=True):
            killed.kill_tree()
            break
    else:
        pytest.fail(f"a second item of {700 * longer} epochs ended between two resume points")
    (trial,) = killed.sweep.trials
    again = start(killed.store.root, "--executor", executor, text=text)
    undisturbed = start(tmp_path / "undisturbed", "--executor", "inline", text=text)
    for run in (again, undisturbed):
        code, output = run.wait()
        assert code == 0, output
    assert len(again.store.all_attempts(trial.trial_id)) == 2
    assert contents(again.store.root) == contents(undisturbed.store.root)


@pytest.mark.slow(reason="each kill costs a start of Python and torch, with Ray ten seconds more")
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_killed_in_warm_up_and_as_the_buffer_fills(executor: str, start: Callable[..., Run], tmp_path: Path) -> None:
    """Dynamos resumes from both, with the same bytes as an undisturbed run."""

    def is_caught(run: Run, after: int, before: int) -> bool:
        """Kill a run that has kept more than `after` updates; whether it had kept fewer than `before`."""
        (trial,) = run.sweep.trials
        # Thousands of updates come first, which a busy machine takes minutes for.
        if run.wait_until(lambda: reached_step(run, trial) > after, seconds=600, may_end=True):
            run.kill_tree()
        return after < reached_step(run, trial) < before

    for longer in LONGER:
        warm_up, fills = 3000 * longer, 700 * longer
        text = GATED.format(updates=warm_up + fills + 100, buffer=2 * fills, warm_up=warm_up)
        store = tmp_path / f"killed {longer}"
        moments = ((0, warm_up), (warm_up, warm_up + fills))
        if all(is_caught(start(store, "--executor", executor, text=text), *moment) for moment in moments):
            break
    else:
        pytest.fail(f"{warm_up} updates of warm-up, or {fills} to fill the buffer, ended between two resume points")
    again = start(store, "--executor", executor, text=text)
    undisturbed = start(tmp_path / "undisturbed", "--executor", "inline", text=text)
    (trial,) = again.sweep.trials
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
