"""The context bank: what is kept of every learned task, asked by name, passed on as one small file.

    bank = ContextBank.load("bank.safetensors")
    bank.predict(images, task="rotated 7")          # or task=7, or one task for each image
    bank.select([0, 7]).save("two.safetensors", dtype="int8")

A bank holds tensors, and each task's origin: the trial that learned it, and its number there. Its tasks may come from
several trials of one backbone, of different people. The frozen weights are not in the file unless asked for: they are
drawn again from the trials' specs, and refused if their fingerprint differs. A file may be a stranger's: reading it
runs no code, and everything that it says is checked before anything is drawn.

Shapes: T tasks, B images, C channels, H height, W width, m classes, d values per image. The task axis comes first.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from crwn import backbone, context_checks, context_edits, context_files, similarity
from crwn.backbone import Backbone
from crwn.context_files import ACTIVITY, SHARED, BankTask, Content, Precision, dump
from crwn.context_networks import (
    LARGEST_BACKBONE,
    Networks,
    Pictures,
    as_bytes,
    draw,
    kept_by,
    machine_memory,
    tasks_of,
    tells_tasks,
    trial_from,
)
from crwn.faults import InvalidError
from crwn.methods.networks import RUNNING_MEAN, RUNNING_VARIANCE
from crwn.methods.protocol import Tensors
from crwn.similarity import By, Similarity
from crwn.superposition import Superposition
from crwn.task_inference import Criterion, infer
from crwn.trial_spec import TrialSpec

__all__ = ["ACTIVITY", "SHARED", "BankTask", "ContextBank", "WeightsError", "dump", "load"]

HOW_TO_KEEP_WEIGHTS = "with `keep_weights: true` in its sweep, or with crwn.run(..., keep_weights=True)"

TaskName: TypeAlias = "int | str"
"""A task's place in the bank, from 0, or its name."""

NUM_NEAREST = 3
"""Number of tasks that an error names."""


class WeightsError(InvalidError):
    """A bank lacks the trained weights that its trial predicts with."""


