"""Fine-tuning: one network learns one task after another, with no measure against forgetting. The lower bound.

Source: the baseline `SGD` of mammoth (github.com/aimagelab/mammoth, `models/sgd.py`); settings for sequential MNIST of
its `utils/best_args.py`: learning rate 0.03, batches of 10, one epoch per task.

Shapes: G lanes, B examples per lane, m classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import READ_STRICTLY, Blueprint, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.batches import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec:
    """Fine-tuning's settings.

    Attributes:
        biases: whether FC_H has biases.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("finetune")
    biases: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """mammoth's settings: SGD at 0.03."""
        del scale
        return plain_training(0.03)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network (FC100 on 784 pixels, with biases: 89,610)."""
        return plain_blueprint(scale, problem, seed, biases=self.biases)


class Finetune(Method):
    """The learner: a plain network, trained by cross-entropy."""

    def __init__(self, spec: FinetuneSpec, surroundings: Surroundings) -> None:
        self._network = PlainNetwork(surroundings, biases=spec.biases)

    @property
    def learns_by_hand(self) -> bool:
        """If the network does."""
        return self._network.by_hand

    def start_shared(self) -> Tensors:
        """The network's initial state."""
        return self._network.start()

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The network's step: the cross-entropy of the batch."""
        return self._network.learn(state, batch)
