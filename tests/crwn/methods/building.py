"""Builds methods for tests: with plain kernels, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from crwn.batches import Lanes
from crwn.benchmarks.protocol import Segment, Split
from crwn.data.base import Normalisation
from crwn.data.digits import DIGITS
from crwn.methods.protocol import Surroundings
from crwn.nn.kernels import PLAIN
from crwn.spec import ProblemShape


def plain_surroundings(
    scale: str,
    problem: ProblemShape,
    *,
    backbone: Mapping[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    normalisation: Normalisation = DIGITS.normalisation,
    device: str = "cpu",
) -> Surroundings:
    """PyTorch's own products, in the dtype of the state; drawn arrays, or tensors, are copied into it."""
    arrays = {name: np.asarray(array) for name, array in (backbone or {}).items()}
    return Surroundings(
        scale=scale,
        problem=problem,
        seed=seed,
        backbone={name: torch.tensor(array, dtype=dtype, device=device) for name, array in arrays.items()},
        normalisation=normalisation,
        device=torch.device(device),
        dtype=dtype,
        product_dtype=dtype,
        kernel=PLAIN,
    )


def lanes_of(
    images: torch.Tensor, labels: torch.Tensor, *, segment: int = 0, batch_size: int = 10, seed: int = 0
) -> Lanes:
    """Images [N, ...] of bytes and labels [N] as the one lane of a segment whose task is not told."""
    split = Split(images=images, labels=labels)
    return Lanes(
        segment=Segment(lanes=((segment,),), streams=(segment,), shuffled=True, tells_tasks=False, tells_ends=True),
        examples=split,
        originals=lambda: split,
        prepare=lambda _, prepared: prepared,
        seed=seed,
        batch_size=batch_size,
        augmentation=None,
    )
