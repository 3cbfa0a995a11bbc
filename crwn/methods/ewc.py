"""Online EWC, elastic weight consolidation: weights that earlier tasks depend on are pulled towards their old values.

Source: Kirkpatrick et al. 2017 (arXiv:1612.00796), online as in Schwarz et al. 2018, "Progress & Compress"
(arXiv:1805.06370), section 3.2, as implemented in mammoth (github.com/aimagelab/mammoth, `models/ewc_on.py`; settings
of `utils/best_args.py` for sequential MNIST: learning rate 0.03, batches of 10, strength 90, gamma 1, one epoch):

    L = mean of -log p(y|x) + strength sum of F (theta - theta*)^2
    when a task ends: F <- gamma F + mean over its examples of p(y|x) (d log p(y|x) / d theta)^2, theta* <- theta

with the true label y. The weight p(y|x) is mammoth's; the definition samples y from p instead. The penalty has no
factor 1/2. F is computed with batch normalisation in evaluation mode (mammoth: in training mode, in batches of one).

Shapes: G = 1 lane, B examples, m classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import annotated_types

from crwn.methods.anchors import pulled, start_anchors
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import READ_STRICTLY, Blueprint, NotNegative, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.batches import Batch, Examples


@dataclass(frozen=True, slots=True, kw_only=True)
class EWCSpec:
    """Online EWC's settings.

    Attributes:
        strength: strength of the penalty, lambda; with 0, the method is fine-tuning.
        gamma: fraction of the importance of earlier tasks that remains when another task ends.
        biases: whether FC_H has biases.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("ewc")
    strength: NotNegative = 90.0
    gamma: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = 1.0
    biases: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """mammoth's settings: SGD at 0.03."""
        del scale
        return plain_training(0.03)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network, with an anchor and an importance per parameter."""
        return plain_blueprint(scale, problem, seed, biases=self.biases, needs=frozenset({"ends"}), memories=2)


class EWC(Method):
    """The learner: a plain network whose weights are pulled towards their old values."""

    def __init__(self, spec: EWCSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._network = PlainNetwork(surroundings, biases=spec.biases)

    @property
    def learns_by_hand(self) -> bool:
        """If the network does."""
        return self._network.by_hand

    def start_shared(self) -> Tensors:
        """The network's initial state."""
        return self._network.start()

    def start_memory(self) -> Tensors:
        """Anchors at the initial weights, and importances of 0."""
        return start_anchors(self._network.start())

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The network's step: the cross-entropy of the batch."""
        return self._network.learn(state, batch)

    def adjust(self, state: Tensors, batch: Batch, gradients: Tensors) -> tuple[Tensors, Tensors]:
        """Add the penalty's gradient, from the second task on."""
        return gradients if batch.segment == 0 else pulled(gradients, state, self._spec.strength), {}

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        """Importances that include the task's, and anchors at the current weights."""
        if self._spec.strength == 0:
            return {}
        moved = {name: self._spec.gamma * tensor for name, tensor in state.items() if name.startswith("importance.")}
        for name, square in self.fisher(state, examples).items():
            moved[f"importance.{name}"] = moved[f"importance.{name}"] + square
            moved[f"anchor.{name}"] = state[name].detach().clone()
        return moved

    def fisher(self, state: Tensors, examples: Examples, batch_size: int | None = None) -> Tensors:
        """The mean over a task's examples of p(y|x) (d log p(y|x))^2, by the name of the trained tensor.

        Args:
            state: the network's state.
            examples: the task's examples.
            batch_size: examples per batch, which affects only the time.
        """
        sums: Tensors = {}
        for split in examples.batches(batch_size or self._network.examples_at_once):
            for name, square in self._network.squared_gradients(state, split.images[0], split.labels[0]).items():
                sums[name] = sums[name] + square if name in sums else square
        return {name: total / examples.num_examples for name, total in sums.items()}
