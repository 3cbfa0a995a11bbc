"""Tests: accuracy and loss on a task's test images.

Shapes: G = 1 task, B examples, m classes, N test examples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from crwn import seeding
from crwn.benchmarks.protocol import Curriculum, Split
from crwn.events import TaskRow
from crwn.methods.protocol import Method, Tensors
from crwn.nn.losses import by_class
from crwn.spec import Blueprint, TrainingSpec

EVALUATION_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The results of a test; see `crwn.events.TaskRow`."""

    accuracy: float
    loss: float
    answered: tuple[int, ...] | None
    accuracy_told: float | None


@torch.no_grad()
def evaluate(
    logits: Callable[[torch.Tensor], torch.Tensor],
    split: Split,
    *,
    batch_size: int = EVALUATION_BATCH,
    seen: Sequence[int] | None = None,
    own: Sequence[int] | None = None,
    counts_answers: bool = False,
) -> Figures:
    """Test on prepared images.

    Args:
        logits: class scores [1, B, m] of images [1, B, ...].
        split: the images and their labels.
        batch_size: images per batch.
        seen: the classes that can be predicted; None: all.
        own: the task's own classes; predictions among these alone are counted as well. None: they are not.
        counts_answers: whether to count how often each class is predicted.
    """
    device = split.labels.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    num_correct, num_told = torch.zeros(2, dtype=torch.int64, device=device).unbind()
    answered: torch.Tensor | None = None
    seen_c, own_c = (None if classes is None else torch.tensor(classes, device=device) for classes in (seen, own))
    for images_Bd, labels_B in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        given_1Bm = logits(images_Bd[None])
        logits_1Bm = given_1Bm if seen_c is None else among(given_1Bm, seen_c)
        # Sum along a row: across rows, a GPU adds in no fixed order.
        scores_Bm = functional.log_softmax(by_class(logits_1Bm), dim=1)[0].mT
        loss += functional.nll_loss(scores_Bm, labels_B, reduction="sum")
        answers_1B = logits_1Bm.argmax(dim=2)
        num_correct += (answers_1B == labels_B).sum()
        if own_c is not None:
            num_told += (among(given_1Bm, own_c).argmax(dim=2) == labels_B).sum()
        if counts_answers:
            hits_m = functional.one_hot(answers_1B, logits_1Bm.shape[2]).sum(dim=(0, 1))
            answered = hits_m if answered is None else answered + hits_m
    num_test = len(split.labels)
    return Figures(
        accuracy=num_correct.item() / num_test,
        loss=loss.item() / num_test,
        answered=None if answered is None else tuple(answered.tolist()),
        accuracy_told=None if own is None else num_told.item() / num_test,
    )


def among(logits_GBm: torch.Tensor, classes_c: torch.Tensor) -> torch.Tensor:
    """The scores with those of all other classes set to minus infinity: [G, B, m]."""
    scores_GBc = logits_GBm.index_select(2, classes_c)
    return torch.full_like(logits_GBm, -math.inf).index_copy(2, classes_c, scores_GBc)


class Tester:
    """Tests a trial's method on its benchmark.

    The method is told the task only if the scenario tells it and tasks are learned in turn.

    Args:
        method: the learner.
        curriculum: provides the test images and what is told about them.
        blueprint: the method's blueprint.
        training: sets the batch size of tests that depend on the batch.
        seed: the trial's seed.
        device: the device of the tensors.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        method: Method,
        curriculum: Curriculum,
        blueprint: Blueprint,
        training: TrainingSpec,
        *,
        seed: int,
        device: torch.device,
        clock: Callable[[], float],
    ) -> None:
        self._method = method
        self._curriculum = curriculum
        self._tests_by_batch = blueprint.tests_by_batch
        self._training = training
        self._tells_tasks = curriculum.tells_tasks and blueprint.is_continual
        self._seed = seed
        self._device = device
        self._clock = clock

    def test(
        self, task: int, state: Tensors, kept: Sequence[Tensors], *, tasks_learned: int, update: int | None
    ) -> TaskRow:
        """Test one task.

        Args:
            task: the task.
            state: the tensors that all tasks share.
            kept: the tensors kept for each task learned so far, each with a task axis of length 1.
            tasks_learned: recorded in the row.
            update: recorded in the row.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        started = self._clock()
        method, curriculum = self._method, self._curriculum
        split = self._prepared(task)
        batch_size = EVALUATION_BATCH
        if self._tests_by_batch:
            order_N = seeding.numpy_generator(self._seed, "test batches", task).permutation(split.num_examples)
            split = split.take(torch.from_numpy(order_N).to(self._device))
            batch_size = self._training.batch_size
        if self._tells_tasks:
            own = {name: tensor.to(self._device) for name, tensor in kept[task].items()}
            state = state | method.unpack(own, [task])
        figures = evaluate(
            lambda images: method.logits(state, images),
            split,
            batch_size=batch_size,
            seen=curriculum.classes(range(len(kept))) if curriculum.tells_classes else None,
            own=curriculum.classes([task]) if curriculum.tells_classes else None,
            counts_answers=not curriculum.tells_tasks,
        )
        if not math.isfinite(figures.loss):
            rate = method.rate(task, self._training.learning_rate)
            raise diverged(task, f"test loss is {figures.loss}", rate)
        return TaskRow(
            task=task,
            tasks_learned=tasks_learned,
            accuracy=figures.accuracy,
            loss=figures.loss,
            num_test=split.num_examples,
            train_seconds=None,
            eval_seconds=self._clock() - started,
            tested=time.time(),
            curve=(),
            update=update,
            answered=figures.answered,
            accuracy_told=figures.accuracy_told,
        )

    @torch.no_grad()
    def activity(self, state: Tensors) -> Tensors:
        """The means of `Method.activity` over the test images of each class; where tasks are told, none.

        Args:
            state: the tensors that all tasks share.

        Returns:
            By name [c, ...], one row per label from 0; zeros for labels without test images.
        """
        if self._tells_tasks or not self._method.shows_activity:
            return {}
        curriculum, sums = self._curriculum, dict[str, torch.Tensor]()
        tasks = range(curriculum.num_tasks)
        num_labels = max(curriculum.classes(tasks)) + 1
        count_c = torch.zeros(num_labels, dtype=torch.float64, device=self._device)
        for task in tasks:
            split = self._prepared(task)
            for images, labels_B in zip(
                *(part.split(EVALUATION_BATCH) for part in (split.images, split.labels)), strict=True
            ):
                shown = self._method.activity(state, images)
                # As a product: on a GPU, sums by index are added in no fixed order.
                is_of_cB = functional.one_hot(labels_B, num_labels).t().to(torch.float64)
                count_c += is_of_cB.sum(dim=1)
                for name, values in shown.items():
                    sum_ck = is_of_cB @ values.flatten(1).to(torch.float64)
                    sums[name] = sums[name] + sum_ck if name in sums else sum_ck
        return {name: (sum_ck / count_c.clamp(min=1)[:, None]).to(torch.float32) for name, sum_ck in sums.items()}

    @torch.no_grad()
    def _prepared(self, task: int) -> Split:
        split = self._curriculum.test_split(task)
        images = self._method.prepare(task if self._tells_tasks else None, split.images)
        return Split(images=images, labels=split.labels)


def diverged(task: int, what: str, rate: float) -> FloatingPointError:
    """The error to raise for a task whose loss is no longer finite."""
    return FloatingPointError(f"task {task}: the {what}; training diverged. Lower the learning rate, given {rate}.")
