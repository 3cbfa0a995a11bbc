"""Measure context banks: size, loss from rounding, and the time to load and to predict batches of mixed tasks.

    CRWN_DATA=<folder with MNIST/raw> .venv/bin/crwn run sweeps/contexts.yaml
    CRWN_DATA=<folder with MNIST/raw> .venv/bin/python -m perf.contexts runs/contexts

Writes the tables in README.md and the figure of docs/contexts.md. One thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import crwn
from crwn.benchmarks.protocol import Benchmark
from crwn.context_files import Precision
from crwn.contexts import ContextBank, load
from crwn.task_inference import mean_images
from orchestrator.report.results import Results, tasks_of
from perf.engine import machine, replace_between

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
BITS = {"float32": 32, "float16": 16, "int8": 8}
FEWER_BITS = (6, 5, 4, 3)
"""Further precisions in bits per number, for comparison; no file has them."""

FIGURE = Path("docs/images/contexts/bits.png")

BATCH, REPEATS, LOADS = 128, 200, 20


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="Measure the context banks of a store.")
    parser.add_argument("store", help="the store of sweeps/contexts.yaml")
    results = crwn.open(parser.parse_args().store)
    torch.set_num_threads(1)
    trials = results.trials.query("method == 'neuromodnet' and benchmark == 'r-mnist' and status == 'done'")
    banks = [results.contexts(trial) for trial in trials["id"]]
    tasks = tasks_of(banks[0].trial, None)  # the same for every seed
    banks = [bank.with_mean_images(mean_images(tasks)) for bank in banks]
    lines = [f"{machine()}, torch {torch.__version__}, one thread; {len(banks)} seeds.", ""]
    by_bits: dict[int, list[float]] = {}
    lines += [*sizes(results, banks, tasks, by_bits), "", *times(banks[0], tasks)]
    draw(by_bits)
    replace_between("contexts.py", lines)


def draw(by_bits: dict[int, list[float]]) -> None:
    """The accuracy by bits per number, one dot per seed."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    bits = sorted(by_bits)
    axes.plot(bits, [statistics.mean(by_bits[each]) for each in bits], color="C0")
    for each in bits:
        axes.plot([each] * len(by_bits[each]), by_bits[each], "o", color="C0", markersize=4, alpha=0.7)
    axes.set_xscale("log", base=2)
    axes.set_xticks(bits, [str(each) for each in bits])
    axes.minorticks_off()
    axes.set_xlabel("bits per number")
    axes.set_ylabel("accuracy (%)")
    axes.set_title("NeuroModNet FC256, 36 rotations: contexts rounded after learning", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=150)


def sizes(
    results: Results, banks: list[ContextBank], tasks: Benchmark, by_bits: dict[int, list[float]]
) -> Iterator[str]:
    """Bytes and accuracies by numeric precision; also adds the accuracies in percent to `by_bits`."""
    stored = [results.matrix(bank.trial_id).iloc[-1].to_numpy() for bank in banks]
    yield (
        "| numbers | bytes, 36 tasks | with mean images | with the frozen weights | per task | accuracy, % "
        "| change, points |"
    )
    yield "| --- " * 7 + "|"
    for precision in PRECISIONS:
        small, images, whole = (
            len(banks[0].to_bytes(dtype=precision, mean_images=with_images, backbone=with_weights))
            for with_images, with_weights in ((False, False), (True, False), (False, True))
        )
        again = [load(bank.to_bytes(dtype=precision)) for bank in banks]
        found = [accuracies(bank, tasks) for bank in again]
        if precision == "float32":
            assert all(np.array_equal(one, other) for one, other in zip(found, stored, strict=True))
        by_bits[BITS[precision]] = percent(found)
        per_task = small / banks[0].num_tasks
        yield f"| {precision} | {small:,} | {images:,} | {whole:,} | {per_task:,.0f} | {_change(found, stored)} |"
    for bits in FEWER_BITS:
        found = [accuracies(rounded(bank, bits), tasks) for bank in banks]
        by_bits[bits] = percent(found)
        yield f"| {bits} bits (no file has them) | | | | | {_change(found, stored)} |"


