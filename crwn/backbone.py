"""Frozen weights as data: drawn once from (seed, array name), fingerprinted, shared, never trained.

We draw them with NumPy's PCG64 because it gives the same bits on every machine; torch's generators do not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.faults import InvalidError

Array: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = Mapping[str, Array]

ALIGNMENT = 64
"""Alignment in bytes, as in Ray's object store, so that a GEMM rounds the same way wherever its weights are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """One frozen float32 array.

    Attributes:
        name: the array's name, which determines its values together with the seed.
        shape: [out, in], or [out, in, k, k] for a convolution.
        distribution: `normal`, zero mean; `uniform`, between plus and minus a bound; `signed-constant`, plus or minus
            one magnitude; `subset`, in every row a number of ones at places drawn without replacement, zeros elsewhere.
        parameter: the standard deviation, the bound, the magnitude, or the number of ones per row.
    """

    name: str
    shape: tuple[int, ...]
    distribution: Literal["normal", "uniform", "signed-constant", "subset"]
    parameter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """All frozen arrays of one network for one seed. Equal specs give equal bytes."""

    seed: int
    arrays: tuple[ArraySpec, ...]

    @property
    def num_bytes(self) -> int:
        """The size of the arrays in bytes."""
        return sum(4 * math.prod(array.shape) for array in self.arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """Frozen, read-only arrays with the fingerprint taken when they were drawn."""

    arrays: Arrays
    fingerprint: str

    def checked(self) -> Backbone:
        """This backbone, after verifying its arrays against the fingerprint.

        Raises:
            ValueError: the fingerprint differs; the arrays were changed or mixed up in transit.
        """
        found = fingerprint(self.arrays)
        if found != self.fingerprint:
            raise InvalidError(
                "backbone-changed",
                f"backbone: expected the fingerprint {self.fingerprint}, found {found}: the frozen weights were "
                "changed after they were drawn. Results from them would be wrong; run the sweep again.",
            )
        return self


BackboneSource: TypeAlias = Callable[[BackboneSpec], Backbone]
"""Returns the backbone for a spec, either drawn at once or read from shared memory."""


def draw(spec: BackboneSpec) -> Backbone:
    """Draw the arrays of `spec`.

    Returns:
        Read-only float32 arrays in 64-byte aligned memory, and their fingerprint.
    """
    arrays = {array.name: _draw_array(array, spec.seed) for array in spec.arrays}
    return Backbone(arrays=arrays, fingerprint=fingerprint(arrays))


def fingerprint(arrays: Arrays) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the arrays, as 64 hexadecimal digits; `none` without arrays."""
    if not arrays:
        return "none"
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _draw_array(spec: ArraySpec, seed: int) -> Array:
    generator = seeding.numpy_generator(seed, "backbone", spec.name)
    array = _aligned_zeros(spec.shape)
    match spec.distribution:
        case "normal":
            generator.standard_normal(dtype=np.float32, out=array)
            array *= np.float32(spec.parameter)
        case "uniform":
            generator.random(dtype=np.float32, out=array)
            array *= np.float32(2 * spec.parameter)
            array -= np.float32(spec.parameter)
        case "signed-constant":
            array[...] = generator.integers(0, 2, size=spec.shape, dtype=np.int8)
            array *= np.float32(2 * spec.parameter)
            array -= np.float32(spec.parameter)
        case "subset":
            num_rows, num_inputs = spec.shape
            for row in range(num_rows):
                array[row, generator.choice(num_inputs, size=int(spec.parameter), replace=False)] = 1
    array.flags.writeable = False
    return array


def _aligned_zeros(shape: tuple[int, ...]) -> Array:
    buffer = np.zeros(4 * math.prod(shape) + ALIGNMENT, dtype=np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)
