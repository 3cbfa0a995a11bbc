"""Batches: equal however many are taken at once."""

from __future__ import annotations

import pytest
import torch

from crwn import batches
from crwn.batches import Lanes, num_seen
from crwn.benchmarks.augmentation import Augmentation
from crwn.benchmarks.protocol import Segment, Split

NUM_EACH, BATCH_SIZE = 23, 5


def lanes(*, num_lanes: int, augmented: bool, changed: bool) -> Lanes:
    """Numbered images of 16 pixels, whose labels are their numbers; prepared ones are twice as bright."""
    numbers = torch.arange(num_lanes * NUM_EACH)
    pixels = torch.arange(16).view(1, 4, 4) % 4
    originals = Split(images=(numbers[:, None, None, None] + pixels).to(torch.uint8), labels=numbers)
    return Lanes(
        segment=Segment(
            lanes=tuple((task,) for task in range(num_lanes)),
            streams=tuple(range(num_lanes)),
            shuffled=True,
            tells_tasks=True,
            tells_ends=True,
        ),
        examples=Split(images=originals.images * 2, labels=numbers) if changed else originals,
        originals=lambda: originals,
        prepare=lambda _, images: images * 2,
        seed=3,
        batch_size=BATCH_SIZE,
        augmentation=Augmentation(padding=1, flip=True) if augmented else None,
        before=(7, 31),
    )


@pytest.mark.parametrize("num_lanes", [1, 3])
@pytest.mark.parametrize(("augmented", "changed"), [(False, False), (False, True), (True, False)])
def test_batches_do_not_depend_on_how_many_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch, *, num_lanes: int, augmented: bool, changed: bool
) -> None:
    """Over three epochs, each with a short last batch, from any step on."""
    monkeypatch.setattr(batches, "BLOCK_BYTES", 0)
    one_by_one = lanes(num_lanes=num_lanes, augmented=augmented, changed=changed)
    expected = [one_by_one.batch(step, rate=0.1) for step in range(15)]
    for num_bytes in (3 * num_lanes * BATCH_SIZE * 16, 2**18):
        monkeypatch.setattr(batches, "BLOCK_BYTES", num_bytes)
        for first in (0, 3, 9):
            taken = lanes(num_lanes=num_lanes, augmented=augmented, changed=changed)
            for step in range(first, 15):
                batch, other = taken.batch(step, rate=0.1), expected[step]
                assert (batch.step, batch.update, batch.seen) == (other.step, other.update, other.seen)
                assert torch.equal(batch.images, other.images)
                assert torch.equal(batch.labels, other.labels)
                assert torch.equal(batch.originals, other.originals)
                assert batch.images.is_contiguous()


def test_updates_and_examples_are_counted_from_the_first_of_the_trial() -> None:
    """Beside the 7 updates and 31 examples before; an epoch of 23 has four batches of five and one of three."""
    counted = [lanes(num_lanes=2, augmented=False, changed=False).batch(step, rate=0.1) for step in range(7)]
    assert [batch.update for batch in counted] == list(range(7, 14))
    assert [batch.seen - 31 for batch in counted] == [0, 5, 10, 15, 20, 23, 28]
    assert num_seen(12, NUM_EACH, BATCH_SIZE) == 2 * NUM_EACH + 2 * BATCH_SIZE
