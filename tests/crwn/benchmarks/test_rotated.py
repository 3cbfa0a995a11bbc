"""Rotated images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from crwn.benchmarks.rotated import RotatedSpec, build, rotation_map
from crwn.data import Datasets
from crwn.faults import InvalidError
from tests.refusals import refused

ANGLES = (0, 10, 45, 90, 130, 180, 270, 350)
CPU = torch.device("cpu")


def rotated_by_pillow(images: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate each grey image with Pillow: nearest neighbour, zero fill."""
    turned = [Image.fromarray(image).rotate(degrees, resample=Image.Resampling.NEAREST) for image in images]
    return np.stack([np.asarray(image) for image in turned])


@pytest.mark.parametrize("degrees", ANGLES)
def test_a_task_shows_every_image_as_pillow_rotates_it(digits: Datasets, degrees: int) -> None:
    """All test and a part of the training digits, pixel by pixel, in a benchmark whose second task has this angle."""
    images = digits.load("digits")
    spec = RotatedSpec(base="digits", num_tasks=2, step_degrees=degrees or 90)
    task = 1 if degrees else 0
    tasks = build(spec, images, 0, CPU)
    for split, original in ((tasks.test_split(task), images.test), (tasks.train_split(task), images.train)):
        expected = rotated_by_pillow(original.images[:360, 0], degrees)
        assert np.array_equal(split.images[:360].numpy().reshape(-1, 8, 8), expected)
        assert np.array_equal(split.labels.numpy(), original.labels)


@pytest.mark.parametrize("degrees", [*range(0, 360, 10), 12.5])
def test_the_map_is_pillows_at_the_size_of_mnist(degrees: float) -> None:
    """Random bytes of 28x28 rotated by Pillow equal those gathered by the map, with 0 where the map says -1."""
    image = np.random.default_rng(0).integers(1, 256, size=(28, 28), dtype=np.uint8)
    source = rotation_map(28, 28, degrees)
    gathered = np.where(source < 0, 0, image.reshape(-1)[source])
    assert np.array_equal(gathered.reshape(28, 28), rotated_by_pillow(image[None], degrees)[0])


def test_rotation_is_counter_clockwise(digits: Datasets) -> None:
    """A quarter turn is `torch.rot90`, which turns the first axis towards the second: counter-clockwise on a screen."""
    tasks = build(RotatedSpec(base="digits", num_tasks=4, step_degrees=90), digits.load("digits"), 0, CPU)
    upright = tasks.test_split(0).images.view(-1, 8, 8)
    for task in range(4):
        turned = tasks.test_split(task).images.view(-1, 8, 8)
        assert torch.equal(turned, torch.rot90(upright, task, dims=(1, 2)))


def test_the_first_task_is_upright(digits: Datasets) -> None:
    """Task 0 shows the images as they are."""
    images = digits.load("digits")
    tasks = build(RotatedSpec(base="digits"), images, 0, CPU)
    assert np.array_equal(tasks.train_split(0).images.numpy(), images.train.images.reshape(-1, 64))


def test_the_map_of_an_oblong_image_keeps_its_shape() -> None:
    """Half a turn of 2x3 pixels reverses them; a quarter turn keeps 2x3 and fills what comes from outside."""
    assert rotation_map(2, 3, 180).tolist() == [5, 4, 3, 2, 1, 0]
    quarter = rotation_map(2, 3, 90)
    numbered = Image.fromarray(np.arange(1, 7, dtype=np.uint8).reshape(2, 3))
    assert (quarter + 1).tolist() == np.asarray(numbered.rotate(90)).reshape(-1).tolist()


def test_the_tasks_are_the_same_at_every_seed(digits: Datasets) -> None:
    """The seed determines networks and orders, not rotations."""
    images, spec = digits.load("digits"), RotatedSpec(base="digits", num_tasks=5)
    one, other = build(spec, images, 0, CPU), build(spec, images, 1, CPU)
    for task in range(5):
        assert torch.equal(one.test_split(task).images, other.test_split(task).images)
        assert torch.equal(one.train_split(task).images, other.train_split(task).images)
    everything = torch.arange(5 * 1437)
    mixtures = [tasks.mixture(range(5)).take(everything).images for tasks in (one, other)]
    assert torch.equal(*mixtures)


@pytest.mark.parametrize(
    ("num_tasks", "step_degrees", "up_to"),
    [(37, 10, 360), (2, 360, 360), (36, 12.5, 437.5)],
)
def test_rotations_that_repeat_are_refused(num_tasks: int, step_degrees: float, up_to: float) -> None:
    """A task with the same rotation as an earlier one would not be a new task."""
    with refused(InvalidError, "full-turn", says=[str(num_tasks), f"{step_degrees:g} degrees", f"up to {up_to:g}"]):
        RotatedSpec(num_tasks=num_tasks, step_degrees=step_degrees)


def test_random_angles_are_drawn_from_the_seed() -> None:
    """One for each task, the same whatever their number, uniform in [0, 180)."""
    spec = RotatedSpec(base="digits", num_tasks=20, angles="random")
    angles = [[spec.degrees(seed, task) for task in range(20)] for seed in (0, 0, 1)]
    assert angles[0] == angles[1]
    assert angles[0] != angles[2]
    many = np.array([spec.degrees(seed, task) for seed in range(100) for task in range(20)])
    counts, _ = np.histogram(many, bins=9, range=(0, 180))
    assert counts.sum() == 2000
    assert np.abs(counts - 2000 / 9).max() < 60  # four deviations
    assert spec.degrees(0, 0) == pytest.approx(37.4816999407036, rel=1e-15)  # the same on every machine and release


def test_a_random_rotation_is_shown(digits: Datasets) -> None:
    """Training and test images of a task share its angle, and mixtures too."""
    images = digits.load("digits")
    spec = RotatedSpec(base="digits", num_tasks=20, angles="random")
    tasks = build(spec, images, 5, CPU)
    degrees = spec.degrees(5, 3)
    for split, original in ((tasks.test_split(3), images.test), (tasks.train_split(3), images.train)):
        expected = rotated_by_pillow(original.images[:50, 0], degrees)
        assert np.array_equal(split.images[:50].numpy().reshape(-1, 8, 8), expected)


def test_random_angles_have_no_step() -> None:
    """A step, which would be ignored, is refused; the number of steps then has no limit."""
    with refused(InvalidError, "step-with-random-angles", says=["step_degrees: ", "5"]):
        RotatedSpec(angles="random", step_degrees=5)
    assert RotatedSpec(angles="random", num_tasks=100).problem().num_tasks == 100


def test_rotations_may_go_almost_round() -> None:
    """One task at any angle, and 36 by 10 degrees, do not repeat."""
    assert RotatedSpec(num_tasks=1, step_degrees=720).num_tasks == 1
    assert RotatedSpec(num_tasks=36, step_degrees=10).problem().num_tasks == 36
