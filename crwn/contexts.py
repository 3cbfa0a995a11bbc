"""The context bank: what is kept of every learned task, to predict with, edit and share as one small file.

    bank = ContextBank.load("bank.safetensors")
    bank.predict(images, task="rotated 7")          # or task=7, or one task for each image
    bank.select([0, 7]).save("two.safetensors", dtype="int8")

A bank holds tensors, and each task's origin: the trial that learned it, and its number there. Its tasks may come from
several trials on one backbone, by different people. The frozen weights are in the file only on request: otherwise, they
are drawn again from the trials' specs, and refused if their fingerprint differs. A file may be untrusted: reading it
runs no code, and its whole content is checked before anything is drawn.

Shapes: T tasks, B images, C channels, H height, W width, m classes, d values per image. The task axis comes first.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from crwn import context_checks, context_edits, context_files, similarity
from crwn.context_files import ACTIVITY, SHARED, BankTask, Content, Precision, dump
from crwn.context_networks import (
    LARGEST_BACKBONE,
    Networks,
    Pictures,
    as_bytes,
    kept_by,
    machine_memory,
)
from crwn.context_origins import tasks_of, tasks_without_plugin, trial_from
from crwn.context_parts import NUM_NEAREST, ContextParts, TaskName
from crwn.faults import InvalidError
from crwn.methods.networks import RUNNING_MEAN, RUNNING_VARIANCE
from crwn.similarity import By, Similarity
from crwn.task_criteria import Criterion, infer

__all__ = ["ACTIVITY", "SHARED", "BankTask", "ContextBank", "WeightsError", "dump", "load"]

HOW_TO_KEEP_WEIGHTS = "with `keep_weights: true` in its sweep, or with crwn.run(..., keep_weights=True)"


class WeightsError(InvalidError):
    """A bank lacks the trained weights that its trial predicts with."""


class ContextBank(ContextParts):
    """The tensors kept for all tasks, with which to predict, and which can be edited and saved; see `ContextParts`."""

    @classmethod
    def load(cls, file: bytes | str | Path, *, largest: int = LARGEST_BACKBONE) -> ContextBank:
        """Read a bank's file, or a trial's contexts.safetensors; see `load`."""
        return load(file, largest=largest)

    def __repr__(self) -> str:
        names = ", ".join(task.name for task in self.tasks[:NUM_NEAREST])
        more = ", ..." if len(self.tasks) > NUM_NEAREST else ""
        return f"<context bank of {len(self.tasks)} tasks: {names}{more}>"

    def predict(
        self, images: Pictures, task: TaskName | Sequence[TaskName] | NDArray[Any] | torch.Tensor | None = None
    ) -> torch.Tensor:
        """The class scores of images.

        The first call draws the frozen weights again, from the trials' specs. Calls are independent.

        Args:
            images: transformed as in the task (rotated, permuted), as unsigned bytes, which the network normalises
                itself. If the method's tests depend on the batch, so do these scores.
            task: their task, by its position or name, or B of them, one per image; None if `needs_task` is false.
                Scores for mixed tasks agree with those for a single task within rtol = atol = 1e-5.

        Returns:
            [B, m] on the CPU; the predicted label is the index of the highest score. Classes that were not learned have
            minus infinity.

        Raises:
            WeightsError: the trial did not keep its trained weights.
            ValueError: images or task are not as expected, the bank is damaged, or the frozen weights cannot be
                reproduced.
        """
        if not self.needs_task:
            if task is not None:
                raise InvalidError(
                    "task-not-told",
                    f"task: expected none, given {task!r}: one network of {self.any_trial.method.kind} answers for "
                    "all tasks, and is not told which task an image is from",
                )
            return self._networks.one(None, self._bytes(images))
        if task is None or isinstance(task, str) or np.ndim(task) == 0:
            place = self.place(task)  # type: ignore[arg-type]  # it is not several
            return self._networks.one(place, self._bytes(images))
        places_B, bytes_BCHW = self._places_of(task), self._bytes(images)
        if len(places_B) != len(bytes_BCHW):
            raise InvalidError(
                "not-a-task-per-image",
                f"task: expected one task, or one for each of the {len(bytes_BCHW)} images, given {len(places_B)}",
            )
        return self._networks.each(places_B, bytes_BCHW)

    def predict_all(self, images: Pictures, tasks: Iterable[TaskName] | None = None) -> torch.Tensor:
        """The class scores of the same images under each task.

        Args:
            images: as for `predict`.
            tasks: only these, in this order; None: all.

        Returns:
            [T, B, m].

        Raises:
            ValueError: as for `predict`; or one network answers for all tasks.
        """
        self.refuse_one_network("predict_all")
        places = range(self.num_tasks) if tasks is None else [self.place(task) for task in tasks]
        return self._networks.all(places, self._bytes(images))

    def infer_task(
        self,
        images: Pictures,
        by: Criterion = "entropy",
        *,
        groups: Sequence[int] | NDArray[np.int64] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The score of each task for images; the highest is the most likely, and `scores.argmax()` its position.

        Args:
            images: as for `predict`, all of one task.
            by: `entropy`: minus the mean entropy of each task's predictions, in nats. `margin`: the mean difference
                between the two highest probabilities. `mean-image`: minus the squared distance from the tasks' mean
                images, which the bank must have; it uses no network. `one-shot`, `binary`: searches in a superposition
                of masks (`superposition.py`), for methods that keep masks.
            groups: for images of several tasks, the number of each of the B images' groups, from 0. The images of a
                group are of one task.

        Returns:
            [T]; with groups [K, T].

        Raises:
            ValueError: the bank lacks the required mean images or masks; or as for `predict_all`.
        """
        self.refuse_one_network("infer_task")
        if by not in get_args(Criterion):
            message = f"by: expected one of {', '.join(get_args(Criterion))}, given {by!r}"
            raise InvalidError("unknown-name", message)
        return infer(self, self._bytes(images), by, groups, answers=self.predict_all)

    def similarity(self, by: By = "answers", images: Pictures | None = None) -> Similarity:
        """The similarity of the tasks (`similarity.py`).

        Args:
            by: `answers`, the class probabilities that the tasks' networks give for the same images; or `contexts`, if
                the tasks started alike or their loss is convex.
            images: for `answers`, the images to predict, as for `predict`, such as some of each task; without labels.

        Raises:
            ValueError: as for `predict_all`; images are missing, or given for `contexts`; or the tasks started apart.
        """
        self.refuse_one_network("similarity")
        if by not in get_args(By):
            raise InvalidError("unknown-name", f"by: expected one of {', '.join(get_args(By))}, given {by!r}")
        if (images is None) == (by == "answers"):
            message = f"expected images for 'answers', none for 'contexts', given {by!r} with{'out' * (images is None)}"
            raise InvalidError("images-do-not-fit", f"images: {message}")
        if images is not None:
            distances = similarity.by_answers(self.predict_all(images))
        else:
            context_checks.check_comparable(self, starts_alike=self._networks.start_alike())
            distances = similarity.by_contexts(self.context_vectors())
        return Similarity(by=by, names=tuple(task.name for task in self.tasks), distances=distances)

    def context_vectors(self) -> NDArray[np.float64]:
        """What each task learned, as one vector, contexts times strengths: [T, N]."""
        self.refuse_one_network("context_vectors")
        return similarity.context_vectors(self.own, moving=(RUNNING_MEAN, RUNNING_VARIANCE))

    def select(self, tasks: Iterable[TaskName]) -> ContextBank:
        """A bank of some of the tasks, in this order.

        Raises:
            ValueError: a task is unknown or repeated, none is given, or one network predicts for all tasks.
        """
        self.refuse_one_network("select")
        return context_edits.selected(
            self, [self.place(task) for task in ([tasks] if isinstance(tasks, str | int) else tasks)]
        )

    def renamed(
        self,
        names: Mapping[TaskName, str] | Callable[[str], str],
        *,
        classes: Mapping[TaskName, Sequence[str]] | None = None,
    ) -> ContextBank:
        """The bank with other names.

        Args:
            names: new names by the task's position or name; or a function of each name.
            classes: new names of classes by task: m each.

        Raises:
            ValueError: a task is unknown, two would have the same name, or names are missing.
        """
        return context_edits.renamed(self, names, classes or {})

    def merge(self, *others: ContextBank) -> ContextBank:
        """A bank of the tasks of this and other banks, in order; they may come from other machines or people.

        Mean images are kept if all banks have them. The card is this bank's.

        Raises:
            ValueError: the banks differ in frozen weights, method, image size or shared weights; two tasks have the
                same name; or one network predicts for all tasks of a bank.
        """
        for bank in (self, *others):
            bank.refuse_one_network("merge")
        return context_edits.merged([self, *others])

    def add(self, bank: ContextBank, task: TaskName, *, name: str | None = None) -> ContextBank:
        """The bank with one more task, taken from another bank; raises as `merge` does.

        Args:
            bank: the other bank.
            task: its task.
            name: the task's new name; None: unchanged.
        """
        one = bank.select([task])
        return self.merge(one if name is None else one.renamed({0: name}))

    def described(self, card: str) -> ContextBank:
        """The bank with this card, the author's description."""
        if len(card) > context_files.LONGEST_CARD:
            message = f"card: expected at most {context_files.LONGEST_CARD:,} characters, given {len(card):,}"
            raise InvalidError("too-long", message)
        return dataclasses.replace(self, card=card)

    def save(
        self,
        file: str | Path,
        *,
        dtype: Precision = "float32",
        backbone: bool = False,
        mean_images: bool = False,
    ) -> int:
        """Write the bank as one file, atomically.

        Args:
            file: its path.
            dtype: how learned tensors are stored: `float32`, unchanged; `float16`; `int8`, with a scale per row, such
                as a task's numbers in one layer. Masks stay bits.
            backbone: whether to include the frozen weights. Without them, the file is small, and readers draw them
                again, which requires a NumPy that draws the same numbers.
            mean_images: whether to include the tasks' mean images, which reveal something about the training data; the
                card of the saved bank says so.

        Returns:
            Its size in bytes.

        Raises:
            ValueError: the dtype is unknown, or the bank lacks the requested mean images.
        """
        content = self.to_bytes(dtype=dtype, backbone=backbone, mean_images=mean_images)
        context_files.write(Path(file), content)
        return len(content)

    def to_bytes(self, *, dtype: Precision = "float32", backbone: bool = False, mean_images: bool = False) -> bytes:
        """The content of the file that `save` writes."""
        if mean_images and self.mean_images is None:
            raise InvalidError(
                "no-mean-images", "mean_images: expected a bank with them, given one without; see `with_mean_images`"
            )
        arrays = self.drawn.arrays if backbone else {}
        content = Content(
            tensors=self.tensors,
            specs=dict(self.specs),
            fingerprint=self.fingerprint,
            tasks=self.tasks,
            arrays={name: torch.tensor(array) for name, array in arrays.items()},
            mean_images=self.mean_images if mean_images else None,
            card=context_files.with_note(self.card) if mean_images else self.card,
        )
        return context_files.dump_bank(content, self.any_trial.blueprint().backbone, dtype)

    def with_mean_images(self, mean_images: torch.Tensor | NDArray[np.uint8]) -> ContextBank:
        """The bank with each task's mean image, unsigned bytes [T, d]; they are saved on request only.

        Raises:
            ValueError: they have another shape.
        """
        given = torch.as_tensor(mean_images)
        context_checks.check_mean_images(given, self.num_tasks, self.any_trial)
        return dataclasses.replace(self, mean_images=given.cpu())

    def check(self, largest: int = LARGEST_BACKBONE) -> None:
        """Check that all parts belong together, without drawing the frozen weights.

        Args:
            largest: the most bytes of the network.

        Raises:
            ValueError: the trials' networks differ or are too large; tensors are missing, unexpected, of another shape
                or dtype, or not finite; a task is not one of its trial.
        """
        context_checks.check(self, largest)

    def _bytes(self, images: Pictures) -> torch.Tensor:
        return as_bytes(images, self.any_trial.benchmark.problem().input_shape)

    def _places_of(self, tasks: Any) -> torch.Tensor:
        """The positions of several tasks: [B]."""
        given = tasks.tolist() if isinstance(tasks, np.ndarray | torch.Tensor) else list(tasks)
        if all(type(each) is int for each in given):  # all at once: checking each would take as long as the network
            places_B = torch.tensor(given, dtype=torch.int64)
            if not given or bool((places_B >= 0).all() and (places_B < self.num_tasks).all()):
                return places_B
        return torch.tensor([self.place(each) for each in given], dtype=torch.int64)

    @functools.cached_property
    def _networks(self) -> Networks:
        """The networks that predict for the tasks, on the frozen weights."""
        self.check(largest=machine_memory())
        kept = kept_by(self.any_trial)
        for expected, given in ((kept.shared, self.shared), (kept.own, self.own)):
            if expected and not given:
                kind, trial_id = self.any_trial.method.kind, next(iter(self.specs))
                raise WeightsError(
                    "weights-not-kept",
                    f"{kind} predicts with trained weights, and the trial {trial_id} kept none: run it in a new store "
                    f"{HOW_TO_KEEP_WEIGHTS}",
                )
        origins = [(self.trials[task.trial_id], task.index) for task in self.tasks]
        return Networks(origins, self.drawn, self.own, self.shared)


