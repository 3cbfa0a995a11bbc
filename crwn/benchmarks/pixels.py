"""Tasks that rearrange the pixels of a base set's images, with one fixed rearrangement per task.

Nearest-neighbour rotation and permutation are both a gather: pixel i of a task's image is pixel `source[i]` of the
original, or zero. One gather of bytes on the device for the whole task replaces all per-image work. Each original is
padded with a zero at the end, to which -1 maps.

Shapes: N images, d = C H W values per image, D = d + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn.benchmarks.protocol import Split
from crwn.data import BASE_SETS
from crwn.faults import InvalidError
from crwn.lazy import LazyModule
from crwn.spec import ProblemShape

if TYPE_CHECKING:
    import torch
    from torch.nn import functional

    from crwn.data.base import ImageSet, ImageSplit
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")

PixelMap: TypeAlias = NDArray[np.int64]
"""[d]: for every pixel of a task's image, the index of its source pixel in the original, or -1 for zero."""


def problem_of_maps(base: str, num_tasks: int, *, validation: int, task_known: bool, tests_ahead: bool) -> ProblemShape:
    """The problem shape of a sequence in which every task uses all images of a base set except those held out."""
    images = BASE_SETS[base]
    return ProblemShape(
        input_shape=images.image_shape,
        num_classes=images.num_classes,
        num_tasks=num_tasks,
        scenario="task" if task_known else "domain",
        segment_sizes=(images.num_train - validation,) * num_tasks,
        tests_ahead=tests_ahead,
    )


def check_tests_ahead(*, tests_ahead: bool, task_known: bool) -> None:
    """Check that tasks can be tested before they are learned.

    Raises:
        ValueError: the task is told, so a test may need tensors of the task that do not exist before it is learned.
    """
    if tests_ahead and task_known:
        raise InvalidError(
            "tests-ahead-of-told-tasks",
            "tests_ahead: expected with `task_known: false`, given true; a told task cannot be tested before it",
        )


class PixelTasks:
    """A benchmark of tasks defined by pixel maps.

    Args:
        images: the base set's images.
        num_tasks: the number of tasks.
        pixel_map: returns the map of a task, given its number.
        device: the device of the tensors.
    """

    def __init__(
        self,
        *,
        images: ImageSet,
        num_tasks: int,
        pixel_map: Callable[[int], PixelMap],
        device: torch.device,
    ) -> None:
        self.num_tasks = self.num_segments = num_tasks
        self.test_every = 0
        self.augmentation = None
        self._pixel_map = pixel_map
        self._device = device
        self._train = _with_zero(images.train, device)
        self._test = _with_zero(images.test, device)
        self._classes = tuple(np.unique(images.train.labels).tolist())

    def num_examples(self, task: int) -> int:
        """Number of training examples of a task: all images."""
        del task
        return self._train.num_examples

    def classes(self, task: int) -> tuple[int, ...]:
        """The labels of a task's training examples."""
        del task
        return self._classes

    def train_split(self, task: int) -> Split:
        """The training examples of a task."""
        return self._rearranged(self._train, task)

    def test_split(self, task: int) -> Split:
        """The test examples of a task."""
        return self._rearranged(self._test, task)

    def mixture(self, tasks: Sequence[int]) -> PixelMixture:
        """The training examples of these tasks as one set."""
        maps_Td = np.stack([self._pixel_map(task) for task in tasks])
        return PixelMixture(self._train, _sources(maps_Td, self._device))

    def _rearranged(self, split: Split, task: int) -> Split:
        source_d = _sources(self._pixel_map(task), self._device)
        # Several times faster than `index_select` on columns.
        return Split(images=split.images.gather(1, source_d.expand(len(split.images), -1)), labels=split.labels)


class PixelMixture:
    """Several tasks' examples as one set: example i is image i mod N under the map of task i div N.

    Args:
        original: the images [N, D] before any map, and their labels.
        sources_Td: for each pixel of a task's images, the index of its source among the D values.
    """

    def __init__(self, original: Split, sources_Td: torch.Tensor) -> None:
        self._original = original
        self._sources_Td = sources_Td
        self.num_examples = len(sources_Td) * len(original.labels)
        self.device = original.device

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples at these indices."""
        task_B = index_B.div(len(self._original.labels), rounding_mode="floor")
        image_B = index_B.remainder(len(self._original.labels))
        originals = self._original.take(image_B)
        source_Bd = self._sources_Td.index_select(0, task_B)
        return Split(images=originals.images.gather(1, source_Bd), labels=originals.labels)


def _with_zero(split: ImageSplit, device: torch.device) -> Split:
    """The images flattened, with a zero at the end: [N, D]."""
    images_Nd = torch.tensor(split.images, device=device).flatten(1)
    return Split(images=functional.pad(images_Nd, (0, 1)), labels=torch.tensor(split.labels, device=device))


def _sources(pixel_map: PixelMap, device: torch.device) -> torch.Tensor:
    """One or several maps as a tensor, with -1 replaced by the index of the zero."""
    return torch.from_numpy(np.where(pixel_map < 0, pixel_map.shape[-1], pixel_map)).to(device)
