"""Compare the engine with straightforward implementations of the methods (`references.py`), side by side in one run.

    CRWN_DATA=... make perf            about a quarter of an hour, with fewer batches
    CRWN_DATA=... make perf-full       every measurement over a whole task of 1000 batches

Writes engine.json and the tables in README.md between their marks. The two sides alternate, each in its own
single-threaded process; figures are medians over rounds. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from crwn import backbone
from crwn.benchmarks import PRESETS
from crwn.data import Datasets, datasets
from crwn.methods import METHODS
from crwn.nn.kernels import ONEDNN, PLAIN
from crwn.trial import decide_numerics, run_trial
from crwn.trial_spec import TrialSpec

FOLDER = Path(__file__).resolve().parent
ROUNDS = 5
UPDATES = 1000
"""Of a task, to which all seconds are scaled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A network, the number of updates in a quick measurement, and the target speed-ups.

    `targets` are factors over A and over B, by dtype.
    """

    method: str
    scale: str
    quick: int
    targets: dict[str, tuple[float | None, float]]


ROWS = [
    Row(method="neuromodnet", scale="FC256", quick=1000, targets={"float32": (20, 2.3), "bfloat16": (40, 4.5)}),
    Row(method="neuromodnet", scale="FC1024", quick=100, targets={"float32": (None, 2.2), "bfloat16": (None, 4.5)}),
    Row(method="batche", scale="FC256", quick=1000, targets={"float32": (20, 2.3), "bfloat16": (40, 4.5)}),
    Row(method="flynet", scale="10d", quick=200, targets={"float32": (None, 5)}),
    Row(method="supsup", scale="FC256", quick=1000, targets={"float32": (None, 1.4), "bfloat16": (None, 3)}),
    Row(method="psp", scale="FC256", quick=1000, targets={"float32": (None, 2)}),
]
MNIST_IMAGES = 60_000
"""To learn from."""
QUICK_A = 60
QUICK_B = 0.25
"""The share of the engine's updates that B takes in a quick measurement."""


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="Measure the engine against plain references.")
    parser.add_argument("--full", action="store_true", help="whole tasks of 1000 batches")
    full = parser.parse_args().full
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, one_thread) as references,
        ProcessPoolExecutor(1, spawn, one_thread) as engine,
        ProcessPoolExecutor(1, spawn, one_thread) as beside,
    ):
        peaks = engine.submit(peak_rates).result()
        print("peak, GFLOP/s:", {name: round(rate) for name, rate in peaks.items()}, flush=True)
        rows = []
        for row in ROWS:
            rows.append(measure(row, references, engine, full=full))
            print(rows[-1], flush=True)
        alone, together = pairs(engine, beside, full=full)
    found = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "torch": torch.__version__,
        "updates": "1000" if full else "fewer, scaled to 1000",
        "peak_gflops": peaks,
        "rows": rows,
        "two_trials": {"alone": alone, "together": together},
        "seconds_to_make_a_task": task_seconds(),
    }
    (FOLDER / "engine.json").write_text(json.dumps(found, indent=1) + "\n")
    replace_between("engine.py", list(tables(found)))


def one_thread() -> None:
    """As in a trial with one core."""
    torch.set_num_threads(1)


def peak_rates() -> dict[str, float]:
    """GFLOP/s (or integer operations) of products of 512 x 1024 x 1024, one thread, the best of many."""
    x, w = torch.randn(512, 1024), torch.randn(1024, 1024)
    numbers, ones = torch.randint(0, 256, (512, 1024), dtype=torch.uint8), torch.ones(1024, 1024)
    single, half = ONEDNN.freeze(w), ONEDNN.freeze(w.bfloat16())
    integers = ONEDNN.freeze_integers(ones)
    products: dict[str, Callable[[], object]] = {
        "float32, torch.mm": lambda: PLAIN.linear(x, w),
        "float32, oneDNN": lambda: single.forward(x),
        "bfloat16, oneDNN": functools.partial(half.forward, x.bfloat16()),
        "int8, oneDNN": lambda: integers(numbers),
    }
    return {name: 2 * 512 * 1024 * 1024 / _best_seconds(product) / 1e9 for name, product in products.items()}


