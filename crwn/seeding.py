"""Named random streams: everything random in a trial depends on (seed, purpose), never on global state.

Streams with different names or seeds are independent (their keys are cryptographic hashes), and a stream can be drawn
again at any time. This makes resuming exact: a resume point stores positions, such as the epoch and the step, and the
streams follow from them.

All streams use NumPy's PCG64 on the CPU: the same bits on every machine and for every device. (torch's CPU generator
uses only 32 bits of a seed, so among many streams, two would soon be equal.) Only code without a generator, the modules
of a user's own networks, draws from torch's global generators, within `forked`.

The purposes in use:
    ("backbone", array)          frozen weights
    ("permutation", task)        the pixel permutation of a task
    ("angle", task)              the angle of a task, if rotations are random
    ("classes")                  the classes of each task, if classes are split
    ("superclasses")             the order of super-classes, if tasks share them
    ("superclasses", superclass) which of its classes each of its tasks has
    ("sequence")                 the order in which classes arrive, if it is random
    ("turning", digit)           the order of a digit's images in the stream of turning digits
    ("items", "pairs")           the items of a trial
    ("items", "train" or "test", item)  an item's images
    ("items", "noise", training) the noise mixed with an item
    ("items", "order")           the order of items that are trained at different frequencies
    ("items", "poison")          the other labels of poisoned items
    ("validation")               the training images that are held out; the same seed for all trials
    ("batches", task, epoch)     the order of the examples
    ("batches", "mixed", epoch)  the same, if all tasks are learned jointly
    ("augment", task, epoch)     how each example is cropped and flipped; "mixed" as above
    ("test batches", task)       the order of test examples, if tests depend on the batch
    ("task inference", task)     the test images of which the task is inferred; the same seed for all trials
    ("state", task, tensor)      the initial values of a task's tensors
    ("state", "shared", tensor)  the same, if all tasks start alike
    ("update", name, update)     what a method draws in an update of the trial, such as which examples to replay
    ("update", name, task, step) the same for each of several tasks that are learned at once
    ("network", "start")         the initial values of a user's own network
    ("network", "update", update)     what such a network draws in an update of the trial, such as dropout
    ("network", "segment", segment)   the same when a segment begins or ends
    ("segment", name, segment)   what a method draws when a segment begins or ends
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from crwn.lazy import LazyModule

if TYPE_CHECKING:
    from hashlib import _Hash

    import torch
else:
    torch = LazyModule("torch")


def stream_key(seed: int, *purpose: str | int) -> int:
    """The 128-bit key of the stream `purpose` of `seed`."""
    return int.from_bytes(_key_bytes(seed, *purpose), "little")


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy PCG64 generator: the same bits on every machine and with any number of threads."""
    words = np.frombuffer(_key_bytes(seed, *purpose), dtype="<u4")  # NumPy is slow to split a single number
    return np.random.Generator(np.random.PCG64(words))


@contextmanager
def forked(device: torch.device, seed: int, *purpose: str | int) -> Iterator[None]:
    """A block in which torch's global generators are seeded from the stream `purpose` of `seed`; restored afterwards.

    The only code that touches global random state, for modules that take no generator.

    Args:
        device: the device whose generator is used, in addition to the CPU's.
        seed: the trial's seed.
        *purpose: the stream's name.
    """
    devices = [device] if device.type == "cuda" else []
    key = stream_key(seed, *purpose) % 2**63
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(key)
        if devices:
            torch.cuda.manual_seed(key)
        yield


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
