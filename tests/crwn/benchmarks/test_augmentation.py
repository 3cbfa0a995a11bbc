"""Random crops and flips of a batch, against torchvision's own transforms image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crwn.benchmarks.augmentation import Augmentation


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (40, 1, 8, 8), (40, 3, 5, 7)])
@pytest.mark.parametrize(("padding", "flip"), [(4, True), (4, False), (0, True), (2, True)])
def test_a_batch_is_changed_as_torchvision_changes_each_image(
    shape: tuple[int, ...], padding: int, *, flip: bool
) -> None:
    """With the same draws: zero padding, a crop of the image's size, then a horizontal flip; byte for byte."""
    from torchvision.transforms import functional

    augmentation, batch = Augmentation(padding=padding, flip=flip), images(*shape)
    draws = augmentation.draw(np.random.default_rng(1), len(batch))
    expected = []
    for image, (top, left, flipped) in zip(batch, draws.tolist(), strict=True):
        cropped = functional.crop(functional.pad(image, [padding] * 4), top, left, *shape[2:])
        expected.append(functional.hflip(cropped) if flipped else cropped)
    changed = augmentation(batch, torch.from_numpy(draws))
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, torch.stack(expected))


def test_draws_are_uniform_and_independent() -> None:
    """Each offset from 0 to 8 is equally likely, half of the images are flipped, and the two are independent."""
    draws = Augmentation(padding=4, flip=True).draw(np.random.default_rng(0), 90_000)
    for column in (0, 1):
        counts = np.bincount(draws[:, column], minlength=9)
        assert len(counts) == 9
        assert np.all(np.abs(counts - 10_000) < 500)
    assert abs(draws[:, 2].mean() - 0.5) < 0.01
    assert np.all(np.abs(np.corrcoef(draws.T) - np.eye(3)) < 0.015)


def test_without_crops_or_flips_nothing_of_it_changes() -> None:
    """With no padding the edges are 0, and without flips none is flipped."""
    draws = Augmentation(padding=0, flip=False).draw(np.random.default_rng(0), 100)
    assert not draws.any()
    batch = images(100, 3, 8, 8)
    assert torch.equal(Augmentation(padding=0, flip=False)(batch, torch.from_numpy(draws)), batch)


def test_the_images_given_stay_as_they_are() -> None:
    """Augmenting a batch leaves the task's images unchanged."""
    batch = images(10, 3, 8, 8)
    before, augmentation = batch.clone(), Augmentation(padding=2, flip=True)
    augmentation(batch, torch.from_numpy(augmentation.draw(np.random.default_rng(0), 10)))
    assert torch.equal(batch, before)
