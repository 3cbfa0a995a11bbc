"""Turning digits (MNIST-360 over `mnist`): a stream without tasks, in which digits recur and gradually rotate.

Source: MNIST-360 (Buzzega, Boschini, Porrello, Abati & Calderara, "Dark Experience for General Continual Learning",
NeurIPS 2020), as in datasets/mnist_360.py of github.com/aimagelab/mammoth. The digits 0 to 8 come in pairs,
(0, 1), (1, 2), ..., (8, 0), in three rounds: 27 segments. A digit is in six of them, with a sixth of its images each.
From each of its images to the next, a digit rotates by 360 degrees / their number; digit j begins at 60 (j - 1)
degrees. Rotations are counter-clockwise, nearest neighbour, zero fill, on bytes. Each digit has one test: its test
images, spread evenly over a full turn from 0.

Deviation: their code draws with replacement within a part and drops the rest of the longer part. Here every image is
shown once, in an order drawn from the seed, and the two parts of a segment are interleaved evenly.

Shapes: N images, H height, W width, C channels, D digits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.benchmarks.protocol import Split
from crwn.benchmarks.specs import normalisation_of, with_channels
from crwn.benchmarks.validation import check_validation, left_of_each
from crwn.data import BASE_SETS, GreyBase
from crwn.lazy import LazyModule
from crwn.spec import READ_STRICTLY, Count, Index, ProblemShape, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.data.base import Images, ImageSet, ImageSplit, Normalisation
else:
    torch = LazyModule("torch")

NUM_DIGITS = 9
"""Digits 0 to 8; a 9 upside down is a 6."""
NUM_ROUNDS = 3
PARTS = 2 * NUM_ROUNDS
"""Parts of a digit's images: in each round it is the second of one pair and the first of another."""
DEGREES_APART = 60.0
"""Difference between the initial angles of consecutive digits."""
AT_ONCE = 4096
"""Images rotated at once: few enough to fit in a cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurningSpec:
    """A stream of turning digits.

    Attributes:
        base: the base data set.
        test_every: updates between two tests; the last test is at the end of the stream.
        normalise: whether to normalise by the base set's mean and standard deviation; else pixels are from 0 to 1.
        channels: 1, or 3 equal ones.
        validation: number of training images held out; tests then use them, never the test images.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("turning")
    base: GreyBase = "mnist"
    test_every: Count = 500
    normalise: bool = False
    channels: Literal[1, 3] = 1
    validation: Index = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_validation(self.base, self.validation)

    def problem(self) -> ProblemShape:
        """The benchmark's sizes; each digit is a task to test."""
        left = left_of_each(self.base, self.validation)
        sizes = tuple(sum(len(range(part, left[digit], PARTS)) for digit, part in pair) for pair in pairs())
        return ProblemShape(
            input_shape=(self.channels, *BASE_SETS[self.base].image_shape[1:]),
            num_classes=NUM_DIGITS,
            num_tasks=NUM_DIGITS,
            scenario="general",
            num_segments=len(sizes),
            segment_sizes=sizes,
        )

    def normalisation(self) -> Normalisation:
        """The normalisation of the images."""
        return normalisation_of(self.base, normalise=self.normalise)


class TurningStream:
    """The stream and its tests.

    Args:
        images: the base set's images.
        seed: determines the order of each digit's images.
        test_every: updates between two tests.
        channels: 1, or 3 equal ones.
        device: the device of the tensors.

    Attributes:
        num_tasks: number of tests, one per digit.
        num_segments: number of pairs of digits in all rounds.
    """

    def __init__(self, *, images: ImageSet, seed: int, test_every: int, channels: int, device: torch.device) -> None:
        self.num_tasks = NUM_DIGITS
        self.num_segments = NUM_ROUNDS * NUM_DIGITS
        self.augmentation = None
        self.test_every = test_every
        self._train = images.train
        self._channels = channels
        self._device = device
        self._segments = list(segments_of(images.train.labels, seed))
        self._tests = [self._test(images.test, digit) for digit in range(NUM_DIGITS)]

    def num_examples(self, segment: int) -> int:
        """Number of training images of a segment."""
        numbers, _ = self._segments[segment]
        return len(numbers)

    def classes(self, task: int) -> tuple[int, ...]:
        """The labels of the stream, the same for every test."""
        del task
        return tuple(range(NUM_DIGITS))

    def train_split(self, segment: int) -> Split:
        """The training images of a segment, in the stream's order."""
        return self.mixture([segment])

    def test_split(self, task: int) -> Split:
        """The test images of a digit."""
        return self._tests[task]

    def mixture(self, segments: Sequence[int]) -> Split:
        """The training images of these segments, in the stream's order."""
        numbers, degrees = zip(*(self._segments[segment] for segment in segments), strict=True)
        return self._turned(self._train, np.concatenate(numbers), np.concatenate(degrees))

    def _test(self, split: ImageSplit, digit: int) -> Split:
        numbers_N = np.flatnonzero(split.labels == digit)
        return self._turned(split, numbers_N, full_turn(len(numbers_N)))

    def _turned(self, split: ImageSplit, numbers_N: NDArray[np.int64], degrees_N: NDArray[np.float64]) -> Split:
        images_N1HW = turned(split.images[numbers_N, 0], degrees_N)[:, None]
        return Split(
            images=with_channels(torch.from_numpy(images_N1HW).to(self._device), self._channels),
            labels=torch.from_numpy(split.labels[numbers_N]).to(self._device),
        )


