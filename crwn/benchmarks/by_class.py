"""Tasks that each use some of a base set's classes; their images are copied from the base set on demand.

Shapes: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn.benchmarks.protocol import Split
from crwn.benchmarks.specs import pooled, with_channels
from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch

    from crwn.benchmarks.augmentation import Augmentation
    from crwn.data.base import ImageSet, ImageSplit
else:
    torch = LazyModule("torch")

Chosen: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Indices of a task's images in the base set, in order [N], and their labels in the task [N]."""


class ClassTasks:
    """A benchmark of such tasks.

    Args:
        images: the base set's images.
        train: each task's training images.
        test: each task's test images.
        classes: each task's labels.
        augmentation: augmentation of the training images; None: none.
        device: the device of the tensors.
        channels: number of channels of a task's images (`with_channels`).
        pool: pixels are means over squares of this size.
    """

    def __init__(
        self,
        *,
        images: ImageSet,
        train: Sequence[Chosen],
        test: Sequence[Chosen],
        classes: Sequence[tuple[int, ...]],
        augmentation: Augmentation | None,
        device: torch.device,
        channels: int = 1,
        pool: int = 1,
    ) -> None:
        self.num_tasks = self.num_segments = len(classes)
        self.test_every = 0
        self.augmentation = augmentation
        self._images = images
        self._train = train
        self._test = test
        self._classes = classes
        self._device = device
        self._channels = channels
        self._pool = pool

    def num_examples(self, task: int) -> int:
        """Number of training examples of a task."""
        return len(self._train[task][0])

    def classes(self, task: int) -> tuple[int, ...]:
        """The labels of a task."""
        return self._classes[task]

    def train_split(self, task: int) -> Split:
        """The training examples of a task."""
        return self._split(self._images.train, self._train[task])

    def test_split(self, task: int) -> Split:
        """The test examples of a task."""
        return self._split(self._images.test, self._test[task])

    def mixture(self, tasks: Sequence[int]) -> Split:
        """The training examples of these tasks as one set."""
        numbers, labels = zip(*(self._train[task] for task in tasks), strict=True)
        return self._split(self._images.train, (np.concatenate(numbers), np.concatenate(labels)))

    def _split(self, split: ImageSplit, chosen: Chosen) -> Split:
        numbers_N, labels_N = chosen
        images_NCHW = pooled(split.images[numbers_N], self._pool)
        return Split(
            images=with_channels(torch.from_numpy(images_NCHW).to(self._device), self._channels),
            labels=torch.from_numpy(labels_N).to(self._device),
        )
