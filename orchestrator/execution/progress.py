"""Shows the progress of a run: a live display in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crwn.benchmarks import benchmark_name
from orchestrator import waiting
from orchestrator.display import is_notebook, print_line, printable
from orchestrator.execution.protocol import TrialUpdate
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.waiting import Heartbeat

if TYPE_CHECKING:
    from crwn.events import Progress
    from crwn.trial_spec import TrialSpec

PLAIN_SECONDS = 10.0
"""Seconds after the last plain progress line until the next one, which adds one line per running trial."""

ESTIMATE_AFTER_SECONDS = 5.0
"""Seconds of work before the time left is estimated: the first steps of a process are slow."""
EARLY_SECONDS = 60.0
EARLY_SHARE = 0.01
"""In these first seconds, no estimate is made from less than this share of the work: a trial that has just prepared its
images seems slow."""

SHOWN_TRIALS = 12
"""Number of running trials that the live display lists."""

NOTEBOOK_SECONDS, NOTEBOOK_QUIET_SECONDS = 0.25, 1.0
"""Minimum time between two updates of the display in a notebook; and the time after which it is refreshed anyway,
to show for how long the run has been waiting."""


@dataclass(slots=True)
class _Running:
    """A trial that has reported progress and not ended."""

    progress: Progress | None = None
    first_share: float | None = None


class RunProgress:
    """Counts a run's trials by state from their updates.

    Args:
        trials: the pending trials of this run.
        num_done: number of the sweep's trials that were finished before.
        clock: returns the time in seconds.
    """

    def __init__(self, trials: Iterable[TrialSpec], num_done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.specs = {spec.trial_id: spec for spec in trials}
        self.num_before = num_done
        self.finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []
        self.running: dict[str, _Running] = {}
        self._work = {trial_id: estimated_work(spec) for trial_id, spec in self.specs.items()}
        self._clock = clock
        self._started = clock()
        self._first_progress: float | None = None
        self._skipped_work = 0.0
        self._waits_for: tuple[str, float] | None = None

    def wait_for(self, what: str) -> None:
        """Note what the next update has to wait for."""
        self._waits_for = what, self._clock()

    def update(self, update: TrialUpdate) -> str | None:
        """Process an update of a trial; returns a line to print, if any."""
        trial_id, line = update.trial_id, None
        self._waits_for = None
        if update.note and update.note not in self.notes:
            self.notes.append(update.note)
            line = f"note: {update.note}"
        if update.state == "running":
            self.failed.pop(trial_id, None)  # it is being retried
            running = self.running.setdefault(trial_id, _Running())
            if update.progress is not None:
                running.progress = update.progress
                if self._first_progress is None:
                    self._first_progress = self._clock()
                if running.first_share is None:  # work of an earlier run does not count for this run's speed
                    running.first_share = share(update.progress)
                    self._skipped_work += self._work[trial_id] * running.first_share
            return line
        self.running.pop(trial_id, None)
        if update.state == "finished":
            self.failed.pop(trial_id, None)
            self.finished.add(trial_id)
            return line
        self.failed[trial_id] = update.error or "unknown error"
        return f"failed: {describe(self.specs[trial_id])}: {self.failed[trial_id]}"

    @property
    def seconds(self) -> float:
        """Seconds since the start of the run."""
        return self._clock() - self._started

    @property
    def seconds_left(self) -> float | None:
        """The estimated time left, from the work since the first report; None while too little is known."""
        if self._first_progress is None:
            return None
        total = sum(self._work.values())
        done = sum(self._work[trial_id] for trial_id in (*self.finished, *self.failed))
        for trial_id, running in self.running.items():
            if running.progress is not None:
                done += self._work[trial_id] * share(running.progress)
        elapsed, worked = self._clock() - self._first_progress, done - self._skipped_work
        too_early = elapsed < ESTIMATE_AFTER_SECONDS or (elapsed < EARLY_SECONDS and worked < EARLY_SHARE * total)
        return None if worked <= 0 or too_early else elapsed * (total - done) / worked

    def summary(self) -> str:
        """One line with the number of trials in each state, and the time left."""
        num_left = len(self.specs) - len(self.finished) - len(self.failed) - len(self.running)
        done = self.num_before + len(self.finished)
        left = self.seconds_left
        parts = [
            f"{done}/{self.num_before + len(self.specs)} trials done",
            f"{len(self.running)} running",
            f"{len(self.failed)} failed",
            f"{num_left} waiting",
        ]
        return ", ".join(parts) + (f", about {show_seconds(left)} left" if left is not None else "")

    def standing(self) -> str:
        """One line that says what the run is waiting for, and for how long; otherwise, the numbers of trials."""
        if self._waits_for is None:
            return self.summary()
        what, since = self._waits_for
        return f"waiting for {what}, {self._clock() - since:.0f} s so far"

    def details(self) -> Iterator[str]:
        """One line per running trial."""
        for trial_id, running in self.running.items():
            yield f"{describe(self.specs[trial_id])}: {show_progress(running.progress)}"


@contextmanager
def shown(progress: RunProgress, console: Console) -> Iterator[Callable[[TrialUpdate], None]]:
    """Show a run's progress for the duration of a `with` block.

    Returns:
        The function to call with every update.
    """
    if console.is_terminal:
        # Live redraws itself from its own thread; updates only change the numbers.
        with Live(console=console, get_renderable=lambda: _renderable(progress), refresh_per_second=4, transient=True):

            def show(update: TrialUpdate) -> None:
                if line := progress.update(update):
                    print_line(console, line)

            yield show
        return
    if is_notebook():
        with _shown_in_notebook(progress, console) as show_there:
            yield show_there
        return
    with _shown_in_lines(progress, console) as show_in_lines:
        yield show_in_lines


@contextmanager
def _shown_in_lines(progress: RunProgress, console: Console) -> Iterator[Callable[[TrialUpdate], None]]:
    """Show a run's progress in lines, at least one every `QUIET_SECONDS`."""

    def say(*, with_details: bool) -> None:
        print_line(console, progress.standing())
        for detail in progress.details() if with_details else ():
            print_line(console, f"  {detail}")

    with Heartbeat(lambda: say(with_details=True), waiting.QUIET_SECONDS) as heartbeat:

        def show(update: TrialUpdate) -> None:
            with heartbeat.lock:
                num_finished = len(progress.finished)
                line = progress.update(update)
                if line:
                    print_line(console, line)
                is_due = heartbeat.quiet >= PLAIN_SECONDS
                if len(progress.finished) > num_finished or is_due:
                    heartbeat.reset()
                    say(with_details=is_due)

        yield show