def percent(found: list[np.ndarray]) -> list[float]:
    """The mean accuracy of each seed, in percent."""
    return [100 * float(accuracy.mean()) for accuracy in found]


def _change(found: list[np.ndarray], stored: list[np.ndarray]) -> str:
    """The mean accuracy, and its change for each seed."""
    means = [float(accuracy.mean()) for accuracy in found]
    changes = [100 * (mean - float(before.mean())) for mean, before in zip(means, stored, strict=True)]
    return f"{100 * statistics.mean(means):.3f} | {', '.join(f'{change:+.3f}' for change in changes)}"


def accuracies(bank: ContextBank, tasks: Benchmark) -> np.ndarray:
    """The accuracy on each task's test images."""
    found = []
    for task in range(tasks.num_tasks):
        split = tasks.test_split(task)
        answers = bank.predict(split.images, task=task).argmax(dim=1)
        found.append(int((answers == split.labels).sum()) / split.num_examples)
    return np.array(found)


def rounded(bank: ContextBank, bits: int) -> ContextBank:
    """The bank with contexts rounded to so many bits, with a scale per task and layer as in `int8`."""
    largest = 2 ** (bits - 1) - 1
    tensors = dict(bank.tensors)
    for name, tensor in bank.tensors.items():
        if tensor.dim() > 1:
            scale = tensor.abs().amax(dim=1, keepdim=True) / largest
            tensors[name] = (tensor / scale).round() * scale
    return dataclasses.replace(bank, tensors=tensors)


def times(bank: ContextBank, tasks: Benchmark) -> Iterator[str]:
    """The times that a bank takes to load and to predict."""
    content = bank.to_bytes()
    images = tasks.test_split(0).images[:BATCH]
    places = [number % bank.num_tasks for number in range(BATCH)]

    def ready() -> None:
        load(content).predict(images[:1], task=0)

    def loop() -> torch.Tensor:
        return torch.cat([bank.predict(image[None], task=place) for image, place in zip(images, places, strict=True)])

    difference = (bank.predict(images, task=places) - loop()).abs().max()
    one, mixed = medians(
        lambda: bank.predict(images, task=3), lambda: bank.predict(images, task=places), repeats=REPEATS
    )
    (loops,) = medians(loop, repeats=LOADS)
    (loaded,) = medians(ready, repeats=LOADS)
    (every,) = medians(lambda: bank.predict_all(images), repeats=LOADS)
    yield "| what | CPU milliseconds, median | |"
    yield "| --- | --- | --- |"
    yield f"| load and check the file, draw the frozen weights, predict one image | {1e3 * loaded:.1f} | |"
    yield f"| {BATCH} images of one task | {1e3 * one:.2f} | |"
    yield f"| {BATCH} images of {bank.num_tasks} tasks | {1e3 * mixed:.2f} | {mixed / one:.2f} x one task |"
    yield f"| the same, one image at a time | {1e3 * loops:.1f} | {loops / mixed:.0f} x as long |"
    yield f"| {BATCH} images under all {bank.num_tasks} tasks | {1e3 * every:.1f} | |"
    yield ""
    yield f"Largest difference in a class score between mixed batches and single images: {float(difference):.1e}."


def medians(*calls: Callable[[], object], repeats: int) -> list[float]:
    """Median CPU seconds of each call, independent of other work on the machine; calls alternate."""
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(repeats + 3):
        for call, times_ in zip(calls, taken, strict=True):
            started = time.process_time()
            call()
            if number >= 3:  # the first calls warm up
                times_.append(time.process_time() - started)
    return [statistics.median(times_) for times_ in taken]


if __name__ == "__main__":
    assert Path("perf").is_dir(), "run it in the project's folder"
    main()
