"""Validation splits: training images held out for choosing settings, so that no choice depends on a test image."""

from __future__ import annotations

import numpy as np

from crwn import seeding
from crwn.data import BASE_SETS
from crwn.data.base import ImageSet, ImageSplit
from crwn.faults import InvalidError

SPLIT_SEED = 0
"""The same images are held out for every seed of a trial, so that settings are compared on equal terms."""


def check_validation(base: str, count: int) -> None:
    """Check that some images are left to train on.

    Raises:
        ValueError: none would be left.
    """
    num_train = BASE_SETS[base].num_train
    if count >= num_train:
        raise InvalidError(
            "validation-takes-all",
            f"validation: expected fewer than the {num_train} training images of {base!r}, given {count}; "
            "the rest is trained on",
        )


def left_of_each(base: str, validation: int) -> tuple[int, ...]:
    """Number of training images per class after the hold-out, known without the data.

    The images held out are random, so these are expected numbers, rounded so that their sum is correct.

    Args:
        base: the base data set.
        validation: number of training images held out.
    """
    known = BASE_SETS[base]
    ends = np.cumsum(known.train_counts) * (known.num_train - validation) / known.num_train
    return tuple(np.diff(np.rint(ends).astype(int), prepend=0).tolist())


def hold_out(images: ImageSet, count: int) -> ImageSet:
    """Replace the test images by `count` training images, drawn at random and removed from the training images."""
    if not count:
        return images
    order_N = seeding.numpy_generator(SPLIT_SEED, "validation").permutation(len(images.train.labels))

    def part(chosen: slice) -> ImageSplit:
        return ImageSplit(images=images.train.images[order_N[chosen]], labels=images.train.labels[order_N[chosen]])

    return ImageSet(train=part(slice(count, None)), test=part(slice(count)))
