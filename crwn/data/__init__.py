"""Base data sets: the real images from which benchmarks make their tasks.

`BASE_SETS` is the registry. `find` and `load` do not import torch unless a set's own loader does.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from crwn.data import cifar100, digits, imagenet, mnist
from crwn.data.base import BaseSet, DataError, Datasets, data_roots
from crwn.registry import Registry
from crwn.spec import OneOf

BASE_SETS: Registry[BaseSet] = Registry(
    "data set",
    {
        base.name: base
        for base in (
            digits.DIGITS,
            mnist.MNIST_BASE,
            cifar100.CIFAR100_BASE,
            imagenet.MINI_IMAGENET,
            imagenet.TINY_IMAGENET,
        )
    },
)

Base: TypeAlias = Annotated[str, OneOf(lambda: tuple(BASE_SETS))]
"""The name of a base set."""

GreyBase: TypeAlias = Annotated[
    str, OneOf(lambda: tuple(name for name, base in BASE_SETS.items() if base.image_shape[0] == 1))
]
"""The name of a base set with one channel: one whose pixels can be rotated or permuted."""

__all__ = ["BASE_SETS", "Base", "BaseSet", "DataError", "Datasets", "GreyBase", "data_roots", "datasets"]


def datasets(data_root: str | None = None) -> Datasets:
    """The base sets, searched for under `data_root`, then $CRWN_DATA, then ~/.cache/crwn."""
    return Datasets(BASE_SETS, data_roots(data_root))
