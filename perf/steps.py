"""Profile the training loop: where an update spends its time.

    CRWN_DATA=... .venv/bin/python -m perf.steps

Writes the table in README.md between its marks. One thread; run it on an idle machine. An update is timed
without the profiler and its operations with the profiler, alternately. The difference is time between operations:
Python, autograd, and torch's dispatch.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.autograd.profiler_util import FunctionEvent

from crwn import backbone, batches, engine
from crwn.data import datasets
from crwn.trial import decide_numerics, run_trial
from crwn.trial_spec import TrialSpec
from perf.engine import ROWS, Row, machine, one_thread, replace_between, trial

UPDATES = 100
ROUNDS = 5
UPDATE, BATCH = "update", "batch"
"""The parts of the loop."""
PRODUCTS = ("mkldnn::_linear_pointwise", "aten::mm", "aten::bmm", "onednn::qlinear_pointwise")
OPTIMIZER = ("aten::_fused_adam_", "aten::_fused_sgd_")
PARTS = ("products", "optimiser", "batch", "other operations")


def main() -> None:
    """Measure, write."""
    one_thread()
    learn = functools.partial(run_trial, data=datasets(), backbones=functools.cache(backbone.draw))
    lines = [
        f"{machine()}, torch {torch.__version__}, one thread.",
        f"Milliseconds of an update: the median of {UPDATES}, in the best of {ROUNDS} rounds.",
        "",
        f"| method | scale | dtype | tasks at once | update | {' | '.join(PARTS)} | outside operations |",
        "| --- " * (6 + len(PARTS)) + "|",
    ]
    for row in ROWS:
        for dtype in row.targets:
            lines.append(line(row, dtype, learn))
            print(lines[-1], flush=True)
    replace_between("steps.py", lines)


def line(row: Row, dtype: str, learn: Callable[[TrialSpec], object]) -> str:
    """One row of the table."""
    spec = trial(row.method, row.scale, dtype, UPDATES, num_tasks=36)
    together = decide_numerics(spec).group_size
    first = spec.blueprint().moves_shared == "first segment"
    spec = trial(row.method, row.scale, dtype, UPDATES, num_tasks=first + together)
    rounds = [(whole_seconds(spec, learn), part_seconds(spec, learn)) for _ in range(ROUNDS)]
    whole = min(seconds for seconds, _ in rounds)
    parts = [min(seconds[name] for _, seconds in rounds) for name in PARTS]
    cells = [row.method, row.scale, dtype, str(together)]
    cells += [f"{1000 * value:.2f}" for value in (whole, *parts, whole - sum(parts))]
    return f"| {' | '.join(cells)} |"


def whole_seconds(spec: TrialSpec, learn: Callable[[TrialSpec], object]) -> float:
    """The median time of an update of the last group with its batch."""
    taken: list[float] = []
    with observed(lambda _: stopwatch(taken)):
        learn(spec)
    pairs = zip(taken[::2], taken[1::2], strict=True)  # a batch and the update with it, in turns
    return statistics.median([sum(pair) for pair in pairs][-UPDATES:])


def part_seconds(spec: TrialSpec, learn: Callable[[TrialSpec], object]) -> dict[str, float]:
    """The same by part, according to the profiler."""
    with torch.profiler.profile() as profiler, observed(torch.profiler.record_function):
        learn(spec)
    regions = [event for event in profiler.events() if event.name in (UPDATE, BATCH)][-2 * UPDATES :]
    updates = [by_part(batch) + by_part(update) for batch, update in zip(regions[::2], regions[1::2], strict=True)]
    return {name: statistics.median(update[name] for update in updates) for name in PARTS}


@contextmanager
def observed(around: Callable[[str], AbstractContextManager[Any]]) -> Iterator[None]:
    """Wrap every batch and every update in `around`."""

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with around(name):
                return function(*arguments, **keywords)

        return call

    with ExitStack() as stack:
        for name, owner, method in ((UPDATE, engine.Engine, "_update"), (BATCH, batches.Lanes, "batch")):
            stack.enter_context(mock.patch.object(owner, method, wrapped(name, getattr(owner, method))))
        yield


@contextmanager
def stopwatch(taken: list[float]) -> Iterator[None]:
    """Adds the seconds spent in a `with` block."""
    started = time.perf_counter()
    yield
    taken.append(time.perf_counter() - started)


def by_part(region: FunctionEvent) -> Counter[str]:
    """Seconds spent in the operations of a region, each without nested ones."""
    seconds: Counter[str] = Counter()
    for event in operations(region):
        seconds[part(region, event)] += event.self_cpu_time_total / 1e6
    return seconds


def operations(event: FunctionEvent) -> Iterator[FunctionEvent]:
    """All of torch's operations within, except autograd's bookkeeping."""
    for child in event.cpu_children:
        if "::" in child.name and not child.name.startswith("autograd::"):
            yield child
        yield from operations(child)


def part(region: FunctionEvent, event: FunctionEvent) -> str:
    """The part to which an operation counts."""
    if region.name == BATCH:
        return "batch"
    if event.name in PRODUCTS:
        return "products"
    return "optimiser" if event.name in OPTIMIZER else "other operations"


if __name__ == "__main__":
    main()
