"""The progress display of a run."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from crwn.events import Progress
from crwn.methods.er import ERSpec
from crwn.spec import TrainingSpec
from crwn.testing import tiny_trial
from crwn.trial_spec import TrialSpec
from orchestrator import display, waiting
from orchestrator.execution import progress as progress_module
from orchestrator.execution.progress import (
    ESTIMATE_AFTER_SECONDS,
    SHOWN_TRIALS,
    RunProgress,
    describe,
    estimated_work,
    share,
    show_progress,
    show_seconds,
    shown,
)
from orchestrator.execution.protocol import TrialUpdate
from tests import said

Trial = Callable[..., TrialSpec]


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def at(tasks_learned: int, step: int = 0, *, accuracy: float | None = None) -> Progress:
    """The progress of a trial with two tasks of ten updates."""
    return Progress(tasks_learned=tasks_learned, num_tasks=2, step=step, num_steps=10, accuracy=accuracy)


def running(spec: TrialSpec, progress: Progress | None = None, note: str | None = None) -> TrialUpdate:
    """News of a running trial."""
    return TrialUpdate(trial_id=spec.trial_id, state="running", progress=progress, note=note)


def finished(spec: TrialSpec) -> TrialUpdate:
    """News of a finished trial."""
    return TrialUpdate(trial_id=spec.trial_id, state="finished")


def failed(spec: TrialSpec, error: str = "OSError: no") -> TrialUpdate:
    """News of a failed trial."""
    return TrialUpdate(trial_id=spec.trial_id, state="failed", error=error)


# Counting


def test_trials_are_counted(clock: Clock, trial: Trial) -> None:
    """Done counts those of earlier runs too; every trial of this run is in exactly one state."""
    specs = [trial(seed) for seed in range(4)]
    progress = RunProgress(specs, num_done=3, clock=clock)
    assert progress.summary() == "3/7 trials done, 0 running, 0 failed, 4 waiting"
    progress.update(running(specs[0]))
    progress.update(running(specs[1]))
    assert progress.summary() == "3/7 trials done, 2 running, 0 failed, 2 waiting"
    progress.update(finished(specs[0]))
    progress.update(failed(specs[1]))
    progress.update(running(specs[2]))
    assert progress.summary() == "4/7 trials done, 1 running, 1 failed, 1 waiting"


def test_only_failures_and_notes_are_worth_a_line(clock: Clock, trial: Trial) -> None:
    """A failure prints the trial and its error; progress and success print nothing."""
    specs = [trial(seed) for seed in range(2)]
    progress = RunProgress(specs, num_done=0, clock=clock)
    assert progress.update(running(specs[0], at(0))) is None
    assert progress.update(finished(specs[0])) is None
    assert progress.update(failed(specs[1], "OSError: disk")) == f"failed: {describe(specs[1])}: OSError: disk"
    assert progress.failed == {specs[1].trial_id: "OSError: disk"}


def test_a_trial_that_fails_and_is_tried_again_counts_once(clock: Clock, trial: Trial) -> None:
    """Only the final outcome counts."""
    spec = trial()
    progress = RunProgress([spec], num_done=0, clock=clock)
    for update in (running(spec), failed(spec), finished(spec)):
        progress.update(update)
    assert progress.summary().startswith(said.progress(1, 1))


def test_a_note_is_told_once(clock: Clock, trial: Trial) -> None:
    """If many trials have the same note, it is printed once."""
    specs = [trial(seed) for seed in range(2)]
    progress = RunProgress(specs, num_done=0, clock=clock)
    assert progress.update(running(specs[0], note="no GPU here")) == "note: no GPU here"
    assert progress.update(running(specs[0], note="no GPU here")) is None
    assert progress.update(running(specs[1], note="no GPU here")) is None
    assert progress.update(running(specs[1], note="another")) == "note: another"


def test_each_running_trial_has_a_line_of_detail(clock: Clock, trial: Trial) -> None:
    """In the order in which they began."""
    specs = [trial(seed) for seed in range(2)]
    progress = RunProgress(specs, num_done=0, clock=clock)
    progress.update(running(specs[1], at(1, 5)))
    progress.update(running(specs[0]))
    assert list(progress.details()) == [
        f"{describe(specs[1])}: task 1/2, update 5/10",
        f"{describe(specs[0])}: starting",
    ]


# Estimating


def test_nothing_is_estimated_before_anything_is_known(clock: Clock, trial: Trial) -> None:
    """Neither at the start nor while no work is done."""
    spec = trial()
    progress = RunProgress([spec], num_done=5, clock=clock)
    assert progress.seconds_left is None
    clock.now += 10
    progress.update(running(spec, at(0)))
    assert progress.seconds_left is None
    assert "left" not in progress.summary()


def test_the_time_left_follows_from_the_work_done(clock: Clock, trial: Trial) -> None:
    """Half of one of two equal trials in 10 s: three halves are left, 30 s."""
    specs = [trial(seed) for seed in range(2)]
    progress = RunProgress(specs, num_done=5, clock=clock)
    progress.update(running(specs[0], at(0)))
    clock.now += 10
    progress.update(running(specs[0], at(1)))
    assert progress.seconds_left == pytest.approx(30.0)
    assert progress.summary().endswith("about 30 s left")
    assert progress.seconds == 10.0


def test_starting_up_is_not_taken_for_slow_work(clock: Clock, trial: Trial) -> None:
    """The seconds before the first report say nothing of the speed, and neither do the first few after it."""
    spec = trial()
    progress = RunProgress([spec], num_done=0, clock=clock)
    clock.now += 60
    progress.update(running(spec, at(0)))
    clock.now += ESTIMATE_AFTER_SECONDS / 2
    progress.update(running(spec, at(0, 1)))
    assert progress.seconds_left is None
    clock.now += 9.5 * ESTIMATE_AFTER_SECONDS
    progress.update(running(spec, at(1)))
    assert progress.seconds_left == pytest.approx(10 * ESTIMATE_AFTER_SECONDS)
    assert progress.seconds == 60 + 10 * ESTIMATE_AFTER_SECONDS


def test_work_counts_by_its_size(clock: Clock, trial: Trial) -> None:
    """A trial of three times as many updates takes three times as long."""
    small, large = trial(0, updates_per_task=10), trial(0, updates_per_task=30)
    progress = RunProgress([small, large], num_done=0, clock=clock)
    progress.update(running(small, at(0)))
    clock.now += 10
    progress.update(finished(small))
    assert progress.seconds_left == pytest.approx(30.0)


def test_what_an_earlier_run_did_is_not_this_runs_speed(clock: Clock, trial: Trial) -> None:
    """A trial that resumes at three quarters and does an eighth in 10 s needs another 10 s, not 1.4."""
    spec = trial()
    progress = RunProgress([spec], num_done=0, clock=clock)
    progress.update(running(spec, at(1, 5)))
    assert progress.seconds_left is None
    clock.now += 10
    progress.update(running(spec, Progress(tasks_learned=1, num_tasks=2, step=75, num_steps=100, accuracy=None)))
    assert progress.seconds_left == pytest.approx(10.0)


def test_a_resumed_trial_that_is_finished_counts_by_what_was_left_of_it(clock: Clock, trial: Trial) -> None:
    """Half a trial in 10 s, a whole one is left: 20 s."""
    specs = [trial(seed) for seed in range(2)]
    progress = RunProgress(specs, num_done=0, clock=clock)
    progress.update(running(specs[0], at(1)))
    clock.now += 10
    progress.update(finished(specs[0]))
    assert progress.seconds_left == pytest.approx(20.0)


def test_no_time_is_left_when_all_have_ended(clock: Clock, trial: Trial) -> None:
    """A failed trial is not waited for."""
    specs = [trial(seed) for seed in range(2)]
    progress = RunProgress(specs, num_done=0, clock=clock)
    progress.update(running(specs[0], at(0)))
    clock.now += 10
    progress.update(finished(specs[0]))
    progress.update(failed(specs[1]))
    assert progress.seconds_left == 0.0


def test_the_estimate_of_work_grows_with_the_trial(trial: Trial) -> None:
    """In proportion to tasks and updates, and with what each costs."""
    assert estimated_work(trial(num_tasks=6)) == 3 * estimated_work(trial(num_tasks=2))
    assert estimated_work(trial(updates_per_task=50)) == 10 * estimated_work(trial(updates_per_task=5))


def test_replaying_as_many_as_are_new_is_twice_the_work() -> None:
    """Whatever the batch that the method has by default: products, and what an update costs besides."""
    training = TrainingSpec(learning_rate=0.1, batch_size=128)
    plain = dataclasses.replace(tiny_trial("finetune", benchmark="r-digits-domain"), training=training)
    replaying = dataclasses.replace(plain, method=ERSpec(replay_batch=128))
    assert estimated_work(replaying) == 2 * estimated_work(plain)


@pytest.mark.parametrize(
    ("progress", "expected"), [(at(0), 0.0), (at(0, 5), 0.25), (at(1), 0.5), (at(1, 9), 0.95), (at(2), 1.0)]
)
def test_the_share_that_is_done(progress: Progress, expected: float) -> None:
    """Tasks learned, and the part of the one that is being learned."""
    assert share(progress) == pytest.approx(expected)


def test_a_first_update_after_long_preparation_is_no_speed(clock: Clock, trial: Trial) -> None:
    """One of 2,000 in 20 s, most of which made images: nothing is said until a hundredth is done, or a minute."""
    spec = trial(updates_per_task=1000)
    progress = RunProgress([spec], num_done=0, clock=clock)
    early = Progress(tasks_learned=0, num_tasks=2, step=1, num_steps=1000, accuracy=None)
    progress.update(running(spec, dataclasses.replace(early, step=0)))
    clock.now += 20
    progress.update(running(spec, early))
    assert progress.seconds_left is None
    clock.now += 20
    assert progress.seconds_left is None
    clock.now += 20
    assert progress.seconds_left == pytest.approx(60 * 1999)
    progress.update(running(spec, dataclasses.replace(early, step=20)))
    clock.now -= 30
    assert progress.seconds_left == pytest.approx(30 * 99)


# Words


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, "starting"),
        (at(0), "task 0/2"),
        (at(0, 5), "task 0/2, update 5/10"),
        (at(1, 5, accuracy=0.98765), "task 1/2, update 5/10, accuracy so far 98.8 %"),
        (at(2, accuracy=0.0), "task 2/2, accuracy so far 0.0 %"),
    ],
)
def test_progress_in_words(progress: Progress | None, text: str) -> None:
    """Tasks, updates within one, and the accuracy where something was tested."""
    assert show_progress(progress) == text


def test_a_trial_in_words(trial: Trial) -> None:
    """What tells it from the others of its sweep."""
    assert describe(trial(3)) == "neuromodnet FC16, r-digits, seed 3"
    assert describe(trial(3, modulation="local")) == "neuromodnet FC16 (modulation=local), r-digits, seed 3"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.6, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (61.0, "1 min 1 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (3725.0, "1 h 2 min"),
        (360_000.0, "100 h 0 min"),
    ],
)
def test_times_in_words(seconds: float, text: str) -> None:
    """Two units at most, rounded first."""
    assert show_seconds(seconds) == text


# Showing


def plain() -> tuple[Console, io.StringIO]:
    """A console that is no terminal and claims to be narrow."""
    file = io.StringIO()
    return Console(file=file, force_terminal=False, width=80), file


def test_plain_lines_are_whole_and_plain(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a log file a long line is not wrapped, nothing is coloured, and brackets are not taken for markup."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    console, file = plain()
    spec, error = trial(), f"ValueError: [red]{'word ' * 60}[/nothing] 12:34:56 'text'"
    progress = RunProgress([spec], num_done=0)
    with shown(progress, console) as show:
        show(running(spec, note="[bold] is no markup"))
        show(failed(spec, error))
    assert file.getvalue().splitlines() == [
        "note: [bold] is no markup",
        f"failed: {describe(spec)}: {error}",
    ]


def test_plain_lines_come_when_a_trial_is_finished(trial: Trial) -> None:
    """A log of a long run tells of every trial that ended, and of nothing in between while that is recent."""
    console, file = plain()
    specs = [trial(seed) for seed in range(2)]
    with shown(RunProgress(specs, num_done=1), console) as show:
        for _ in range(100):
            show(running(specs[0], at(0, 5)))
        assert file.getvalue() == ""
        show(finished(specs[0]))
        show(finished(specs[1]))
    first, second = file.getvalue().splitlines()
    assert first.startswith("2/3 trials done, 0 running, 0 failed, 1 waiting")
    assert second.startswith("3/3 trials done")


def test_plain_lines_come_now_and_then_while_trials_run(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log tells of tasks within a trial and the accuracy so far, as a terminal does; it is not silent for an hour."""
    console, file = plain()
    monkeypatch.setattr(progress_module, "PLAIN_SECONDS", 0.0)
    with shown(RunProgress([trial()], num_done=0), console) as show:
        show(running(trial(), at(0, 5)))
        show(running(trial(), at(1, accuracy=0.9)))
    assert file.getvalue().splitlines() == [
        "0/1 trials done, 1 running, 0 failed, 0 waiting",
        f"  {describe(trial())}: task 0/2, update 5/10",
        "0/1 trials done, 1 running, 0 failed, 0 waiting",
        f"  {describe(trial())}: task 1/2, accuracy so far 90.0 %",
    ]


