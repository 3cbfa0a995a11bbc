"""The similarity of tasks, from what a bank keeps of each: distances, maps, trees, and agreement with a known order.

By answers: the symmetric Kullback-Leibler divergence (Jeffreys 1946) between the class probabilities that two tasks'
networks give for the same probe images; it is defined for any two networks with the same outputs. By contexts: one
minus the cosine similarity of two tasks' contexts, centred over the tasks. Learned contexts stay near their initial
values, so they can be compared only if all tasks started alike, or if the loss is convex in them; contexts with
different starts are no more similar than chance.

Maps use classical scaling (Torgerson 1952), trees average linkage. Pairs of tasks share tasks, so they are not
independent: intervals come from resampling tasks, and p-values from permuting them (Mantel, "The detection of disease
clustering and a generalized regression approach", Cancer Research 27, 1967).

Shapes: T tasks, B images, m classes, N numbers per context, P = T (T - 1) / 2 pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats
from scipy.cluster import hierarchy
from scipy.spatial import distance

from crwn.faults import InvalidError

if TYPE_CHECKING:
    import torch

By: TypeAlias = Literal["answers", "contexts"]

Matrix: TypeAlias = NDArray[np.float64]

FEWEST_TASKS = 4
"""With fewer there are at most three pairs, too few for a correlation to mean anything."""


@dataclass(frozen=True, kw_only=True)  # without slots, for what is computed at its first use
class Similarity:
    """Pairwise distances between tasks.

    Attributes:
        by: what was compared.
        names: the T tasks' names.
        distances: the symmetric divergence in nats, or one minus the cosine: [T, T], symmetric, zeros on the diagonal.
    """

    by: By
    names: tuple[str, ...]
    distances: Matrix

    @property
    def nearest(self) -> NDArray[np.int64]:
        """Each task's nearest other task: [T]."""
        others_TT = self.distances + np.diag(np.full(len(self.names), np.inf))
        found: NDArray[np.int64] = others_TT.argmin(axis=1)
        return found

    @functools.cached_property
    def linkage(self) -> Matrix:
        """The tree of tasks by average linkage, as scipy gives it, its leaves in the best order: [T - 1, 4]."""
        pairs_P = distance.squareform(self.distances, checks=False)
        found: Matrix = hierarchy.linkage(pairs_P, method="average", optimal_ordering=True)
        return found

    @property
    def leaves(self) -> list[int]:
        """The tasks in the order of the tree's leaves, which puts similar ones side by side."""
        return [int(leaf) for leaf in hierarchy.leaves_list(self.linkage)]

    def map(self, dimensions: int = 2) -> tuple[Matrix, Matrix]:
        """Place tasks as points whose squared distances approximate the given ones, by classical scaling.

        Args:
            dimensions: of the map.

        Returns:
            Points [T, dimensions], and each dimension's share of the sum of the positive eigenvalues.
        """
        return scaled(self.distances, dimensions)


def scaled(distances_TT: Matrix, dimensions: int = 2) -> tuple[Matrix, Matrix]:
    """Classical scaling, taking distances as squared ones; see `Similarity.map`."""
    num = len(distances_TT)
    centring_TT = np.eye(num) - 1 / num
    values, vectors = linalg.eigh(-centring_TT @ distances_TT @ centring_TT / 2)
    values, vectors = np.clip(values[::-1], 0, None)[:dimensions], vectors[:, ::-1][:, :dimensions]
    total = np.clip(linalg.eigvalsh(-centring_TT @ distances_TT @ centring_TT / 2), 0, None).sum()
    # The sign of an eigenvector is arbitrary: the first task is on the positive side of each dimension.
    signs = np.where(vectors[0] < 0, -1.0, 1.0)
    points: Matrix = vectors * signs * np.sqrt(values)
    return points, values / total if total else np.zeros(dimensions)


def by_answers(logits_TBm: torch.Tensor) -> Matrix:
    """The symmetric divergence of the answers, (KL(p|q) + KL(q|p)) / 2 in nats, averaged over B images: [T, T]."""
    logs_TBm = logits_TBm.double().log_softmax(dim=2)
    logs, shares = (part.flatten(1).numpy() for part in (logs_TBm, logs_TBm.exp()))
    cross_TT = shares @ logs.T
    own_T = np.diag(cross_TT)
    divergence_TT = (own_T[:, None] + own_T - cross_TT - cross_TT.T) / (2 * logits_TBm.shape[1])
    return _as_distances(divergence_TT)


def by_contexts(contexts_TN: Matrix) -> Matrix:
    """One minus the cosine of the contexts, centred over the tasks: [T, T].

    Centring removes what all contexts have in common: a shared start, and what learning any task adds.
    """
    unit_TN = centred(contexts_TN)
    return _as_distances(1 - unit_TN @ unit_TN.T)


def centred(contexts_TN: Matrix) -> Matrix:
    """The contexts minus their mean over the tasks, scaled to unit length: [T, N]."""
    moved_TN = np.asarray(contexts_TN, dtype=np.float64) - np.asarray(contexts_TN, dtype=np.float64).mean(axis=0)
    lengths_T1 = np.linalg.norm(moved_TN, axis=1, keepdims=True)
    unit_TN: Matrix = moved_TN / np.where(lengths_T1 > 0, lengths_T1, 1)
    return unit_TN


