"""Task similarity: the measures against plain references, and what a bank supports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from crwn import backbone, contexts, contract, similarity
from crwn.benchmarks.rotated import RotatedSpec
from crwn.contexts import ContextBank
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods.batche import BatchESpec
from crwn.methods.finetune import FinetuneSpec
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.supsup import SupSupSpec
from crwn.spec import TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = NeuroModNetSpec(context_start="shared")
TURNED = RotatedSpec(base="digits", num_tasks=24, step_degrees=15)


def bank_of(method: Any, data: Datasets, *, scale: str = "FC64", updates: int = 300, seed: int = 0) -> ContextBank:
    """A bank of rotations over the full circle."""
    spec = TrialSpec(
        method=method,
        benchmark=TURNED,
        scale=scale,
        seed=seed,
        training=TrainingSpec(learning_rate=0.01, updates_per_task=updates, batch_size=64),
    )
    return contexts.load(run_trial(spec, data=data, backbones=backbone.draw, keep_weights=True).contexts)


def probes(bank: ContextBank, data: Datasets) -> torch.Tensor:
    """Ten test images of each task."""
    benchmark = contract.built(bank.trial, data)
    return torch.cat([benchmark.test_split(task).images[:10] for task in range(bank.num_tasks)])


def ring(num: int) -> NDArray[np.float64]:
    """Steps between places on a ring."""
    steps = np.abs(np.arange(num)[:, None] - np.arange(num))
    return np.minimum(steps, num - steps).astype(float)


def test_answers_are_compared_by_the_symmetric_divergence() -> None:
    """(KL(p|q) + KL(q|p)) / 2, the mean over images, written out."""
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    found = similarity.by_answers(logits)
    shares = logits.double().softmax(dim=2).numpy()
    for one in range(3):
        for other in range(3):
            p, q = shares[one], shares[other]
            expected = np.mean([(stats.entropy(p[i], q[i]) + stats.entropy(q[i], p[i])) / 2 for i in range(5)])
            assert found[one, other] == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(found, found.T)
    assert not np.diag(found).any()


def test_contexts_are_compared_by_their_centred_cosine() -> None:
    """One minus the cosine after subtracting the mean over tasks, so common parts do not count."""
    vectors = np.random.default_rng(0).normal(size=(4, 9)) + 100.0
    moved = vectors - vectors.mean(axis=0)
    expected = 1 - moved @ moved.T / np.outer(np.linalg.norm(moved, axis=1), np.linalg.norm(moved, axis=1))
    assert np.allclose(similarity.by_contexts(vectors), expected)
    assert np.allclose(similarity.by_contexts(vectors + 7.0), expected)


def test_a_strength_and_its_context_count_as_their_product() -> None:
    """A network answers alike for (a, c) and (2 a, c / 2), so their vectors are equal; whole numbers are no context."""
    context, strength = torch.rand(3, 4), torch.rand(3) + 1
    own = {"layer1.context": context, "layer1.strength": strength, "started_from": torch.tensor([-1, 0, 1])}
    halved = {**own, "layer1.context": context / 2, "layer1.strength": strength * 2}
    assert np.allclose(similarity.context_vectors(own), (context * strength[:, None]).numpy())
    assert np.allclose(similarity.context_vectors(own), similarity.context_vectors(halved))
    with refused(InvalidError, "no-contexts"):
        similarity.context_vectors({"started_from": own["started_from"]})
    moving = {"layer1.r": torch.rand(3, 2), "norm.mean": torch.rand(3, 5)}
    assert similarity.context_vectors(moving, moving=(".mean",)).shape == (3, 2)


def test_a_map_has_the_distances_of_the_tasks() -> None:
    """Classical scaling of squared distances in a plane recovers the points up to rotation and reflection."""
    points = np.random.default_rng(1).normal(size=(7, 2))
    squared = ((points[:, None] - points) ** 2).sum(axis=2)
    placed, shares = similarity.scaled(squared)
    assert np.allclose(((placed[:, None] - placed) ** 2).sum(axis=2), squared)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] >= shares[1]


def test_a_ring_is_found_and_noise_is_not() -> None:
    """Ordered distances give rho -1 and only neighbours as nearest tasks; noise gives neither; chance is 2 of 11."""
    near = similarity.order(ring(12), ring(12), permutations=499, resamples=99)
    assert near.rho == pytest.approx(-1)
    assert near.p == 1 / 500
    assert near.nearest == 1
    assert near.chance == pytest.approx(2 / 11)
    assert near.interval == pytest.approx((-1, -1))
    assert -0.5 < near.null[0] < 0 < near.null[1] < 0.5

    vectors = np.random.default_rng(0).normal(size=(12, 300))
    noise = similarity.order(similarity.by_contexts(vectors), ring(12), permutations=499, resamples=99)
    assert noise.rho > -0.3
    assert noise.p > 0.01
    assert noise.interval[0] < 0 < noise.interval[1]


def test_the_correlation_is_spearmans() -> None:
    """That of scipy over all pairs of likeness and distance; the p-value counts permutations one by one."""
    generator = np.random.default_rng(3)
    unlike = similarity.by_contexts(generator.normal(size=(6, 5)))
    found = similarity.order(unlike, ring(6), permutations=199, resamples=9)
    pairs = np.triu_indices(6, k=1)
    assert found.rho == pytest.approx(stats.spearmanr(-unlike[pairs], ring(6)[pairs]).statistic)
    again = np.random.default_rng(0)
    permuted = []
    for _ in range(199):
        order = again.permutation(6)
        permuted.append(stats.spearmanr(-unlike[np.ix_(order, order)][pairs], ring(6)[pairs]).statistic)
    assert found.p == (1 + sum(value <= found.rho + 1e-12 for value in permuted)) / 200


def test_the_tree_puts_alike_tasks_together() -> None:
    """With two distant groups, the leaves are one group followed by the other."""
    places = np.array([0.0, 10.0, 1.0, 11.0, 2.0, 12.0])
    found = similarity.Similarity(by="answers", names=tuple("abcdef"), distances=np.abs(places[:, None] - places))
    assert {frozenset(found.leaves[:3]), frozenset(found.leaves[3:])} == {frozenset({0, 2, 4}), frozenset({1, 3, 5})}
    assert found.nearest.tolist() == [2, 3, 0, 1, 2, 3]


def test_too_few_tasks_and_no_order_are_refused() -> None:
    """Three pairs say nothing, nor does a benchmark with equal distances between all tasks."""
    with refused(InvalidError, "too-few-tasks", says=["4", "3"]):
        similarity.order(ring(3), ring(3))
    with refused(InvalidError, "no-order"):
        similarity.order(ring(5), np.ones((5, 5)) - np.eye(5))


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        (NeuroModNetSpec(context_start="shared"), "FC32"),
        (BatchESpec(context_start="shared"), "FC32"),
        (FlyNetSpec(), "10d"),
    ],
)
def test_contexts_of_a_common_start_follow_the_angles(method: Any, scale: str, digits: Datasets) -> None:
    """Close rotations have similar contexts; FlyNet's from any start, since its loss is convex."""
    bank = bank_of(method, digits, scale=scale)
    apart = TURNED.distances(0)
    found = similarity.order(bank.similarity(by="contexts").distances, apart, permutations=199, resamples=9)
    assert found.rho < -0.15
    assert found.p < 0.05
    assert found.nearest > 0.6 > 6 * found.chance


