"""How well a finished trial's tasks are inferred from test images, measured without any training.

The criteria are in `task_criteria.py`.

Shapes: T tasks, B images, m classes, d values per image, K batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from crwn import seeding
from crwn.benchmarks.specs import RelatesTasks
from crwn.superposition import Search, has_masks
from crwn.task_criteria import BY_ANSWERS, nearness

if TYPE_CHECKING:
    from crwn.benchmarks.protocol import Benchmark
    from crwn.contexts import ContextBank
    from crwn.trial_spec import TrialSpec

BATCHES = (1, 8, 32, 128)
"""Images per batch, all from one task."""

SEARCHES = 4
"""The number of batches, per task and batch size, for searches in a superposition, which need gradients."""

SUMMED_AT_ONCE = 2**16
"""The number of bytes whose sum is exact in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """The accuracy of task inference for batches of one size.

    Attributes:
        by: the criterion.
        batch: images per batch.
        num_batches: number of batches.
        task_accuracy: share of batches whose task was inferred correctly.
        near_accuracy: share for which the task or one of its neighbours was inferred; None: the tasks have no order.
        class_accuracy: accuracy of the classes, predicted for the inferred task.
        told_accuracy: the same on these images if the task is told.
    """

    by: str
    batch: int
    num_batches: int
    task_accuracy: float
    near_accuracy: float | None
    class_accuracy: float
    told_accuracy: float


class Tally:
    """Counts inferred tasks, batch by batch.

    Args:
        by: the criterion.
        batch: images per batch.
        near_TT: which tasks are a task's neighbours, itself included; None: the tasks have no order.

    Attributes:
        num_batches: batches counted so far.
    """

    def __init__(self, by: str, batch: int, near_TT: NDArray[np.bool_] | None) -> None:
        self._by, self._batch, self._near_TT = by, batch, near_TT
        self.num_batches = self._found = self._near = 0
        self._images = self._correct = self._told = 0

    def add(self, task: int, scores_KT: torch.Tensor, correct_TB: torch.Tensor) -> None:
        """Count batches of a task: consecutive images, `batch` each.

        Args:
            task: their task.
            scores_KT: the tasks' scores of each batch.
            correct_TB: whether each task's network gives each image its label; B = K batch.
        """
        inferred_K = scores_KT.argmax(dim=1)
        self.num_batches += len(inferred_K)
        self._found += int((inferred_K == task).sum())
        if self._near_TT is not None:
            self._near += int(self._near_TT[task, inferred_K.numpy()].sum())
        answered_B = inferred_K.repeat_interleave(self._batch)
        self._correct += int(correct_TB.gather(0, answered_B[None]).sum())
        self._told += int(correct_TB[task].sum())
        self._images += len(answered_B)

    def result(self) -> Inferred:
        """The shares so far; at least one batch was counted."""
        return Inferred(
            by=self._by,
            batch=self._batch,
            num_batches=self.num_batches,
            task_accuracy=self._found / self.num_batches,
            near_accuracy=None if self._near_TT is None else self._near / self.num_batches,
            class_accuracy=self._correct / self._images,
            told_accuracy=self._told / self._images,
        )


def neighbours(distances_TT: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether column j is row i's task or among its nearest: [T, T].

    Args:
        distances_TT: the distances between tasks.
    """
    others_TT = np.where(np.eye(len(distances_TT), dtype=bool), np.inf, distances_TT)
    nearest_T = others_TT.min(axis=1, initial=np.inf)
    near_TT: NDArray[np.bool_] = distances_TT <= nearest_T[:, None] * (1 + 1e-9)
    return near_TT | np.eye(len(distances_TT), dtype=bool)


def mean_images(tasks: Benchmark) -> torch.Tensor:
    """Each task's mean training image, rounded to unsigned bytes: [T, d]."""
    means = []
    for task in range(tasks.num_tasks):
        images_Nd = tasks.train_split(task).images.flatten(1)
        sum_d = sum(part.float().sum(dim=0).double() for part in images_Nd.split(SUMMED_AT_ONCE))
        means.append((sum_d / len(images_Nd)).round().to(torch.uint8))
    return torch.stack(means)


def near_tasks(trial: TrialSpec) -> NDArray[np.bool_] | None:
    """Which tasks of a trial are a task's neighbours, itself included [T, T]; None: its benchmark defines no order."""
    benchmark = trial.benchmark
    distances_TT = benchmark.distances(trial.seed) if isinstance(benchmark, RelatesTasks) else None
    return None if distances_TT is None else neighbours(distances_TT)


def measure(
    bank: ContextBank, tasks: Benchmark, *, batches: Sequence[int] = BATCHES, images: int = 2560
) -> list[Inferred]:
    """Measure how well a bank's tasks are inferred from their test images, by every criterion that the bank supports.

    Args:
        bank: the bank of one trial; mean images that it lacks are computed from the training images.
        tasks: the trial's tasks.
        batches: images per batch.
        images: test images per task, drawn once; fewer if there are fewer.

    Returns:
        One result per criterion and batch size, for sizes with at least one full batch.
    """
    means_Td = mean_images(tasks) if bank.mean_images is None else bank.mean_images
    near_TT, by_batch = near_tasks(bank.trial), bank.trial.blueprint().tests_by_batch
    searches = get_args(Search) if has_masks(bank.own, [a.name for a in bank.trial.blueprint().backbone.arrays]) else ()
    tallies = {
        (by, batch): Tally(by, batch, near_TT) for by in (*BY_ANSWERS, *searches, "mean-image") for batch in batches
    }
    for task in range(tasks.num_tasks):
        split = tasks.test_split(task)
        order_N = seeding.numpy_generator(0, "task inference", task).permutation(split.num_examples)[:images]
        split = split.take(torch.from_numpy(order_N))
        logits_TBm = None if by_batch else bank.predict_all(split.images)
        for batch in batches:
            count = split.num_examples // batch * batch
            if not count:
                continue
            parts = split.images[:count].split(batch)
            answers_TBm = (
                torch.cat([bank.predict_all(part) for part in parts], dim=1) if logits_TBm is None else logits_TBm
            )[:, :count]
            correct_TB = answers_TBm.argmax(dim=2) == split.labels[:count]
            for by, score in BY_ANSWERS.items():
                scores_KT = score(answers_TBm).unflatten(1, (-1, batch)).mean(dim=2).T
                tallies[by, batch].add(task, scores_KT, correct_TB)
            means_Kd = split.images[:count].flatten(1).float().unflatten(0, (-1, batch)).mean(dim=1)
            tallies["mean-image", batch].add(task, nearness(means_Kd, means_Td), correct_TB)
            for by in searches:
                some = parts[:SEARCHES]
                scores_KT = torch.stack([bank.infer_task(part, by) for part in some])
                tallies[by, batch].add(task, scores_KT, correct_TB[:, : len(some) * batch])
    return [tally.result() for tally in tallies.values() if tally.num_batches]
