"""The narrow interface between the engine and a method.

A method is a set of functions over tensors with a leading task axis; the engine owns the loop, the optimiser, the
batches, the evaluation and what is kept. Task identities are arguments, never attributes set from outside.

Shapes: G tasks learned together, B examples a task, d numbers an image, m classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch

    from crwn.data.base import Normalisation
    from crwn.nn import weights
    from crwn.nn.kernels import FrozenLinear, Kernel
    from crwn.spec import ProblemShape
else:
    torch = LazyModule("torch")
    weights = LazyModule("crwn.nn.weights")

Tensors: TypeAlias = "dict[str, torch.Tensor]"

Modulation: TypeAlias = Literal["local+global", "local", "global"]
"""Which of a modulated layer's numbers are trained: contexts (local), strengths (global), or both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a method is built from, besides its own spec.

    Attributes:
        scale: as in the trial's spec.
        problem: the benchmark's sizes.
        seed: the trial's seed.
        backbone: the drawn arrays by name, on the device, in `dtype`.
        normalisation: of the benchmark's images.
        device: where tensors live.
        dtype: of everything that is learned.
        product_dtype: of activations and products, `dtype` or a narrower one.
        kernel: how products are computed.
    """

    scale: str
    problem: ProblemShape
    seed: int
    backbone: Tensors
    normalisation: Normalisation
    device: torch.device
    dtype: torch.dtype
    product_dtype: torch.dtype
    kernel: Kernel

    def normalised(self, bytes_GBd: torch.Tensor) -> torch.Tensor:
        """Pixels as the networks see them, in `product_dtype`."""
        return self.normalisation(bytes_GBd, self.dtype).to(self.product_dtype)

    def draw(self, tasks: Sequence[int], name: str, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        """Uniform numbers for the tensor `name` of each task, from that task's own stream.

        Drawn in float32 by NumPy, so that neither the tasks learned beside it nor the device change a task's start.

        Returns:
            [G, *shape].
        """
        unit = np.stack([stream.random(shape, dtype=np.float32) for stream in self.streams(tasks, name)])
        return self.as_tensor(np.float32(low) + np.float32(high - low) * unit)

    def draw_normal(self, tasks: Sequence[int], name: str, shape: tuple[int, ...], std: float) -> torch.Tensor:
        """As `draw`, from a zero-mean Gaussian with standard deviation `std`."""
        unit = np.stack([stream.standard_normal(shape, dtype=np.float32) for stream in self.streams(tasks, name)])
        return self.as_tensor(np.float32(std) * unit)

    def draw_signs(self, tasks: Sequence[int], name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """As `draw`, plus or minus one with equal chances."""
        bits = np.stack([stream.integers(0, 2, size=shape, dtype=np.int8) for stream in self.streams(tasks, name)])
        return self.as_tensor(np.float32(2) * bits.astype(np.float32) - np.float32(1))

    def streams(self, tasks: Sequence[int], name: str) -> Iterator[np.random.Generator]:
        """Each task's own stream for the tensor `name`."""
        return (seeding.numpy_generator(self.seed, "state", task, name) for task in tasks)

    def as_tensor(self, array: NDArray[np.float32]) -> torch.Tensor:
        """On the device, in the dtype of what is learned."""
        return torch.from_numpy(array).to(device=self.device, dtype=self.dtype)


