"""Two-digit items: a stream of classes, each an ordered pair of digits, learned one at a time, mixed with noise.

Source: Cho, Lee, Baek & Paik, "Neuromimetic metaplasticity for adaptive continual learning" (arXiv:2407.07133; Neural
Networks 190, 107762, 2025), as in the authors' code (github.com/vsnnlab/Metaplasticity, `create_twoDigitMNIST.m`,
`serial_position_effect.m`). An item is a class: two digits i < j side by side. A trial draws its items from all such
pairs; each has its own label. A training has the images of one item and, as noise, as many images of the other items,
the same number of each, with random labels other than their own and the one being trained. So training an item pushes
all others away. Each item has one test; predictions are over all outputs.

Sequences: every item once; then all or every other one in further rounds (Hebb repetition); then each once more with
another item's label (poisoning), or, as the control for that, new items with their own labels; or item k trained k + 1
times, in an order in which frequency and last position are uncorrelated.

Ours: pixels, averaged over squares of `pool` x `pool`, unless AlexNet's features are requested, which the authors use;
500 + 500 images per training (theirs: 2,000 + 2,000), 250 test images per item (theirs: 1,000). An image pairs digits
drawn with replacement, from the training digits for training and from the test digits for tests. An item keeps its
images; noise is drawn anew for every training.

Shapes: T items, N images, H height, W width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.benchmarks.features import FEATURES_SHAPE, WeightsFile, kept_features
from crwn.benchmarks.orders import derangement, graded_order, mixed_order
from crwn.benchmarks.protocol import Split
from crwn.benchmarks.specs import normalisation_of, pool_faults, pooled
from crwn.benchmarks.validation import check_validation
from crwn.data import BASE_SETS, GreyBase
from crwn.faults import Fault, InvalidError
from crwn.lazy import LazyModule
from crwn.spec import READ_STRICTLY, Count, Index, ProblemShape, check_fields, kind_field, later_field

if TYPE_CHECKING:
    import torch

    from crwn.data.base import Images, ImageSet, ImageSplit, Normalisation
else:
    torch = LazyModule("torch")

TORCHVISIONS = "7be5be79"
"""The digits in the name of torchvision's file of AlexNet weights."""

MOST_TRAININGS = 100_000
"""The largest number of trainings in a trial; its problem shape lists each of them."""

