"""`miniimagenet`, and `tinyimagenet`, a freely available stand-in that takes the same code path.

miniImageNet (Vinyals et al. 2016, arXiv:1606.04080): 100 classes of ImageNet with 600 images of 84x84 pixels each; in
file order, the first 500 of each class are for training and the last 100 for testing. Its terms forbid redistribution.

tinyimagenet: 100 of the 200 classes of Tiny ImageNet (Le & Yang, CS231n, 2015), 64x64 pixels, 100 training and 20 test
images per class. It is not miniImageNet, and its results are never reported as such.

Both are read from Parquet, from the pickled caches of the few-shot literature, or from one folder per class.
"""

from __future__ import annotations

from crwn.data.base import BaseSet
from crwn.data.layouts import ClassFolders, ParquetFiles, PickledArrays
from crwn.data.photographs import Photographs

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""The customary mean and standard deviation of ImageNet."""


def _base(name: str, folder: str, size: int, train_each: int, test_each: int) -> BaseSet:
    shape = (3, size, size)
    return BaseSet(
        name=name,
        image_shape=shape,
        train_counts=(train_each,) * 100,
        test_counts=(test_each,) * 100,
        mean=MEAN,
        std=STD,
        source=Photographs(
            image_shape=shape,
            num_classes=100,
            train_each=train_each,
            test_each=test_each,
            layouts=(
                ParquetFiles(folder=folder, image="image", label="wnid"),
                PickledArrays(folder=folder),
                ClassFolders(folder=folder),
            ),
        ),
    )


MINI_IMAGENET = _base("miniimagenet", "miniimagenet", size=84, train_each=500, test_each=100)
TINY_IMAGENET = _base("tinyimagenet", "tiny_imagenet_100", size=64, train_each=100, test_each=20)
