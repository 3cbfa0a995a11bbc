"""Mine: fine-tuning, with weights pulled towards their values at the end of the previous task. Describe yours here.

Source: name the paper and the equations, and say where this deviates from them.

A method is four things: a frozen spec (its settings, which a sweep may change), a blueprint (what it builds, known
without building it), a learner (the hooks of `crwn.methods.protocol.Method` that it needs), and its name below.

Shapes: G lanes (tasks learned at once; here 1), B examples per lane, m classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.methods import MethodEntry
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import READ_STRICTLY, Blueprint, NotNegative, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:  # sweeps are read without torch, which takes seconds to import
    import torch

    from crwn.batches import Batch, Examples


@dataclass(frozen=True, slots=True, kw_only=True)
class MineSpec:
    """Mine's settings, with their defaults.

    Attributes:
        strength: of the pull; with 0, the method is fine-tuning.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("mine")
    strength: NotNegative = 0.1

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """Default training: one epoch of SGD per task, in batches of 10."""
        del scale
        return plain_training(0.03)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network, and one number in memory per trained number; it needs to be told when a task ends."""
        return plain_blueprint(scale, problem, seed, biases=True, needs=frozenset({"ends"}), memories=1)


class Mine(Method):
    """The learner: a plain network; memory holds its weights at the end of the last task."""

    def __init__(self, spec: MineSpec, surroundings: Surroundings) -> None:
        self._strength = spec.strength
        self._network = PlainNetwork(surroundings, biases=True)

    def start_shared(self) -> Tensors:
        """The network's initial weights, which all tasks share and train."""
        return self._network.start()

    def start_memory(self) -> Tensors:
        """What the method remembers; it is in every resume point. Here: an anchor per weight, by the weight's name."""
        trained = {name: tensor for name, tensor in self.start_shared().items() if tensor.requires_grad}
        return {f"anchor.{name}": tensor.detach().clone() for name, tensor in trained.items()}

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The class scores [G, B, m]."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The loss of a batch: its cross-entropy, and half the squared distance to the anchors, times the strength."""
        step = super().learn(state, batch)
        distances = [(state[anchor] - state[name]).square().sum() for name, anchor in self._anchors(state)]
        return dataclasses.replace(step, loss_G=step.loss_G + self._strength / 2 * sum(distances))

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        """When a task ends: the anchors become the current weights."""
        del examples
        return {anchor: state[name].detach().clone() for name, anchor in self._anchors(state)}

    def _anchors(self, state: Tensors) -> list[tuple[str, str]]:
        """The name of each anchored weight, and of its anchor."""
        return [(name.removeprefix("anchor."), name) for name in state if name.startswith("anchor.")]


METHODS = {"mine": MethodEntry(spec=MineSpec, build=Mine)}