FEWEST_GRADED = 4
"""The smallest number of items that have an order in which frequency and last position are uncorrelated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsSpec:
    """A stream of two-digit items.

    Attributes:
        base: the base data set, whose classes are the digits.
        num_tasks: the number of items, not counting new ones; each is tested separately.
        outputs: the number of network outputs, if it allows for a longer stream; 0: one per item.
        noise: the share of noise among the training images.
        rounds: how often the sequence of items is trained.
        repeated: whether rounds after the first train all items, or only the first, third, fifth and so on.
        poisoned_rounds: further rounds, in which each item has another item's label.
        new_items: further items, trained once after all rounds.
        frequency: `equal`: all items are trained equally often; otherwise, item k (from 0) is trained k + 1 times, with
            frequency and last position uncorrelated: `mixed` in an otherwise random order, `graded` with the last
            positions crowded at the end.
        images: an item's training images, without noise.
        test_images: an item's test images.
        pool: side of the squares over which pixels are averaged.
        features: `none`: images are pixels; `alexnet`: images are features of AlexNet's convolutions, see
            `features.py`.
        weights: with features, the first eight hexadecimal digits of the SHA-256 of the file of weights; by default
            torchvision's.
        normalise: whether to normalise by the base set's mean and standard deviation; else pixels are from 0 to 1.
        validation: number of training images held out; tests then use them, never the test images.

    Raises:
        ValueError: fields are wrong, or contradict each other.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("items")
    base: GreyBase = "mnist"
    num_tasks: Count = 10
    outputs: Index = 0
    noise: Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1)] = 0.5
    rounds: Count = 1
    repeated: Literal["all", "half"] = "all"
    poisoned_rounds: Index = 0
    new_items: Index = 0
    frequency: Literal["equal", "graded", "mixed"] = "equal"
    images: Count = 500
    test_images: Count = 250
    pool: Count = 2
    normalise: bool = False
    validation: Index = 0
    features: Literal["none", "alexnet"] = later_field("none")
    weights: str = later_field(TORCHVISIONS)

    def __post_init__(self) -> None:
        check_fields(self)
        check_validation(self.base, self.validation)
        if faults := [Fault(code, message) for is_wrong, code, message in self._rules() if is_wrong]:
            raise InvalidError.of(faults)

    @property
    def num_items(self) -> int:
        """T, new items included."""
        return self.num_tasks + self.new_items

    @property
    def num_outputs(self) -> int:
        """The number of labels."""
        return self.outputs or self.num_items

    @property
    def num_noise(self) -> int:
        """The number of noise images in a training."""
        return round(self.images * self.noise / (1 - self.noise))

    def problem(self) -> ProblemShape:
        """The benchmark's sizes: items are the tasks, trainings the segments; every segment has all labels."""
        _, height, width = BASE_SETS[self.base].image_shape
        pixels = (1, height // self.pool, 2 * width // self.pool)
        return ProblemShape(
            input_shape=pixels if self.features == "none" else FEATURES_SHAPE,
            num_classes=self.num_outputs,
            num_tasks=self.num_items,
            scenario="domain",
            num_segments=self._num_trainings(),
            segment_sizes=(self.images + self.num_noise,) * self._num_trainings(),
            task_classes=tuple((item,) for item in range(self.num_items)),
        )

    def normalisation(self) -> Normalisation:
        """The normalisation of the images."""
        return normalisation_of(self.base, normalise=self.normalise)

    def weights_file(self) -> WeightsFile | None:
        """The file of weights that computes the features; None: there are no features."""
        return None if self.features == "none" else WeightsFile(network=self.features, digits=self.weights)

    def trainings(self, seed: int) -> tuple[int, ...]:
        """The item of each training, in order; the seed matters only if frequencies differ."""
        items = range(self.num_tasks)
        if self._is_graded:
            first = (mixed_order if self.frequency == "mixed" else graded_order)(self.num_tasks, seed)
        else:
            again = items if self.repeated == "all" else items[::2]
            first = (*items, *(self.rounds - 1) * tuple(again))
        return (*first, *range(self.num_tasks, self.num_items), *self.poisoned_rounds * tuple(items))

    @property
    def _is_graded(self) -> bool:
        return self.frequency != "equal"

    def _num_trainings(self) -> int:
        again = self.num_tasks if self.repeated == "all" else -(-self.num_tasks // 2)
        first = self.num_tasks + (self.rounds - 1) * again
        if self._is_graded:
            first = self.num_tasks * (self.num_tasks + 1) // 2
        return first + self.new_items + self.poisoned_rounds * self.num_tasks

    def _rules(self) -> list[tuple[bool, str, str]]:
        """Combinations of fields that are refused: whether each is given, and the fault's code and message."""
        base = BASE_SETS[self.base]
        num_pairs = base.num_classes * (base.num_classes - 1) // 2
        return [
            (
                self.num_tasks < 2,
                "items-too-few",
                f"num_tasks: expected at least 2 items to tell apart, given {self.num_tasks}",
            ),
            (
                self.num_items > num_pairs,
                "items-too-many",
                (
                    f"num_tasks: expected at most {num_pairs} items including new ones, one per pair of classes of "
                    f"{self.base!r}, given {self.num_items}"
                ),
            ),
            (
                0 < self.outputs < self.num_items,
                "outputs-too-few",
                f"outputs: expected at least {self.num_items}, one per item, or 0 for as many, given {self.outputs}",
            ),
            (
                self.num_noise > 0 and self.num_outputs < 3,
                "noise-without-label",
                (
                    "noise: expected 0 with two labels, since a noise image gets neither its own label nor the one "
                    f"being trained, given {self.noise}; use more items or outputs"
                ),
            ),
            (
                self.repeated == "half" and (self.rounds == 1 or self._is_graded),
                "nothing-repeated",
                "repeated: expected `all` if no round is repeated, given 'half'; set rounds to 2 or more",
            ),
            (
                self.poisoned_rounds > 0 and self.new_items > 0,
                "poison-beside-new-items",
                (
                    "poisoned_rounds: expected 0 with new_items, which are the control for poisoning, given "
                    f"{self.poisoned_rounds}"
                ),
            ),
            (
                self._is_graded and (self.rounds > 1 or self.num_tasks < FEWEST_GRADED),
                "frequencies-not-graded",
                (
                    f"frequency: expected `equal` with rounds: {self.rounds} and num_tasks: {self.num_tasks}, given "
                    f"{self.frequency!r}, which requires a single round of at least {FEWEST_GRADED} items"
                ),
            ),
            (
                self.features != "none" and (self.pool > 1 or self.normalise),
                "pixels-of-features",
                (
                    f"pool, normalise: expected 1 and false with features: {self.features}, which are computed from "
                    f"whole images, given {self.pool} and {str(self.normalise).lower()}"
                ),
            ),
            (
                self.features == "none" and self.weights != TORCHVISIONS,
                "weights-without-features",
                f"weights: expected only with features, given {self.weights!r}; set features: alexnet or leave it out",
            ),
            (
                re.fullmatch("[0-9a-f]{8}", self.weights) is None,
                "weights-not-digits",
                f"weights: expected eight hexadecimal digits, as in the file's name, given {self.weights!r}",
            ),
            (bool(of_pool := pool_faults(self.base, self.pool)), "pool-does-not-divide", "; ".join(of_pool)),
            (
                self._num_trainings() > MOST_TRAININGS,
                "trainings-too-many",
                f"rounds: expected at most {MOST_TRAININGS:,} trainings, given {self._num_trainings():,}",
            ),
        ]


class Items:
    """The items of a trial, with their trainings and tests.

    Args:
        spec: the benchmark's spec.
        images: the base set's images.
        seed: determines the items, their images and all noise.
        device: the device of the tensors.

    Attributes:
        num_tasks: the number of items, T.
        num_segments: the number of trainings.
        trains: the item of each training, in order.
    """

    def __init__(self, *, spec: ItemsSpec, images: ImageSet, seed: int, device: torch.device) -> None:
        self.num_tasks = spec.num_items
        self.trains = spec.trainings(seed)
        self.num_segments = len(self.trains)
        self.test_every = 0
        self.augmentation = None
        self._spec = spec
        self._seed = seed
        self._device = device
        pairs = pairs_of(BASE_SETS[spec.base].num_classes, spec.num_items, seed)
        self._train = [self._drawn(images.train, pair, item, "train", spec.images) for item, pair in enumerate(pairs)]
        self._test = [self._drawn(images.test, pair, item, "test", spec.test_images) for item, pair in enumerate(pairs)]
        if images.weights is not None:
            both = kept_features([*self._train, *self._test], images.weights)
            self._train, self._test = both[: len(pairs)], both[len(pairs) :]
        self._poisoned = derangement(spec.num_tasks, seeding.numpy_generator(seed, "items", "poison"))

    def num_examples(self, segment: int) -> int:
        """Number of training images, noise included."""
        del segment
        return self._spec.images + self._spec.num_noise

    def classes(self, task: int) -> tuple[int, ...]:
        """All labels, since noise has any of them."""
        del task
        return tuple(range(self._spec.num_outputs))

    def train_split(self, segment: int) -> Split:
        """An item's images with its label, or another item's if poisoned, then noise."""
        item, taught = self.trains[segment], self.taught(segment)
        generator = seeding.numpy_generator(self._seed, "items", "noise", segment)
        others = np.delete(np.arange(self.num_tasks), item)
        # If the noise does not divide evenly, the items that give one more are random.
        shares = np.diff(np.arange(len(others) + 1) * self._spec.num_noise // len(others))
        shares_T = dict(zip(generator.permutation(others).tolist(), shares.tolist(), strict=True))
        images, labels = [self._train[item]], [np.full(self._spec.images, taught)]
        for other in others.tolist():
            allowed = np.setdiff1d(np.arange(self._spec.num_outputs), [other, taught])
            images.append(self._train[other][generator.integers(self._spec.images, size=shares_T[other])])
            labels.append(allowed[generator.integers(len(allowed), size=shares_T[other])] if len(allowed) else [])
        return self._split(np.concatenate(images), np.concatenate(labels).astype(np.int64))

    def taught(self, segment: int) -> int:
        """The label of the item's images in a training."""
        item = self.trains[segment]
        is_poisoned = segment >= self.num_segments - self._spec.poisoned_rounds * self._spec.num_tasks
        return int(self._poisoned[item]) if is_poisoned else item

    def test_split(self, task: int) -> Split:
        """An item's test images."""
        return self._split(self._test[task], np.full(len(self._test[task]), task))

    def mixture(self, segments: Sequence[int]) -> Split:
        """The images of these trainings, in order."""
        splits = [self.train_split(segment) for segment in segments]
        return Split(images=torch.cat([one.images for one in splits]), labels=torch.cat([one.labels for one in splits]))

    def _drawn(self, split: ImageSplit, pair: tuple[int, int], item: int, use: str, count: int) -> Images:
        """An item's images, [N, 1, H, 2 W]: pairs drawn with replacement."""
        generator = seeding.numpy_generator(self._seed, "items", use, item)
        sides = []
        for digit in pair:
            numbers_N = np.flatnonzero(split.labels == digit)
            sides.append(
                pooled(split.images[numbers_N[generator.integers(len(numbers_N), size=count)]], self._spec.pool)
            )
        return np.concatenate(sides, axis=3)

    def _split(self, images: Images, labels: NDArray[np.int64]) -> Split:
        return Split(images=torch.from_numpy(images).to(self._device), labels=torch.from_numpy(labels).to(self._device))


def pairs_of(num_classes: int, num_items: int, seed: int) -> list[tuple[int, int]]:
    """The pairs i < j of classes that make up the items for a seed, in the items' order."""
    pairs = [(first, second) for first in range(num_classes) for second in range(first + 1, num_classes)]
    drawn = seeding.numpy_generator(seed, "items", "pairs").permutation(len(pairs))[:num_items]
    return [pairs[number] for number in drawn]


def build(spec: ItemsSpec, images: ImageSet, seed: int, device: torch.device) -> Items:
    """Build the trainings and tests of `spec` for `seed` on `device`."""
    return Items(spec=spec, images=images, seed=seed, device=device)
