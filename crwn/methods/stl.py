"""STL, single-task learning: a network of its own for every task. Nothing is shared, so nothing is forgotten.

Source: the upper bound of CRWN (Hong & Pavlic, arXiv:2204.04297), there for the ResNets. FC_H is d -> H -> H -> m with
ReLU between, no biases.

Our choices: weights start from N(0, 2/fan_in), drawn anew for each task; RMSProp at 1e-4.

Shapes: G tasks, B examples a task, d numbers an image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.backbone import BackboneSpec
from crwn.lazy import LazyModule
from crwn.methods.protocol import (
    FULLY_CONNECTED,
    Method,
    Surroundings,
    Tensors,
    fully_connected,
    fully_connected_layers,
    parse_scale,
)
from crwn.spec import READ_STRICTLY, Blueprint, PositiveFloat, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense
else:
    dense = LazyModule("crwn.nn.dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class STLSpec:
    """STL's settings.

    Attributes:
        weight_gain: the variance of the first weights is this over the layer's inputs.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("stl")
    weight_gain: PositiveFloat = 2.0

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self) -> TrainingSpec:
        """RMSProp at 1e-4."""
        return TrainingSpec(learning_rate=1e-4)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """FC_H for every task (FC256 on 784 pixels: 268,800)."""
        hidden = parse_scale(scale, FULLY_CONNECTED)
        num_weights = sum(o * i for o, i in fully_connected_layers(problem, hidden).values())
        return Blueprint(
            grouping="any",
            params_per_task=num_weights,
            trained_per_task=num_weights,
            stored_per_task=num_weights,
            keeps_weights=True,
            multiply_adds=3 * num_weights - hidden * problem.input_size,  # forward and gradients; the images need none
            activations=2 * hidden + problem.input_size + problem.num_classes,
            backbone=BackboneSpec(seed=seed, arrays=()),
        )


class STL(Method):
    """The learner: per task the weights [O, I] of every layer."""

    def __init__(self, spec: STLSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._layers = fully_connected_layers(surroundings.problem, parse_scale(surroundings.scale, FULLY_CONNECTED))

    def start_shared(self) -> Tensors:
        """Nothing is shared."""
        return {}

    def start(self, tasks: Sequence[int]) -> Tensors:
        """Weights drawn anew for each task."""
        state = {}
        for name, (num_outputs, num_inputs) in self._layers.items():
            std = (self._spec.weight_gain / num_inputs) ** 0.5
            weight_GOI = self._surroundings.draw_normal(tasks, f"{name}.weight", (num_outputs, num_inputs), std)
            state[f"{name}.weight"] = weight_GOI.requires_grad_()
        return state

    def logits(self, state: Tensors, images_GBd: torch.Tensor) -> torch.Tensor:
        """Each task through its own network."""

        def layer(name: str, input_GBI: torch.Tensor) -> torch.Tensor:
            return dense.own_linear(input_GBI, state[f"{name}.weight"].to(input_GBI.dtype), self._surroundings.kernel)

        return fully_connected(self._surroundings.normalised(images_GBd), layer)

    def pack(self, state: Tensors) -> Tensors:
        """The weights as they are."""
        return state

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """The weights as they are."""
        del tasks
        return kept
