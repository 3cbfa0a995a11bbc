"""The command plan: shows what a sweep would run, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from crwn.data import BASE_SETS
from crwn.trial_spec import TrialSpec
from orchestrator import display
from orchestrator.display import NARROW, counted, print_line, print_table
from orchestrator.execution.expecting import about, duration, expected, past_trials
from orchestrator.execution.packing import measured, num_slots, resources_of
from orchestrator.execution.progress import show_seconds
from orchestrator.execution.protocol import Capacity
from orchestrator.store.store import Store
from orchestrator.sweeps import bundled, departures
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Cell, Sweep

TEXT_COLUMNS = ("method", "variant", "scale", "benchmark", "scenario", "seeds")


def show(sweep: Sweep, store: Store, console: Console) -> None:
    """Print one row per cell, the settings that differ from the methods' defaults, the time, and the totals."""
    finished = store.finished(trial.trial_id for trial in sweep.trials)
    left = [trial for trial in sweep.trials if trial.trial_id not in finished]
    rows = [_cell(sweep, cell, sum(trial.trial_id in finished for trial in cell.trials)) for cell in sweep.chosen]
    left_out = _left_out(sweep, console)
    shown = [{name: text for name, text in row.items() if name not in left_out} for row in rows]
    text_columns = [name for name in shown[0] if name in TEXT_COLUMNS]
    print_table(
        console,
        title=f"{sweep.title}: {len(sweep.trials)} trials",
        text_columns=text_columns,
        number_columns=[name for name in shown[0] if name not in TEXT_COLUMNS],
        rows=[list(row.values()) for row in shown],
    )
    for line in (*departures.lines(sweep.chosen), *departures.warnings(sweep.chosen), *_time(sweep, store, left)):
        print_line(console, line)
    print_line(console, f"{len(left)} trials to run, {len(finished)} done in {store.address}")
    print_line(console, f"{sum(map(petaflop, left)):.3g} PFLOP of training left; nothing was started")


def _left_out(sweep: Sweep, console: Console) -> set[str]:
    """The columns that are uninformative for this sweep, or do not fit on a narrow screen."""
    left_out = set()
    if not any(cell.blueprint.statistics_per_task for cell in sweep.cells):
        left_out.add("statistics\n/task")
    if not any(cell.blueprint.examples_kept for cell in sweep.cells):
        left_out.add("examples\nkept")
    if all(cell.trials[0].benchmark.problem().scenario == "task" for cell in sweep.cells):
        left_out.add("scenario")
    if console.width < NARROW:  # keep names and the counts of the paper's tables in full; --json has the rest
        left_out |= {"trained\n/task", "stored\n/task", "statistics\n/task"}
        if not any(cell.variant for cell in sweep.cells):
            left_out.add("variant")
        if sweep.reference:
            left_out.add("updates\n/task")
    return left_out


def _time(sweep: Sweep, store: Store, left: Sequence[TrialSpec]) -> Iterator[str]:
    """How long the pending trials may take here, and what the estimate is based on."""
    if not left:
        return
    found = duration(left, sweep.resources, store)
    cores = counted(found.cpus, "CPU core")
    if found.slots:
        bounds = f"between {about(found.least)} and {about(found.most)}"
        yield f"time: about {about(found.seconds)} on this machine, {bounds}; {found.slots} in parallel on {cores}"
    else:
        yield f"time: unknown; a trial takes {sweep.resources.cpus:g} CPU cores, and this machine has {cores}"
    yield from (f"  {part}" for part in found.parts)


def show_bundled(console: Console) -> None:
    """Print the bundled sweeps: name, what each runs, data, time, number of trials."""
    rows = []
    for name, file in bundled.files().items():
        said, trials = bundled.opening(file), load_sweep(file).trials
        rows.append([name, said.what, ", ".join(_data(trials)), said.time, str(len(trials))])
    print_table(
        console,
        title="bundled sweeps",
        text_columns=["name", "what it runs", "data", "on 2 CPU cores"],
        number_columns=["trials"],
        rows=rows,
    )
    print_line(console, "crwn run NAME runs one; crwn sweeps NAME copies it for editing; crwn data list shows the data")


def _data(trials: Iterable[TrialSpec]) -> list[str]:
    """The names of the data sets that trials read; digits are embedded."""
    names = sorted({trial.benchmark.base for trial in trials})
    return [f"{name} (embedded)" if BASE_SETS[name].is_embedded else name for name in names]


