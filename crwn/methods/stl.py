"""STL, single-task learning: one separate network per task. Nothing is shared, so nothing is forgotten.

Source: the upper bound of CRWN (Hong & Pavlic, arXiv:2204.04297), which uses it for ResNets. FC_H is d -> H -> H -> m
with ReLU between, no biases; a ResNet-18 has batch normalisation with gain and shift.

Our choices: weights are initialised from N(0, 2/fan_in), drawn anew for each task; RMSProp at 1e-4.

Shapes: G tasks, B examples per task, d values per image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.backbone import BackboneSpec
from crwn.lazy import LazyModule
from crwn.methods.networks import (
    in_a_row,
    normalise,
    num_statistics,
    num_weights,
    paper_training,
    parse_network,
    plain_multiply_adds,
    start_statistics,
)
from crwn.methods.protocol import (
    Method,
    Surroundings,
    Tensors,
)
from crwn.spec import READ_STRICTLY, Blueprint, PositiveFloat, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense, weights
else:
    torch = LazyModule("torch")
    dense = LazyModule("crwn.nn.dense")
    weights = LazyModule("crwn.nn.weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class STLSpec:
    """STL's settings.

    Attributes:
        weight_gain: the variance of the initial weights is this divided by the layer's fan-in.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("stl")
    weight_gain: PositiveFloat = 2.0

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """RMSProp at 1e-4; for a ResNet, the paper's settings, Adam from 1e-3."""
        return paper_training(scale, fully_connected_rate=1e-4, resnet_rate=1e-3)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network per task (FC256 on 784 pixels: 268,800), with gains and shifts if it is batch-normalised."""
        network = parse_network(scale, problem)
        weights = num_weights(network) + 2 * sum(network.normalised.values())
        return Blueprint(
            params_per_task=weights,
            trained_per_task=weights,
            stored_per_task=weights,
            keeps_weights=True,
            statistics_per_task=num_statistics(network),
            multiply_adds=plain_multiply_adds(network),
            activations=network.activations,
            backbone=BackboneSpec(seed=seed, arrays=()),
        )


class STL(Method):
    """The learner: per task, the weights of every layer, and gain and shift [C] of every normalised layer."""

    def __init__(self, spec: STLSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = parse_network(surroundings.scale, surroundings.problem)

    def start(self, tasks: Sequence[int]) -> Tensors:
        """Weights drawn anew for each task, gains of 1 and shifts of 0."""
        surroundings = self._surroundings
        state: Tensors = {}
        for name, layer in self._network.layers.items():
            std = (self._spec.weight_gain / layer.fan_in) ** 0.5
            state[f"{name}.weight"] = surroundings.draw_normal(tasks, f"{name}.weight", layer.shape, std)
        for name, channels in self._network.normalised.items():
            gain_GC = torch.ones(len(tasks), channels, device=surroundings.device, dtype=surroundings.dtype)
            state |= {f"{name}.gain": gain_GC, f"{name}.shift": torch.zeros_like(gain_GC)}
        trained = {name: tensor.requires_grad_() for name, tensor in state.items()}
        return start_statistics(self._network, surroundings, tasks) | trained

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The class scores of each task's own network."""
        kernel, dtype = self._surroundings.kernel, self._surroundings.product_dtype

        def conv_weight(name: str) -> torch.Tensor:
            return state[f"{name}.weight"]

        def layer(name: str) -> dense.DenseLayer:
            return dense.DenseLayer(weight=weights.OwnWeight(state[f"{name}.weight"].to(dtype), kernel))

        pixels, norm = self._surroundings.normalised(images), normalise(state, training=training, moved=moved)
        return self._network.forward(pixels, linears=in_a_row(layer, kernel), conv_weight=conv_weight, norm=norm)
