"""The replay buffer: what it keeps, how uniformly, and what it returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode

from crwn import replay
from crwn.methods.protocol import Tensors

CPU = torch.device("cpu")
NUM_SEEDS = 2000
MIN_P = 1e-3


def buffer(capacity: int, image_size: int = 8) -> Tensors:
    return replay.empty(capacity, image_size, {"logits": (3,)}, device=CPU)


def examples(numbers: Sequence[int], image_size: int = 8) -> Tensors:
    """Examples that say in every field which they are: [B, 1, d] images, labels, logits."""
    number_B = torch.tensor(numbers)
    return {
        "images": number_B.to(torch.uint8)[:, None, None].expand(-1, 1, image_size),
        "labels": number_B,
        "logits": number_B[:, None] + torch.tensor([0.0, 0.25, 0.5]),
    }


def stored(state: Tensors) -> list[int]:
    """Which examples a buffer holds, slot by slot; every field must agree."""
    filled = min(int(state[replay.SEEN]), len(state[replay.LABELS]))
    labels = state[replay.LABELS][:filled]
    assert torch.equal(state[replay.IMAGES][:filled], labels[:, None].expand(-1, 8).to(torch.uint8))
    assert torch.equal(state["buffer.logits"][:filled], labels[:, None] + torch.tensor([0.0, 0.25, 0.5]))
    return labels.tolist()


def reservoir(capacity: int, offers: Iterator[tuple[int, float]]) -> list[int]:
    """Algorithm R, one example after another."""
    kept: list[int] = []
    for seen, (number, uniform) in enumerate(offers, start=1):
        slot = int(uniform * seen)
        if len(kept) < capacity:
            kept.append(number)
        elif slot < capacity:
            kept[slot] = number
    return kept


def offer_those_(
    state: Tensors, given: Tensors, uniforms_B: NDArray[Any], counted_B: NDArray[Any], stored_B: NDArray[Any]
) -> None:
    replay.offer_those_(
        state,
        given,
        torch.from_numpy(uniforms_B),
        counted_B=torch.from_numpy(counted_B),
        stored_B=torch.from_numpy(stored_B),
    )


@pytest.mark.parametrize("with_rejection", [False, True])
@pytest.mark.parametrize(("capacity", "batch_size"), [(1, 1), (3, 7), (5, 4), (16, 5), (4, 100)])
def test_it_keeps_what_a_plain_reservoir_keeps(capacity: int, batch_size: int, with_rejection: bool) -> None:
    """In the same slots, after every batch; every field of an example goes together."""
    generator = np.random.default_rng(capacity)
    state, offered = buffer(capacity), []
    for first in range(0, 200, batch_size):
        numbers = range(first, min(first + batch_size, 200))
        uniforms = generator.random(len(numbers))
        accepted = generator.random(len(numbers)) < (0.6 if with_rejection else 1)
        if with_rejection:
            offer_those_(state, examples(numbers), uniforms, accepted, accepted)
        else:
            replay.offer_(state, examples(numbers), uniforms, len(offered))
        offered += [(n, u) for n, u, is_accepted in zip(numbers, uniforms, accepted, strict=True) if is_accepted]
        assert stored(state) == reservoir(capacity, iter(offered))
        assert state[replay.SEEN] == len(offered)


@pytest.mark.parametrize("with_rejection", [False, True])
def test_each_position_is_equally_likely(with_rejection: bool) -> None:
    """Over 2,000 seeds, chi-square over positions in the stream and over pairs of them: the buffer holds a pair."""
    length, num_batches = 12, 2
    accepted = np.random.default_rng(0).permutation(np.arange(2 * length) < length) if with_rejection else None
    number = np.arange(length) if accepted is None else np.cumsum(accepted) - 1
    labels = torch.from_numpy(number).chunk(num_batches)
    accepted_in = [None] * num_batches if accepted is None else np.split(accepted, num_batches)
    pairs = dict.fromkeys(combinations(range(length), 2), 0)
    for seed in range(NUM_SEEDS):
        state = replay.empty(2, 1, device=CPU)
        uniforms, seen = np.random.default_rng([seed, with_rejection]).random(len(number)), 0
        for labels_B, uniforms_B, accepted_B in zip(labels, np.split(uniforms, num_batches), accepted_in, strict=True):
            if accepted_B is None:
                replay.offer_(state, {"labels": labels_B}, uniforms_B, seen)
                seen += len(labels_B)
            else:
                offer_those_(state, {"labels": labels_B}, uniforms_B, accepted_B, accepted_B)
        first, second = sorted(state[replay.LABELS].tolist())
        pairs[first, second] += 1
    positions = np.bincount(np.ravel([pair for pair, count in pairs.items() for _ in range(count)]), minlength=length)
    # What a buffer holds is distinct, so that counts vary less than those of independent draws, by (N - K) / (N - 1).
    statistic = stats.chisquare(positions).statistic * (length - 1) / (length - 2)
    assert stats.chi2.sf(statistic, length - 1) > MIN_P
    assert stats.chisquare(list(pairs.values())).pvalue > MIN_P


def test_the_later_of_two_in_one_slot_stays() -> None:
    """Regardless of their positions in the batch and its other examples."""
    state = buffer(4)
    replay.offer_(state, examples(range(4)), np.zeros(4), 0)
    uniforms_B = np.array([0.3, 0.0, 0.99, 0.3, 0.0, 0.99])  # of 5, 6, 7, 8, 9, 10
    replay.offer_(state, examples(range(4, 10)), uniforms_B, 4)
    assert stored(state) == [8, 4, 7, 3]  # slots 1, 0, 6, 2, 0, 9


def test_the_largest_uniform_number_is_below_every_bound() -> None:
    """The largest number below 1 leaves a full buffer alone, whatever was seen."""
    largest = np.full(1, np.nextafter(1.0, 0.0))
    state = buffer(2)
    for number in range(1000):
        replay.offer_(state, examples([number % 256]), largest, number)
    assert stored(state) == [0, 1]


def test_of_no_capacity_there_is_no_buffer() -> None:
    """It has no tensors, and offers change nothing."""
    state = buffer(0)
    replay.offer_(state, examples([1]), np.zeros(1), 0)
    assert state == {}


def test_it_is_never_larger_than_asked_for() -> None:
    """However many examples are offered, in one batch or several."""
    state = buffer(3)
    for time in range(3):
        replay.offer_(state, examples(range(50)), np.random.default_rng(time).random(50), 50 * time)
        assert {len(tensor) for name, tensor in state.items() if name != replay.SEEN} == {3}
        assert state[replay.IMAGES].untyped_storage().nbytes() == 3 * 8


@pytest.mark.parametrize("counted", [False, True])
def test_nothing_of_a_rejected_batch_is_kept(counted: bool) -> None:
    """It leaves no trace in an empty buffer or in a full one, but that it was seen if it counts."""
    state, uniforms_B, none = buffer(3), np.zeros(5), np.zeros(5, dtype=bool)
    for _ in range(2):
        before = {name: tensor.clone() for name, tensor in state.items()}
        offer_those_(state, examples(range(5)), uniforms_B, ~none if counted else none, none)
        assert state[replay.SEEN] == before[replay.SEEN] + 5 * counted
        assert all(torch.equal(tensor, before[name]) for name, tensor in state.items() if name != replay.SEEN)
        offer_those_(state, examples(range(5)), uniforms_B, ~none, ~none)


@pytest.mark.parametrize(("capacity", "batch_size"), [(1, 1), (3, 7), (5, 4), (16, 5), (4, 100)])
def test_what_counts_but_is_not_stored_leaves_its_slot_alone(capacity: int, batch_size: int) -> None:
    """Empty while the buffer fills, and later as it was: as one example after another."""
    generator = np.random.default_rng(capacity)
    state, expected, seen = buffer(capacity), [0] * capacity, 0
    for first in range(1, 200, batch_size):
        numbers = range(first, min(first + batch_size, 200))
        uniforms, kept = generator.random(len(numbers)), generator.random(len(numbers)) < 0.5
        offer_those_(state, examples(numbers), uniforms, np.ones_like(kept), kept)
        for number, uniform, is_kept in zip(numbers, uniforms, kept, strict=True):
            seen += 1
            slot = seen - 1 if seen <= capacity else int(uniform * seen)
            if is_kept and slot < capacity:
                expected[slot] = number
        assert state[replay.LABELS].tolist() == expected
        assert state[replay.IMAGES][:, 0].tolist() == expected
        assert state[replay.SEEN] == seen


@pytest.mark.parametrize("image_size", [8, 16, 9])
def test_images_of_any_size_are_kept(image_size: int) -> None:
    """Whether or not a row is a multiple of the word size."""
    state = replay.empty(2, image_size, device=CPU)
    images = torch.randint(0, 256, (3, image_size), dtype=torch.uint8)
    given = {"images": images, "labels": torch.arange(3)}
    replay.offer_(state, given, np.array([0.0, 0.0, 0.5]), 0)
    assert torch.equal(state[replay.IMAGES], images[[0, 2]])


@pytest.mark.parametrize(("seen", "capacity", "count"), [(20, 10, 4), (10, 10, 10), (3, 10, 4), (1, 10, 6), (6, 5, 9)])
def test_a_draw_is_of_distinct_stored_examples(seen: int, capacity: int, count: int) -> None:
    """As many as asked for, or all that are stored, once; what fills up is stored too, and has no weight."""
    state = buffer(capacity)
    replay.offer_(state, examples(range(1, seen + 1)), np.random.default_rng(seen).random(seen), 0)
    drawn = replay.draw(state, count, torch.rand(capacity, dtype=torch.float64))
    numbers, weights = drawn.take(state, "labels").tolist(), drawn.weights_R.tolist()
    expected = min(count, seen, capacity)
    assert weights == [1.0] * expected + [0.0] * (min(count, capacity) - expected)
    assert len(set(numbers[:expected])) == expected
    assert set(numbers) == set(numbers[:expected]) <= set(stored(state))
    values_R = torch.tensor(numbers, dtype=torch.float64)
    torch.testing.assert_close(drawn.mean(values_R), values_R[:expected].mean())
    torch.testing.assert_close(drawn.mean(values_R.expand(2, -1)), values_R[:expected].mean().expand(2))


def test_the_smallest_keys_are_drawn() -> None:
    """Among the filled slots, in the order of their keys."""
    state = buffer(5)
    replay.offer_(state, examples(range(4)), np.zeros(4), 0)
    drawn = replay.draw(state, 3, torch.tensor([0.5, 0.1, 0.9, 0.3, 0.0], dtype=torch.float64))
    assert drawn.slots_R.tolist() == [1, 3, 0]


def test_a_mean_over_nothing_is_zero() -> None:
    """Of an empty buffer, whose gradient is zero too."""
    drawn = replay.draw(buffer(4), 3, torch.rand(4, dtype=torch.float64))
    values_R = torch.ones(3, requires_grad=True)
    mean = drawn.mean(values_R)
    (gradient_R,) = torch.autograd.grad(mean, values_R)
    assert mean == 0
    assert torch.equal(gradient_R, torch.zeros(3))


def test_examples_put_lie_where_they_were_put() -> None:
    """In slots of their own, and can be drawn from then on."""
    state = buffer(6)
    state |= replay.put(state, examples([7, 8]))
    assert stored(state) == [7, 8]
    before = state[replay.LABELS].clone()
    moved = replay.put(state, examples([9, 5]))
    assert torch.equal(state[replay.LABELS], before)
    state |= moved
    assert stored(state) == [7, 8, 9, 5]


def run_everything(device: torch.device) -> list[torch.Tensor]:
    state = replay.empty(5, 8, {"logits": (3,)}, device=device)
    given = {
        "images": torch.zeros(4, 2, 4, dtype=torch.uint8, device=device),
        "labels": torch.zeros(4, dtype=torch.int64, device=device),
        "logits": torch.zeros(4, 3, device=device),
    }
    replay.offer_(state, given, np.zeros(4), 0)
    some_B = torch.zeros(4, dtype=torch.bool, device=device)
    uniforms_B = torch.zeros(4, dtype=torch.float64, device=device)
    replay.offer_those_(state, given, uniforms_B, counted_B=some_B, stored_B=some_B)
    state |= replay.put(state, given)
    drawn = replay.draw(state, 3, torch.zeros(5, dtype=torch.float64, device=device))
    return [*state.values(), drawn.take(state, "images"), drawn.mean(drawn.take(state, "logits").mT)]


def test_no_value_is_read_back_by_the_host() -> None:
    """It runs on tensors that have no values: torch's meta tensors, and fake ones of a GPU."""
    assert {tensor.device.type for tensor in run_everything(torch.device("meta"))} == {"meta"}
    with FakeTensorMode():
        assert {tensor.device.type for tensor in run_everything(torch.device("cuda"))} == {"cuda"}