def show_capacity(sweep: Sweep, store: Store, capacity: Capacity, console: Console) -> None:
    """Print how many trials of each cell run in parallel on machines, and how long the pending ones take, if known.

    Times are those of trials that differ only in their seed, on any machine.
    """
    known = measured(store, sweep.requested)
    cpus, gpus = (sum(getattr(node, name) for node in capacity.nodes) for name in ("cpus", "gpus"))
    memory = "" if capacity.gpu_memory is None else f" of {capacity.gpu_memory / 2**30:.0f} GiB"
    rows, seconds, num_unknown = [], 0.0, 0
    for cell in sweep.chosen:
        left = [trial for trial in cell.trials if not store.is_finished(trial.trial_id)]
        past = known.get(cell.trials[0].trial_id)
        resources = resources_of(cell.trials[0], sweep.resources, capacity, past)
        slots = num_slots(resources, capacity.nodes)
        if past is None or not slots:
            num_unknown += len(left)
        else:
            seconds += len(left) * past.seconds / slots
        names = [display.shown_method(cell.method, continual=cell.blueprint.is_continual), cell.variant, cell.scale]
        each = "-" if past is None else show_seconds(past.seconds)
        rows.append([*names, cell.benchmark, f"{resources.gpus or 0:g}", str(slots), str(len(left)), each])
    print_table(
        console,
        title=f"{sweep.title} on machines: {len(capacity.nodes)}, with {cpus:g} CPUs and {gpus:g} GPUs{memory}",
        text_columns=TEXT_COLUMNS[:4],
        number_columns=["GPUs\n/trial", "at\nonce", "left", "a trial\ntook"],
        rows=rows,
    )
    told = [f"about {show_seconds(seconds)} left"] if seconds or not num_unknown else []
    if num_unknown:
        told.append(f"time unknown for {num_unknown} trials whose cells have no finished seed")
    print_line(console, "; ".join([*told, "nothing was started"]))


def _cell(sweep: Sweep, cell: Cell, done: int) -> dict[str, str]:
    """One row of the plan, as text by column."""
    trial, blueprint = cell.trials[0], cell.blueprint
    problem, ratio = trial.benchmark.problem(), sweep.ratio(cell)
    return {
        "method": display.shown_method(cell.method, continual=blueprint.is_continual),
        "variant": cell.variant,
        "scale": cell.scale,
        "benchmark": cell.benchmark,
        "scenario": problem.scenario,
        "seeds": " ".join(str(trial.seed) for trial in cell.trials),
        "tasks": str(problem.num_tasks),
        "updates\n/task": _updates(trial),
        "done": f"{done}/{len(cell.trials)}",
        "params\n/task": f"{blueprint.params_per_task:,.0f}",
        **({} if ratio is None else {f"ratio to\n{sweep.reference}": display.show_ratio(ratio)}),
        "examples\nkept": display.show_examples(blueprint.examples_kept),
        "trained\n/task": f"{blueprint.trained_per_task:,}",
        "stored\n/task": f"{blueprint.stored_per_task:,}",
        "statistics\n/task": f"{blueprint.statistics_per_task:,}",
        "PFLOP": f"{len(cell.trials) * petaflop(trial):.3g}",
    }


def _updates(trial: TrialSpec) -> str:
    """Optimiser steps per task, on average if tasks differ in size; for a stream, the total."""
    problem, number = trial.benchmark.problem(), trial.num_updates()
    return f"{number} in all" if problem.is_stream else f"{number / problem.num_segments:.0f}"


def petaflop(trial: TrialSpec) -> float:
    """The training work of a trial in 10^15 floating-point operations, in the plain computation."""
    return 2 * trial.multiply_adds_per_update() * trial.num_updates() / 1e15


def as_json(sweep: Sweep, store: Store) -> str:
    """The plan for programs: every trial with its identity, names, resolved spec, counts and expected time."""
    finished = store.finished(trial.trial_id for trial in sweep.trials)
    times = iter(expected(sweep.trials, past_trials(store)))
    trials = [
        {
            **_trial(sweep, cell, trial, is_finished=trial.trial_id in finished),
            **next(times).as_json(),
            "departures": departures.departures(trial),
        }
        for cell in sweep.chosen
        for trial in cell.trials
    ]
    return json.dumps({"sweep": sweep.name, "store": store.address, "trials": trials}, indent=1)


def _trial(sweep: Sweep, cell: Cell, trial: TrialSpec, *, is_finished: bool) -> Mapping[str, Any]:
    blueprint = cell.blueprint
    return {
        "trial_id": trial.trial_id,
        "method": cell.method,
        "variant": cell.variant,
        "scale": cell.scale,
        "benchmark": cell.benchmark,
        "scenario": trial.benchmark.problem().scenario,
        "seed": trial.seed,
        "finished": is_finished,
        "continual": blueprint.is_continual,
        "params_per_task": blueprint.params_per_task,
        "ratio": sweep.ratio(cell),
        "trained_per_task": blueprint.trained_per_task,
        "stored_per_task": blueprint.stored_per_task,
        "statistics_per_task": blueprint.statistics_per_task,
        "examples_kept": blueprint.examples_kept,
        "stored_memory": blueprint.stored_memory,
        "updates": trial.num_updates(),
        "petaflop": petaflop(trial),
        "spec": json.loads(trial.canonical_json()),
    }
