"""Split classes (Split-CIFAR100 over `cifar100`, Split-miniImageNet): task t has a few of the base set's classes.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), 20 tasks of 5 classes. The seed determines how classes are grouped;
within a task, labels run from 0. Random crops with 4 pixels of padding and flips, drawn anew in every epoch.

By super-classes (our design): the super-classes, in an order drawn from the seed, form a ring, and task t has one class
of each of those at places t to t + m - 1. So tasks d apart share m - d of their m super-classes, and none from m on;
every class is in one task, and a super-class has the same label in all of its tasks.
(Another benchmark of CIFAR-100's super-classes has one whole super-class per task, which relates no two tasks.)

All classes have the same number of training images, that of the rarest class: in the published sets, all images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.benchmarks.augmentation import augmentation_of
from crwn.benchmarks.by_class import Chosen, ClassTasks
from crwn.benchmarks.specs import check_first, normalisation_of
from crwn.benchmarks.validation import check_validation, left_of_each
from crwn.data import BASE_SETS, Base
from crwn.faults import InvalidError
from crwn.spec import READ_STRICTLY, Count, Index, ProblemShape, check_fields, kind_field, later_field

if TYPE_CHECKING:
    import torch

    from crwn.data.base import ImageSet, ImageSplit, Normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """Split classes.

    Attributes:
        base: the base data set.
        num_tasks: the number of tasks, each with the same number of classes.
        crop_padding: pixels of padding for random crops in training; 0: no crops.
        flip: whether training images are flipped at random.
        validation: number of training images held out; tests then use them, never the test images.
        first: number of tasks to keep from the start of the same draw; 0: all.
        normalise: whether to normalise by the base set's mean and standard deviation; else pixels are from 0 to 1.
        by: whether classes are grouped at random, or so that tasks near each other share super-classes.

    Raises:
        ValueError: a field is wrong, or the classes or super-classes do not divide into equal tasks.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("split")
    base: Base = "cifar100"
    num_tasks: Count = 20
    crop_padding: Index = 4
    flip: bool = True
    validation: Index = later_field(0)
    first: Index = later_field(0)
    normalise: bool = later_field(True)
    by: Literal["class", "superclass"] = later_field("class")

    def __post_init__(self) -> None:
        check_fields(self)
        check_validation(self.base, self.validation)
        num_classes = BASE_SETS[self.base].num_classes
        if num_classes % self.num_tasks or num_classes == self.num_tasks:
            choices = [tasks for tasks in range(1, num_classes) if num_classes % tasks == 0]
            raise InvalidError(
                "classes-do-not-divide",
                f"num_tasks: expected one of {', '.join(map(str, choices))}, so that the {num_classes} classes of "
                f"{self.base!r} divide into tasks of at least two, given {self.num_tasks}",
            )
        if self.by == "superclass":
            check_superclasses(self.base, self.num_tasks)
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
        """The normalisation of the images."""
        return normalisation_of(self.base, normalise=self.normalise)

    def classes_behind(self, seed: int) -> tuple[tuple[int, ...], ...]:
        """The base set's class behind each output of each task."""
        base = BASE_SETS[self.base]
        if self.by == "superclass":
            groups = classes_on_a_ring(base.superclasses, self.num_tasks, seed)
        else:
            groups = classes_of_tasks(base.num_classes, self.num_tasks, seed)
        return tuple(map(tuple, groups[: self.problem().num_tasks]))

    def distances(self, seed: int) -> NDArray[np.float64] | None:
        """The number of super-classes that tasks do not share: [T, T]; None if classes are grouped at random."""
        if self.by == "class":
            return None
        superclasses = BASE_SETS[self.base].superclasses
        groups = [{superclasses[name] for name in names} for names in self.classes_behind(seed)]
        return np.array([[float(len(one - other)) for other in groups] for one in groups])


def check_superclasses(base: str, num_tasks: int) -> None:
    """Check that a base set's super-classes form a ring of tasks: as many of equal size, by which they divide.

    Raises:
        ValueError: they do not.
    """
    counts = Counter(BASE_SETS[base].superclasses)
    sizes = set(counts.values())
    if len(sizes) != 1 or len(counts) % max(sizes):
        known = [name for name, each in BASE_SETS.items() if each.superclasses]
        raise InvalidError(
            "no-superclasses",
            f"by: expected 'class' for {base!r}, which has no super-classes of equal size, given 'superclass'; "
            f"{' and '.join(map(repr, known))} has them",
        )
    if num_tasks != len(counts):
        raise InvalidError(
            "not-a-task-per-superclass",
            f"num_tasks: expected {len(counts)} with by: superclass, one for each super-class of {base!r}, given "
            f"{num_tasks}; `first` keeps fewer of them",
        )


def classes_of_tasks(num_classes: int, num_tasks: int, seed: int) -> list[list[int]]:
    """Each task's classes, drawn from the seed; every class is in exactly one task."""
    order = seeding.numpy_generator(seed, "classes").permutation(num_classes)
    return [part.tolist() for part in np.split(order, num_tasks)]


def classes_on_a_ring(superclasses: Sequence[int], num_tasks: int, seed: int) -> list[list[int]]:
    """Each task's classes, one from each of consecutive super-classes on a ring drawn from the seed.

    Args:
        superclasses: the super-class of each class.
        num_tasks: as many as there are super-classes.
        seed: the trial's seed.

    Returns:
        Every class is in one task; its place there is its super-class's place on the ring, modulo the classes per task.
    """
    size = len(superclasses) // num_tasks
    groups = [[-1] * size for _ in range(num_tasks)]
    for place, superclass in enumerate(seeding.numpy_generator(seed, "superclasses").permutation(num_tasks).tolist()):
        members = np.flatnonzero(np.array(superclasses) == superclass)
        order = seeding.numpy_generator(seed, "superclasses", superclass).permutation(size)
        for back, member in enumerate(members[order].tolist()):
            groups[(place - back) % num_tasks][place % size] = member
    return groups


def chosen(split: ImageSplit, names: Sequence[int], each: int | None = None) -> Chosen:
    """The images of a task's classes, class by class, at most `each` per class, with labels from 0."""
    numbers = [np.flatnonzero(split.labels == name)[:each] for name in names]
    return np.concatenate(numbers), np.repeat(np.arange(len(names)), list(map(len, numbers)))


def build(spec: SplitSpec, images: ImageSet, seed: int, device: torch.device) -> ClassTasks:
    """Build the tasks of `spec` for `seed` on `device`."""
    groups = spec.classes_behind(seed)
    each = int(np.bincount(images.train.labels).min())
    return ClassTasks(
        images=images,
        train=[chosen(images.train, names, each) for names in groups],
        test=[chosen(images.test, names) for names in groups],
        classes=[tuple(range(len(names))) for names in groups],
        augmentation=augmentation_of(padding=spec.crop_padding, flip=spec.flip),
        device=device,
    )
