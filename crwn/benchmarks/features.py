"""Frozen features in front of a benchmark: the convolutions of AlexNet, with trained weights from a file.

Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv:1404.5997), as in
torchvision, whose weights for ImageNet are `alexnet-owt-7be5be79.pth`. Cho et al. (arXiv:2407.07133) learn on such
features. An image goes in the middle of a black square, which is resized to 224 x 224 and normalised as torchvision
does; five convolutions and three max-pools produce 256 x 6 x 6 non-negative numbers.

Ours: benchmarks provide bytes, so features are scaled such that a share of `COVERED` of those of the first images is at
most 255, then rounded; larger ones are clipped. The features of a set of images are computed once and cached.

Shapes: N images, H height, W width.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crwn.data.base import DataError, cache_root
from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    import torchvision
    from torch.nn import functional

    from crwn.data.base import Images
else:
    torch = LazyModule("torch")
    torchvision = LazyModule("torchvision")
    functional = LazyModule("torch.nn.functional")

FEATURES_SHAPE = (256, 6, 6)
"""The shape of an image's features."""
SIDE = 224
"""Height and width of AlexNet's input, in pixels."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COVERED = 0.999
"""The share of the first images' features that are not clipped."""
AT_ONCE = 50
"""Images per forward pass."""
FORM = 1
"""Version of the rules that turn images into features; raised when they change."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WeightsFile:
    """A file of trained weights, named by its content.

    Attributes:
        network: the network's name, also that of the folder in which the file is looked for first.
        digits: the first hexadecimal digits of the file's SHA-256, with which its name ends, as in torchvision.
    """

    network: str
    digits: str

    @property
    def pattern(self) -> str:
        """The pattern of the file's name."""
        return f"{self.network}-*{self.digits}.pth"

    def find(self, roots: Sequence[Path]) -> Path:
        """Find the file in a data root, in a folder there named after the network, or among torch's downloads.

        Args:
            roots: the data roots, in order.

        Raises:
            DataError: there is none, or its content does not have the checksum in its name.
        """
        folders = [folder for root in roots for folder in (root / self.network, root)]
        folders.append(Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub" / "checkpoints")
        found = next((file for folder in folders for file in sorted(folder.glob(self.pattern))), None)
        if found is None:
            raise DataError(
                "weights-missing",
                f"weights of {self.network!r}: expected a file {self.pattern} in one of these folders, found in none:\n"
                + "".join(f"  {folder}\n" for folder in folders)
                + "Put it there, or name another data root with --data-root or $CRWN_DATA. torchvision downloads its "
                f"own with `torchvision.models.{self.network}(weights='DEFAULT')`; for another file, set `weights` "
                "to the first eight digits of its SHA-256.",
            )
        if not (given := hashlib.sha256(found.read_bytes()).hexdigest()).startswith(self.digits):
            raise DataError(
                "weights-damaged",
                f"{found}: expected a file whose SHA-256 starts with {self.digits}, as its name says, found "
                f"{given[: len(self.digits)]}. Replace it.",
            )
        return found


@runtime_checkable
class ReadsWeights(Protocol):
    """The interface of a benchmark's spec that may require trained weights in addition to a base set."""

    def weights_file(self) -> WeightsFile | None:
        """The required file of weights; None: none."""


def weights_of(benchmark: object) -> WeightsFile | None:
    """The file of weights that a benchmark's spec requires; None: none."""
    return benchmark.weights_file() if isinstance(benchmark, ReadsWeights) else None


def weights_files(benchmarks: Iterable[object]) -> tuple[WeightsFile, ...]:
    """All files of weights that benchmarks' specs require, without duplicates."""
    return tuple(sorted({file for benchmark in benchmarks if (file := weights_of(benchmark)) is not None}))


def alexnet(path: Path) -> torch.nn.Module:
    """AlexNet's convolutions with the weights of a file, in evaluation mode.

    Raises:
        DataError: the file does not hold weights of AlexNet.
    """
    network = torchvision.models.alexnet()
    try:
        network.features.load_state_dict(
            {
                name.removeprefix("features."): tensor
                for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()
                if name.startswith("features.")
            }
        )
    except Exception as error:  # torch.load raises whatever a damaged pickle leads to
        raise DataError("weights-of-another", f"{path}: expected weights of torchvision's AlexNet: {error}") from error
    found: torch.nn.Module = network.features.train(mode=False)
    return found.requires_grad_(requires_grad=False)


def features_of(network: torch.nn.Module, images_N1HW: Images) -> NDArray[np.float32]:
    """The features of grey images as bytes: [N, 256, 6, 6]."""
    found = np.empty((len(images_N1HW), *FEATURES_SHAPE), np.float32)
    height, width = images_N1HW.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    mean_311, std_311 = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        for start in range(0, len(images_N1HW), AT_ONCE):
            pixels = torch.from_numpy(images_N1HW[start : start + AT_ONCE]).float() / 255
            square = functional.pad(pixels, (left, side - width - left, top, side - height - top))
            resized = functional.interpolate(square, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
            found[start : start + AT_ONCE] = network((resized - mean_311) / std_311).numpy()
    return found


def kept_features(images: Sequence[Images], path: Path) -> list[Images]:
    """The features of each set of images as bytes [N, 256, 6, 6], read from the cache or computed.

    Args:
        images: sets of grey images; the first one determines the scale.
        path: the file with AlexNet's weights.
    """
    content = hashlib.sha256(f"{FORM} {path.name}".encode())
    for each in images:
        content.update(repr(each.shape).encode() + np.ascontiguousarray(each).tobytes())
    kept = cache_root() / "features" / f"{content.hexdigest()[:32]}.npy"
    ends = np.cumsum([len(each) for each in images])[:-1]
    with contextlib.suppress(FileNotFoundError, ValueError, EOFError):  # missing or damaged: computed again
        return np.split(np.load(kept), ends)
    network = alexnet(path)
    found: list[Images] = []
    largest = 0.0
    for each in images:
        features = features_of(network, each)
        largest = largest or max(float(np.quantile(features, COVERED)), float(np.finfo(np.float32).tiny))
        found.append(np.rint(np.minimum(features * (255 / largest), 255)).astype(np.uint8))
    _keep(np.concatenate(found), kept)
    return found


def _keep(features: Images, path: Path) -> None:
    """Write features to the cache atomically, if it is writable."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = Path(folder) / path.name
            np.save(written, features)
            written.replace(path)
