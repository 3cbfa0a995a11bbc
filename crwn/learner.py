"""A trial's method, built on its frozen weights: for learning, and to predict with what was learned."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from crwn.backbone import Backbone
from crwn.methods import METHODS
from crwn.methods.protocol import ContextStart, Method, Surroundings, Tensors
from crwn.nn.kernels import KERNELS, PLAIN, KernelName
from crwn.trial_spec import TrialSpec, check_network


def build(spec: TrialSpec, backbone: Backbone, device: torch.device, kernel: KernelName) -> Method:
    """The method of a trial.

    Args:
        spec: the trial.
        backbone: its frozen weights.
        device: the device of the tensors.
        kernel: computes the products.

    Raises:
        ValueError: the method cannot learn its network.
    """
    check_network(spec)
    narrow = product_dtype(spec)
    dtype = torch.promote_types(narrow, torch.float32)
    surroundings = Surroundings(
        scale=spec.scale,
        problem=spec.benchmark.problem(),
        seed=spec.seed,
        backbone=tensors_on(backbone, device, dtype),
        normalisation=spec.benchmark.normalisation(),
        device=device,
        dtype=dtype,
        product_dtype=narrow,
        kernel=KERNELS[kernel],
    )
    return METHODS[spec.method.kind].build(spec.method, surroundings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _WithoutNumbers(Surroundings):
    """Surroundings for finding out a method's tensor shapes: nothing is drawn, and all zeros share one number."""

    def draw(
        self,
        tasks: Sequence[int],
        name: str,
        shape: tuple[int, ...],
        low: float,
        high: float,
        *,
        start: ContextStart = "own",
    ) -> torch.Tensor:
        """Zeros."""
        del name, low, high, start
        return _zeros((len(tasks), *shape), self.dtype)

    def draw_normal(self, tasks: Sequence[int], name: str, shape: tuple[int, ...], std: float) -> torch.Tensor:
        """Zeros."""
        return self.draw(tasks, name, shape, 0, std)

    def draw_signs(
        self, tasks: Sequence[int], name: str, shape: tuple[int, ...], *, start: ContextStart = "own"
    ) -> torch.Tensor:
        """Zeros."""
        return self.draw(tasks, name, shape, -1, 1, start=start)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros that share a single number in memory."""
    return torch.zeros((), dtype=dtype).expand(shape)


def outline(spec: TrialSpec) -> Method:
    """The method of a trial on frozen weights of zeros, for finding out its tensors' shapes and dtypes.

    Raises:
        ValueError: the method cannot learn its network.
    """
    check_network(spec)
    narrow = product_dtype(spec)
    dtype = torch.promote_types(narrow, torch.float32)
    arrays = spec.blueprint().backbone.arrays
    surroundings = _WithoutNumbers(
        scale=spec.scale,
        problem=spec.benchmark.problem(),
        seed=spec.seed,
        backbone={array.name: _zeros(array.shape, dtype) for array in arrays},
        normalisation=spec.benchmark.normalisation(),
        device=torch.device("cpu"),
        dtype=dtype,
        product_dtype=narrow,
        kernel=PLAIN,
    )
    return METHODS[spec.method.kind].build(spec.method, surroundings)


def product_dtype(spec: TrialSpec) -> torch.dtype:
    """The dtype of a trial's activations and products."""
    dtype: torch.dtype = getattr(torch, spec.training.dtype)
    return dtype


def tensors_on(backbone: Backbone, device: torch.device, dtype: torch.dtype) -> Tensors:
    """The arrays as tensors; on a CPU, in float32, they share the arrays' memory."""
    with warnings.catch_warnings():
        # The arrays are read-only on purpose: nothing writes to frozen weights.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(array).to(device, dtype) for name, array in backbone.arrays.items()}
