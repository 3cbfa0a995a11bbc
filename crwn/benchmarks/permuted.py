"""Permuted images (P-MNIST over `mnist`): task t shows every image with its pixels in one fixed random order.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), 100 tasks. All permutations are random, the first too; training and test
images share them; the seed alone fixes them. Permuting bytes and then normalising equals normalising and then
permuting, since every pixel is normalised by the same two numbers.

Without the task's identity (the preset `p-mnist-domain`): 20 tasks, pixels from 0 to 1, as github.com/aimagelab/mammoth
has its perm-mnist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn import seeding
from crwn.benchmarks.pixels import PixelMap, PixelTasks, check_tests_ahead, problem_of_maps
from crwn.benchmarks.specs import check_first, normalisation_of
from crwn.benchmarks.validation import check_validation
from crwn.data import GreyBase
from crwn.spec import READ_STRICTLY, Count, Index, ProblemShape, check_fields, kind_field, later_field

if TYPE_CHECKING:
    import torch

    from crwn.data.base import ImageSet, Normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class PermutedSpec:
    """Permuted images.

    Attributes:
        base: the base data set.
        num_tasks: the number of permutations.
        validation: training images held out; tests are then on them, never on the test images.
        first: only the first so many tasks of the sequence; 0 for all.
        task_known: whether a method is told which task it learns and is tested on.
        normalise: by the base set's mean and deviation, else pixels are numbers from 0 to 1.
        tests_ahead: whether tasks that are not told are also tested before they are learned, for forward transfer.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("permuted")
    base: GreyBase = "mnist"
    num_tasks: Count = 100
    validation: Index = later_field(0)
    first: Index = later_field(0)
    task_known: bool = later_field(True)
    normalise: bool = later_field(True)
    tests_ahead: bool = later_field(False)

    def __post_init__(self) -> None:
        check_fields(self)
        check_validation(self.base, self.validation)
        check_first(self.first, self.num_tasks)
        check_tests_ahead(tests_ahead=self.tests_ahead, task_known=self.task_known)

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
        """Of the images as the networks see them."""
        return normalisation_of(self.base, normalise=self.normalise)


def permutation_map(input_size: int, seed: int, task: int) -> PixelMap:
    """The pixel order of a task: a permutation of [input_size], drawn from (seed, task)."""
    return seeding.numpy_generator(seed, "permutation", task).permutation(input_size)


def build(spec: PermutedSpec, images: ImageSet, seed: int, device: torch.device) -> PixelTasks:
    """The tasks of `spec` at `seed` on `device`."""
    problem = spec.problem()
    return PixelTasks(
        images=images,
        num_tasks=problem.num_tasks,
        pixel_map=lambda task: permutation_map(problem.input_size, seed, task),
        device=device,
    )
