"""Named random streams."""

from __future__ import annotations

import hashlib

import numpy as np

from crwn import seeding

Purpose = tuple[str | int, ...]

PURPOSES: list[tuple[int, Purpose]] = [
    (seed, purpose)
    for seed in (0, 1, 2)
    for purpose in [
        ("backbone", "layer1"),
        ("backbone", "layer2"),
        ("permutation", 1),
        ("permutation", 2),
        ("permutation", "1"),
        ("batches", 1, 2),
        ("batches", 2, 1),
        ("batches", 12),
        ("batches", 1, "2"),
        ("batches", "mixed", 2),
        ("validation",),
        ("state", 1, "layer1.context"),
        ("state", 1, "layer2.context"),
        ("state", 2, "layer1.context"),
    ]
]


def test_the_key_is_a_hash_of_seed_and_purpose() -> None:
    """The first 128 bits, little-endian, of SHA-256 over a JSON list: computed here from the written-out text."""
    digest = hashlib.sha256(b'["crwn-stream-1", 3, "batches", 7, 0]').digest()
    assert seeding.stream_key(3, "batches", 7, 0) == int.from_bytes(digest[:16], "little")


def test_the_streams_never_change_by_accident() -> None:
    """The key and first raw numbers of a stream, and two permutations, as on every machine and release so far."""
    assert seeding.stream_key(0, "backbone", "layer1") == 91423478513829407304829850793361082251
    raw = seeding.numpy_generator(0, "backbone", "layer1").bit_generator.random_raw(3)
    assert raw.tolist() == [14095312439225766624, 11092477190701773500, 8258931748415288090]
    assert seeding.numpy_generator(7, "permutation", 3).permutation(8).tolist() == [3, 7, 0, 1, 4, 5, 2, 6]
    assert seeding.numpy_generator(7, "batches", 3, 1).permutation(8).tolist() == [2, 5, 7, 3, 4, 6, 1, 0]


def test_the_generator_is_pcg64() -> None:
    """The generator whose bits do not depend on the machine."""
    assert isinstance(seeding.numpy_generator(0, "backbone", "layer1").bit_generator, np.random.PCG64)


def test_any_part_of_seed_and_purpose_makes_another_stream() -> None:
    """Each seed, name, number, their order and their types: no two streams begin alike."""
    starts = {seeding.numpy_generator(seed, *purpose).random(4).tobytes() for seed, purpose in PURPOSES}
    assert len(starts) == len(PURPOSES)


def test_a_stream_can_be_drawn_again() -> None:
    """Equal seed and purpose give equal numbers, whatever was drawn in between."""
    first = seeding.numpy_generator(1, "batches", 0, 0).random(5)
    seeding.numpy_generator(2, "batches", 0, 0).random(100)
    assert np.array_equal(seeding.numpy_generator(1, "batches", 0, 0).random(5), first)


def test_streams_are_uncorrelated() -> None:
    """The correlation of two independent samples of n numbers has a standard deviation of 1/sqrt(n): five of them."""
    num = 10_000
    streams = np.stack([seeding.numpy_generator(seed, *purpose).random(num) for seed, purpose in PURPOSES])
    correlations = np.corrcoef(streams) - np.eye(len(PURPOSES))
    assert np.abs(correlations).max() < 5 / num**0.5


def test_the_whole_key_counts() -> None:
    """Two streams whose keys agree in their lower 32 bits, found by search, are different streams.

    A generator that takes 32 bits of a seed, such as torch's on the CPU, would make them one.
    """
    one, other = (("state", task, "layer1.context") for task in (17518, 18370))
    assert seeding.stream_key(0, *one) % 2**32 == seeding.stream_key(0, *other) % 2**32
    starts = [seeding.numpy_generator(0, *purpose).random(4) for purpose in (one, other)]
    assert not np.array_equal(*starts)
