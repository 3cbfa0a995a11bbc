"""The narrow interface between the engine and a method.

A method is a set of functions over tensors: its initial state, its class scores, what it learns from a batch, and its
memory. All but `logits` have defaults, so a method's file holds only what is specific to it. The engine owns the loop,
the optimiser, the batches, the evaluation and what is stored. Tensors go in and come back as values; task identities
are arguments, never attributes set from outside.

A state is one dictionary of tensors by name. Each tensor has a role:

- per task, with a leading task axis: trained (it requires a gradient), moving (updates come back in `Step.moved`, such
  as running statistics), or constant (all others; they are drawn again, never stored);
- shared by all tasks, without that axis: trained (it requires a gradient when `start_shared` returns it) or moving;
- memory: what a method remembers in order to learn, such as a replay buffer or a Fisher matrix. It has no gradient.

Shapes: G tasks learned at once, B examples per task, d values per image, m classes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn import seeding
from crwn.faults import InvalidError
from crwn.lazy import LazyModule
from crwn.registry import Registry

if TYPE_CHECKING:
    import torch

    from crwn.batches import Batch, Examples
    from crwn.data.base import Normalisation
    from crwn.nn import kernels, losses, weights
    from crwn.nn.kernels import FrozenLinear, Kernel
    from crwn.spec import ProblemShape
else:
    torch = LazyModule("torch")
    kernels = LazyModule("crwn.nn.kernels")
    losses = LazyModule("crwn.nn.losses")
    weights = LazyModule("crwn.nn.weights")

Tensors: TypeAlias = "dict[str, torch.Tensor]"

ContextStart: TypeAlias = Literal["own", "shared"]
"""Whether each task's own tensors start from numbers of its own, or those of all tasks from the same ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a method is built from, besides its own spec.

    Attributes:
        scale: as in the trial's spec.
        problem: the benchmark's sizes.
        seed: the trial's seed.
        backbone: the drawn arrays by name, on the device, in `dtype`.
        normalisation: the normalisation of the benchmark's images.
        device: the device of the tensors.
        dtype: dtype of everything that is learned.
        product_dtype: dtype of activations and products, `dtype` or a narrower one.
        kernel: computes the products.
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
        """The normalised pixels, in `product_dtype`."""
        return kernels.cast(self.normalisation(bytes_GBd, self.dtype), self.product_dtype)

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
        """Draw uniform numbers for the tensor `name` of each task, from that task's own stream or from a shared one.

        NumPy draws them in float32, so a task's initial state depends on neither the device nor the other tasks.

        Returns:
            [G, *shape].
        """
        unit = np.stack([stream.random(shape, dtype=np.float32) for stream in self.streams(tasks, name, start=start)])
        return self.as_tensor(np.float32(low) + np.float32(high - low) * unit)

    def draw_normal(self, tasks: Sequence[int], name: str, shape: tuple[int, ...], std: float) -> torch.Tensor:
        """Like `draw`, from a zero-mean Gaussian with standard deviation `std`."""
        unit = np.stack([stream.standard_normal(shape, dtype=np.float32) for stream in self.streams(tasks, name)])
        return self.as_tensor(np.float32(std) * unit)

    def draw_signs(
        self, tasks: Sequence[int], name: str, shape: tuple[int, ...], *, start: ContextStart = "own"
    ) -> torch.Tensor:
        """Like `draw`, plus or minus one with equal probability."""
        streams = self.streams(tasks, name, start=start)
        bits = np.stack([stream.integers(0, 2, size=shape, dtype=np.int8) for stream in streams])
        return self.as_tensor(np.float32(2) * bits.astype(np.float32) - np.float32(1))

    def streams(self, tasks: Sequence[int], name: str, *, start: ContextStart = "own") -> Iterator[np.random.Generator]:
        """Each task's stream for the tensor `name`: its own, or one that begins alike for all tasks."""
        owners: Sequence[int | str] = tasks if start == "own" else ["shared"] * len(tasks)
        return (seeding.numpy_generator(self.seed, "state", owner, name) for owner in owners)

    def as_tensor(self, array: NDArray[np.float32]) -> torch.Tensor:
        """The array as a tensor on the device, in `dtype`."""
        return torch.from_numpy(array).to(device=self.device, dtype=self.dtype)


