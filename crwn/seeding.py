"""Named random streams: everything random in a trial depends on (seed, purpose), never on global state.

Streams with different names or seeds are independent (their keys are cryptographic hashes), and a stream can be drawn
again at any time. This makes resuming exact: a resume point stores positions, such as the epoch and the step, and the
streams follow from them.

All streams use NumPy's PCG64 on the CPU: the same bits on every machine and for every device. (torch's CPU generator
uses only 32 bits of a seed, so among many streams two would soon be equal.)

The purposes in use:
    ("backbone", array)          frozen weights
    ("permutation", task)        the pixel permutation of a task
    ("angle", task)              the angle of a task, if rotations are random
    ("classes")                  the classes of each task, if classes are split
    ("sequence")                 the order in which classes arrive, if it is random
    ("turning", digit)           the order of a digit's images in the stream of turning digits
    ("items", "pairs")           the items of a trial
    ("items", "train" or "test", item)  an item's images
    ("items", "noise", training) the noise beside an item
    ("items", "order")           the order of items that are trained at different frequencies
    ("items", "poison")          the other labels of poisoned items
    ("validation")               the training images that are held out; the same seed for all trials
    ("batches", task, epoch)     the order of the examples
    ("batches", "mixed", epoch)  the same, if all tasks are learned jointly
    ("augment", task, epoch)     how each example is cropped and flipped; "mixed" as above
    ("test batches", task)       the order of test examples, if tests depend on the batch
    ("state", task, tensor)      the initial values of a task's tensors
    ("update", name, update)     what a method draws in an update of the trial, such as which examples to replay
    ("update", name, task, step) the same for each of several tasks that are learned at once
    ("segment", name, segment)   what a method draws when a segment begins or ends
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hashlib import _Hash


def stream_key(seed: int, *purpose: str | int) -> int:
    """The 128-bit key of the stream `purpose` of `seed`."""
    return int.from_bytes(_key_bytes(seed, *purpose), "little")


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy PCG64 generator: the same bits on every machine and with any number of threads."""
    words = np.frombuffer(_key_bytes(seed, *purpose), dtype="<u4")  # NumPy is slow to split a single number
    return np.random.Generator(np.random.PCG64(words))


def _key_bytes(seed: int, *purpose: str | int) -> bytes:
    """The first 16 bytes of the SHA-256 of the stream's name, a list in JSON."""
    *start, last = purpose
    name = _hashed(seed, *start).copy()
    name.update(f", {json.dumps(last)}]".encode())
    return name.digest()[:16]


@functools.lru_cache(maxsize=64, typed=True)
def _hashed(seed: int, *start: str | int) -> _Hash:
    """The SHA-256 of a name without its last part, in which the streams of a trial's updates differ."""
    return hashlib.sha256(json.dumps(["crwn-stream-1", seed, *start])[:-1].encode())
