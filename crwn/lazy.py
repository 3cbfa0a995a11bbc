"""Modules that are imported when first used.

Reading a sweep, planning it, and finding that nothing is left to do must not cost torch's two seconds, and a method's
spec and its mathematics belong in one file. So the files that hold specs bind torch through `LazyModule`:

    if TYPE_CHECKING:
        import torch
    else:
        torch = LazyModule("torch")

A type checker and an editor see the plain import. tests/test_layering.py holds that reading specs imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for the module `name`, which is imported at the first access to one of its attributes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)  # found at once from now on: this sits in training loops
        return value
