"""The stream of turning digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from crwn.benchmarks import PRESETS
from crwn.benchmarks.protocol import Split
from crwn.benchmarks.turning import TurningSpec, TurningStream, build, mixed, segments_of, turned
from crwn.data import Datasets
from crwn.data.base import AS_THEY_ARE, ImageSet
from crwn.data.digits import DIGITS
from crwn.faults import InvalidError
from tests.refusals import refused

CPU = torch.device("cpu")
PAIRS = [(first, (first + 1) % 9) for _ in range(3) for first in range(9)]
"""Of digits, in the order of the segments."""


def rotated_by_pillow(images: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Rotate each grey image with Pillow: nearest neighbour, zero fill."""
    turned_ones = [
        np.asarray(Image.fromarray(image).rotate(angle, resample=Image.Resampling.NEAREST))
        for image, angle in zip(images, degrees.tolist(), strict=True)
    ]
    return np.stack(turned_ones)


def stream_of(images: ImageSet, seed: int = 0, spec: TurningSpec | None = None) -> TurningStream:
    return build(spec or TurningSpec(base="digits"), images, seed, CPU)


def angles_of(labels_N: np.ndarray) -> np.ndarray:
    """The angle of every image of a stream, by the rule: a digit's own clock, one tick for each of its images."""
    counts, seen = np.bincount(labels_N), [0] * 9
    angles = []
    for digit in labels_N.tolist():
        angles.append(60 * (digit - 1) + seen[digit] * 360 / counts[digit])
        seen[digit] += 1
    return np.array(angles)


# Rotating


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 8), (5, 9)])
def test_images_are_turned_as_pillow_turns_them(height: int, width: int) -> None:
    """Byte for byte: at every multiple of 15 degrees over two turns, below 0 and at any angle between."""
    generator = np.random.default_rng(0)
    degrees = np.concatenate([np.arange(-360, 720, 15), generator.uniform(-400, 800, 500)])
    images = generator.integers(1, 256, size=(len(degrees), height, width), dtype=np.uint8)
    assert np.array_equal(turned(images, degrees), rotated_by_pillow(images, degrees))


def test_a_quarter_turn_is_counter_clockwise() -> None:
    """As `np.rot90` turns."""
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    quarters = turned(images, np.array([90.0, -90.0]))
    assert np.array_equal(quarters, [np.rot90(images[0]), np.rot90(images[1], -1)])


# The order


def test_parts_are_mixed_in_proportion_to_what_is_left() -> None:
    """Worked out by hand: two of one and four of the other, each in its own order; nothing stays nothing."""
    assert mixed([2, 4]).tolist() == [2, 0, 3, 4, 1, 5]
    assert mixed([3, 0]).tolist() == [0, 1, 2]
    assert mixed([0, 0]).tolist() == []
    for counts in ((7, 31), (100, 3), (12, 12)):
        order = mixed(counts)
        assert sorted(order) == list(range(sum(counts)))
        shown = np.cumsum(order < counts[0])
        expected = (np.arange(sum(counts)) + 1) * counts[0] / sum(counts)
        assert np.abs(shown - expected).max() <= 1


def test_the_stream_shows_pairs_of_digits_in_three_rounds(digits: Datasets) -> None:
    """27 segments, each with a sixth of the images of each of its two digits."""
    stream = stream_of(digits.load("digits"))
    assert stream.num_segments == len(PAIRS) == 27
    for segment, pair in enumerate(PAIRS):
        split = stream.train_split(segment)
        counts = np.bincount(split.labels, minlength=10)
        assert split.num_examples == stream.num_examples(segment)
        assert set(np.flatnonzero(counts)) == set(pair)
        for digit in pair:
            assert abs(counts[digit] - DIGITS.train_counts[digit] / 6) < 1


def test_every_image_is_shown_once(digits: Datasets) -> None:
    """All training images of the digits 0 to 8, none twice, in an order that is drawn from the seed."""
    labels = digits.load("digits").train.labels
    orders = [np.concatenate([numbers for numbers, _ in segments_of(labels, seed)]) for seed in (0, 0, 1)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.flatnonzero(labels < 9))
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert np.array_equal(labels[orders[0]], labels[orders[2]])  # digits take turns alike at every seed


def test_the_order_never_changes_by_accident(digits: Datasets) -> None:
    """It is the same on every machine and in every release so far."""
    numbers, degrees = next(segments_of(digits.load("digits").train.labels, 0))
    assert numbers[:8].tolist() == [85, 308, 517, 262, 561, 1170, 1211, 62]
    assert degrees[:4].tolist() == [0.0, -60.0, 360 / 154, -60 + 360 / 136]


