"""SupSup, task given: each task learns a binary mask, its "supermask", over fixed random weights.

Source: Wortsman et al. 2020, "Supermasks in Superposition", arXiv:2006.14769, scenario GG. Fixed weights are
sign * sqrt(2/fan_in); scores are initialised kaiming-uniform (a = sqrt 5), that is uniform in +-1/sqrt(fan_in), and
trained straight through the threshold mask = (score >= 0). FC_H is d -> H -> H -> m with ReLU between, no biases.

In a ResNet-18, a layer's mask keeps the share min(0.5, s (I + O) / (I O k^2)) of its weights, those whose scores are
largest in magnitude, with s = 32, the densest published (our choice). Batch normalisation has no gain and shift, and
separate running statistics per task.

All weights of a layer have the same magnitude, so some sums cancel exactly and rounding decides the slope of their
ReLU. Different numerics then train slightly different masks: between two instruction sets, in float64 on digits, a test
loss changed by a relative 5e-4 and an accuracy by 2 of 360 images.

Shapes: G tasks, B examples per task, d values per image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from crwn.backbone import ArraySpec, BackboneSpec
from crwn.lazy import LazyModule
from crwn.methods.networks import (
    Layer,
    Network,
    in_a_row,
    normalise,
    num_statistics,
    num_weights,
    paper_training,
    parse_network,
    plain_multiply_adds,
    start_statistics,
    statistics_of,
)
from crwn.methods.protocol import (
    Method,
    Surroundings,
    Tensors,
)
from crwn.spec import (
    READ_STRICTLY,
    Blueprint,
    PositiveFloat,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
    later_field,
)

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense, masked, weights
else:
    torch = LazyModule("torch")
    dense = LazyModule("crwn.nn.dense")
    masked = LazyModule("crwn.nn.masked")
    weights = LazyModule("crwn.nn.weights")


MAX_SHARE = 0.5
"""The largest share of a layer's weights that a budget keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupSupSpec:
    """SupSup's settings.

    Attributes:
        mask: `threshold` keeps weights with scores of at least 0; `budget`, a share of each layer's weights, those
            whose scores are largest in magnitude; `published`, the threshold for FC_H and the budget for ResNets.
        budget: s, which determines the shares; larger values give denser masks.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("supsup")
    mask: Literal["published", "threshold", "budget"] = later_field("published")
    budget: PositiveFloat = later_field(32.0)

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """The published settings: RMSProp at 1e-4, or Adam from 1e-3 for a ResNet."""
        return paper_training(scale, fully_connected_rate=1e-4, resnet_rate=1e-3)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """A network with a score and a mask bit per weight (FC256 on 784 pixels: 268,800)."""
        network = parse_network(scale, problem)
        weights = num_weights(network)
        return Blueprint(
            params_per_task=weights,
            trained_per_task=weights,
            stored_per_task=weights,
            statistics_per_task=num_statistics(network),
            multiply_adds=plain_multiply_adds(network),  # scores cost as much as weights
            activations=network.activations,
            backbone=BackboneSpec(
                seed=seed,
                arrays=tuple(_signs(name, layer) for name, layer in network.layers.items()),
            ),
        )


def _signs(name: str, layer: Layer) -> ArraySpec:
    magnitude = (2 / layer.fan_in) ** 0.5
    return ArraySpec(name=name, shape=layer.shape, distribution="signed-constant", parameter=magnitude)


def kept_shares(spec: SupSupSpec, network: Network) -> dict[str, float]:
    """The share of a layer's weights that its mask keeps, by name, for layers whose masks have a budget.

    With a budget: min(0.5, s (I + O) / (I O k^2)) for every layer, with the spec's s. With the threshold, which is also
    the published mask of FC_H: none.
    """
    if spec.mask == "threshold" or (spec.mask == "published" and not network.normalised):
        return {}
    return {
        name: min(MAX_SHARE, spec.budget * sum(layer.shape[:2]) / layer.num_weights)
        for name, layer in network.layers.items()
    }


class SupSup(Method):
    """The learner: per task and layer, scores in the weights' shape; of a learned task only mask bits are kept."""

    def __init__(self, spec: SupSupSpec, surroundings: Surroundings) -> None:
        self._network = parse_network(surroundings.scale, surroundings.problem)
        self._shares = kept_shares(spec, self._network)
        self._surroundings = surroundings

    def start(self, tasks: Sequence[int]) -> Tensors:
        """Scores drawn anew for each task."""
        state = start_statistics(self._network, self._surroundings, tasks)
        for name, layer in self._network.layers.items():
            bound = layer.fan_in**-0.5
            scores_GX = self._surroundings.draw(tasks, f"{name}.scores", layer.shape, -bound, bound)
            state[f"{name}.scores"] = scores_GX.requires_grad_()
        return state

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The class scores: the layers in order, under each task's masks."""
        backbone, dtype = self._surroundings.backbone, self._surroundings.product_dtype
        kernel = self._surroundings.kernel

        def weight(name: str) -> torch.Tensor:
            weight_X, scores_GX, share = backbone[name], state[f"{name}.scores"], self._shares.get(name)
            if share is None:
                return masked.masked_weights(scores_GX, weight_X, dtype)
            return masked.budget_masked_weights(scores_GX, weight_X, share, dtype)

        def layer(name: str) -> dense.DenseLayer:
            if name in self._shares:
                return dense.DenseLayer(weight=weights.OwnWeight(weight(name), kernel))
            return dense.DenseLayer(weight=weights.MaskedWeight(state[f"{name}.scores"], backbone[name], dtype, kernel))

        pixels, norm = self._surroundings.normalised(images), normalise(state, training=training, moved=moved)
        return self._network.forward(pixels, linears=in_a_row(layer, kernel), conv_weight=weight, norm=norm)

    def pack(self, state: Tensors) -> Tensors:
        """The masks, eight entries per byte (`numpy.packbits`, little-endian, row by row): [G, ceil(O I / 8)].

        Running statistics are kept unchanged.
        """
        packed = {name: state[name] for name in statistics_of(self._network)}
        for name in self._surroundings.backbone:
            scores_GX, share = state[f"{name}.scores"], self._shares.get(name)
            mask_GX = scores_GX >= 0 if share is None else masked.budget_mask(scores_GX, share).bool()
            packed[f"{name}.mask"] = masked.packed_bits(mask_GX.flatten(1))
        return packed

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """Scores that reproduce the mask: 1 for kept weights, else -1 with the threshold or 0 with a budget."""
        del tasks
        surroundings = self._surroundings
        state = {name: kept[name] for name in statistics_of(self._network)}
        for name, weight_OI in surroundings.backbone.items():
            marks_GN = masked.unpacked_bits(kept[f"{name}.mask"], weight_OI.numel()).to(surroundings.dtype)
            scores_GN = 2 * marks_GN - 1 if name not in self._shares else marks_GN
            state[f"{name}.scores"] = scores_GN.unflatten(1, tuple(weight_OI.shape))
        return state