def pairs() -> Iterator[tuple[tuple[int, int], ...]]:
    """The two digits of each segment, each with the number of the part of its images."""
    parts = [itertools.count() for _ in range(NUM_DIGITS)]
    for _ in range(NUM_ROUNDS):
        for first in range(NUM_DIGITS):
            yield tuple((digit, next(parts[digit])) for digit in (first, (first + 1) % NUM_DIGITS))


def segments_of(labels_N: NDArray[np.int64], seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each segment, the indices of its images, in order, and their angles in degrees."""
    numbers_of, degrees_of = [], []
    for digit in range(NUM_DIGITS):
        numbers = np.flatnonzero(labels_N == digit)
        numbers = seeding.numpy_generator(seed, "turning", digit).permutation(numbers)
        numbers_of.append(np.array_split(numbers, PARTS))
        degrees_of.append(np.array_split(DEGREES_APART * (digit - 1) + full_turn(len(numbers)), PARTS))
    for pair in pairs():
        numbers = np.concatenate([numbers_of[digit][part] for digit, part in pair])
        degrees = np.concatenate([degrees_of[digit][part] for digit, part in pair])
        order = mixed([len(numbers_of[digit][part]) for digit, part in pair])
        yield numbers[order], degrees[order]


def mixed(counts: Sequence[int]) -> NDArray[np.int64]:
    """Indices that interleave concatenated parts of these lengths evenly; each part keeps its own order."""
    moments = [(np.arange(count) + 0.5) / count for count in counts]
    return np.argsort(np.concatenate(moments), kind="stable")


def full_turn(count: int) -> NDArray[np.float64]:
    """`count` evenly spaced angles, from 0 to below 360 degrees."""
    return np.linspace(0, 360, count, endpoint=False)


def turned(images_NHW: Images, degrees_N: NDArray[np.float64]) -> Images:
    """Rotate each image by its own angle, byte for byte as Pillow does with nearest neighbours.

    It follows Pillow's arithmetic, fixed point with 16 fractional bits, for many images at once: tens of thousands of
    calls to Pillow would take seconds.
    """
    _, height, width = images_NHW.shape
    result = np.empty_like(images_NHW)
    for start in range(0, len(images_NHW), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        pixels = images_NHW[part].reshape(-1, height * width)
        padded = np.pad(pixels, ((0, 0), (0, 1)))  # a zero at the end
        shown = np.take_along_axis(padded, _sources(height, width, degrees_N[part]), axis=1)
        result[part] = shown.reshape(-1, height, width)
    return result


def _sources(height: int, width: int, degrees_N: NDArray[np.float64]) -> NDArray[np.int32]:
    """For each pixel of a rotated image, the index of its source pixel in the original, or H W for none: [N, H W]."""
    radians = [-math.radians(degrees % 360) for degrees in degrees_N.tolist()]
    cos_N, sin_N = (np.array([round(function(angle), 15) for angle in radians]) for function in (math.cos, math.sin))
    middle_x, middle_y = width / 2, height / 2
    x_W, y_H1 = np.arange(width, dtype=np.int32), np.arange(height, dtype=np.int32)[:, None]

    def source(
        size: int, by_x_N: NDArray[np.float64], by_y_N: NDArray[np.float64], middle: float
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The source row or column of each pixel, and whether it is inside the image."""
        start_N = by_x_N * (0.5 - middle_x) + by_y_N * (0.5 - middle_y) + middle
        place_NHW: NDArray[np.int32] = _fixed(start_N) + (_fixed(by_y_N) * y_H1 + _fixed(by_x_N) * x_W)
        place_NHW >>= 16
        return place_NHW, (place_NHW >= 0) & (place_NHW < size)

    column_NHW, is_column_NHW = source(width, cos_N, sin_N, middle_x)
    row_NHW, is_row_NHW = source(height, -sin_N, cos_N, middle_y)
    shown_NHW = np.where(is_column_NHW & is_row_NHW, row_NHW * width + column_NHW, height * width)
    return shown_NHW.reshape(len(degrees_N), -1)


def _fixed(values_N: NDArray[np.float64]) -> NDArray[np.int32]:
    """The values in fixed point, rounded to 1 / 65,536: [N, 1, 1]."""
    return np.floor(values_N * 65536 + 0.5).astype(np.int32)[:, None, None]


def build(spec: TurningSpec, images: ImageSet, seed: int, device: torch.device) -> TurningStream:
    """Build the stream of `spec` for `seed` on `device`."""
    return TurningStream(images=images, seed=seed, test_every=spec.test_every, channels=spec.channels, device=device)
