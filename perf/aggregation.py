"""Measure tables and the page over many trials: with the compacted index, without it, and after adding trials.

    .venv/bin/python -m perf.aggregation [TRIALS] [TASKS]

Writes a store of synthetic finished trials with the store's own writer, to a temporary folder ($TMPDIR), then runs
each step in a separate process. Writes the table in README.md between its marks.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from crwn.benchmarks.permuted import PermutedSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import TrainingSpec
from crwn.testing import Conditions, new_store, write_finished
from crwn.trial_spec import TrialSpec
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.store import Store

TRIALS, TASKS, SEEDS, MORE = 10_000, 100, 3, 100
CONDITIONS = Conditions(curve_points=20)
SCALES = ("FC256", "FC512", "FC1024", "FC2048", "FC4096")

STEPS = (
    ("rebuild the index", "rebuild"),
    ("the sweep's table, from the index", "tables"),
    ("a pivot by learning rate and scale", "pivot"),
    ("every row against another, with ranks", "against"),
    ("the page, with figures", "page"),
)


def main() -> None:
    """Write the store, measure every step, write the table, print it."""
    given = [int(text) for text in sys.argv[1:]]
    num_trials, num_tasks = [*given, *(TRIALS, TASKS)[len(given) :]]
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(Path(folder) / "store")
        started = time.perf_counter()
        write(store, range(num_trials), num_tasks)
        print(f"written in {time.perf_counter() - started:.0f} s", flush=True)
        time.sleep(4)  # what was written a moment ago is not trusted yet
        lines = ["| step | s | CPU s | peak memory, MiB |", "| --- | --- | --- | --- |"]
        for name, step in [*STEPS, (f"the sweep's table after {MORE} trials more", "tables")]:
            if "more" in name:
                write(store, range(num_trials, num_trials + MORE), num_tasks)
            seconds, busy, mebibytes = measured(store, step)
            lines.append(f"| {name} | {seconds:.1f} | {busy:.1f} | {mebibytes:.0f} |")
            print(lines[-1], flush=True)
        size = sum(path.stat().st_size for path in (store.root / "index").iterdir()) / 2**20
    from perf.engine import machine, replace_between  # with torch, which the steps must not pay for

    about = f"{num_trials:,} trials of {num_tasks} tasks, {SEEDS} seeds per cell; the index has {size:.1f} MiB."
    replace_between("aggregation.py", [f"{machine()}. {about}", "", *lines])


def measured(store: Store, step: str) -> tuple[float, float, float]:
    """A step in a separate process: wall seconds, processor seconds, and peak memory in MiB."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "perf.aggregation", "--step", step, store.address],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, float(done.stdout.splitlines()[-1])


def run_step(step: str, address: str) -> None:
    """One step, in this process; prints its peak memory."""
    store = Store(address)
    if step in ("tables", "pivot", "against"):
        from orchestrator.report.printable import write as write_files
        from orchestrator.report.tables import Choice, tables_of

        choice = {
            "tables": Choice(),
            "pivot": Choice(rows=("training.learning_rate",), columns="scale", where=("benchmark=p-digits",)),
            "against": Choice(against="neuromodnet 0 FC256"),
        }[step]
        write_files(tables_of([store], choice), store.report)
    elif step == "page":
        from orchestrator.report.page import write_report

        write_report([store], store.report)
    else:
        from orchestrator.store.index import results

        results(store)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def write(store: Store, numbers: range, num_tasks: int) -> None:
    """Finished trials with everything that a real one has, and the manifest of a sweep that requests them."""
    generator = np.random.default_rng(numbers.start)
    cells: dict[tuple[str, str], ManifestCell] = {}
    if numbers.start:
        cells = {(cell.variant, cell.scale): cell for cell in store.manifest("large").cells}
    for number in numbers:
        cell, seed = divmod(number, SEEDS)
        rate, place = divmod(cell, len(SCALES))
        spec = TrialSpec(
            method=NeuroModNetSpec(),
            benchmark=PermutedSpec(base="digits", num_tasks=num_tasks),
            scale=SCALES[place],
            seed=seed,
            training=TrainingSpec(learning_rate=0.001 * (rate + 1)),
        )
        write_finished(store, spec, generator.uniform(0.8, 0.99, size=num_tasks), CONDITIONS)
        others = cells.get((str(rate), spec.scale))
        cells[str(rate), spec.scale] = ManifestCell(
            method="neuromodnet",
            variant=str(rate),
            scale=spec.scale,
            benchmark="permuted digits",
            trials={**(others.trials if others else {}), seed: spec.trial_id},
            params_per_task=1299.0,
            spec=RecordedSpec.of(spec).without_seed,
        )
    store.write_manifest(Manifest(name="large", cells=tuple(cells.values())))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        run_step(*sys.argv[2:])
    else:
        main()
