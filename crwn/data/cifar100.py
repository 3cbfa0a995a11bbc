"""`cifar100`: colour photographs of 32x32 pixels; 100 classes, each with 500 training and 100 test images.

The classes are in 20 super-classes of five.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of
Toronto, 2009. Mean and standard deviation are those of the CRWN paper's baselines.

Read from Parquet files with the columns of the Hugging Face hub's copy, from torchvision's own folder, which
torchvision can download, or from its archive.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from crwn.data.base import BaseSet, DataError
from crwn.data.layouts import ParquetFiles, Picture, read_pickle
from crwn.data.listing import reason
from crwn.data.photographs import Photographs

MAX_MEMBER = 2**28
"""Limit of one file in the archive, in bytes; 50,000 images of 3,072 bytes take 154 million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionFolder:
    """The folder that `torchvision.datasets.CIFAR100` keeps; torchvision verifies it before reading."""

    folder = "cifar-100-python"

    @property
    def expected(self) -> str:
        """The folder."""
        return f"{self.folder}/train, test and meta, as torchvision.datasets.CIFAR100 downloads them"

    def files(self, root: Path) -> list[Path]:
        """The two files of images."""
        files = [root / self.folder / part for part in ("train", "test")]
        return files if all(file.is_file() for file in files) else []

    def pictures(self, root: Path) -> list[Picture]:
        """Training images first."""
        from torchvision.datasets import CIFAR100  # noqa: PLC0415 (costs torch's start-up, and only reading needs it)

        found = []
        for train, file in zip((True, False), self.files(root), strict=True):
            try:
                dataset = CIFAR100(str(root), train=train, download=False)
            except RuntimeError as error:
                raise DataError(
                    "archive-damaged", f"{file.parent} is damaged: {error}. Remove it to have it fetched again."
                ) from error
            found += _pictures(file, dataset.data, dataset.targets)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFolder:
    """The archive that its authors publish and torchvision downloads; read without running any code in it."""

    archive = "cifar-100-python.tar.gz"

    @property
    def expected(self) -> str:
        """The archive."""
        return f"{self.archive}, as it is downloaded"

    def files(self, root: Path) -> list[Path]:
        """The archive."""
        return [root / self.archive] if (root / self.archive).is_file() else []

    def pictures(self, root: Path) -> list[Picture]:
        """Training images first."""
        (file,) = self.files(root)
        found = []
        for part in ("train", "test"):
            name = f"{TorchvisionFolder.folder}/{part}"
            content = read_pickle(file / name, self._content(file, name))
            fields = content if isinstance(content, dict) else {}
            data, labels = np.asarray(fields.get("data")), fields.get("fine_labels")
            is_whole = data.dtype == np.uint8 and data.shape[1:] == (3072,)
            if not is_whole or not isinstance(labels, list) or len(labels) != len(data):
                raise DataError("arrays-missing", f"{file}: {name} holds no data [N, 3072] with as many fine_labels")
            images_NHWC = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            found += _pictures(file / name, images_NHWC, labels)
        return found

    @staticmethod
    def _content(file: Path, name: str) -> BinaryIO:
        """A member of the archive, unpacked into memory."""
        try:
            with tarfile.open(file) as archive:
                member = archive.extractfile(name)
                if member is None:
                    raise KeyError(f"{name} is no file")
                content = member.read(MAX_MEMBER + 1)
        except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError) as error:
            raise DataError(
                "archive-damaged", f"{file} is damaged: {reason(error)}. Remove it to have it fetched again."
            ) from error
        if len(content) > MAX_MEMBER:
            raise DataError("unpacks-too-large", f"{file} is damaged: {name} has more than {MAX_MEMBER} bytes")
        return io.BytesIO(content)


def _pictures(file: Path, images: Iterable[NDArray[np.uint8]], labels: Sequence[int]) -> list[Picture]:
    return [
        Picture(place=f"{file}, image {number}", origin=file, class_name=label, content=image)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def download(root: Path) -> None:
    """Have torchvision download CIFAR-100 to `root`/cifar-100-python.

    Raises:
        OSError, RuntimeError: the download failed.
    """
    from torchvision.datasets import CIFAR100  # noqa: PLC0415 (as above)

    CIFAR100(str(root), download=True)


SUPERCLASSES = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1),
    *(10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12),
    *(12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0),
    *(17, 8, 14, 13),
)
"""The super-class of each class, the coarse label of each fine one: both in alphabetical order, as in the files."""

CIFAR100_BASE = BaseSet(
    name="cifar100",
    image_shape=(3, 32, 32),
    train_counts=(500,) * 100,
    test_counts=(100,) * 100,
    mean=(0.491, 0.482, 0.447),
    std=(0.247, 0.243, 0.262),
    superclasses=SUPERCLASSES,
    source=Photographs(
        image_shape=(3, 32, 32),
        num_classes=100,
        train_each=500,
        test_each=100,
        layouts=(ParquetFiles(folder="cifar100", image="img", label="fine_label"), TorchvisionFolder(), PackedFolder()),
        decoded="ba0c7776d6e8fecdd1b8de11fa7d03101e090e1f8a296e4d724b53cb77efd9d4",
        download=download,
    ),
)
