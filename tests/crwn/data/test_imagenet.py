"""miniImageNet's three forms, tried on real photographs that anyone may use."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crwn.data import BASE_SETS, Datasets
from crwn.data.imagenet import MINI_IMAGENET, TINY_IMAGENET
from crwn.data.layouts import ClassFolders, ParquetFiles, PickledArrays
from crwn.data.photographs import Photographs
from tests.crwn.data.conftest import write_class_dict


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
    """The terms of ImageNet forbid passing its images on."""
    for base in (MINI_IMAGENET, TINY_IMAGENET):
        assert isinstance(base.source, Photographs)
        assert base.source.download is None


@pytest.mark.data
def test_real_photographs_are_the_same_in_every_form(data_root: Path, tmp_path: Path) -> None:
    """Ten classes of the stand-in as JPEG in Parquet and in folders, and as pixels in a pickle: the same arrays."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    if not (data_root / "tiny_imagenet_100").is_dir():
        pytest.skip(f"needs the stand-in for miniImageNet: {data_root} has no folder tiny_imagenet_100")
    assert isinstance(TINY_IMAGENET.source, Photographs)
    ten = dataclasses.replace(TINY_IMAGENET.source, num_classes=10)
    roots = {form: tmp_path / form for form in ("Parquet", "folders", "pickles")}
    folders = {form: root / "tiny_imagenet_100" for form, root in roots.items()}
    for folder in folders.values():
        folder.mkdir(parents=True)
    classes: dict[str, list[np.ndarray]] = {}
    for part in ("train", "test"):
        name = f"{part}-00000-of-00001.parquet"
        table = parquet.read_table(data_root / "tiny_imagenet_100" / name, filters=pc.field("label") < 10)
        parquet.write_table(table, folders["Parquet"] / name)
        for number, row in enumerate(table.to_pylist()):
            path = folders["folders"] / part / row["wnid"] / f"{number:05d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["image"]["bytes"])
            classes.setdefault(row["wnid"], []).append(np.asarray(Image.open(path).convert("RGB")))
    # The test images come last, as everywhere: 120 images a class.
    write_class_dict(folders["pickles"], classes, train_each=100)
    sets = {form: ten.load(root) for form, root in roots.items()}
    for part in ("train", "test"):
        parquet_images = getattr(sets["Parquet"], part).images
        assert len(parquet_images) == 10 * (100 if part == "train" else 20)
        for form in ("folders", "pickles"):
            assert np.array_equal(getattr(sets[form], part).images, parquet_images)


@pytest.mark.data
def test_the_stand_in_as_it_is(data_root: Path) -> None:
    """Its counts, and that some of its images are grey and were converted."""
    if not (data_root / "tiny_imagenet_100").is_dir():
        pytest.skip(f"needs the stand-in for miniImageNet: {data_root} has no folder tiny_imagenet_100")
    known = Datasets(BASE_SETS, roots=[data_root])
    assert known.ensure("tinyimagenet") == ("168 images were of mode L and converted to RGB",)
    known.verify("tinyimagenet")