def _best_seconds(product: Callable[[], object]) -> float:
    def once() -> float:
        started = time.perf_counter()
        product()
        return time.perf_counter() - started

    return min(once() for _ in range(100))


def measure(row: Row, references: ProcessPoolExecutor, engine: ProcessPoolExecutor, *, full: bool) -> dict[str, Any]:
    """Seconds per task of a row, by side."""
    updates = UPDATES if full else row.quick
    sides: dict[str, tuple[ProcessPoolExecutor, Callable[..., float], tuple[Any, ...]]] = {
        "B": (references, reference_seconds, ("b", row.method, row.scale, updates if full else int(updates * QUICK_B)))
    }
    if any(over_a for over_a, _ in row.targets.values()):
        sides["A"] = (references, reference_seconds, ("a", row.method, row.scale, UPDATES if full else QUICK_A))
    for dtype in row.targets:
        sides[dtype] = (engine, engine_seconds, (row.method, row.scale, dtype, updates))
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, (pool, function, arguments) in sides.items():
            taken[side].append(pool.submit(function, *arguments).result())
    return {"method": row.method, "scale": row.scale, "seconds": taken}


def reference_seconds(kind: str, method: str, scale: str, updates: int) -> float:
    """Seconds per task of a reference."""
    from perf import references

    split = _data().load("mnist").train
    batches = {"a": references.batches_a, "b": references.batches_b}[kind](split.images[:, 0], split.labels)
    size = int("".join(filter(str.isdigit, scale)))
    return references.train(method, size, batches, updates) * UPDATES


def engine_seconds(method: str, scale: str, dtype: str, updates: int) -> float:
    """Seconds per task of a trial's second group, as large as the rule makes it; BatchE's after its first task."""
    spec = trial(method, scale, dtype, updates, num_tasks=36)
    together = decide_numerics(spec).group_size
    before = together + (spec.blueprint().moves_shared == "first segment")
    spec = trial(method, scale, dtype, updates, num_tasks=before + together)
    finished = run_trial(spec, data=_data(), backbones=_draw)
    seconds = [row.train_seconds for row in finished.rows if row.train_seconds is not None]
    return statistics.fmean(seconds[before:]) / updates * UPDATES


def trial(method: str, scale: str, dtype: str, updates: int, num_tasks: int) -> TrialSpec:
    """The first tasks of r-mnist."""
    settings = METHODS[method].spec()
    return TrialSpec(
        method=settings,
        benchmark=dataclasses.replace(PRESETS["r-mnist"], num_tasks=num_tasks),
        scale=scale,
        seed=0,
        training=dataclasses.replace(settings.training(scale), dtype=dtype, updates_per_task=updates),
    )


@functools.cache
def _data() -> Datasets:
    return datasets()


_draw = functools.cache(backbone.draw)


def pairs(engine: ProcessPoolExecutor, beside: ProcessPoolExecutor, *, full: bool) -> tuple[float, float]:
    """Seconds per task of NeuroModNet FC256 alone, and of each of two trials at once, one thread each."""
    task = ("neuromodnet", "FC256", "float32", UPDATES if full else 400)
    beside.submit(engine_seconds, *task).result()
    alone, together = [], []
    for _ in range(ROUNDS):
        alone.append(engine.submit(engine_seconds, *task).result())
        both = [pool.submit(engine_seconds, *task) for pool in (engine, beside)]
        together.append(max(future.result() for future in both))
    return statistics.median(alone), statistics.median(together)