@dataclass(frozen=True, kw_only=True)  # without slots, for what is built at the first prediction
class ContextBank:
    """The tensors kept for all tasks, and the trials and the backbone that they belong to.

    Attributes:
        tensors: by name, such as `layer1.context` [T, I] and `layer1.strength` [T]; masks are packed bits. Weights are
            included only if the trial was asked to keep them; shared ones, such as `shared.layer1.weight` [O, I], have
            no task axis. Nor has the units' activity, `activity.<layer>` [c, ...]: means over the test images of
            each class at the trial's end.
        tasks: the tasks in order, each with its name and origin.
        specs: the resolved specs of the trials that learned them, by trial id, as parsed JSON.
        fingerprint: the fingerprint of the backbone that they modulate.
        arrays: the backbone's arrays by name, if the bank carries them; else they are drawn when they are needed.
        mean_images: each task's mean training image as unsigned bytes [T, d]; None: not known.
        card: what the bank's author says of it.
    """

    tensors: Tensors
    tasks: tuple[BankTask, ...]
    specs: Mapping[str, dict[str, Any]]
    fingerprint: str
    arrays: Tensors = dataclasses.field(default_factory=dict)
    mean_images: torch.Tensor | None = None
    card: str = ""

    @classmethod
    def load(cls, file: bytes | str | Path, *, largest: int = LARGEST_BACKBONE) -> ContextBank:
        """Read a bank's file, or a trial's contexts.safetensors; see `load`."""
        return load(file, largest=largest)

    def __repr__(self) -> str:
        names = ", ".join(task.name for task in self.tasks[:NUM_NEAREST])
        more = ", ..." if len(self.tasks) > NUM_NEAREST else ""
        return f"<context bank of {len(self.tasks)} tasks: {names}{more}>"

    @functools.cached_property
    def trials(self) -> Mapping[str, TrialSpec]:
        """The trials that learned the tasks, by id.

        Raises:
            ValueError: this crwn does not know a spec, or it is another trial's.
        """
        return {trial_id: trial_from(spec, trial_id) for trial_id, spec in self.specs.items()}

    @property
    def trial_id(self) -> str:
        """The id of the only trial that learned the tasks.

        Raises:
            ValueError: there are several.
        """
        if len(self.specs) != 1:
            raise InvalidError(
                "several-trials",
                f"contexts: expected the tasks of one trial, given those of {len(self.specs)}; `bank.tasks` names each "
                "task's trial",
            )
        return next(iter(self.specs))

    @property
    def trial(self) -> TrialSpec:
        """The only trial that learned the tasks; raises as `trial_id` and `trials` do."""
        return self.trials[self.trial_id]

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of the only trial that learned the tasks, as parsed JSON; raises as `trial_id` does."""
        return self.specs[self.trial_id]

    @property
    def activity(self) -> Tensors:
        """The units' activity by the layer's name, such as the share of a class's images that a gate lets pass: [c, N].

        Empty if the method shows none.
        """
        names = sorted(name for name in self.tensors if name.startswith(ACTIVITY))
        return {name.removeprefix(ACTIVITY): self.tensors[name] for name in names}

    @functools.cached_property
    def own(self) -> Tensors:
        """The tensors with a task axis."""
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith((SHARED, ACTIVITY))}

    @functools.cached_property
    def shared(self) -> Tensors:
        """The learned shared weights, by the method's own names."""
        return {name.removeprefix(SHARED): tensor for name, tensor in self.tensors.items() if name.startswith(SHARED)}

    @property
    def any_trial(self) -> TrialSpec:
        """One of the trials, in which all agree in what concerns them."""
        return next(iter(self.trials.values()))

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.tasks)

    @property
    def needs_task(self) -> bool:
        """Whether `predict` needs the task of the images; else one network answers for all tasks."""
        return tells_tasks(self.any_trial)

    @functools.cached_property
    def superposition(self) -> Superposition:
        """All tasks' masks over one network; raises where tasks keep no masks."""
        return Superposition(self.any_trial, self._drawn, self.own)

    @functools.cached_property
    def tells_tasks_apart(self) -> bool:
        """Whether a task's answers are its own; else its tasks share everything, though they are told."""
        return kept_by(self.any_trial).varies

    def predict(
        self, images: Pictures, task: TaskName | Sequence[TaskName] | NDArray[Any] | torch.Tensor | None = None
    ) -> torch.Tensor:
        """The class scores of images.

        The first call draws the frozen weights again, from the trials' specs. Nothing depends on earlier calls.

        Args:
            images: as the benchmark gives those of the task (rotated, permuted), as unsigned bytes, which the network
                normalises itself. Where a test of the method depends on its batch, so do these scores.
            task: their task, by its place or its name, or B of them, one for each image; None where `needs_task` is
                false. Scores of images of several tasks agree with those of one task within rtol = atol = 1e-5.

        Returns:
            [B, m] on the CPU; a label is the index of the highest score. Classes that were not learned have minus
            infinity.

        Raises:
            WeightsError: the trial did not keep its trained weights.
            ValueError: images or task are not as expected, the bank is damaged, or the frozen weights cannot be drawn
                as they were.
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
        self._refuse_one_network("predict_all")
        places = range(self.num_tasks) if tasks is None else [self.place(task) for task in tasks]
        return self._networks.all(places, self._bytes(images))

    def infer_task(
        self,
        images: Pictures,
        by: Criterion = "entropy",
        *,
        groups: Sequence[int] | NDArray[np.int64] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """How likely images are of each task: the highest score is the answer, `scores.argmax()` its place.

        Args:
            images: as for `predict`, all of one task.
            by: `entropy`: minus the mean entropy of each task's answers, in nats. `margin`: the mean difference between
                the two highest probabilities. `mean-image`: minus the squared distance from the tasks' mean images,
                which the bank must have, without any network. `one-shot`, `binary`: searches in a superposition of
                masks (`superposition.py`), for methods that keep masks.
            groups: for images of several tasks, the number of each image's group, from 0: B of them. The images of a
                group are of one task.

        Returns:
            [T]; with groups [K, T].

        Raises:
            ValueError: the bank has no mean images, or no masks, that are asked for; or as for `predict_all`.
        """
        self._refuse_one_network("infer_task")
        if by not in get_args(Criterion):
            message = f"by: expected one of {', '.join(get_args(Criterion))}, given {by!r}"
            raise InvalidError("unknown-name", message)
        return infer(self, self._bytes(images), by, groups)

    def similarity(self, by: By = "answers", images: Pictures | None = None) -> Similarity:
        """How unlike the tasks are (`similarity.py`).

        Args:
            by: `answers`, the class probabilities that the tasks' networks give the same images; or `contexts`, which
                only tasks can be compared by that started alike, or whose loss is convex.
            images: for `answers`, the images to ask about, as for `predict`: some of each task, say, without labels.

        Raises:
            ValueError: as for `predict_all`; images are missing, or not asked about; or the tasks started apart.
        """
        self._refuse_one_network("similarity")
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
        """What each task learned as one vector, contexts times strengths: [T, N]."""
        self._refuse_one_network("context_vectors")
        return similarity.context_vectors(self.own, moving=(RUNNING_MEAN, RUNNING_VARIANCE))

    def place(self, task: TaskName | None) -> int:
        """A task's place in the bank, given that or its name.

        Raises:
            ValueError: there is no such task.
        """
        if isinstance(task, str):
            if task in self._places:
                return self._places[task]
            close = difflib.get_close_matches(task[:100], self._places, n=NUM_NEAREST, cutoff=0)
            raise InvalidError(
                "unknown-task", f"task: expected the name of one, given {task[:100]!r}; the nearest are {close}"
            )
        last = self.num_tasks - 1
        try:
            place = operator.index(-1 if task is None or isinstance(task, bool | np.bool_) else task)
        except TypeError:
            place = -1
        if not 0 <= place <= last:
            message = f"task: expected the task of the images, by its name or from 0 to {last}, given {task!r}"
            raise InvalidError("unknown-task", message)
        return place

    def select(self, tasks: Iterable[TaskName]) -> ContextBank:
        """A bank of some of the tasks, in this order.

        Raises:
            ValueError: there is no such task, one is named twice or none at all; or one network answers for all tasks.
        """
        self._refuse_one_network("select")
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
            names: new names by the task's place or name; or a function of each name.
            classes: new names of classes by task: m each.

        Raises:
            ValueError: there is no such task, two would have one name, or names are missing.
        """
        return context_edits.renamed(self, names, classes or {})

    def merge(self, *others: ContextBank) -> ContextBank:
        """A bank of the tasks of this and other banks, in order; they may come from other machines or people.

        Mean images are kept if all banks have them. The card is this bank's.

        Raises:
            ValueError: the banks are of different frozen weights, methods, image sizes or shared weights; two tasks
                have one name; or one network answers for all tasks of a bank.
        """
        for bank in (self, *others):
            bank._refuse_one_network("merge")
        return context_edits.merged([self, *others])

    def add(self, bank: ContextBank, task: TaskName, *, name: str | None = None) -> ContextBank:
        """The bank with one more task, taken from another bank; raises as `merge` does.

        Args:
            bank: the other bank.
            task: its task.
            name: the task's name here; None: as it is there.
        """
        one = bank.select([task])
        return self.merge(one if name is None else one.renamed({0: name}))

    def described(self, card: str) -> ContextBank:
        """The bank with this card: what its author says of it."""
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
            dtype: how what was learned is stored: `float32`, as it was learned; `float16`; `int8`, with a scale for
                each row, a task's numbers in one layer for example. Masks stay bits.
            backbone: whether the frozen weights are included. Without them the file is small, and a reader draws them
                again, which needs a NumPy that draws the same numbers.
            mean_images: whether the tasks' mean images are included, which say something of the training data; the
                card of the saved bank says so.

        Returns:
            Its size in bytes.

        Raises:
            ValueError: the dtype is none of these, or mean images are asked for that the bank does not have.
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
        arrays = self._drawn.arrays if backbone else {}
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
            ValueError: they are not of this shape.
        """
        given = torch.as_tensor(mean_images)
        context_checks.check_mean_images(given, self.num_tasks, self.any_trial)
        return dataclasses.replace(self, mean_images=given.cpu())

    def check(self, largest: int = LARGEST_BACKBONE) -> None:
        """Check that all belongs together, without drawing the frozen weights.

        Args:
            largest: most bytes of the network.

        Raises:
            ValueError: the trials' networks differ or are larger; tensors are missing, left over, of another shape or
                dtype, or not finite; a task is none of its trial.
        """
        context_checks.check(self, largest)

    def _refuse_one_network(self, what: str) -> None:
        if not self.needs_task:
            raise InvalidError(
                "task-not-told",
                f"{what}: expected a bank of tasks, given one network of {self.any_trial.method.kind}, which answers "
                "for all tasks",
            )

    def _bytes(self, images: Pictures) -> torch.Tensor:
        return as_bytes(images, self.any_trial.benchmark.problem().input_shape)

    def _places_of(self, tasks: Any) -> torch.Tensor:
        """The places of several tasks: [B]."""
        given = tasks.tolist() if isinstance(tasks, np.ndarray | torch.Tensor) else list(tasks)
        if all(type(each) is int for each in given):  # all at once: a check of each takes as long as the network
            places_B = torch.tensor(given, dtype=torch.int64)
            if not given or bool((places_B >= 0).all() and (places_B < self.num_tasks).all()):
                return places_B
        return torch.tensor([self.place(each) for each in given], dtype=torch.int64)

    @functools.cached_property
    def _places(self) -> Mapping[str, int]:
        """Each task's place by its name."""
        return {task.name: place for place, task in enumerate(self.tasks)}

    @functools.cached_property
    def _drawn(self) -> Backbone:
        """The frozen weights: those that the bank carries, or drawn anew."""
        if not self.arrays:
            return draw(self.any_trial.blueprint(), self.fingerprint)
        arrays = {name: tensor.numpy() for name, tensor in self.arrays.items()}
        found = backbone.fingerprint(arrays)
        if found != self.fingerprint:
            raise InvalidError(
                "other-backbone",
                f"backbone: expected the frozen weights with the fingerprint {self.fingerprint}, given {found} in the "
                "file itself",
            )
        return Backbone(arrays=arrays, fingerprint=found)

    @functools.cached_property
    def _networks(self) -> Networks:
        """The networks that answer for the tasks, on the frozen weights."""
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
        return Networks(origins, self._drawn, self.own, self.shared)


def load(file: bytes | str | Path, *, largest: int = LARGEST_BACKBONE) -> ContextBank:
    """Read a bank that `ContextBank.save` wrote, or a trial's contexts.safetensors.

    Args:
        file: its content, or its path.
        largest: most bytes of the network that it may ask for.

    Raises:
        ValueError: it is no such file, its format is newer, or what it says does not fit together; see
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
