"""Tasks that show the images of a base set with their pixels rearranged, one fixed rearrangement a task.

A nearest-neighbour rotation and a permutation are both a gather: pixel i of a task's image is pixel `source[i]` of the
original, or zero. Gathering bytes on the device for a whole task at once replaces any per-image work.

Shapes: N images, d = C H W numbers an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn.benchmarks.protocol import Split
from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch

    from crwn.data.base import ImageSet, ImageSplit
else:
    torch = LazyModule("torch")

PixelMap: TypeAlias = NDArray[np.int64]
"""[d]: for every pixel of a task's image, the pixel of the original that it shows, or -1 for zero."""


class PixelTasks:
    """A benchmark made of pixel maps.

    Args:
        images: the base set's images.
        num_tasks: the number of tasks.
        pixel_map: the map of a task, by its number.
        device: where the tensors live.
    """

    def __init__(
        self,
        *,
        images: ImageSet,
        num_tasks: int,
        pixel_map: Callable[[int], PixelMap],
        device: torch.device,
    ) -> None:
        self.num_tasks = num_tasks
        self.augmentation = None
        self._pixel_map = pixel_map
        self._train = _to_device(images.train, device)
        self._test = _to_device(images.test, device)

    def train_split(self, task: int) -> Split:
        """The training examples of a task."""
        return self._rearranged(self._train, task)

    def test_split(self, task: int) -> Split:
        """The test examples of a task."""
        return self._rearranged(self._test, task)

    def mixture(self, tasks: Sequence[int]) -> PixelMixture:
        """The training examples of these tasks as one set."""
        maps_Td = np.stack([self._pixel_map(task) for task in tasks])
        return PixelMixture(self._train, torch.from_numpy(maps_Td).to(self._train.images.device))

    def _rearranged(self, split: Split, task: int) -> Split:
        source_d = torch.from_numpy(self._pixel_map(task)).to(split.images.device)
        images_Nd = split.images.index_select(1, source_d.clamp_min(0))
        images_Nd[:, source_d < 0] = 0
        return Split(images=images_Nd, labels=split.labels)


class PixelMixture:
    """Several tasks' examples as one set: example i is image i mod N under the map of task i div N.

    Args:
        original: the images [N, d] before any map.
        maps_Td: each task's pixel map.
    """

    def __init__(self, original: Split, maps_Td: torch.Tensor) -> None:
        self._original = original
        self._maps_Td = maps_Td
        self.num_examples = len(maps_Td) * len(original.labels)

    def take(self, index_B: torch.Tensor) -> Split:
        """The examples with these numbers."""
        task_B = index_B.div(len(self._original.labels), rounding_mode="floor")
        image_B = index_B.remainder(len(self._original.labels))
        source_Bd = self._maps_Td.index_select(0, task_B)
        images_Bd = self._original.images.index_select(0, image_B).gather(1, source_Bd.clamp_min(0))
        return Split(images=images_Bd.masked_fill_(source_Bd < 0, 0), labels=self._original.labels[image_B])


def _to_device(split: ImageSplit, device: torch.device) -> Split:
    return Split(
        images=torch.tensor(split.images, device=device).flatten(1),
        labels=torch.tensor(split.labels, device=device),
    )
