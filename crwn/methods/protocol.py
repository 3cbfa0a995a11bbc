"""The narrow interface between the engine and a method.

A method is a set of functions over tensors: what it starts from, what it computes, what it learns from a batch, what it
remembers. All of them have defaults but `logits`, so that a method's file holds only what is its own. The engine owns
the loop, the optimiser, the batches, the evaluation and what is kept. Tensors go in and come back as values; task
identities are arguments, never attributes set from outside.

A state is one dictionary of tensors by name. Each has a role:

- of each task's own, with a leading task axis: trained (it requires a gradient), moving (it comes back in `Step.moved`,
  such as running statistics), or constant (all others; they are drawn again, never stored);
- shared by all tasks, without that axis: trained (it requires a gradient as `start_shared` gives it) or moving;
- memory: what a method remembers to learn by, such as a replay buffer or a Fisher matrix. It never has a gradient.

Shapes: G tasks learned together, B examples per task, d numbers per image, m classes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch

    from crwn.batches import Batch, Examples
    from crwn.data.base import Normalisation
    from crwn.nn import losses, weights
    from crwn.nn.kernels import FrozenLinear, Kernel
    from crwn.spec import ProblemShape
else:
    torch = LazyModule("torch")
    losses = LazyModule("crwn.nn.losses")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """Gradients that were worked out without autograd, which takes twice as long where a network is small.

    Attributes:
        loss_G: of which sum they are the gradients. Of what is made of this tensor they say nothing.
        gradients: by the names of what is trained; what is not named has none.
    """

    loss_G: torch.Tensor
    gradients: Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a method makes of a batch.

    Attributes:
        loss_G: one for each task learned together; each task's own tensors have the gradient of its own loss. Always
            differentiable, so that a method may add to the loss of another.
        logits_GBm: of the batch's images, for the learning curve.
        moved: new values by name of what no gradient moves: running statistics and memory. They are kept once the
            optimiser has stepped.
        by_hand: the gradients where they are known; without them, and for another `loss_G`, autograd finds them.
    """

    loss_G: torch.Tensor
    logits_GBm: torch.Tensor
    moved: Tensors = field(default_factory=dict)
    by_hand: ByHand | None = None

    def gradients(self, trained: Tensors) -> Tensors:
        """Of the sum of the losses, by the name of what is trained; what they do not use has none, and stays."""
        if self.by_hand is not None and self.by_hand.loss_G is self.loss_G:
            known = self.by_hand.gradients
            return {name: known[name] for name in trained if name in known}
        # (Of a sum: torch would import its compiler, for seconds, to look at gradients that are given.)
        found = torch.autograd.grad(self.loss_G.sum(), list(trained.values()), allow_unused=True)
        pairs = zip(trained, found, strict=True)
        return {name: g for name, g in pairs if g is not None}  # type: ignore[redundant-expr]  # it may be


class Method(ABC):
    """What the engine asks of a method; all but `logits` has a default.

    `state` is always what all tasks share, the memory, and, where tasks are told, the tasks' own tensors.
    """

    def start_shared(self) -> Tensors:
        """The weights that all tasks share and learning changes, as they are at first; none where all are frozen.

        Those that are trained require a gradient; when they are trained is the blueprint's `moves_shared`.
        """
        return {}

    def start_memory(self) -> Tensors:
        """What the method remembers to learn by, before it has learned anything."""
        return {}

    def start(self, tasks: Sequence[int]) -> Tensors:
        """The own state from which `tasks` are learned, each tensor with a leading task axis.

        Those that are trained require a gradient. A task's numbers depend on the trial's seed and the task alone, not
        on the tasks beside it. Not asked for where tasks are not told.
        """
        del tasks
        return {}

    def prepare(self, task: int | None, images_Nd: torch.Tensor) -> torch.Tensor:
        """What `logits` takes of a task's images, computed once; the bytes, unless a method says otherwise.

        Args:
            task: whose images they are; None wherever it is not told.
            images_Nd: unsigned bytes.

        Returns:
            [N, ...].
        """
        del task
        return images_Nd

    @abstractmethod
    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """Class scores of prepared images, each task's with its own part of `state`.

        Args:
            state: as above.
            images: [G, B, ...].
            training: whether batch normalisation takes the batch's statistics.
            moved: in training, takes the new values of running statistics by name; None: they stay as they are.

        Returns:
            [G, B, m].
        """

    def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
        """What changes before a segment is learned, where its beginning is told; killed inside, it is done again whole.

        Args:
            state: as the segment before left it.
            examples: the segment's training examples.
            rate: the learning rate.

        Returns:
            New values by name, of memory or of what is trained.
        """
        del state, examples, rate
        return {}

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """What is learned from a batch: by default the cross-entropy of its labels."""
        moved: Tensors = {}
        logits_GBm = self.logits(state, batch.images, training=True, moved=moved)
        loss_G = losses.cross_entropy(logits_GBm, batch.labels)
        return Step(loss_G=loss_G, logits_GBm=logits_GBm, moved=moved)

    def adjust(self, state: Tensors, batch: Batch, gradients: Tensors) -> tuple[Tensors, Tensors]:
        """The gradients that the optimiser gets, by the names of what is trained, and new values of memory by name."""
        del state, batch
        return gradients, {}

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        """New values of memory by name after a segment was learned, where its end is told.

        Killed inside, it is done again whole.
        """
        del state, examples
        return {}

    def rate(self, segment: int, rate: float) -> float:
        """The learning rate of a segment, counted from 0, given the trial's."""
        del segment
        return rate

    def pack(self, state: Tensors) -> Tensors:
        """What is kept of the own state of learned tasks, with a leading task axis; all that is not constant."""
        return state

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """The own state of `tasks`, which gives the same logits as the one that was packed."""
        del tasks
        return kept

    def needed_to_predict(self, shared: Tensors) -> Tensors:
        """What of the shared weights is written out where a trial is to keep its weights."""
        return shared


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleFamily:
    """A family of scales: a regular expression with one group, a number, and examples for the error."""

    pattern: str
    examples: str


def trained_from(backbone: Tensors) -> Tensors:
    """Shared weights that start as drawn and are trained: `<layer>.weight` of every layer."""
    return {f"{name}.weight": weight.detach().requires_grad_() for name, weight in backbone.items()}


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