def task_seconds() -> float:
    """Seconds to generate the training and test images of a task of r-mnist, the mean over all 36."""
    from crwn.benchmarks import BENCHMARKS

    torch.set_num_threads(1)
    spec = PRESETS["r-mnist"]
    tasks = BENCHMARKS[spec.kind].build(spec, _data().load("mnist"), 0, torch.device("cpu"))
    started = time.perf_counter()
    for task in range(tasks.num_tasks):
        tasks.train_split(task)
        tasks.test_split(task)
    return (time.perf_counter() - started) / tasks.num_tasks


def machine() -> str:
    """Processor (with family and model, since names are often vague), cores, and Python."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    processor = platform.processor()
    if "model name" in about:
        processor = f"{about['model name']} (family {about.get('cpu family')}, model {about.get('model')})"
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}"


def replace_between(script: str, lines: list[str]) -> None:
    """Put lines into README.md between the marks of a script, and print them."""
    readme, text = FOLDER / "README.md", "\n".join(lines) + "\n"
    before, mark, rest = readme.read_text().partition(f"<!-- {script} writes from here -->\n")
    _, end, after = rest.partition("<!-- to here -->\n")
    readme.write_text(before + mark + text + end + after)
    print(text)


def tables(found: dict[str, Any]) -> Iterator[str]:
    """The lines between the marks."""
    rates = found["peak_gflops"]
    yield f"{found['machine']}, torch {found['torch']}, one thread per trial, {found['when'][:10]}."
    yield f"Batches per task: {found['updates']}."
    yield (
        "Highest rates of a product here, in GFLOP/s: "
        + ", ".join(f"{n} {rate:.0f}" for n, rate in rates.items())
        + "."
    )
    yield ""
    yield (
        "| method | scale | A, s | B, s | dtype | engine, s | share of the peak | "
        "x A | target | at the peak | x B | target | at the peak |"
    )
    yield "| --- " * 13 + "|"
    for row, measured in zip(ROWS, found["rows"], strict=True):
        median = {side: statistics.median(values) for side, values in measured["seconds"].items()}
        for dtype, (over_a, over_b) in row.targets.items():
            taken, least = median[dtype], least_seconds(row, dtype, rates)
            cells = [row.method, row.scale, f"{median['A']:.1f}" if "A" in median else "", f"{median['B']:.2f}"]
            cells += [dtype, f"{taken:.2f}", f"{least / taken:.0%}" if least else ""]
            for reference, target in (("A", over_a), ("B", over_b)):
                if target is None:
                    cells += [""] * 3
                else:
                    of_peak = f"{median[reference] / least:.1f}" if least else ""
                    cells += [f"{median[reference] / taken:.{1 if reference == 'A' else 2}f}", str(target), of_peak]
            yield f"| {' | '.join(cells)} |"
    pair, made = found["two_trials"], found["seconds_to_make_a_task"]
    yield ""
    yield (
        f"Two trials at once on two cores (NeuroModNet FC256, float32): {pair['together']:.2f} s per task each, "
        f"{pair['alone']:.2f} alone. Generating a task of r-mnist takes {made:.2f} s."
    )


def least_seconds(row: Row, dtype: str, rates: dict[str, float]) -> float | None:
    """The time of the necessary matrix products at the highest measured rate, with everything else free.

    Two per layer with frozen weights, three if weights or masks are trained, one less in the first layer. None
    for FlyNet, most of whose products are of integers.
    """
    if row.method == "flynet":
        return None
    spec = trial(row.method, row.scale, dtype, UPDATES, num_tasks=36)
    examples = spec.training.batch_size * UPDATES
    multiply_adds = spec.blueprint().multiply_adds * examples
    if row.method == "psp":  # images are rotated once per task, not once per use
        multiply_adds -= spec.benchmark.problem().input_size ** 2 * (examples - MNIST_IMAGES)
    return 2 * multiply_adds / rates[f"{dtype}, oneDNN"] / 1e9


if __name__ == "__main__":
    main()