@pytest.mark.parametrize(
    "method", [NeuroModNetSpec(), NeuroModNetSpec(context_start="shared", context_from="best"), SupSupSpec()]
)
def test_contexts_that_started_apart_are_not_compared(method: Any, digits: Datasets) -> None:
    """Each task's own start, or an earlier task's context: refused, with what to do instead."""
    bank = bank_of(method, digits, scale="FC32", updates=60)
    with refused(InvalidError, "tasks-started-apart", says=["context_start: shared", "by='answers'"]):
        bank.similarity(by="contexts")


def test_answers_follow_the_angles_whatever_the_start(digits: Datasets) -> None:
    """Networks of close rotations predict alike, including those of masks, which have no contexts."""
    for method in (NeuroModNetSpec(), SupSupSpec()):
        bank = bank_of(method, digits)
        found = bank.similarity(by="answers", images=probes(bank, digits))
        assert found.names == tuple(task.name for task in bank.tasks)
        ordered = similarity.order(found.distances, TURNED.distances(0), permutations=199, resamples=9)
        assert ordered.nearest > 0.5 > 5 * ordered.chance


def test_banks_of_other_weights_do_not_find_each_others_tasks(digits: Datasets) -> None:
    """Within a bank, each task is nearest to itself; for another seed's bank, it is chance."""
    one, other = (
        bank_of(NeuroModNetSpec(context_start="shared"), digits, updates=60, seed=seed).context_vectors()
        for seed in (0, 1)
    )
    assert similarity.same_task_nearest(one, one) == 1
    assert similarity.same_task_nearest(one, other) < 0.4


def test_what_is_asked_for_must_fit(digits: Datasets) -> None:
    """Answers need images, contexts take none; one network for all tasks has nothing to compare."""
    bank = bank_of(FlyNetSpec(), digits, scale="2d", updates=2)
    with refused(InvalidError, "images-do-not-fit", says="'answers'"):
        bank.similarity(by="answers")
    with refused(InvalidError, "images-do-not-fit", says="'contexts'"):
        bank.similarity(by="contexts", images=probes(bank, digits))
    with refused(InvalidError, "unknown-name", says="'colour'"):
        bank.similarity(by="colour")  # type: ignore[arg-type]
    alone = TrialSpec(
        method=FinetuneSpec(),
        benchmark=RotatedSpec(base="digits", num_tasks=2, step_degrees=30, task_known=False),
        scale="FC16",
        seed=0,
        training=TrainingSpec(learning_rate=0.01, updates_per_task=2),
    )
    result = run_trial(alone, data=digits, backbones=backbone.draw, keep_weights=True)
    with refused(InvalidError, "task-not-told"):
        contexts.load(result.contexts).similarity(by="contexts")


def test_a_bank_says_how_its_tasks_started(digits: Datasets) -> None:
    """From their own draws, a shared draw, or an earlier task, as the trial records."""
    assert {task.start for task in bank_of(NeuroModNetSpec(), digits, updates=2).tasks} == {"own"}
    shared = bank_of(NeuroModNetSpec(context_start="shared"), digits, updates=2)
    assert {task.start for task in shared.tasks} == {"shared"}
    best = bank_of(NeuroModNetSpec(context_from="best"), digits, updates=60)
    started = best.tensors["started_from"].tolist()
    assert [task.start for task in best.tasks] == ["own" if place < 0 else f"task {place}" for place in started]
    assert max(started) >= 0
