"""SupSup, task given: over fixed weights each task learns a binary mask, the "supermask" that it uses.

Source: Wortsman et al. 2020, "Supermasks in Superposition", arXiv:2006.14769, scenario GG. Fixed weights are
sign * sqrt(2/fan_in); scores start kaiming-uniform (a = sqrt 5), that is uniform in +-1/sqrt(fan_in), and are trained
straight through the threshold mask = (score >= 0). FC_H is d -> H -> H -> m with ReLU between, no biases.

All weights of a layer have one magnitude, so some sums cancel exactly and rounding decides the slope of their ReLU.
Other numerics then train a slightly different mask: between two instruction sets, in float64 on digits, a test loss
moved by 5e-4 of itself and an accuracy by 2 of 360 images.

Shapes: G tasks, B examples a task, d numbers an image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crwn.backbone import ArraySpec, BackboneSpec
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
from crwn.spec import READ_STRICTLY, Blueprint, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.nn import masked
else:
    torch = LazyModule("torch")
    masked = LazyModule("crwn.nn.masked")


@dataclass(frozen=True, slots=True, kw_only=True)
class SupSupSpec:
    """SupSup has no settings of its own besides the training."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("supsup")

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self) -> TrainingSpec:
        """The published: RMSProp at 1e-4."""
        return TrainingSpec(learning_rate=1e-4)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """FC_H, with a score and a mask bit for every weight (FC256 on 784 pixels: 268,800)."""
        layers = fully_connected_layers(problem, parse_scale(scale, FULLY_CONNECTED))
        num_weights = sum(o * i for o, i in layers.values())
        first_out, first_in = layers["layer1"]
        return Blueprint(
            grouping="any",
            params_per_task=num_weights,
            trained_per_task=num_weights,
            stored_per_task=num_weights,
            # forward, and gradients to scores and inputs; the images need none
            multiply_adds=3 * num_weights - first_out * first_in,
            activations=sum(i for _, i in layers.values()) + problem.num_classes,
            backbone=BackboneSpec(
                seed=seed,
                arrays=tuple(
                    ArraySpec(name=name, shape=(o, i), distribution="signed-constant", parameter=(2 / i) ** 0.5)
                    for name, (o, i) in layers.items()
                ),
            ),
        )


class SupSup(Method):
    """The learner: per task and layer scores [O, I]; of a learned task only the mask's bits are kept."""

    def __init__(self, spec: SupSupSpec, surroundings: Surroundings) -> None:
        del spec  # it has no settings
        self._surroundings = surroundings
        self._weights = {n: weight.to(surroundings.product_dtype) for n, weight in surroundings.backbone.items()}

    def start_shared(self) -> Tensors:
        """All shared weights are frozen."""
        return {}

    def start(self, tasks: Sequence[int]) -> Tensors:
        """Scores drawn anew for each task."""
        state = {}
        for name, weight_OI in self._surroundings.backbone.items():
            bound = weight_OI.shape[1] ** -0.5
            scores_GOI = self._surroundings.draw(tasks, f"{name}.scores", tuple(weight_OI.shape), -bound, bound)
            state[f"{name}.scores"] = scores_GOI.requires_grad_()
        return state

    def logits(self, state: Tensors, images_GBd: torch.Tensor) -> torch.Tensor:
        """The layers in order under each task's masks."""

        def layer(name: str, input_GBI: torch.Tensor) -> torch.Tensor:
            weight_OI, scores_GOI = self._weights[name], state[f"{name}.scores"]
            return masked.masked_linear(input_GBI, weight_OI, scores_GOI, self._surroundings.kernel)

        return fully_connected(self._surroundings.normalised(images_GBd), layer)

    def pack(self, state: Tensors) -> Tensors:
        """The masks, eight entries a byte (`numpy.packbits`, little-endian, row by row): [G, ceil(O I / 8)]."""
        packed = {}
        for name in self._surroundings.backbone:
            bits_GN = (state[f"{name}.scores"] >= 0).flatten(1).cpu().numpy()
            packed[f"{name}.mask"] = torch.from_numpy(np.packbits(bits_GN, axis=1, bitorder="little"))
        return packed

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """Scores of +-1 whose threshold is the mask."""
        del tasks
        surroundings, state = self._surroundings, {}
        for name, weight_OI in surroundings.backbone.items():
            bits = np.unpackbits(kept[f"{name}.mask"].cpu().numpy(), axis=1, count=weight_OI.numel(), bitorder="little")
            signs_GN = torch.from_numpy(bits).to(device=surroundings.device, dtype=surroundings.dtype) * 2 - 1
            state[f"{name}.scores"] = signs_GN.unflatten(1, tuple(weight_OI.shape))
        return state
