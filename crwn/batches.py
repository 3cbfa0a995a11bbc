"""A segment's training examples: in batches, each determined by its number, and as a whole.

Shapes: G lanes (tasks learned at once), B examples per batch, N training examples per lane. Images are [..., d], or
[..., C, H, W] if the benchmark keeps their shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crwn import seeding
from crwn.benchmarks.augmentation import Augmentation
from crwn.benchmarks.protocol import Curriculum, Mixture, Segment, Split
from crwn.faults import InvalidError

Prepare = Callable[[int | None, torch.Tensor], torch.Tensor]
"""`Method.prepare`."""

BLOCK_BYTES = 2**18
"""Maximum size in bytes of the images of batches gathered at once: for small batches, call overhead dominates."""


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """What a method learns from in one update.

    Attributes:
        images: [G, B, ...], as returned by `Method.prepare`.
        labels: [G, B], in the benchmark's label space.
        tasks: the lanes' tasks; None if they are not told.
        segment: the segment's number, from 0.
        step: the update within the segment, from 0.
        update: the update within the trial, from 0.
        seen: number of examples in the trial's earlier updates, per lane.
        rate: the learning rate.
    """

    images: torch.Tensor
    labels: torch.Tensor
    tasks: tuple[int, ...] | None
    segment: int
    step: int
    update: int
    seen: int
    rate: float
    _seed: int
    _bytes: Callable[[], torch.Tensor]
    _prepare: Prepare
    _augmentation: Augmentation | None

    @property
    def originals(self) -> torch.Tensor:
        """The images as bytes [G, B, ...], neither augmented nor prepared, for a replay buffer."""
        return self._bytes()

    def stream(self, name: str) -> np.random.Generator:
        """The random stream of this update for the purpose `name`."""
        return seeding.numpy_generator(self._seed, "update", name, self.update)

    def streams(self, name: str) -> list[np.random.Generator]:
        """The random stream of each task, whose numbers do not depend on the other tasks.

        Raises:
            ValueError: tasks are not told.
        """
        if self.tasks is None:
            raise InvalidError(
                "tasks-not-told",
                "streams: expected a scenario in which tasks are told, given one in which they are not",
            )
        return [seeding.numpy_generator(self._seed, "update", name, task, self.step) for task in self.tasks]

    def uniform(self, name: str, *shape: int) -> torch.Tensor:
        """Uniform numbers in [0, 1) from `stream`, in float64 on the device."""
        return sent(self.stream(name).random(shape), self.labels.device)

    def view(self, images: torch.Tensor, name: str, task: int | None = None) -> torch.Tensor:
        """Turn bytes [N, ...] into inputs of `Method.logits`: augment them by draws of this name, and prepare them."""
        if self._augmentation is not None:
            draws_N3 = sent(self._augmentation.draw(self.stream(name), len(images)), images.device)
            images = self._augmentation(images, draws_N3)
        return self._prepare(task, images)


class Lanes:
    """A segment's training examples, lane by lane.

    Args:
        segment: the segment.
        examples: the lanes' examples, concatenated, the same number per lane: prepared, or bytes if augmented.
        originals: returns the same examples as bytes; called on demand.
        prepare: `Method.prepare`, which processes images in advance.
        seed: the trial's seed.
        batch_size: B; the short last batch of an epoch is kept.
        augmentation: random augmentation of examples; None: none.
        before: number of updates and of examples of the trial before the segment.

    Attributes:
        segment: the segment's number, from 0.
        num_each: N.
        per_epoch: number of batches per epoch.
        device: the device of the tensors.
    """

    def __init__(
        self,
        *,
        segment: Segment,
        examples: Mixture,
        originals: Callable[[], Mixture],
        prepare: Prepare,
        seed: int,
        batch_size: int,
        augmentation: Augmentation | None,
        before: tuple[int, int] = (0, 0),
    ) -> None:
        self.segment = segment.number
        self.num_each = examples.num_examples // len(segment.lanes)
        self.per_epoch = math.ceil(self.num_each / batch_size)
        self._updates_before, self._seen_before = before
        self._segment = segment
        self._examples = examples
        self._originals = originals
        self._prepare = prepare
        self._seed = seed
        self._batch_size = batch_size
        self.device = examples.device
        self._augmentation = augmentation
        self._order_GN = torch.empty(0)
        self._draws_GN3 = torch.empty(0)
        self._epoch = -1
        self._block: list[tuple[torch.Tensor, ...]] = []  # the batches taken last
        self._first = 0  # the first one's step
        self._at_once = 1

    def batch(self, step: int, *, rate: float) -> Batch:
        """The batch of an update, counted from 0; each lane has a different order in every epoch.

        The order and the augmentation are drawn from (seed, lane, epoch).
        """
        if not self._first <= step < self._first + len(self._block):
            self._first, self._block = step, self._take(step)
        images, labels, taken, chosen_GB = self._block[step - self._first]
        if self._augmentation is not None:  # no image occurs twice, so prepare each batch separately
            images = self._prepared(images)
        return Batch(
            images=images,
            labels=labels,
            tasks=self._segment.told,
            segment=self.segment,
            step=step,
            update=self._updates_before + step,
            seen=self._seen_before + num_seen(step, self.num_each, self._batch_size),
            rate=rate,
            _seed=self._seed,
            _bytes=functools.partial(self._as_bytes, taken, chosen_GB),
            _prepare=self._prepare,
            _augmentation=self._augmentation,
        )

    def _take(self, step: int) -> list[tuple[torch.Tensor, ...]]:
        """Several batches starting at a step: images, labels, images before augmentation, and indices of each."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order_GN = self._draw_order(epoch)
            if self._augmentation is not None:
                self._draws_GN3 = self._draw_changes(self._augmentation, epoch)
            self._epoch = epoch
        first = number * self._batch_size
        num = max(1, min(self._at_once, (self.num_each - first) // self._batch_size))  # a short last one comes alone
        places = slice(first, first + num * self._batch_size)

        chosen_nGB = self._order_GN[:, places].unflatten(1, (num, -1)).transpose(0, 1).contiguous()
        examples = self._examples.take(chosen_nGB.flatten())
        self._at_once = max(1, BLOCK_BYTES * num // examples.images.nbytes)
        images = examples.images
        if self._augmentation is not None:
            draws_nGB3 = self._draws_GN3[:, places].unflatten(1, (num, -1)).transpose(0, 1)
            images = self._augmentation(images, draws_nGB3.flatten(0, 2))
        parts = (images, examples.labels, examples.images, chosen_nGB.flatten())
        return list(zip(*(part.unflatten(0, chosen_nGB.shape).unbind() for part in parts), strict=True))

    def _as_bytes(self, taken: torch.Tensor, chosen_GB: torch.Tensor) -> torch.Tensor:
        """A batch's images as bytes, given the images as taken, and the indices of these."""
        whole = self._originals()
        if whole is self._examples:
            return taken
        images = whole.take(chosen_GB.flatten()).images
        return images.view(*chosen_GB.shape, *images.shape[1:])

    def whole(self) -> Examples:
        """All examples, in the order of the data."""
        return Examples(self)

    def at(self, numbers: torch.Tensor) -> Split:
        """The examples with these numbers in every lane [n]: prepared [G, n, ...], not augmented."""
        starts_G1 = self.num_each * torch.arange(len(self._segment.lanes), device=self.device)[:, None]
        chosen_GB = numbers + starts_G1
        examples = self._examples.take(chosen_GB.reshape(-1))
        images = examples.images.unflatten(0, chosen_GB.shape)
        if self._augmentation is not None:
            images = self._prepared(images)
        return Split(images=images, labels=examples.labels.view(chosen_GB.shape))

    def originals(self, index_N: torch.Tensor) -> Split:
        """Examples of the first lane by index, as bytes [n, ...]."""
        return self._originals().take(index_N)

    def generator(self, name: str) -> np.random.Generator:
        """The random stream of this segment for the purpose `name`."""
        return seeding.numpy_generator(self._seed, "segment", name, self._segment.number)

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            tasks = self._segment.told or [None] * len(images)
            prepared = [self._prepare(task, lane) for task, lane in zip(tasks, images, strict=True)]
            return prepared[0][None] if len(prepared) == 1 else torch.stack(prepared)

    def _draw_order(self, epoch: int) -> torch.Tensor:
        """The order of the examples in an epoch, as indices [G, N]."""
        if not self._segment.shuffled:
            return torch.arange(self.num_each, device=self.device)[None]
        orders = [
            seeding.numpy_generator(self._seed, "batches", stream, epoch).permutation(self.num_each)
            + index * self.num_each
            for index, stream in enumerate(self._segment.streams)
        ]
        return sent(np.stack(orders), self.device)

    def _draw_changes(self, augmentation: Augmentation, epoch: int) -> torch.Tensor:
        """The draws of the augmentation in an epoch: [G, N, 3]."""
        streams = (seeding.numpy_generator(self._seed, "augment", stream, epoch) for stream in self._segment.streams)
        return sent(np.stack([augmentation.draw(stream, self.num_each) for stream in streams]), self.device)


class Examples:
    """A segment's training examples as `Method.begin` and `Method.end` see them.

    Attributes:
        segment: the segment's number, from 0.
        num_examples: N, per lane.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.segment = lanes.segment
        self.num_examples = lanes.num_each
        self._lanes = lanes

    def batches(self, size: int) -> Iterator[Split]:
        """All examples in the order of the data, not augmented: prepared images [G, B, ...], labels [G, B].

        Args:
            size: B; the last batch may be shorter.
        """
        for start in range(0, self.num_examples, size):
            stop = min(start + size, self.num_examples)
            yield self._lanes.at(torch.arange(start, stop, device=self._lanes.device))

    def drawn(self, size: int, name: str) -> Split:
        """Different examples drawn at random, the same numbers in every lane, not augmented.

        Args:
            size: their number per lane; all, if there are no more.
            name: the purpose, which names their random stream.

        Returns:
            Prepared images [G, B, ...] and labels [G, B].
        """
        order_N = self.stream(name).permutation(self.num_examples)
        return self._lanes.at(sent(order_N[:size], self._lanes.device))

    def take(self, index_N: torch.Tensor) -> Split:
        """Examples by index: bytes [n, ...] and labels [n]; only for segments of one lane."""
        return self._lanes.originals(index_N)

    def stream(self, name: str) -> np.random.Generator:
        """The random stream of this segment for the purpose `name`."""
        return self._lanes.generator(name)


class Table:
    """Memory for the images of the tasks learned at once, reused from segment to segment.

    On a CPU, allocating memory costs far more than copying into it.
    """

    def __init__(self) -> None:
        self._images = torch.empty(0)

    def clear(self) -> None:
        """Free the memory."""
        self._images = torch.empty(0)

    @torch.no_grad()
    def lay(
        self,
        segment: Segment,
        mixtures: Iterator[Mixture],
        *,
        curriculum: Curriculum,
        prepare: Prepare,
        seed: int,
        batch_size: int,
        before: tuple[int, int],
        timed: Callable[[], AbstractContextManager[None]],
    ) -> Lanes:
        """The training examples of an open segment, prepared unless they are augmented.

        Args:
            segment: the segment.
            mixtures: each lane's examples, built on demand.
            curriculum: the curriculum, in which the segment is open.
            prepare: `Method.prepare`.
            seed: the trial's seed.
            batch_size: examples per batch.
            before: number of updates and of examples of the trial before the segment.
            timed: a context that counts the time as training: of preparing and copying images, not of building them.

        Raises:
            ValueError: lanes differ in their number of examples.
        """
        augmentation, told = curriculum.augmentation, segment.told
        in_advance = (lambda _, images: images) if augmentation is not None else prepare
        changed = False

        def prepared(place: int, mixture: Mixture) -> Mixture:
            nonlocal changed
            if not isinstance(mixture, Split):
                return mixture  # built batch by batch
            with timed():
                images = in_advance(told[place] if told is not None else None, mixture.images)
            changed |= images is not mixture.images
            return Split(images=images, labels=mixture.labels)

        num_lanes = len(segment.lanes)
        if num_lanes == 1:
            examples = prepared(0, next(mixtures))
        else:
            # Bind no split to a name, so that only one exists at a time besides the set.
            labels = [self._put(prepared(place, next(mixtures)), place, num_lanes, timed) for place in range(num_lanes)]
            examples = Split(images=self._images.flatten(0, 1), labels=torch.cat(labels))
        return Lanes(
            segment=segment,
            examples=examples,
            originals=(lambda: _end_to_end([curriculum.lane(lane) for lane in segment.lanes]))
            if changed
            else (lambda: examples),
            prepare=prepare,
            seed=seed,
            batch_size=batch_size,
            augmentation=augmentation,
            before=before,
        )

    def _put(
        self, mixture: Mixture, place: int, num_lanes: int, timed: Callable[[], AbstractContextManager[None]]
    ) -> torch.Tensor:
        """Copy a lane's images to their place in memory, and return its labels."""
        assert isinstance(mixture, Split)
        shape = (num_lanes, *mixture.images.shape)
        if place == 0 and self._images.shape != shape:
            self._images = torch.empty(0)  # free it before allocating another
            self._images = mixture.images.new_empty(shape)
        if self._images.shape != shape:
            sizes = sorted([self._images.shape[1], mixture.num_examples])
            raise InvalidError(
                "sizes-differ", f"tasks learned together: expected equally many training examples, given {sizes}"
            )
        with timed():
            self._images[place] = mixture.images
        return mixture.labels


def num_seen(updates: int, num_examples: int, batch_size: int) -> int:
    """The number of examples in the first updates of a segment, whose last batch of an epoch may be short."""
    epochs, batches = divmod(updates, math.ceil(num_examples / batch_size))
    return epochs * num_examples + batches * batch_size


def sent(drawn: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Drawn numbers as a tensor on a device, without waiting for the transfer."""
    return torch.from_numpy(drawn).to(device, non_blocking=True)


def _end_to_end(mixtures: Sequence[Mixture]) -> Mixture:
    """Concatenate several lanes' examples."""
    if len(mixtures) == 1:
        return mixtures[0]
    splits = [mixture for mixture in mixtures if isinstance(mixture, Split)]
    return Split(images=torch.cat([split.images for split in splits]), labels=torch.cat([s.labels for s in splits]))
