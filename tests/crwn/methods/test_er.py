"""ER against a plain loop, and what a replay buffer must never do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import crwn.learner
import crwn.trial
from crwn import replay
from crwn.batches import Batch
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.protocol import Benchmark, Split
from crwn.data import Datasets
from crwn.methods import METHODS
from crwn.methods.agem import AGEMSpec
from crwn.methods.derpp import DERPPSpec
from crwn.methods.er import ER, ERSpec
from crwn.methods.ewc import EWCSpec
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.protocol import Step, Tensors
from crwn.methods.si import SISpec
from crwn.spec import MethodSpec
from tests.crwn.methods import plainly

pytestmark = pytest.mark.usefixtures("one_thread")

CAPACITY = 50


def test_er_is_one_mean_over_batch_and_replay(digits: Datasets) -> None:
    """The first update replays nothing, the second what there is, which is less than is asked for."""
    spec, buffer = ERSpec(buffer=CAPACITY, replay_batch=40), plainly.Reservoir(CAPACITY)

    def update(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, task: int, number: int) -> None:
        replayed = buffer.draw("replay", number, 40) if buffer.kept else [images[:0], labels[:0]]
        together = torch.cat([images, replayed[0]]), torch.cat([labels, replayed[1]])
        plainly.descend(network, plainly.cross_entropy(network, *together))
        buffer.offer(number, images, labels)

    plainly.assert_same(plainly.run(spec, digits), plainly.learn(spec, digits, update))


@pytest.mark.parametrize(
    "spec",
    [ERSpec(buffer=0), DERPPSpec(buffer=0), DERPPSpec(alpha=0, beta=0), EWCSpec(strength=0)],
    ids=["er", "derpp of nothing", "derpp without weight", "ewc"],
)
def test_without_its_term_a_method_is_fine_tuning(spec: MethodSpec, digits: Datasets) -> None:
    """Byte for byte, in weights, tests and curves."""
    method, plain = plainly.run(spec, digits, dtype="float32"), plainly.run(FinetuneSpec(), digits, dtype="float32")
    weights, plain_weights = plainly.weights_of(method), plainly.weights_of(plain)
    assert weights.keys() == plain_weights.keys()
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)
    for row, plain_row in zip(method.rows, plain.rows, strict=True):
        assert (row.accuracy, row.loss, row.curve) == (plain_row.accuracy, plain_row.loss, plain_row.curve)


def test_a_buffer_holds_what_was_seen(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every update only images of the batches so far, with their labels, and as many as it has room for."""
    seen: set[tuple[bytes, int]] = set()
    sizes: list[int] = []

    class Noting(ER):
        def learn(self, state: Tensors, batch: Batch) -> Step:
            step = super().learn(state, batch)
            seen.update(pairs(batch.originals[0].flatten(1), batch.labels[0]))
            size = min(int(state[replay.SEEN]), CAPACITY)
            assert set(pairs(state[replay.IMAGES][:size], state[replay.LABELS][:size])) <= seen
            sizes.append(size)
            return step

    monkeypatch.setattr(crwn.learner, "METHODS", {"er": dataclasses.replace(METHODS["er"], build=Noting)})
    plainly.run(ERSpec(buffer=CAPACITY), digits)
    assert sizes == [32, *[CAPACITY] * 17]


def pairs(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[bytes, int]]:
    return [(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]


class Forgetting:
    """A benchmark that overwrites a task's training data in place when the next task's are read."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        self._last: Split | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._benchmark, name)

    def train_split(self, task: int) -> Split:
        if self._last is not None:
            self._last.images.fill_(255)
            self._last.labels.zero_()
        split = self._benchmark.train_split(task)
        self._last = Split(images=split.images.clone(), labels=split.labels.clone())
        return self._last


@pytest.mark.parametrize(
    "spec",
    [
        ERSpec(buffer=CAPACITY),
        DERPPSpec(buffer=CAPACITY),
        AGEMSpec(buffer=CAPACITY),
        EWCSpec(),
        SISpec(),
    ],
    ids=lambda spec: spec.kind,
)
def test_data_that_change_once_learned_change_nothing(
    spec: MethodSpec, digits: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method remembers copies, not views of a task's data."""
    before = plainly.weights_of(plainly.run(spec, digits))
    entry = BENCHMARKS["rotated"]
    spoilt = dataclasses.replace(entry, build=lambda *settings: Forgetting(entry.build(*settings)))
    monkeypatch.setattr(crwn.trial, "BENCHMARKS", {"rotated": spoilt})
    after = plainly.weights_of(plainly.run(spec, digits))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
