"""Named random streams: everything random in a trial comes from (seed, purpose), never from global state.

Two streams with different names or seeds are independent (their keys are cryptographic hashes), and a stream can be
drawn again at any time, which is what makes resuming exact: a resume point keeps positions, such as the epoch and the
step, and the streams follow from them.

All are drawn by NumPy's PCG64, on the CPU: the same bits on every machine and for every device. (torch's CPU generator
takes 32 bits of a seed, so that among many streams two would soon be equal.)

The purposes in use:
    ("backbone", array)          frozen weights
    ("permutation", task)        the pixel permutation of a task
    ("angle", task)              the angle of a task where rotations are random
    ("classes")                  which classes a task of split classes has
    ("sequence")                 in which order classes arrive where that is drawn
    ("turning", digit)           the order of a digit's images in the stream of turning digits
    ("validation")               which training images are held out; drawn with one seed for all
    ("batches", task, epoch)     the order of the examples
    ("batches", "mixed", epoch)  the same where all tasks are learned together
    ("augment", task, epoch)     how each example is cropped and flipped; "mixed" as above
    ("test batches", task)       the order of test examples where tests depend on the batch
    ("state", task, tensor)      what a task starts learning from
    ("update", name, update)     what a method draws in an update of the trial, such as which examples are replayed
    ("update", name, task, step) the same for each of several tasks that are learned side by side
    ("segment", name, segment)   what a method draws when a segment begins or ends
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def stream_key(seed: int, *purpose: str | int) -> int:
    """A 128-bit key for the stream `purpose` of `seed`."""
    name = json.dumps(["crwn-stream-1", seed, *purpose])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy PCG64 generator: the same bits on every machine and with any number of threads."""
    return np.random.Generator(np.random.PCG64(stream_key(seed, *purpose)))
