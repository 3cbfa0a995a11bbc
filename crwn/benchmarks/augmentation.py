"""Random crops and flips of whole batches, on the device.

Shapes: X images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch.nn import functional
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """A crop of the original size from the image padded with black pixels, then a horizontal flip.

    Same as torchvision's RandomCrop with padding, then RandomHorizontalFlip, on bytes.

    Attributes:
        padding: pixels on each side; 0: no crop.
        flip: whether to flip images with probability 1/2.
    """

    padding: int
    flip: bool

    def draw(self, generator: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw the augmentation of `count` images: top and left edge of the crop (0 to 2 padding), flip (0 or 1).

        Returns:
            [count, 3].
        """
        edges = generator.integers(0, 2 * self.padding + 1, size=(count, 2))
        flips = generator.integers(0, 1 + self.flip, size=(count, 1))
        return np.concatenate([edges, flips], axis=1)

    def __call__(self, images_XCHW: torch.Tensor, draws_X3: torch.Tensor) -> torch.Tensor:
        """Apply the draws to the images; the shape stays the same."""
        num_images, _, height, width = images_XCHW.shape
        top_X, left_X, flipped_X = draws_X3.unbind(dim=1)
        rows_H, columns_W = (torch.arange(size, device=images_XCHW.device) for size in (height, width))
        columns_XW = torch.where(flipped_X[:, None] == 1, width - 1 - columns_W, columns_W) + left_X[:, None]
        rows_XH = rows_H + top_X[:, None]
        padded = functional.pad(images_XCHW, (self.padding,) * 4)
        # Channels last, so that a gathered pixel is contiguous.
        cropped_XHWC = padded.permute(0, 2, 3, 1)[
            torch.arange(num_images, device=images_XCHW.device)[:, None, None], rows_XH[:, :, None], columns_XW[:, None]
        ]
        return cropped_XHWC.permute(0, 3, 1, 2).contiguous()


def augmentation_of(*, padding: int, flip: bool) -> Augmentation | None:
    """The augmentation for these settings; None if they change nothing."""
    return Augmentation(padding=padding, flip=flip) if padding or flip else None