def test_a_log_is_never_silent_for_long(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no update comes, lines say what is waited for and since when; after the first one, what runs."""
    console, file = plain()
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 0.2)
    progress = RunProgress([trial()], num_done=0)

    def next_lines() -> list[str]:
        before, until = file.getvalue(), time.monotonic() + 20
        while file.getvalue().count("\n") < before.count("\n") + 2 and time.monotonic() < until:
            time.sleep(0.01)
        return file.getvalue().removeprefix(before).splitlines()

    with shown(progress, console) as show:
        progress.wait_for("Ray to start")
        assert next_lines()[0] == said.waiting("Ray to start", 0)
        show(running(trial(), at(1)))
        lines = next_lines()
        assert said.progress(0, 1, running=1, waiting=0) in lines
        assert f"  {describe(trial())}: task 1/2" in lines
    assert progress.summary() == said.progress(0, 1, running=1, waiting=0)


def test_a_terminal_shows_what_is_waited_for() -> None:
    """Instead of the numbers of trials, until the first update."""
    file = io.StringIO()
    progress = RunProgress([], num_done=0)
    progress.wait_for("Ray to start")
    with shown(progress, Console(file=file, force_terminal=True, width=120, color_system=None)):
        pass
    assert said.waiting("Ray to start", 0) in file.getvalue()


def test_a_terminal_shows_the_running_trials(trial: Trial) -> None:
    """A summary, a line each with where it is, how many more there are, and failures above as plain text."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, height=40, color_system=None)
    specs = [trial(seed) for seed in range(SHOWN_TRIALS + 3)]
    progress = RunProgress([*specs, trial(99)], num_done=0)
    with shown(progress, console) as show:
        for spec in specs:
            show(running(spec, at(1, 5, accuracy=0.5)))
        show(failed(trial(99), "ValueError: [red] is no markup"))
    text = file.getvalue()
    assert f"{SHOWN_TRIALS} running" not in text
    assert said.progress(0, len(specs) + 1, 1, running=len(specs), waiting=0) in text
    assert f"{describe(specs[0])} " in text
    for fact in ("task 1/2, update 5/10, ", " 50.0 %"):
        assert fact in text
    assert "and 3 more" in text
    assert said.failed(describe(trial(99)), "ValueError: [red] is no markup") in text


# In a notebook; tests/integration/test_notebook.py has a kernel of Jupyter's run one


@pytest.fixture
def in_notebook(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a notebook is given to show, as it is given."""
    import IPython.display

    shown: list[dict[str, str]] = []

    class Place:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            assert raw
            shown.append(data)

    def shown_at(data: dict[str, str], *, raw: bool, display_id: bool) -> Place:
        assert raw
        assert display_id
        shown.append(data)
        return Place()

    monkeypatch.setattr(IPython.display, "display", shown_at)
    monkeypatch.setattr(progress_module, "is_notebook", lambda: True)
    monkeypatch.setattr(progress_module, "NOTEBOOK_SECONDS", 0.0)
    return shown


def test_a_notebook_goes_on_counting_while_nothing_happens(
    in_notebook: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray starts, for example: no update comes, and its display is not frozen."""
    monkeypatch.setattr(progress_module, "NOTEBOOK_QUIET_SECONDS", 0.1)
    clock = Clock()
    progress = RunProgress([], num_done=0, clock=clock)
    progress.wait_for("Ray to start")
    with shown(progress, Console(file=io.StringIO())):
        clock.now += 30
        until = time.monotonic() + 20
        while "30 s so far" not in in_notebook[-1]["text/html"] and time.monotonic() < until:
            time.sleep(0.01)
        assert in_notebook[-1]["text/plain"] == "waiting for Ray to start, 30 s so far"
    assert in_notebook[-1] == {"text/plain": ""}


def test_a_notebook_shows_one_output_that_changes(in_notebook: list[dict[str, str]], trial: Trial) -> None:
    """Bars for the first trials and a count of the others; lines of their own for failures; nothing in the end."""
    console = Console(file=io.StringIO(), width=1000)
    specs = [trial(seed) for seed in range(SHOWN_TRIALS + 2)]
    with shown(RunProgress(specs, num_done=0), console) as show:
        for spec in specs:
            show(running(spec, at(1, 5)))
        assert in_notebook[-1]["text/html"].count('<progress value="0.750">') == SHOWN_TRIALS
        assert in_notebook[-1]["text/html"].endswith("and 2 more")
        assert in_notebook[-1]["text/plain"] == "0/14 trials done, 14 running, 0 failed, 0 waiting"
        show(failed(specs[0], "OSError: <b>no</b>"))
    assert in_notebook[-1] == {"text/plain": ""}
    assert isinstance(console.file, io.StringIO)
    assert "OSError: <b>no</b>" in console.file.getvalue()


def test_a_plain_process_is_no_notebook() -> None:
    """Where IPython is installed but not at work, progress is lines."""
    assert not display.is_notebook()