def context_vectors(own: Mapping[str, torch.Tensor], moving: tuple[str, ...] = ()) -> Matrix:
    """What each task learned, as one vector: [T, N].

    A strength only scales its layer's context, so the vector holds their product.

    Args:
        own: trained tensors by name [T, ...]; `<layer>.strength` [T] scales `<layer>.context`.
        moving: suffixes of the names of tensors that are not trained; these are left out.

    Raises:
        ValueError: the tasks learned nothing of their own.
    """
    parts = []
    for name, tensor in sorted(own.items()):
        layer, _, kind = name.rpartition(".")
        if not tensor.is_floating_point() or name.endswith(moving):
            continue
        if kind == "strength" and f"{layer}.context" in own:
            continue
        flat_TN = tensor.detach().double().flatten(1)
        if kind == "context" and f"{layer}.strength" in own:
            flat_TN = flat_TN * own[f"{layer}.strength"].detach().double()[:, None]
        parts.append(flat_TN.numpy())
    if not parts:
        raise InvalidError("no-contexts", "by: expected tasks that learned contexts of their own, given some with none")
    found: Matrix = np.concatenate(parts, axis=1)
    return found


def same_task_nearest(contexts_TN: Matrix, others_TN: Matrix) -> float:
    """The share of tasks whose nearest neighbour in another bank of the same tasks is the same task.

    It is at chance, 1/T, if the banks' starts or frozen weights differ.
    """
    found_T = (centred(contexts_TN) @ centred(others_TN).T).argmax(axis=1)
    return float((found_T == np.arange(len(found_T))).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Whether tasks that are close in the benchmark are also similar.

    Attributes:
        rho: Spearman's rank correlation, over pairs, of similarity (minus the distance) with the benchmark's distance:
            negative if close tasks are similar.
        interval: its 95 % interval, from resampling tasks.
        p: the share of permutations of the tasks with at most this correlation, the given order included (Mantel).
        null: the central 95 % of those correlations.
        nearest: the share of tasks whose most similar task is a neighbour, one of the tasks closest to it in the
            benchmark.
        chance: the same share if the most similar task were drawn at random.
    """

    rho: float
    interval: tuple[float, float]
    p: float
    null: tuple[float, float]
    nearest: float
    chance: float


def order(
    distances_TT: Matrix, apart_TT: Matrix, *, permutations: int = 9999, resamples: int = 999, seed: int = 0
) -> Order:
    """Measure how the tasks' distances follow those in the benchmark.

    Args:
        distances_TT: the distances between tasks.
        apart_TT: their distances in the benchmark.
        permutations: number of permutations of the tasks, for the p-value.
        resamples: number of resamples of the tasks, for the interval.
        seed: of both.

    Raises:
        ValueError: there are fewer than four tasks, or all pairs are equally far apart.
    """
    num = len(distances_TT)
    if num < FEWEST_TASKS:
        raise InvalidError("too-few-tasks", f"tasks: expected at least {FEWEST_TASKS} to compare, given {num}")
    pairs = np.triu_indices(num, k=1)
    if np.ptp(apart_TT[pairs]) == 0:
        raise InvalidError("no-order", "tasks: expected some nearer to each other than others, given equal distances")
    generator = np.random.default_rng(seed)

    # Ranks are those of all pairs, whatever the order of the tasks, so a permutation of tasks permutes ranks.
    ranks_P = stats.rankdata(-distances_TT[pairs])
    ranks_TT = (
        distance.squareform((ranks_P - ranks_P.mean()) / ranks_P.std()) if np.ptp(ranks_P) else np.zeros_like(apart_TT)
    )
    far_P = stats.rankdata(apart_TT[pairs])
    far_P = (far_P - far_P.mean()) / far_P.std()
    rho = float((ranks_TT[pairs] * far_P).mean())
    null = [_permuted(ranks_TT, generator.permutation(num), pairs, far_P) for _ in range(permutations)]
    drawn = [_resampled(distances_TT, apart_TT, generator.integers(num, size=num)) for _ in range(resamples)]

    neighbours_TT = _neighbours(apart_TT)
    others_TT = distances_TT + np.diag(np.full(num, np.inf))
    return Order(
        rho=rho,
        interval=_middle(drawn),
        p=(1 + sum(other <= rho + 1e-12 for other in null)) / (1 + permutations),
        null=_middle(null),
        nearest=float(neighbours_TT[np.arange(num), others_TT.argmin(axis=1)].mean()),
        chance=float(neighbours_TT.sum(axis=1).mean() / (num - 1)),
    )


def _neighbours(apart_TT: Matrix) -> NDArray[np.bool_]:
    """Whether column j is among the tasks closest to row i in the benchmark: [T, T]."""
    others_TT = apart_TT + np.diag(np.full(len(apart_TT), np.inf))
    found: NDArray[np.bool_] = others_TT <= others_TT.min(axis=1, keepdims=True) + 1e-9
    return found


def _permuted(
    ranks_TT: Matrix, order_T: NDArray[np.int64], pairs: tuple[NDArray[np.intp], ...], far_P: Matrix
) -> float:
    return float((ranks_TT[order_T[pairs[0]], order_T[pairs[1]]] * far_P).mean())


def _resampled(distances_TT: Matrix, apart_TT: Matrix, chosen_T: NDArray[np.int64]) -> float:
    """The correlation over the pairs of different tasks among these; NaN if all are equal in either distance."""
    rows, columns = (chosen_T[part] for part in np.triu_indices(len(chosen_T), k=1))
    differ = rows != columns
    near, far = -distances_TT[rows, columns][differ], apart_TT[rows, columns][differ]
    if len(near) == 0 or np.ptp(near) == 0 or np.ptp(far) == 0:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(near), stats.rankdata(far))[0, 1])


def _middle(values: list[float]) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _as_distances(matrix_TT: Matrix) -> Matrix:
    """Undo rounding: make the matrix exactly symmetric and non-negative, with a zero diagonal."""
    symmetric_TT: Matrix = np.clip((matrix_TT + matrix_TT.T) / 2, 0, None)
    np.fill_diagonal(symmetric_TT, 0)
    return symmetric_TT
