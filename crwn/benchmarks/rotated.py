"""Rotated images (R-MNIST over `mnist`): task t rotates every image by t times a fixed angle.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), 36 tasks at multiples of 10 degrees. Counter-clockwise, nearest
neighbour, zero fill, on 8-bit pixels before normalising. The tasks are the same for every seed.

With random angles (the preset `r-mnist-domain`), each task's angle is uniform in [0, 180), drawn from the seed, like
rot-mnist of github.com/aimagelab/mammoth: 20 tasks, without the task's identity, pixels from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.benchmarks.pixels import PixelMap, PixelTasks, check_tests_ahead, problem_of_maps
from crwn.benchmarks.specs import check_first, normalisation_of
from crwn.benchmarks.validation import check_validation
from crwn.data import BASE_SETS, GreyBase
from crwn.faults import InvalidError
from crwn.spec import READ_STRICTLY, Count, Index, PositiveFloat, ProblemShape, check_fields, kind_field, later_field

if TYPE_CHECKING:
    import torch

    from crwn.data.base import ImageSet, Normalisation

STEP_DEGREES = 10.0
RANDOM_BELOW = 180.0
"""Upper bound of random angles, in degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedSpec:
    """Rotated images.

    Attributes:
        base: the base data set.
        num_tasks: the number of rotations; the first is by 0 degrees.
        step_degrees: the angle between consecutive tasks.
        validation: number of training images held out; tests then use them, never the test images.
        first: number of tasks to keep from the start of the sequence; 0: all.
        angles: in equal steps, or random.
        task_known: whether the method is told the task, in training and in testing.
        normalise: whether to normalise by the base set's mean and standard deviation; else pixels are from 0 to 1.
        tests_ahead: whether tasks are also tested before they are learned, for forward transfer; only if not told.

    Raises:
        ValueError: a field is wrong, or the rotations exceed a full turn, so that tasks would repeat.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("rotated")
    base: GreyBase = "mnist"
    num_tasks: Count = 36
    step_degrees: PositiveFloat = STEP_DEGREES
    validation: Index = later_field(0)
    first: Index = later_field(0)
    angles: Literal["steps", "random"] = later_field("steps")
    task_known: bool = later_field(True)
    normalise: bool = later_field(True)
    tests_ahead: bool = later_field(False)

    def __post_init__(self) -> None:
        check_fields(self)
        check_validation(self.base, self.validation)
        check_first(self.first, self.num_tasks)
        check_tests_ahead(tests_ahead=self.tests_ahead, task_known=self.task_known)
        if self.angles == "random":
            if self.step_degrees != STEP_DEGREES:
                raise InvalidError(
                    "step-with-random-angles",
                    f"step_degrees: expected none with random angles, given {self.step_degrees:g}; leave it out",
                )
        elif (self.num_tasks - 1) * self.step_degrees >= 360:
            raise InvalidError(
                "full-turn",
                f"num_tasks and step_degrees: expected rotations below 360 degrees, given {self.num_tasks} tasks by "
                f"{self.step_degrees:g} degrees, up to {(self.num_tasks - 1) * self.step_degrees:g}; lower one of them",
            )

    def problem(self) -> ProblemShape:
        """The benchmark's sizes."""
        return problem_of_maps(
            self.base,
            self.first or self.num_tasks,
            validation=self.validation,
            task_known=self.task_known,
            tests_ahead=self.tests_ahead,
        )

    def normalisation(self) -> Normalisation:
        """The normalisation of the images."""
        return normalisation_of(self.base, normalise=self.normalise)

    def degrees(self, seed: int, task: int) -> float:
        """The angle of a task, in degrees."""
        if self.angles == "random":
            return RANDOM_BELOW * float(seeding.numpy_generator(seed, "angle", task).random())
        return task * self.step_degrees

    def distances(self, seed: int) -> NDArray[np.float64]:
        """The angles between tasks, in degrees from 0 to 180: [T, T]."""
        angles_T = np.array([self.degrees(seed, task) for task in range(self.problem().num_tasks)])
        turns_TT = np.abs(angles_T[:, None] - angles_T) % 360
        nearest_TT: NDArray[np.float64] = np.minimum(turns_TT, 360 - turns_TT)
        return nearest_TT


def rotation_map(height: int, width: int, degrees: float) -> PixelMap:
    """The source of each pixel of an image rotated counter-clockwise, exactly as Pillow rotates.

    Args:
        height: pixels.
        width: pixels.
        degrees: the angle.

    Returns:
        [height * width]; -1 where the rotated image is outside the original.
    """
    from PIL import Image  # noqa: PLC0415 (only building tasks needs it)

    numbered = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    turned = numbered.rotate(degrees, resample=Image.Resampling.NEAREST, fillcolor=-1)
    return np.asarray(turned).reshape(-1).astype(np.int64)


def build(spec: RotatedSpec, images: ImageSet, seed: int, device: torch.device) -> PixelTasks:
    """Build the tasks of `spec` for `seed` on `device`; the seed affects only random angles."""
    _, height, width = BASE_SETS[spec.base].image_shape  # the base sets so far are grey: one channel
    return PixelTasks(
        images=images,
        num_tasks=spec.problem().num_tasks,
        pixel_map=lambda task: rotation_map(height, width, spec.degrees(seed, task)),
        device=device,
    )
