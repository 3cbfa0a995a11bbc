"""SI, synaptic intelligence: weights whose movement lowered the loss are pulled towards their old values.

Source: Zenke et al. 2017, "Continual Learning Through Synaptic Intelligence" (arXiv:1703.04200), equations 3 to 5, as
implemented in mammoth (github.com/aimagelab/mammoth, `models/si.py`; settings of `utils/best_args.py` for sequential
MNIST: learning rate 0.1, batches of 10, c 1, xi 0.9, one epoch):

    L = mean of -log p(y|x) + c sum of Omega (theta - theta*)^2
    when a task ends: Omega <- Omega + sum over its updates of rate g^2 / ((theta - theta*)^2 + xi), theta* <- theta

where g is the gradient of L, clipped elementwise to [-1, 1], which the optimiser also uses. (The paper sums the
loss's gradient times the weight's change; for plain SGD without a penalty, that is the same.)

Shapes: G = 1 lane, B examples, m classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.anchors import pulled, start_anchors
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import (
    READ_STRICTLY,
    Blueprint,
    NotNegative,
    PositiveFloat,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
)

if TYPE_CHECKING:
    import torch

    from crwn.batches import Batch, Examples
else:
    torch = LazyModule("torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class SISpec:
    """SI's settings.

    Attributes:
        strength: strength of the penalty, c.
        damping: xi, which bounds the importance of weights that hardly changed.
        biases: whether FC_H has biases.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("si")
    strength: NotNegative = 1.0
    damping: PositiveFloat = 0.9
    biases: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """mammoth's settings: SGD at 0.1."""
        del scale
        return plain_training(0.1)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network, with an anchor, an importance and the current task's path integral per parameter."""
        return plain_blueprint(scale, problem, seed, biases=self.biases, needs=frozenset({"ends"}), memories=3)


class SI(Method):
    """The learner: a plain network whose weights are pulled towards their old values."""

    def __init__(self, spec: SISpec, surroundings: Surroundings) -> None:
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
        """Anchors at the initial weights, importances of 0, and path integrals of 0."""
        memory = start_anchors(self._network.start())
        anchors = {name.removeprefix("anchor."): t for name, t in memory.items() if name.startswith("anchor.")}
        return memory | {f"path.{name}": torch.zeros_like(tensor) for name, tensor in anchors.items()}

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The network's step: the cross-entropy of the batch."""
        return self._network.learn(state, batch)

    def adjust(self, state: Tensors, batch: Batch, gradients: Tensors) -> tuple[Tensors, Tensors]:
        """Add the penalty's gradient, from the second task on, clip all gradients, and extend the path integrals."""
        if batch.segment:
            gradients = pulled(gradients, state, self._spec.strength)
        gradients = {name: gradient.clamp(-1, 1) for name, gradient in gradients.items()}
        paths = {
            f"path.{name}": torch.addcmul(state[f"path.{name}"], gradient, gradient, value=batch.rate)
            for name, gradient in gradients.items()
        }
        return gradients, paths

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        """Importances that include the task's, anchors at the current weights, and path integrals of 0."""
        del examples
        moved: Tensors = {}
        for name in [name.removeprefix("path.") for name in state if name.startswith("path.")]:
            weight, path = state[name].detach(), state[f"path.{name}"]
            shift = weight - state[f"anchor.{name}"]
            moved[f"importance.{name}"] = state[f"importance.{name}"] + path / (shift.square() + self._spec.damping)
            moved[f"anchor.{name}"] = weight.clone()
            moved[f"path.{name}"] = torch.zeros_like(path)
        return moved