def test_every_image_is_turned_by_its_own_angle(digits: Datasets) -> None:
    """A digit turns once, from 60 (j - 1) degrees on, through all its segments; bytes and labels follow the order."""
    images = digits.load("digits")
    shown = stream_of(images, seed=3).mixture(range(27))
    order = np.concatenate([numbers for numbers, _ in segments_of(images.train.labels, 3)])
    angles = angles_of(images.train.labels[order])
    assert np.array_equal(shown.images[:, 0].numpy(), rotated_by_pillow(images.train.images[order, 0], angles))
    assert np.array_equal(shown.labels.numpy(), images.train.labels[order])
    assert shown.images.dtype == torch.uint8
    assert shown.labels.dtype == torch.int64


def test_segments_lie_end_to_end(digits: Datasets) -> None:
    """The stream is its segments, one after another."""
    stream = stream_of(digits.load("digits"))
    splits = [stream.train_split(segment) for segment in range(27)]
    whole = stream.mixture(range(27))
    assert torch.equal(whole.images, torch.cat([split.images for split in splits]))
    assert torch.equal(whole.labels, torch.cat([split.labels for split in splits]))


def test_a_digit_is_tested_over_a_full_turn(digits: Datasets) -> None:
    """Nine tests, one per digit: its test images in order, evenly spaced from 0 degrees; the same for every seed."""
    images = digits.load("digits")
    stream = stream_of(images)
    assert stream.num_tasks == 9
    for digit in range(9):
        known = images.test.images[images.test.labels == digit, 0]
        angles = np.arange(len(known)) * 360 / len(known)
        split = stream.test_split(digit)
        assert np.array_equal(split.images[:, 0].numpy(), rotated_by_pillow(known, angles))
        assert split.labels.tolist() == [digit] * len(known)
        assert torch.equal(stream_of(images, seed=1).test_split(digit).images, split.images)


# The spec


def test_sizes_are_known_without_data(digits: Datasets) -> None:
    """Nine tests, 27 segments, every image of nine digits; with images held out about as many as are left."""
    problem, stream = PRESETS["digits-360"].problem(), stream_of(digits.load("digits"))
    assert problem.segment_sizes == tuple(map(stream.num_examples, range(27)))
    assert (problem.scenario, problem.is_stream) == ("general", True)
    assert (problem.num_tasks, problem.num_segments, problem.num_classes) == (9, 27, 9)
    assert problem.num_train == stream.mixture(range(27)).num_examples == 1437 - 133
    held_out = TurningSpec(base="digits", validation=500).problem().num_train
    assert held_out == pytest.approx((1437 - 133) * (1437 - 500) / 1437, abs=1)


def test_channels_and_tests_are_the_specs(digits: Datasets) -> None:
    """Three equal channels, in the stream and in tests; the interval between tests."""
    spec, images = TurningSpec(base="digits", channels=3, test_every=70), digits.load("digits")
    assert spec.problem().input_shape == (3, 8, 8)
    grey, coloured = stream_of(images), stream_of(images, spec=spec)
    assert (grey.test_every, coloured.test_every) == (500, 70)

    def both(stream: TurningStream) -> list[Split]:
        return [stream.mixture(range(27)), stream.test_split(4)]

    for one, three in zip(both(grey), both(coloured), strict=True):
        for channel in range(3):
            assert torch.equal(three.images[:, channel], one.images[:, 0])


def test_the_presets_are_mammoths() -> None:
    """Pixels from 0 to 1, in one channel."""
    for name, base in (("mnist-360", "mnist"), ("digits-360", "digits")):
        assert PRESETS[name].base == base
        assert PRESETS[name].normalisation() == AS_THEY_ARE
        assert PRESETS[name].problem().input_shape[0] == 1


def test_wrong_fields_are_refused() -> None:
    """Photographs, and tests every 0 updates."""
    with refused(InvalidError, "unknown-name", "too-small", says=["base: ", "'cifar100'", "test_every: "]):
        TurningSpec(base="cifar100", test_every=0)  # type: ignore[arg-type]  # what is refused
    with refused(InvalidError, "validation-takes-all", says=["validation: ", "1437"]):
        TurningSpec(base="digits", validation=1437)


@pytest.mark.data
def test_mnist_as_it_is(mnist: Datasets) -> None:
    """54,051 images once each in 27 segments; 8,991 to test on."""
    images, spec = mnist.load("mnist"), PRESETS["mnist-360"]
    stream = stream_of(images, spec=spec)
    shown, labels = stream.mixture(range(27)), images.train.labels
    order = np.concatenate([numbers for numbers, _ in segments_of(labels, 0)])
    assert shown.num_examples == spec.problem().num_train == 54_051
    assert spec.problem().segment_sizes == tuple(map(stream.num_examples, range(27)))
    assert np.array_equal(np.sort(order), np.flatnonzero(labels < 9))
    assert sum(stream.test_split(digit).num_examples for digit in range(9)) == 8991
    some = slice(None, None, 97)
    angles = angles_of(labels[order])
    expected = rotated_by_pillow(images.train.images[order[some], 0], angles[some])
    assert np.array_equal(shown.images[some, 0].numpy(), expected)
