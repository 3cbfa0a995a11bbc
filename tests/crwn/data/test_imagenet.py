"""miniImageNet's three layouts, tested on real photographs that anyone may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from crwn.data import BASE_SETS, Datasets
from crwn.data.imagenet import MINI_IMAGENET, TINY_IMAGENET
from crwn.data.layouts import ClassFolders, ParquetFiles, PickledArrays
from crwn.data.photographs import Photographs


@pytest.mark.parametrize(("base", "size", "each"), [(MINI_IMAGENET, 84, (500, 100)), (TINY_IMAGENET, 64, (100, 20))])
def test_counts_and_sizes_are_the_published_ones(base: object, size: int, each: tuple[int, int]) -> None:
    """A hundred classes; of each the first images train and the last are for testing."""
    assert base in (MINI_IMAGENET, TINY_IMAGENET)
    source = base.source
    assert isinstance(source, Photographs)
    assert source.image_shape == base.image_shape == (3, size, size)
    assert (source.train_each, source.test_each) == each
    assert (base.num_train, base.num_test, base.num_classes) == (100 * each[0], 100 * each[1], 100)
    assert {type(layout) for layout in source.layouts} == {ParquetFiles, PickledArrays, ClassFolders}


def test_neither_is_downloaded() -> None:
    """The terms of ImageNet forbid redistributing its images."""
    for base in (MINI_IMAGENET, TINY_IMAGENET):
        assert isinstance(base.source, Photographs)
        assert base.source.download is None


@pytest.mark.slow(reason="it reads and decodes all of a data set")
@pytest.mark.data
def test_the_stand_in_as_it_is(data_root: Path) -> None:
    """Its counts, and that some of its images are grey and were converted."""
    if not (data_root / "tiny_imagenet_100").is_dir():
        pytest.skip(f"needs the stand-in for miniImageNet: {data_root} has no folder tiny_imagenet_100")
    known = Datasets(BASE_SETS, roots=[data_root])
    assert known.ensure("tinyimagenet") == ("168 images were of mode L and converted to RGB",)
    known.verify("tinyimagenet")
