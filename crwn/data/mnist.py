"""`mnist`: handwritten digits of 28x28 pixels, from the four original files, gzipped or not, in any usual folder.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE, 1998.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np

from crwn.data.base import BaseSet, DataError, ImageSet, ImageSplit
from crwn.data.verified import VerifiedFiles, unpacked

IMAGE_SHAPE = (1, 28, 28)
FOLDER = "MNIST/raw"
FOLDERS = (FOLDER, "MNIST", "raw", ".")
"""Folders below a data root in which people keep the files; the first is torchvision's."""
IMAGES_AT, LABELS_AT = 16, 8
"""Offsets of the images and of the labels in IDX files, in bytes."""


def other_names(file: str) -> tuple[str, ...]:
    """The paths at which people keep a file, with `-idx` or `.idx` in its name, in the order of `FOLDERS`."""
    name = Path(file).name
    names = (name, name.replace("-idx", ".idx"))
    return tuple(f"{folder}/{name}" for folder in FOLDERS for name in names)


def read(root: Path) -> ImageSet:
    """Read the images from files that have been verified."""

    def content(name: str) -> bytearray:
        place = SOURCE.place(root, f"{FOLDER}/{name}")
        if place is None:
            raise DataError("file-vanished", f"{root} no longer holds {name}")
        return unpacked(place)

    def split(part: str) -> ImageSplit:
        labels = np.frombuffer(content(f"{part}-labels-idx1-ubyte"), dtype=np.uint8, offset=LABELS_AT)
        images = np.frombuffer(content(f"{part}-images-idx3-ubyte"), dtype=np.uint8, offset=IMAGES_AT)
        return ImageSplit(images=images.reshape(-1, *IMAGE_SHAPE), labels=labels.astype(np.int64))

    return ImageSet(train=split("train"), test=split("t10k"))


def download(root: Path) -> None:
    """Have torchvision download MNIST to `root`/MNIST/raw.

    Raises:
        OSError, RuntimeError: the download failed.
    """
    from torchvision.datasets import MNIST  # noqa: PLC0415 (costs torch's start-up, and only downloading needs it)

    MNIST(str(root), download=True)


SOURCE = VerifiedFiles(
    checksums=MappingProxyType(
        {
            f"{FOLDER}/train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            f"{FOLDER}/train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            f"{FOLDER}/t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            f"{FOLDER}/t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        }
    ),
    download=download,
    read=read,
    other_names=other_names,
)

MNIST_BASE = BaseSet(
    name="mnist",
    image_shape=IMAGE_SHAPE,
    train_counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    test_counts=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    mean=(0.1307,),
    std=(0.3081,),
    source=SOURCE,
)