@contextmanager
def _shown_in_notebook(progress: RunProgress, console: Console) -> Iterator[Callable[[TrialUpdate], None]]:
    """Show a run's progress in one output of a notebook cell, updated in place and cleared at the end."""
    from IPython.display import display  # noqa: PLC0415 (it is there in a notebook alone)

    place = display(_as_html(progress), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def change() -> None:
        place.update(_as_html(progress), raw=True)

    try:
        with Heartbeat(change, NOTEBOOK_QUIET_SECONDS) as heartbeat:

            def show(update: TrialUpdate) -> None:
                with heartbeat.lock:
                    if line := progress.update(update):
                        print_line(console, line)
                    if heartbeat.quiet >= NOTEBOOK_SECONDS:
                        heartbeat.reset()
                        change()

            yield show
    finally:
        place.update({"text/plain": ""}, raw=True)


def _as_html(progress: RunProgress) -> dict[str, str]:
    """What a notebook shows of a run, by media type."""
    rows = [
        f'<tr><td style="text-align: left">{html.escape(what)}</td><td><progress value="{done:.3f}"></progress></td>'
        f'<td style="text-align: left">{html.escape(where)}</td></tr>'
        for what, done, where in _lines(progress)
    ]
    hidden = len(progress.running) - SHOWN_TRIALS
    more = f"and {hidden} more" if hidden > 0 else ""
    standing = progress.standing()
    return {
        "text/plain": standing,
        "text/html": f"<b>{html.escape(standing)}</b><table>{''.join(rows)}</table>{more}",
    }


def _lines(progress: RunProgress) -> Iterator[tuple[str, float, str]]:
    """The running trials that a live display lists: what each is, its share done, and where it is."""
    for trial_id, running in list(progress.running.items())[:SHOWN_TRIALS]:
        done = share(running.progress) if running.progress is not None else 0.0
        yield printable(describe(progress.specs[trial_id])), done, show_progress(running.progress)


def _renderable(progress: RunProgress) -> Group:
    table = Table.grid(padding=(0, 1))
    for what, done, where in _lines(progress):
        table.add_row(Text(what), ProgressBar(total=1.0, completed=done, width=20), Text(where))
    hidden = len(progress.running) - SHOWN_TRIALS
    if hidden > 0:
        table.add_row(Text(f"and {hidden} more"))
    return Group(Text(progress.standing(), style="bold"), table)


def share(progress: Progress) -> float:
    """The share of a trial's training that is done, in [0, 1]."""
    learned = progress.tasks_learned + progress.learning * progress.step / progress.num_steps
    return min(1.0, learned / progress.num_tasks)


def show_progress(progress: Progress | None) -> str:
    """A trial's progress as text."""
    if progress is None:
        return "starting"
    accuracy = f", accuracy so far {100 * progress.accuracy:.1f} %" if progress.accuracy is not None else ""
    step = f", update {progress.step}/{progress.num_steps}" if progress.step else ""
    return f"task {progress.tasks_learned}/{progress.num_tasks}{step}{accuracy}"


def describe(spec: TrialSpec) -> str:
    """A short description of a trial."""
    variant = f" ({spec.variant})" if spec.variant else ""
    benchmark = benchmark_name(RecordedSpec.of(spec).benchmark)
    return f"{spec.method.kind} {spec.scale}{variant}, {benchmark}, seed {spec.seed}"


def estimated_work(spec: TrialSpec) -> float:
    """Multiply-adds of a trial's training, plus the overhead of its updates in the same unit."""
    overhead = STEP_OVERHEAD * (2 if spec.blueprint().examples_replayed else 1)
    return float((spec.multiply_adds_per_update() + overhead) * spec.num_updates())


STEP_OVERHEAD = 20_000_000
"""Overhead of a step besides its products, half a millisecond, as multiply-adds of a CPU core. Drawing from a replay
buffer and filling it costs as much again."""


def show_seconds(seconds: float) -> str:
    """A duration as text, rounded."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
