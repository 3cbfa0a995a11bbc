"""The embedded digits."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from crwn.data import Datasets
from crwn.data.digits import DIGITS


def test_shapes_types_and_counts_are_as_declared(digits: Datasets) -> None:
    """What is known without the images agrees with the images."""
    images = digits.load("digits")
    for split, counts in ((images.train, DIGITS.train_counts), (images.test, DIGITS.test_counts)):
        num = sum(counts)
        assert split.images.shape == (num, *DIGITS.image_shape)
        assert split.images.dtype == np.uint8
        assert split.labels.shape == (num,)
        assert split.labels.dtype == np.int64
        assert tuple(np.bincount(split.labels)) == counts
    assert (DIGITS.num_train, DIGITS.num_test, DIGITS.num_classes) == (1437, 360, 10)


def test_mean_and_deviation_are_those_of_the_training_pixels(digits: Datasets) -> None:
    """To the four digits declared."""
    pixels = digits.load("digits").train.images / 255
    assert round(pixels.mean(), 4) == DIGITS.mean[0]
    assert round(pixels.std(), 4) == DIGITS.std[0]


def test_every_fifth_image_is_a_test_image(digits: Datasets) -> None:
    """The test images are numbers 0, 5, 10 ... of the file, the training images all others, in the file's order."""
    images = digits.load("digits")
    grey, labels = load_digits(return_X_y=True)
    place = [index for index in range(1797) if index % 5 != 0]
    assert np.array_equal(images.test.labels, labels[::5])
    assert np.array_equal(images.train.labels, labels[place])
    assert np.array_equal(images.test.images[:, 0].reshape(-1, 64), np.round(grey[::5] * 255 / 16))
    assert np.array_equal(images.train.images[:, 0].reshape(-1, 64), np.round(grey[place] * 255 / 16))


def test_the_whole_range_of_a_byte_is_used(digits: Datasets) -> None:
    """The darkest of the 17 grey levels is 0 and the brightest 255."""
    images = digits.load("digits").train.images
    assert images.min() == 0
    assert images.max() == 255
    assert len(np.unique(images)) == 17
