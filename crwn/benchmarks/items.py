"""Two-digit items: a stream of classes, each an ordered pair of digits, learned one after another beside noise.

Source: Cho, Lee, Baek & Paik, "Neuromimetic metaplasticity for adaptive continual learning" (arXiv:2407.07133; Neural
Networks 190, 107762, 2025), as in the authors' code (github.com/vsnnlab/Metaplasticity, `create_twoDigitMNIST.m`,
`serial_position_effect.m`). An item is a class: two digits i < j side by side. A trial draws its items from all such
pairs; each has a label of its own. A training shows one item, and as noise as many images of all the other items,
equally many of each, labelled at random with any label but their own and the one that is taught. So every item pushes
the others away. Each item has one test; an answer may be any output.

Sequences: every item once; all or every other one in further rounds (Hebb repetition); then each once more with
another item's label (poison), or new items with their own labels, which is what poison must be told from; or item k
trained k + 1 times, in an order in which an item's frequency and its last position are uncorrelated.

Ours: pixels, in means over squares of `pool` x `pool`, unless AlexNet's features are asked for, as theirs are; 500 +
500 images per training (theirs: 2,000 + 2,000), 250 test images per item (theirs: 1,000). Images are pairs drawn with
replacement, for training from training digits and for tests from test digits. An item keeps its images; noise is drawn
anew in every training.

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
"""The digits in the name of torchvision's file with AlexNet's weights."""

MOST_TRAININGS = 100_000
"""Limit of the trainings of a trial, each of which its problem lists."""

FEWEST_GRADED = 4
"""Fewest items of which an order exists in which the two are uncorrelated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsSpec:
    """A stream of two-digit items.

    Attributes:
        base: the base data set, whose classes are the digits.
        num_tasks: the number of items, each of which is tested separately, without new ones.
        outputs: the number of a network's outputs, if the stream was planned to be longer; 0: one per item.
        noise: the share of noise among the training images.
        rounds: how often the sequence of items is trained.
        repeated: whether rounds after the first have all items, or every other one, from the first on.
        poisoned_rounds: further rounds, in which each item has another item's label.
        new_items: further items, trained once after all rounds.
        frequency: whether all items are equally frequent, or item k (from 0) is trained k + 1 times: with `mixed` in an
            order as random as can be while frequency and last position are uncorrelated; with `graded`, last positions
            are also crowded at the end.
        images: an item's training images, without noise.
        test_images: an item's test images.
        pool: pixels are means over squares of this size.
        features: `none`: images are pixels; `alexnet`: the features of AlexNet's convolutions, see `features.py`.
        weights: with features, the first eight hexadecimal digits of the SHA-256 of the file with their weights; by
            default torchvision's.
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
        """The benchmark's sizes: items are tested, trainings are segments, all of which have all labels."""
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
        """The file with the weights of the features; None: there are none."""
        return None if self.features == "none" else WeightsFile(network=self.features, digits=self.weights)

    def trainings(self, seed: int) -> tuple[int, ...]:
        """The item that each training shows; the seed matters only if frequencies differ."""
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
        """What must not hold of the fields together: whether it does, and the fault's code and message."""
        base = BASE_SETS[self.base]
        num_pairs = base.num_classes * (base.num_classes - 1) // 2
        return [
            (
                self.num_tasks < 2,
                "items-too-few",
                f"num_tasks: expected at least 2 items, since an item is told from others, given {self.num_tasks}",
            ),
            (
                self.num_items > num_pairs,
                "items-too-many",
                (
                    f"num_tasks: expected at most {num_pairs} items, new ones included: the pairs of classes of "
                    f"{self.base!r}; given {self.num_items}"
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
                    "noise: expected 0 where there are two labels, since noise has neither its own nor the one that is "
                    f"taught, given {self.noise}; take more items or outputs"
                ),
            ),
            (
                self.repeated == "half" and (self.rounds == 1 or self._is_graded),
                "nothing-repeated",
                "repeated: expected `all` where no round is repeated, given 'half'; set rounds to 2 or more",
            ),
            (
                self.poisoned_rounds > 0 and self.new_items > 0,
                "poison-beside-new-items",
                (
                    "poisoned_rounds: expected 0 beside new_items, which are the control of poison, given "
                    f"{self.poisoned_rounds}"
                ),
            ),
            (
                self._is_graded and (self.rounds > 1 or self.num_tasks < FEWEST_GRADED),
                "frequencies-not-graded",
                (
                    f"frequency: expected `equal` beside rounds: {self.rounds} and num_tasks: {self.num_tasks}, given "
                    f"{self.frequency!r}, which needs one round of at least {FEWEST_GRADED} items"
                ),
            ),
            (
                self.features != "none" and (self.pool > 1 or self.normalise),
                "pixels-of-features",
                (
                    f"pool, normalise: expected 1 and false with features: {self.features}, which are of whole images, "
                    f"given {self.pool} and {str(self.normalise).lower()}"
                ),
            ),
            (
                self.features == "none" and self.weights != TORCHVISIONS,
                "weights-without-features",
                f"weights: expected to be left out without features, given {self.weights!r}; set features: alexnet",
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
    """The items of a trial, their trainings and tests.

    Args:
        spec: the benchmark's spec.
        images: the base set's images.
        seed: determines the items, their images, and all noise.
        device: the device of the tensors.

    Attributes:
        num_tasks: the number of items, T.
        num_segments: the number of trainings.
        trains: the item that each training shows.
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
        """All labels, which noise has."""
        del task
        return tuple(range(self._spec.num_outputs))

    def train_split(self, segment: int) -> Split:
        """An item's images with its label, or another's if it is poisoned, then noise."""
        item, taught = self.trains[segment], self.taught(segment)
        generator = seeding.numpy_generator(self._seed, "items", "noise", segment)
        others = np.delete(np.arange(self.num_tasks), item)
        # Where the noise cannot be shared out evenly, chance decides who gives one more.
        shares = np.diff(np.arange(len(others) + 1) * self._spec.num_noise // len(others))
        shares_T = dict(zip(generator.permutation(others).tolist(), shares.tolist(), strict=True))
        images, labels = [self._train[item]], [np.full(self._spec.images, taught)]
        for other in others.tolist():
            allowed = np.setdiff1d(np.arange(self._spec.num_outputs), [other, taught])
            images.append(self._train[other][generator.integers(self._spec.images, size=shares_T[other])])
            labels.append(allowed[generator.integers(len(allowed), size=shares_T[other])] if len(allowed) else [])
        return self._split(np.concatenate(images), np.concatenate(labels).astype(np.int64))

    def taught(self, segment: int) -> int:
        """The label that a training teaches."""
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
    """The pairs i < j of classes that a seed's items are, in the order in which they are numbered."""
    pairs = [(first, second) for first in range(num_classes) for second in range(first + 1, num_classes)]
    drawn = seeding.numpy_generator(seed, "items", "pairs").permutation(len(pairs))[:num_items]
    return [pairs[number] for number in drawn]


def build(spec: ItemsSpec, images: ImageSet, seed: int, device: torch.device) -> Items:
    """Build the trainings and tests of `spec` for `seed` on `device`."""
    return Items(spec=spec, images=images, seed=seed, device=device)
