"""What methods are built in, in tests: everything plain and on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

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
) -> Surroundings:
    """PyTorch's own products, in the dtype of the state; drawn arrays, or tensors, are copied into it."""
    return Surroundings(
        scale=scale,
        problem=problem,
        seed=seed,
        backbone={name: torch.tensor(np.asarray(array), dtype=dtype) for name, array in (backbone or {}).items()},
        normalisation=normalisation,
        device=torch.device("cpu"),
        dtype=dtype,
        product_dtype=dtype,
        kernel=PLAIN,
    )
