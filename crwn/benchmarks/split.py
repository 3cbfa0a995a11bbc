"""Split classes (Split-CIFAR100 over `cifar100`, Split-miniImageNet): task t has a few of the base set's classes.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), 20 tasks of 5 classes. Which classes go together is drawn from the seed;
within a task labels run from 0. Random crops with 4 pixels of padding and flips, drawn anew in every epoch.

Every class gives equally many training images, as many as the rarest has: all of them in the published sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from crwn import seeding
from crwn.benchmarks.augmentation import Augmentation
from crwn.benchmarks.protocol import Split
from crwn.benchmarks.specs import check_first, normalisation_of
from crwn.benchmarks.validation import check_validation, left_of_each
from crwn.data import BASE_SETS
from crwn.lazy import LazyModule
from crwn.spec import READ_STRICTLY, Count, Index, ProblemShape, check_fields, kind_field, later_field

if TYPE_CHECKING:
    import torch

    from crwn.data.base import ImageSet, ImageSplit, Normalisation
else:
    torch = LazyModule("torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """Split classes.

    Attributes:
        base: the base data set.
        num_tasks: the number of tasks, each of equally many classes.
        crop_padding: pixels of padding for random crops in training; 0 for none.
        flip: whether training images are flipped at random.
        validation: training images held out; tests are then on them, never on the test images.
        first: only the first so many tasks of the same drawing; 0 for all.
        normalise: by the base set's mean and deviation, else pixels are numbers from 0 to 1.

    Raises:
        ValueError: a field is wrong, or the classes cannot be divided so.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("split")
    base: Literal["digits", "mnist", "cifar100", "miniimagenet", "tinyimagenet"] = "cifar100"
    num_tasks: Count = 20
    crop_padding: Index = 4
    flip: bool = True
    validation: Index = later_field(0)
    first: Index = later_field(0)
    normalise: bool = later_field(True)

    def __post_init__(self) -> None:
        check_fields(self)
        check_validation(self.base, self.validation)
        num_classes = BASE_SETS[self.base].num_classes
        if num_classes % self.num_tasks or num_classes == self.num_tasks:
            choices = [tasks for tasks in range(1, num_classes) if num_classes % tasks == 0]
            raise ValueError(
                f"num_tasks: expected one of {', '.join(map(str, choices))}, so that the {num_classes} classes of "
                f"{self.base!r} divide into tasks of at least two, given {self.num_tasks}"
            )
        check_first(self.first, self.num_tasks)

    def problem(self) -> ProblemShape:
        """The benchmark's sizes."""
        base, num_tasks = BASE_SETS[self.base], self.first or self.num_tasks
        num_classes = base.num_classes // self.num_tasks
        return ProblemShape(
            input_shape=base.image_shape,
            num_classes=num_classes,
            num_tasks=num_tasks,
            labels_are_shared=False,
            segment_sizes=(num_classes * min(left_of_each(self.base, self.validation)),) * num_tasks,
        )

    def normalisation(self) -> Normalisation:
        """Of the images as the networks see them."""
        return normalisation_of(self.base, normalise=self.normalise)


class SplitTasks:
    """A benchmark whose tasks have classes of their own.

    Args:
        images: the base set's images.
        classes: each task's classes in the order of its labels.
        augmentation: of training images.
        device: where the tensors live.
    """

    def __init__(
        self,
        *,
        images: ImageSet,
        classes: Sequence[Sequence[int]],
        augmentation: Augmentation | None,
        device: torch.device,
    ) -> None:
        self.num_tasks = self.num_segments = len(classes)
        self.test_every = 0
        self.augmentation = augmentation
        self._images = images
        self._classes = classes
        self._device = device
        self._train_each = int(np.bincount(images.train.labels).min())

    def num_examples(self, task: int) -> int:
        """Training examples of a task."""
        return self._train_each * len(self._classes[task])

    def classes(self, task: int) -> tuple[int, ...]:
        """The labels of a task."""
        return tuple(range(len(self._classes[task])))

    def train_split(self, task: int) -> Split:
        """The training examples of a task, class by class, equally many of each."""
        return self._of_task(self._images.train, task, each=self._train_each)

    def test_split(self, task: int) -> Split:
        """The test examples of a task, class by class."""
        return self._of_task(self._images.test, task, each=None)

    def mixture(self, tasks: Sequence[int]) -> Split:
        """The training examples of these tasks as one set."""
        return joined([self.train_split(task) for task in tasks])

    def _of_task(self, split: ImageSplit, task: int, *, each: int | None) -> Split:
        chosen = [np.flatnonzero(split.labels == name)[:each] for name in self._classes[task]]
        labels = np.repeat(np.arange(len(chosen)), [len(numbers) for numbers in chosen])
        return Split(
            images=torch.from_numpy(split.images[np.concatenate(chosen)]).to(self._device),
            labels=torch.from_numpy(labels).to(self._device),
        )


def joined(splits: Sequence[Split]) -> Split:
    """Splits laid end to end."""
    return Split(
        images=torch.cat([split.images for split in splits]), labels=torch.cat([split.labels for split in splits])
    )


def classes_of_tasks(num_classes: int, num_tasks: int, seed: int) -> list[list[int]]:
    """Each task's classes, drawn from the seed: every class is in one task."""
    order = seeding.numpy_generator(seed, "classes").permutation(num_classes)
    return [part.tolist() for part in np.split(order, num_tasks)]


def build(spec: SplitSpec, images: ImageSet, seed: int, device: torch.device) -> SplitTasks:
    """The tasks of `spec` at `seed` on `device`."""
    changes = spec.crop_padding > 0 or spec.flip
    return SplitTasks(
        images=images,
        classes=classes_of_tasks(BASE_SETS[spec.base].num_classes, spec.num_tasks, seed)[: spec.problem().num_tasks],
        augmentation=Augmentation(padding=spec.crop_padding, flip=spec.flip) if changes else None,
        device=device,
    )