class SharedWeights:
    """The weights that tasks share as layers want them: trained ones as they are now, frozen ones prepared once."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._kernel = surroundings.kernel
        self._dtype = surroundings.product_dtype
        self._frozen: dict[str, tuple[torch.Tensor, FrozenLinear]] = {}

    def __call__(self, name: str, weight_OI: torch.Tensor) -> FrozenLinear | weights.SharedWeight:
        """The weight of the layer `name`, which is trained if it requires a gradient."""
        if weight_OI.requires_grad:
            return weights.SharedWeight(weight_OI.to(self._dtype), self._kernel)
        if name not in self._frozen or self._frozen[name][0] is not weight_OI:
            self._frozen[name] = (weight_OI, self._kernel.freeze(weight_OI.to(self._dtype)))
        return self._frozen[name][1]


class Method(Protocol):
    """What the engine needs of a method.

    A state holds the tasks' own tensors, each with a leading task axis, and those of `start_shared`, without one.
    """

    def start_shared(self) -> Tensors:
        """The weights that all tasks share and learning changes, as they are at first; none where all are frozen.

        When they are trained is the blueprint's `shared_training`.
        """
        ...

    def start(self, tasks: Sequence[int]) -> Tensors:
        """The own state from which `tasks` are learned, each tensor with a leading task axis.

        Those that are trained require a gradient; the others are constants of the task. A task's numbers depend on
        the trial's seed and the task alone, not on the tasks beside it.
        """
        ...

    def prepare(self, task: int, images_Nd: torch.Tensor) -> torch.Tensor:
        """What `logits` takes of a task's images, computed once; the bytes, unless a method says otherwise.

        Not asked of a mixture of tasks, whose images are taken as they are.

        Args:
            task: whose images they are.
            images_Nd: unsigned bytes.

        Returns:
            [N, ...].
        """
        del task
        return images_Nd

    def logits(self, state: Tensors, images: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """Class scores [G, B, m] of prepared images [G, B, ...], each task's with its own part of `state`.

        In training the running statistics in `state` move, in place.
        """
        ...

    def pack(self, state: Tensors) -> Tensors:
        """What is kept of the own state of learned tasks: a few KB each, with a leading task axis."""
        ...

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """The own state of `tasks`, which gives the same logits as the one that was packed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleFamily:
    """A family of scales: a regular expression with one group, a number, and examples for the error."""

    pattern: str
    examples: str


RUNNING_MEAN, RUNNING_VARIANCE = ".running_mean", ".running_var"


def is_statistic(name: str) -> bool:
    """Whether a tensor of a state is a running statistic of batch normalisation: moved by training, not trained."""
    return name.endswith((RUNNING_MEAN, RUNNING_VARIANCE))


FULLY_CONNECTED = ScaleFamily(pattern=r"FC([1-9][0-9]{0,5})", examples="FC256 or FC4096")
"""FC_H: two hidden layers of H units."""


class ScaleError(ValueError):
    """A scale that the method does not have."""


def parse_scale(scale: str, family: ScaleFamily) -> int:
    """The number in a scale such as FC256.

    Raises:
        ScaleError: the scale is not one of the family.
    """
    match = re.fullmatch(family.pattern, scale)
    if match is None:
        raise ScaleError(f"scale: expected one such as {family.examples}, given {scale!r}")
    return int(match[1])


def check_range(low_name: str, low: float, high_name: str, high: float) -> None:
    """Check that a range is not upside down.

    Raises:
        ValueError: it is.
    """
    if low > high:
        raise ValueError(f"{low_name}: expected at most {high_name} ({high}), given {low}")


def modulated_counts(num_inputs: int, num_layers: int, modulation: Modulation) -> tuple[int, int]:
    """How many numbers a task of a modulated network trains, and how many are kept of it.

    Args:
        num_inputs: the inputs of all modulated layers together, one context number each.
        num_layers: modulated layers, one strength each.
        modulation: what is trained; contexts and strengths are kept whether trained or not.
    """
    contexts = num_inputs if modulation != "global" else 0
    strengths = num_layers if modulation != "local" else 0
    return contexts + strengths, num_inputs + num_layers


def start_modulated(
    surroundings: Surroundings,
    tasks: Sequence[int],
    *,
    inputs: Mapping[str, tuple[int, ...]],
    modulation: Modulation,
    context_range: tuple[float, float],
    initial_strength: float,
) -> Tensors:
    """Contexts [G, I] or [G, I, k, k] and strengths [G] for the modulated layers whose inputs are given by name."""
    state = {}
    for layer, shape in inputs.items():
        context_GI = surroundings.draw(tasks, f"{layer}.context", shape, *context_range)
        strength_G = torch.full((len(tasks),), initial_strength, device=surroundings.device, dtype=surroundings.dtype)
        state[f"{layer}.context"] = context_GI.requires_grad_(modulation != "global")
        state[f"{layer}.strength"] = strength_G.requires_grad_(modulation != "local")
    return state
