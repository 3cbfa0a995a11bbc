"""Permuted images (P-MNIST over `mnist`): task t permutes the pixels of every image in one fixed random order.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), 100 tasks. All permutations are random, including the first; training
and test images share them; they depend on the seed alone. Permuting bytes and then normalising equals normalising and
then permuting, since all pixels are normalised by the same two numbers.

Without the task's identity (the preset `p-mnist-domain`): 20 tasks, pixels from 0 to 1, like perm-mnist of
github.com/aimagelab/mammoth.
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
        validation: number of training images held out; tests then use them, never the test images.
        first: number of tasks to keep from the start of the sequence; 0: all.
        task_known: whether the method is told the task, in training and in testing.
        normalise: whether to normalise by the base set's mean and standard deviation; else pixels are from 0 to 1.
        tests_ahead: whether tasks are also tested before they are learned, for forward transfer; only if not told.

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
        """The normalisation of the images."""
        return normalisation_of(self.base, normalise=self.normalise)


def permutation_map(input_size: int, seed: int, task: int) -> PixelMap:
    """The pixel permutation of a task [input_size], drawn from (seed, task)."""
    return seeding.numpy_generator(seed, "permutation", task).permutation(input_size)


def build(spec: PermutedSpec, images: ImageSet, seed: int, device: torch.device) -> PixelTasks:
    """Build the tasks of `spec` for `seed` on `device`."""
    problem = spec.problem()
    return PixelTasks(
        images=images,
        num_tasks=problem.num_tasks,
        pixel_map=lambda task: permutation_map(problem.input_size, seed, task),
        device=device,
    )
