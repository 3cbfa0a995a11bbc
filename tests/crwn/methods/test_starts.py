"""Where contexts start: alike for all tasks, and from the earlier task that fits best, against plain references."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from crwn import backbone, contexts, contract, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.split import SplitSpec
from crwn.data import Datasets
from crwn.events import Numerics
from crwn.faults import InvalidError
from crwn.methods import starts
from crwn.methods.batche import BatchESpec
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.protocol import Tensors
from crwn.methods.starts import FROM
from crwn.spec import BenchmarkSpec, MethodSpec, TrainingSpec
from crwn.trial import Finished, run_trial
from crwn.trial_spec import TrialSpec
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("one_thread")

SCALES = {"neuromodnet": "FC48", "flynet": "10d", "batche": "FC48"}
SPECS: list[Any] = [NeuroModNetSpec, FlyNetSpec, BatchESpec]
TURNED = RotatedSpec(base="digits", num_tasks=4, step_degrees=10)
every_spec = pytest.mark.parametrize("spec", SPECS)


def trial(method: MethodSpec, benchmark: BenchmarkSpec = TURNED) -> TrialSpec:
    training = TrainingSpec(learning_rate=0.01, updates_per_task=60, batch_size=64)
    return TrialSpec(method=method, benchmark=benchmark, scale=SCALES[method.kind], seed=0, training=training)


def learned(spec: TrialSpec, data: Datasets) -> tuple[Finished, Tensors]:
    """A finished trial, one task at a time, and the tensors kept of its tasks."""
    numerics = Numerics(device="cpu", group_size=1, kernel="plain", threads=1)
    result = run_trial(spec, data=data, backbones=backbone.draw, numerics=numerics, keep_weights=True)
    return result, contexts.load(result.contexts).tensors


@every_spec
def test_a_shared_start_is_one_draw(spec: Any) -> None:
    """All tasks start from the same numbers, which are no task's own."""
    own, shared = (contract.build(trial(spec(context_start=start))).start([0, 3, 1]) for start in ("own", "shared"))
    assert set(own) == set(shared)
    for name, alike in shared.items():
        assert torch.equal(alike[0], alike[1]), name
        assert torch.equal(alike[1], alike[2]), name
        if not name.endswith("strength"):  # all start at one
            assert not any(torch.equal(alike[0], apart) for apart in own[name]), name


def test_a_shared_start_is_drawn_like_any_other() -> None:
    """U(-1, 1), in single precision, from the stream ("state", "shared", tensor) of the trial's seed."""
    started = contract.build(trial(NeuroModNetSpec(context_start="shared"))).start([2])["layer2.context"]
    unit = seeding.numpy_generator(0, "state", "shared", "layer2.context").random(48, dtype=np.float32)
    assert np.array_equal(started[0].detach().numpy(), 2 * unit - 1)


@every_spec
def test_a_task_starts_from_the_earlier_one_that_fits_best(spec: Any, digits: Datasets) -> None:
    """The earlier context of lowest loss on 128 images of the task, if more than a fifth of them are right."""
    asked = trial(spec(context_from="best"))
    _, kept = learned(asked, digits)
    method, benchmark = contract.build(asked), contract.built(asked, digits)
    shared = {name.removeprefix("shared."): tensor for name, tensor in kept.items() if name.startswith("shared.")}
    own = {name: tensor for name, tensor in kept.items() if not name.startswith("shared.")}
    expected = [-1]
    for task in range(1, 4):
        split = benchmark.train_split(task)
        order = seeding.numpy_generator(0, "segment", "context from", task).permutation(split.num_examples)
        probe = split.take(torch.from_numpy(order[:128]))
        with torch.no_grad():
            logits = [
                method.logits(
                    shared | {name: tensor[one : one + 1] for name, tensor in own.items()}, probe.images[None]
                )
                for one in range(task)
            ]
        losses = [float(functional.cross_entropy(scores[0], probe.labels)) for scores in logits]
        best = int(np.argmin(losses))
        hits = (logits[best][0].argmax(dim=1) == probe.labels).double().mean()
        expected.append(best if hits > 0.2 else -1)
    assert kept[FROM].tolist() == expected
    assert max(expected) >= 0, "no task started from another one"


def test_a_task_learns_on_from_where_it_starts(digits: Datasets) -> None:
    """Its first updates begin at what the earlier task ended with: its loss is far below that of a fresh start."""
    fresh, best = (learned(trial(NeuroModNetSpec(context_from=start)), digits)[0].rows[1] for start in ("own", "best"))
    assert best.curve[0].loss < 0.7 * fresh.curve[0].loss


@every_spec
def test_where_nothing_fits_tasks_start_as_drawn(spec: Any, digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no earlier context is good enough, every number is that of the trial that asks for none."""
    monkeypatch.setattr(starts, "TIMES_CHANCE", 9.9)
    (own, own_kept), (best, kept) = (learned(trial(spec(context_from=start)), digits) for start in ("own", "best"))
    assert kept.pop(FROM).tolist() == [-1, -1, -1, -1]
    assert contract.results(own) == contract.results(best)
    assert kept.keys() == own_kept.keys()
    assert all(torch.equal(tensor, own_kept[name]) for name, tensor in kept.items())


@every_spec
def test_tasks_come_one_by_one_and_stay_independent(spec: Any) -> None:
    """What earlier tasks learned is memory, so no two are learned at once; a later one leaves them as they are."""
    blueprint = trial(spec(context_from="best")).blueprint()
    assert blueprint.grouping == "one"
    assert blueprint.is_independent
    assert trial(spec()).blueprint().grouping == "any"


@every_spec
def test_where_no_context_could_be_taken_it_is_refused(spec: Any) -> None:
    """A single task has none before it; of two classes twice chance is all of them."""
    with refused(InvalidError, "no-earlier-task", says=["context_from", "'best'"]):
        trial(spec(context_from="best"), RotatedSpec(base="digits", num_tasks=1))
    with refused(InvalidError, "never-above-chance", says=["context_from", "2 classes"]):
        trial(spec(context_from="best"), SplitSpec(base="digits", num_tasks=5, crop_padding=0, flip=False))


@pytest.mark.parametrize("spec", [NeuroModNetSpec, FlyNetSpec])
def test_a_start_that_is_shared_anyway_is_refused(spec: Any) -> None:
    """Equal bounds start all contexts alike, so two specs would mean the same trial."""
    with refused(InvalidError, "start-shared-anyway", says=["context_start", "0.5"]):
        spec(context_start="shared", context_low=0.5, context_high=0.5)


def test_methods_without_contexts_do_not_take_them() -> None:
    """A setting that would be ignored is an unknown key."""
    for name in ("context_start", "context_from"):
        spec = {"kind": "supsup", name: "own"}

        given = {"method": spec, "benchmark": {"kind": "rotated"}, "scale": "FC16", "seed": 0}
        with pytest.raises(InvalidError, match=name):
            TrialSpec.from_json(json.dumps({**given, "training": {"learning_rate": 0.01}}))


def test_as_before_means_the_same_trial() -> None:
    """The fields are left out of the canonical JSON while they say what was so before."""
    for spec in SPECS:
        text = trial(spec()).canonical_json()
        assert "context_start" not in text
        assert "context_from" not in text
        others = {trial(spec(**{name: value})).trial_id for name, value in CHANGED.items()}
        assert len({trial(spec()).trial_id, *others}) == 3


CHANGED = {"context_start": "shared", "context_from": "best"}
