"""Measures metaplasticity on two-digit items, at the settings of sweeps/cho2025/.

    CRWN_DATA=<folder with MNIST/raw> python -m perf.items

A whole trial of ten items with its 55 tests: 200 updates with batches of 250, 392-512-512-10, on one thread. Reports
CPU seconds, the best of three rounds in which the methods alternate, next to those of a bare torch loop with the same
updates but no data, alpha or tests.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping

import torch

from crwn import backbone
from crwn.benchmarks.items import ItemsSpec
from crwn.data import Datasets, datasets
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.metaplastic import MetaplasticSpec
from crwn.spec import MethodSpec, TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from perf.engine import machine, replace_between

ROUNDS = 3
SIZES = (392, 512, 512, 10)
ARMS: Mapping[str, MethodSpec] = {
    "finetune": FinetuneSpec(),
    "metaplastic, f = 1": MetaplasticSpec(low=1.0, steepness=5000.0),
    "metaplastic, one flexibility": MetaplasticSpec(low=0.3, high=0.3, steepness=600.0),
    "metaplastic, hybrid": MetaplasticSpec(steepness=5000.0),
}


def seconds(method: MethodSpec, data: Datasets) -> float:
    """A trial's CPU seconds."""
    training = TrainingSpec(learning_rate=0.02, optimizer="sgd", batch_size=250, epochs_per_task=5)
    spec = TrialSpec(
        method=method, benchmark=ItemsSpec(base="mnist", normalise=True), scale="FC512", seed=10, training=training
    )
    started = time.process_time()
    run_trial(spec, data=data, backbones=backbone.draw)
    return time.process_time() - started


def bare_seconds() -> float:
    """CPU seconds of 200 forward and backward passes and SGD steps."""
    layers = [torch.nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(SIZES)]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    images, labels = torch.rand(250, SIZES[0]), torch.arange(250) % SIZES[-1]
    started = time.process_time()
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return time.process_time() - started


def main() -> None:
    """Measure, print, and put the table into README.md."""
    torch.set_num_threads(1)
    data = datasets()
    seconds(FinetuneSpec(), data)  # loads modules and images
    turns = [[bare_seconds(), *(seconds(method, data) for method in ARMS.values())] for _ in range(ROUNDS)]
    lines = [f"{machine()}, torch {torch.__version__}, one thread, {time.strftime('%Y-%m-%d')}.", ""]
    lines += ["| a trial of ten items | seconds |", "| --- | --- |"]
    names = ("a bare torch loop of the same updates", *ARMS)
    lines += [f"| {name} | {min(turn[number] for turn in turns):.2f} |" for number, name in enumerate(names)]
    replace_between("items.py", lines)


if __name__ == "__main__":
    main()
