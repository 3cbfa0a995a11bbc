"""Modules that are imported on first use.

Importing torch takes two seconds, which reading a sweep, planning it, and finding nothing left to do must not cost. But
a method's spec and its maths belong in one file. So the files that hold specs bind torch through `LazyModule`:

    if TYPE_CHECKING:
        import torch
    else:
        torch = LazyModule("torch")

Type checkers and editors see the plain import. tests/test_layering.py checks that reading specs does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands in for the module `name`, and imports it when one of its attributes is first accessed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)  # training loops use it: later accesses bypass __getattr__
        return value