class SharedWeights:
    """The shared weights as layers take them: trained ones with their current values, frozen ones prepared once."""

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
    """Gradients computed without autograd, which takes more than twice as long for a small network.

    Attributes:
        loss_G: the losses whose sum they are the gradients of; they do not hold for tensors computed from these.
        gradients: by the name of the trained tensor; tensors not named have none.
    """

    loss_G: torch.Tensor
    gradients: Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a method computes from a batch.

    Attributes:
        loss_G: one loss per task learned at once; each task's own tensors get the gradient of its own loss. With
            autograd it is differentiable, so that a method may add to another's loss.
        logits_GBm: class scores of the batch, for the learning curve.
        moved: new values by name of tensors without gradients: running statistics and memory. They take effect once the
            optimiser has stepped.
        by_hand: the gradients, if computed by hand; without them, or for a different `loss_G`, autograd computes them.
    """

    loss_G: torch.Tensor
    logits_GBm: torch.Tensor
    moved: Tensors = field(default_factory=dict)
    by_hand: ByHand | None = None

    def gradients(self, trained: Tensors) -> Tensors:
        """The gradients of the sum of the losses by name; trained tensors that it does not depend on are left out."""
        if self.by_hand is not None and self.by_hand.loss_G is self.loss_G:
            known = self.by_hand.gradients
            return {name: known[name] for name in trained if name in known}
        if not self.loss_G.requires_grad:
            raise InvalidError(
                "loss-without-graph",
                "loss_G: expected the loss whose gradients are given by hand, or one with a graph; given another. "
                "A method that changes such a loss sets `learns_by_hand = False`.",
            )
        # (Use a sum: given grad_outputs, torch would import its compiler, which takes seconds.)
        found = torch.autograd.grad(self.loss_G.sum(), list(trained.values()), allow_unused=True)
        pairs = zip(trained, found, strict=True)
        return {name: g for name, g in pairs if g is not None}  # type: ignore[redundant-expr]  # it may be


class Method(ABC):
    """The functions that the engine calls on a method; all but `logits` have defaults.

    `state` always holds the shared tensors, the memory and, if tasks are told, the tasks' own tensors.
    """

    @property
    def learns_by_hand(self) -> bool:
        """Whether `learn` computes all gradients by hand in every update; the engine then calls it without autograd."""
        return False

    @property
    def shows_activity(self) -> bool:
        """Whether `activity` shows anything; test images are read for it only then."""
        return False

    def start_shared(self) -> Tensors:
        """The initial values of the shared tensors that learning changes; empty if all are frozen.

        Trained ones require a gradient; the blueprint's `moves_shared` says when they are trained.
        """
        return {}

    def start_memory(self) -> Tensors:
        """The initial memory."""
        return {}

    def start(self, tasks: Sequence[int]) -> Tensors:
        """The initial per-task state of `tasks`, each tensor with a leading task axis.

        Trained tensors require a gradient. A task's values depend only on the trial's seed and the task, not on the
        other tasks. Not called if tasks are not told.
        """
        del tasks
        return {}

    def prepare(self, task: int | None, images_Nd: torch.Tensor) -> torch.Tensor:
        """The input of `logits` for a task's images, computed once; by default the bytes themselves.

        Args:
            task: the task of the images; None if it is not told.
            images_Nd: images as unsigned bytes.

        Returns:
            [N, ...].
        """
        del task
        return images_Nd

    @abstractmethod
    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """Class scores of prepared images, using each task's own part of `state`.

        Args:
            state: as above.
            images: prepared images [G, B, ...].
            training: whether batch normalisation uses the batch's statistics.
            moved: in training, receives the new running statistics by name; None: they are discarded.

        Returns:
            [G, B, m].
        """

    def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
        """Changes before a segment is learned, if its beginning is told; if interrupted, it is run again from scratch.

        Args:
            state: the state after the previous segment.
            examples: the segment's training examples.
            rate: the learning rate.

        Returns:
            New values by name, of memory or trained tensors.
        """
        del state, examples, rate
        return {}

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The loss and scores of a batch; by default, the cross-entropy of its labels."""
        moved: Tensors = {}
        logits_GBm = self.logits(state, batch.images, training=True, moved=moved)
        loss_G = losses.cross_entropy(logits_GBm, batch.labels)
        return Step(loss_G=loss_G, logits_GBm=logits_GBm, moved=moved)

    def adjust(self, state: Tensors, batch: Batch, gradients: Tensors) -> tuple[Tensors, Tensors]:
        """The gradients to pass to the optimiser, by name, and new values of memory by name."""
        del state, batch
        return gradients, {}

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        """New values of memory by name after a segment is learned, if its end is told.

        If interrupted, it is run again from scratch.
        """
        del state, examples
        return {}

    def activity(self, state: Tensors, images: torch.Tensor) -> Tensors:
        """What a trial's record should say of how units treat images: means by class are kept at the trial's end.

        Called with test images after everything is learned, where one network answers for all tasks.

        Args:
            state: the shared tensors and the memory.
            images: prepared images [B, ...].

        Returns:
            Values [B, ...] by name; by default none.
        """
        del state, images
        return {}

    def rate(self, segment: int, rate: float) -> float:
        """The learning rate of a segment, counted from 0, given the trial's learning rate."""
        del segment
        return rate

    def pack(self, state: Tensors) -> Tensors:
        """What to keep of the per-task state of learned tasks, with a leading task axis: all that is not constant."""
        return state

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """The per-task state of `tasks`, which gives the same logits as the state that was packed."""
        del tasks
        return kept

    def needed_to_predict(self, shared: Tensors) -> Tensors:
        """The shared weights to write if the trial stores its weights."""
        return shared


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleFamily:
    """A family of scales: a regular expression with one group, a number, and examples for error messages."""

    pattern: str
    examples: str

    def matches(self, scale: str) -> bool:
        """Whether the scale is one of the family."""
        return re.fullmatch(self.pattern, scale) is not None


