"""A trial's method, built on its frozen weights: for learning, and to predict with what was learned."""

from __future__ import annotations

import warnings

import torch

from crwn.backbone import Backbone
from crwn.methods import METHODS
from crwn.methods.protocol import Method, Surroundings, Tensors
from crwn.nn.kernels import KERNELS, KernelName
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
