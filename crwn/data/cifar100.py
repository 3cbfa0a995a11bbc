"""`cifar100`: colour photographs of 32x32 pixels, 100 classes, 500 training and 100 test images of each.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of
Toronto, 2009. Mean and deviation as the CRWN paper's baselines have them. Read from Parquet files with the columns of
the Hugging Face hub's copy, or from torchvision's own folder, which torchvision can download.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crwn.data.base import BaseSet, DataError
from crwn.data.layouts import ParquetFiles, Picture
from crwn.data.photographs import Photographs


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionFolder:
    """What `torchvision.datasets.CIFAR100` keeps, which verifies it before it reads it."""

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
                raise DataError(f"{file.parent} is damaged: {error}. Remove it to have it fetched again.") from error
            found += [
                Picture(place=f"{file}, image {number}", class_name=label, content=image)
                for number, (image, label) in enumerate(zip(dataset.data, dataset.targets, strict=True))
            ]
        return found


def download(root: Path) -> None:
    """Have torchvision download CIFAR-100 to `root`/cifar-100-python.

    Raises:
        OSError, RuntimeError: it could not be downloaded.
    """
    from torchvision.datasets import CIFAR100  # noqa: PLC0415 (as above)

    CIFAR100(str(root), download=True)


CIFAR100_BASE = BaseSet(
    name="cifar100",
    image_shape=(3, 32, 32),
    num_classes=100,
    num_train=50_000,
    num_test=10_000,
    mean=(0.491, 0.482, 0.447),
    std=(0.247, 0.243, 0.262),
    source=Photographs(
        image_shape=(3, 32, 32),
        num_classes=100,
        train_each=500,
        test_each=100,
        layouts=(ParquetFiles(folder="cifar100", image="img", label="fine_label"), TorchvisionFolder()),
        decoded="ba0c7776d6e8fecdd1b8de11fa7d03101e090e1f8a296e4d724b53cb77efd9d4",
        download=download,
    ),
)
