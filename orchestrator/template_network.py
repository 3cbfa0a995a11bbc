"""Mine: a small vision transformer. Describe yours here: the paper it is from, and where it deviates.

A network is a `torch.nn.Module` and a name, below, which sweeps use in place of a scale. Everything that it learns or
updates is a parameter or a buffer. It draws its initial values and dropout masks from torch's global generator, which
crwn seeds from the trial's seed.

Shapes: B images, C channels, H height, W width, m classes; T patches, D width.
"""

from __future__ import annotations

import torch
from torch import nn


class Mine(nn.Module):
    """Patches of 4 x 4 pixels through a transformer; the mean over the patches is classified.

    Args:
        image: channels, height and width of an image.
        num_classes: number of class scores.
    """

    def __init__(self, image: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image
        self.patches = nn.Conv2d(channels, 64, kernel_size=4, stride=4)
        self.places = nn.Parameter(0.02 * torch.randn((height // 4) * (width // 4), 64))
        layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=128, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores [B, m] of normalised images [B, C, H, W]."""
        hidden_BTD = self.patches(images).flatten(2).mT + self.places
        scores: torch.Tensor = self.head(self.encoder(hidden_BTD).mean(dim=1))
        return scores


NETWORKS = {"mine": Mine}