def trained_from(backbone: Tensors) -> Tensors:
    """Trainable shared weights, initialised as drawn: `<layer>.weight` for every layer."""
    return {f"{name}.weight": weight.detach().requires_grad_() for name, weight in backbone.items()}


FULLY_CONNECTED = ScaleFamily(pattern=r"FC([1-9][0-9]{0,5})", examples="FC256 or FC4096")
"""FC_H: two hidden layers of H units."""


NetworkFactory: TypeAlias = "Callable[[tuple[int, int, int], int], torch.nn.Module]"
"""Builds a network for images [C, H, W] and a number of classes: it maps normalised images [B, C, H, W] to the class
scores [B, m]."""

NETWORKS: Registry[NetworkFactory] = Registry("network", {})
"""The networks of plug-ins; the built-in ones are families of scales."""


class ScaleError(InvalidError):
    """A scale that the method does not have."""


def unknown_scale(scale: str, examples: str) -> ScaleError:
    """The error for a scale that a method does not have.

    Args:
        scale: the scale.
        examples: some that it has.
    """
    if scale not in NETWORKS:
        return ScaleError("unknown-scale", f"scale: expected one such as {examples}; given {scale!r}")
    return ScaleError(
        "scale-of-other-methods",
        f"scale: expected one such as {examples}, since this method works on the layers of a built-in network; given "
        f"{scale!r}, a network of your own, which methods with a plain network train, such as finetune, er or ewc",
    )


def parse_scale(scale: str, family: ScaleFamily) -> int:
    """The number in a scale such as FC256.

    Raises:
        ScaleError: the scale is not one of the family.
    """
    match = re.fullmatch(family.pattern, scale)
    if match is None:
        raise unknown_scale(scale, family.examples)
    return int(match[1])


def check_range(low_name: str, low: float, high_name: str, high: float) -> None:
    """Check that a range is not inverted.

    Raises:
        ValueError: it is.
    """
    if low > high:
        raise InvalidError("range-inverted", f"{low_name}: expected at most {high_name} ({high}), given {low}")
