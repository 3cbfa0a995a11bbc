"""Class-incremental benchmarks (seq-MNIST over `mnist`): one label space, to which each task adds a few classes.

Source: the class-incremental benchmarks of github.com/aimagelab/mammoth (seq-mnist: five tasks of two digits in natural
order, pixels from 0 to 1; seq-cifar100: ten tasks of ten classes, random crops with 4 pixels of padding and flips).
Labels are the base set's own, and a network has outputs for all of them from the start. A task has all training and
test images of its classes, so tasks differ in size if classes do.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from crwn import seeding
from crwn.benchmarks.augmentation import augmentation_of
from crwn.benchmarks.by_class import Chosen, ClassTasks
from crwn.benchmarks.specs import check_first, normalisation_of, pool_faults
from crwn.benchmarks.validation import check_validation, left_of_each
from crwn.data import BASE_SETS, Base
from crwn.faults import Fault, InvalidError
from crwn.spec import READ_STRICTLY, Count, Index, ProblemShape, check_fields, kind_field, later_field

if TYPE_CHECKING:
    import torch

    from crwn.data.base import ImageSet, ImageSplit, Normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialSpec:
    """Classes that arrive in groups.

    Attributes:
        base: the base data set.
        num_tasks: the number of groups, each with the same number of classes.
        order: the order of the classes: the base set's own (0 and 1, 2 and 3, ...), or drawn from the seed.
        crop_padding: pixels of padding for random crops in training; 0: no crops.
        flip: whether training images are flipped at random.
        normalise: whether to normalise by the base set's mean and standard deviation; else pixels are from 0 to 1.
        channels: 1, or 3; for grey images, 3 equal ones.
        validation: number of training images held out; tests then use them, never the test images.
        first: number of groups to keep from the start of the order; 0: all. Networks keep outputs for all classes.
        pool: pixels are means over squares of this size.

    Raises:
        ValueError: a field is wrong, the classes do not divide into equal groups, the images not into squares, or
            colour images are wanted in grey.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("sequential")
    base: Base = "mnist"
    num_tasks: Count = 5
    order: Literal["natural", "drawn"] = "natural"
    crop_padding: Index = 0
    flip: bool = False
    normalise: bool = False
    channels: Literal[1, 3] = 1
    validation: Index = 0
    first: Index = 0
    pool: Count = later_field(1)

    def __post_init__(self) -> None:
        check_fields(self)
        check_validation(self.base, self.validation)
        base = BASE_SETS[self.base]
        if base.num_classes % self.num_tasks:
            choices = [tasks for tasks in range(1, base.num_classes + 1) if base.num_classes % tasks == 0]
            raise InvalidError(
                "classes-do-not-divide",
                f"num_tasks: expected one of {', '.join(map(str, choices))}, so that the {base.num_classes} classes of "
                f"{self.base!r} divide into equal groups, given {self.num_tasks}",
            )
        check_first(self.first, self.num_tasks)
        faults = pool_faults(self.base, self.pool)
        if self.channels < base.image_shape[0]:
            message = (
                f"channels: expected 3, since the images of {self.base!r} are in colour, given {self.channels}; set "
                "channels: 3, or use a base set of grey images"
            )
            faults.append(Fault("channels-too-few", message))
        if faults:
            raise InvalidError.of(faults)

    def problem(self) -> ProblemShape:
        """The benchmark's sizes."""
        base, num_tasks = BASE_SETS[self.base], self.first or self.num_tasks
        _, height, width = base.image_shape
        task_classes: tuple[tuple[int, ...], ...] = ()
        if self.order == "natural":
            task_classes, left = self.classes(0), left_of_each(self.base, self.validation)
            sizes = [sum(left[name] for name in group) for group in task_classes]
        else:  # each task's classes depend on the seed: use the mean size
            all_sizes = np.diff(np.arange(self.num_tasks + 1) * (base.num_train - self.validation) // self.num_tasks)
            sizes = all_sizes[:num_tasks].tolist()
        return ProblemShape(
            input_shape=(self.channels, height // self.pool, width // self.pool),
            num_classes=base.num_classes,
            num_tasks=num_tasks,
            scenario="class",
            segment_sizes=tuple(sizes),
            task_classes=task_classes,
        )

    def normalisation(self) -> Normalisation:
        """The normalisation of the images."""
        return normalisation_of(self.base, normalise=self.normalise)

    def classes(self, seed: int) -> tuple[tuple[int, ...], ...]:
        """Each task's classes, sorted by label; the seed matters only if the order is drawn."""
        names = np.arange(BASE_SETS[self.base].num_classes)
        if self.order == "drawn":
            names = seeding.numpy_generator(seed, "sequence").permutation(names)
        groups = np.split(names, self.num_tasks)[: self.first or None]
        return tuple(tuple(sorted(group.tolist())) for group in groups)


def chosen(split: ImageSplit, classes: Sequence[int]) -> Chosen:
    """All images of a task's classes, in the order of the base set."""
    numbers_N = np.flatnonzero(np.isin(split.labels, classes))
    return numbers_N, split.labels[numbers_N]


def build(spec: SequentialSpec, images: ImageSet, seed: int, device: torch.device) -> ClassTasks:
    """Build the tasks of `spec` for `seed` on `device`."""
    classes = spec.classes(seed)
    return ClassTasks(
        images=images,
        train=[chosen(images.train, group) for group in classes],
        test=[chosen(images.test, group) for group in classes],
        classes=classes,
        augmentation=augmentation_of(padding=spec.crop_padding, flip=spec.flip),
        device=device,
        channels=spec.channels,
        pool=spec.pool,
    )
