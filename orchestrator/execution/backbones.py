"""Shares frozen backbones through an object store: one put per distinct backbone.

They are NumPy arrays, not tensors: reading a NumPy array from Ray's store takes a millisecond and no memory, while
reading a tensor copies it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from crwn import backbone
from crwn.backbone import Arrays, BackboneSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedBackbone:
    """A reference to a backbone's arrays, and the fingerprint taken when they were drawn."""

    reference: Any
    fingerprint: str


class SharedBackbones:
    """Backbones that this process has put into an object store.

    Args:
        put: puts arrays into the store and returns a reference; the store keeps them while the reference lives.
    """

    def __init__(self, put: Callable[[Arrays], Any]) -> None:
        self._put = put
        self._shared: dict[BackboneSpec, SharedBackbone] = {}

    def get(self, spec: BackboneSpec) -> SharedBackbone:
        """The shared backbone for a spec, drawn and put at the first request."""
        if spec not in self._shared:
            drawn = backbone.draw(spec)
            self._shared[spec] = SharedBackbone(reference=self._put(drawn.arrays), fingerprint=drawn.fingerprint)
        return self._shared[spec]

    def keep_only(self, specs: Iterable[BackboneSpec]) -> None:
        """Release all others, so that the store can drop them."""
        wanted = set(specs)
        self._shared = {spec: shared for spec, shared in self._shared.items() if spec in wanted}
