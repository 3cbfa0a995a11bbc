"""Permuted images."""

from __future__ import annotations

import numpy as np
import torch

from crwn.benchmarks.permuted import PermutedSpec, build, permutation_map
from crwn.benchmarks.pixels import PixelTasks
from crwn.data import Datasets
from crwn.data.base import ImageSet, ImageSplit
from crwn.data.digits import DIGITS

CPU = torch.device("cpu")


def numbered_images() -> ImageSet:
    """One training and one test image whose pixels hold their own numbers, so that a task's image shows its map."""
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    split = ImageSplit(images=image, labels=np.zeros(1, dtype=np.int64))
    return ImageSet(train=split, test=split)


def tasks_of(images: ImageSet, seed: int, num_tasks: int = 4) -> PixelTasks:
    return build(PermutedSpec(base="digits", num_tasks=num_tasks), images, seed, CPU)


def maps_of(seed: int, num_tasks: int = 4) -> list[list[int]]:
    tasks = tasks_of(numbered_images(), seed, num_tasks)
    return [tasks.train_split(task).images[0].tolist() for task in range(num_tasks)]


def test_every_task_is_a_permutation_of_all_pixels() -> None:
    """No pixel is lost or doubled."""
    assert all(sorted(shown) == list(range(64)) for shown in maps_of(seed=0))


def test_the_first_task_is_permuted_too() -> None:
    """All permutations are random, none is the identity, and no two are alike."""
    shown = maps_of(seed=0, num_tasks=20)
    assert list(range(64)) not in shown
    assert len({tuple(pixels) for pixels in shown}) == 20


def test_training_and_test_images_share_the_permutation() -> None:
    """A task's training and test images have the same permutation."""
    tasks = tasks_of(numbered_images(), seed=0)
    for task in range(4):
        assert torch.equal(tasks.train_split(task).images, tasks.test_split(task).images)


def test_the_seed_alone_fixes_the_permutations() -> None:
    """Equal at equal seeds, whatever the number of tasks; at another seed all are others."""
    assert maps_of(seed=3, num_tasks=4) == maps_of(seed=3, num_tasks=9)[:4]
    assert all(one != other for one, other in zip(maps_of(seed=3), maps_of(seed=4), strict=True))


def test_neighbouring_seeds_share_no_permutation() -> None:
    """Of the 400 permutations of four seeds no two are alike, also not those of neighbouring tasks and seeds."""
    drawn = {permutation_map(784, seed, task).tobytes() for seed in range(4) for task in range(100)}
    assert len(drawn) == 400


def test_permuting_bytes_is_permuting_what_the_network_sees(digits: Datasets) -> None:
    """Normalising and then permuting, as the paper does, equals permuting and then normalising, bit for bit."""
    images = digits.load("digits")
    tasks = tasks_of(images, seed=0)
    upright = torch.from_numpy(images.test.images).flatten(1)
    for task in range(4):
        permuted_last = DIGITS.normalisation(upright, torch.float32)[:, permutation_map(64, 0, task)]
        permuted_first = DIGITS.normalisation(tasks.test_split(task).images, torch.float32)
        assert torch.equal(permuted_first, permuted_last)


def test_labels_stay_with_their_images(digits: Datasets) -> None:
    """Only pixels move: undoing the permutation restores the image, with the same label."""
    images = digits.load("digits")
    split = tasks_of(images, seed=0).train_split(2)
    undone = np.empty_like(split.images.numpy())
    undone[:, permutation_map(64, 0, 2)] = split.images.numpy()
    assert np.array_equal(undone, images.train.images.reshape(-1, 64))
    assert np.array_equal(split.labels.numpy(), images.train.labels)
