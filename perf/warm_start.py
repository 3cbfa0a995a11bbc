"""Compare how fast a task is learned from its own start, from a small random start, and from an earlier context.

    CRWN_DATA=... .venv/bin/python -m perf.warm_start STORE

For every finished trial in the store with `context_from: best`, every fourth task is learned again from what earlier
tasks had learned by then, and from the two other starts. Prints test accuracies after a few updates, averaged over
tasks, one line per trial and start. docs/contexts.md has the results.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from typing import Any

import torch

from crwn import backbone, learner
from crwn.batches import Table
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.protocol import Curriculum
from crwn.data import datasets
from crwn.evaluation import EVALUATION_BATCH
from crwn.groups import Group
from crwn.methods.protocol import Method, Tensors
from crwn.methods.starts import FROM, LEARNED
from crwn.nn.kernels import choose_kernel
from crwn.schedule import Schedule
from crwn.trial_spec import TrialSpec
from orchestrator.report.results import Results
from orchestrator.store.store import Store

UPDATES = (0, 10, 50)
"""Numbers of updates after which a task is tested."""

EVERY = 4
"""Every fourth task after the first is learned again."""

SMALL = {"context_low": -0.1, "context_high": 0.1}
CPU = torch.device("cpu")


def main(store: str) -> None:
    """Measure every trial."""
    torch.set_num_threads(1)
    results = Results(Store.existing(store))
    print(
        "| benchmark | seed | start | updates: " + " | ".join(map(str, UPDATES)) + " | tasks that used an earlier one |"
    )
    for trial_id in results.trials["id"]:
        trial = results.spec(trial_id)
        if getattr(trial.method, "context_from", "own") == "best" and trial.method.context_low == -1:  # type: ignore[attr-defined]  # so have those with the field
            measure(trial, results.contexts(trial_id).own)


def measure(trial: TrialSpec, own: Tensors) -> None:
    """Print the lines of one trial, whose tasks kept `own` [T, ...]."""
    small = dataclasses.replace(trial.method, context_from="own", **SMALL)  # type: ignore[type-var]  # as above
    fresh = dataclasses.replace(trial.method, context_from="own")  # type: ignore[type-var]
    remembered = {LEARNED + name: tensor for name, tensor in own.items() if name != FROM}
    images = datasets().load(trial.benchmark.base)
    tasks = BENCHMARKS[trial.benchmark.kind].build(trial.benchmark, images, trial.seed, CPU)
    curriculum = Curriculum(tasks, trial.benchmark.problem().scenario)
    starts: dict[str, Any] = {"best": (trial.method, remembered), "own": (fresh, {}), "small": (small, {})}
    drawn = backbone.draw(trial.blueprint().backbone)
    kernel = choose_kernel("cpu", learner.product_dtype(trial))
    for name, (spec, memory) in starts.items():
        asked = dataclasses.replace(trial, method=spec)
        method = learner.build(asked, drawn, CPU, kernel)
        found = [learn(asked, method, curriculum, task, memory) for task in range(1, curriculum.num_tasks, EVERY)]
        means = torch.tensor([accuracies for accuracies, _ in found]).mean(dim=0)
        taken = sum(was_taken for _, was_taken in found)
        cells = " | ".join(f"{100 * accuracy:.1f}" for accuracy in means)
        print(f"| {trial.benchmark.kind} | {trial.seed} | {name} | {cells} | {taken} of {len(found)} |", flush=True)


def learn(
    trial: TrialSpec, method: Method, curriculum: Curriculum, task: int, memory: Tensors
) -> tuple[list[float], bool]:
    """Test accuracies of a task after each of `UPDATES`, and whether it started from an earlier one."""
    schedule = Schedule(curriculum, trial.blueprint(), trial.training)
    segment = schedule.segment([task])
    group = Group.start(segment, max(UPDATES), own=method.start([task]), shared={}, training=trial.training, device=CPU)
    rate, found = trial.training.learning_rate, []
    split = curriculum.test_split(task)
    lanes = Table().lay(
        segment,
        iter([curriculum._benchmark.train_split(task)]),
        curriculum=curriculum,
        prepare=method.prepare,
        seed=trial.seed,
        batch_size=trial.training.batch_size,
        before=(0, 0),
        timed=nullcontext,
    )
    started = method.begin({**memory, **group.own, **group.trained}, lanes.whole(), rate)
    with torch.no_grad():
        for name, tensor in started.items():
            (group.trained | group.own)[name].detach().copy_(tensor)
        for step in range(max(UPDATES) + 1):
            state = {**memory, **group.own, **group.trained}
            if step in UPDATES:
                pieces = split.images.split(EVALUATION_BATCH)
                scores = torch.cat([method.logits(state, images[None])[0] for images in pieces])
                found.append(float((scores.argmax(dim=1) == split.labels).double().mean()))
            with torch.enable_grad():
                learned = method.learn(state, lanes.batch(step, rate=rate))
                gradients = learned.gradients(group.trained)
            group.optimizer.step(gradients, rate)
    return found, int(started.get(FROM, torch.tensor(-1))) >= 0


if __name__ == "__main__":
    main(sys.argv[1])
