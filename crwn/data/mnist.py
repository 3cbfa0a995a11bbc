"""`mnist`: handwritten digits of 28x28 pixels in the four files and the layout that torchvision uses.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE, 1998.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from crwn.data.base import BaseSet, ImageSet, ImageSplit
from crwn.data.verified import VerifiedFiles


def read(root: Path) -> ImageSet:
    """Read the images from `root`/MNIST/raw."""
    from torchvision.datasets import MNIST  # noqa: PLC0415 (costs torch's start-up, and only reading needs it)

    def split(*, train: bool) -> ImageSplit:
        dataset = MNIST(str(root), train=train, download=False)
        return ImageSplit(images=dataset.data.numpy()[:, None], labels=dataset.targets.numpy())

    return ImageSet(train=split(train=True), test=split(train=False))


def download(root: Path) -> None:
    """Have torchvision download MNIST to `root`/MNIST/raw.

    Raises:
        OSError, RuntimeError: it could not be downloaded.
    """
    from torchvision.datasets import MNIST  # noqa: PLC0415 (as above)

    MNIST(str(root), download=True)


MNIST_BASE = BaseSet(
    name="mnist",
    image_shape=(1, 28, 28),
    num_classes=10,
    num_train=60_000,
    num_test=10_000,
    mean=(0.1307,),
    std=(0.3081,),
    source=VerifiedFiles(
        checksums=MappingProxyType(
            {
                "MNIST/raw/train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "MNIST/raw/train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "MNIST/raw/t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "MNIST/raw/t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            }
        ),
        download=download,
        read=read,
    ),
)