def load(file: bytes | str | Path, *, largest: int = LARGEST_BACKBONE) -> ContextBank:
    """Read a bank that `ContextBank.save` wrote, or a trial's contexts.safetensors.

    Args:
        file: its content, or its path.
        largest: the most bytes of the network that it may require.

    Raises:
        ValueError: it is not such a file, its format is newer, or its parts do not belong together; see
            `ContextBank.check`.
        OSError: it cannot be read.
    """
    content = context_files.parse(file if isinstance(file, bytes) else Path(file).read_bytes())
    tasks = content.tasks
    if tasks is None:
        ((trial_id, spec),) = content.specs.items()
        tasks = tasks_of(trial_from(spec, trial_id), content.starts)
    tensors = content.tensors
    if content.tasks is not None:  # it may have rounded them
        trial_id = tasks[0].trial_id
        dtype = getattr(torch, trial_from(content.specs[trial_id], trial_id).training.dtype)
        if dtype == torch.float64:
            tensors = {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}
    bank = ContextBank(
        tensors=tensors,
        tasks=tasks,
        specs=content.specs,
        fingerprint=content.fingerprint,
        arrays=content.arrays,
        mean_images=content.mean_images,
        card=content.card,
    )
    bank.check(largest)
    if content.recipe is not None and content.recipe != context_files.recipe_of(bank.any_trial.blueprint().backbone):
        raise InvalidError(
            "other-backbone", "backbone: expected the recipe that the trials' specs give, found another in the file"
        )
    return bank


def load_without_plugin(content: bytes, num_tasks: int, plugins: Sequence[str]) -> ContextBank:
    """A trial's file, in a process that has not loaded the plug-in that defines a part of the trial.

    Its tensors, tasks and spec can be read. Nothing is checked against the spec, so this is only for files that a
    store's record vouches for. Whatever needs the trial's network raises ValueError, which says what to load.
    """
    kept = context_files.parse(content)
    ((trial_id, spec),) = kept.specs.items()
    tasks = tasks_without_plugin(spec, trial_id, kept.starts or ["own"] * num_tasks)
    return ContextBank(
        tensors=kept.tensors, tasks=tasks, specs=kept.specs, fingerprint=kept.fingerprint, plugins=tuple(plugins)
    )
