"""MNIST as it is, where its files are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crwn.data import BASE_SETS, Datasets
from crwn.data.base import ImageSet
from crwn.data.mnist import MNIST_BASE

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def root(data_root: Path) -> Path:
    """The data root, if it holds MNIST."""
    if not (data_root / "MNIST").is_dir():
        pytest.skip(f"needs MNIST: {data_root} has no folder MNIST")
    return data_root


def times(root: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [root, *(root / "MNIST").rglob("*")]}


@pytest.fixture(scope="module")
def images(root: Path) -> ImageSet:
    """MNIST, loaded once, after which its folder must be as it was."""
    before = times(root)
    known = Datasets(BASE_SETS, roots=[root])
    known.ensure("mnist")
    images = known.load("mnist")
    assert times(root) == before
    return images


def test_shapes_types_and_counts_are_as_declared(images: ImageSet) -> None:
    """60,000 training and 10,000 test images of 28x28 bytes with labels 0 to 9."""
    for split, num in ((images.train, 60_000), (images.test, 10_000)):
        assert split.images.shape == (num, 1, 28, 28)
        assert split.images.dtype == np.uint8
        assert split.labels.shape == (num,)
        assert split.labels.dtype == np.int64
        assert set(split.labels.tolist()) == set(range(10))
    assert (MNIST_BASE.num_train, MNIST_BASE.num_test) == (60_000, 10_000)
    assert MNIST_BASE.image_shape == (1, 28, 28)


def test_mean_and_deviation_are_the_published_ones(images: ImageSet) -> None:
    """.1307 and .3081 of the training pixels, to four digits."""
    pixels = images.train.images
    mean = pixels.mean(dtype=np.float64) / 255
    deviation = ((pixels.astype(np.float32) ** 2).mean(dtype=np.float64) / 255**2 - mean**2) ** 0.5
    assert (MNIST_BASE.mean, MNIST_BASE.std) == ((0.1307,), (0.3081,))
    assert round(mean, 4) == 0.1307
    assert round(deviation, 4) == 0.3081


def test_the_order_is_that_of_the_files(images: ImageSet) -> None:
    """The first training images show 5 0 4 1 9, the first test images 7 2 1 0 4, as in every copy of MNIST."""
    assert images.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
