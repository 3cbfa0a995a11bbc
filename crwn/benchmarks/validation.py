"""A validation split: training images held out, to choose settings by, so that no choice ever sees a test image."""

from __future__ import annotations

import numpy as np

from crwn import seeding
from crwn.data import BASE_SETS
from crwn.data.base import ImageSet, ImageSplit

SPLIT_SEED = 0
"""The same images are held out at every seed of a trial: settings are compared on equal terms."""


def check_validation(base: str, count: int) -> None:
    """Check that some images are left to train on.

    Raises:
        ValueError: none would be.
    """
    num_train = BASE_SETS[base].num_train
    if count >= num_train:
        raise ValueError(
            f"validation: expected fewer than the {num_train} training images of {base!r}, given {count}; "
            "the rest is trained on"
        )


def left_of_each(base: str, validation: int) -> tuple[int, ...]:
    """Training images of each class that are left to train on, known without data.

    Which images are held out is left to chance: where some are, these are the expected numbers, rounded so that their
    sum is right.

    Args:
        base: the base data set.
        validation: training images held out.
    """
    known = BASE_SETS[base]
    ends = np.cumsum(known.train_counts) * (known.num_train - validation) / known.num_train
    return tuple(np.diff(np.rint(ends).astype(int), prepend=0).tolist())


def hold_out(images: ImageSet, count: int) -> ImageSet:
    """The images with `count` of the training images, drawn at random, in the place of the test images."""
    if not count:
        return images
    order_N = seeding.numpy_generator(SPLIT_SEED, "validation").permutation(len(images.train.labels))

    def part(chosen: slice) -> ImageSplit:
        return ImageSplit(images=images.train.images[order_N[chosen]], labels=images.train.labels[order_N[chosen]])

    return ImageSet(train=part(slice(count, None)), test=part(slice(count)))
