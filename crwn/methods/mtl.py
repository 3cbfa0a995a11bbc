"""MTL, multi-task learning: one plain network learns all tasks jointly. Not continual: the reference for the others.

Source: the first row of Table 1 of CRWN (Hong & Pavlic, arXiv:2204.04297). FC_H is d -> H -> H -> m with ReLU between,
no biases; one head of m classes for all tasks, which is not told the task. T times the updates of one task, each batch
mixed uniformly over the tasks.

Our choices, where the paper is silent: weights are initialised from N(0, 2/fan_in); RMSProp at 1e-4.

Shapes: G tasks, B examples, d values per image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.networks import (
    drawn_normal,
    fully_connected,
    in_a_row,
    num_weights,
    parse_network,
    plain_multiply_adds,
)
from crwn.methods.protocol import (
    FULLY_CONNECTED,
    Method,
    Surroundings,
    Tensors,
    parse_scale,
    trained_from,
)
from crwn.spec import READ_STRICTLY, Blueprint, PositiveFloat, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense, weights
else:
    dense = LazyModule("crwn.nn.dense")
    weights = LazyModule("crwn.nn.weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class MTLSpec:
    """MTL's settings.

    Attributes:
        weight_gain: the variance of the initial weights is this divided by the layer's fan-in.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("mtl")
    weight_gain: PositiveFloat = 2.0

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """RMSProp at 1e-4."""
        del scale
        return TrainingSpec(learning_rate=1e-4)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """FC_H, trained by all tasks (FC256 on 784 pixels: 268,800).

        Raises:
            ValueError: MTL does not have this scale.
        """
        hidden = parse_scale(scale, FULLY_CONNECTED)
        network = fully_connected(problem, hidden)
        weights = num_weights(network)
        return Blueprint(
            params_per_task=weights,
            trained_per_task=weights,
            stored_per_task=0,
            stored_shared=weights,
            moves_shared="always",
            presentation="together",
            needs=frozenset(),
            multiply_adds=plain_multiply_adds(network),
            activations=2 * hidden + problem.input_size + problem.num_classes,
            backbone=drawn_normal(network, seed, lambda layer: (self.weight_gain / layer.fan_in) ** 0.5),
        )


class MTL(Method):
    """The learner: shared weights only, no per-task tensors."""

    def __init__(self, spec: MTLSpec, surroundings: Surroundings) -> None:
        del spec  # it only determines the initial weights
        self._surroundings = surroundings
        self._network = parse_network(surroundings.scale, surroundings.problem)

    def start_shared(self) -> Tensors:
        """The drawn weights, trainable."""
        return trained_from(self._surroundings.backbone)

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        del training, moved

        kernel, dtype = self._surroundings.kernel, self._surroundings.product_dtype

        def layer(name: str) -> dense.DenseLayer:
            return dense.DenseLayer(weight=weights.SharedWeight(state[f"{name}.weight"].to(dtype), kernel))

        pixels = self._surroundings.normalised(images)
        return self._network.forward(pixels, linears=in_a_row(layer, kernel), conv_weight=None, norm=None)
